"""A cell that shows more than anybody takes: memory stays flat and nothing else waits for it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .conftest import TIMEOUT, Kernel, Start

MB = 1_000_000
# Far below what is printed below and far above what the parts hold by design (about 2 MB each).
# glibc keeps some freed memory of every size it has seen, hence not less.
FLAT = 160 * MB
BLOCK = "import os, sys, subprocess, threading\nblock = ('x' * 99 + '\\n') * 10_000\n"  # 1 MB

DISPLAYS = """
from IPython.display import publish_display_data
for _ in range(4000): publish_display_data({'text/plain': block[:100_000]})
"""
THREADS = """
def work():
    for _ in range(50): print(block, end='')
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
ENDLESS_THREADS = """
stop = False
def work():
    while not stop: print(block, end='')
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
try:
    for thread in threads: thread.join()
finally:
    stop = True
"""


class Peak:
    """The most memory that any process of a kernel had to itself while this was entered."""

    def __init__(self, kernel: Kernel) -> None:
        self._host = psutil.Process(kernel.pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.grown = 0

    def __enter__(self) -> Peak:
        self._before = self._sizes()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._measure()

    def _measure(self) -> None:
        for pid, size in self._sizes().items():
            self.grown = max(self.grown, size - self._before.get(pid, 0))

    def _sizes(self) -> dict[int, int]:
        sizes = {}
        for process in (self._host, *self._host.children(recursive=True)):
            try:
                sizes[process.pid] = process.memory_full_info().uss
            except psutil.NoSuchProcess:
                continue
        return sizes

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            self._measure()


@pytest.fixture
def printing(kernel: Kernel) -> Kernel:
    """A kernel in which ``block`` is a text of 1 MB."""
    assert kernel.run(BLOCK).status == "ok"
    return kernel


@pytest.mark.parametrize(
    "code",
    [
        "for _ in range(400): print(block, end='')",
        "for _ in range(400): os.write(1, block.encode())",
        "subprocess.run(['sh', '-c', 'yes | head -c 400000000'])",
        DISPLAYS,
        THREADS,
    ],
    ids=["print", "descriptor", "subprocess", "displays", "threads"],
)
def test_400_mb_of_output_leave_memory_flat(printing: Kernel, code: str) -> None:
    with Peak(printing) as peak:
        result = printing.run(code, timeout=10 * TIMEOUT)
    assert result.status == "ok"
    assert peak.grown < FLAT


def test_memory_that_grows_is_seen(printing: Kernel) -> None:
    """The control for the measurement itself."""
    with Peak(printing) as peak:
        printing.run("kept = b'x' * 400_000_000")
    assert peak.grown > 400 * MB


ENDLESS = {
    "print": "while True: print(block, end='')",
    "descriptor": "while True: os.write(1, block.encode())",
    "subprocess": "subprocess.run(['yes'])",
    "threads": ENDLESS_THREADS,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_cell_that_prints_without_end_can_be_interrupted(printing: Kernel, name: str) -> None:
    msg_id = printing.send(ENDLESS[name])
    printing.wait_for(msg_id, lambda message: message["msg_type"] == "stream")
    printing.interrupt()
    assert "KeyboardInterrupt" in printing.wait(msg_id).error
    assert printing.run("'alive'").value == "'alive'"


def test_requests_are_answered_while_a_cell_prints_without_end(printing: Kernel) -> None:
    subshell = printing.control("create_subshell_request")["content"]["subshell_id"]
    msg_id = printing.send(ENDLESS["print"])
    printing.wait_for(msg_id, lambda message: message["msg_type"] == "stream")
    assert printing.control("usage_request")["msg_type"] == "usage_reply"
    message = printing.client.session.msg("complete_request", {"code": "sys.std", "cursor_pos": 7})
    message["header"]["subshell_id"] = subshell
    printing.client.shell_channel.send(message)
    reply = printing.reply(message["header"]["msg_id"])
    assert "stdout" in " ".join(reply["content"]["matches"])
    printing.interrupt()
    assert "KeyboardInterrupt" in printing.wait(msg_id).error


# --- frontends that do not read ---------------------------------------------------------------

SUBSCRIBER = """
import json, sys, zmq
connection = json.load(open(sys.argv[1]))
socket = zmq.Context().socket(zmq.SUB)
socket.rcvhwm = 10
socket.subscribe(b"")
socket.connect(f"ipc://{connection['ip']}-{connection['iopub_port']}")
socket.recv_multipart()
print("subscribed", flush=True)
sys.stdin.readline()
states = 0
while socket.poll(2000):
    frames = socket.recv_multipart()
    header, parent, _, content = frames[frames.index(b"<IDS|MSG>") + 2:][:4]
    if json.loads(header)["msg_type"] == "status":
        content = json.loads(content)["execution_state"]
        print(json.loads(parent).get("msg_id"), content, flush=True)
"""


@pytest.fixture
def subscriber(
    start: Start, folders: object, ceiling: Path
) -> Iterator[tuple[Kernel, subprocess.Popen[str]]]:
    """A kernel that shows any amount, and a second client of it, another process."""
    ceiling.write_text(ceiling.read_text() + '\n[limits]\noutput = "4GiB"\n')
    kernel = start(ceiling)
    process = subprocess.Popen(
        [sys.executable, "-c", SUBSCRIBER, kernel.manager.connection_file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        while not select.select([process.stdout], [], [], 0)[0]:
            assert kernel.run(BLOCK).status == "ok"
        assert process.stdout.readline() == "subscribed\n"
        yield kernel, process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGSTOP)
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "not reading"])
def test_a_frontend_that_does_not_read_holds_the_cell_and_misses_no_status(
    subscriber: tuple[Kernel, subprocess.Popen[str]], stopped: bool
) -> None:
    kernel, process = subscriber
    if stopped:
        _stop(process)
    with Peak(kernel) as peak:
        # Read by this client all the time; so the other alone is what the cell waits for.
        msg_id = kernel.send("for _ in range(60): print(block, end='')")
        kernel.wait_for(msg_id, lambda message: message["msg_type"] == "stream")
        _wait_until_quiet(kernel)
        kernel.control("usage_request")
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.write("read\n")
        process.stdin.flush()
        result = kernel.wait(msg_id)
    assert result.status == "ok"
    assert peak.grown < FLAT
    out, _ = process.communicate()
    assert f"{msg_id} idle" in out


def test_a_cell_held_by_a_stopped_frontend_can_be_interrupted(
    subscriber: tuple[Kernel, subprocess.Popen[str]],
) -> None:
    kernel, process = subscriber
    _stop(process)
    msg_id = kernel.send("while True: print(block, end='')")
    kernel.wait_for(msg_id, lambda message: message["msg_type"] == "stream")
    _wait_until_quiet(kernel)
    kernel.interrupt()
    assert kernel.reply(msg_id)["content"]["ename"] == "KeyboardInterrupt"


def test_a_kernel_held_by_a_stopped_frontend_can_be_shut_down(
    subscriber: tuple[Kernel, subprocess.Popen[str]],
) -> None:
    kernel, process = subscriber
    _stop(process)
    msg_id = kernel.send("while True: print(block, end='')")
    kernel.wait_for(msg_id, lambda message: message["msg_type"] == "stream")
    _wait_until_quiet(kernel)
    host = psutil.Process(kernel.pid)
    children = host.children(recursive=True)
    kernel.control("shutdown_request", {"restart": False})
    assert not psutil.wait_procs([host, *children], timeout=TIMEOUT)[1]


def test_a_frontend_that_never_reads_costs_a_bounded_amount_and_only_output(
    subscriber: tuple[Kernel, subprocess.Popen[str]],
) -> None:
    kernel, process = subscriber
    _stop(process)
    with Peak(kernel) as peak:
        result = kernel.run("for _ in range(300): print(block, end='')", timeout=2 * TIMEOUT)
    assert result.status == "ok"
    assert peak.grown < FLAT
    assert "were not sent" in result.stream("stderr")
    assert kernel.run("'alive'").status == "ok"
    process.send_signal(signal.SIGCONT)
    assert process.stdin is not None
    out, _ = process.communicate("read\n")
    assert f"{result.reply['parent_header']['msg_id']} idle" in out
    deadline = time.monotonic() + TIMEOUT
    while kernel.run("'shown again'").value is None:
        assert time.monotonic() < deadline


def _wait_until_quiet(kernel: Kernel) -> None:
    """Read until nothing comes any more: the cell waits."""
    while kernel.stale_iopub():
        pass


def test_a_client_that_asks_on_without_reading_its_replies_costs_a_bounded_amount(
    subscriber: tuple[Kernel, subprocess.Popen[str]],
) -> None:
    import zmq

    kernel, _ = subscriber
    connection = json.loads(Path(kernel.manager.connection_file).read_text())
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.rcvhwm = 1
        dealer.connect(f"ipc://{connection['ip']}-{connection['shell_port']}")
        expressions = {"text": "'x' * 10_000_000"}
        content = {"code": "", "silent": True, "user_expressions": expressions}
        with Peak(kernel) as peak:
            for _ in range(40):
                message = kernel.client.session.msg("execute_request", content)
                dealer.send_multipart(kernel.client.session.serialize(message))
                assert kernel.run("'behind it'").value
    assert peak.grown < 2 * FLAT


# --- towards the child ------------------------------------------------------------------------


def test_an_interrupt_does_not_wait_behind_a_large_message(kernel: Kernel) -> None:
    msg_id = kernel.send("import time\nprint('begun', flush=True)\ntime.sleep(600)")
    kernel.wait_for_text(msg_id, "begun")
    message = kernel.client.session.msg("comm_msg", {"comm_id": "none", "data": {}}, metadata={})
    message["buffers"] = [os.urandom(100 * MB)]
    kernel.client.session.send(
        kernel.client.shell_channel.socket, message, buffers=message["buffers"]
    )
    kernel.interrupt()
    assert "KeyboardInterrupt" in kernel.wait(msg_id).error


def test_one_huge_display_lets_control_requests_through(kernel: Kernel) -> None:
    msg_id = kernel.send(
        "from IPython.display import publish_display_data\n"
        "publish_display_data({'text/plain': 'x' * 100_000_000})"
    )
    assert kernel.control("usage_request")["msg_type"] == "usage_reply"
    assert kernel.wait(msg_id).status == "ok"
