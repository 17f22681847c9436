"""Processes that are killed, stopped and starved: every request is answered, nothing is left.

Scaled down here; `make soak` runs 500 cells, 2,000 relaunches and 100 killed hosts.
"""

from __future__ import annotations

import os
import queue
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from mxc_kernel.audit.verify import verify

from .conftest import TIMEOUT, Folders, Kernel, Start, is_busy
from .conversation import Conversation, Exchange
from .faults import Belongings, groups_of, held_uids, members, strike

CELLS = int(os.environ.get("MXC_KERNEL_CHAOS_CELLS", "40"))
RELAUNCHES = int(os.environ.get("MXC_KERNEL_RELAUNCHES", "12"))
KILLED_HOSTS = int(os.environ.get("MXC_KERNEL_KILLED_HOSTS", "3"))
SEED = int(os.environ.get("MXC_KERNEL_SEED", "1"))
# 8 kB a cell were measured until 1,000 requests are remembered, as in test_long_sessions.
GROWTH = 24_000_000  # bytes


@pytest.fixture
def temporary(sandbox_folder: Path) -> Path:
    folder = sandbox_folder / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
def environment(sandbox_folder: Path, temporary: Path) -> dict[str, str]:
    return {"TMPDIR": str(temporary), "XDG_STATE_HOME": str(sandbox_folder / "state")}


def _audit_is_whole(environment: dict[str, str]) -> None:
    report = verify(os.path.join(environment["XDG_STATE_HOME"], "mxc-kernel", "audit"))
    assert report.ok, report.findings
    assert report.records


class _Chaos:
    """Runs cells and strikes at the kernel's processes while they run."""

    def __init__(self, kernel: Kernel, folders: Folders, seed: int) -> None:
        self.kernel = kernel
        self.talk = Conversation(kernel)
        self.random = random.Random(seed)
        self.downloads = folders.downloads
        self.done: Counter[str] = Counter()
        self.faults = (self._kill, self._kill, self._stop, self._pause, self._starve)

    def run(self, cells: int) -> None:
        for _ in range(cells):
            cell = self.talk.execute(self._code(), stop_on_error=False)
            if self.random.random() < 0.2:
                self.talk.send("complete_request", {"code": "pri", "cursor_pos": 3})
            self.talk.take(self.random.choice((0, 0.01, 0.05, 0.15)))
            if self.random.random() < 0.5:
                self.random.choice(
                    (self._kill, self._kill, self._stop, self._pause, self._starve)
                )()
            self._settle(cell)

    def _code(self) -> str:
        return self.random.choice(
            (
                "1 + 1",
                "print('x' * 10_000)",
                "1 / 0",
                "import time; time.sleep(0.2)",
                "import subprocess, time; p = subprocess.Popen(['sleep', '600']); time.sleep(0.2)",
                "import subprocess; subprocess.run(['sleep', '0.2'], check=False)",
                "import asyncio; await asyncio.sleep(0.2)",
                "input('?')",
                "open('/proc/1/environ')",
                "for n in range(200): print(n)",
                f"%allow_rw {self.downloads}\nlen(In)",
                f"%revoke {self.downloads}",
                "%sandbox restart",
                "%%sandbox\nimport time; time.sleep(0.1)",
            )
        )

    def _target(self, *names: str) -> tuple[str, int] | None:
        found = members(self.kernel.pid)
        present = [name for name in names if name in found]
        if not present:
            return None
        name = self.random.choice(present)
        return name, self.random.choice(found[name])

    def _kill(self) -> None:
        target = self._target("launcher", "monitor", "init", "child", "grandchild")
        if target is not None and strike(target[1], signal.SIGKILL):
            self.done[f"kill {target[0]}"] += 1

    def _stop(self) -> None:
        """Stop something for good: only an interrupt brings it back, as a user would try."""
        target = self._target("launcher", "monitor", "init", "child")
        if target is not None and strike(target[1], signal.SIGSTOP):
            self.done[f"stop {target[0]}"] += 1
            self.talk.take(0.1)
            self.talk.send("interrupt_request", channel="control")

    def _pause(self) -> None:
        """Stop something, the host among them, and let it go on."""
        target = self._target("host", "launcher", "monitor", "init", "child", "grandchild")
        if target is not None and strike(target[1], signal.SIGSTOP):
            self.talk.take(0.2)
            strike(target[1], signal.SIGCONT)
            self.done[f"pause {target[0]}"] += 1

    def _starve(self) -> None:
        """Leave the host no descriptor to start anything with, for one cell."""
        with starved(self.kernel.pid):
            cell = self.talk.execute("%sandbox restart", stop_on_error=False)
            self._settle(cell)
        self.done["starve host"] += 1

    def _settle(self, cell: Exchange) -> None:
        """Wait for a cell, and interrupt it as a user would who has waited for long."""
        for _ in range(24):
            try:
                self.talk.take_until(lambda: cell.settled, timeout=10)
            except AssertionError:
                self.done["waited"] += 1
                self.talk.send("interrupt_request", channel="control")
            else:
                return
        raise AssertionError(f"no end of {cell.request['content']}; {self.done}")


