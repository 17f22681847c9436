"""A real relay between a made-up child and made-up sockets, which checks all that goes out.

Real are the pipe, the frame decoder, the child's host side, the session, the relay, the cells, the
gate and the signing of messages. Made up are the sandbox, the ZMQ sockets and the time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import selectors
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

from mxc_kernel.audit.facts import Sandbox
from mxc_kernel.audit.folder import audit_folder
from mxc_kernel.audit.verify import verify
from mxc_kernel.child import Child
from mxc_kernel.errors import SandboxUnavailableError
from mxc_kernel.jupyter import frontends, gate, relay, shapes
from mxc_kernel.jupyter.insertions import is_inert
from mxc_kernel.jupyter.messages import DELIMITER, Incoming
from mxc_kernel.mxc.launcher import SandboxProcess
from mxc_kernel.mxc.usage import Usage
from mxc_kernel.output.operators import operators_rules
from mxc_kernel.output.redaction import Rules
from mxc_kernel.policy import Ceiling, MountPlan, Policy, Redaction, Request, load_ceiling, stamp
from mxc_kernel.session import Session
from mxc_kernel.starter import Launched
from mxc_kernel.wire import Channel, encode

__all__ = ["SECRET", "BrokenRuleError", "Rig", "rig"]

SECRET = "correct-horse-7351-battery"
_TOPIC = b"kernel.mxc."
_HEADER = {"msg_id", "msg_type", "username", "session", "date", "version"}
_STATUS = {"ok", "error", "aborted"}
# What a thread or a task of a cell may still bring when the cell is over, and the host's note that
# it is too much.
_LATE = {
    "stream",
    "display_data",
    "update_display_data",
    "clear_output",
    "debug_event",
    "error",
} | {
    "execute_result",
    "comm_open",
    "comm_msg",
    "comm_close",
}
_OF_NO_REQUEST = {"status", "stream", "comm_close", "comm_msg", "comm_open", "debug_event"} | {
    "display_data"
}
_LISTS = {"dropped": 200, "requests": 1100, "notes": 100}  # entries that a child can cause


class BrokenRuleError(AssertionError):
    """Something went out, or happened, that must not."""


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(selectors.SelectSelector())

    def time(self) -> float:
        return self.now


class _Socket:
    """Stands for a ZMQ socket."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = False
        self.FD = -1

    def close(self, _linger: int = 0) -> None:
        self.closed = True


