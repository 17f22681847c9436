"""What the chaos tests do to a kernel's processes, and what must not be left of it afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

from mxc_kernel.mxc import delegation, identity

from .conftest import Kernel

__all__ = ["Belongings", "groups_of", "held_uids", "members", "strike"]

MEMBERS = ("launcher", "monitor", "init", "child")


def members(host: int) -> dict[str, list[int]]:
    """Return the processes of a kernel by what they are; what is not there is missing.

    Args:
        host: its process id.
    """
    found: dict[str, list[int]] = {"host": [host]}
    above = host
    for name in MEMBERS:
        below = _children(above)
        if not below:
            return found
        above = below[0]
        found[name] = [above]
    started = []
    waiting = [above]
    while waiting:
        below = _children(waiting.pop())
        started += below
        waiting += below
    if started:
        found["grandchild"] = started
    return found


def _children(pid: int) -> list[int]:
    with contextlib.suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children()]
    return []


def strike(pid: int, signum: signal.Signals) -> bool:
    """Send a signal; false if the process is gone already."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


def groups_of(pid: int) -> list[str]:
    """Return the control groups that a kernel has on this machine."""
    found = []
    for controller in ("memory", "pids"):
        try:
            folder = delegation.place_for(controller).folder
        except delegation.Refusal:
            continue
        found += [name for name in os.listdir(folder) if f"-{pid}-" in name]
    return found


def held_uids(pid: int) -> list[str]:
    """Return the lock files of leased uids that a process holds open."""
    return [path for path in _open_files(pid) if path.startswith(identity.LOCKS)]


def _open_files(pid: int) -> list[str]:
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


@dataclass
class Belongings:
    """What a kernel has on the machine at a moment.

    Attributes:
        descriptors: of its host, by what they lead to; pipes and sockets by kind.
        groups: control groups.
        uids: leased.
        processes: of its sandboxes.
        zombies: that it has not waited for.
        mounts: of the whole machine outside of sandboxes.
        files: in its folder for temporary files.
        memory: bytes that belong to its host alone.
    """

    descriptors: dict[str, int]
    groups: int
    uids: int
    processes: int
    zombies: int
    mounts: int
    files: list[str]
    memory: int

    @classmethod
    def of(cls, kernel: Kernel, temporary: Path) -> Belongings:
        """Look at a kernel."""
        host = psutil.Process(kernel.pid)
        below = host.children(recursive=True)
        kinds: dict[str, int] = {}
        for path in _open_files(kernel.pid):
            kind = path.split(":")[0] if not path.startswith("/memfd:") else path.split(" ")[0]
            kinds[kind] = kinds.get(kind, 0) + 1
        with open(f"/proc/{kernel.pid}/mountinfo", encoding="utf-8") as file:
            mounts = len(file.readlines())
        return cls(
            kinds,
            len(groups_of(kernel.pid)),
            len(held_uids(kernel.pid)),
            len(below),
            sum(_is_zombie(process) for process in below),
            mounts,
            sorted(str(path.relative_to(temporary)) for path in temporary.rglob("*")),
            int(host.memory_full_info().uss),
        )

    def leaked(self, before: Belongings) -> dict[str, object]:
        """Return what is more than it was at an earlier moment, but for memory."""
        more: dict[str, object] = {
            f"descriptors of {kind}": f"{before.descriptors.get(kind, 0)} -> {count}"
            for kind, count in self.descriptors.items()
            if count > before.descriptors.get(kind, 0)
        }
        for name in ("groups", "uids", "processes", "zombies", "mounts"):
            was, is_now = getattr(before, name), getattr(self, name)
            if is_now > was:
                more[name] = f"{was} -> {is_now}"
        if set(self.files) - set(before.files):
            more["files"] = sorted(set(self.files) - set(before.files))
        return more


def _is_zombie(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() == psutil.STATUS_ZOMBIE
    return False
