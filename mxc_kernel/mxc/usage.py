"""What a sandbox has used of the machine, read from /proc."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mxc_kernel.mxc.sandbox import Sandbox

__all__ = ["Usage", "of"]


class Usage(NamedTuple):
    """What a sandbox has used so far; None where that is not known.

    Attributes:
        cpu: seconds of processor time of all its processes.
        memory_peak: the most bytes it had in use since the oldest running cell began: of all of it
            where a control group counts them, else as much as was seen.
    """

    cpu: float | None = None
    memory_peak: int | None = None


def of(process: Sandbox) -> Usage:
    """Look at a sandbox (about 0.1 ms)."""
    if process.enforcement is not None:
        return process.enforcement.usage()
    pid = process.workload()
    if pid is None:
        return Usage()
    peak = process.group.memory_peak() if process.group is not None else None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # Behind the name, which may hold anything: fields 14 to 17 of proc_pid_stat(5).
            ticks = sum(map(int, file.read().rpartition(b")")[2].split()[11:15]))
        if peak is None:
            with open(f"/proc/{pid}/status", "rb") as file:
                peak = int(file.read().split(b"VmHWM:")[1].split(None, 1)[0]) << 10
    except (OSError, ValueError, IndexError):
        return Usage(memory_peak=peak)
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), peak)
