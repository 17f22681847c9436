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
from mxc_kernel.output.rules import LIMIT
from mxc_kernel.output.terminal import Splitter

__all__ = ["HARD_SECONDS", "HOLD_BOUND", "SOFT_SECONDS", "Rules", "Stream", "find", "redact"]

SOFT_SECONDS = 0.04
"""Seconds after which the mere beginning of a public prefix (``gh``) is shown: too short to see."""
HARD_SECONDS = 0.25
"""Seconds after which what may be part of a secret is masked, unconfirmed: failing closed."""
HOLD_BOUND = LIMIT
"""Characters that a stream holds back at most."""

_LEFT = 16  # characters kept to the left of a candidate, for what a rule says about them
_CONTEXT = 64  # characters of decided text kept: a split label or end mark of a private key fits
_SURROGATES = re.compile("[\ud800-\udfff]")

Extras = list[tuple[int, str]]


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
    text, hits = _scan(text, rules)
    extras: Extras = []
    if hits is None:
        text, extras = Splitter().split(text)
        hits = rules.scan(text) or []
    if not hits and not extras:
        return text, counts
    spans = _final(text, hits, rules)
    shown, _ = _render(text, extras, (0, len(text)), spans, False, counts)
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
        before = len(self._text)
        if self._splitter.idle:
            whole, hits = _scan(self._text + text, self._rules)
        else:
            whole, hits = self._text, None
        if hits is None:
            plain, extras = self._splitter.split(_SURROGATES.sub("\ufffd", text))
            self._extras += [(before + offset, extra) for offset, extra in extras]
            whole = self._text + plain
            hits = self._rules.scan(whole) or []
        busy = hits or self._open or self._ahead or self._extras
        if not busy and not self._rules.beginnings(whole):
            return self._pass(whole)
        self._text = whole
        self._arrived.append((self._base + before, now))
        return self._advance(hits, now, everything=False)

    def _pass(self, text: str) -> str:
        """Show everything: the short way for text without any hit, which is nearly all text."""
        shown = text[self._done :]
        if shown:
            self._masking = False
        self._text = text[-_CONTEXT:]
        self._base += len(text) - len(self._text)
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

    def _advance(self, hits: list[tuple[int, int, int]], now: float, *, everything: bool) -> str:
        """Decide what can be decided and return what of it is to be shown."""
        text = self._text
        end = len(text)
        spans, pending = self._judge(hits)
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
                spans.append(Span(start, candidate.anchor, 0, end, -1, candidate.matcher))
                self._open.setdefault(candidate.matcher, (self._base + end, True))
        spans.sort(key=_by_place)
        shown, self._masking = _render(
            text, self._extras, (self._done, hold), spans, self._masking, self.counts
        )
        self._done = hold
        self._ahead = [span for span in spans if span.end > hold] if hold < end else []
        self._trim(min(keep, hold) - _LEFT)
        return shown

    def _judge(self, hits: list[tuple[int, int, int]]) -> tuple[list[Span], list[Pending]]:
        """Return what is known of the text kept: secrets, open tails among them, and candidates."""
        text = self._text
        # What stands right at the cut has lost what was to its left, and was judged when it had it.
        spans, pending = self._rules.judge(text, hits, _LEFT if self._base else 0)
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
        spans += self._ahead
        pending += self._rules.beginnings(text)
        return spans, pending

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


def _scan(text: str, rules: Rules) -> tuple[str, list[tuple[int, int, int]] | None]:
    """Scan a text; lone surrogates, which no encoding and no frontend can carry, are replaced."""
    try:
        return text, rules.scan(text)
    except UnicodeEncodeError:
        text = _SURROGATES.sub("\ufffd", text)
        return text, rules.scan(text)


def _final(text: str, hits: list[tuple[int, int, int]], rules: Rules) -> list[Span]:
    """Return the secrets of a text that does not go on, sorted."""
    spans, pending = rules.judge(text, hits)
    spans += [candidate.otherwise for candidate in pending if candidate.otherwise]
    spans.sort(key=_by_place)
    return spans


def _by_place(span: Span) -> tuple[int, int, int]:
    return span[:3]


def _render(
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
    for span in spans:
        start, end = max(span.start, position), min(span.end, stop)
        if start >= end:
            continue
        if start > position:
            pieces += _shown(text, extras, position, start, masking)
            masking = False
        pieces += _at(extras, start, masking)
        if not masking:
            pieces.append(f"[redacted: {span.matcher.name}]")
            counts[span.matcher.name] += 1
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
