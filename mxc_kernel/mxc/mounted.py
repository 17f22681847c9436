"""Compares what is mounted in a sandbox with what its policy says, from two mountinfo files.

The kernel says of each mount which device it shows and which folder of it (proc(5)). A device that
is mounted on the host too shows a host path, and which one follows from the host's own mounts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from mxc_kernel.policy import NATIVE, Access, MountPlan

__all__ = ["Mount", "compare", "read"]

# MXC's declared baseline on Linux (measured with 1.0.1): shown read-only to every sandbox.
_BASELINE = re.compile(r"/(bin|sbin|lib[^/]*|etc|usr/(bin|sbin|lib[^/]*|libexec|share))(/|$)")
_DEVICES = frozenset(
    f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")
)
# Its own file systems, and where they stand; besides them only what hides a denied path.
_PRIVATE = {
    "/": "tmpfs",
    "/dev": "tmpfs",
    "/dev/pts": "devpts",
    "/dev/shm": "tmpfs",  # noqa: S108
    "/proc": "proc",
    "/tmp": "tmpfs",  # noqa: S108
}


class Mount(NamedTuple):
    """One line of mountinfo.

    Attributes:
        number: the mount's id.
        device: ``major:minor`` of what is shown.
        root: the folder of that device which is shown.
        point: where.
        writable: whether this mount may be written.
        kind: the type of file system.
    """

    number: int
    device: str
    root: str
    point: str
    writable: bool
    kind: str


def read(path: str) -> list[Mount]:
    """Read a mountinfo file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none.
    """
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return [_parse(line) for line in file]


def _parse(line: str) -> Mount:
    fields = line.split(" ")
    return Mount(
        number=int(fields[0]),
        device=fields[2],
        root=_unescaped(fields[3]),
        point=_unescaped(fields[4]),
        writable="rw" in fields[5].split(","),
        kind=fields[fields.index("-", 6) + 1],
    )


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)


def compare(
    host: Sequence[Mount],
    sandbox: Sequence[Mount],
    plan: MountPlan,
    *,
    readonly: Collection[str] = (),
    hidden: Collection[str] = (),
) -> str | None:
    """Return what is not as the policy says, or None.

    Args:
        host: the host's mounts.
        sandbox: those in the sandbox.
        plan: what the policy grants and denies.
        readonly: what the program itself needs.
        hidden: paths inside those that it must not see.
    """
    devices = {mount.device for mount in host}
    for mount in sandbox:
        if mount.device in devices:
            problem = _of_host(host, mount, plan, readonly, hidden)
        else:
            problem = _of_its_own(mount, {*plan.denied, *hidden})
        if problem is not None:
            return f"{mount.point} {problem}"
    points = {mount.point for mount in sandbox}
    for path in (*plan.readwrite, *plan.readonly, *plan.denied, *hidden):
        if path not in points:
            # Larger grants would show what this mount was to cover.
            return f"{path} is not mounted"
    return None


def _of_its_own(mount: Mount, masked: Collection[str]) -> str | None:
    if mount.point in masked and mount.kind == "tmpfs":
        return None
    if _PRIVATE.get(mount.point) != mount.kind:
        return f"is a {mount.kind} that was not asked for"
    return None


def _of_host(
    host: Sequence[Mount],
    mount: Mount,
    plan: MountPlan,
    readonly: Collection[str],
    hidden: Collection[str],
) -> str | None:
    shown = mount.device, mount.root
    if shown == _place(host, os.devnull) and mount.point in {*plan.denied, *hidden}:
        return None  # what stands for a denied file
    needed = _needed(mount.point, readonly, hidden)
    places = [_place(host, mount.point)]
    if needed:
        # /lib64 and the like are links. A grant is none: it was resolved when it was planned, and
        # another sandbox may have put one in its place since.
        places.append(_place(host, os.path.realpath(mount.point)))
    if shown not in places:
        return f"shows another place of the host: {mount.root} on {mount.device}"
    if mount.point in _DEVICES:
        return None
    access = max(plan.filesystem.access(mount.point), needed)
    if access is Access.NONE:
        return "is visible, and not granted"
    if mount.writable and access is not Access.READWRITE:
        return "is writable, and not granted for writing"
    return None


def _needed(path: str, readonly: Collection[str], hidden: Collection[str]) -> Access:
    if any(NATIVE.within(path, folder) for folder in hidden):
        return Access.NONE
    needed = _BASELINE.match(path) or any(NATIVE.within(path, folder) for folder in readonly)
    return Access.READONLY if needed else Access.NONE


def _place(host: Sequence[Mount], path: str) -> tuple[str, str]:
    """Return which device, and which folder of it, a path of the host is."""
    best: Mount | None = None
    for mount in host:
        # Of two on the same point the later one counts.
        below = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if below and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    if best is None:
        return "", ""
    rest = path.removeprefix(best.point.rstrip("/"))
    return best.device, best.root.rstrip("/") + rest or "/"
