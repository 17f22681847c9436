"""A child that lies, floods, goes silent or breaks the rules of the pipe.

Code in the sandbox can do all that the worker can: it finds the pipes and writes frames by hand.
`tests/kernel/test_hostile_child.py` has the first of these attacks and shows how.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.kernel.conftest import Kernel, Result
from tests.kernel.test_hostile_child import FORGE

from .stage import PRELUDE, Stage

# Frames by hand, also wrong ones: the declared part count and length are free to be lies.
MORE = """
HELLO, SIGNAL, STATE, CREDIT = 0, 5, 6, 7
def lie(channel, parts, length, body=b''):
    return struct.pack('>HBBI', 0x4D58, channel, parts, length) + body
def put(data):
    'Write all of it, as the pipe is not blocking.'
    import select
    view = memoryview(data)
    while view:
        select.select([], [OUT], [])
        try:
            view = view[os.write(OUT, view):]
        except BlockingIOError:
            pass
def frame(channel, *parts):
    'A right frame, in fragments where it is large.'
    body = struct.pack(f'>{len(parts)}I', *map(len, parts)) + b''.join(parts)
    pieces, count = [], len(parts)
    for at in range(0, max(1, len(body)), 65536):
        head = struct.pack('>HBBI', 0x4D58, channel, count, len(body) - at)
        pieces.append(head + body[at:at + 65536])
        count = 255
    return b''.join(pieces)
def raw(channel, header, content, parent=None):
    parent = json.dumps(parent or globals()['parent']()).encode()
    return frame(channel, header, parent, b'{}', content)
STREAM = b'{"msg_id": "x", "msg_type": "stream"}'
def text(words):
    return json.dumps({'name': 'stdout', 'text': words}).encode()
"""


@pytest.fixture
def hostile(stage: Stage) -> Iterator[Kernel]:
    """The stage's kernel, where code can forge; whatever happened, it works afterwards."""
    kernel = stage.kernel
    assert kernel.run(PRELUDE + FORGE + MORE).status == "ok"
    yield kernel
    kernel.stale_iopub()
    while kernel.client.shell_channel.msg_ready():
        kernel.client.get_shell_msg(timeout=1)
    assert kernel.run("'alive'").value == "'alive'"


def memory(kernel: Kernel) -> int:
    """The bytes that the host process has of its own."""
    return int(psutil.Process(kernel.pid).memory_full_info().uss)


def spoken(result: Result) -> str:
    return result.stream() + result.shown + result.error


# --- frames that are not what they say -----------------------------------------------------------


def test_a_forged_frame_arrives_when_it_is_right(hostile: Kernel) -> None:
    """The control: each part of the forgery works."""
    assert "by hand" in hostile.run("put(raw(IOPUB, STREAM, text('by hand')))").stream()


