"""Frames on the pipes between the host and the sandboxed child.

The only module that both sides share, so it imports the standard library alone. A frame is a
channel number and a few byte strings. It travels in fragments, so that a large one lets the frames
of other channels through::

    magic u16 | channel u8 | part count u8 | payload length u32 | the first bytes of the payload
    magic u16 | channel u8 | 255           | bytes left u32     | the next bytes of the payload

all big-endian. The payload is ``part lengths u32... | parts...``; every fragment but the last of a
frame carries ``FRAGMENT`` bytes of it. A channel has one frame under way at a time; the start of
another gives up what came of it. A reader refuses a fragment before it allocates for it, and holds
no more of a frame than has arrived; nothing is unpickled or evaluated on either side.

Two channels carry any amount of data and are metered: a sender may have ``WINDOW`` bytes of them
under way that the receiver has not given back with a CREDIT frame. So a receiver can leave output
lying without leaving the pipe unread, and nothing else ever waits behind it. That is why the pipe
cannot lock up: both sides always read, and only the senders of metered channels wait for more than
room in the pipe.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from functools import partial

__all__ = [
    "FRAGMENT",
    "LIMITS",
    "MAX_PARTS",
    "METERED",
    "WINDOW",
    "Allowance",
    "Channel",
    "Debt",
    "Frame",
    "FrameReader",
    "WireError",
    "encode",
]

MAGIC = 0x4D58
MAX_PARTS = 64
FRAGMENT = 64 << 10  # bytes; what another channel's frame may have to wait for
WINDOW = 1 << 20  # bytes; about what the pipe itself holds, and 20 ms of work for the host

_HEADER = struct.Struct(">HBBI")
_CREDIT = struct.Struct(">BI")
_MORE = 255  # in the place of the part count
_READ = 64 << 10  # bytes read at a time
_FIXED_COST = 256  # bytes that a fragment counts beyond its own: objects are kept for it

Buffer = bytes | bytearray | memoryview


class WireError(ValueError):
    """The bytes are not a frame. The connection cannot be used any further."""


class Channel(IntEnum):
    """What a frame carries. SHELL to IOPUB are Jupyter's channels; the others are ours.

    - ``HELLO``: host to child ``[nonce, settings]``, later ``["magics", stubs]``; child to host
      ``[nonce, facts]`` (JSON).
    - ``SHELL``, ``CONTROL``, ``STDIN``, ``IOPUB``: a Jupyter message without its signature,
      ``[header, parent, metadata, content, *buffers]``.
    - ``SIGNAL``: host to child ``[name]``, for systems where the host cannot send a signal.
    - ``STATE``: ``[operation, *chunks]``, the user's names on their way between two children.
    - ``CREDIT``: ``[channel u8 | bytes u32]``, room given back to the sender of a metered channel.
    """

    HELLO = 0
    SHELL = 1
    CONTROL = 2
    STDIN = 3
    IOPUB = 4
    SIGNAL = 5
    STATE = 6
    CREDIT = 7


METERED = (Channel.IOPUB, Channel.STATE)

LIMITS = {
    Channel.HELLO: 1 << 20,
    Channel.SHELL: 256 << 20,
    Channel.CONTROL: 64 << 20,
    Channel.STDIN: 16 << 20,
    Channel.IOPUB: 256 << 20,
    Channel.SIGNAL: 1 << 10,
    Channel.STATE: 16 << 20,
    Channel.CREDIT: 1 << 10,
}
"""Bytes of payload that one frame may have. Together they bound what unfinished frames can cost."""

_CHANNELS = {int(channel): channel for channel in Channel}
Frame = tuple[Channel, list[bytes]]


def encode(channel: Channel, parts: Sequence[Buffer]) -> Iterator[bytes]:
    """Return the fragments that make up one frame, ready to be written in order.

    They are made one by one, so that a large frame is not copied as a whole.

    Args:
        channel: what the frame carries.
        parts: its byte strings.

    Raises:
        WireError: too many parts or too many bytes for a reader to accept; at once, not only when
            the first fragment is taken.
    """
    sizes = [part.nbytes if isinstance(part, memoryview) else len(part) for part in parts]
    payload = 4 * len(parts) + sum(sizes)
    if len(parts) > MAX_PARTS or payload > LIMITS[channel]:
        raise WireError(f"a frame of {len(parts)} parts and {payload} bytes is over the limit")
    lengths = struct.pack(f">{len(sizes)}I", *sizes)
    return _fragments(channel, len(parts), payload, deque(map(_bytes, (lengths, *parts))))


def _fragments(
    channel: Channel, count: int, left: int, views: deque[memoryview]
) -> Iterator[bytes]:
    while True:
        size = min(left, FRAGMENT)
        head = _HEADER.pack(MAGIC, channel, count, left)
        yield b"".join((head, *_taken(views, size)))
        left -= size
        count = _MORE
        if not left:
            return


def _bytes(buffer: Buffer) -> memoryview:
    return memoryview(buffer).cast("B")


def _taken(views: deque[memoryview], size: int) -> Iterator[memoryview]:
    """Yield the first ``size`` bytes of a row of views and take them away."""
    while size:
        view = views.popleft()
        if len(view) > size:
            views.appendleft(view[size:])
            view = view[:size]
        size -= len(view)
        yield view


class FrameReader:
    """Reads frames from a descriptor, blocking or not.

    Args:
        source: the descriptor, which stays the caller's to close; or a function that reads as
            ``os.read`` does, given the most bytes to return.
        on_fragment: called with the channel and the cost of every fragment as it arrives.
    """

    def __init__(
        self,
        source: int | Callable[[int], bytes],
        on_fragment: Callable[[Channel, int], None] = lambda _channel, _cost: None,
    ) -> None:
        self._read = source if callable(source) else partial(os.read, source)
        self._on_fragment = on_fragment
        self._buffer = bytearray()
        self._open: dict[Channel, tuple[int, int, deque[memoryview]]] = {}  # count, left, pieces

    def frames(self) -> Iterator[Frame]:
        """Yield complete frames; end when a non-blocking descriptor has no more for now.

        Raises:
            EOFError: the other side closed the pipe.
            WireError: the bytes are not a frame.
        """
        while True:
            while (fragment := self._next_fragment()) is not None:
                frame = self._joined(*fragment)
                if frame is not None:
                    yield frame
            try:
                data = self._read(_READ)
            except BlockingIOError:
                return
            if not data:
                raise EOFError
            self._buffer += data

    def _next_fragment(self) -> tuple[Channel, int, int, bytes] | None:
        """Take the next whole fragment out of the buffer: channel, count, length and bytes."""
        if len(self._buffer) < _HEADER.size:
            return None
        magic, number, count, length = _HEADER.unpack_from(self._buffer)
        channel = _CHANNELS.get(number)
        if magic != MAGIC or channel is None:
            raise WireError("not a frame")
        if count == _MORE:
            if channel not in self._open or self._open[channel][1] != length:
                raise WireError("not the rest of a frame")
        elif count > MAX_PARTS or length > LIMITS[channel] or 4 * count > length:
            raise WireError(f"a frame of {count} parts and {length} bytes is over the limit")
        end = _HEADER.size + min(length, FRAGMENT)
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            data = bytes(view[_HEADER.size : end])
        del self._buffer[:end]
        return channel, count, length, data

    def _joined(self, channel: Channel, count: int, length: int, data: bytes) -> Frame | None:
        """Add a fragment to its frame and return the frame if that was the last."""
        self._on_fragment(channel, _FIXED_COST + len(data))
        pieces: deque[memoryview] = deque()
        if count == _MORE:
            count, _, pieces = self._open.pop(channel)
        else:
            self._open.pop(channel, None)
        pieces.append(memoryview(data))
        if length > len(data):
            self._open[channel] = count, length - len(data), pieces
            return None
        return channel, _split(count, pieces)


def _split(count: int, pieces: deque[memoryview]) -> list[bytes]:
    """Cut a payload into its parts; each byte is copied once."""
    total = sum(map(len, pieces))
    sizes = struct.unpack(f">{count}I", b"".join(_taken(pieces, 4 * count)))
    if 4 * count + sum(sizes) != total:
        raise WireError("the part lengths do not add up")
    return [b"".join(_taken(pieces, size)) for size in sizes]


class Allowance:
    """What a sender may still send on the metered channels."""

    def __init__(self) -> None:
        self._left = dict.fromkeys(METERED, WINDOW)

    def covers(self, channel: Channel) -> bool:
        """Whether a fragment may be sent now, whatever its size."""
        return channel not in self._left or self._left[channel] >= _FIXED_COST + FRAGMENT

    def spend(self, channel: Channel, fragment: bytes) -> None:
        """Count a fragment that is sent."""
        if channel in self._left:
            self._left[channel] -= _FIXED_COST + len(fragment) - _HEADER.size

    def refill(self, parts: Sequence[bytes]) -> None:
        """Take what a CREDIT frame gives back; never more than the window.

        Raises:
            WireError: it gives nothing that could be taken.
        """
        if len(parts) != 1 or len(parts[0]) != _CREDIT.size:
            raise WireError("not a credit")
        number, given = _CREDIT.unpack(parts[0])
        channel = _CHANNELS.get(number)
        if channel not in self._left:
            raise WireError("a credit for a channel that has none")
        self._left[channel] = min(WINDOW, self._left[channel] + given)


class Debt:
    """What a receiver has taken on the metered channels and not yet given back."""

    def __init__(self) -> None:
        self._taken = dict.fromkeys(METERED, 0)

    def take(self, channel: Channel, cost: int) -> None:
        """Count a fragment that has arrived.

        Raises:
            WireError: a sender that keeps to its allowance would not have sent it. Twice the window
                is let pass: user code that writes frames of its own is not in the sender's count.
        """
        if channel in self._taken:
            self._taken[channel] += cost
            if self._taken[channel] > 2 * WINDOW:
                raise WireError(f"more on {channel.name} than there was room for")

    def due(self, channel: Channel) -> list[bytes] | None:
        """Return the parts of the CREDIT frame that is due, if so much is owed that it pays."""
        taken = self._taken[channel]
        if taken < WINDOW // 4:
            return None
        self._taken[channel] = 0
        return [_CREDIT.pack(channel, taken)]
