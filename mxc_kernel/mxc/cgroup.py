"""Limits on the memory and the processes of a whole sandbox, by Linux's control groups.

Each limit is decided by itself, and what cannot be enforced is said in words.

Interfaces: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/{memory,pids}.rst of the kernel.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping

from mxc_kernel.mxc.delegation import Place, Refusal, place_for, read, write
from mxc_kernel.policy.quantities import format_size
from mxc_kernel.records import record

__all__ = ["Events", "Group", "create"]

_CONTROLLERS = {"memory": "memory", "processes": "pids"}
_EMPTY_WITHIN = 2.0  # seconds for killed processes to leave the group
_numbers = itertools.count()


@record
class Events:
    """How often a group's limits were hit.

    Attributes:
        memory: processes killed for memory.
        processes: new processes and threads refused.
    """

    memory: int = 0
    processes: int = 0


def create(memory: int | None, processes: int | None) -> Group:
    """Make the control group of one sandbox, as far as this machine allows it.

    Groups that hosts killed before have left behind are removed on the way.

    Args:
        memory: bytes, swap and private file systems in memory included; None for no limit.
        processes: processes and threads, the launcher's own included; None for no limit.
    """
    name = f"{_owner()}-{next(_numbers)}"
    folders: dict[str, Place] = {}
    refusals: dict[str, str] = {}
    limits = {"memory": memory, "processes": processes}
    for limit, controller in _CONTROLLERS.items():
        try:
            folders[limit] = _made(place_for(controller), name, limit, limits[limit])
        except Refusal as refusal:
            refusals[limit] = str(refusal)
    with contextlib.suppress(Refusal, OSError):  # nothing is limited by it, so nobody is told
        folders["cpu"] = _accounting(folders, name)
    for path in {p.folder for p in folders.values()}:
        _remove_stale(os.path.dirname(path))
    return Group(folders, refusals, limits)


class Group:
    """The control group of one sandbox: a folder in each hierarchy that enforces a limit.

    Attributes:
        refusals: the limits that are not enforced here, and why.
    """

    def __init__(
        self,
        folders: Mapping[str, Place],
        refusals: Mapping[str, str],
        limits: Mapping[str, int | None],
    ) -> None:
        self.refusals = dict(refusals)
        self._folders = dict(folders)
        self._limits = dict(limits)
        self._events: Events | None = None  # the last ones, once it is closed
        self._cpu: float | None = None  # the same

    @property
    def paths(self) -> tuple[str, ...]:
        """Its folders."""
        return tuple(sorted({place.folder for place in self._folders.values()}))

    def how(self, limit: str) -> str:
        """Say in words what enforces ``"memory"`` or ``"processes"``."""
        if limit in self._folders:
            return f"Linux: a control group (v{self._folders[limit].version})"
        return f"not enforced here: {self.refusals[limit]}"

    @contextlib.contextmanager
    def doors(self) -> Iterator[tuple[int, ...]]:
        """Give descriptors to which a forked process writes ``b"0"`` to enter.

        A process enters before it executes anything: moved later, what it had started by then would
        stay outside. Opened here because the right to move is judged by whoever opened the file
        (Linux 5.17 and the stable kernels after CVE-2021-4197); the forked one has changed its uid.
        """
        with contextlib.ExitStack() as stack:
            doors = []
            for path in self.paths:
                door = os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                stack.callback(os.close, door)
                doors.append(door)
            yield tuple(doors)

    def fits(self, memory: int | None, processes: int | None) -> bool:
        """Whether no more is in use than these limits allow.

        Where more is, v2 would kill for it, and a full group could not even send its names on.
        """
        for limit, value in (("memory", memory), ("processes", processes)):
            place = self._folders.get(limit)
            if place is None or value is None or value == self._limits[limit]:
                continue
            try:
                if _in_use(place, limit) > value:
                    return False
            except (OSError, ValueError):
                return False
        return True

    def set(self, memory: int | None, processes: int | None) -> bool:
        """Change the limits in place; false where that failed."""
        for limit, value in (("memory", memory), ("processes", processes)):
            if value == self._limits[limit]:
                continue
            place = self._folders.get(limit)
            if place is not None:
                try:
                    _limit(place, limit, value)
                except OSError:
                    return False
            self._limits[limit] = value
        return True

    @contextlib.contextmanager
    def no_more_processes(self) -> Iterator[None]:
        """Let nothing be started in it for a while, as far as it limits that."""
        place = self._folders.get("processes")
        if place is None:
            yield
            return
        _limit(place, "processes", 1)
        try:
            yield
        finally:
            _limit(place, "processes", self._limits["processes"])

    def memory_peak(self) -> int | None:
        """Return the most bytes it has used; None where that is not known."""
        place = self._folders.get("memory")
        if place is None:
            return None
        peak = "memory.max_usage_in_bytes" if place.version == 1 else "memory.peak"
        try:
            return int(read(f"{place.folder}/{peak}"))
        except (OSError, ValueError):
            return None

    def reset_peak(self) -> bool:
        """Have the peak begin anew; false where Linux cannot, as with v2 before 6.12."""
        place = self._folders.get("memory")
        if place is None or place.version != 1:
            return False
        try:
            write(f"{place.folder}/memory.max_usage_in_bytes", "0")
        except OSError:
            return False
        return True

    def cpu(self) -> float | None:
        """Return the seconds of processor time used in it, also after it was closed."""
        place = self._folders.get("cpu")
        if place is None:
            return self._cpu
        try:
            if place.version == 1:
                return int(read(f"{place.folder}/cpuacct.usage")) / 1e9
            return _count(f"{place.folder}/cpu.stat", "usage_usec") / 1e6
        except (OSError, ValueError):
            return self._cpu

    def members(self) -> list[int] | None:
        """Return the processes in it; None where there is no group."""
        for place in self._folders.values():
            return _members(place.folder)
        return None

    def events(self) -> Events:
        """Return how often its limits were hit, also after it was closed."""
        if self._events is not None:
            return self._events
        memory, processes = self._folders.get("memory"), self._folders.get("processes")
        kills = "memory.oom_control" if memory and memory.version == 1 else "memory.events"
        return Events(
            memory=_count(f"{memory.folder}/{kills}", "oom_kill") if memory else 0,
            processes=_count(f"{processes.folder}/pids.events", "max") if processes else 0,
        )

    def memory_hit(self) -> str:
        """Say that a process was killed for memory; nothing where none was."""
        if not self.events().memory:
            return ""
        return f"it passed its memory limit of {format_size(self._limits['memory'])}"

    def processes_hit(self) -> str:
        """Say that a process or thread was refused; nothing where none was."""
        if not self.events().processes:
            return ""
        return f"it reached its limit of {self._limits['processes']} processes and threads"

    def close(self) -> None:
        """Kill what is left in it and remove it. Safe more than once."""
        self._events, self._cpu = self.events(), self.cpu()
        for path in self.paths:
            _remove(path)
        self._folders.clear()


# --- one folder ---------------------------------------------------------------------------------


def _made(place: Place, name: str, limit: str, value: int | None) -> Place:
    """Make a group's folder, if it is not there yet, and set one limit."""
    group = Place(f"{place.folder}/{name}", place.version)
    fresh = not os.path.exists(group.folder)  # or made for the other limit
    try:
        if fresh:
            os.mkdir(group.folder)
        _limit(group, limit, value)
    except OSError as error:
        if fresh:
            with contextlib.suppress(OSError):
                os.rmdir(group.folder)
        raise Refusal(f"{place.folder}: {error.strerror}") from None
    return group


