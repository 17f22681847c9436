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
            socket.send_multipart(frames, zmq.NOBLOCK, copy=copied)
            return
        last = zmq.Frame(frames[-1], track=True, copy=False)
        socket.send_multipart([*frames[:-1], last], zmq.NOBLOCK, copy=copied)
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
