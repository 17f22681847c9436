"""The limits of one sandbox: each held by the strongest means that this machine offers.

Linux holds what it can: control groups where they are ours, resource limits of each process, sizes
of file systems. For the rest the host looks, a few times a second while a cell runs
(:mod:`mxc_kernel.mxc.watchdog`), and says "best effort".
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mxc_kernel.mxc import processes
from mxc_kernel.mxc.scratch import Scratch
from mxc_kernel.mxc.usage import Usage
from mxc_kernel.policy import Limits
from mxc_kernel.policy.quantities import format_size

if TYPE_CHECKING:
    from mxc_kernel.mxc.cgroup import Group
    from mxc_kernel.mxc.launcher import SandboxProcess
    from mxc_kernel.mxc.quota import Quota

__all__ = ["Crossing", "Enforcement"]

_NPROC_PER_NAMESPACE = (5, 14)  # before, RLIMIT_NPROC counted all processes of the user
_STACK = 8 << 20  # bytes; what a thread's stack takes of RLIMIT_DATA, used or not
_WALK = 0.05  # seconds of a pass that may go into walking through one grant
_PATIENCE = 10  # a count that took a second is not repeated within ten
_DISMAY = 1.5  # over a limit by this factor, in memory: there is no time to ask
_ROUNDS = 10  # of killing what was started while we killed
_GONE_WITHIN = 0.1  # seconds; a killed process may hang in a write to a slow disk
_MARGIN = 1 << 20  # bytes; less is not called growing

_WATCHED = "the kernel's host process, best effort"
_EACH = "Linux: a resource limit of each process"


class Crossing(NamedTuple):
    """A limit that was passed.

    Attributes:
        limit: its name, a field of :class:`mxc_kernel.policy.Limits`.
        most: its value.
        where: the grant that it is about, if any.
        cell: the cell that passed it; None for all of the sandbox.
        killed: the sandbox has been killed for it already.
    """

    limit: str
    most: float
    where: str = ""
    cell: object = None
    killed: bool = False


class Enforcement:
    """Holds the limits of one sandbox.

    All but :meth:`check` and :meth:`close` is for the thread of the event loop. Those two exclude
    each other, as descriptors must not be closed while they are looked through.

    Args:
        limits: what holds at the start.
        group: its control group.

    Attributes:
        resources: the resource limits that the worker gives itself before any code of the user's,
            by the names of ``RLIMIT_…``.
        crossing: the limit that the sandbox was killed for.
    """

    def __init__(self, limits: Limits, group: Group) -> None:
        self.resources = resources(limits)
        self.crossing: Crossing | None = None
        self._limits = limits
        self._fixed = limits  # what the resource limits were made from
        self._group = group
        self._scratch: Scratch | None = None
        self._sized = False
        self._process: SandboxProcess | None = None
        self._workload = 0
        self._init: int | None = None  # a descriptor of the sandbox's first process
        self._known: set[int] = set()
        self._cells: dict[object, float] = {}
        self._cpu = 0.0
        self._counted = False  # by the group, for the running cells
        self._seen = 0  # the most memory since the oldest running cell began
        self._shared = processes.shared()
        self._not_before = 0.0
        self._told_scratch = [0, 0]
        self._quotas: Collection[Quota] = ()
        self._closed = False
        self._lock = threading.Lock()

    def take_hold(self, process: SandboxProcess) -> None:
        """Hold what can be held only now that the sandbox is set up, and no user's code runs yet.

        Raises:
            OSError: it is gone.
        """
        workload = process.workload()
        if workload is None:
            raise ProcessLookupError("the sandboxed process cannot be found below its launcher")
        self._process, self._workload = process, workload
        self._known = set(self._pids())
        self._init = os.pidfd_open(process.tree()[1])
        self._scratch = Scratch(workload)
        self._sized = self._scratch.limit(self._limits.scratch_space, self._limits.scratch_files)

    def watch(self, quotas: Collection[Quota]) -> None:
        """Look after what the session adds to these grants, too."""
        self._quotas = quotas

    # --- changes --------------------------------------------------------------------------------

    def fits(self, limits: Limits) -> bool:
        """Whether these limits can be put in force without a new sandbox.

        A process cannot be given a resource limit from outside without more privileges than a
        container's root usually has, and never a higher one.
        """
        now, most = resources(limits), self.resources
        if limits.open_files != self._fixed.open_files or limits.file_size != self._fixed.file_size:
            return False
        if any(now.get(name, _NONE) > most.get(name, _NONE) for name in ("DATA", "NPROC")):
            return False
        if "processes" in self._group.refusals and limits.processes != self._fixed.processes:
            return False
        return self._group.fits(limits.memory, limits.processes)

    def set(self, limits: Limits) -> bool:
        """Put limits in force; false where that takes a new sandbox."""
        if limits == self._limits:
            return True
        before, self._limits = self._limits, limits
        scratch = limits.scratch_space, limits.scratch_files
        if self._scratch and scratch != (before.scratch_space, before.scratch_files):
            # It fails where more is in use, and is looked after from then on.
            self._sized = self._scratch.limit(*scratch)
        return self._group.set(limits.memory, limits.processes)

    def how(self) -> Mapping[str, str]:
        """Say in words what holds each limit."""
        counted, memory = self._group.how("processes"), self._group.how("memory")
        if "processes" in self._group.refusals and "NPROC" in self.resources:
            counted = "Linux: RLIMIT_NPROC, which counts by sandbox"
        elif "processes" in self._group.refusals:
            counted = f"{_WATCHED} ({self._group.refusals['processes']})"
        if "memory" in self._group.refusals:
            memory = (
                f"{_WATCHED}, and RLIMIT_DATA for each process ({self._group.refusals['memory']})"
            )
        scratch = "Linux: the size of each file system" if self._sized else _WATCHED
        return {
            "processor time of a cell": f"{_WATCHED}: interrupt, then kill",
            "memory": memory,
            "number of processes": counted,
            "open files": f"{_EACH} (RLIMIT_NOFILE)",
            "size of a file": f"{_EACH} (RLIMIT_FSIZE)",
            "scratch space and files": scratch,
            "space and files added to grants": _WATCHED,
        }

    # --- cells ----------------------------------------------------------------------------------

    def cell_started(self, cell: object) -> None:
        """Begin to count for a cell."""
        pids = self._pids()
        if not self._cells:
            self._seen = 0
            self._counted = self._group.reset_peak()
            processes.reset_peak(self._workload)
            self._settle()
            self._known = set(pids)  # what threads and the debugger have started is no cell's
        self._cells[cell] = self._cpu_of(pids)

    def _settle(self) -> None:
        """Have the next cell not answer for what was there before it."""
        for quota in self._quotas:
            with contextlib.suppress(OSError):
                quota.settle()
        if self._scratch is not None and not self._sized and not self._closed:
            self._told_scratch = list(self._scratch.used())

    def cell_ended(self, cell: object) -> None:
        """Count no longer for a cell."""
        self._cells.pop(cell, None)

    def usage(self) -> Usage:
        """Return the processor time that all of it has used, and the most memory.

        That is since the oldest running cell began, or the last one, and is measured, or the most
        of what was seen a few times a second. Costs 0.1 ms; without a control group 0.4 ms.
        """
        peak = self._group.memory_peak() if self._counted else None
        if peak is None:
            scratch = self._scratch.total() if self._scratch and not self._closed else 0
            peak = max(self._seen, processes.peak(self._workload) + scratch)
        return Usage(self._cpu_of(self._pids()), peak)

    @property
    def busy(self) -> bool:
        """Whether a cell runs."""
        return bool(self._cells)

    def _cpu_of(self, pids: Collection[int]) -> float:
        """Return the seconds of processor time that all of the sandbox has used."""
        exact = self._group.cpu()
        now = exact if exact is not None else processes.cpu(pids)
        self._cpu = max(self._cpu, now)  # what ended unreaped takes its time along
        return self._cpu

    def left_running(self) -> list[int]:
        """Return the processes that were not there when the cell began or this was asked last.

        None where another cell runs too, whose they may be.
        """
        pids = set(self._pids())
        if len(self._cells) > 1:
            return []
        new = sorted(pid for pid in pids - self._known if processes.is_running(pid))
        self._known = pids
        return new

    def end(self, pids: Collection[int]) -> None:
        """Kill some of the sandbox's processes, and those that they start meanwhile."""
        waiting, known = set(pids), self._known - set(pids)
        with self._group.no_more_processes():
            for _ in range(_ROUNDS):
                self._kill_all(waiting)
                waiting = set(self._pids()) - known
                if not waiting:
                    break

    def _kill_all(self, pids: Collection[int]) -> None:
        """Kill processes and wait a little until they are gone."""
        with contextlib.ExitStack() as stack:
            killed = select.poll()
            opened = {}
            for pid in pids:
                with contextlib.suppress(OSError):
                    opened[pid] = os.pidfd_open(pid)
                    stack.callback(os.close, opened[pid])
            still = set(self._pids())  # else the number was given to a stranger meanwhile
            for pid, process in opened.items():
                if pid in still:
                    with contextlib.suppress(OSError):
                        signal.pidfd_send_signal(process, signal.SIGKILL)
                        killed.register(process, select.POLLIN)
            waiting = len(opened.keys() & still)
            until = time.monotonic() + _GONE_WITHIN
            while waiting and (left := until - time.monotonic()) > 0:
                for process, _ in killed.poll(left * 1000):
                    killed.unregister(process)
                    waiting -= 1

    def why_no_room(self) -> str:
        """Say which limit may have left a mapped file without room, which ends a program."""
        most = self._limits.scratch_space
        if most is None:
            return ""
        return (
            "shared memory ends a program so when the sandbox's own folders are full "
            f"(scratch_space = {format_size(most)}; %limits --scratch)"
        )

    # --- the watchdog's -------------------------------------------------------------------------

    def check(self) -> list[Crossing]:
        """Look once; return the limits that were passed. For the watchdog's thread."""
        with self._lock:
            if self._closed or self._process is None or self.crossing is not None:
                return []
            pids = self._pids()
            return list(self._crossings(pids, self._limits))

    def _crossings(self, pids: list[int], limits: Limits) -> Iterator[Crossing]:
        if "memory" in self._group.refusals and self._memory_over(pids, limits.memory):
            yield self._kill("memory", limits.memory or 0)
            return
        held = "processes" not in self._group.refusals or "NPROC" in self.resources
        most = limits.processes
        if not held and most is not None and processes.tasks(pids) > most:
            yield self._kill("processes", most)
            return
        yield from self._scratch_crossings(limits)
        if limits.cpu_time is not None:
            used = self._cpu_of(pids)
            for cell, began in list(self._cells.items()):
                if used - began > limits.cpu_time:
                    yield Crossing("cpu_time", limits.cpu_time, cell=cell)
        yield from self._grant_crossings(pids, limits)

    def _memory_over(self, pids: list[int], most: int | None) -> bool:
        assert self._scratch is not None
        shared = processes.shared()
        self._shared = min(self._shared, shared)  # of others; the sandbox began with none
        scratch = self._scratch.total()
        bound = processes.private(pids) + max(scratch, shared - self._shared)
        if most is None or bound <= most or time.monotonic() < self._not_before:
            self._seen = max(self._seen, bound if most is None or bound <= most else 0)
            return False
        began = time.monotonic()
        exact = processes.memory(pids)
        self._not_before = time.monotonic() + (time.monotonic() - began) * _PATIENCE
        used = exact.private + max(scratch + exact.files, exact.shared)
        self._seen = max(self._seen, used)
        return used > most

    def _scratch_crossings(self, limits: Limits) -> Iterator[Crossing]:
        assert self._scratch is not None
        if self._sized:
            return
        used = self._scratch.used()
        for kind, name in enumerate(("scratch_space", "scratch_files")):
            most = getattr(limits, name)
            if most is None or used[kind] <= max(most, self._told_scratch[kind]):
                continue
            if name == "scratch_space" and used[kind] > most * _DISMAY + _MARGIN:
                yield self._kill(name, most)
                return
            self._told_scratch[kind] = used[kind] + (_MARGIN if kind == 0 else 0)
            yield Crossing(name, most)

    def _grant_crossings(self, pids: list[int], limits: Limits) -> Iterator[Crossing]:
        if not self._quotas:
            return
        from mxc_kernel.mxc.quota import Added

        most = Added(limits.grant_space, limits.grant_files)
        for quota in self._quotas:
            with contextlib.suppress(OSError):  # taken away, such as a memory stick
                if kind := quota.over(most, _WALK, partial(processes.unlinked, pids)):
                    name = f"grant_{kind}"
                    yield Crossing(name, getattr(limits, name), where=quota.path)

    def _kill(self, limit: str, most: float) -> Crossing:
        """Kill at once, from this thread: the event loop may be busy, and memory fills fast."""
        self.crossing = Crossing(limit, most, killed=True)
        if self._init is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
        return self.crossing

    def _pids(self) -> list[int]:
        """Return the host's numbers of the sandbox's processes."""
        members = self._group.members()
        if members is not None:
            return members
        return self._process.tree() if self._process is not None else []

    def close(self) -> None:
        """Let go of all that is held. Safe more than once."""
        with self._lock:
            self._closed = True
            if self._scratch is not None:
                self._scratch.close()
            if self._init is not None:
                os.close(self._init)
                self._init = None


_NONE = 2**63


def resources(limits: Limits) -> dict[str, int]:
    """Return the resource limits of every process under limits of a sandbox.

    That of memory is a first line before the real one: it makes a large allocation fail with
    MemoryError instead of costing the sandbox. It counts what a process may write, used or not, so
    there is room on top for the stacks of the threads that numerical libraries start.
    """
    found: dict[str, int | None] = {
        "NOFILE": limits.open_files,
        "FSIZE": limits.file_size,
        "NPROC": limits.processes if _counts_by_sandbox() else None,
        "DATA": limits.memory,
    }
    if limits.memory is not None:
        found["DATA"] = limits.memory + 2 * _STACK * (os.cpu_count() or 1)
    return {name: value for name, value in found.items() if value is not None}


def _counts_by_sandbox() -> bool:
    """Whether RLIMIT_NPROC counts within a user namespace (Linux 5.14)."""
    release = os.uname().release.split(".")
    try:
        return (int(release[0]), int(release[1].split("-")[0])) >= _NPROC_PER_NAMESPACE
    except (ValueError, IndexError):
        return False
