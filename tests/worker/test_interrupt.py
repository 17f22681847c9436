"""An interrupt stops the cell, and whatever the cell has started, and keeps the state."""

from __future__ import annotations

import os
import signal

import pytest

from mxc_kernel.wire import Channel

BEGUN = "print('begun', flush=True)\n"
BUSY = {
    "sleep": BEGUN + "import time; time.sleep(600)",
    "loop": BEGUN + "while True: pass",
    "await": BEGUN + "import asyncio; await asyncio.sleep(600)",
    "subprocess": "import subprocess; subprocess.run(['sh', '-c', 'echo begun; exec sleep 600'])",
    # Only once the program runs: pexpect forks in Python, and an interrupt between that fork and
    # the exec leaves a second kernel behind (IPython's weakness, not looked for here).
    "shell escape": "!echo begun; exec sleep 600",
    "input": BEGUN + "input('?')",
}


def by_signal(child):
    os.killpg(child.process.pid, signal.SIGINT)


def by_frame(child):
    child.send(Channel.SIGNAL, b"interrupt")


def by_message(child):
    child.request("interrupt_request", {}, channel=Channel.CONTROL)


@pytest.mark.parametrize("interrupt", [by_signal, by_frame, by_message])
@pytest.mark.parametrize("what", BUSY)
def test_a_busy_cell_is_interrupted(child, what, interrupt):
    child.ok("state = 'kept'")
    asked = child.start_cell(BUSY[what], allow_stdin=True)
    child.finish(asked, until=lambda kind, content: kind == "stream")
    if what == "input":
        while child.frame()[0] is not Channel.STDIN:
            pass
    interrupt(child)
    cell = child.finish(asked)
    if what != "shell escape":  # which IPython ends without an error
        assert cell.reply["status"] == "error"
        assert cell.reply["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert child.ok("state") == "'kept'"


def test_an_interrupt_between_cells_is_ignored(child):
    by_signal(child)
    by_frame(child)
    assert child.ok("1") == "1"


def test_an_interrupt_during_the_start_is_ignored(start):
    child = start()  # HELLO is there, ipykernel is not yet
    for _ in range(20):
        by_signal(child)
    assert child.ok("1") == "1"


@pytest.mark.skipif(os.name != "posix", reason="signal masks are POSIX's")
def test_signals_that_the_launcher_left_blocked_are_unblocked(start):
    blocked = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        child = start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert child.ok("import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [])") == "set()"
