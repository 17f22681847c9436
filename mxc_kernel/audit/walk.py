"""Follows one chain through its files, and says where it does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from mxc_kernel.audit.chain import START, Chain, Head

__all__ = ["BrokenChainError", "Walk"]


class BrokenChainError(Exception):
    """A line is not what it has to be; what follows it cannot be judged."""


class Walk:
    """One walk along a chain.

    Args:
        chain_of: returns how a line was linked, by its fields; None where that needs a key.
        problem: returns what is wrong with a line's fields; None if nothing is.
        watched: digests that were kept elsewhere, by the number of lines up to them.

    Attributes:
        head: the last line that holds.
        first: digest of the first line.
        fragment: bytes of an unfinished line at the end.
        mismatches: those of the watched numbers whose line is another.
    """

    def __init__(
        self,
        chain_of: Callable[[Mapping[str, Any]], Chain | None],
        problem: Callable[[bytes], str | None],
        watched: Mapping[int, str],
    ) -> None:
        self.head = Head()
        self.first = ""
        self.fragment = 0
        self.mismatches: set[int] = set()
        self._chain_of = chain_of
        self._problem = problem
        self._watched = watched
        self._last: bytes | None = None

    def lines(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the fields of each line that holds.

        Args:
            paths: the chain's files, in order.

        Raises:
            BrokenChainError: a line does not hold.
            OSError: a file cannot be read.
        """
        for path in paths:
            with open(path, "rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        if path != paths[-1]:
                            raise BrokenChainError(f"line {self.head.length} is not finished")
                        self.fragment = len(line)
                        return
                    yield self._step(line[:-1])

    def _step(self, line: bytes) -> dict[str, Any]:
        number = self.head.length
        if problem := self._problem(line):
            raise BrokenChainError(f"line {number} is not as the schema has it: {problem}")
        fields: dict[str, Any] = orjson.loads(line)
        chain = self._chain_of(fields)
        if chain is None:
            raise BrokenChainError(
                f"line {number} was made with a key, which is needed to check it"
            )
        before = START if self._last is None else chain.digest(self._last)
        if fields["n"] != number or fields["prev"] != before:
            raise BrokenChainError(f"line {number} does not follow from the one before it")
        self._last = line
        self.head = Head(number + 1, chain.digest(line))
        self.first = self.first or self.head.digest
        expected = self._watched.get(number + 1)
        if expected is not None and expected != self.head.digest:
            self.mismatches.add(number + 1)
        return fields
