"""Frames: whatever arrives in whatever pieces, the reader yields what was sent or refuses."""

from __future__ import annotations

import contextlib
import os
import struct
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.wire import (
    FRAGMENT,
    LIMITS,
    MAX_PARTS,
    METERED,
    WINDOW,
    Allowance,
    Channel,
    Debt,
    Frame,
    FrameReader,
    WireError,
    encode,
)

LARGEST = LIMITS[Channel.IOPUB]
MORE = 255  # in the place of the part count: the fragment goes on with a frame

# Of a few bytes, of just a fragment, of several.
parts = st.lists(
    st.binary(max_size=200)
    | st.sampled_from([b"x" * (FRAGMENT - 4), b"y" * (FRAGMENT - 3), b"z" * 3 * FRAGMENT]),
    max_size=6,
)
large_channels = [channel for channel in Channel if LIMITS[channel] > 20 * FRAGMENT]
frames = st.lists(st.tuples(st.sampled_from(large_channels), parts), max_size=6)


def _header(magic: int, channel: int, count: int, length: int) -> bytes:
    return struct.pack(">HBBI", magic, channel, count, length)


def _fragment(channel: int, count: int, length: int, data: bytes) -> bytes:
    return _header(0x4D58, channel, count, length) + data


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
    stream = b"".join(b"".join(encode(channel, parts)) for channel, parts in sent)
    pieces, start = [], 0
    for cut in cuts:
        pieces.append(stream[start : start + cut])
        start += cut
    pieces.append(stream[start:])
    assert list(_read(pieces)) == sent


@given(st.dictionaries(st.sampled_from(large_channels), parts), st.randoms())
def test_frames_of_several_channels_may_be_interleaved(
    sent: dict[Channel, list[bytes]], random: object
) -> None:
    waiting = {channel: list(encode(channel, parts)) for channel, parts in sent.items()}
    pieces = []
    while waiting:
        channel = random.choice(list(waiting))  # type: ignore[attr-defined]
        pieces.append(waiting[channel].pop(0))
        if not waiting[channel]:
            del waiting[channel]
    assert dict(_read(pieces)) == sent


def test_a_small_frame_does_not_wait_for_a_large_one() -> None:
    large = list(encode(Channel.IOPUB, [b"x" * 10 * FRAGMENT]))
    small = list(encode(Channel.CONTROL, [b"now"]))
    arrived = list(_read([*large[:2], *small, *large[2:]]))
    assert [channel for channel, _ in arrived] == [Channel.CONTROL, Channel.IOPUB]


def test_no_fragment_is_larger_than_the_others_may_have_to_wait_for() -> None:
    fragments = list(encode(Channel.IOPUB, [b"x" * 10 * FRAGMENT]))
    assert max(map(len, fragments)) == FRAGMENT + 8
    assert len(fragments) == 11


@given(st.binary(max_size=300))
def test_any_bytes_give_frames_or_a_refusal(data: bytes) -> None:
    try:
        for channel, parts in _read([data]):
            assert channel in Channel
            assert len(parts) <= MAX_PARTS
    except WireError:
        pass


hostile = st.lists(
    st.builds(
        _fragment,
        st.integers(0, 9),
        st.sampled_from([0, 1, 2, MAX_PARTS, MAX_PARTS + 1, 254, MORE]),
        st.sampled_from([0, 4, 8, 300, FRAGMENT, FRAGMENT + 1, 2 * FRAGMENT, LARGEST]),
        st.sampled_from([b"", b"\0" * 4, b"\0\0\0\4abcd", b"\0" * FRAGMENT]),
    ),
    max_size=30,
)


@given(hostile)
def test_fragments_that_do_not_belong_together_give_frames_or_a_refusal(
    fragments: list[bytes],
) -> None:
    """Never completed, gone on with what was never begun, more than one begun, cut short."""
    try:
        for channel, parts in _read(fragments):
            assert sum(map(len, parts)) <= LIMITS[channel]
    except WireError:
        pass


def test_what_is_announced_and_does_not_come_costs_nothing() -> None:
    """On every channel at once, a frame of the largest size is begun, again and again."""
    fragments = [
        _fragment(channel, 1, LIMITS[channel], b"\0" * FRAGMENT) for channel in large_channels
    ]
    tracemalloc.start()
    try:
        assert list(_read(fragments * 20)) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * FRAGMENT


