"""Writes judged text: secrets replaced, colours and other extras where they were."""

from __future__ import annotations

from collections import Counter

from mxc_kernel.output.matching import VAGUE, Span

__all__ = ["Extras", "render"]

Extras = list[tuple[int, str]]
"""What is shown but not matched, by the index before which it stands."""


def render(
    text: str,
    extras: Extras,
    part: tuple[int, int],
    spans: list[Span],
    masking: bool,
    counts: Counter[str],
) -> tuple[str, bool]:
    """Return a part of a text with its secrets replaced, and whether it ends in one.

    Args:
        text: what was judged.
        extras: what is shown besides, by the index before which it stands.
        part: from where to where.
        spans: the secrets, sorted.
        masking: whether the character before the part was masked; then its mask goes on silently.
        counts: where to count the labels written.
    """
    position, stop = part
    pieces: list[str] = []
    for index, span in enumerate(spans):
        start, end = max(span.start, position), min(span.end, stop)
        if start >= end:
            continue
        if start > position:
            pieces += _shown(text, extras, position, start, masking)
            masking = False
        pieces += _at(extras, start, masking)
        if not masking:
            name = _name(spans, index)
            pieces.append(f"[redacted: {name}]")
            counts[name] += 1
        masking = True
        for place, extra in extras:
            if start < place < end and extra[0] == "\x1b":
                pieces.append(extra)
        position = end
    if position < stop:
        pieces += _shown(text, extras, position, stop, masking)
        masking = False
    if stop == len(text):
        pieces += _at(extras, stop, masking)
    return "".join(pieces), masking


def _name(spans: list[Span], index: int) -> str:
    """Return what to call a secret: a rule that knows what it is goes before one that guesses."""
    first = spans[index]
    if first.order >= VAGUE:
        for other in spans[index + 1 :]:
            if other.start >= first.end:
                break
            if other.order < VAGUE:
                return other.matcher.name
    return first.matcher.name


def _shown(text: str, extras: Extras, start: int, stop: int, masking: bool) -> list[str]:
    """Return an unmasked part of the text with its extras."""
    if not extras:
        return [text[start:stop]]
    pieces = _at(extras, start, masking)
    position = start
    for place, extra in extras:
        if start < place < stop:
            pieces += (text[position:place], extra)
            position = place
    return [*pieces, text[position:stop]]


def _at(extras: Extras, index: int, masking: bool) -> list[str]:
    """Return the extras at one index; of those behind a masked character only the colours."""
    return [
        extra for place, extra in extras if place == index and (not masking or extra[0] == "\x1b")
    ]