class _Wire(frontends.Frontends):
    """The frontends' side, with a list in place of each socket."""

    def __init__(self, connection: Any, on_message: Any) -> None:
        self.out: list[tuple[str, list[bytes]]] = []
        super().__init__(connection, on_message)

    def _bind(self, kind: int, port: str) -> Any:
        return _Socket(port.removesuffix("_port"))

    def _start_heartbeat(self) -> None:
        """Have none."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def _drain(self) -> None:
        """There is nothing to read."""

    def _send(self, socket: Any, unsent: Any, frames: Any) -> None:
        self.out.append((socket.name, [bytes(frame) for frame in frames]))

    def close(self) -> None:
        self._context.term()
        self._heartbeat.destroy(linger=0)


@dataclass
class Asked:
    """A request of a frontend, and what has come of it."""

    msg_type: str
    channel: str
    raw: bytes
    identity: bytes
    content: dict[str, Any]
    states: list[str] = field(default_factory=list)
    replies: int = 0
    errors: list[str] = field(default_factory=list)
    printed: dict[str, str] = field(default_factory=lambda: defaultdict(str))


class Rig:
    """The relay and what is around it; made by :func:`rig`."""

    def __init__(self, loop: Loop, session: Session, child: Child, pipe: int) -> None:
        self.loop = loop
        self.session = session
        self.child = child
        self.pipe = pipe
        self.asked: dict[str, Asked] = {}
        self.failures: list[str] = []
        self.relay = relay.Relay(session, {"key": "k", "transport": "ipc", "ip": "-"})
        self.wire: _Wire = self.relay._frontends  # type: ignore[assignment]
        self._seen: set[str] = set()

    # --- what happens ---------------------------------------------------------------------------

    def ask(self, channel: Channel, msg_type: str, content: Any, **header: Any) -> None:
        """Let a frontend send a message."""
        msg_id = f"ask-{len(self.asked)}"
        whole = {"msg_id": msg_id, "msg_type": msg_type, "session": "front", **header}
        raw = json.dumps(whole).encode()
        parts = [raw, b"{}", b"{}", json.dumps(content).encode()]
        if channel is not Channel.STDIN:
            self.asked[msg_id] = Asked(msg_type, channel.name.lower(), raw, b"one", content)
        message = Incoming([b"one"], whole, parts)
        self.loop.call_soon(self.relay._from_frontend, channel, message)
        self.spin()

    def frame(self, channel: Channel, parts: list[bytes]) -> None:
        """Let the child send a frame."""
        for fragment in encode(channel, parts):
            self.write(fragment)

    def write(self, data: bytes) -> None:
        """Let the child write bytes."""
        tries = 0
        while data and not self.child.closed:
            try:
                data = data[os.write(self.pipe, data[:32768]) :]
                tries = 0
            except BlockingIOError:
                tries += 1
                if tries > 100:
                    self._broken("the host reads no more")
            self.spin()

    def hang_up(self) -> None:
        """Let the child end."""
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1
            self.spin()

    def spin(self) -> None:
        """Let the loop do all that is due."""
        self.loop.run_until_complete(_turns(8))
        self.check()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, in steps, so that what a timer starts has its own time too."""
        for _ in range(4):
            self.loop.now += seconds / 4
            self.spin()

    def finish(self) -> None:
        """End the child and see that everybody who asked has got an answer."""
        self.pass_time(1.0)
        self.hang_up()
        for _ in range(3):
            self.pass_time(200.0)
        for msg_id, asked in self.asked.items():
            wanted = asked.msg_type.endswith("_request")
            if asked.replies != wanted or asked.states != ["busy", "idle"]:
                self._broken(f"{msg_id} {asked.msg_type}: {asked.replies} replies, {asked.states}")

    # --- the rules ------------------------------------------------------------------------------

    def check(self) -> None:
        """Check each message that has gone out, and that nothing failed on the way.

        Raises:
            BrokenRuleError: a rule is broken.
        """
        out, self.wire.out = self.wire.out, []
        for socket, frames in out:
            try:
                self._check_one(socket, frames)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                self._broken(f"{error!r} in {frames!r:.2000}")
        if self.failures:
            self._broken("; ".join(self.failures))
        sizes = {
            "dropped": len(self.relay._gate.dropped),
            "requests": len(self.relay._requests._requests),
            "notes": max(
                (len(r.output.notes) for r in self.relay._requests._requests.values()), default=0
            ),
        }
        for name, most in _LISTS.items():
            if sizes[name] > most:
                self._broken(f"{name} has {sizes[name]} entries")

    def _check_one(self, socket: str, frames: list[bytes]) -> None:
        border = frames.index(DELIMITER)
        identities, (_mac, raw, parent, metadata, content, *buffers) = (
            frames[:border],
            frames[border + 1 :],
        )
        header = _strict(raw)
        if set(header) != _HEADER or not all(isinstance(value, str) for value in header.values()):
            self._broken(f"header {header}")
        if header["msg_id"] in self._seen:
            self._broken("a message id came twice")
        self._seen.add(header["msg_id"])
        if header["username"] != "kernel" or not (shapes.date(header["date"])):
            self._broken(f"header {header}")
        kind, body, about = header["msg_type"], _strict(content), _strict(metadata)
        asked = self._parent(parent)
        self._holds_no_secret(kind, body, about)
        if buffers and kind not in ("comm_open", "comm_msg", "comm_close"):
            self._broken(f"buffers with {kind}")
        if socket == "iopub":
            if identities != [_TOPIC + kind.encode()]:
                self._broken(f"topic {identities}")
            self._publication(kind, body, about, asked)
        else:
            if asked is None or identities != [asked.identity]:
                self._broken(f"{kind} on {socket} for nobody")
            elif socket == "stdin":
                self._question(kind, body, asked)
            else:
                self._reply(socket, kind, body, asked)

    def _parent(self, parent: bytes) -> Asked | None:
        if parent == b"{}":
            return None
        asked = self.asked.get(_strict(parent).get("msg_id", ""))
        if asked is None or asked.raw != parent:
            self._broken(f"a parent that no frontend sent: {parent!r}")
        return asked

    def _publication(self, kind: str, body: Any, about: Any, asked: Asked | None) -> None:
        if kind == "status":
            state = body["execution_state"]
            if asked is not None:
                asked.states.append(state)
                if asked.states not in (["busy"], ["busy", "idle"]):
                    self._broken(f"statuses {asked.states} of {asked.msg_type}")
            elif state != "starting":
                self._broken(f"status {state} of no request")
            return
        if asked is None and kind not in _OF_NO_REQUEST:
            self._broken(f"{kind} belongs to no request")
        # ipykernel tells no status of a comm message that it handles beside an awaiting cell.
        if asked is not None and not asked.states and asked.msg_type.endswith("_request"):
            self._broken(f"{kind} before the busy")
        if asked is not None and asked.states[-1:] == ["idle"] and kind not in _LATE:
            self._broken(f"{kind} after the idle")
        if set(about) - {"version"}:
            self._broken(f"metadata {about} of {kind}")
        if kind == "execute_input":
            if asked is None or body["code"] != asked.content.get("code"):
                self._broken("execute_input with other code than the frontend's")
        elif kind == "stream":
            if set(body) != {"name", "text"} or body["name"] not in ("stdout", "stderr"):
                self._broken(f"stream {body}")
            if asked is not None:
                asked.printed[body["name"]] += body["text"]
                if SECRET in asked.printed[body["name"]]:
                    self._broken("a secret was printed in pieces")
        elif kind == "shutdown_reply":
            if asked is None or asked.msg_type != "shutdown_request":
                self._broken("a shutdown that nobody asked for")
        elif kind not in shapes.PUBLICATIONS:
            self._broken(f"a publication of type {kind}")
        else:
            if kind != "debug_event" and shapes.PUBLICATIONS[kind](body) != body:
                self._broken(f"{kind} is not in its shape: {body}")
            if kind == "error" and asked is not None:
                asked.errors.append(body["ename"])
            self._bundle(body)

    def _reply(self, socket: str, kind: str, body: Any, asked: Asked) -> None:
        asked.replies += 1
        if asked.replies > 1:
            self._broken(f"a second reply to {asked.msg_type}")
        if socket != asked.channel or kind != asked.msg_type.removesuffix("_request") + "_reply":
            self._broken(f"{kind} on {socket} answers {asked.msg_type} on {asked.channel}")
        allowed = _STATUS | {"complete", "incomplete", "invalid", "unknown"}
        if kind not in ("debug_reply", "usage_reply") and body.get("status") not in allowed:
            self._broken(f"status {body.get('status')!r} in {kind}")
        unknown = body.get("ename") == "UnknownSubshellError"  # ipykernel's answer is as short
        if kind in shapes.REPLIES and kind != "debug_reply" and not unknown:
            again = shapes.REPLIES[kind](body)
            if not {key: again[key] for key in body if key in again}.items() <= body.items():
                self._broken(f"{kind} is not in its shape: {body}")
        if kind == "execute_reply":
            if body["status"] == "error" and not asked.errors and not unknown:
                self._broken(f"{body['ename']} in a reply, and no error published")
            for item in body.get("payload", ()):
                self._payload(item)
            for value in body.get("user_expressions", {}).values():
                self._bundle(value)
        elif kind == "inspect_reply":
            self._bundle(body)
        elif kind == "complete_reply" and body["status"] == "ok":
            self._completion(body, asked)

    def _payload(self, item: dict[str, Any]) -> None:
        if item["source"] == "page":
            self._bundle(item)
        elif item["source"] == "set_next_input":
            if not is_inert(item["text"]):
                self._broken(f"a magic is put into a cell: {item}")
        elif item["source"] != "ask_exit":
            self._broken(f"payload {item}")

    def _completion(self, body: dict[str, Any], asked: Asked) -> None:
        code = asked.content["code"]
        start, end = body["cursor_start"], body["cursor_end"]
        for match in body["matches"]:
            made = code[:start] + match + code[end:]
            if is_inert(code) and not is_inert(made):
                self._broken(f"a completion makes a magic: {made!r}")

    def _question(self, kind: str, body: Any, asked: Asked) -> None:
        if kind != "input_request" or shapes.input_request(body) != body:
            self._broken(f"{kind} {body} on stdin")
        if not asked.content.get("allow_stdin") or asked.replies or "idle" in asked.states:
            self._broken("a question to somebody who is not to be asked")

    def _bundle(self, body: dict[str, Any]) -> None:
        """What a frontend draws, at the level `safe`."""
        data = body.get("data")
        if not isinstance(data, dict) or "comm_id" in body:
            return
        for mime, value in data.items():
            low = str(value).lower()
            if "javascript" in mime or "vega" in mime or "bokeh" in mime or "plotly" in mime:
                self._broken(f"{mime} at the level safe")
            if mime in ("text/html", "text/markdown", "image/svg+xml") and (
                "<script" in low or "<iframe" in low or "<style" in low or "onerror=" in low
            ):
                self._broken(f"{mime}: {value}")
        if "isolated" in str(body.get("metadata")):
            self._broken(f"metadata {body['metadata']}")

    def _holds_no_secret(self, kind: str, *values: Any) -> None:
        if kind == "execute_input":
            return  # the frontend's own words
        for text in _texts(values):
            if SECRET in text:
                self._broken(f"a secret in {kind}: {values}"[:3000])

    def _broken(self, what: str) -> None:
        raise BrokenRuleError(what)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _strict(raw: bytes) -> dict[str, Any]:
    """Parse what every JSON parser takes, and nothing else."""

    def refuse(name: str) -> None:
        raise BrokenRuleError(f"{name} in JSON that goes out")

    value = json.loads(raw.decode(), parse_constant=refuse)
    if not isinstance(value, dict):
        raise BrokenRuleError("no object")
    return value


