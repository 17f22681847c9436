"""Redaction: secrets are replaced by ``[redacted: name]``, in a stream as in a whole text.

It prevents accidents. It is no boundary against code that wants to smuggle a secret out: printing
it with spaces is enough. Keep secrets out of the sandbox in the first place.

One automaton finds the anchors of all rules, the first characters of all exact secrets and all
characters that hide text from matching; a matcher judges each hit where it is. A stream holds back
only what may still turn into a secret, and only until ``deadline``.
"""

from __future__ import annotations

import re
from collections import Counter

from mxc_kernel.output.compiled import Rules
from mxc_kernel.output.matching import Matcher, Pending, Span
from mxc_kernel.output.rendering import Extras, render
from mxc_kernel.output.rules import LIMIT
from mxc_kernel.output.terminal import KEPT, Splitter, partial

__all__ = [
    "HARD_SECONDS",
    "HOLD_BOUND",
    "MARK",
    "SOFT_SECONDS",
    "Rules",
    "Stream",
    "find",
    "redact",
]

SOFT_SECONDS = 0.04
"""Seconds after which the mere beginning of a public prefix (``gh``) is shown: too short to see."""
HARD_SECONDS = 0.25
"""Seconds after which what may be part of a secret is masked, unconfirmed: failing closed."""
HOLD_BOUND = LIMIT
"""Characters that a stream holds back at most."""

_LEFT = 16  # characters kept to the left of a candidate, for what a rule says about them
_CONTEXT = 64  # characters of decided text kept: a split label or end mark of a private key fits
_SURROGATES = re.compile("[\ud800-\udfff]")

MARK = "\x1b\x00"
"""What ``Stream.mark`` puts into a stream; the splitter lets no such escape through."""


def find(text: str, rules: Rules) -> list[Span]:
    """Return the secrets of a whole text that needs no splitting, in order; they may overlap.

    Args:
        text: without escapes and characters that have no width.
        rules: what to look for.
    """
    hits = rules.scan(text)
    return _final(text, hits, rules) if hits else []


def redact(text: str, rules: Rules) -> tuple[str, Counter[str]]:
    """Return a whole text without its secrets, and how many there were by name.

    Args:
        text: a text that does not go on; escapes that no frontend needs are dropped from it.
        rules: what to look for.
    """
    counts: Counter[str] = Counter()
    bare = KEPT.sub("", text) if "\x1b" in text else text
    try:
        hits = rules.scan(bare)
    except UnicodeEncodeError:
        return redact(_SURROGATES.sub("\ufffd", text), rules)
    spans = _final(bare, hits, rules) if hits else []
    if hits is not None and not spans:
        return text, counts
    extras: Extras = []
    if hits is None or bare is not text:
        bare, extras = Splitter().split(text)
        spans = _final(bare, rules.scan(bare) or [], rules)
    shown, _ = render(bare, extras, (0, len(bare)), spans, False, counts)
    return shown, counts


