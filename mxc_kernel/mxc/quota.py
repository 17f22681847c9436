"""How much a session has added to a writable grant.

Nobody counts that for us: a grant is a folder among others on a file system of the host's. A walk
through it costs much and is rarely needed. So what is watched is how much room the file system has
lost, which costs a microsecond, and only when the quota could be used up by that, the grant is
walked through: what was changed since the session began counts, as no program can turn a file's
ctime back. The walk follows no symbolic link, stays on the file system, and is done in portions.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Added", "Quota"]

# Nobody needs more. Where they are exceeded, all the room that the file system lost counts.
_DEEPEST = 100  # folders in folders
_WAITING = 100_000  # folders found and not looked into yet; their names lie in the host's memory
_BLOCK = 512  # bytes; st_blocks is in these whatever the file system (stat(2))
_AGAIN = 1 << 20, 1_000  # bytes and files lost between two walks once a quota is used up
_PORTION = 64  # entries looked at between two looks at the clock


@dataclass
class Added:
    """What was added to a grant, or the most that may be.

    Attributes:
        space: bytes; None for no limit.
        files: files and folders; None for no limit.
    """

    space: int | None = 0
    files: int | None = 0


class Quota:
    """What a session adds to one grant.

    Args:
        path: the grant, a folder or file, as the host has it.
        opened: opens a path without following a symbolic link.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str, opened: Callable[[str], int]) -> None:
        self.path = path
        self._fd = opened(path)
        self._since = time.time()
        self._before = os.fstat(self._fd).st_blocks  # of a grant that is a file
        self._room = self._free()
        self._lost = [0, 0]
        self._found = [0, 0]  # by the last walk
        self._count = [0, 0]  # by the present one so far
        self._walked_at = [0, 0]  # what was lost by then
        self._told = [0, 0]  # what the last crossing was told for
        self._walk: Iterator[None] | None = None

    def over(self, most: Added, budget: float, unlinked: Callable[[int], int | None]) -> str:
        """Say which limit the session has passed since this was said last.

        Args:
            most: the limits.
            budget: seconds that a walk may go on for now.
            unlinked: tells of a device how many bytes the sandbox has in files without a name; None
                where it cannot be known, and then all the room that was lost counts.

        Returns:
            ``"space"``, ``"files"``, or nothing.
        """
        room = self._free()
        for kind, now in enumerate(room):
            self._lost[kind] += max(0, self._room[kind] - now)
        self._room = room
        limits = most.space, most.files
        if self._walk is None:
            if not any(self._may_be_over(kind, limits[kind]) for kind in (0, 1)):
                return ""
            self._walk = self._survey()
        until = time.perf_counter() + budget
        for _ in self._walk:
            if time.perf_counter() > until:
                # Already over: code that adds files faster than we count would never be stopped.
                return self._judged(limits, self._count)
        self._walk = None
        nameless = unlinked(os.fstat(self._fd).st_dev)
        self._found[0] = self._lost[0] if nameless is None else self._found[0] + nameless
        return self._judged(limits, self._found)

    def settle(self) -> None:
        """Begin a cell: it does not answer for what was added before. From any thread."""
        if any(self._told):
            room, lost, told, now = self._room, self._lost, self._told, self._free()
            self._told = [
                told[kind] and max(told[kind], lost[kind] + max(0, room[kind] - now[kind]))
                for kind in (0, 1)
            ]

    def added(self) -> Added:
        """Return what was added by the last count, or the room that was lost if that is less."""
        return Added(*map(min, self._found, self._lost))

    def close(self) -> None:
        """Let go of the grant. Safe more than once."""
        self._walk = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _may_be_over(self, kind: int, limit: int | None) -> bool:
        if limit is None:
            return False
        left = max(limit - self._found[kind], _AGAIN[kind] if self._told[kind] else 0)
        return self._lost[kind] - self._walked_at[kind] > left

    def _judged(self, limits: tuple[int | None, int | None], counted: list[int]) -> str:
        for kind, name in enumerate(("space", "files")):
            limit, found = limits[kind], min(counted[kind], self._lost[kind])
            if limit is not None and found > max(limit, self._told[kind]):
                self._told[kind] = self._lost[kind]  # a walk that is not over yet found less
                return name
        return ""

    def _free(self) -> list[int]:
        status = os.fstatvfs(self._fd)
        return [status.f_bfree * status.f_frsize, status.f_ffree]

    def _survey(self) -> Iterator[None]:
        """Count what changed since the session began; stop for breath after every few entries."""
        lost = list(self._lost)
        count = self._count = [0, 0]
        top = os.fstat(self._fd)
        if not stat.S_ISDIR(top.st_mode):
            count[0] = max(0, top.st_blocks - self._before) * _BLOCK
        else:
            # Names, not descriptors: a tree of many folders must not use up the host's.
            waiting: list[tuple[str, ...]] = [()]
            seen = 0
            while waiting:
                steps = waiting.pop()
                for name, status in _entries(self._fd, steps):
                    seen += 1
                    if seen % _PORTION == 0:
                        yield
                    if status.st_dev != top.st_dev:
                        continue
                    if status.st_ctime >= self._since:
                        count[0] += status.st_blocks * _BLOCK
                        count[1] += 1
                    if stat.S_ISDIR(status.st_mode):
                        if len(steps) < _DEEPEST and len(waiting) < _WAITING:
                            waiting.append((*steps, name))
                        else:
                            count[:] = map(max, count, lost)
        self._found, self._walked_at = count, lost


def _entries(root: int, steps: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what is in a folder, which is reached step by step through real folders alone."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    folder = os.dup(root)
    try:
        for step in steps:
            below = os.open(step, flags, dir_fd=folder)
            os.close(folder)
            folder = below
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    yield entry.name, entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # gone meanwhile
    except OSError:
        return
    finally:
        os.close(folder)
