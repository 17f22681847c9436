"""Limits on what cells use and show: asked for by magics, never beyond the ceiling's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.magics.outcome import MagicContext, Outcome
from mxc_kernel.magics.usage import count
from mxc_kernel.policy import Exceeded, Request
from mxc_kernel.policy.quantities import format_duration, parse_duration, parse_size
from mxc_kernel.views import limits_view, size_text

__all__ = ["limits", "limits_named", "timeout", "with_limits"]


def timeout(given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """Limit the time of a cell, or show the limits."""
    asked = {} if given["duration"] is None else {"cell_timeout": parse_duration(given["duration"])}
    return _set_limits(asked, outcome, context)


def limits(given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """Lower limits, or show them."""
    return _set_limits(limits_named(given), outcome, context)


def _set_limits(asked: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    request = with_limits(asked, outcome.request, context)
    return replace(outcome, request=request).show(limits_view(context.ceiling.clamp(request)))


def limits_named(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits that a call names, under the names that `Limits` has for them."""
    readers: dict[str, tuple[str, Callable[[str], Any]]] = {
        "timeout": ("cell_timeout", parse_duration),
        "cpu": ("cpu_time", parse_duration),
        "memory": ("memory", parse_size),
        "processes": ("processes", count),
        "open_files": ("open_files", count),
        "file_size": ("file_size", parse_size),
        "scratch": ("scratch_space", parse_size),
        "scratch_files": ("scratch_files", count),
        "added": ("grant_space", parse_size),
        "added_files": ("grant_files", count),
        "output": ("output", parse_size),
        "rich": ("rich_output", parse_size),
        "single": ("single_output", parse_size),
        "outputs": ("outputs", count),
        "rate": ("output_rate", count),
        "total": ("session_output", parse_size),
        "exceeded": ("output_exceeded", lambda text: Exceeded[text.upper()]),
    }
    return {
        field: read(given[name])
        for name, (field, read) in readers.items()
        if given.get(name) is not None
    }


_AMOUNT_WORDS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("cell_timeout", "cpu_time"), format_duration),
    **dict.fromkeys(("memory", "file_size", "scratch_space", "grant_space"), size_text),
    **dict.fromkeys(("output", "rich_output", "single_output", "session_output"), size_text),
    "output_exceeded": lambda exceeded: exceeded.name.lower(),
}


def with_limits(limits: Mapping[str, Any], request: Request, context: MagicContext) -> Request:
    """Ask for limits; they may be lower than the ceiling's or equal, never higher.

    Raises:
        SandboxPolicyError: a limit is beyond the ceiling's, or beyond what the session gave up.
    """
    most = context.ceiling.policy.meet(request.narrowed).limits
    for name, value in limits.items():
        highest = getattr(most, name)
        if highest is not None and (value is None or value > highest):
            words = _AMOUNT_WORDS.get(name, str)
            raise SandboxPolicyError(
                f"{name}: {words(value)} was asked for, the ceiling holds {words(highest)}.",
                remedy=f"Ask for {words(highest)} or less; only the operator can raise {name}, "
                "under [limits] in the ceiling file (%ceiling names it).",
            )
    return request.with_limits(**limits)
