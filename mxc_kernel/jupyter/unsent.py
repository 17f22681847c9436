"""How many bytes a socket was given that its peers have not taken.

libzmq bounds its queues by messages only and drops what goes beyond, an idle status like anything
else. So they are left unbounded, and the bytes are counted here: every now and then one message is
sent with a tracker, which tells when libzmq is done with it, and so with all that came before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import zmq

from mxc_kernel.wire import Buffer

__all__ = ["Unsent"]

# Plain numbers: pyzmq's own names are enumerations, whose `|` costs 7 µs for each frame.
_LAST = int(zmq.NOBLOCK)
_MORE = _LAST | int(zmq.SNDMORE)

_MARK = 256 << 10  # bytes between two trackers, which cost about 20 µs each
_COPIED = 64 << 10  # bytes; below this ZMQ's zero-copy bookkeeping costs more than the copy


class Unsent:
    """The count of one queue.

    Attributes:
        size: bytes that wait at least; up to 256 KiB more may.
    """

    def __init__(self) -> None:
        self.size = 0
        self._marks: deque[tuple[zmq.MessageTracker, int]] = deque()
        self._unmarked = 0

    def send(self, socket: zmq.Socket[bytes], frames: Sequence[Buffer]) -> None:
        """Send a message and count it.

        Raises:
            zmq.ZMQError: it cannot be sent at all.
        """
        sizes = [memoryview(frame).nbytes for frame in frames]
        self._unmarked += sum(sizes)
        copied = max(sizes) <= _COPIED
        if self._unmarked < _MARK:
            _send(socket, frames, frames[-1], copied)
            return
        last = zmq.Frame(frames[-1], track=True, copy=False)
        _send(socket, frames, last, copied)
        assert isinstance(last.tracker, zmq.MessageTracker)
        self._marks.append((last.tracker, self._unmarked))
        self.size += self._unmarked
        self._unmarked = 0

    def update(self) -> bool:
        """Take off the count what was taken meanwhile; whether there was anything."""
        before = self.size
        while self._marks and self._marks[0][0].done:
            self.size -= self._marks.popleft()[1]
        return self.size < before


def _send(
    socket: zmq.Socket[bytes], frames: Sequence[Buffer], last: Buffer | zmq.Frame, copied: bool
) -> None:
    """Send a message with another object as its last frame."""
    for frame in frames[:-1]:
        socket.send(frame, _MORE, copy=copied)
    socket.send(last, _LAST, copy=copied)