@contextmanager
def starved(pid: int) -> Iterator[None]:
    """Let a process have no more descriptors than it has."""
    process = psutil.Process(pid)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), hard))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))


def _fresh(kernel: Kernel) -> None:
    """Bring a kernel into the state in which it is compared: one sandbox, nothing running."""
    kernel.run("%sandbox restart")
    assert kernel.run("1 + 1").value == "2"


@pytest.mark.timeout(120 + 6 * CELLS)
def test_whatever_is_killed_stopped_or_starved_every_request_is_answered(
    start: Start,
    ceiling: Path,
    folders: Folders,
    environment: dict[str, str],
    temporary: Path,
    figures: Callable[[str], None],
) -> None:
    kernel = start(ceiling, env=environment)
    _fresh(kernel)
    kernel.run(f"%allow_rw {folders.downloads}")  # an automatic snapshot exists from here on
    kernel.run("print('x' * 1_000_000)")  # from the first large message on pyzmq has a thread more
    _fresh(kernel)
    before = Belongings.of(kernel, temporary)
    chaos = _Chaos(kernel, folders, SEED)
    chaos.run(CELLS)
    chaos.talk.check()
    _fresh(kernel)
    after = Belongings.of(kernel, temporary)
    assert not after.leaked(before), chaos.done
    for what in ("kill", "stop", "pause", "starve"):
        assert any(name.startswith(what) for name in chaos.done), chaos.done
    host = kernel.pid
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel()
    assert not groups_of(host)
    _audit_is_whole(environment)
    grown = after.memory - before.memory
    assert grown < GROWTH, f"{grown:,} bytes"
    counts = ", ".join(f"{number} x {what}" for what, number in sorted(chaos.done.items()))
    figures(f"chaos: {CELLS} cells with seed {SEED}: {counts}; host memory {grown:+,} bytes")


# --- one process after the other ----------------------------------------------------------------


@pytest.mark.parametrize("who", ["launcher", "monitor", "init", "child"])
def test_each_process_that_is_killed_ends_the_cell_and_all_of_the_sandbox(
    kernel: Kernel, who: str
) -> None:
    msg_id = kernel.send("print('begun', flush=True)\nimport time; time.sleep(600)")
    kernel.wait_for_text(msg_id, "begun")
    found = members(kernel.pid)
    processes = psutil.Process(kernel.pid).children(recursive=True)
    assert strike(found[who][0], signal.SIGKILL)
    assert kernel.wait(msg_id).content["ename"] == "SandboxExecutionError"
    assert not psutil.wait_procs(processes, timeout=10)[1]
    assert kernel.run("1 + 1").value == "2"


@pytest.mark.parametrize("who", ["launcher", "monitor", "init", "child"])
def test_each_process_that_is_stopped_goes_on_with_an_interrupt(kernel: Kernel, who: str) -> None:
    kernel.run("kept = 'still here'")
    msg_id = kernel.send("print('begun', flush=True)\nimport time; time.sleep(600)")
    kernel.wait_for_text(msg_id, "begun")
    pid = members(kernel.pid)[who][0]
    assert strike(pid, signal.SIGSTOP)
    kernel.interrupt()
    assert kernel.wait(msg_id).content["ename"] == "KeyboardInterrupt"
    assert kernel.run("kept").value == "'still here'"
    assert psutil.Process(pid).status() != psutil.STATUS_STOPPED


def test_a_child_that_was_stopped_before_its_cell_goes_on_with_an_interrupt(kernel: Kernel) -> None:
    kernel.run("kept = 'still here'")
    child = psutil.Process(members(kernel.pid)["child"][0])
    child.send_signal(signal.SIGSTOP)
    msg_id = kernel.send("import time; time.sleep(600)")
    # An interrupt comes on a channel of its own: it must not come before the cell.
    kernel.wait_for(msg_id, is_busy)
    reply = None
    while reply is None:  # one that hits ipykernel's own code before the first line can be lost
        kernel.interrupt()
        with suppress(queue.Empty):
            reply = kernel.reply(msg_id, 3)
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert child.status() != psutil.STATUS_STOPPED
    assert kernel.run("kept").value == "'still here'"


def test_a_child_that_stops_itself_passes_its_limit_of_time(start: Start, ceiling: Path) -> None:
    ceiling.write_text(ceiling.read_text() + '\n[limits]\ncell_timeout = "1s"\n')
    kernel = start(ceiling)
    kernel.run("kept = 'still here'")
    result = kernel.run("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nwhile True: pass")
    assert result.content["ename"] == "SandboxTimeoutError"
    assert "kept" in result.content["evalue"]
    assert kernel.run("kept").value == "'still here'"


