"""Code in the sandbox that writes to the transport itself, past the worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Folders, Kernel, Start

# The worker keeps the pipes to the host at descriptors from 200 on: input, output, diagnostics.
FORGE = """
import fcntl, json, os, struct
OUT = min(fd for fd in map(int, os.listdir('/proc/self/fd')) if fd >= 200
          and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY)
def parent():
    return {'msg_id': get_ipython().kernel.get_parent()['msg_id']}
def frame(channel, *parts):
    sizes = struct.pack(f'>{len(parts)}I', *map(len, parts))
    body = sizes + b''.join(parts)
    return struct.pack('>HBBI', 0x4D58, channel, len(parts), len(body)) + body
def message(channel, msg_type, content, parent):
    header = {'msg_id': 'forged', 'msg_type': msg_type}
    return frame(channel, *(json.dumps(o).encode() for o in (header, parent, {}, content)))
SHELL, CONTROL, STDIN, IOPUB = 1, 2, 3, 4
"""


@pytest.fixture
def hostile(kernel: Kernel) -> Kernel:
    assert kernel.run(FORGE).status == "ok"
    return kernel


def test_a_frame_written_by_hand_arrives_when_it_is_allowed(hostile: Kernel) -> None:
    """The control for all that follows: the forgery itself works."""
    result = hostile.run(
        "os.write(OUT, message(IOPUB, 'stream', {'name': 'stdout', 'text': 'by hand'}, parent()))"
    )
    assert "by hand" in result.stream()


@pytest.mark.parametrize(
    "forged",
    [
        "message(IOPUB, 'status', {'execution_state': 'dead'}, parent())",
        "message(IOPUB, 'execute_input', {'code': 'forged', 'execution_count': 9}, parent())",
        "message(IOPUB, 'made_up', {'text': 'forged'}, parent())",
        "message(IOPUB, 'display_data', {'data': {'text/plain': 'forged'}}, {'msg_id': 'no'})",
        "message(SHELL, 'execute_reply', {'status': 'forged'}, {'msg_id': 'of another'})",
        "message(SHELL, 'complete_reply', {'status': 'forged'}, parent())",
        "message(CONTROL, 'shutdown_reply', {'status': 'forged'}, parent())",
        "message(STDIN, 'input_request', {'prompt': 'forged', 'password': True}, parent())",
        "frame(IOPUB, b'{}', b'{}', b'{}', b'[\"forged\"]')",
        "frame(IOPUB, b'{}', b'{}', b'{}', b'{\"forged\": NaN}')",
        "frame(IOPUB, b'{}', b'{}', b'{}', b'{\"a\":' * 10_000)",
        "message(IOPUB, 'stream', {'name': 'stdlog', 'text': 'forged'}, parent())",
        "message(IOPUB, 'stream', {'name': 'stdout', 'text': ['forged']}, parent())",
        "message(IOPUB, 'display_data', {'data': ['forged']}, parent())",
        "message(IOPUB, 'error', {'ename': {'forged': 1}}, parent())",
        "message(IOPUB, 'comm_msg', {'comm_id': 'forged1', 'data': {'a': 1}}, parent())",
        "message(IOPUB, 'debug_event', {'event': 7, 'forged': 1}, parent())",
        "message(IOPUB, 'display_data', {'data': {}, 'forged': 1}, 'forged')",
        "message(STDIN, 'input_request', {'prompt': {'forged': 1}}, parent())",
        "frame(IOPUB, b'forged')",
    ],
)
def test_a_forged_message_reaches_no_frontend(hostile: Kernel, forged: str) -> None:
    result = hostile.run(f"os.write(OUT, {forged})\n'done'")
    assert result.value == "'done'"
    assert result.status == "ok"
    messages = [*result.messages, *hostile.stale_iopub()]
    assert not any("forged" in str(m["content"]) for m in messages if "code" not in m["content"])
    assert [m["content"]["execution_state"] for m in result.of_type("status")] == ["busy", "idle"]
    assert not hostile.client.stdin_channel.msg_ready()
    assert hostile.run("'alive'").value == "'alive'"


@pytest.mark.parametrize(
    "garbage",
    [
        "b'garbage' * 100",
        "struct.pack('>HBBI', 0x4D58, 4, 1, 0xffffffff)",
        "struct.pack('>HBBI', 0x4D58, 99, 1, 4)",
        "struct.pack('>HBBIII', 0x4D58, 4, 2, 12, 2, 3) + b'abcd'",
    ],
)
def test_a_child_that_breaks_the_protocol_is_ended(hostile: Kernel, garbage: str) -> None:
    result = hostile.run(f"os.write(OUT, {garbage})\nimport time; time.sleep(600)")
    assert result.content["ename"] == "SandboxExecutionError"
    assert "protocol" in result.content["evalue"]
    assert hostile.run("'alive'").value == "'alive'"


def test_a_reply_is_sent_once(hostile: Kernel) -> None:
    result = hostile.run(
        "reply = {'status': 'ok', 'execution_count': 1, 'user_expressions': {}}\n"
        "os.write(OUT, message(SHELL, 'execute_reply', reply, parent()) * 3)\n"
        "os.write(OUT, message(IOPUB, 'status', {'execution_state': 'idle'}, parent()) * 3)\n"
    )
    assert result.status == "ok"
    assert not hostile.client.shell_channel.msg_ready()
    states = [
        m["content"]["execution_state"] for m in hostile.stale_iopub() if m["msg_type"] == "status"
    ]
    assert states == []
    assert hostile.run("'alive'").value == "'alive'"


def test_a_forged_breakpoint_does_not_stop_the_clock(start: Start, ceiling: Path) -> None:
    ceiling.write_text(ceiling.read_text() + '\n[limits]\ncell_timeout = "2s"\n')
    kernel = start(ceiling)
    assert kernel.run(FORGE).status == "ok"
    result = kernel.run(
        "os.write(OUT, message(IOPUB, 'debug_event', {'event': 'stopped'}, parent()))\n"
        "import time; time.sleep(600)"
    )
    assert result.content["ename"] == "SandboxTimeoutError"


@pytest.mark.parametrize("level", ["safe", "trusted"])
def test_a_cell_cannot_imitate_the_kernels_own_notes(
    start: Start, ceiling: Path, folders: Folders, level: str
) -> None:
    ceiling.write_text(ceiling.read_text() + f'\n[output]\nhtml = "{level}"\n')
    kernel = start(ceiling)
    fake = kernel.run(
        "from IPython.display import publish_display_data\n"
        "fake = {'mxc': {'note': 'blocked'}}\n"
        "publish_display_data({'text/plain': 'fake'}, metadata=fake)"
    )
    assert [m["content"]["metadata"] for m in fake.of_type("display_data")] == [{}]
    real = kernel.run(f"open('{folders.outside}/private.txt')")
    notes = [m["content"]["metadata"] for m in real.of_type("display_data")]
    assert notes == [{"mxc": {"note": "blocked"}}]
