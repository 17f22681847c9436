"""An operator's own redaction patterns, checked when they are read rather than when they hit."""

from __future__ import annotations

import math
import re
from typing import Any

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.output.rules import LIMIT, Rule

__all__ = ["MAX_WAYS", "MIN_PREFIX", "pattern_rule"]

MIN_PREFIX = 3
"""Literal characters a pattern must begin with: they are what the stream is searched for."""

MAX_WAYS = 4096
"""Ways in which a pattern may be tried on one text: one open repetition and a few choices."""

_SPECIAL = frozenset(".^$*+?{}[]|()\\")
_REMEDY = (
    "Write the pattern so that it begins with at least three literal characters, such as "
    "'ACME-[0-9A-F]{32}'."
)


def pattern_rule(name: str, pattern: str) -> Rule:
    """Return the rule for a pattern from a ceiling, for ``Rules(operator=…)``.

    Args:
        name: what to show for a match; letters, digits and dashes.
        pattern: a regular expression of Python's; group 1, if there is one, is the secret.

    Raises:
        SandboxPolicyError: it is no expression, has no literal beginning, or could take long.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,39}", name):
        raise SandboxPolicyError(
            f"the redaction pattern's name {name!r} cannot be shown",
            remedy="Name it with letters, digits and dashes, at most 40 of them.",
        )
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise SandboxPolicyError(
            f"the redaction pattern {name!r} is not a regular expression: {error}", remedy=_REMEDY
        ) from error
    prefix = _literal_prefix(pattern)
    if len(prefix) < MIN_PREFIX or compiled.flags & re.IGNORECASE or compiled.groups > 1:
        raise SandboxPolicyError(
            f"the redaction pattern {name!r} cannot be searched for in a stream: it begins with "
            f"{prefix!r}" + (" and has more than one group" if compiled.groups > 1 else ""),
            remedy=_REMEDY,
        )
    if _ways(re.compile(pattern)) > MAX_WAYS:
        raise SandboxPolicyError(
            f"the redaction pattern {name!r} can match one text in too many ways: looking for it "
            "could take seconds",
            remedy="Give counts, such as {8,32}, to all but one of its repetitions; nest none.",
        )
    _check_partial(name, pattern)
    return Rule(name, (prefix[:16],), pattern)


def _ways(compiled: re.Pattern[str]) -> float:
    """Return an upper bound of the ways in which a pattern can be tried on one text.

    Matching backtracks, so its work is what each way costs times their number. The text is bounded
    by ``LIMIT``; a bound on the ways makes the work linear in the output, whatever a cell prints.
    """
    # The parser behind ``re``: private, but read here only, and anything unknown to it is refused.
    from re import _parser  # type: ignore[attr-defined]

    return _product(_parser.parse(compiled.pattern, compiled.flags).data)


def _product(nodes: list[tuple[Any, Any]]) -> float:
    return math.prod(_ways_of(str(kind), value) for kind, value in nodes)


def _ways_of(kind: str, value: Any) -> float:
    if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT", "CATEGORY"):
        return 1
    if kind == "SUBPATTERN":
        return _product(value[3].data)
    if kind == "ATOMIC_GROUP":
        return _product(value.data)
    if kind == "BRANCH":
        return sum(_product(branch.data) for branch in value[1])
    if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, inside = value
        most = min(int(most), LIMIT)
        each = _product(inside.data)
        if each == 1:
            return most - min(int(least), LIMIT) + 1
        return each**most * 2 if most < 64 else math.inf  # far beyond any bound
    return math.inf  # back references, look-around, conditions


def _check_partial(name: str, pattern: str) -> None:
    """Refuse what the matcher for the end of a write cannot read; it is another library's."""
    import regex  # type: ignore[import-untyped]

    try:
        regex.compile(pattern)
    except regex.error as error:
        raise SandboxPolicyError(
            f"the redaction pattern {name!r} is not understood: {error}", remedy=_REMEDY
        ) from error


def _literal_prefix(pattern: str) -> str:
    """Return the characters that every match begins with, as far as they can be read off."""
    depth = 0
    for match in re.finditer(r"\\.|\[(?:\\.|[^\]])+\]|[()|]", pattern, re.DOTALL):
        part = match[0]
        depth += (part == "(") - (part == ")")
        if part == "|" and depth == 0:
            return ""
    prefix: list[str] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character == "\\" and position + 1 < len(pattern):
            character = pattern[position + 1]
            if character.isalnum():
                break
            position += 1
        elif character in _SPECIAL:
            break
        prefix.append(character)
        position += 1
    if position < len(pattern) and pattern[position] in "*+?{" and prefix:
        prefix.pop()
    return "".join(prefix)