def test_a_child_that_stops_itself_again_and_again_is_killed(start: Start, ceiling: Path) -> None:
    ceiling.write_text(ceiling.read_text() + '\n[limits]\ncell_timeout = "1s"\n')
    kernel = start(ceiling)
    stop = "lambda *_: os.kill(os.getpid(), signal.SIGSTOP)"
    result = kernel.run(
        f"import os, signal\nsignal.signal(signal.SIGINT, {stop})\nos.kill(os.getpid(), "
        "signal.SIGSTOP)\nwhile True: pass"
    )
    assert result.content["ename"] == "SandboxTimeoutError"
    assert "gone" in result.content["evalue"]
    assert kernel.run("1 + 1").value == "2"


@pytest.mark.parametrize("who", ["launcher", "monitor", "init", "child"])
def test_a_kernel_with_a_stopped_process_can_be_shut_down(kernel: Kernel, who: str) -> None:
    kernel.run("1")
    assert strike(members(kernel.pid)[who][0], signal.SIGSTOP)
    processes = psutil.Process(kernel.pid).children(recursive=True)
    assert len(processes) >= 4
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel()
    assert not psutil.wait_procs(processes, timeout=10)[1]


def test_a_host_without_descriptors_says_so_and_goes_on_when_it_has_some(kernel: Kernel) -> None:
    kernel.run("kept = 1")
    with starved(kernel.pid):
        result = kernel.run("%sandbox restart")
        assert result.content["ename"].startswith("Sandbox"), result.content
        assert "Too many open files" in result.content["evalue"]
        assert kernel.run("kept").value == "1"  # half a relaunch is none
    assert kernel.run("%sandbox restart\nkept").value == "1"


# --- hosts that are killed ----------------------------------------------------------------------


@pytest.mark.timeout(120 + 20 * KILLED_HOSTS)
def test_a_host_that_is_killed_at_any_time_leaves_nothing(
    start: Start,
    ceiling: Path,
    folders: Folders,
    environment: dict[str, str],
    temporary: Path,
    figures: Callable[[str], None],
) -> None:
    chance = random.Random(SEED)
    hosts: list[int] = []
    uids: set[str] = set()
    for _ in range(KILLED_HOSTS):
        kernel = start(ceiling, env=environment)
        code = chance.choice(
            (
                "%sandbox restart",
                f"%allow_rw {folders.downloads}",
                "%%sandbox\nimport time; time.sleep(5)",
                "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)",
                "import time; time.sleep(600)",
            )
        )
        talk = Conversation(kernel)
        talk.execute(code)
        talk.take(chance.choice((0, 0.05, 0.2, 0.4)))
        processes = psutil.Process(kernel.pid).children(recursive=True)
        assert len(processes) >= 4
        if os.geteuid() == 0:
            uids.update(held_uids(kernel.pid))
        hosts.append(kernel.pid)
        assert strike(kernel.pid, signal.SIGKILL)
        assert not psutil.wait_procs(processes, timeout=TIMEOUT)[1], code
        kernel.client.stop_channels()
        kernel.manager.shutdown_kernel(now=True)
    assert [path.name for path in temporary.iterdir()] == []
    last = start(ceiling, env=environment)  # what control groups are left go with the next start
    assert not [group for host in hosts for group in groups_of(host)]
    if os.geteuid() == 0:
        assert uids  # the control: each host had one
        assert len(held_uids(last.pid)) == 1
    last.client.stop_channels()
    last.manager.shutdown_kernel()
    _audit_is_whole(environment)
    figures(f"{KILLED_HOSTS} killed hosts: nothing left")


# --- many sandboxes -----------------------------------------------------------------------------


@pytest.mark.timeout(120 + 5 * RELAUNCHES)
def test_relaunches_leave_nothing_and_the_host_does_not_grow(
    start: Start,
    ceiling: Path,
    folders: Folders,
    environment: dict[str, str],
    temporary: Path,
    figures: Callable[[str], None],
) -> None:
    kernel = start(ceiling, env=environment)

    def relaunch(count: int) -> Belongings:
        for number in range(count):
            code = f"%{('allow_rw', 'revoke')[number % 2]} {folders.downloads}\nkept"
            assert kernel.run(code).value == "'kept'"
        return Belongings.of(kernel, temporary)

    kernel.run("kept = 'kept'")
    before = relaunch(6)
    after = relaunch(2 * (RELAUNCHES // 2))
    assert not after.leaked(before)
    grown = after.memory - before.memory
    assert grown < GROWTH, f"{grown / RELAUNCHES:.0f} bytes for each relaunch"
    figures(f"{RELAUNCHES} relaunches: host memory {before.memory:,} -> {after.memory:,} bytes")