STRANGE = {
    "no-type": "raw(IOPUB, b'{}', text('forged'))",
    "a-type-that-is-a-list": "raw(IOPUB, b'{\"msg_type\": [\"stream\"]}', text('forged'))",
    "a-type-that-is-null": "raw(IOPUB, b'{\"msg_type\": null}', text('forged'))",
    "a-very-long-type": (
        "raw(IOPUB, json.dumps({'msg_type': 'forged' * 100_000}).encode(), text('forged'))"
    ),
    "a-request-s-type": 'raw(IOPUB, b\'{"msg_type": "execute_request"}\', b\'{"code": "forged"}\')',
    "utf-16": "raw(IOPUB, STREAM, text('forged').decode().encode('utf-16'))",
    "a-byte-order-mark": "raw(IOPUB, STREAM, b'\\xef\\xbb\\xbf' + text('forged'))",
    "infinity": "raw(IOPUB, STREAM, text('forged')[:-1] + b', \"x\": Infinity}')",
    "minus-infinity": "raw(IOPUB, STREAM, text('forged')[:-1] + b', \"x\": -Infinity}')",
    "not-a-number": "raw(IOPUB, STREAM, text('forged')[:-1] + b', \"x\": NaN}')",
    "deep-lists": "raw(IOPUB, STREAM, b'[' * 500_000 + b']' * 500_000)",
    "deep-objects": "raw(IOPUB, STREAM, b'{\"a\":' * 500_000 + b'1' + b'}' * 500_000)",
    "deep-below-a-field": (
        "raw(IOPUB, STREAM, text('forged')[:-1] + b', \"x\": ' + b'[' * 9999 + b']' * 9999 + b'}')"
    ),
    "a-deep-header": "raw(IOPUB, b'[' * 99_999, text('forged'))",
    "a-deep-parent": "frame(IOPUB, STREAM, b'[' * 99_999, b'{}', text('forged'))",
    "two-values": "raw(IOPUB, STREAM, text('forged') + text('forged'))",
    "not-closed": "raw(IOPUB, STREAM, text('forged')[:-1])",
    "a-text": "raw(IOPUB, STREAM, b'\"forged\"')",
    "empty": "raw(IOPUB, STREAM, b'')",
    "too-few-parts": "frame(IOPUB, STREAM, b'{}', text('forged'))",
    "no-parts": "lie(IOPUB, 0, 0)",
    "a-stream-of-numbers": 'raw(IOPUB, STREAM, b\'{"name": "stdout", "text": 7}\')',
    "a-parent-that-is-a-list": "frame(IOPUB, STREAM, b'[\"forged\"]', b'{}', text('forged'))",
    "a-parent-s-id-that-is-an-object": (
        "frame(IOPUB, b'{\"msg_type\": \"display_data\"}', b'{\"msg_id\": {}}', b'{}',"
        ' b\'{"data": {"text/plain": "forged"}}\')'
    ),
    "an-empty-parent": (
        "frame(IOPUB, b'{\"msg_type\": \"display_data\"}', b'{}', b'{}',"
        ' b\'{"data": {"text/plain": "forged"}}\')'
    ),
    "a-reply-on-iopub": "message(IOPUB, 'execute_reply', {'status': 'ok', 'forged': 1}, parent())",
    "an-output-on-shell": "raw(SHELL, STREAM, text('forged'))",
    "an-output-on-stdin": "raw(STDIN, STREAM, text('forged'))",
    "a-welcome": "message(IOPUB, 'iopub_welcome', {'subscription': 'forged'}, {})",
    "a-shutdown": "message(IOPUB, 'shutdown_reply', {'status': 'ok', 'forged': 1}, parent())",
    "a-kernel-info-reply": "message(SHELL, 'kernel_info_reply', {'banner': 'forged'}, parent())",
    "a-handshake": "frame(HELLO, b'x' * 16, b'{\"forged\": 1}')",
    "the-magics-help": "frame(HELLO, b'magics', b'[{\"name\": \"forged\"}]')",
    "a-signal": "frame(SIGNAL, b'interrupt')",
    "a-state-nobody-asked-for": "frame(STATE, b'chunk', b'forged' * 1000)",
    "a-state-that-is-done": "frame(STATE, b'dumped', b'{\"names\": 1, \"forged\": 1}')",
    "a-state-that-is-loaded": "frame(STATE, b'loaded', b'{\"names\": 1, \"forged\": 1}')",
    "a-state-without-parts": "lie(STATE, 0, 0)",
    "a-start-without-its-end": "lie(SHELL, 4, 1 << 20, b'forged' * 10_922 + b'abcd')",
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)
def test_a_strange_frame_is_dropped_and_harms_nobody(hostile: Kernel, strange: str) -> None:
    result = hostile.run(f"put({strange})\nput(raw(IOPUB, STREAM, text('the next')))\n'done'")
    assert result.status == "ok", result.error
    assert "the next" in result.stream()  # the control: what comes behind it is heard
    said = [*result.messages, *hostile.stale_iopub()]
    assert not any("forged" in str(m["content"]) for m in said if "code" not in m["content"])
    assert [m["content"]["execution_state"] for m in result.of_type("status")] == ["busy", "idle"]
    assert not hostile.client.stdin_channel.msg_ready()


