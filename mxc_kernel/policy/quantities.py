"""Durations and sizes as people write them."""

from __future__ import annotations

import re

from mxc_kernel.errors import SandboxPolicyError

__all__ = ["format_duration", "format_size", "parse_duration", "parse_size"]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
# Twelve digits at most: nothing here overflows, and nothing longer is meant.
_DURATION = r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(ms|s|m|h|d)"
_SIZE = r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(B|KiB|MiB|GiB|TiB)"
DURATION_PATTERN = rf"^(off|{_DURATION})$"
SIZE_PATTERN = rf"^{_SIZE}$"


def parse_duration(text: str) -> float | None:
    """Return the seconds that ``"30s"``, ``"1.5h"`` or ``"200ms"`` mean, None for ``"off"``.

    Raises:
        SandboxPolicyError: the text is not a duration, or is zero.
    """
    if text == "off":
        return None
    match = re.fullmatch(_DURATION, text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not seconds:
        raise SandboxPolicyError(
            f"{text!r} is not a duration above zero",
            remedy='Write a number with ms, s, m, h or d, such as "30s", or "off" for no limit.',
        )
    return seconds


def parse_size(text: str) -> int:
    """Return the bytes that ``"2GiB"`` or ``"512KiB"`` mean.

    Raises:
        SandboxPolicyError: the text is not a size, or is zero.
    """
    match = re.fullmatch(_SIZE, text)
    size = int(float(match[1]) * _BYTES[match[2]]) if match else 0
    if not size:
        raise SandboxPolicyError(
            f"{text!r} is not a size above zero",
            remedy='Write a number with B, KiB, MiB, GiB or TiB, such as "2GiB".',
        )
    return size


def format_duration(seconds: float | None) -> str:
    """Return the duration as `parse_duration` reads it."""
    if seconds is None:
        return "off"
    for unit in ("h", "m"):
        if seconds >= _SECONDS[unit] and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


def format_size(size: int | None) -> str:
    """Return the size as `parse_size` reads it, rounded to a tenth; None is ``"off"``."""
    if size is None:
        return "off"
    for unit, count in reversed(_BYTES.items()):
        if size >= count:
            return f"{size / count:.1f}".removesuffix(".0") + unit
    return "0B"
