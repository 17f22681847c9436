"""Frames on the pipes between the host and the sandboxed child.

The only module that both sides share, so it imports the standard library alone. A frame is a
channel number and a few byte strings::

    magic u16 | channel u8 | part count u8 | payload length u32 | part lengths u32... | parts...

all big-endian. The payload length covers the part lengths and the parts. A reader refuses a frame
before it allocates for it; nothing is unpickled or evaluated on either side.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum

__all__ = ["MAX_PARTS", "MAX_PAYLOAD", "Channel", "Frame", "FrameReader", "WireError", "encode"]

MAGIC = 0x4D58
MAX_PARTS = 64
MAX_PAYLOAD = 256 << 20  # bytes; a larger message is a protocol violation

_HEADER = struct.Struct(">HBBI")
_BUFFERED = 64 << 10  # bytes read at a time while frames are small
_JOINED = 64 << 10  # below this many bytes one joined write beats a gather write

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
    """

    HELLO = 0
    SHELL = 1
    CONTROL = 2
    STDIN = 3
    IOPUB = 4
    SIGNAL = 5
    STATE = 6


_CHANNELS = frozenset(int(channel) for channel in Channel)
Frame = tuple[Channel, list[bytes]]


def encode(channel: Channel, parts: Sequence[Buffer]) -> list[Buffer]:
    """Return the buffers that make up one frame, ready to be written in order.

    Args:
        channel: what the frame carries.
        parts: its byte strings; a part is not copied unless the frame is small.

    Raises:
        WireError: too many parts or too many bytes for a reader to accept.
    """
    sizes = [part.nbytes if isinstance(part, memoryview) else len(part) for part in parts]
    payload = 4 * len(parts) + sum(sizes)
    if len(parts) > MAX_PARTS or payload > MAX_PAYLOAD:
        raise WireError(f"a frame of {len(parts)} parts and {payload} bytes is over the limit")
    head = _HEADER.pack(MAGIC, channel, len(parts), payload) + struct.pack(
        f">{len(sizes)}I", *sizes
    )
    if payload <= _JOINED:
        return [b"".join((head, *parts))]
    return [head, *(part for part, size in zip(parts, sizes, strict=True) if size)]


class FrameReader:
    """Reads frames from a descriptor, blocking or not.

    Args:
        fd: the descriptor; it stays the caller's to close.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._small = bytearray()
        self._large: bytearray | None = None
        self._filled = 0
        self._head = (Channel.HELLO, 0)

    def frames(self) -> Iterator[Frame]:
        """Yield complete frames; end when a non-blocking descriptor has no more for now.

        Raises:
            EOFError: the other side closed the pipe.
            WireError: the bytes are not a frame.
        """
        while True:
            while (frame := self._next_buffered()) is not None:
                yield frame
            try:
                if self._large is None:
                    data = os.read(self._fd, _BUFFERED)
                    if not data:
                        raise EOFError
                    self._small += data
                    continue
                count = os.readv(self._fd, [memoryview(self._large)[self._filled :]])
            except BlockingIOError:
                return
            if not count:
                raise EOFError
            self._filled += count
            if self._filled == len(self._large):
                payload, self._large = self._large, None
                yield self._split(*self._head, memoryview(payload))

    def _next_buffered(self) -> Frame | None:
        """Take the next frame out of the small buffer, or move its start to a buffer of its own."""
        if self._large is not None or len(self._small) < _HEADER.size:
            return None
        magic, channel, count, size = _HEADER.unpack_from(self._small)
        if magic != MAGIC or channel not in _CHANNELS:
            raise WireError("not a frame")
        if count > MAX_PARTS or size > MAX_PAYLOAD or 4 * count > size:
            raise WireError(f"a frame of {count} parts and {size} bytes is over the limit")
        end = _HEADER.size + size
        if len(self._small) >= end:
            with memoryview(self._small) as view:
                frame = self._split(Channel(channel), count, view[_HEADER.size : end])
            del self._small[:end]
            return frame
        if size > _BUFFERED:
            self._large = bytearray(size)
            self._filled = len(self._small) - _HEADER.size
            self._large[: self._filled] = memoryview(self._small)[_HEADER.size :]
            self._small = bytearray()
            self._head = (Channel(channel), count)
        return None

    @staticmethod
    def _split(channel: Channel, count: int, payload: memoryview) -> Frame:
        with payload:
            sizes = struct.unpack_from(f">{count}I", payload)
            start = 4 * count
            if start + sum(sizes) != len(payload):
                raise WireError("the part lengths do not add up")
            parts = []
            for size in sizes:
                parts.append(bytes(payload[start : start + size]))
                start += size
        return channel, parts
