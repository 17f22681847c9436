"""Looking at files in folders that a sandbox may write, without being led astray by it."""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["exists_unlinked", "open_unlinked"]


def exists_unlinked(path: str) -> bool:
    """Whether a path exists, with no symbolic link anywhere in it.

    Following a link that code in the sandbox planted would tell it what exists elsewhere.

    Args:
        path: absolute path.
    """
    try:
        os.close(_reached(path))
    except OSError:
        return False
    return True


def open_unlinked(path: str) -> int:
    """Open a folder or file for reading, with no symbolic link anywhere in its path.

    Args:
        path: absolute path.

    Raises:
        OSError: it is not there, is a link, or cannot be read.
    """
    reached = _reached(path)
    try:
        if stat.S_ISLNK(os.fstat(reached).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        # The very object: what the path leads to may be another by now.
        return os.open(f"/proc/self/fd/{reached}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(reached)


def _reached(path: str) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open("/", flags | os.O_DIRECTORY)
    try:
        for name in path.strip("/").split("/"):
            # A link opened with O_PATH and O_NOFOLLOW is no folder, so the next step fails.
            below = os.open(name or ".", flags, dir_fd=folder)
            os.close(folder)
            folder = below
    except OSError:
        os.close(folder)
        raise
    return folder
