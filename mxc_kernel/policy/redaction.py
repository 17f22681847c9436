"""What operators add to the redaction of output; layers can only make it hide more."""

from __future__ import annotations

from typing import Any

from mxc_kernel.records import record

__all__ = ["Redaction"]


@record
class Redaction:
    """What is hidden besides what always is, and what of it is not. A session cannot change it.

    The defaults are what holds where nobody says anything: nothing more, and no exception. Values
    that are alike whatever order they are met in, as everywhere in a policy.

    Args:
        literals: texts to hide wherever they stand. They may be secrets, so they are never shown,
            logged or part of a digest.
        patterns: names and regular expressions.
        exceptions: texts that are shown though a rule or pattern matches them, never though a
            literal does; None is all, for files that have no say in it.
    """

    literals: frozenset[str] = frozenset()
    patterns: frozenset[tuple[str, str]] = frozenset()
    exceptions: frozenset[str] | None = frozenset()

    def __repr__(self) -> str:
        return f"Redaction({self.plain()})"  # without the literals

    @classmethod
    def top(cls) -> Redaction:
        """Return what hides least: the identity of `meet`. Never in force by itself."""
        return cls(exceptions=None)

    def meet(self, other: Redaction) -> Redaction:
        """Hide what either hides, and except only what both except."""
        mine, theirs = self.exceptions, other.exceptions
        both = theirs if mine is None else mine if theirs is None else mine & theirs
        return Redaction(self.literals | other.literals, self.patterns | other.patterns, both)

    def __le__(self, other: Redaction) -> bool:
        return self.meet(other) == self

    def plain(self) -> dict[str, Any]:
        """Return JSON-able data in one fixed form; of the literals only how many there are."""
        return {
            "literals": len(self.literals),
            "patterns": [list(pattern) for pattern in sorted(self.patterns)],
            "exceptions": None if self.exceptions is None else sorted(self.exceptions),
        }
