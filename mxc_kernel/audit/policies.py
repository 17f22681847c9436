"""Hashes of policies and ceilings, worked out once for each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import orjson

from mxc_kernel.policy import Ceiling, Policy

__all__ = ["Policies"]

_REMEMBERED = 64


class Policies:
    """Remembers what the policies of a session come to: the same few objects come again and again.

    A policy's hash is over what is recorded of it, so that it can be worked out from the records.
    """

    def __init__(self) -> None:
        # By identity, with the object itself so that its id is not given to another.
        self._known: dict[tuple[int, str], tuple[Policy, str, dict[str, Any]]] = {}
        self._ceiling: tuple[Ceiling, str] | None = None

    def describe(
        self, policy: Policy, label: Callable[[str], str], paths: str
    ) -> tuple[str, dict[str, Any]]:
        """Return a policy's hash, as hexadecimal digits, and what is recorded of it.

        Args:
            policy: it.
            label: how a path is recorded.
            paths: what tells that apart from other ways.
        """
        key = (id(policy), paths)
        found = self._known.get(key)
        if found is None:
            plain = policy.plain()
            plain["filesystem"] = {label(p): access for p, access in plain["filesystem"].items()}
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[key] = (policy, digest(plain), plain)
        return found[1], found[2]

    def ceiling(self, ceiling: Ceiling) -> str:
        """Return a ceiling's hash."""
        if self._ceiling is None or self._ceiling[0] is not ceiling:
            self._ceiling = (ceiling, ceiling.digest)
        return self._ceiling[1]


def digest(plain: dict[str, Any]) -> str:
    """Return the hash of what is recorded of a policy, as hexadecimal digits."""
    return hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()
