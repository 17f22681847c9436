"""From what a person writes to the one absolute path that is meant."""

from __future__ import annotations

import errno
import os

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy.access import NATIVE

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
        SandboxPolicyError: the path is empty, cannot be expanded, runs in a circle of symlinks, or
            holds a character that the sandbox executable cannot be given.
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
        real = os.path.realpath(expanded)
    return NATIVE.normal(real)


def _refuse_characters(path: str) -> None:
    if not path:
        raise SandboxPolicyError("The path is empty.", remedy="Name a file or folder.")
    # The executable rejects both characters, and JSON cannot carry a name that is not UTF-8.
    if '"' in path or "\0" in path or any("\ud800" <= char <= "\udfff" for char in path):
        raise SandboxPolicyError(
            f"{path!r} holds a quotation mark, a NUL or bytes that are not UTF-8",
            remedy="Rename the file or folder, or name the folder above it.",
        )


def symlinks(path: str) -> tuple[str, ...]:
    """Return where the symlinks lie that an absolute path goes through, each as a canonical path.

    Whoever may write there decides what the path means.
    """
    found: list[str] = []
    drive, rest = os.path.splitdrive(path)
    at = drive + os.sep
    pending = rest.split(os.sep)[::-1]
    # Forty is where Linux gives up, so that a circle ends.
    while pending and len(found) < 40:
        name = pending.pop()
        if name in ("", ".", ".."):
            at = os.path.dirname(at) if name == ".." else at
            continue
        step = os.path.join(at, name)
        if not os.path.islink(step):
            at = step
            continue
        found.append(step)
        target = os.readlink(step)
        if os.path.isabs(target):
            at = os.path.splitdrive(target)[0] + os.sep
        pending.extend(target.split(os.sep)[::-1])
    return tuple(found)