@pytest.mark.parametrize(
    "header",
    [
        _header(0x1234, 1, 0, 0),
        _header(0x4D58, 1, MAX_PARTS + 1, 4 * MAX_PARTS + 4),
        _header(0x4D58, 200, 0, 0),
        *(_header(0x4D58, channel, 1, limit + 1) for channel, limit in LIMITS.items()),
        _header(0x4D58, 1, 2, 4),
        _header(0x4D58, 1, MORE, 100),
        _header(0x4D58, 1, 1, 2 * FRAGMENT) + b"\0" * FRAGMENT + _header(0x4D58, 1, MORE, 1),
        _header(0x4D58, 1, 1, 2 * FRAGMENT) + b"\0" * FRAGMENT + _header(0x4D58, 2, MORE, FRAGMENT),
        _header(0x4D58, 1, 1, 8) + struct.pack(">I", 5) + b"....",
    ],
)
def test_a_bad_header_is_refused_before_its_payload_comes(header: bytes) -> None:
    with pytest.raises(WireError):
        list(_read([header]))


def test_a_frame_over_the_limits_is_not_even_sent() -> None:
    with pytest.raises(WireError):
        encode(Channel.SHELL, [b""] * (MAX_PARTS + 1))
    with pytest.raises(WireError):
        encode(Channel.STDIN, [bytes(LIMITS[Channel.STDIN])])
    assert list(encode(Channel.SHELL, [b""] * MAX_PARTS))


def test_a_frame_that_was_given_up_makes_room_for_the_next() -> None:
    begun = next(encode(Channel.STATE, [b"x" * 2 * FRAGMENT]))
    assert list(_read([begun, *encode(Channel.STATE, [b"next"])])) == [(Channel.STATE, [b"next"])]


def test_the_end_of_the_pipe_is_told() -> None:
    read, write = os.pipe()
    os.write(write, b"".join(encode(Channel.IOPUB, [b"last"])))
    os.close(write)
    reader = FrameReader(read).frames()
    assert next(reader) == (Channel.IOPUB, [b"last"])
    with pytest.raises(EOFError):
        next(reader)
    os.close(read)


@pytest.mark.parametrize("channel", METERED)
@pytest.mark.parametrize("size", [0, 1, 1000, FRAGMENT, 3 * FRAGMENT])
def test_a_sender_stops_at_its_window_and_goes_on_with_credit(channel: Channel, size: int) -> None:
    allowance, debt = Allowance(), Debt()
    rounds: Counter[bool] = Counter()
    for _ in range(3):
        sent = 0
        while allowance.covers(channel):
            for fragment in encode(channel, [b"x" * size]):
                allowance.spend(channel, fragment)
                sent += len(fragment)
                debt.take(channel, len(fragment) - 8 + 256)
        assert 0 < sent < WINDOW + 4 * FRAGMENT
        credit = debt.due(channel)
        assert credit is not None
        allowance.refill(credit)
        rounds[allowance.covers(channel)] += 1
    assert rounds == {True: 3}


def test_a_channel_without_a_meter_is_never_held_up() -> None:
    allowance = Allowance()
    for fragment in encode(Channel.SHELL, [bytes(4 * WINDOW)]):
        assert allowance.covers(Channel.SHELL)
        allowance.spend(Channel.SHELL, fragment)


def test_a_sender_that_does_not_stop_is_refused() -> None:
    debt = Debt()
    for _ in range(2 * WINDOW // 256):
        debt.take(Channel.IOPUB, 256)  # empty frames: they cost what is kept for them
    with pytest.raises(WireError, match="IOPUB"):
        debt.take(Channel.IOPUB, 256)


@given(st.lists(st.binary(max_size=8), max_size=3))
def test_no_credit_widens_the_window(parts: list[bytes]) -> None:
    allowance = Allowance()
    for _ in range(2):
        with contextlib.suppress(WireError):
            allowance.refill(parts)
    sent = 0
    while allowance.covers(Channel.IOPUB):
        fragment = next(encode(Channel.IOPUB, [bytes(FRAGMENT)]))
        allowance.spend(Channel.IOPUB, fragment)
        sent += len(fragment)
    assert sent <= WINDOW