def test_text_that_is_not_utf_8_is_shown_as_far_as_it_is(hostile: Kernel) -> None:
    r"""Programs print such bytes, so it is no offence; and it is text before it is looked at."""
    token = "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    result = hostile.run(
        f"secret = ({token[:9]!r} + {token[9:]!r}).encode()\n"
        'put(raw(IOPUB, STREAM, b\'{"name": "stdout", "text": "so\\xff \' + secret + b\'"}\'))'
    )
    assert "so\ufffd" in result.stream()
    assert token not in result.stream()


BROKEN = {
    "over-the-limit-of-its-channel": "lie(STDIN, 1, (16 << 20) + 1)",
    "four-gigabytes": "lie(IOPUB, 4, 0xFFFFFFFF)",
    "too-many-parts": "lie(IOPUB, 65, 65 * 4, bytes(65 * 4))",
    "more-parts-than-fit": "lie(IOPUB, 64, 4, bytes(4))",
    "lengths-that-do-not-add-up": "lie(IOPUB, 2, 12, struct.pack('>II', 2, 3) + b'abcd')",
    "lengths-that-overflow": ("lie(IOPUB, 2, 12, struct.pack('>II', 0xFFFFFFFF, 5) + b'abcd')"),
    "a-rest-of-nothing": "lie(CONTROL, 255, 10, b'x' * 10)",
    "a-rest-of-another-length": (
        "lie(SHELL, 1, 1 << 20, bytes(65536)) + lie(SHELL, 255, 5, bytes(5))"
    ),
    "an-unknown-channel": "lie(200, 1, 4, bytes(4))",
    "not-a-frame": "b'GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'",
    "an-error-of-the-executable": (
        'b\'{"error": {"code": "backend_error", "message": "forged"}}\\n\''
    ),
    "a-credit-for-no-channel": "frame(CREDIT, struct.pack('>BI', 1, 1 << 20))",
    "a-credit-that-is-none": "frame(CREDIT, b'forged')",
    "more-than-the-window": ("b''.join(frame(STATE, b'chunk', bytes(60_000)) for _ in range(200))"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_child_that_breaks_the_rules_is_ended(hostile: Kernel, broken: str) -> None:
    """And said to have broken them, in the host's words."""
    pid = hostile.run("print(os.getpid())").stream()
    before = memory(hostile)
    hold = "lie(IOPUB, 4, 1 << 20)" if "range(200)" in broken else "b''"
    result = hostile.run(f"put({hold})\nput({broken})\ntime.sleep(25)")
    if "range(200)" in broken and result.status == "ok":
        assert memory(hostile) < before + (64 << 20)
        return
    assert result.content["ename"] == "SandboxExecutionError"
    assert "it broke the protocol" in result.content["evalue"]
    assert hostile.run("'a new one'").value == "'a new one'"
    assert pid


def test_frames_that_never_end_hold_no_more_than_they_brought(hostile: Kernel) -> None:
    before = memory(hostile)
    result = hostile.run(
        "for _ in range(2000):\n"
        "    for channel, size in ((SHELL, 256 << 20), (CONTROL, 64 << 20), (STDIN, 16 << 20)):\n"
        "        put(lie(channel, 4, size, bytes(65536)))\n"
        "'done'"
    )
    assert result.value == "'done'"
    assert memory(hostile) < before + (32 << 20)


# --- statuses, replies and parents ---------------------------------------------------------------


def test_a_cell_that_says_it_is_done_and_goes_on_is_one_that_goes_on(
    stage: Stage, hostile: Kernel
) -> None:
    """It looks ended to the frontend; the next one waits for it and is interrupted as ever."""
    result = hostile.run(
        "reply = {'status': 'ok', 'execution_count': 1, 'user_expressions': {}}\n"
        "put(message(SHELL, 'execute_reply', reply, parent()))\n"
        "put(message(IOPUB, 'status', {'execution_state': 'idle'}, parent()))\n"
        "while True: time.sleep(0.01)"
    )
    assert result.status == "ok"
    waiting = hostile.send("'never reached before the other has ended'")
    hostile.interrupt()
    assert hostile.wait(waiting).content["status"] in ("ok", "error")
    assert hostile.run("1 + 1").value == "2"


def test_a_grant_for_one_cell_ends_with_it_whatever_the_cell_says(stage: Stage) -> None:
    """One that claims to be done and goes on writing is asked for its names and does not answer.

    Its clock interrupts it then; without a limit it has the two minutes that packing may take.
    """
    target = stage.extra / "grows"
    text = stage.ceiling.read_text().replace('"30s"', '"3s"')
    ceiling = stage.write_ceiling(text, "three.toml")
    kernel = stage.start(ceiling, prelude=PRELUDE + FORGE + MORE)
    result = kernel.run(
        f"%%allow_rw {stage.extra}\n"
        "reply = {'status': 'ok', 'execution_count': 1, 'user_expressions': {}}\n"
        "put(message(SHELL, 'execute_reply', reply, parent()))\n"
        "put(message(IOPUB, 'status', {'execution_state': 'idle'}, parent()))\n"
        "while True:\n"
        f"    open({str(target)!r}, 'a').write('x')\n"
        "    time.sleep(0.001)",
        timeout=200,
    )
    assert result.content["status"] in ("ok", "error")
    assert target.stat().st_size > 0  # the control: it was writing
    size = target.stat().st_size
    assert kernel.run("time.sleep(0.2)").status == "ok"
    assert target.stat().st_size == size
    target.unlink()
    stage.end(kernel)


def test_what_is_left_of_a_one_cell_grant_ends_with_it(stage: Stage) -> None:
    """A thread and a process in a session of its own, both still writing."""
    target = stage.extra / "grows"
    script = f"import time\nwhile True: open({str(target)!r}, 'a').write('x'); time.sleep(0.001)"
    for magic in ("%%allow_rw", "%%sandbox --rw"):
        result = stage.run(
            f"{magic} {stage.extra}\nimport subprocess, sys, threading, os, time\n"
            f"p = subprocess.Popen([sys.executable, '-c', {script!r}], start_new_session=True)\n"
            f"threading.Thread(target=exec, args=({script!r}, {{}}), daemon=True).start()\n"
            f"while not os.path.exists({str(target)!r}): time.sleep(0.01)"
        )
        assert result.status == "ok", result.error
        size = target.stat().st_size
        stage.run("import time; time.sleep(0.3)")
        # What was under way when the cell ended may still have come.
        later = target.stat().st_size
        stage.run("import time; time.sleep(0.3)")
        assert target.stat().st_size == later
        assert size > 0
        target.unlink()


def test_a_late_reply_or_status_is_nobody_s(hostile: Kernel) -> None:
    """Frames for a cell that has been answered, from a thread that it left."""
    result = hostile.run(
        "def late(parent):\n"
        "    go.wait()\n"
        "    put(message(SHELL, 'execute_reply', {'status': 'error', 'ename': 'forged'}, parent))\n"
        "    put(message(IOPUB, 'status', {'execution_state': 'busy'}, parent))\n"
        "    put(message(IOPUB, 'status', {'execution_state': 'idle'}, parent))\n"
        "    given = {'code': 'forged', 'execution_count': 9}\n"
        "    put(message(IOPUB, 'execute_input', given, parent))\n"
        "    put(message(STDIN, 'input_request', {'prompt': 'forged'}, parent))\n"
        "    done.set()\n"
        "go, done = threading.Event(), threading.Event()\n"
        "threading.Thread(target=late, args=(parent(),)).start()"
    )
    assert result.status == "ok"
    after = hostile.run("go.set(); done.wait()\n'mine'")
    assert after.value == "'mine'"
    said = [*after.messages, *hostile.stale_iopub()]
    assert [m["content"]["execution_state"] for m in said if m["msg_type"] == "status"] == [
        "busy",
        "idle",
    ]
    assert not any("forged" in str(m["content"]) for m in said if "code" not in m["content"])
    assert not hostile.client.shell_channel.msg_ready()
    assert not hostile.client.stdin_channel.msg_ready()


def test_a_cell_cannot_answer_for_the_one_behind_it(hostile: Kernel) -> None:
    """It does not know the other's id, and a guess or none at all finds no request."""
    first = hostile.send(
        "for guess in ({}, {'msg_id': ''}, {'msg_id': parent()['msg_id'] + '1'}):\n"
        "    head, _, tail = parent()['msg_id'].rpartition('_')\n"
        "    for n in range(20):\n"
        "        other = guess or {'msg_id': f'{head}_{int(tail) + n}'}\n"
        "        if other == parent(): continue\n"
        "        reply = {'status': 'ok', 'execution_count': 9, 'user_expressions': {}}\n"
        "        put(message(SHELL, 'execute_reply', reply, other))\n"
        "        put(message(IOPUB, 'status', {'execution_state': 'idle'}, other))\n"
    )
    second = hostile.send("open('/nowhere')")
    assert hostile.wait(first).status == "ok"
    assert hostile.wait(second).error.startswith("FileNotFoundError")


def test_output_for_an_earlier_cell_counts_to_that_cell_s_limit(
    stage: Stage, hostile: Kernel
) -> None:
    """Threads need to print late; so a cell can, too, and not past the cap."""
    result = hostile.run("old = parent()\n'done'")
    assert result.status == "ok"
    flood = hostile.run(
        "for _ in range(100):\n"
        "    put(message(IOPUB, 'stream', {'name': 'stdout', 'text': 'y' * 100_000}, old))"
    )
    assert flood.status == "ok"
    messages = [*flood.messages, *hostile.stale_iopub()]
    printed = sum(len(m["content"]["text"]) for m in messages if m["msg_type"] == "stream")
    assert printed < 4 << 20  # of ten million


def test_an_error_by_hand_does_not_make_a_cell_fail(hostile: Kernel) -> None:
    """The status is that of the reply; what is published is an output."""
    result = hostile.run(
        "put(message(IOPUB, 'error', {'ename': 'Fake', 'evalue': 'x', 'traceback': []}, parent()))"
    )
    assert result.status == "ok"


# --- silence and floods --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hurried(stage: Stage) -> Kernel:
    """A kernel whose cells have one second."""
    text = stage.ceiling.read_text().replace('"30s"', '"1s"')
    return stage.start(stage.write_ceiling(text, "short.toml"), prelude="")


@pytest.fixture
def short(hurried: Kernel) -> Kernel:
    """That kernel, where code can forge."""
    for _ in range(2):  # a sandbox that was just ended takes one cell with it
        ready = hurried.run(PRELUDE + FORGE + MORE)
        if ready.status == "ok":
            return hurried
    raise AssertionError(ready.error)


SILENT = {
    "stops-itself": "os.kill(os.getpid(), signal.SIGSTOP)",
    "ignores-signals": (
        "[signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)]\n"
        "while True: pass"
    ),
    "blocks-signals": "signal.pthread_sigmask(0, range(1, 32))\nwhile True: pass",
    "swallows-interrupts": (
        "def forever():\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass\nforever()"
    ),
    "never-comes-back-from-c": (
        "import ctypes; ctypes.PyDLL(None).sleep(600); ctypes.PyDLL(None).pause()"
    ),
    "closes-its-pipes": ("for fd in range(3, 300):\n    tried(os.close, fd)\ntime.sleep(600)"),
    "takes-the-reader-away": (
        "for fd in range(200, 203):\n    os.dup2(os.open('/dev/null', os.O_RDWR), fd)\n"
        "time.sleep(600)"
    ),
    "replaces-the-answer": (
        "get_ipython().kernel.execute_request = lambda *a, **k: None\n"
        "get_ipython().kernel.session.send = lambda *a, **k: None\ntime.sleep(600)"
    ),
}


@pytest.mark.parametrize("silent", SILENT.values(), ids=SILENT)
def test_a_child_that_never_answers_is_ended(short: Kernel, silent: str) -> None:
    processes = psutil.Process(short.pid).children(recursive=True)
    result = short.run(silent)
    assert result.status == "error"
    assert result.content["ename"] in (
        "SandboxTimeoutError",
        "SandboxExecutionError",
        "KeyboardInterrupt",
    )
    again = short.run("'alive'")
    if again.status == "error":  # it was still being ended
        again = short.run("'alive'")
    assert again.value == "'alive'"
    assert processes


def test_a_silent_child_does_not_keep_the_host_from_ending(stage: Stage) -> None:
    kernel = stage.start()
    kernel.send("os.kill(os.getpid(), signal.SIGSTOP)")
    tree = psutil.Process(kernel.pid).children(recursive=True)
    started = time.monotonic()
    stage.end(kernel)
    gone, alive = psutil.wait_procs(tree, timeout=10)
    assert gone
    assert not alive
    assert started


FLOODS = {
    "streams": "message(IOPUB, 'stream', {'name': 'stdout', 'text': 'x' * 1000}, parent())",
    "displays": "message(IOPUB, 'display_data', {'data': {'text/plain': 'x' * 1000}}, parent())",
    "statuses": "message(IOPUB, 'status', {'execution_state': 'busy'}, parent())",
    "rubbish": "frame(IOPUB, b'x' * 1000)",
    "replies": "message(SHELL, 'execute_reply', {'status': 'no'}, {'msg_id': 'none'})",
    "control": "message(CONTROL, 'debug_reply', {'status': 'no'}, {'msg_id': 'none'})",
    "comms": (
        "message(IOPUB, 'comm_open', {'comm_id': os.urandom(8).hex(), 'target_name':"
        " 'jupyter.widget', 'data': {}}, parent())"
    ),
    "states": "frame(STATE, b'chunk', b'x' * 1000)",
    "handshakes": "frame(HELLO, b'x' * 16, b'{}')",
    "credits": "frame(CREDIT, struct.pack('>BI', 4, 1 << 20))",
    "types": "message(IOPUB, 'type' + os.urandom(8).hex(), {}, parent())",
    "everything": (
        "b''.join((message(IOPUB, 'stream', {'name': 'stderr', 'text': 'x'}, parent()),"
        " frame(SHELL, b'x'), frame(CONTROL, b'x'), frame(STDIN, b'x'), frame(STATE, b'x')))"
    ),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_stops_nobody_and_fills_nothing(short: Kernel, flood: str) -> None:
    """The cell's clock still ends it, an interrupt is answered, and the host stays small."""
    assert short.run("pass").status == "ok"
    before = memory(short)
    code = f"some = {flood}\nmany = some * 50\nwhile True: put(many)"
    msg_id = short.send(code, allow_stdin=False)
    assert short.control("kernel_info_request")["content"]["status"] == "ok"
    result = short.wait(msg_id)
    assert result.content["ename"] in ("SandboxTimeoutError", "SandboxExecutionError")
    assert short.run("'alive'").value == "'alive'"
    assert memory(short) < before + (100 << 20)


def test_a_flood_of_questions_asks_once(hostile: Kernel) -> None:
    """The user is asked once, and an interrupt ends the cell."""
    question = "message(STDIN, 'input_request', {'prompt': 'x'}, parent())"
    msg_id = hostile.send(
        f"for _ in range(1000): put({question})\nprint('asked')\ntime.sleep(600)", allow_stdin=True
    )
    hostile.wait_for_text(msg_id, "asked")
    hostile.interrupt()
    assert hostile.wait(msg_id).error.startswith("KeyboardInterrupt")
    asked = 0
    while hostile.client.stdin_channel.msg_ready():
        assert hostile.client.get_stdin_msg(timeout=1)["content"]["prompt"] == "x"
        asked += 1
    assert asked == 1


def test_a_flood_of_diagnostics_is_cut(hostile: Kernel) -> None:
    """The third pipe is for what the worker says before it dies."""
    before = memory(hostile)
    result = hostile.run(
        "import fcntl\n"
        "errors = [fd for fd in map(int, os.listdir('/proc/self/fd')) if fd >= 200"
        " and fd != OUT and tried(fcntl.fcntl, fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY]\n"
        "import select\n"
        "for _ in range(2000):\n"
        "    for fd in errors:\n"
        "        select.select([], [fd], [])\n"
        "        tried(os.write, fd, b'x' * 65536)\n"
        "print(len(errors))"
    )
    assert result.status == "ok", result.error
    assert result.stream().strip() == "1"
    assert memory(hostile) < before + (16 << 20)


def test_last_words_cannot_pass_for_the_host_s(hostile: Kernel) -> None:
    """What a dying child says is shown as its own: redacted, and without escape sequences."""
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    result = hostile.run(
        "import fcntl\n"
        "errors = [fd for fd in map(int, os.listdir('/proc/self/fd')) if fd >= 200"
        " and fd != OUT and tried(fcntl.fcntl, fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY]\n"
        f"token = {token[:9]!r} + {token[9:]!r}\n"
        "os.write(errors[0], f'spoken \\x1b]0;title\\x07\\x1b[2J {token}'.encode())\n"
        "os._exit(3)"
    )
    shown = str(result.of_type("error")) + str(result.content)
    assert result.content["ename"] == "SandboxExecutionError"
    assert "spoken" in shown
    assert token not in shown
    assert "\\x1b]" not in shown
    assert "\\x1b[2J" not in shown
    assert "\\x07" not in shown


@pytest.mark.parametrize(
    "ending",
    [
        "os._exit(255)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "tried(os.kill, 1, signal.SIGKILL)",
        "import ctypes; ctypes.string_at(0)",
        'print(\'{"error":{"code":"backend_error"}}\', file=sys.__stderr__, flush=True)',
    ],
    ids=["exit-255", "kill", "crash", "kill-init", "null", "an-envelope"],
)
def test_however_it_ends_the_cell_is_answered_and_the_next_one_works(
    hostile: Kernel, ending: str
) -> None:
    result = hostile.run(f"{ending}\nos._exit(255)")
    assert result.content["ename"] == "SandboxExecutionError"
    assert "died" in result.content["evalue"]
    assert hostile.run("'alive'").value == "'alive'"


# --- names on their way --------------------------------------------------------------------------

BOMB = """
class Bomb:
    'Writes into a file which sandbox it goes off in.'
    def __init__(self, path): self.path = path
    def __reduce__(self):
        code = (f"import os\\ntry: open({self.path!r}, 'a').write(os.readlink('/proc/self/ns/pid'))"
                "\\nexcept OSError: pass")
        return exec, (code,)
"""


def test_a_pickle_bomb_goes_off_in_the_new_sandbox_and_nowhere_else(stage: Stage) -> None:
    """What unpacks the names is under the new policy already; the host does not look inside."""
    beyond, granted = stage.extra / "beyond", stage.downloads / "granted"
    forbidden = stage.outside / "forbidden"
    kernel = stage.start()
    kernel.run(f"%allow_rw {stage.extra}\n{BOMB}")
    here = "print(os.readlink('/proc/self/ns/pid'))"
    old = kernel.run(here).stream().strip()
    kernel.run(f"bombs = [Bomb({str(beyond)!r}), Bomb({str(granted)!r}), Bomb({str(forbidden)!r})]")
    assert kernel.run(f"%revoke {stage.extra}\npass").status == "ok"
    new = kernel.run(here).stream().strip()
    # The old sandbox tries whether what it packs can be unpacked; there it had the grant still.
    assert new in granted.read_text()
    assert beyond.read_text().replace(old, "") == ""
    assert granted.read_text().replace(old, "").replace(new, "") == ""
    assert not forbidden.exists()
    granted.unlink()
    beyond.unlink()
    stage.end(kernel)


def test_a_bomb_from_a_throwaway_cell_does_not_go_off_in_the_session(stage: Stage) -> None:
    """Without --objects nothing is unpickled, whatever the stream says."""
    target = stage.downloads / "went-off"
    code = BOMB + f"c = Bomb({str(target)!r})"
    result = stage.run(f"%%sandbox --out c\n{code}")
    assert result.status == "error"
    assert not target.exists()
    stage.run(f"%%sandbox --out c --objects\n{code}")
    assert target.exists()  # the control, and what --objects says that it does
    target.unlink()


STATE_LIES = {
    "rubbish": "put(frame(STATE, b'chunk', os.urandom(50_000)))",
    "a-huge-length": "put(frame(STATE, b'chunk', b'\\xff' * 64))",
    "an-honest-pickle-of-a-bomb": "import pickle; put(frame(STATE, b'chunk', pickle.dumps(bomb)))",
    "a-report-that-lies": (
        "put(frame(STATE, b'dumped', json.dumps({'names': 10**9, 'lost': ['forged'] * 9,"
        " 'notes': [{'name': '<b>x</b>', 'note': 'y' * 9999}]}).encode()))"
    ),
    "a-report-that-is-none": "put(frame(STATE, b'dumped', b'[' * 9999))",
    "a-report-and-then-silence": (
        "put(frame(STATE, b'dumped', b'{}')); os.kill(os.getpid(), signal.SIGSTOP)"
    ),
    "a-death": "os._exit(1)",
}


@pytest.mark.parametrize("lie", STATE_LIES.values(), ids=STATE_LIES)
def test_a_child_that_lies_about_its_names_loses_them_and_no_more(stage: Stage, lie: str) -> None:
    """At a change of policy, where it is asked for them. The grant is not any wider for it."""
    marker = stage.outside / "marker"
    kernel = stage.start(prelude=PRELUDE + FORGE + MORE + BOMB)
    kernel.run(
        f"bomb = Bomb({str(marker)!r})\n"
        "class Trap:\n"
        "    def __reduce__(self):\n"
        f"        {lie}\n"
        "        return str, ('packed',)\n"
        "trap, x = Trap(), 1"
    )
    result = kernel.run(f"%allow_ro {stage.extra}\n1 + 1", timeout=200)
    assert result.value == "2" or result.status == "error"
    assert not marker.exists()
    assert "<b>x</b>" not in str(result.of_type("display_data")) or "&lt;b&gt;" in str(
        result.of_type("display_data")
    )
    assert kernel.run("2 + 2").value == "4"
    assert kernel.run(f"open({str(stage.extra / 'planted')!r}, 'w')").status == "error"
    assert not (stage.extra / "planted").exists()
    stage.end(kernel)


def test_the_state_is_not_held_without_bound(stage: Stage) -> None:
    """A child that packs without end fills the host no more than the pipe's credit allows."""
    kernel = stage.start(prelude=PRELUDE + FORGE + MORE)
    kernel.run(
        "class Endless:\n"
        "    def __reduce__(self):\n"
        "        for _ in range(3000): put(frame(STATE, b'chunk', bytes(60_000)))\n"
        "        return str, ('packed',)\n"
        "endless = Endless()"
    )
    before = memory(kernel)
    kernel.run("%checkpoint", timeout=200)
    # Not one frame more than was given credit for: else it is a broken protocol.
    assert memory(kernel) < before + (64 << 20)
    assert kernel.run("2 + 2").value == "4"
    stage.end(kernel)


def test_the_host_s_files_are_those_of_before(stage: Stage, hostile: Kernel) -> None:
    """A session of attacks leaves no descriptor behind in the host."""
    process = psutil.Process(hostile.pid)
    hostile.run("pass")
    before = process.num_fds()
    for _ in range(3):
        hostile.run("os._exit(1)")
        hostile.run("import os")
    assert process.num_fds() <= before + 2
    assert Path(f"/proc/{hostile.pid}").exists()
