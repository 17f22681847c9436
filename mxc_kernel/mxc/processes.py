"""What a sandbox's processes use, from what Linux says of them in /proc (proc(5)).

Only files that every user may read, but for the exact count of memory. Processes come and go while
they are looked at; one that is gone uses nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterable
from typing import NamedTuple

__all__ = [
    "Memory",
    "command",
    "cpu",
    "is_running",
    "is_stopped",
    "memory",
    "peak",
    "private",
    "reset_peak",
    "shared",
    "tasks",
    "unlinked",
]

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # Windows has no /proc either
_OF_STATUS = re.compile(rb"^(?:RssAnon|VmSwap):\s+(\d+) kB$", re.MULTILINE)
_OF_ROLLUP = re.compile(rb"^(Pss_Anon|Pss_Shmem|SwapPss):\s+(\d+) kB$", re.MULTILINE)
_SHMEM = re.compile(rb"^Shmem:\s+(\d+) kB$", re.MULTILINE)
_MOST_DESCRIPTORS = 20_000  # of all processes, looked at in one count
_MEMFD = "/memfd:"
_DELETED = " (deleted)"


class Memory(NamedTuple):
    """Bytes in use.

    Attributes:
        private: of the processes alone; pages that several have count once.
        shared: mapped and shared, whatever is behind them.
        files: in anonymous files, mapped or not.
    """

    private: int
    shared: int
    files: int


def cpu(pids: Iterable[int]) -> float:
    """Return the seconds of processor time that processes and their reaped children used.

    A process whose parent ignores SIGCHLD takes its time along when it ends.
    """
    ticks = 0
    for pid in pids:
        fields = _stat(pid)
        ticks += sum(map(int, fields[11:15])) if fields else 0
    return ticks / _TICKS


def tasks(pids: Iterable[int]) -> int:
    """Return how many threads processes have."""
    return sum(int(fields[17]) for pid in pids if (fields := _stat(pid)))


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in (b"Z", b"X")


def is_stopped(pid: int) -> bool:
    """Whether someone has stopped a process (SIGSTOP)."""
    return _stat(pid)[:1] == [b"T"]


def command(pid: int) -> str:
    """Return the name that a process has given itself. Untrusted text; empty if it is gone."""
    return _read(f"/proc/{pid}/comm").decode("utf-8", "replace").removesuffix("\n")


def private(pids: Iterable[int]) -> int:
    """Return an upper bound of the private bytes: pages that forked processes share count in each.

    Cheap: some 30 µs for a process.
    """
    kib = sum(int(n) for pid in pids for n in _OF_STATUS.findall(_read(f"/proc/{pid}/status")))
    return kib << 10


def peak(pid: int) -> int:
    """Return the most bytes that a process had in memory since :func:`reset_peak`."""
    found = re.search(rb"^VmHWM:\s+(\d+) kB$", _read(f"/proc/{pid}/status"), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def reset_peak(pid: int) -> bool:
    """Have a process's peak begin anew; false where we may not."""
    try:
        fd = os.open(f"/proc/{pid}/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, b"5")
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def shared() -> int:
    """Return the bytes of the whole machine's file systems in memory and shared memory."""
    found = _SHMEM.search(_read("/proc/meminfo"))
    return int(found[1]) << 10 if found else 0


def memory(pids: Collection[int]) -> Memory:
    """Count what processes use; every page once.

    Takes about 0.6 ms for a small process and some 5 ms for a gigabyte. What a process hides from
    us (PR_SET_DUMPABLE, where we are not root) counts by its upper bound, and without its files.
    """
    figures = {b"Pss_Anon": 0, b"Pss_Shmem": 0, b"SwapPss": 0}
    hidden = []
    for pid in pids:
        text = _read(f"/proc/{pid}/smaps_rollup")
        if not text:
            hidden.append(pid)
        for name, kib in _OF_ROLLUP.findall(text):
            figures[name] += int(kib) << 10
    anonymous = figures[b"Pss_Anon"] + figures[b"SwapPss"] + private(hidden)
    return Memory(anonymous, figures[b"Pss_Shmem"], _anonymous_files(pids))


def _anonymous_files(pids: Collection[int]) -> int:
    """Return the bytes of memfds that processes have open, each file once."""
    found: dict[tuple[int, int], int] = {}
    looked = 0
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        try:
            numbers = os.listdir(folder)
        except OSError:
            continue
        for number in numbers:
            looked += 1
            if looked > _MOST_DESCRIPTORS:
                return sum(found.values())
            try:
                if not os.readlink(f"{folder}/{number}").startswith(_MEMFD):
                    continue
                status = os.stat(f"{folder}/{number}")
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def unlinked(pids: Collection[int], device: int, below: str) -> int:
    """Return the bytes of files without a name that processes have open or mapped.

    What a process hides from us (PR_SET_DUMPABLE, where we are not root) is not seen, nor is the
    rest where there are more than 20,000 descriptors.

    Args:
        pids: the processes.
        device: the file system, as in ``st_dev``.
        below: the folder in which the files had their names, or the file. A library that was
            replaced by an update is mapped without a name, too, and nothing that was added.

    Returns:
        Each file once.
    """
    found: dict[int, int] = {}
    looked = 0
    name = f"{os.major(device):02x}:{os.minor(device):02x}"
    for pid in pids:
        for line in _read(f"/proc/{pid}/maps").decode("utf-8", "replace").splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[3] == name and _was_below(fields[5], below):
                start, _, end = fields[0].partition("-")
                size = int(end, 16) - int(start, 16)
                with contextlib.suppress(OSError):  # only root may
                    size = os.stat(f"/proc/{pid}/map_files/{start}-{end}").st_blocks * 512
                found[int(fields[4])] = max(size, found.get(int(fields[4]), 0))
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        try:
            numbers = os.listdir(folder)
        except OSError:
            continue
        for number in numbers:
            looked += 1
            if looked > _MOST_DESCRIPTORS:
                return sum(found.values())
            try:
                if not _was_below(os.readlink(f"{folder}/{number}"), below):
                    continue
                status = os.stat(f"{folder}/{number}")
            except OSError:
                continue
            if status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode):
                found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def _was_below(shown: str, folder: str) -> bool:
    """Whether Linux shows a path as that of a deleted file that was in a folder, or was it."""
    path = shown.removesuffix(_DELETED)
    return path != shown and (path == folder or path.startswith(folder.rstrip("/") + "/"))


def _stat(pid: int) -> list[bytes]:
    """Return the fields of a process from its state on; none if it is gone."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""
