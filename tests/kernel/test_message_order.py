"""Under interrupts, relaunches and deaths: balanced statuses, one reply each, the right parents."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Folders, Kernel, Start
from .conversation import Conversation, Exchange

ROUNDS = int(os.environ.get("MXC_KERNEL_STRESS", "2"))  # `make soak` sets more
STEPS = 40  # requests in a round


def _dies_when_told(folders: Folders) -> str:
    """Code that starts a process which kills the kernel as soon as the host writes a file."""
    told = folders.documents / "die"
    return (
        "import os, subprocess\n"
        "subprocess.Popen(['sh', '-c', 'until [ -e \"$0\" ]; do sleep 0.02; done; kill -9 \"$1\"', "
        f"{str(told)!r}, str(os.getpid())])\nNone"
    )


def _tell(folders: Folders) -> None:
    (folders.documents / "die").touch()


def _died(exchange: Exchange) -> bool:
    return exchange.content["ename"] == "SandboxExecutionError"


def test_a_death_in_a_cell_with_others_behind_it(kernel: Kernel, folders: Folders) -> None:
    talk = Conversation(kernel)
    talk.execute(_dies_when_told(folders))
    running = talk.execute("print('begun', flush=True)\nimport time; time.sleep(600)")
    behind = [
        talk.execute("1"),
        talk.send("complete_request", {"code": "pri", "cursor_pos": 3}),
        talk.send("inspect_request", {"code": "print", "cursor_pos": 5, "detail_level": 0}),
        talk.send("comm_info_request"),
        talk.send("usage_request", channel="control"),
    ]
    talk.take_until(lambda: "begun" in running.printed())
    _tell(folders)
    talk.settle()
    assert _died(running)
    assert behind[0].content["status"] == "aborted"
    talk.check()


def test_a_death_while_it_asks(kernel: Kernel, folders: Folders) -> None:
    talk = Conversation(kernel, answers=False)
    talk.execute(_dies_when_told(folders))
    asking = talk.execute("input('?')")
    talk.take_until(lambda: talk.questions)
    _tell(folders)
    talk.settle()
    assert _died(asking)
    kernel.client.input("too late")  # is for nobody, and the next cell's question gets its own
    again = talk.execute("input('again?')")
    talk.take_until(lambda: len(talk.questions) == 2)
    kernel.client.input("in time")
    talk.settle()
    (result,) = again.of_type("execute_result")
    assert result["content"]["data"]["text/plain"] == "'in time'"
    talk.check()


def test_a_death_in_a_comm_handler(kernel: Kernel, folders: Folders) -> None:
    talk = Conversation(kernel)
    talk.execute(
        f"{_dies_when_told(folders)}\n"
        "import time\n"
        "def stuck(message):\n"
        "    print('in the handler', flush=True); time.sleep(600)\n"
        "get_ipython().kernel.comm_manager.register_target('t', lambda c, m: c.on_msg(stuck))"
    )
    talk.send("comm_open", {"comm_id": "one", "target_name": "t", "data": {}})
    message = talk.send("comm_msg", {"comm_id": "one", "data": {}})
    more = [talk.send("comm_msg", {"comm_id": "one", "data": {}}) for _ in range(3)]
    talk.take_until(lambda: "in the handler" in message.printed())
    _tell(folders)
    talk.settle()
    assert all(each.states == ["busy", "idle"] for each in more)
    talk.check()


def test_a_death_at_a_breakpoint(kernel: Kernel, folders: Folders) -> None:
    code = "x = 1\ny = x + 1\nprint('passed')"
    talk = Conversation(kernel)
    talk.execute(_dies_when_told(folders))
    talk.settle()

    def debug(command: str, **arguments: Any) -> dict[str, Any]:
        message = {"type": "request", "seq": 1, "command": command, "arguments": arguments}
        exchange = talk.send("debug_request", message, channel="control")
        talk.take_until(lambda: exchange.settled)
        assert exchange.content["success"], exchange.content
        return exchange.content

    debug("initialize", adapterID="")
    debug("attach")
    path = debug("dumpCell", code=code)["body"]["sourcePath"]
    debug("setBreakpoints", breakpoints=[{"line": 2}], source={"path": path})
    debug("configurationDone")
    stopped = talk.execute(code)
    talk.take_until(
        lambda: any(m["content"]["event"] == "stopped" for m in talk.events), timeout=60
    )
    _tell(folders)
    talk.settle()
    assert _died(stopped)
    assert stopped.printed() == ""
    talk.check()


def test_a_death_with_a_subshell_at_work(kernel: Kernel, folders: Folders) -> None:
    talk = Conversation(kernel)
    talk.execute(_dies_when_told(folders))
    made = talk.send("create_subshell_request", channel="control")
    talk.settle()
    subshell = made.content["subshell_id"]
    sleep = "print('begun', flush=True)\nimport time; time.sleep(600)"
    cells = [talk.execute(sleep), talk.execute(sleep, subshell=subshell)]
    talk.take_until(lambda: all("begun" in cell.printed() for cell in cells))
    _tell(folders)
    talk.settle()
    assert all(_died(cell) for cell in cells)
    late = talk.execute("1", subshell=subshell)
    closed = talk.send("comm_close", {"comm_id": "one", "data": {}}, subshell=subshell)
    talk.settle()
    assert late.content["ename"] == "UnknownSubshellError"
    assert closed.states == ["busy", "idle"]
    talk.check()


def test_an_awaiting_cell_gets_its_comm_message_ahead_of_cells_in_the_queue(
    start: Start, ceiling: Path
) -> None:
    # A comm of no widget passes at this level alone.
    ceiling.write_text(ceiling.read_text() + '\n[output]\nhtml = "trusted"\n')
    talk = Conversation(start(ceiling))
    waiting = talk.execute(
        "import asyncio, comm\n"
        "answer = asyncio.get_running_loop().create_future()\n"
        "widget = comm.create_comm(target_name='t')\n"
        "widget.on_msg(lambda m: answer.set_result(m['content']['data']['value']))\n"
        "await answer"
    )
    talk.take_until(lambda: waiting.of_type("comm_open"))
    behind = talk.execute("answer.result()")
    (opened,) = waiting.of_type("comm_open")
    comm_id = opened["content"]["comm_id"]
    comm = talk.send("comm_msg", {"comm_id": comm_id, "data": {"value": 42}})
    talk.take_until(lambda: waiting.settled and behind.settled)
    for cell in (waiting, behind):
        (result,) = cell.of_type("execute_result")
        assert result["content"]["data"]["text/plain"] == "42"
    # ipykernel 7.4 tells no status of a comm message that it dispatches beside a cell.
    assert comm.states in ([], ["busy", "idle"])
    talk.exchanges = {key: each for key, each in talk.exchanges.items() if each is not comm}
    talk.check()


def test_a_comm_message_does_not_overtake_the_opening_of_its_comm(kernel: Kernel) -> None:
    talk = Conversation(kernel)
    first = talk.execute("print('begun', flush=True)\nimport time; time.sleep(0.5)")
    talk.take_until(lambda: "begun" in first.printed())
    talk.execute(
        "got = []\n"
        "def opened(comm, message): comm.on_msg(lambda m: got.append(m['content']['data']))\n"
        "get_ipython().kernel.comm_manager.register_target('t', opened)"
    )
    talk.send("comm_open", {"comm_id": "one", "target_name": "t", "data": {}})
    for number in range(3):
        talk.send("comm_msg", {"comm_id": "one", "data": {"n": number}})
    last = talk.execute("[m['n'] for m in got]")
    talk.settle()
    (result,) = last.of_type("execute_result")
    assert result["content"]["data"]["text/plain"] == "[0, 1, 2]"
    talk.check()


class _Storm:
    """Sends requests of every kind at random, without waiting for the answers."""

    def __init__(self, talk: Conversation, folders: Folders, seed: int) -> None:
        self.talk = talk
        self.random = random.Random(seed)
        self.downloads = folders.downloads
        self.subshells: list[Exchange] = []
        self.comms = 0
        self.steps = [
            (self.cell, 8),
            (self.magic, 3),
            (self.interrupt, 3),
            (self.question, 4),
            (self.comm, 3),
            (self.control, 2),
            (self.subshell, 2),
            (self.death, 1),
            (self.wait, 4),
        ]

    def run(self, steps: int) -> None:
        kinds, weights = zip(*self.steps, strict=True)
        for step in self.random.choices(kinds, weights, k=steps):
            step()

    def cell(self) -> None:
        code = self.random.choice(
            (
                "1 + 1",
                "print('x' * 10)",
                "1 / 0",
                "import time; time.sleep(0.05)",
                "import threading; threading.Timer(0.05, print, ('late',)).start()",
                "display('shown'); raise KeyError('k')",
                "import asyncio; await asyncio.sleep(0.05)",
                "!echo shell",
                "input('?')",
                "import comm; c = comm.create_comm(target_name='front'); c.send({}); c.close()",
                "not python at all",
                "raise SystemExit",
            )
        )
        stop = self.random.random() < 0.5
        silent = self.random.random() < 0.1
        self.talk.execute(code, stop_on_error=stop, silent=silent)

    def magic(self) -> None:
        self.talk.execute(
            self.random.choice(
                (
                    f"%allow_rw {self.downloads}\n'granted'",
                    f"%revoke {self.downloads}",
                    f"%%allow_rw {self.downloads}\n1 / 0",
                    "%%sandbox\nprint('elsewhere')",
                    "%%sandbox --out absent\n1",
                    "%sandbox restart",
                    "%policy",
                    "%checkpoint",
                    "%allow_rw /nowhere",
                )
            ),
            stop_on_error=False,
        )

    def interrupt(self) -> None:
        self.talk.send("interrupt_request", channel="control")

    def question(self) -> None:
        code = {"code": "pri", "cursor_pos": 3}
        self.talk.send(
            *self.random.choice(
                (
                    ("complete_request", code),
                    ("complete_request", {"code": "%allow_rw /", "cursor_pos": 11}),
                    ("inspect_request", {**code, "detail_level": 0}),
                    ("is_complete_request", {"code": "for"}),
                    ("history_request", {"hist_access_type": "tail", "n": 2, "output": False,
                                         "raw": True}),
                    ("kernel_info_request", {}),
                    ("comm_info_request", {}),
                )
            )
        )  # fmt: skip

    def comm(self) -> None:
        self.comms += 1
        comm_id = f"comm-{self.comms}"
        self.talk.send("comm_open", {"comm_id": comm_id, "target_name": "none", "data": {}})
        self.talk.send("comm_msg", {"comm_id": comm_id, "data": {}})
        self.talk.send("comm_close", {"comm_id": comm_id, "data": {}})

    def control(self) -> None:
        debug = {"type": "request", "seq": 1, "command": "debugInfo", "arguments": {}}
        self.talk.send(
            *self.random.choice(
                (
                    ("usage_request", {}),
                    ("kernel_info_request", {}),
                    ("list_subshell_request", {}),
                    ("debug_request", debug),
                    ("delete_subshell_request", {"subshell_id": "none"}),
                )
            ),
            channel="control",
        )

    def subshell(self) -> None:
        made = [each for each in self.subshells if each.settled]
        if made and self.random.random() < 0.7:
            name = made[-1].content.get("subshell_id")
            self.talk.execute("import time; time.sleep(0.05)", subshell=name)
            self.talk.send("complete_request", {"code": "p", "cursor_pos": 1}, subshell=name)
        else:
            self.subshells.append(self.talk.send("create_subshell_request", channel="control"))

    def death(self) -> None:
        self.talk.execute("import os; os._exit(1)", stop_on_error=False)

    def wait(self) -> None:
        """Let something happen before the next request."""
        self.talk.take(0.2)


@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_a_storm_of_requests_interrupts_relaunches_and_deaths(
    kernel: Kernel, folders: Folders, figures: Callable[[str], None]
) -> None:
    first = int(os.environ.get("MXC_KERNEL_SEED", "1"))
    for seed in range(first, first + ROUNDS):
        talk = Conversation(kernel)
        _Storm(talk, folders, seed).run(STEPS)
        try:
            talk.check()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None
    figures(f"{ROUNDS} storms of {STEPS} requests from seed {first} on: all answered in order")


def test_the_checker_notices(kernel: Kernel, tmp_path: Path) -> None:
    """The control: a missing, a doubled and a misplaced message are each reported."""
    talk = Conversation(kernel)
    cell = talk.execute("print('x')\n1")
    talk.settle()
    assert list(cell.problems()) == []
    whole = list(cell.published)
    cell.published = whole[:-1]
    assert any("statuses" in problem for problem in cell.problems())
    cell.published = [*whole, whole[1]]
    assert any("after the idle" in problem for problem in cell.problems())
    cell.published = whole
    cell.replies *= 2
    assert any("2 replies" in problem for problem in cell.problems())
    talk._received("iopub", whole[0])
    assert any("twice" in problem for problem in talk.problems)
