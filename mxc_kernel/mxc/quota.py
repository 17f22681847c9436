"""How much a session has added to a writable grant.

Nobody counts that for us: a grant is a folder among others on a file system of the host's. A walk
through it costs much and is rarely needed. So what is watched is how much room the file system has
lost, which costs a microsecond, and only when the quota could be used up by that, the grant is
walked through: what was changed since the session began counts, as no program can turn a file's
ctime back. The walk follows no symbolic link, stays on the file system, and is done in portions.

Only what was found counts, never the lost room by itself: others write to the same disk, and to
stop a session that did nothing is worse than to stop one late.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Added", "Quota"]

_WAITING = 1_000_000  # folders found and not looked into yet: their names are in the host's memory
_BLOCK = 512  # bytes; st_blocks is in these whatever the file system (stat(2))
_AGAIN = 1 << 20, 1_000  # bytes and files lost between two walks once a quota is used up
_PORTION = 64  # entries looked at between two looks at the clock
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


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

    def over(self, most: Added, budget: float, unlinked: Callable[[int, str], int]) -> str:
        """Say which limit the session has passed since this was said last.

        Args:
            most: the limits.
            budget: seconds that a walk may go on for now.
            unlinked: tells how many bytes the sandbox has in files without a name that were on a
                device and below a path.

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
        self._found[0] += unlinked(os.fstat(self._fd).st_dev, self.path)
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
            for seen, status in enumerate(_below(self._fd)):
                if seen % _PORTION == 0:
                    yield
                if status.st_ctime >= self._since:
                    # Each name of a file with several counts for its share of it.
                    links = 1 if stat.S_ISDIR(status.st_mode) else max(1, status.st_nlink)
                    count[0] += status.st_blocks * _BLOCK // links
                    count[1] += 1
        self._found, self._walked_at = count, lost


class _Folder(NamedTuple):
    """A folder on the way to the one that is looked into."""

    identity: tuple[int, int]
    waiting: list[str]  # folders in it that are still to be looked into


def _below(root: int) -> Iterator[os.stat_result]:
    """Yield what is below a folder, however deep, without leaving its file system.

    There is one descriptor, whatever the depth. Each step down opens a real folder in the one
    before; a step up is taken only if it leads to where we came from, as folders can be moved
    meanwhile. Otherwise it goes on from the top, and what was waiting on the way is left out.
    """
    folder = os.open(".", _OPEN_FOLDER, dir_fd=root)
    way: list[_Folder] = []
    waiting = 0
    try:
        device = os.fstat(folder).st_dev
        while True:
            here = _Folder(_identity(folder), [])
            way.append(here)
            with os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue  # gone meanwhile
                    if status.st_dev != device:
                        continue
                    if stat.S_ISDIR(status.st_mode) and waiting < _WAITING:
                        here.waiting.append(entry.name)
                        waiting += 1
                    yield status
            below = -1
            while below < 0:
                while not way[-1].waiting:
                    way.pop()
                    if not way:
                        return
                    folder = _stepped(folder, "..")
                    if _identity(folder) != way[-1].identity:
                        folder, strayed = os.open(".", _OPEN_FOLDER, dir_fd=root), folder
                        os.close(strayed)
                        del way[1:]
                        waiting = len(way[0].waiting)
                waiting -= 1
                with contextlib.suppress(OSError):  # gone, replaced by a link, or not for us
                    below = os.open(way[-1].waiting.pop(), _OPEN_FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
    except OSError:
        return
    finally:
        os.close(folder)


def _stepped(folder: int, name: str) -> int:
    """Open a folder in another, which is closed."""
    other = os.open(name, _OPEN_FOLDER, dir_fd=folder)
    os.close(folder)
    return other


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
