"""The Jupyter side: the five ZMQ sockets of the connection file, owned by the host alone.

The child never learns the connection file, the key or a client's identity.

A frontend that is slow never loses a status or a reply, and the host keeps no more than so much for
it. With 16 MiB unread, the child's output is held back, so that what prints there waits; interrupt
and shutdown do not pass that way. A frontend that reads nothing at all for 10 s is not waited for
any more: until it has caught up, statuses and replies alone are kept, and what else would have been
sent is counted and told. (ZMQ cannot tell one subscriber from the other, so all of them miss it.)
A client that lets 64 MiB of its own replies lie may ask for no more before it has read them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import zmq

from mxc_kernel.jupyter.messages import BadMessageError, Incoming, Signer
from mxc_kernel.jupyter.requests import Request
from mxc_kernel.jupyter.unsent import Unsent
from mxc_kernel.output.caps import readable_size
from mxc_kernel.wire import Buffer, Channel

__all__ = ["Frontends"]

log = logging.getLogger(__name__)

_READABLE, _NOW = int(zmq.POLLIN), int(zmq.NOBLOCK)  # pyzmq's enumerations are slow to combine
_LINGER = 1000  # milliseconds that closing waits for a slow frontend to take its last messages
_TURN = 32  # messages taken from the frontends before the loop may turn to something else
_FULL = 16 << 20  # bytes unread from which output is held back
_FREE = 4 << 20  # bytes unread from which it goes on
_LOOK = 0.01  # seconds between two looks at what was read meanwhile
_PATIENCE = 10.0  # seconds without anything being read
_REPLIES = 64 << 20  # bytes of replies unread by one client from which it may not ask for more
_KEPT = frozenset({"execute_input", "shutdown_reply", "status"})  # a few for each request


class Frontends:
    """Everything between the kernel and its clients.

    Args:
        connection: the parsed connection file.
        on_message: called with every verified message and the channel it came on.

    Attributes:
        on_full: called with True when what the child shows should be held back, then with False.

    Raises:
        zmq.ZMQError: a port of the connection file is taken.
    """

    def __init__(
        self, connection: Mapping[str, Any], on_message: Callable[[Channel, Incoming], None]
    ) -> None:
        self._connection = connection
        self._on_message = on_message
        self._signer = Signer(
            str(connection.get("key", "")).encode(),
            str(connection.get("signature_scheme", "hmac-sha256")),
        )
        self._context = zmq.Context()
        self._routers = {
            channel: self._bind(zmq.ROUTER, f"{channel.name.lower()}_port")
            for channel in (Channel.CONTROL, Channel.SHELL, Channel.STDIN)
        }
        self._iopub = self._bind(zmq.XPUB, "iopub_port")
        self.on_full: Callable[[bool], None] = lambda _full: None
        self._published = Unsent()
        self._replied: defaultdict[bytes, Unsent] = defaultdict(Unsent)
        self._full = self._given_up = False
        self._last_read = 0.0
        self._missed: Counter[Request | None] = Counter()
        self._missed_bytes: Counter[Request | None] = Counter()
        self._heartbeat = zmq.Context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain_scheduled = False
        self._start_heartbeat()

    @property
    def ports(self) -> dict[str, Any]:
        """The connection's ports, as ``connect_reply`` gives them."""
        return {name: port for name, port in self._connection.items() if name.endswith("_port")}

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Handle messages from now on."""
        self._loop = loop
        for socket in (*self._routers.values(), self._iopub):
            loop.add_reader(socket.FD, self._drain)
        self._drain()

    def publish(
        self,
        msg_type: str,
        content: bytes | Mapping[str, object],
        request: Request | None = None,
        *,
        metadata: bytes | Mapping[str, object] = b"{}",
        buffers: Sequence[Buffer] = (),
        date: str | None = None,
    ) -> None:
        """Send a message to every client that listens on iopub, as part of a request or of none."""
        frames = self._signer.write(
            msg_type,
            content,
            parent=request.parent if request else b"{}",
            metadata=metadata,
            identities=(b"kernel.mxc." + msg_type.encode(),),
            buffers=buffers,
            date=date,
        )
        if self._given_up and msg_type not in _KEPT:
            self._missed[request] += 1
            self._missed_bytes[request] += sum(memoryview(frame).nbytes for frame in frames)
        else:
            self._send(self._iopub, self._published, frames)
            self._look_at_unread()

    def busy(self, request: Request) -> None:
        """Publish the busy status of a request, once."""
        if not request.announced:
            request.announced = request.busy = True
            self.publish("status", {"execution_state": "busy"}, request)

    def idle(self, request: Request) -> None:
        """Publish the idle status of a request, if it is busy."""
        if request.busy:
            request.busy = False
            self._tell_missed(request)
            self.publish("status", {"execution_state": "idle"}, request)

    def answer(
        self,
        request: Request,
        content: bytes | Mapping[str, object],
        *,
        metadata: bytes | Mapping[str, object] = b"{}",
        buffers: Sequence[Buffer] = (),
        date: str | None = None,
    ) -> None:
        """Send the one reply of a request to the client that made it; a second is ignored."""
        if request.open:
            request.open = False
            self.ask(
                request,
                request.reply_type,
                content,
                channel=request.channel,
                metadata=metadata,
                buffers=buffers,
                date=date,
            )

    def ask(
        self,
        request: Request,
        msg_type: str,
        content: bytes | Mapping[str, object],
        *,
        channel: Channel = Channel.STDIN,
        metadata: bytes | Mapping[str, object] = b"{}",
        buffers: Sequence[Buffer] = (),
        date: str | None = None,
    ) -> None:
        """Send a message to the client that made a request, such as a request for input."""
        frames = self._signer.write(
            msg_type,
            content,
            parent=request.parent,
            metadata=metadata,
            identities=request.identities,
            buffers=buffers,
            date=date,
        )
        self._send(self._routers[channel], self._replied[b"".join(request.identities)], frames)

    def close(self) -> None:
        """Deliver what is queued, as far as the clients take it in time, and close the sockets."""
        for socket in (*self._routers.values(), self._iopub):
            if self._loop is not None:
                self._loop.remove_reader(socket.FD)
            socket.close(_LINGER)
        self._context.term()
        self._heartbeat.destroy(linger=0)

    def _bind(self, kind: int, port: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = _LINGER
        socket.sndhwm = 0  # nothing is ever dropped by ZMQ; what is unsent is bounded here
        if kind == zmq.ROUTER:
            socket.router_handover = 1  # a client that reconnects takes its identity along
        socket.bind(self._address(port))
        self._restrict(port)
        return socket

    def _address(self, port: str) -> str:
        transport, ip = self._connection["transport"], self._connection["ip"]
        separator = ":" if transport == "tcp" else "-"
        return f"{transport}://{ip}{separator}{self._connection[port]}"

    def _restrict(self, port: str) -> None:
        """Keep other users off an ipc socket, whatever the umask is."""
        if self._connection["transport"] == "ipc":
            path = self._address(port).removeprefix("ipc://")
            if not path.startswith("@"):
                os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)

    def _start_heartbeat(self) -> None:
        socket = self._heartbeat.socket(zmq.ROUTER)
        socket.linger = 0
        socket.bind(self._address("hb_port"))

        def echo() -> None:
            try:
                zmq.proxy(socket, socket)
            except zmq.ZMQError:
                socket.close(0)  # the context was ended

        threading.Thread(target=echo, name="heartbeat", daemon=True).start()

    def _look_at_unread(self) -> None:
        if self._full or self._loop is None or self._published.size < _FULL:
            return
        self._published.update()
        if self._published.size >= _FULL:
            self._full = True
            self._last_read = self._loop.time()
            self._loop.call_later(_LOOK, self._look_again)
            self.on_full(True)

    def _look_again(self) -> None:
        """See what was read meanwhile, and hold output back, let it go on or give it up."""
        if self._loop is None or self._iopub.closed:
            return
        now = self._loop.time()
        if self._published.update():
            self._last_read = now
        if self._published.size <= _FREE:
            self._full = False
            if not self._given_up:
                self.on_full(False)
            self._given_up = False
            return
        if not self._given_up and now - self._last_read > _PATIENCE:
            log.warning("a frontend reads nothing; output is not sent until it does")
            self._given_up = True
            self.on_full(False)
        self._loop.call_later(_LOOK, self._look_again)

    def _tell_missed(self, request: Request) -> None:
        count, size = self._missed.pop(request, 0), self._missed_bytes.pop(request, 0)
        if not count:
            return
        text = (
            f"[{count:,} messages with {readable_size(size)} of output were not sent to the "
            f"frontends: one of them has not read its messages for {_PATIENCE:g} s]\n"
        )
        frames = self._signer.write(
            "stream",
            {"name": "stderr", "text": text},
            parent=request.parent,
            identities=(b"kernel.mxc.stream",),
        )
        self._send(self._iopub, self._published, frames)

    def _send(self, socket: zmq.Socket[bytes], unsent: Unsent, frames: Sequence[Buffer]) -> None:
        try:
            unsent.send(socket, frames)
        except zmq.ZMQError as error:
            log.warning("a message was not sent: %s", error)
        # ZMQ's descriptor is edge-triggered, and sending can consume the edge of a waiting message.
        if self._loop is not None and not self._drain_scheduled:
            self._drain_scheduled = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        """Handle waiting messages, control first, until there are none or the turn is over."""
        self._drain_scheduled = False
        for _ in range(_TURN):
            if not self._handle_one():
                return
        if self._loop is not None and not self._drain_scheduled:
            self._drain_scheduled = True
            self._loop.call_soon(self._drain)

    def _handle_one(self) -> bool:
        for channel, socket in self._routers.items():
            if not _is_readable(socket):
                continue
            frames = socket.recv_multipart(_NOW)
            try:
                message = self._signer.read(frames)
            except BadMessageError as error:
                log.warning("a frontend's message on %s was dropped: %s", channel.name, error)
            else:
                if channel is not Channel.SHELL or self._reads_replies(message):
                    self._on_message(channel, message)
            return True
        return self._welcome_one()

    def _reads_replies(self, message: Incoming) -> bool:
        """Whether a client may make a request; not while it lets too much lie of what it got."""
        unsent = self._replied.get(b"".join(message.identities))
        if unsent is None or (unsent.update(), unsent.size)[1] < _REPLIES:
            return True
        log.warning("a client that does not read its replies made a request; it was dropped")
        return False

    def _welcome_one(self) -> bool:
        """Answer a new subscription (protocol 5.4's iopub_welcome)."""
        if not _is_readable(self._iopub):
            return False
        frame = self._iopub.recv(_NOW)
        if frame[:1] == b"\x01":
            topic = frame[1:]
            frames = self._signer.write(
                "iopub_welcome",
                {"subscription": topic.decode("utf-8", "replace")},
                identities=(topic,),
            )
            self._send(self._iopub, self._published, frames)
        return True


def _is_readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message waits. Just trying costs an exception, 20 µs a dozen times a cell."""
    events = socket.get(zmq.EVENTS)
    assert isinstance(events, int)
    return bool(events & _READABLE)
