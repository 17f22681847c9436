"""Interrupts, timeouts, deaths and shutdown: no hang, the truth, and nothing left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from .conftest import TIMEOUT, Folders, Kernel, Start, is_busy

SLEEPS = {
    "python": "import time\ntime.sleep(600)",
    "loop": "while True: pass",
    "subprocess": "import subprocess\nsubprocess.run(['sleep', '600'])",
    "shell": "!sleep 600",
    # C code that checks for signals and never lets another thread run, so the text goes out first.
    "regex": "import re, time\ntime.sleep(0.2)\nre.match(r'(a+)+b', 'a' * 60)",
}


@pytest.mark.parametrize("kind", SLEEPS)
def test_an_interrupt_ends_the_cell_and_keeps_the_state(kernel: Kernel, kind: str) -> None:
    kernel.run("kept = 'still here'")
    msg_id = kernel.send(f"print('begun', flush=True)\n{SLEEPS[kind]}")
    kernel.wait_for_text(msg_id, "begun")
    kernel.interrupt()
    result = kernel.wait(msg_id)
    assert result.status == "error" or kind == "shell"
    assert kernel.run("kept").value == "'still here'"


def test_an_interrupt_before_the_cells_first_line_is_not_lost(kernel: Kernel) -> None:
    for _ in range(5):
        msg_id = kernel.send("import time; time.sleep(600)")
        kernel.wait_for(msg_id, is_busy)  # an interrupt that overtakes its cell finds nothing
        kernel.interrupt()
        assert kernel.wait(msg_id).error.startswith("KeyboardInterrupt")


_INTERRUPTED = """
import os, signal, time
plain = {owner}.{method}
def interrupted(*args, **kwargs):
    {owner}.{method} = plain
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
{owner}.{method} = interrupted
1 / 0
"""

# Each fails in a way that IPython itself publishes no error for.
UNPUBLISHED = {
    "interrupted while it is put together": (
        _INTERRUPTED.format(owner="get_ipython().InteractiveTB", method="structured_traceback"),
        "ZeroDivisionError: division by zero",
    ),
    "interrupted while it is sent": (
        _INTERRUPTED.format(owner="get_ipython()", method="_showtraceback"),
        "ZeroDivisionError: division by zero",
    ),
    "group": ("raise ExceptionGroup('some', [ValueError(1)])", "ExceptionGroup: some (1 sub-ex"),
    "usage": ("%no_such_magic", "UsageError: Line magic function `%no_such_magic` not found."),
    "no traceback": (
        "class Bare(Exception):\n    def _render_traceback_(self): return None\nraise Bare('why')",
        "Bare: why",
    ),
    "too long": ("raise ValueError('why' + 'x' * 70_000_000)", "ValueError: why"),
}


@pytest.mark.parametrize("kind", UNPUBLISHED)
def test_every_error_in_a_reply_has_been_published(kernel: Kernel, kind: str) -> None:
    code, error = UNPUBLISHED[kind]
    kernel.run("'a cell before' + 1")
    result = kernel.run(code)
    assert result.error.startswith(error), result.error
    (published,) = result.of_type("error")
    shown = "".join(published["content"]["traceback"])
    assert error in shown
    assert "a cell before" not in shown
    assert "a cell before" not in str(result.content)
    assert (result.content["ename"], result.status) == (published["content"]["ename"], "error")


def test_an_error_is_published_once(kernel: Kernel) -> None:
    for code in ("1 / 0", "not python", "import no_such_module", "%cd /no/such"):
        assert len(kernel.run(code).of_type("error")) == (code != "%cd /no/such")


def test_an_idle_kernel_survives_an_interrupt(kernel: Kernel) -> None:
    kernel.run("x = 1")
    kernel.interrupt()
    assert kernel.run("x").value == "1"


def _with_timeout(ceiling: Path, limit: str) -> Path:
    ceiling.write_text(ceiling.read_text() + f'\n[limits]\ncell_timeout = "{limit}"\n')
    return ceiling


def test_a_timeout_interrupts_and_says_that_the_state_is_kept(start: Start, ceiling: Path) -> None:
    kernel = start(_with_timeout(ceiling, "1s"))
    kernel.run("kept = 1")
    result = kernel.run("import time; time.sleep(600)")
    assert result.content["ename"] == "SandboxTimeoutError"
    assert "kept" in result.content["evalue"]
    assert kernel.run("kept").value == "1"


def test_a_timeout_kills_what_ignores_interrupts_and_says_that_the_state_is_gone(
    start: Start, ceiling: Path
) -> None:
    kernel = start(_with_timeout(ceiling, "1s"))
    kernel.run("lost = 1")
    result = kernel.run(
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(600)"
    )
    assert result.content["ename"] == "SandboxTimeoutError"
    assert "gone" in result.content["evalue"]
    after = kernel.run("lost")
    assert after.error.startswith("NameError")
    assert "fresh sandbox" in after.shown


def test_time_spent_in_input_does_not_count(start: Start, ceiling: Path) -> None:
    kernel = start(_with_timeout(ceiling, "1s"))
    msg_id = kernel.send("import time\ninput('?')\n'done'", allow_stdin=True)
    kernel.client.get_stdin_msg(timeout=TIMEOUT)
    time.sleep(1.5)  # the user thinks for longer than the cell may run: the thing under test
    kernel.client.input("")
    assert kernel.wait(msg_id).value == "'done'"


@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(3)",
        "import ctypes; ctypes.string_at(0)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_a_child_that_dies_is_an_error_and_the_next_cell_gets_a_fresh_one(
    kernel: Kernel, code: str
) -> None:
    kernel.run("x = 1")
    result = kernel.run(code)
    assert result.content["ename"] == "SandboxExecutionError"
    after = kernel.run("print('alive'); x")
    assert "fresh sandbox" in after.shown
    assert after.stream() == "alive\n"
    assert after.error.startswith("NameError")


def test_a_child_that_dies_while_asking_for_input_is_an_error(kernel: Kernel) -> None:
    msg_id = kernel.send(
        "import os, threading\nthreading.Timer(0.3, os._exit, (1,)).start()\ninput('?')",
        allow_stdin=True,
    )
    assert kernel.wait(msg_id).content["ename"] == "SandboxExecutionError"
    kernel.client.input("too late")
    assert kernel.run("1 + 1").value == "2"


def _below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


LEFT_BEHIND = (
    "import subprocess, os\n"
    "subprocess.Popen(['sleep', '601'], start_new_session=True)\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    os.fork()\n"
    "    import time; time.sleep(602)\n"
    "    os._exit(0)\n"
)


def test_shutdown_leaves_no_process(kernel: Kernel) -> None:
    kernel.run(LEFT_BEHIND)
    processes = _below(kernel.pid)
    assert len(processes) >= 5  # launcher, bwrap, init, Python, sleep: the control
    kernel.manager.shutdown_kernel()
    gone, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
    assert gone


def test_a_killed_kernel_leaves_no_process(kernel: Kernel) -> None:
    kernel.run(LEFT_BEHIND)
    processes = _below(kernel.pid)
    assert len(processes) >= 5
    os.kill(kernel.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive


def test_a_relaunch_leaves_no_process(kernel: Kernel, folders: Folders) -> None:
    kernel.run(LEFT_BEHIND)
    processes = _below(kernel.pid)
    assert kernel.run(f"%allow_rw {folders.downloads}").status == "ok"
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
    assert _below(kernel.pid)
