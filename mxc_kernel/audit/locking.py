"""Locks on files, which end with the process that holds them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["held", "take"]

_BEHIND = 1 << 30  # Windows lets nobody read what is locked, so a byte behind the file's end is


def take(fd: int, *, wait: bool = False) -> bool:
    """Take the lock on an open file; it is given back when the file is closed.

    Args:
        fd: the file.
        wait: whether to wait for whoever has it; else false is returned.
    """
    try:
        _lock(fd, wait=wait)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def held(path: str) -> Iterator[None]:
    """Wait for the lock of a file, made if it is not there, and hold it.

    Raises:
        OSError: the file cannot be opened.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        _lock(fd, wait=True)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, *, wait: bool) -> None:
    if sys.platform == "win32":
        os.lseek(fd, _BEHIND, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
