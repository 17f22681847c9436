"""The relay: every message between the frontends and the child passes through here.

Frontends are trusted once their signature is verified; the child never is. A message from the
child that names no live request, comes on the wrong channel or has an unknown type is dropped and
counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

from mxc_kernel import __version__, magics
from mxc_kernel.errors import AuditError, MxcKernelError, SandboxExecutionError
from mxc_kernel.jupyter import shapes
from mxc_kernel.jupyter.cells import Cells
from mxc_kernel.jupyter.frontends import Frontends
from mxc_kernel.jupyter.gate import Gate
from mxc_kernel.jupyter.messages import (
    PROTOCOL_VERSION,
    BadMessageError,
    ChildMessage,
    Incoming,
    parse_object,
)
from mxc_kernel.jupyter.requests import Request, RequestTable
from mxc_kernel.session import Session
from mxc_kernel.wire import Channel, WireError

__all__ = ["Relay"]

log = logging.getLogger(__name__)

_SHUTDOWN_GRACE = 2.0  # seconds for the user's atexit functions before the sandbox is killed
_PARENT_POLL = 1.0  # seconds, as ipykernel's own parent poller

_COMMS = frozenset({"comm_open", "comm_msg", "comm_close"})
_ON_BOTH = frozenset(
    {
        "comm_info_request",
        "complete_request",
        "connect_request",
        "execute_request",
        "history_request",
        "inspect_request",
        "interrupt_request",
        "is_complete_request",
        "kernel_info_request",
        "shutdown_request",
    }
)
_FROM_FRONTEND = {
    Channel.SHELL: _ON_BOTH | _COMMS,
    Channel.CONTROL: _ON_BOTH
    | {
        "create_subshell_request",
        "debug_request",
        "delete_subshell_request",
        "list_subshell_request",
        "usage_request",
    },
    Channel.STDIN: frozenset({"input_reply"}),
}
_OUTPUTS = frozenset(
    {
        "clear_output",
        "display_data",
        "error",
        "execute_result",
        "stream",
        "update_display_data",
    }
)
# What may bring code or data of somebody's into the child beside cells; audited by kind and count.
_ROADS = _COMMS | {"complete_request", "debug_request", "inspect_request", "is_complete_request"}
_CODE_COMMANDS = frozenset(
    {
        "copyToGlobals",
        "dumpCell",
        "evaluate",
        "richInspectVariables",
        "setExpression",
        "setVariable",
    }
)
_PUBLICATIONS = _OUTPUTS | _COMMS | {"debug_event", "execute_input", "shutdown_reply", "status"}


class Relay:
    """Connects the frontends of one connection file with one session.

    Args:
        session: the sandboxed session; its child may already be starting.
        connection: the parsed connection file.
    """

    def __init__(self, session: Session, connection: Mapping[str, Any]) -> None:
        self._session = session
        self._frontends = Frontends(connection, self._from_frontend)
        self._gate = Gate(session, self._frontends, os.environ)
        session.journal.redact_with(self._gate.redacted)
        self._requests = RequestTable()
        self._cells = Cells(session, self._frontends, self._gate, self._forward)
        self._subshells: set[str] = set()
        self._debugging = False
        self._stopped = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._here: dict[str, Callable[[Request], None]] = {
            "complete_request": self._complete,
            "connect_request": self._connect,
            "interrupt_request": self._interrupt,
            "debug_request": self._debug,
            "shutdown_request": self._shutdown,
            "execute_request": self._cells.submit,
        }

    async def run(self) -> None:
        """Serve until a frontend asks to shut down or the parent process is gone."""
        loop = asyncio.get_running_loop()
        self._frontends.publish("status", {"execution_state": "starting"})
        self._frontends.on_full = self._session.hold_output
        self._session.on_frame = self._from_child
        self._session.on_exit = self._child_died
        self._session.on_replaced = self._forget_child
        self._session.on_guest_exit = self._cells.throwaway_died
        self._session.attach(loop)
        self._frontends.attach(loop)
        with contextlib.suppress(MxcKernelError):  # the first cell meets it again and tells it
            self._session.journal.open()
        watcher = loop.create_task(self._watch_parent())
        try:
            await self._stopped.wait()
        finally:
            watcher.cancel()
            self._session.close()
            self._frontends.close()

    def stop(self) -> None:
        """End the kernel without asking the child."""
        self._stopped.set()

    # --- from the frontends ---------------------------------------------------------------------

    def _from_frontend(self, channel: Channel, message: Incoming) -> None:
        msg_type = message.header["msg_type"]
        if msg_type not in _FROM_FRONTEND[channel]:
            log.warning("a frontend sent %r on %s; it was dropped", msg_type, channel.name)
            return
        if channel is Channel.STDIN:
            self._cells.input_answered(message)
            return
        request = Request(channel, message, self._gate.open_request())
        self._requests.add(request)
        if self._lacks_subshell(request):
            return
        self._note_comm(msg_type, message.parts[3])
        self._here.get(msg_type, self._cells.pass_in_order)(request)

    def _forward(self, request: Request) -> None:
        """Hand a request to the child, or answer it where there is none."""
        if self._lacks_subshell(request):
            pass
        elif (refusal := self._unaudited(request)) is not None:
            self._answer_error(request, str(refusal))
        elif not self._sent(request):
            self._answer_without_child(request)
        elif request.msg_type == "delete_subshell_request":
            self._subshells.discard(str(parse_object(request.parts[3]).get("subshell_id")))
        request.parts = []

    def _sent(self, request: Request) -> bool:
        """Send a request to the child; false where there is none."""
        try:
            return self._session.send(request.channel, request.parts)
        except WireError as error:  # it is larger than a frame may be
            self._answer_error(request, str(error))
            return True

    def _unaudited(self, request: Request) -> AuditError | None:
        """Record what is about to reach the child beside cells; the error where that fails."""
        kind = request.msg_type
        if kind not in _ROADS:
            return None
        if kind == "debug_request":
            command = parse_object(request.parts[3]).get("command")
            kind = f"debug_request:{command}" if command in _CODE_COMMANDS else kind
        try:
            self._session.journal.road(kind)
        except AuditError as error:
            return error
        return None

    def _lacks_subshell(self, request: Request) -> bool:
        """Answer a request to a subshell that is not there, in ipykernel's own words."""
        if request.subshell is None or request.subshell in self._subshells:
            return False
        value = f"Unknown subshell_id {request.subshell!r}"
        hint = "It was deleted, or has ended with the sandbox that it ran in."
        error = {"ename": "UnknownSubshellError", "evalue": value, "traceback": [value, hint]}
        self._answer_here(request, {"status": "error", **error})
        return True

    def _connect(self, request: Request) -> None:
        self._answer_here(request, {"status": "ok", **self._frontends.ports})

    def _complete(self, request: Request) -> None:
        """Complete the arguments of policy magics, which only the host understands."""
        content = parse_object(request.parts[3])
        request.asked = content
        code, cursor = content.get("code"), content.get("cursor_pos")
        found = None
        if isinstance(code, str) and isinstance(cursor, int) and "%" in code:
            try:
                found = magics.complete(code, cursor, self._session.magic_context())
            except MxcKernelError:  # no ceiling can be read: the next cell says so
                found = None
        if found is None:
            self._cells.pass_in_order(request)
            return
        completion = {
            "matches": list(found.matches),
            "cursor_start": found.cursor_start,
            "cursor_end": found.cursor_end,
            "metadata": {},
        }
        self._answer_here(request, {"status": "ok", **completion})

    def _debug(self, request: Request) -> None:
        """Note whether a debugger is there: only then may the child say that it stands still."""
        command = parse_object(request.parts[3]).get("command")
        if command in ("attach", "disconnect", "terminate"):
            self._debugging = command == "attach"
        self._cells.pass_in_order(request)

    def _interrupt(self, request: Request) -> None:
        self._frontends.busy(request)
        self._cells.interrupt()
        self._answer_here(request, {"status": "ok"})

    def _shutdown(self, request: Request) -> None:
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop(request))

    async def _stop(self, request: Request) -> None:
        """Let the child run its exit functions, then end it and answer."""
        content = parse_object(request.parts[3])
        reply = {"status": "ok", "restart": bool(content.get("restart"))}
        self._frontends.busy(request)
        await self._session.retire(request.channel, request.parts, _SHUTDOWN_GRACE)
        self._frontends.publish("shutdown_reply", reply, request)
        self._answer_here(request, reply)
        self._stopped.set()

    def _answer_here(self, request: Request, content: Mapping[str, object]) -> None:
        self._frontends.busy(request)
        self._frontends.answer(request, content)
        self._frontends.idle(request)

    def _answer_error(self, request: Request, reason: str) -> None:
        if request.expects_reply:
            name = SandboxExecutionError.__name__
            error = {"ename": name, "evalue": reason, "traceback": [f"{name}: {reason}"]}
            self._answer_here(request, {"status": "error", **error})

    def _answer_without_child(self, request: Request) -> None:
        """Answer as a kernel that is alive but has no sandbox, so that a frontend gets no hang."""
        answers: dict[str, dict[str, object]] = {
            "kernel_info_request": self._kernel_info(),
            "complete_request": {"matches": [], "metadata": {}, "cursor_start": 0, "cursor_end": 0},
            "inspect_request": {"found": False, "data": {}, "metadata": {}},
            "is_complete_request": {"status": "unknown"},
            "history_request": {"history": []},
            "comm_info_request": {"comms": {}},
        }
        if not request.expects_reply:
            self._frontends.busy(request)
            self._frontends.idle(request)
            return
        answer = answers.get(request.msg_type)
        if answer is not None:
            self._answer_here(request, {"status": "ok", **answer})
        else:
            self._answer_error(request, "no sandbox is running; run a cell to start one")

    def _kernel_info(self) -> dict[str, object]:
        return {
            "protocol_version": PROTOCOL_VERSION,
            "implementation": "ipython",
            "implementation_version": __version__,
            "language_info": {
                "name": "python",
                "version": platform.python_version(),
                "mimetype": "text/x-python",
                "codemirror_mode": {"name": "ipython", "version": 3},
                "pygments_lexer": "ipython3",
                "nbconvert_exporter": "python",
                "file_extension": ".py",
            },
            "banner": "Python (MXC sandboxed): no sandbox is running",
            "help_links": [],
            "supported_features": ["kernel subshells"],
        }

    # --- from the child -------------------------------------------------------------------------

    def _from_child(self, channel: Channel, parts: list[bytes]) -> None:
        if len(parts) < 4:
            self._gate.drop("short message")
            return
        try:
            header, parent, metadata, content = (parse_object(part) for part in parts[:4])
        except BadMessageError:
            self._gate.drop("not JSON")
            return
        request = self._requests.find(parent)
        message = ChildMessage(
            str(header.get("msg_type")),
            content,
            metadata,
            parts[4:],
            shapes.date(header.get("date")),
            sum(map(len, parts[3:])),
        )
        if channel is Channel.IOPUB:
            self._publication(request, message)
        elif channel is Channel.STDIN:
            self._input_request(request, message)
        elif channel in (Channel.SHELL, Channel.CONTROL):
            self._reply(channel, request, message)
        else:
            self._gate.drop("a frame on a channel that is not Jupyter's")

    def _publication(self, request: Request | None, message: ChildMessage) -> None:
        msg_type, content = message.msg_type, message.content
        if msg_type not in _PUBLICATIONS:
            self._gate.drop("an unknown publication")
        elif msg_type in ("execute_input", "status", "shutdown_reply"):
            # Statuses, inputs and shutdowns are the host's own to announce.
            if request is not None and msg_type != "shutdown_reply":
                self._progress(request, msg_type, content)
        elif request is None and msg_type in _OUTPUTS and msg_type != "stream":
            self._gate.drop(f"{msg_type} without a parent")
        elif request is not None and request.expects_reply and not request.announced:
            # Ids can be guessed: a child must not write into a cell that it has not been given.
            self._gate.drop(f"{msg_type} of a request that has not begun")
        else:
            if msg_type == "debug_event" and self._debugging:
                self._cells.debug_event(content)
            self._gate.publish(request, message)

    def _progress(self, request: Request, msg_type: str, content: dict[str, Any]) -> None:
        if self._cells.progress(request, msg_type, content):
            return
        state = content.get("execution_state")
        if msg_type == "status" and state == "busy":
            self._frontends.busy(request)
        elif msg_type == "status" and state == "idle":
            self._gate.finish(request)
            self._gate.idle(request)

    def _input_request(self, request: Request | None, message: ChildMessage) -> None:
        if message.msg_type != "input_request" or request is None:
            self._gate.drop("an unknown question")
            return
        if not self._cells.input_wanted(request, message.content):
            self._gate.drop("input nobody may be asked for")

    def _reply(self, channel: Channel, request: Request | None, message: ChildMessage) -> None:
        if (
            request is None
            or request.channel is not channel
            or not request.open
            or message.msg_type != request.reply_type
        ):
            self._gate.drop("a reply to no open request")
            return
        if self._cells.replied(request, message):
            return
        asked, request.asked = request.asked, {}
        reply = self._gate.reply(message, asked)
        if reply is None:
            self._answer_error(request, "the sandbox answered with something that is no reply")
            return
        self._note_subshell(request, reply.content)
        self._frontends.answer(request, reply.content, metadata=reply.metadata, date=message.date)

    def _child_died(self, error: MxcKernelError) -> None:
        """Answer everything that waited for the child, so that no frontend waits for ever."""
        self._forget_child()
        for request in self._requests.unfinished():
            if self._cells.child_died(request, error):
                continue
            self._answer_without_child(request)
            self._gate.finish(request)
            self._gate.idle(request)

    def _forget_child(self) -> None:
        """Tell the frontends what ended with the child: its comms and its subshells."""
        for request in self._requests.unfinished():
            self._gate.settle(request)  # a comm that opens only now would never be closed
        for comm in self._gate.comms.alive():
            self._frontends.publish("comm_close", {"comm_id": comm, "data": {}})
        self._subshells.clear()
        self._gate.forget_child()

    # --- bookkeeping ----------------------------------------------------------------------------

    def _note_comm(self, msg_type: str, raw: bytes) -> None:
        if msg_type in ("comm_open", "comm_close"):
            self._gate.comms.seen_from_frontend(msg_type, parse_object(raw))

    def _note_subshell(self, request: Request, content: Mapping[str, object]) -> None:
        if request.msg_type == "create_subshell_request":
            subshell = content.get("subshell_id")
            if isinstance(subshell, str):
                self._subshells.add(subshell)

    async def _watch_parent(self) -> None:
        """End when the process that started the kernel is gone, as ipykernel does."""
        parent = os.getppid()
        if not os.environ.get("JPY_PARENT_PID"):
            return
        while os.getppid() == parent:
            await asyncio.sleep(_PARENT_POLL)
        self._stopped.set()
