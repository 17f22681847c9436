"""Whether anyone but a file's rightful owner could change what stands at a path."""

from __future__ import annotations

import os
import stat

from mxc_kernel.errors import SandboxUntrustedBinaryError

__all__ = ["check_owned"]

_MAX_LINKS = 40  # as many as Linux follows


def check_owned(path: str, *, owner: int = 0, root: str = "/") -> None:
    """Refuse a program if anyone but ``owner`` could replace it, at any step on the way to it.

    A step is each folder, each symbolic link and the file. A sticky folder such as ``/tmp`` is no
    exception: others can create there what is missing.

    Args:
        path: absolute path of the program.
        owner: the uid that every step must belong to; root.
        root: where the walk begins. What lies above is taken on trust, links may not leave it.

    Raises:
        SandboxUntrustedBinaryError: naming the step.
    """
    steps = _components(path, root)
    current, links = root, 0
    _check_step(path, current, owner)
    while steps:
        current = os.path.join(current, steps.pop(0))
        if not _check_step(path, current, owner):
            continue
        links += 1
        if links > _MAX_LINKS:
            raise _replaceable(path, "it is a loop of links")
        target = os.path.join(os.path.dirname(current), os.readlink(current))
        # normpath only after a check of every step so far: none of them is a link any more.
        steps = _components(os.path.normpath(os.path.join(target, *steps)), root)
        current = root
    if not stat.S_ISREG(os.lstat(current).st_mode):
        raise _replaceable(path, "it is not a regular file")


def _components(path: str, root: str) -> list[str]:
    relative = os.path.relpath(path, root)
    if relative.split(os.sep)[0] == os.pardir:
        raise _replaceable(path, f"it leads out of {root}")
    return relative.split(os.sep)


def _check_step(path: str, step: str, owner: int) -> bool:
    """Check one step; return whether it is a link that has to be followed."""
    try:
        status = os.lstat(step)
    except OSError as error:
        raise _replaceable(path, f"{step}: {error.strerror}") from None
    if status.st_uid != owner:
        raise _replaceable(path, f"{step} belongs to uid {status.st_uid}")
    if stat.S_ISLNK(status.st_mode):
        return True
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _replaceable(path, f"{step} is writable by others")
    return False


def _replaceable(path: str, reason: str) -> SandboxUntrustedBinaryError:
    return SandboxUntrustedBinaryError(
        f"{path} cannot be trusted: {reason}",
        remedy="Reinstall it from the system's packages, owned by root and writable by root alone.",
    )
