"""Frames: whatever arrives in whatever pieces, the reader yields what was sent or refuses."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.wire import MAX_PARTS, MAX_PAYLOAD, Channel, Frame, FrameReader, WireError, encode

frames = st.lists(
    st.tuples(
        st.sampled_from(Channel),
        st.lists(st.binary(max_size=200) | st.just(b"x" * 70_000), max_size=6),
    ),
    max_size=6,
)


def _joined(channel: Channel, parts: list[bytes]) -> bytes:
    return b"".join(bytes(buffer) for buffer in encode(channel, parts))


def _read(pieces: list[bytes]) -> Iterator[Frame]:
    """Feed pieces through a real pipe and yield the frames; WireError as it comes."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    try:
        reader = FrameReader(read)
        for piece in pieces:
            while piece:
                piece = piece[os.write(write, piece[:60_000]) :]
                yield from reader.frames()
    finally:
        os.close(read)
        os.close(write)


@given(frames, st.lists(st.integers(1, 100_000), max_size=8))
def test_what_is_sent_arrives_however_it_is_cut(sent: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(_joined(channel, parts) for channel, parts in sent)
    pieces, start = [], 0
    for cut in cuts:
        pieces.append(stream[start : start + cut])
        start += cut
    pieces.append(stream[start:])
    assert list(_read(pieces)) == sent


@given(st.binary(max_size=300))
def test_any_bytes_give_frames_or_a_refusal(data: bytes) -> None:
    try:
        for channel, parts in _read([data]):
            assert channel in Channel
            assert len(parts) <= MAX_PARTS
    except WireError:
        pass


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">HBBI", 0x1234, 1, 0, 0),
        struct.pack(">HBBI", 0x4D58, 200, 0, 0),
        struct.pack(">HBBI", 0x4D58, 1, MAX_PARTS + 1, 4 * MAX_PARTS + 4),
        struct.pack(">HBBI", 0x4D58, 1, 1, MAX_PAYLOAD + 1),
        struct.pack(">HBBI", 0x4D58, 1, 2, 4) + b"....",
    ],
)
def test_a_bad_header_is_refused_before_its_payload_comes(header: bytes) -> None:
    with pytest.raises(WireError):
        list(_read([header]))


def test_a_frame_over_the_limits_is_not_even_sent() -> None:
    with pytest.raises(WireError):
        encode(Channel.SHELL, [b""] * (MAX_PARTS + 1))
    assert encode(Channel.SHELL, [b""] * MAX_PARTS)


def test_the_end_of_the_pipe_is_told() -> None:
    read, write = os.pipe()
    os.write(write, _joined(Channel.IOPUB, [b"last"]))
    os.close(write)
    reader = FrameReader(read).frames()
    assert next(reader) == (Channel.IOPUB, [b"last"])
    with pytest.raises(EOFError):
        next(reader)
    os.close(read)