class Stream:
    """Redacts one stream of text piece by piece.

    The concatenation of what it returns is what ``redact`` returns for the concatenation of what it
    was fed, except where a hold ran out of time.

    Args:
        rules: what to look for.

    Attributes:
        counts: secrets masked so far, by name.
        deadline: when ``expire`` is due, in seconds on the caller's clock, or ``None``.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._splitter = Splitter()
        self._cut = ""  # the beginning of a sequence at the end of a write
        self._text = ""  # decided context, then what is held back
        self._base = 0  # characters of the stream before _text
        self._done = 0  # index in _text up to which all is decided
        self._extras: Extras = []
        self._masking = False  # whether the last decided character was masked
        self._open: dict[Matcher, tuple[int, bool]] = {}  # tails under way: (begin, unconfirmed)
        self._ahead: list[Span] = []  # secrets that reach beyond what is decided
        self._arrived: list[tuple[int, float]] = []  # (position in the stream, time)
        self.counts: Counter[str] = Counter()
        self.deadline: float | None = None

    @property
    def held(self) -> int:
        """Characters held back now."""
        return len(self._text) - self._done

    def feed(self, text: str, now: float) -> str:
        """Take the next piece and return what may be shown.

        Args:
            text: any piece of the stream.
            now: the caller's clock in seconds.
        """
        if self._cut:
            text, self._cut = self._cut + text, ""
        bare = text
        if self._splitter.idle and (last := text.rfind("\x1b")) >= 0:
            if partial(text, last):
                text, self._cut = text[:last], text[last:]
            bare = KEPT.sub("", text)
        before = len(self._text)
        whole = self._text + bare
        try:
            hits = self._rules.scan(whole) if self._splitter.idle else None
        except UnicodeEncodeError:
            return self._later(_SURROGATES.sub("\ufffd", text), now)
        if hits is not None and not (self._open or self._ahead or self._extras):
            found = self._judge(whole, hits) if hits else ((), self._rules.beginnings(whole))
            if not found[0] and not found[1]:
                return self._pass(whole, text)
            if not found[0] and bare is text:
                first = min(candidate.hold for candidate in found[1])
                if self._done == before or first >= before:
                    return self._keep(whole, text, found[1], now)
            if not found[0] and bare is not text:
                rest = len(whole) - min(candidate.anchor for candidate in found[1])
                if 0 < rest <= len(bare) and _plain(text, rest):
                    return self._pass(whole[:-rest], text[:-rest]) + self._later(text[-rest:], now)
        if hits is None or bare is not text:
            bare, extras = self._splitter.split(_SURROGATES.sub("\ufffd", text))
            self._extras += [(before + offset, extra) for offset, extra in extras]
        self._text += bare
        self._arrived.append((self._base + before, now))
        if hits is None:
            hits = self._rules.scan(self._text) or []
        return self._advance(hits, now, everything=False)

    def _later(self, text: str, now: float) -> str:
        """Take a part of a write by itself, before the sequence that its end has begun."""
        cut, self._cut = self._cut, ""
        shown = self.feed(text, now)
        self._cut = cut
        return shown

    def _keep(self, whole: str, text: str, pending: list[Pending], now: float) -> str:
        """Hold back an end of this piece and nothing from before: ``_advance`` in short."""
        before = len(self._text)
        hold = keep = len(whole)
        hard = False
        for candidate in pending:
            keep = min(keep, candidate.anchor)
            start = max(candidate.hold, before)
            if start <= hold:
                hard = candidate.hard or (hard and start == hold)
                hold = start
        shown = self._text[self._done :] + text[: hold - before]
        if shown:
            self._masking = False
        self._text = whole
        self._done = hold
        self._arrived = [(self._base + before, now)]
        self.deadline = None
        if hold < len(whole):
            self.deadline = now + (HARD_SECONDS if hard else SOFT_SECONDS)
        self._trim(min(keep, hold) - _LEFT)
        return shown

    def _pass(self, whole: str, text: str) -> str:
        """Show everything: the short way for text without a secret, which is nearly all text."""
        shown = self._text[self._done :] + text
        if shown:
            self._masking = False
        self._text = whole[-_CONTEXT:]
        self._base += len(whole) - len(self._text)
        self._done = len(self._text)
        self._arrived.clear()
        self.deadline = None
        return shown

    def expire(self, now: float) -> str:
        """Return what the deadline up to ``now`` releases or masks."""
        if self.deadline is None or now < self.deadline:
            return ""
        return self._advance(self._rules.scan(self._text) or [], now, everything=False)

    def flush(self, now: float) -> str:
        """Return all that is held, decided as if its time had run out: for idle and prompts."""
        if self._done == len(self._text):
            return ""
        return self._advance(self._rules.scan(self._text) or [], now, everything=True)

    def mark(self) -> None:
        """Have a ``MARK`` stand where this was called in what ``feed`` and the others return.

        What else is to be shown between two pieces of a stream finds its place by it.
        """
        self._extras.append((len(self._text), MARK))

    def _advance(self, hits: list[tuple[int, int, int]], now: float, *, everything: bool) -> str:
        """Decide what can be decided and return what of it is to be shown."""
        text = self._text
        end = len(text)
        spans, pending = self._judge(text, hits)
        hold = keep = end
        self.deadline = None
        for candidate in pending:
            keep = min(keep, candidate.anchor)
            start = max(candidate.hold, self._done)
            if start >= end:
                continue
            due = self._arrival(start) + (HARD_SECONDS if candidate.hard else SOFT_SECONDS)
            if not everything and now < due:
                if self.deadline is None or start < hold:
                    self.deadline = due
                elif start == hold:
                    self.deadline = max(due, self.deadline)
                hold = min(hold, start)
            elif candidate.hard and candidate.matcher is not None:
                known = candidate.otherwise
                anchor, order = known[1:3] if known else (candidate.anchor, 0)
                spans.append(Span(start, anchor, order, end, -1, candidate.matcher))
                self._open.setdefault(candidate.matcher, (self._base + end, True))
        spans.sort(key=_by_place)
        shown, self._masking = render(
            text, self._extras, (self._done, hold), spans, self._masking, self.counts
        )
        self._done = hold
        self._ahead = [span for span in spans if span.end > hold] if hold < end else []
        self._trim(min(keep, hold) - _LEFT)
        return shown

    def _judge(
        self, text: str, hits: list[tuple[int, int, int]]
    ) -> tuple[list[Span], list[Pending]]:
        """Return what is known of the text kept: secrets, open tails among them, and candidates."""
        # What stands right at the cut has lost what was to its left, and was judged when it had it.
        spans, pending = self._rules.judge(text, hits, _LEFT if self._base else 0)
        pending += self._rules.beginnings(text)
        if not (spans or self._open or self._ahead):
            return spans, pending
        still: dict[Matcher, tuple[int, bool]] = {}
        for matcher, (began, unconfirmed) in self._open.items():
            begin = max(0, began - self._base)
            if unconfirmed:
                end, more = matcher.extend_unconfirmed(text, begin)
            else:
                end, more = matcher.extend(text, begin, began - self._base)
            spans.append(Span(begin, begin, 0, end, -1, matcher))
            if more:
                still[matcher] = (began, unconfirmed)
        for span in spans:
            if span.tail >= 0:
                still[span.matcher] = (self._base + span.tail, False)
        self._open = still
        # Found by an anchor that may be cut off by now.
        return spans + self._ahead, pending

    def _arrival(self, index: int) -> float:
        """Return when the character at an index came."""
        position = self._base + index
        return next(when for start, when in reversed(self._arrived) if start <= position)

    def _trim(self, keep: int) -> None:
        """Forget what no verdict can need any more."""
        if self._done == len(self._text):
            self._arrived.clear()
            self._extras.clear()
        else:
            done = self._base + self._done
            while len(self._arrived) > 1 and self._arrived[1][0] <= done:
                del self._arrived[0]
        cut = min(keep, len(self._text) - _CONTEXT)
        if cut > 0:
            self._text = self._text[cut:]
            self._base += cut
            self._done -= cut
            self._ahead = [
                span._replace(
                    start=span.start - cut, anchor=span.anchor - cut, end=span.end - cut, tail=-1
                )
                for span in self._ahead
            ]
        if self._extras:
            cut = max(cut, 0)
            self._extras = [
                (offset - cut, extra)
                for offset, extra in self._extras
                if offset - cut >= self._done
            ]


def _plain(text: str, length: int) -> bool:
    """Return whether the last characters of a coloured text are behind all of its colours."""
    last = KEPT.match(text, text.rfind("\x1b"))
    return last is not None and last.end() <= len(text) - length


def _final(text: str, hits: list[tuple[int, int, int]], rules: Rules) -> list[Span]:
    """Return the secrets of a text that does not go on, sorted."""
    spans, pending = rules.judge(text, hits)
    spans += [candidate.otherwise for candidate in pending if candidate.otherwise]
    spans.sort(key=_by_place)
    return spans


def _by_place(span: Span) -> tuple[int, int, int]:
    return span[:3]