class _Process:
    """Stands for the sandbox: three pipes and no process."""

    def __init__(self) -> None:
        self.stdout, self.writing = os.pipe()
        os.set_blocking(self.stdout, False)
        os.set_blocking(self.writing, False)
        self.stdin = os.open(os.devnull, os.O_WRONLY)
        self.stderr, silent = os.pipe()
        os.set_blocking(self.stderr, False)
        self._open = [self.stdout, self.stdin, self.stderr, silent]
        self.read = partial(os.read, self.stdout)
        self.write = partial(os.write, self.stdin)
        self.group = self.enforcement = None
        self.diagnostics = ""
        self.pid = 0

    watch = SandboxProcess.watch
    watch_writes = SandboxProcess.watch_writes
    unwatch = SandboxProcess.unwatch

    def interrupt(self) -> bool:
        return True

    def wake(self) -> None:
        """Nothing stands still."""

    def poll(self) -> int:
        return 1

    def memory(self) -> int:
        return 0

    def read_diagnostics(self) -> bool:
        return True

    def has_mounts(self, _paths: object) -> bool:
        return True

    def close(self) -> None:
        for fd in self._open:
            os.close(fd)
        self._open = []


class _Listening(logging.Handler):
    """Hears of failures that the host answers instead of falling over them."""

    def __init__(self, failures: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._failures = failures
        self._format = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        self._failures.append(self._format.format(record))


@cache
def _ceiling() -> Ceiling:
    """The empty ceiling, read once: that takes as long as all the rest."""
    return load_ceiling(notebook_dir="/nonexistent", environ={"HOME": "/nonexistent"})


@cache
def _rules() -> Rules:
    return operators_rules({"SERVICE_PASSWORD": SECRET}, Redaction())


@cache
def _nothing() -> Policy:
    return _ceiling().clamp(Request())


def _memory() -> str | None:
    """Where files cost nothing: an audit trail is written for each play."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextmanager
def rig() -> Iterator[Rig]:
    """Give a relay whose child has just said hello."""
    plain = relay.Frontends, gate.operators_rules
    relay.Frontends = _Wire  # type: ignore[misc]
    gate.operators_rules = lambda _environ, _redaction: _rules()  # type: ignore[assignment]
    loop, process = Loop(), _Process()
    asyncio.set_event_loop(loop)
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        environ = {
            "SERVICE_PASSWORD": SECRET,
            "XDG_CONFIG_HOME": folder,
            "XDG_STATE_HOME": f"{folder}/state",
            "HOME": folder,
        }
        unused: Any = SimpleNamespace(close=lambda: None)  # verifying one takes a thread 0.1 s
        session = Session(notebook_dir=folder, environ=environ, executable=unused)
        child = Child(process, b"")  # type: ignore[arg-type]
        session._ceiling = _ceiling()
        session._stamp = stamp(session._ceiling.looked_at)
        policy = _nothing()
        session._clamped = session.request, policy
        mounts = MountPlan(policy.filesystem)
        launched = Launched(child, policy, mounts)
        session._child, session._launched = child, launched
        session._facts = Sandbox(launched, policy, "1", "0" * 64, "none", (), Usage)
        session._fresh = _none_left  # type: ignore[method-assign]
        one: Rig | None = None
        listening = None
        try:
            made = Rig(loop, session, child, process.writing)
            one = made
            listening = _Listening(one.failures)
            logging.getLogger("mxc_kernel").addHandler(listening)
            loop.set_exception_handler(
                lambda _loop, context: made.failures.append(
                    f"{context['message']}: {context.get('exception')!r}"
                )
            )
            running = loop.create_task(one.relay.run())
            try:
                one.spin()
                one.frame(Channel.HELLO, [child._nonce, b"{}"])
                yield one
            finally:
                one.relay.stop()
                loop.run_until_complete(running)
            one.check()
            report = verify(audit_folder(environ))
            if not report.ok:
                raise BrokenRuleError(f"the audit trail: {report.findings}")
        finally:
            relay.Frontends, gate.operators_rules = plain  # type: ignore[misc]
            if listening is not None:
                logging.getLogger("mxc_kernel").removeHandler(listening)
            if one is not None and one.pipe >= 0:
                os.close(one.pipe)
            process.close()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            asyncio.set_event_loop(None)


async def _none_left(_request: object) -> SimpleNamespace:
    raise SandboxUnavailableError("there is no sandbox here", remedy="None.")
