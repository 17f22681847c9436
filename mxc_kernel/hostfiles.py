"""Looking at files in folders that a sandbox may write, without being led astray by it."""

from __future__ import annotations

import os

__all__ = ["exists_unlinked"]


def exists_unlinked(path: str) -> bool:
    """Whether a path exists, with no symbolic link anywhere in it.

    Following a link that code in the sandbox planted would tell it what exists elsewhere.

    Args:
        path: absolute path.
    """
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open("/", flags | os.O_DIRECTORY)
    try:
        for name in path.strip("/").split("/"):
            # A link opened with O_PATH and O_NOFOLLOW is no folder, so the next step fails.
            below = os.open(name or ".", flags, dir_fd=folder)
            os.close(folder)
            folder = below
    except OSError:
        return False
    finally:
        os.close(folder)
    return True
