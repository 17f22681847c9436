"""The magics that ask for files: from here on, for one cell, or for a sandbox of the cell's own.

Every path is canonical before anything is compared, and each is checked alone: what the session
holds already must not widen what is asked now.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from keyword import iskeyword
from typing import Any

from mxc_kernel.denials import magic_line, operator_remedy
from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.hostfiles import exists_unlinked
from mxc_kernel.magics.limits import limits_named, with_limits
from mxc_kernel.magics.outcome import MagicContext, Outcome, Throwaway
from mxc_kernel.magics.usage import UsageError
from mxc_kernel.policy import NATIVE, Access, Policy, Request, canonical
from mxc_kernel.views import declared_view, grants_view, throwaway_view, visible

__all__ = [
    "allow_ro",
    "allow_ro_here",
    "allow_rw",
    "allow_rw_here",
    "declare",
    "revoke",
    "throwaway",
]

_RELAUNCH = "Names are carried into a new sandbox; threads, widgets and debug sessions end."
_RELAUNCH_TWICE = (
    "The sandbox is replaced before this cell and again before the next one: names are carried, "
    "threads, widgets and debug sessions end."
)


def allow_ro(given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """Ask for reading paths."""
    return _allow(given, Access.READONLY, outcome, context)


def allow_rw(given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """Ask for reading and writing paths."""
    return _allow(given, Access.READWRITE, outcome, context)


def allow_ro_here(given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """Ask for reading paths in this cell."""
    return _allow_here(given, Access.READONLY, outcome, context)


def allow_rw_here(given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """Ask for reading and writing paths in this cell."""
    return _allow_here(given, Access.READWRITE, outcome, context)


def _allow(
    given: Mapping[str, Any], access: Access, outcome: Outcome, context: MagicContext
) -> Outcome:
    before = context.ceiling.clamp(outcome.request)
    request, paths = _asked(given["paths"], access, outcome.request, context)
    effective = context.ceiling.clamp(request)
    note = _RELAUNCH if effective != before else ""
    view = grants_view(f"Granted: {access.words}", paths, effective, note=note)
    return replace(outcome, request=request, strict=outcome.strict or given["strict"]).show(view)


def _allow_here(
    given: Mapping[str, Any], access: Access, outcome: Outcome, context: MagicContext
) -> Outcome:
    before = context.ceiling.clamp(outcome.request)
    request, paths = _asked(given["paths"], access, outcome.request, context)
    effective = context.ceiling.clamp(request)
    view = grants_view(
        f"Granted for this cell only: {access.words}",
        paths,
        effective,
        when="in this cell",
        note=_RELAUNCH_TWICE if effective != before else "",
    )
    return replace(outcome, this_cell=request, strict=outcome.strict or given["strict"]).show(view)


def throwaway(given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """Have this cell run in a sandbox of its own, with the grants named and no others."""
    if given["objects"] and not (given["in"] or given["out"]):
        raise UsageError("--objects goes with --in or --out")
    # What the session gave up for good holds here too; what it was granted does not.
    request = Request(limits=outcome.request.limits, narrowed=outcome.request.narrowed)
    request, _ = _asked(given["ro"], Access.READONLY, request, context)
    request, _ = _asked(given["rw"], Access.READWRITE, request, context)
    request = with_limits(limits_named(given), request, context)
    own = Throwaway(request, _names(given["in"]), _names(given["out"]), given["objects"])
    return replace(outcome, throwaway=own).show(
        throwaway_view(
            context.ceiling.clamp(request), own.names_in, own.names_out, objects=own.objects
        )
    )


def _names(words: Sequence[str]) -> tuple[str, ...]:
    """Read names of variables, which commas and blanks may separate.

    Raises:
        UsageError: a word is no name, or one that Python itself uses.
    """
    names = [name for word in words for name in word.split(",") if name]
    if words and not names:
        raise UsageError("no name is given")
    for name in names:
        if not name.isidentifier() or iskeyword(name) or name.startswith("__"):
            raise UsageError(f"{visible(name)!r} is no name of a variable that can be copied")
    return tuple(dict.fromkeys(names))


def revoke(given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """Give paths back."""
    paths = [canonical(word, base=context.notebook_dir) for word in given["paths"]]
    request = outcome.request
    for path in paths:
        request = request.revoke(path)
    # A title without this would suggest that what was read before is forgotten.
    title = "Revoked (what was read before stays in memory)"
    effective = context.ceiling.clamp(request)
    changed = effective != context.ceiling.clamp(outcome.request)
    view = grants_view(title, paths, effective, note=_RELAUNCH if changed else "")
    return replace(outcome, request=request, strict=outcome.strict or given["strict"]).show(view)


def declare(given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """Ask for all that a notebook needs; what the ceiling does not hold is told, not refused."""
    asked = [
        *((word, Access.READONLY) for word in given["ro"]),
        *((word, Access.READWRITE) for word in given["rw"]),
    ]
    if not asked:
        raise UsageError("name what is needed with --ro and --rw")
    ignored = context.ceiling.requests == "none"
    request = outcome.request
    shown: list[tuple[str, Access, str]] = []
    for word, access in asked:
        path = canonical(word, base=context.notebook_dir)
        written = _written(word, context)
        # A link may not tell of what lies beyond the ceiling, so it has to lead to what it holds.
        if path != written and context.ceiling.holds(path) is Access.NONE:
            shown.append((written, access, "not granted"))
        elif context.ceiling.holds(path) and not exists_unlinked(path):
            shown.append((path, access, "not granted: it does not exist"))
        else:
            # What may not be named stays as it is inside a larger grant.
            named = min(access, context.ceiling.places.by_name(path))
            request = request if ignored else request.allow(path, named)
            shown.append((path, access, ""))
    before, effective = (context.ceiling.clamp(each) for each in (outcome.request, request))
    rows = tuple(
        (path, access.words, missing or _granted_words(path, access, effective))
        for path, access, missing in shown
    )
    note = _RELAUNCH if effective != before else ""
    view = declared_view(rows, ignored=ignored, note=note)
    return replace(outcome, request=request).show(view)


def _granted_words(path: str, asked: Access, effective: Policy) -> str:
    """Say what is in force of one request, here or further down."""
    files = effective.filesystem
    granted = files.access(path)
    inside = [grant for grant, access in files.grants if access and NATIVE.within(grant, path)]
    if granted is Access.NONE:
        return f"only {', '.join(inside)}" if inside else "not granted"
    return granted.words if granted >= asked else f"only {granted.words}"


def _asked(
    words: Sequence[str], access: Access, request: Request, context: MagicContext
) -> tuple[Request, list[str]]:
    """Ask for paths; return the request and the canonical paths.

    Raises:
        SandboxPolicyError: a path is beyond the ceiling, was given up, or does not exist.
    """
    paths = []
    for word in words:
        path = canonical(word, base=context.notebook_dir)
        _check_ceiling(word, path, access, context)
        _check_narrowed(path, access, request)
        _check_exists(path, access, context)
        request = request.allow(path, access)
        paths.append(path)
    return request, paths


def _written(word: str, context: MagicContext) -> str:
    """Return the path as it was written, absolute, without looking where links lead."""
    return os.path.normpath(os.path.join(context.notebook_dir or "/", os.path.expanduser(word)))


def _check_ceiling(word: str, path: str, access: Access, context: MagicContext) -> None:
    """Refuse a path that the ceiling does not hold.

    Args:
        word: the path as it was written.
        path: the same, canonical.
        access: what is asked for.
        context: holds the ceiling.

    Raises:
        SandboxPolicyError: says what was asked, what the ceiling holds, and who can change that.
    """
    ceiling = context.ceiling
    try:
        # Alone: what was granted before has been checked, and must not widen what is asked now.
        ceiling.check(Request().allow(path, access))
    except SandboxPolicyError as error:
        written = _written(word, context)
        if written == path:
            if ceiling.requests == "none" or ceiling.policy.filesystem.access(path) >= access:
                raise  # no key of a file would help; the ceiling has said what is in the way
            remedy = operator_remedy(ceiling, path, access)
            raise SandboxPolicyError(error.message, remedy=remedy) from None
        # Naming where a symlink leads would tell the notebook about files beyond the ceiling.
        held = ceiling.holds(written)
        link = ", but a symbolic link leads out of that" if held >= access else ""
        raise SandboxPolicyError(
            f"{visible(written)}: {access.words} was asked for, "
            f"the ceiling holds {held.words}{link}",
            remedy=operator_remedy(ceiling, path, access),
        ) from None


def _check_narrowed(path: str, access: Access, request: Request) -> None:
    """Refuse what the session gave up itself.

    Raises:
        SandboxPolicyError: ``%ceiling`` has narrowed the path since the kernel started.
    """
    if request.narrowed.filesystem.access(path) < access:
        raise SandboxPolicyError(
            f"{visible(path)}: {access.words} was given up in this session with %ceiling.",
            remedy="What %ceiling gives up comes back when the kernel restarts.",
        )


def _check_exists(path: str, access: Access, context: MagicContext) -> None:
    """Refuse a missing path, for which MXC would refuse to start at all.

    Only asked about paths within the ceiling, so that it tells nothing about others.

    Raises:
        SandboxPolicyError: there is nothing at the path; names the nearest folder to grant instead.
    """
    if exists_unlinked(path):
        return
    folder, line = os.path.dirname(path), None
    while context.ceiling.holds(folder) >= access and folder != os.path.dirname(folder):
        if exists_unlinked(folder):
            line = magic_line(access, folder)
            break
        folder = os.path.dirname(folder)
    raise SandboxPolicyError(
        f"{visible(path)} does not exist, and only what exists can be granted.",
        remedy=f"Create it first, or grant the folder it is to be in: {line}"
        if line
        else "Create it outside the notebook first.",
    )
