"""The rules compiled into one automaton: which anchors hit where, and what they mean there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from mxc_kernel.output.formats import FORMATS
from mxc_kernel.output.matching import (
    SHOWN,
    VAGUE,
    ExactMatcher,
    Matcher,
    Pending,
    RuleMatcher,
    Span,
)
from mxc_kernel.output.rules import LIMIT, Rule
from mxc_kernel.output.terminal import SPECIAL
from mxc_kernel.output.vendors import VENDORS

__all__ = ["BUILT_IN", "Rules"]

BUILT_IN: tuple[Rule, ...] = (*VENDORS, *FORMATS)
"""The rules that are always on."""

Value = TypeVar("Value")

_NAMES, _NAME = 1000, 64  # how many are remembered, of how many characters
_SMALL = 256 << 10  # bytes scanned before the larger automaton is worth its making
_ANCHOR = 8  # characters of an exact secret in the automaton: it stays small, the rest is compared


class Rules:
    """Everything to look for, compiled once.

    Args:
        secrets: texts to mask wherever they stand, by the name to show for them.
        rules: patterns; by default the built-in ones.
        operator: an operator's own patterns, whose matches may grow while text arrives.
        exceptions: texts that are never masked, though a rule matches where they begin.
    """

    def __init__(
        self,
        secrets: Mapping[str, Iterable[str]] | None = None,
        *,
        rules: Sequence[Rule] = BUILT_IN,
        operator: Sequence[Rule] = (),
        exceptions: Iterable[str] = (),
    ) -> None:
        from ahocorasick_rs import BytesAhoCorasick, Implementation

        excepted = tuple(exceptions)
        table: dict[str, list[Matcher]] = {}
        public: dict[str, None] = {}
        exact: dict[str, Matcher] = {}
        for (name, anchor), literals in _by_anchor(secrets or {}).items():
            matcher: Matcher = ExactMatcher(name, tuple(literals), len(exact))
            table.setdefault(anchor, []).append(matcher)
            exact.update((anchor[:length], matcher) for length in range(1, len(anchor)))
        first = len(exact)
        for order, rule in enumerate((*operator, *rules), first):
            grows = order - first < len(operator)
            rank = order + VAGUE * rule.vague
            matcher = RuleMatcher(rule, rank, excepted, grows=grows)
            for anchor in rule.anchors:
                table.setdefault(anchor, []).append(matcher)
                # A label is no part of the secret: the context a stream keeps is enough for it.
                if rule.lead is None:
                    public.update((anchor[:length], None) for length in range(1, len(anchor)))
        self._matchers = [tuple(matchers) for matchers in table.values()]
        self._needs = [
            (index, needed.pop())
            for index, matchers in enumerate(self._matchers)
            if len(needed := {_needs(matcher) for matcher in matchers} - {""}) == 1
            and all(map(_needs, matchers))
        ]
        self._special = len(table)
        self._public = _by_ending(public)
        self._exact = _by_ending(exact)
        self._lasts = {prefix[-1] for prefix in (*public, *exact)}
        self._patterns = [word.encode() for word in (*table, *SPECIAL)]
        self._find = BytesAhoCorasick(
            self._patterns, implementation=Implementation.ContiguousNFA
        ).find_matches_as_indexes
        self._left = _SMALL
        self._clean: set[str] = set()

    def take_over(self, other: Rules) -> None:
        """Look for what other rules look for from now on, wherever these are in use.

        Args:
            other: rules that are not used any more.
        """
        self.__dict__.update(other.__dict__)

    def _grow(self) -> None:
        """Take the automaton that scans twice as fast, now that there is much to scan."""
        from ahocorasick_rs import BytesAhoCorasick, Implementation

        # Building it takes 5 ms, which no start of a kernel should wait for.
        self._left = 1 << 62
        self._find = BytesAhoCorasick(
            self._patterns, implementation=Implementation.DFA
        ).find_matches_as_indexes

    def scan(self, text: str) -> list[tuple[int, int, int]] | None:
        """Return ``(pattern, start, end)`` of each hit in characters; ``None``: split it first.

        Args:
            text: without lone surrogates.
        """
        data = text.encode()
        self._left -= len(data)
        if self._left < 0:
            self._grow()
        hits = self._find(data, overlapping=True)
        if not hits:
            return hits
        special = self._special
        for hit in hits:
            if hit[0] >= special:
                return None
        return hits if len(data) == len(text) else _in_characters(data, hits)

    def is_clean(self, name: str) -> bool:
        """Whether nothing in a short text could be part of a secret or of what labels one.

        Remembered for the names that the same few kinds of messages have again and again.
        """
        if name in self._clean:
            return True
        try:
            clean = self.scan(name) == []
        except UnicodeEncodeError:
            return False
        if clean and len(self._clean) < _NAMES and len(name) <= _NAME:
            self._clean.add(name)
        return clean

    def judge(
        self, text: str, hits: Iterable[tuple[int, int, int]], skip: int = 0
    ) -> tuple[list[Span], list[Pending]]:
        """Return the secrets and the candidates among some hits.

        Args:
            text: what the hits were found in.
            hits: from ``scan``.
            skip: hits that start before this index have been judged already.
        """
        spans: list[Span] = []
        pending: list[Pending] = []
        matchers = self._matchers
        last = {index: text.rfind(character) for index, character in self._needs}
        near = len(text) - LIMIT
        for index, start, end in hits:
            if start < skip or (index in last and last[index] < start < near):
                continue
            for matcher in matchers[index]:
                verdict = matcher.judge(text, start, end)
                if verdict is None:
                    continue
                if isinstance(verdict, Span):
                    spans.append(verdict)
                else:
                    pending.append(verdict)
        return spans, pending

    def beginnings(self, text: str) -> list[Pending]:
        """Return the ends of a text that may be the beginning of an anchor."""
        found: list[Pending] = []
        end = len(text)
        last = text[-1:]
        if last not in self._lasts:
            return found
        for key in (text[-2:], last):
            for prefix, _ in self._public.get(key, ()):
                if text.endswith(prefix):
                    start = end - len(prefix)
                    found.append(Pending(start, start, False, None))
            for prefix, matcher in self._exact.get(key, ()):
                if text.endswith(prefix):
                    start = end - len(prefix)
                    found.append(Pending(start, start, len(prefix) > SHOWN, matcher))
        return found


def _needs(matcher: Matcher) -> str:
    return matcher.rule.needs if isinstance(matcher, RuleMatcher) else ""


def _by_anchor(secrets: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], list[str]]:
    grouped: dict[tuple[str, str], list[str]] = {}
    for name, literals in secrets.items():
        for literal in literals:
            grouped.setdefault((name, literal[:_ANCHOR]), []).append(literal)
    return grouped


def _by_ending(prefixes: Mapping[str, Value]) -> dict[str, tuple[tuple[str, Value], ...]]:
    """Return the prefixes by their last two characters (or the only one), for a cheap look-up."""
    index: dict[str, list[tuple[str, Value]]] = {}
    for prefix, value in prefixes.items():
        index.setdefault(prefix[-2:], []).append((prefix, value))
    return {key: tuple(bucket) for key, bucket in index.items()}


def _in_characters(data: bytes, hits: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Turn byte offsets into character offsets, decoding once from hit to hit."""
    marks = sorted({offset for _, start, end in hits for offset in (start, end)})
    characters: dict[int, int] = {}
    position = count = 0
    for mark in marks:
        count += len(data[position:mark].decode())
        characters[mark] = count
        position = mark
    return [(index, characters[start], characters[end]) for index, start, end in hits]
