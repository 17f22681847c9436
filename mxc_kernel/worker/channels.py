"""Moves whole Jupyter messages between ipykernel's in-process sockets and the pipe."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any

import zmq

from mxc_kernel.wire import Channel, WireError
from mxc_kernel.worker.forked import ForkedOutput
from mxc_kernel.worker.transport import Transport, untraced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["IDENTITY", "IOPubSocket", "Pump"]

IDENTITY = b"mxc"
"""The one client that ipykernel sees; the host keeps the table of the real ones."""

_DELIMITER = b"<IDS|MSG>"
_DRAIN = 255  # not a channel: asks the pump to empty every socket once


class IOPubSocket:
    """What ipykernel's IOPub thread writes to instead of a socket."""

    def __init__(self, context: zmq.Context[Any], transport: Transport) -> None:
        self.context = context
        self._transport = transport
        self._process = os.getpid()
        self._forked = ForkedOutput(transport) if hasattr(os, "fork") else None

    def send_multipart(self, message: Sequence[Any], *_args: Any, **_kwargs: Any) -> None:
        """Send ``[*topics, delimiter, signature, header, parent, metadata, content, *buffers]``.

        Blocks while the host gives no credit.
        """
        parts = list(message[list(message).index(_DELIMITER) + 2 :])
        try:
            self._send(parts)
        except WireError as error:
            self._send(_refusal(parts, error))

    def _send(self, parts: Sequence[Any]) -> None:
        if self._forked is not None and os.getpid() != self._process:
            self._forked.send(parts)
        else:
            self._transport.send(Channel.IOPUB, parts)

    def close(self) -> None:
        """Do nothing: the transport outlives the thread that uses this."""


def _refusal(parts: Sequence[Any], error: WireError) -> list[bytes]:
    """Return the message that tells the user of one that cannot be sent."""
    header = json.loads(bytes(parts[0]))
    text = f"[{header['msg_type']} not sent: {error}]\n"
    header["msg_type"] = "stream"
    content = {"name": "stderr", "text": text}
    return [json.dumps(header).encode(), bytes(parts[1]), b"{}", json.dumps(content).encode()]


class Pump:
    """Two threads between the pipe and ipykernel's ROUTER sockets.

    One reads the pipe, so that the end of the pipe and an interrupt are noticed whatever else goes
    on; the other owns the DEALERs, since a zmq socket belongs to one thread.

    Args:
        context: ipykernel's own, which the ``inproc://`` names live in.
        transport: the pipe.
        routers: ipykernel's sockets by channel.
        on_frame: called in the reading thread for frames of any other channel.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        transport: Transport,
        routers: Mapping[Channel, zmq.Socket[Any]],
        on_frame: Callable[[Channel, list[bytes]], None],
    ) -> None:
        self._transport = transport
        self._on_frame = on_frame
        self._inbox = context.socket(zmq.PULL)
        self._inbox.rcvhwm = 0
        self._inbox.bind("inproc://mxc-inbox")
        self._outbox = self._connect(context, zmq.PUSH, b"inproc://mxc-inbox")
        self._marks = self._connect(context, zmq.PUSH, b"inproc://mxc-inbox")
        self._dealers = {
            channel: self._connect(context, zmq.DEALER, router.getsockopt(zmq.LAST_ENDPOINT))
            for channel, router in routers.items()
        }
        self._drained = threading.Event()

    @staticmethod
    def _connect(context: zmq.Context[Any], kind: int, endpoint: Any) -> zmq.Socket[Any]:
        connected: zmq.Socket[Any] = context.socket(kind)
        connected.linger = 0
        connected.sndhwm = connected.rcvhwm = 0
        if kind == zmq.DEALER:
            connected.setsockopt(zmq.IDENTITY, IDENTITY)
        connected.connect(endpoint.rstrip(b"\0").decode())
        return connected

    def start(self) -> None:
        """Start both threads; frames that came earlier are still in the pipe."""
        for name, target in (("pipe-reader", self._read), ("pipe-pump", self._pump)):
            untraced(threading.Thread(target=target, name=name, daemon=True)).start()

    def post(self, message: list[bytes]) -> None:
        """Put a message into the shell channel; only from the thread that reads the pipe."""
        self._outbox.send_multipart([bytes([Channel.SHELL]), *message])

    def drain(self, timeout: float) -> None:
        """Return once every reply sent so far is in the pipe, or after ``timeout`` seconds."""
        self._marks.send(bytes([_DRAIN]))
        self._drained.wait(timeout)

    def _read(self) -> None:
        try:
            for channel, parts in self._transport.frames():
                if channel in self._dealers:
                    self._outbox.send_multipart([bytes([channel]), *parts])
                else:
                    self._on_frame(channel, parts)
        except (EOFError, OSError, WireError):
            os._exit(0)  # the host is gone or has given this child up
        except zmq.ZMQError:
            return  # the context is being terminated

    def _pump(self) -> None:
        poller = zmq.Poller()
        sources: dict[Any, Channel | None] = {self._inbox: None}
        sources.update({dealer: channel for channel, dealer in self._dealers.items()})
        for source in sources:
            poller.register(source, zmq.POLLIN)
        try:
            while True:
                for source, _ in poller.poll():
                    channel = sources[source]
                    if channel is None:
                        self._deliver(source.recv_multipart())
                    else:
                        self._return(channel, source.recv_multipart())
        except zmq.ZMQError:
            return  # the context is being terminated
        except OSError:
            os._exit(0)

    def _deliver(self, message: list[bytes]) -> None:
        if message[0][0] == _DRAIN:
            for channel, dealer in self._dealers.items():
                while dealer.poll(0):
                    self._return(channel, dealer.recv_multipart())
            self._drained.set()
            return
        dealer = self._dealers[Channel(message[0][0])]
        dealer.send_multipart([_DELIMITER, b"", *message[1:]])

    def _return(self, channel: Channel, message: list[bytes]) -> None:
        self._transport.send(channel, message[message.index(_DELIMITER) + 2 :])
