"""Verdicts on one hit of an anchor: a secret, not a secret, or too early to say.

A matcher answers for a text that may go on. What it has once called a secret or not stays so
whatever follows; only ``Pending`` may turn into either. That, and nothing else, is why redacting a
stream piece by piece gives the same as redacting it whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mxc_kernel.output.rules import LIMIT, Rule

if TYPE_CHECKING:
    import regex  # type: ignore[import-untyped]

__all__ = ["SHOWN", "VAGUE", "ExactMatcher", "Matcher", "Pending", "RuleMatcher", "Span"]

SHOWN = 3
"""Characters of a possible secret that may be shown when a hold ends unconfirmed."""

VAGUE = 1 << 20
"""Rank from which on a name gives way to that of any other rule that finds the same."""


class Span(NamedTuple):
    """A secret; spans sort by where they start, then by which name is to be shown.

    Attributes:
        start: index of its first character.
        anchor: index of the anchor it was found by; the leftmost names what overlaps.
        order: rank of the matcher.
        end: index behind its last character.
        tail: index where the tail began that may still go on behind ``end``, or -1.
        matcher: what found it.
    """

    start: int
    anchor: int
    order: int
    end: int
    tail: int
    matcher: Matcher


class Pending(NamedTuple):
    """A secret may begin here; what follows will tell.

    Attributes:
        anchor: index of what it was found by.
        hold: index from which on nothing can be shown yet.
        hard: whether what has come of it must not be shown unconfirmed.
        matcher: what found it; ``None`` for the mere beginning of a public prefix.
        otherwise: the secret that it is if nothing follows.
    """

    anchor: int
    hold: int
    hard: bool
    matcher: Matcher | None
    otherwise: Span | None = None


class Matcher(Protocol):
    """What the stream needs of a rule or an exact secret."""

    name: str

    def judge(self, text: str, start: int, end: int) -> Span | Pending | None:
        """Return the verdict on the anchor at ``text[start:end]``."""

    def extend(self, text: str, begin: int, origin: int) -> tuple[int, bool]:
        """Return where the secret's tail ends, and whether it may go on.

        Args:
            text: a text that may go on.
            begin: index in the tail to look from.
            origin: index where the tail began; negative if that is not in the text any more.
        """

    def extend_unconfirmed(self, text: str, begin: int) -> tuple[int, bool]:
        """Like ``extend``, for what was masked because its time had run out."""


class RuleMatcher:
    """Judges the hits of one rule.

    Args:
        rule: what to look for.
        order: its rank among rules that match at the same place.
        exceptions: texts that are not secrets although they look so.
        grows: whether a match that touches the end may still become longer (an operator's pattern).
    """

    def __init__(
        self, rule: Rule, order: int, exceptions: tuple[str, ...] = (), *, grows: bool = False
    ) -> None:
        self.rule = rule
        self.name = rule.name
        self._order = order
        self._exceptions = exceptions
        self._grows = grows
        self._before = rule.before
        self._run = ("", 0, 0)
        self._in_anchor = rule.lead is None

    # Compiled at the first hit: all expressions together would cost every kernel start 10 ms.
    @cached_property
    def _lead(self) -> Callable[..., re.Match[str] | None]:
        return re.compile(self.rule.lead or "").match

    @cached_property
    def _body(self) -> Callable[..., re.Match[str] | None]:
        return re.compile(self.rule.body).match

    @cached_property
    def _whole(self) -> Callable[..., re.Match[str] | None]:
        # Atomic: matched in two steps the lead would not give back what the body lacks.
        lead = f"(?>{self.rule.lead})" if self.rule.lead else ""
        return re.compile(f"{lead}(?:{self.rule.body})").match

    @cached_property
    def _alive(self) -> Callable[..., re.Match[str] | None]:
        return re.compile(rf"{self.rule.alive}*+\Z").match

    @cached_property
    def _tail(self) -> Callable[..., re.Match[str] | None]:
        tail = self.rule.tail
        return re.compile(f"{tail}*" if tail else "").match

    @cached_property
    def _until(self) -> re.Pattern[str]:
        return re.compile(self.rule.until)

    @cached_property
    def _rest(self) -> re.Pattern[str]:
        rest = self.rule.rest or self.rule.tail
        return re.compile(f"{rest}*" if rest else "")

    def judge(self, text: str, start: int, end: int) -> Span | Pending | None:
        """Return the verdict on the anchor at ``text[start:end]``."""
        if start and text[start - 1] in self._before:
            return None
        size = len(text)
        stop = start + LIMIT
        if stop >= size:
            stop = size
        elif self._whole(text, start, stop) is None:
            return None  # nearly all hits of nearly all texts
        secret = start
        if not self._in_anchor:
            lead = self._lead(text, start, stop)
            if lead is None:
                if stop < len(text):
                    return None
                return self._maybe(True, text, start, start, end, stop)
            secret = lead.end()
        body = self._body(text, secret, stop)
        if body is None:
            return self._maybe(False, text, start, secret, end, stop)
        if self.rule.check is not None and not self.rule.check(body[body.lastindex or 0]):
            return None
        span = self._span(text, start, secret, body)
        if not self._exceptions and not self._grows:
            return span
        grows = self._grows and body.end() == len(text) < start + LIMIT
        for exception in self._exceptions:
            for position in (start, secret):
                if text.startswith(exception, position):
                    return None
                grows = grows or exception.startswith(text[position : position + len(exception)])
        return Pending(start, span.start, True, self, span) if grows else span

    def _span(self, text: str, start: int, secret: int, body: re.Match[str]) -> Span:
        secret, tail = body.span(body.lastindex or 0)
        anchor = secret if self.rule.vague else start
        if tail < body.end():
            return Span(secret, anchor, self._order, tail, -1, self)
        last, more = self.extend(text, tail, tail)
        return Span(secret, anchor, self._order, last, tail if more else -1, self)

    def extend(self, text: str, begin: int, origin: int) -> tuple[int, bool]:
        """Return where the tail ends and whether it may go on."""
        rule = self.rule
        stop = min(len(text), origin + rule.reach)
        known, first, last = self._run
        if text is known and first <= begin <= last:
            # An anchor that stands in the tail of another one: without this, a text of nothing but
            # anchors would take time by the square of its length.
            return last, last == len(text)
        match = self._tail(text, begin, stop)
        end = match.end() if match else begin
        if end - begin > LIMIT and not rule.until and stop == len(text):
            self._run = (text, begin, end)
        if rule.until and (mark := self._until.search(text, begin, end)):
            return mark.end(), False
        return end, bool(rule.tail) and end == len(text) < origin + rule.reach

    def extend_unconfirmed(self, text: str, begin: int) -> tuple[int, bool]:
        """Return where what may belong to the unconfirmed secret ends."""
        match = self._rest.match(text, begin)
        end = match.end() if match else begin
        return end, end == len(text) and bool(self._rest.pattern)

    def _maybe(
        self, in_lead: bool, text: str, start: int, secret: int, end: int, stop: int
    ) -> Pending | None:
        """Return whether more text could still confirm the hit."""
        if stop < len(text) or stop - start >= LIMIT:
            return None
        if self.rule.alive and self._alive(text, end) is None:
            return None  # sooner known than by a partial match
        partial = self._partial_lead if in_lead else self._partial_body
        if partial.match(text, secret, stop, partial=True) is None:
            return None
        if in_lead:
            return Pending(start, stop, False, self)
        if self.rule.ends:
            otherwise = self._ended(text, start, secret, stop)
            return Pending(start, secret, otherwise is not None, self, otherwise)
        seen = stop - (end if self._in_anchor else secret)
        harmless = self.rule.harmless and re.fullmatch(self.rule.harmless, text[secret:stop])
        return Pending(start, secret, seen > SHOWN and not harmless, self)

    def _ended(self, text: str, start: int, secret: int, stop: int) -> Span | None:
        """Return the secret that it is if nothing follows."""
        body = self._body(text[secret:stop] + "\n")
        check = self.rule.check
        if body is None or not body.lastindex or (check and not check(body[body.lastindex])):
            return None
        anchor = secret if self.rule.vague else start
        return Span(secret, anchor, self._order, secret + body.end(body.lastindex), -1, self)

    # The regex module costs 20 ms to import, and only a hit near the end of a write needs it.
    @cached_property
    def _partial_lead(self) -> regex.Pattern[str]:
        import regex

        return regex.compile(self.rule.lead or "")

    @cached_property
    def _partial_body(self) -> regex.Pattern[str]:
        import regex

        return regex.compile(self.rule.body)


class ExactMatcher:
    """Judges the hits of secrets known to the letter that begin with the same anchor.

    Args:
        name: what to call them.
        literals: the secrets.
        order: rank among rules that match at the same place.
    """

    def __init__(self, name: str, literals: tuple[str, ...], order: int) -> None:
        self.name = name
        self._literals = tuple(sorted(literals, key=len, reverse=True))
        self._longest = len(self._literals[0])
        self._order = order

    def judge(self, text: str, start: int, end: int) -> Span | Pending | None:  # noqa: ARG002
        """Return the verdict on the anchor at ``text[start:end]``."""
        found = None
        for literal in self._literals:
            if text.startswith(literal, start):
                found = Span(start, start, self._order, start + len(literal), -1, self)
                break
        if len(text) - start < self._longest:
            here = text[start:]
            if any(literal.startswith(here) and literal != here for literal in self._literals):
                return Pending(start, start, True, self, found)
        return found

    def extend(self, text: str, begin: int, origin: int) -> tuple[int, bool]:  # noqa: ARG002
        """Return that a literal has no tail."""
        return begin, False

    def extend_unconfirmed(self, text: str, begin: int) -> tuple[int, bool]:  # noqa: ARG002
        """Return that a literal has no tail."""
        return begin, False
