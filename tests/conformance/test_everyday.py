"""What notebooks do every day and no suite tests, in our kernel and in ipykernel as the control."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from tests.kernel.conftest import TIMEOUT, Kernel

PRINTS = {
    "bash": ("%%bash\necho one; echo two", "one\ntwo\n"),
    "a command's output in a name": ("lines = !printf 'a\\nb'\nprint(lines)", "['a', 'b']\n"),
    "a name in a command": ("n = 'x'\nsaid = !echo $n {n * 2}\nprint(said)", "['x xx']\n"),
    "await": ("import asyncio\nprint(await asyncio.sleep(0.01, 'slept'))", "slept\n"),
    "gather": (
        ("import asyncio\n"
        "async def f(n): await asyncio.sleep(0.01); return n\n"
        "print(await asyncio.gather(f(1), f(2)))"),
        "[1, 2]\n",
    ),
    "a very long line": ("print('x' * 3_000_000)", "x" * 3_000_000 + "\n"),
    "many lines": ("for i in range(20_000): print(i)", "".join(f"{i}\n" for i in range(20_000))),
    "capture": ("%%capture kept\nprint('in')", ""),
    "what was captured": ("kept.show()", "in\n"),
    "multiprocessing": (
        ("import multiprocessing, math\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    print(pool.map(math.factorial, range(5)))"),
        "[1, 1, 2, 6, 24]\n",
    ),
    "shared memory": (
        ("from multiprocessing import shared_memory\n"
        "block = shared_memory.SharedMemory(create=True, size=1 << 20)\n"
        "block.buf[:3] = b'abc'\n"
        "other = shared_memory.SharedMemory(block.name)\n"
        "print(bytes(other.buf[:3]))\n"
        "other.close(); block.close(); block.unlink()"),
        "b'abc'\n",
    ),
    "joblib": (
        ("import joblib, math\n"
        "with joblib.Parallel(n_jobs=2) as parallel:\n"
        "    print(parallel(joblib.delayed(math.factorial)(n) for n in range(5)))"),
        "[1, 1, 2, 6, 24]\n",
    ),
    "semaphores": ("import multiprocessing\nprint(multiprocessing.Lock().acquire())", "True\n"),
    "a pool of threads": (
        ("from concurrent.futures import ThreadPoolExecutor\n"
        "say = lambda n: print('thread\\n', end='')\n"
        "with ThreadPoolExecutor() as pool: list(pool.map(say, range(3)))"),
        "thread\n" * 3,
    ),
    "a magic of one's own": (
        ("from IPython.core.magic import register_line_magic\n"
        "@register_line_magic\n"
        "def twice(line): print(line * 2)\n"
        "%twice ab"),
        "abab\n",
    ),
    "prun and who": ("zebra = 1\n%who_ls", ""),
    "rich text on a terminal": ("print('\\x1b[31mred\\x1b[0m')", "\x1b[31mred\x1b[0m\n"),
    "a progress bar": ("print('1%\\r2%\\r3%')", "1%\r2%\r3%\n"),
}  # fmt: skip


@pytest.mark.parametrize("what", PRINTS)
def test_prints(kernel: Kernel, what: str) -> None:
    code, printed = PRINTS[what]
    result = kernel.run(code)
    assert result.status == "ok", result.error
    assert result.stream() == printed


def test_timeit_time_and_cell_magics_run_in_the_session(kernel: Kernel) -> None:
    assert "loop" in kernel.run("%timeit -n2 -r2 sum(range(10))").stream()
    assert "Wall time" in kernel.run("%%time\ntimed = 5").stream()
    assert kernel.run("timed").value == "5"


def test_logging_and_warnings_go_to_stderr(kernel: Kernel) -> None:
    result = kernel.run(
        "import logging, warnings\n"
        "logging.getLogger('x').warning('a logged word')\n"
        "warnings.warn('a warning')\n"
        "print('out')"
    )
    assert result.stream() == "out\n"
    assert "a logged word" in result.stream("stderr")
    assert "UserWarning: a warning" in result.stream("stderr")


def test_sys_exit_is_an_error_that_ends_nothing(kernel: Kernel) -> None:
    kernel.run("stays = 1")
    assert kernel.run("import sys; sys.exit(3)").error == "SystemExit: 3"
    assert kernel.run("stays").value == "1"


def test_text_that_no_encoding_has_does_not_end_the_kernel(kernel: Kernel) -> None:
    result = kernel.run("print('before'); print('\\udcff'); print('after')")
    assert result.status == "ok", result.error
    assert result.stream().startswith("before\n")
    assert result.stream().endswith("after\n")
    assert kernel.run("'\\udcff'").value == "'\\udcff'"


# --- who is asked -------------------------------------------------------------------------------


def _answered(kernel: Kernel, code: str, *answers: str) -> Any:
    msg_id = kernel.send(code, allow_stdin=True)
    asked = []
    for answer in answers:
        question = kernel.client.get_stdin_msg(timeout=TIMEOUT)
        assert question["parent_header"]["msg_id"] == msg_id
        asked.append(question["content"])
        kernel.client.input(answer)
    return kernel.wait(msg_id), asked


def test_a_password_is_asked_for_as_one(kernel: Kernel) -> None:
    result, (question,) = _answered(
        kernel, "import getpass\nlen(getpass.getpass('Word? '))", "12345"
    )
    assert question == {"prompt": "Word? ", "password": True}
    assert result.value == "5"


@pytest.mark.parametrize("call", ["input('?')", "__import__('getpass').getpass()"])
def test_nobody_is_asked_where_the_frontend_forbids_it(kernel: Kernel, call: str) -> None:
    assert kernel.run(call, allow_stdin=False).error.startswith("StdinNotImplementedError")


def test_a_failed_cell_can_be_debugged_by_questions(kernel: Kernel) -> None:
    kernel.run("def broken(n):\n    local = n * 2\n    raise ValueError('no')\nbroken(21)")
    result, questions = _answered(kernel, "%debug", "p local", "u", "q")
    assert all("ipdb>" in question["prompt"] for question in questions)
    assert "42" in result.stream()
    assert result.status == "ok", result.error


def test_the_debugger_can_start_by_itself(kernel: Kernel) -> None:
    kernel.run("%pdb on")
    result, _ = _answered(kernel, "inside = 77\n1 / 0", "p inside", "q")
    assert "77" in result.stream()
    kernel.run("%pdb off")
    assert kernel.run("1 / 0", allow_stdin=True).error.startswith("ZeroDivisionError")


# --- what outlives a cell -----------------------------------------------------------------------

STILL_AT_WORK = {
    "task": (
        (
            "import asyncio\n"
            "go = asyncio.Event()\n"
            "async def late():\n    await go.wait(); print('from it', flush=True)\n"
            "kept = asyncio.create_task(late())"
        ),
        "go.set()\nawait asyncio.sleep(0.1)",
    ),
    "thread": (
        (
            "import threading\n"
            "go = threading.Event()\n"
            "def late():\n    go.wait(); print('from it', flush=True)\n"
            "kept = threading.Thread(target=late); kept.start()"
        ),
        "go.set(); kept.join()",
    ),
}


@pytest.mark.parametrize("kind", STILL_AT_WORK)
def test_what_outlives_its_cell_prints_where_ipykernel_has_it(kernel: Kernel, kind: str) -> None:
    """A task prints into the cell that made it, a thread into the one that runs."""
    first, second = STILL_AT_WORK[kind]
    started = kernel.send(first)
    kernel.wait(started)
    later = kernel.send(second)
    kernel.wait_for_text(started if kind == "task" else later, "from it")
    assert kernel.reply(later)["content"]["status"] == "ok"


# --- displays and payloads ----------------------------------------------------------------------


def test_a_display_is_updated_by_its_handle(kernel: Kernel) -> None:
    result = kernel.run("h = display('one', display_id=True)\nh.update('two')")
    (shown,), (updated,) = result.of_type("display_data"), result.of_type("update_display_data")
    assert shown["content"]["transient"] == updated["content"]["transient"]
    assert updated["content"]["data"]["text/plain"] == "'two'"
    later = kernel.run("h.update('three')").of_type("update_display_data")
    assert later[0]["content"]["transient"] == shown["content"]["transient"]


def test_the_next_cell_can_be_suggested(kernel: Kernel) -> None:
    (payload,) = kernel.run("get_ipython().set_next_input('x = 1')").content["payload"]
    assert payload["source"] == "set_next_input"
    assert payload["text"] == "x = 1"


def test_expressions_are_answered_with_the_cell(kernel: Kernel) -> None:
    asked = {"sum": "1 + 2", "bad": "1 / 0"}
    answers = kernel.run("1", user_expressions=asked).content["user_expressions"]
    assert answers["sum"]["data"]["text/plain"] == "3"
    assert answers["bad"]["status"] == "error"
    assert answers["bad"]["ename"] == "ZeroDivisionError"


def test_a_silent_cell_leaves_no_trace(kernel: Kernel) -> None:
    before = kernel.run("'one'").content["execution_count"]
    result = kernel.run("hidden = 9\nhidden", silent=True)
    assert [m["msg_type"] for m in result.messages] == ["status", "status"]
    after = kernel.run("hidden")
    assert after.value == "9"
    assert after.content["execution_count"] == before + 1


def test_history_knows_the_cells_and_leaves_out_what_it_should(kernel: Kernel) -> None:
    kernel.run("remembered = 'by history'")
    kernel.run("forgotten = 1", store_history=False)
    kernel.client.history(raw=True, output=False, hist_access_type="tail", n=2)
    lines = [line for _, _, line in kernel.reply_content()["history"]]
    assert lines[-1] == "remembered = 'by history'"
    assert kernel.run("_i").value == "\"remembered = 'by history'\""


# --- modules, plots, widgets --------------------------------------------------------------------


def test_a_changed_module_is_loaded_again(kernel: Kernel, scratch: Path) -> None:
    name = f"changing_{len(list(scratch.iterdir()))}"
    module = scratch / f"{name}.py"
    module.write_text("value = 1\n")
    assert kernel.run("%load_ext autoreload\n%autoreload 2").status == "ok"
    assert kernel.run(f"import {name} as m\nm.value").value == "1"
    module.write_text("value = 'changed'\n")
    assert kernel.run("m.value").value == "'changed'"
    kernel.run("%autoreload 0")


def test_plots_are_shown_where_they_should(kernel: Kernel) -> None:
    plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2])"
    kernel.run("%matplotlib inline")
    shown = kernel.run(plot).of_type("display_data")
    assert [set(m["content"]["data"]) for m in shown] == [{"image/png", "text/plain"}]
    kernel.run("%config InlineBackend.figure_formats = ['svg']")
    (shown_as_svg,) = kernel.run(plot).of_type("display_data")
    assert "image/svg+xml" in shown_as_svg["content"]["data"]
    kernel.run("plt.close('all')\n%matplotlib agg")
    silent = kernel.run(f"{plot}\nprint(plt.get_backend().lower())")
    assert silent.of_type("display_data") == []
    assert silent.stream() == "agg\n"
    kernel.run("%matplotlib inline")


def test_a_backend_that_is_not_installed_says_so(kernel: Kernel) -> None:
    assert kernel.run("%matplotlib widget").error.startswith("RuntimeError: 'widget' is not a")


def _update(kernel: Kernel, model: str, **state: Any) -> None:
    content = {"comm_id": model, "data": {"method": "update", "state": state}}
    kernel.client.shell_channel.send(kernel.client.session.msg("comm_msg", content))


def test_interact_calls_the_function_with_what_the_frontend_sets(kernel: Kernel) -> None:
    result = kernel.run(
        "import ipywidgets\n"
        "calls = []\n"
        "box = ipywidgets.interactive(lambda n: calls.append(n), n=(0, 10))\n"
        "display(box)\n"
        "box.children[0].model_id"
    )
    assert len(result.of_type("comm_open")) >= 4  # box, slider, output and their layouts
    assert result.value is not None
    kernel.run("calls.clear()")
    _update(kernel, result.value.strip("'"), value=7)
    assert kernel.run("calls, box.children[0].value").value == "([7], 7)"


def test_a_widget_changed_by_a_running_cell_reaches_the_frontend_at_once(kernel: Kernel) -> None:
    kernel.run("import ipywidgets\nbar = ipywidgets.IntProgress()\nbar")
    msg_id = kernel.send("for bar.value in (10, 20): pass\ninput('?')", allow_stdin=True)
    kernel.client.get_stdin_msg(timeout=TIMEOUT)  # it is still running
    sent: list[Any] = []

    def last(message: dict[str, Any]) -> bool:
        if message["msg_type"] == "comm_msg":
            sent.append(message["content"]["data"]["state"]["value"])
        return sent[-1:] == [20]  # ours may join the two, where many messages came before

    kernel.wait_for(msg_id, last)
    assert sent in ([10, 20], [20])
    kernel.client.input("")
    assert kernel.wait(msg_id).status == "ok"


def test_a_comm_can_be_opened_used_and_closed_from_inside(kernel: Kernel) -> None:
    result = kernel.run(
        "from comm import create_comm\n"
        "c = create_comm(target_name='front', data={'n': 1})\n"
        "c.send({'n': 2}, buffers=[b'bytes'])\n"
        "c.close({'n': 3})"
    )
    opened, message, closed = result.of_type("comm_open", "comm_msg", "comm_close")
    assert opened["content"]["target_name"] == "front"
    assert [m["content"]["data"]["n"] for m in (opened, message, closed)] == [1, 2, 3]
    assert [bytes(buffer) for buffer in message["buffers"]] == [b"bytes"]
    assert len({m["content"]["comm_id"] for m in (opened, message, closed)}) == 1


# --- the kernel as a whole ----------------------------------------------------------------------


def test_usage_counts_the_memory_of_its_processes(kernel: Kernel) -> None:
    before = kernel.control("usage_request")["content"]
    assert before["kernel_memory"] > 10_000_000
    assert before["host_virtual_memory"]["total"] > 0
    kernel.run("import subprocess\nchild = subprocess.Popen(['sleep', '600'])")
    kernel.run("held = b'x' * 200_000_000")
    after = kernel.control("usage_request")["content"]
    assert after["kernel_memory"] > before["kernel_memory"] + 190_000_000
    kernel.run("del held; child.kill(); child.wait()")


def _another_frontend(kernel: Kernel) -> Kernel:
    client = BlockingKernelClient(connection_file=kernel.manager.connection_file)
    client.load_connection_file()  # with a session, so an identity, of its own
    client.start_channels()
    client.wait_for_ready(timeout=TIMEOUT)
    return Kernel(kernel.manager, client)


def test_two_frontends_share_a_kernel_and_each_gets_its_own_replies(kernel: Kernel) -> None:
    other = _another_frontend(kernel)
    try:
        mine = kernel.send("shared = 1; print('seen by both')")
        other.wait_for_text(mine, "seen by both")
        kernel.wait(mine)
        assert other.run("shared").value == "1"
        msg_id = other.send("input('whose?')", allow_stdin=True)
        assert other.client.get_stdin_msg(timeout=TIMEOUT)["parent_header"]["msg_id"] == msg_id
        assert not kernel.client.stdin_channel.msg_ready()
        other.client.input("other's")
        assert other.wait(msg_id).value == '"other\'s"'
        assert not kernel.client.shell_channel.msg_ready()
    finally:
        other.client.stop_channels()


def test_a_frontend_that_comes_back_finds_its_state(kernel: Kernel) -> None:
    leaving = _another_frontend(kernel)
    leaving.run("before_leaving = 5")
    running = leaving.send("import time; time.sleep(0.5); done_meanwhile = True")
    leaving.wait_for(running, lambda m: m["msg_type"] == "execute_input")
    leaving.client.stop_channels()
    again = _another_frontend(kernel)
    assert again.run("before_leaving, done_meanwhile").value == "(5, True)"
    again.client.stop_channels()


def test_tracebacks_name_the_cell_and_the_line(kernel: Kernel) -> None:
    kernel.run("def outer():\n    return inner()\ndef inner():\n    return {}['missing']")
    (error,) = kernel.run("outer()").of_type("error")
    text = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error["content"]["traceback"]))
    assert text.count("line ") >= 2
    for part in ("return inner()", "return {}['missing']", "KeyError: 'missing'"):
        assert part in text
