"""From what a person writes to the one absolute path that is meant."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable
from types import ModuleType

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy.access import NATIVE, PathStyle

__all__ = ["canonical", "symlinks"]


def canonical(path: str, *, base: str | None) -> str:
    """Return the absolute path without symlinks, ``~`` and ``..`` that a path means right now.

    Containment is only ever checked on such paths: ``..`` and symlinks both lead around a check on
    the text. What a path means can change after the call, so the session resolves again at launch.

    Args:
        path: absolute, relative to `base`, or starting with ``~``. It need not exist. Nothing else
            is
            expanded: no variables, no patterns.
        base: an absolute folder that relative paths start from; None refuses them.

    Raises:
        SandboxPolicyError: the path is empty, cannot be expanded, runs in a circle of symlinks,
            holds a character that the sandbox executable cannot be given, or changes meanwhile.
    """
    _refuse_characters(path)
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise SandboxPolicyError(
            f"{path!r}: there is no such home folder", remedy="Write the path out in full."
        )
    if not os.path.isabs(expanded):
        if base is None:
            raise SandboxPolicyError(
                f"{path!r} is not an absolute path",
                remedy="Write the path out in full, or start it with ~/.",
            )
        expanded = os.path.join(base, expanded)
    try:
        real = os.path.realpath(expanded, strict=True)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SandboxPolicyError(
                f"{path!r} is a symlink that leads back to itself",
                remedy="Remove the symlink or name the folder that is meant.",
            ) from None
        # Missing, or not ours to look into: what can be resolved is, and the launch finds out.
        real = _resolved(expanded)
        refuse_short_names(real)
    return NATIVE.normal(real)


def refuse_short_names(path: str, style: PathStyle = NATIVE) -> None:
    """Refuse a missing path with a short name (8.3) in it.

    The real path of a file that is there has the long names. Of one that is not, nobody can tell
    which longer name is meant, and the rules on that one would not be found.

    Raises:
        SandboxPolicyError: it has one.
    """
    if style.has_short_name(path):
        raise SandboxPolicyError(
            f"{path!r} may be the short form of another name, and it does not exist",
            remedy="Write the names out in full.",
        )


def _resolved(path: str) -> str:
    """Return what can be resolved of a path.

    Raises:
        SandboxPolicyError: a symlink in it was removed between two looks; only then realpath fails.
    """
    try:
        return os.path.realpath(path)
    except OSError:
        raise SandboxPolicyError(
            f"{path!r} changes while it is being looked at",
            remedy="Run the cell again when nothing works in that folder any more.",
        ) from None


def _refuse_characters(path: str) -> None:
    if not path:
        raise SandboxPolicyError("The path is empty.", remedy="Name a file or folder.")
    # The executable rejects both characters, and JSON cannot carry a name that is not UTF-8.
    if '"' in path or "\0" in path or any("\ud800" <= char <= "\udfff" for char in path):
        raise SandboxPolicyError(
            f"{path!r} holds a quotation mark, a NUL or bytes that are not UTF-8",
            remedy="Rename the file or folder, or name the folder above it.",
        )


def symlinks(
    path: str, style: PathStyle = NATIVE, readlink: Callable[[str], str] = os.readlink
) -> tuple[str, ...]:
    """Return where the links lie that an absolute path goes through, each as a canonical path.

    Whoever may write there decides what the path means. On Windows junctions and mount points are
    such links, though ``os.path.islink`` does not call them so.

    Args:
        path: an absolute path.
        style: how it is written.
        readlink: returns a link's target, and raises OSError for what is no link.
    """
    system = _spelling(style)
    found: list[str] = []
    at, pending = _anchored(path, system.sep)
    # Forty is where Linux gives up, so that a circle ends.
    while pending and len(found) < 40:
        name = pending.pop()
        if name in ("", ".", ".."):
            at = system.dirname(at) if name == ".." else at
            continue
        step = system.join(at, name)
        try:
            target = readlink(step)
        except OSError:
            at = step
            continue
        found.append(step)
        target = _without_prefix(target) if style is PathStyle.WINDOWS else target
        if system.isabs(target) or system.splitdrive(target)[0]:
            at, further = _anchored(target, system.sep, drive_of=at)
        else:
            further = target.replace("/", system.sep).split(system.sep)[::-1]
        pending.extend(further)
    return tuple(found)


def _spelling(style: PathStyle) -> ModuleType:
    """Return the module of the standard library that takes a system's paths apart."""
    if style is not PathStyle.WINDOWS:
        return posixpath
    import ntpath  # not loaded on Linux

    return ntpath


def _anchored(path: str, sep: str, drive_of: str = "") -> tuple[str, list[str]]:
    """Split an absolute path into its root and its names, the last one first."""
    if sep == "/":
        return "/", path.split("/")[::-1]
    import ntpath

    drive, rest = ntpath.splitdrive(path.replace("/", "\\"))
    # A target such as \\Windows is on the drive of the link.
    return (drive or ntpath.splitdrive(drive_of)[0]) + "\\", rest.split("\\")[::-1]


def _without_prefix(target: str) -> str:
    r"""Take off the ``\\?\`` with which Windows tells a junction's target."""
    if target[:8].upper() == "\\\\?\\UNC\\":
        return "\\\\" + target[8:]
    return target.removeprefix("\\\\?\\").removeprefix("\\??\\")
