"""Any bytes in any pieces: frames or a refusal, and no more memory than what came."""

from __future__ import annotations

import contextlib
import os

from mxc_kernel.wire import (
    FRAGMENT,
    LIMITS,
    MAX_PARTS,
    METERED,
    WINDOW,
    Allowance,
    Channel,
    Debt,
    FrameReader,
    WireError,
    encode,
)

__all__ = ["decode"]


def decode(data: bytes) -> None:
    """Read some bytes as frames; the first one says how they are cut.

    Raises:
        AssertionError: the reader did something that it must not.
    """
    cut = data[0] + 1 if data else 1
    data = data[1:]
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    debt, allowance = Debt(), Allowance()
    cost = 0

    def arrived(channel: Channel, size: int) -> None:
        nonlocal cost
        cost += size
        debt.take(channel, size)

    reader = FrameReader(reading, arrived)
    came = 0
    try:
        for start in range(0, len(data), cut):
            piece = data[start : start + cut]
            came += os.write(writing, piece)
            for channel, parts in reader.frames():
                assert channel in Channel
                assert len(parts) <= MAX_PARTS
                assert sum(map(len, parts)) <= min(LIMITS[channel], came)
                # What was understood can be said again, and means the same.
                again = b"".join(encode(channel, parts))
                assert len(again) <= came + 8 * (1 + came // FRAGMENT)
                if channel is Channel.CREDIT:
                    with contextlib.suppress(WireError):
                        allowance.refill(parts)
            held = len(reader._buffer) + sum(
                len(piece) for _, _, pieces in reader._open.values() for piece in pieces
            )
            assert held <= came
            assert all(0 <= allowance._left[channel] <= WINDOW for channel in METERED)
    except WireError:
        pass
    finally:
        os.close(reading)
        os.close(writing)