def _accounting(folders: Mapping[str, Place], name: str) -> Place:
    """Return the group that counts processor time: v2 does so in each, v1 in one for that."""
    for place in folders.values():
        if place.version == 2:
            return place
    parent = place_for("cpuacct")
    os.makedirs(f"{parent.folder}/{name}", exist_ok=True)
    return Place(f"{parent.folder}/{name}", parent.version)


def _limit(place: Place, limit: str, value: int | None) -> None:
    folder = place.folder
    if limit == "processes":
        write(f"{folder}/pids.max", "max" if value is None else str(value))
    elif place.version == 2:
        write(f"{folder}/memory.max", "max" if value is None else str(value))
        with contextlib.suppress(FileNotFoundError):  # a kernel without swap
            write(f"{folder}/memory.swap.max", "max" if value is None else "0")
    else:
        bytes_or_none = "-1" if value is None else str(value)
        # Memory with swap may never be less than memory, so it makes way first.
        with contextlib.suppress(FileNotFoundError):
            write(f"{folder}/memory.memsw.limit_in_bytes", "-1")
        write(f"{folder}/memory.limit_in_bytes", bytes_or_none)
        with contextlib.suppress(FileNotFoundError):
            write(f"{folder}/memory.memsw.limit_in_bytes", bytes_or_none)


def _in_use(place: Place, limit: str) -> int:
    if limit == "processes":
        return int(read(f"{place.folder}/pids.current"))
    name = "memory.usage_in_bytes" if place.version == 1 else "memory.current"
    return int(read(f"{place.folder}/{name}"))


def _remove(folder: str) -> None:
    """Remove a group once it is empty; given up after a while, for the next host to do."""
    deadline = time.monotonic() + _EMPTY_WITHIN
    while True:
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError:  # EBUSY: there is no event to wait for in v1
            if time.monotonic() > deadline:
                return
            _kill(folder)
            time.sleep(0.002)
        else:
            return


def _kill(folder: str) -> None:
    for pid in _members(folder):
        with contextlib.suppress(OSError):
            process = os.pidfd_open(pid)
            try:
                if pid in _members(folder):  # the number was not given to a stranger meanwhile
                    signal.pidfd_send_signal(process, signal.SIGKILL)
            finally:
                os.close(process)


def _members(folder: str) -> list[int]:
    try:
        return [int(pid) for pid in read(f"{folder}/cgroup.procs").split()]
    except OSError:
        return []


# --- whose a group is ---------------------------------------------------------------------------


@functools.cache
def _namespace() -> str:
    """Return the number of this pid namespace: in another one, our pids say nothing."""
    return os.readlink("/proc/self/ns/pid").strip("pid:[]")


def _owner() -> str:
    pid = os.getpid()
    return f"mxc-kernel-{_namespace()}-{pid}-{_started(pid)}"


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; nothing if there is none (proc(5))."""
    try:
        return read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _remove_stale(parent: str) -> None:
    """Remove the empty groups of hosts that are gone. One with processes in it stays: rmdir."""
    pattern = re.compile(rf"mxc-kernel-{_namespace()}-(\d+)-(\d+)-\d+")
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            match = pattern.fullmatch(name)
            if match and _started(int(match[1])) != match[2]:
                with contextlib.suppress(OSError):
                    os.rmdir(f"{parent}/{name}")


def _count(path: str, name: str) -> int:
    """Return a number of a file of ``name number`` lines; 0 where it is not there."""
    try:
        lines = dict(line.split(" ", 1) for line in read(path).splitlines())
        return int(lines.get(name, 0))
    except (OSError, ValueError):
        return 0
