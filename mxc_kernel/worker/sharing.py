"""Notices arrays that share memory, which each get memory of their own when they are carried."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["shared_memory"]


def shared_memory(values: Mapping[str, Any]) -> dict[str, str]:
    """Return a note for each numpy array that is a view of another named array's memory.

    Args:
        values: what is carried, by name; only arrays that have a name themselves are looked at.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return {}
    owners: dict[int, str] = {}
    notes: dict[str, str] = {}
    for name, value in values.items():
        if not isinstance(value, numpy.ndarray):
            continue
        owner = value
        while isinstance(owner.base, numpy.ndarray):
            owner = owner.base
        first = owners.setdefault(id(owner), name)
        if first != name and values[first] is not value:
            notes[name] = f"no longer shares its memory with {first}"
    return notes
