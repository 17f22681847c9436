"""Every process that a sandbox has started, on systems without process namespaces.

Found in the table of processes that ``ps`` prints, and ended until none is left. macOS has no
better way without root: an audit session, which all descendants would share, can only be begun by
root (setaudit_addr(2)). So what is followed is the process group, the parents, and what was seen
before its parents ended: the table is looked at every second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["Process", "Tree", "belonging", "running"]

_PAUSE = 0.02  # seconds between two looks while processes are being ended
_INTERVAL = 1.0  # seconds between two looks meanwhile; one takes about 10 ms of processor time
# Numbered, as Windows' signal module has neither; nothing here is called there.
_SIGKILL = getattr(signal, "SIGKILL", 9)
_SIGSTOP = getattr(signal, "SIGSTOP", 19)


class Process(NamedTuple):
    """One row of the table.

    Attributes:
        pid: its number.
        parent: that of the process that started it, 1 when that one has ended.
        group: its process group.
        memory: resident bytes.
        state: ``Z...`` when it has ended and only its parent has not noticed.
        started: when it was started. Numbers are given to new processes again; with this they are
            told apart.
    """

    pid: int
    parent: int
    group: int
    memory: int
    state: str
    started: str


def running() -> list[Process]:
    """Return the table of all processes."""
    listed = subprocess.run(
        ["/bin/ps", "-axo", "pid=,ppid=,pgid=,rss=,stat=,lstart="],
        capture_output=True,
        check=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    ).stdout
    table = []
    for line in listed.splitlines():
        pid, parent, group, memory, state, started = line.split(None, 5)
        row = Process(int(pid), int(parent), int(group), int(memory) << 10, state, started)
        table.append(row)
    return table


def belonging(
    table: Iterable[Process], known: Mapping[int, str], groups: set[int]
) -> list[Process]:
    """Return the living processes of a sandbox.

    Args:
        table: all processes.
        known: those that are known to be of it, with when they were started; their descendants
            are of it too.
        groups: its process groups.
    """
    rows = list(table)
    found = {row.pid for row in rows if known.get(row.pid) == row.started or row.group in groups}
    grown = True
    while grown:
        more = {row.pid for row in rows if row.parent in found} - found
        found |= more
        grown = bool(more)
    return [row for row in rows if row.pid in found and not row.state.startswith("Z")]


class Tree:
    """The processes below a launcher that leads a process group of its own.

    One that leaves the group and whose parents all end between two looks is not found: see
    docs/platforms.md.
    """

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._known: dict[int, str] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        """Follow a launcher from now on."""
        self._groups = {process.pid}
        threading.Thread(target=self._follow, daemon=True).start()

    def look(self) -> list[Process]:
        """Take note of the processes that live now, and return them."""
        with self._lock:
            living = belonging(running(), self._known, self._groups)
            self._known = {row.pid: row.started for row in living}
            # A group's number is not given away while it has members; without, it is forgotten.
            self._groups &= {row.group for row in living}
            return living

    def memory(self) -> int:
        """Return their resident bytes; shared ones count in each."""
        return sum(row.memory for row in self.look())

    def end(self, timeout: float) -> bool:
        """Kill them until none is left; false if some are after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while living := [row.pid for row in self.look() if row.pid != os.getpid()]:
            # Stopped first, so that none of them starts another while its sibling is killed.
            for number in (_SIGSTOP, _SIGKILL):
                for pid in living:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def close(self) -> None:
        """Follow nothing any more."""
        self._closed.set()

    def _follow(self) -> None:
        while not self._closed.wait(_INTERVAL):
            with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
                self.look()
