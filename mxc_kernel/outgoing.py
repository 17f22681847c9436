"""What waits to be written to a child's pipe, the most urgent channel first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from mxc_kernel.wire import Allowance, Buffer, Channel, encode

__all__ = ["Outgoing"]

# An interrupt, the user's input or a credit never waits behind a large cell or a comm's buffers,
# nor any message behind the names of a session.
_URGENCY = (
    Channel.HELLO,
    Channel.CREDIT,
    Channel.SIGNAL,
    Channel.CONTROL,
    Channel.STDIN,
    Channel.SHELL,
    Channel.IOPUB,
    Channel.STATE,
)


class Outgoing:
    """Frames in the order of their channel's urgency, and in each channel in the order they came.

    Args:
        first: bytes to be written before any frame.

    Attributes:
        size: bytes that wait, those of a frame until it is written as a whole.
        allowance: what may be sent on the metered channels.
        opened: whether any frame may be sent; else only HELLO is, and all others wait.
    """

    def __init__(self, first: bytes) -> None:
        self.size = 0
        self.allowance = Allowance()
        self.opened = True
        self._writing = memoryview(first)
        self._waiting: dict[Channel, deque[tuple[Iterator[bytes], int]]] = {
            channel: deque() for channel in _URGENCY
        }

    def add(self, channel: Channel, parts: Sequence[Buffer]) -> None:
        """Queue a frame.

        Raises:
            WireError: it is over the limits of the wire.
        """
        size = sum(memoryview(part).nbytes for part in parts)
        self._waiting[channel].append((encode(channel, parts), size))
        self.size += size

    def write(self, write: Callable[[memoryview], int]) -> None:
        """Write until nothing may be written; what waits for credit then stays.

        Args:
            write: takes some bytes and returns how many, without blocking.

        Raises:
            BlockingIOError: the pipe is full.
            BrokenPipeError: nobody reads it any more.
        """
        while self._writing or self._advance():
            self._writing = self._writing[write(self._writing) :]

    def clear(self) -> None:
        """Forget everything."""
        self._writing = memoryview(b"")
        for frames in self._waiting.values():
            frames.clear()
        self.size = 0

    def _advance(self) -> bool:
        """Take the next fragment that may be sent; false if there is none."""
        for channel, frames in self._waiting.items():
            while frames and self._may_send(channel):
                fragments, size = frames[0]
                fragment = next(fragments, None)
                if fragment is not None:
                    self.allowance.spend(channel, fragment)
                    self._writing = memoryview(fragment)
                    return True
                frames.popleft()
                self.size -= size
        return False

    def _may_send(self, channel: Channel) -> bool:
        return self.allowance.covers(channel) and (self.opened or channel is Channel.HELLO)
