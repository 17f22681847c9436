"""Output of processes that user code forks, which have neither our threads nor the transport."""

from __future__ import annotations

import contextlib
import marshal
import socket
import sys
import tempfile
import threading
from typing import TYPE_CHECKING

from mxc_kernel.wire import Buffer, Channel
from mxc_kernel.worker.transport import Transport, untraced

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ForkedOutput"]


class ForkedOutput:
    """Brings the messages of processes that user code forked back to the main one.

    Such a process shares no thread with the main one and has the transport closed. It sends each
    message as one datagram, or as an unlinked file when it is too large for that.

    Args:
        transport: where the main process forwards what arrives.
    """

    _DATAGRAM = 64 << 10  # bytes; well under the kernel's default socket buffer of 208 KiB
    _LARGEST = 256 << 20  # bytes; the frame limit

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
        self._receiver, self._sender = socket.socketpair(socket.AF_UNIX, kind)
        thread = threading.Thread(target=self._forward, name="forked-output", daemon=True)
        untraced(thread).start()

    def send(self, parts: Sequence[Buffer]) -> None:
        """Hand over one message; called in the forked process."""
        data = marshal.dumps([bytes(part) for part in parts])
        with contextlib.suppress(OSError):
            if len(data) <= self._DATAGRAM:
                self._sender.send(data)
                return
            with tempfile.TemporaryFile() as file:
                file.write(data)
                file.flush()
                socket.send_fds(self._sender, [b"F"], [file.fileno()])

    def _forward(self) -> None:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._receiver, self._DATAGRAM, 1)
            except OSError:
                return
            if not data:
                return
            with contextlib.suppress(OSError, ValueError, EOFError, TypeError):
                self._transport.send(Channel.IOPUB, self._decode(data, fds))

    def _decode(self, data: bytes, fds: list[int]) -> list[bytes]:
        for fd in fds:
            with open(fd, "rb") as file:
                file.seek(0)
                data = file.read(self._LARGEST)
        parts = marshal.loads(data)  # noqa: S302 - written by a fork of this very process
        if not all(isinstance(part, bytes) for part in parts):
            raise TypeError("not a message")
        return list(parts)
