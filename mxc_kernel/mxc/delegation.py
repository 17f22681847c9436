"""Where this process may make control groups.

A control group has one writer (systemd's CGROUP_DELEGATION). So groups are made only at the root of
a hierarchy as this process sees it, or in a subtree delegated to it; never inside a group of
whatever started us: it may find what it has to end by that group's processes. And never above our
own group: that would leave the limits set on us.
"""

from __future__ import annotations

import contextlib
import os

from mxc_kernel.records import record

__all__ = ["Place", "Refusal", "place_for", "read", "write"]

_CGROUP = "/proc/self/cgroup"
_MOUNTS = "/proc/self/mountinfo"
_HOSTS = "mxc-kernel-hosts"  # where v2 puts the processes of a delegated group, itself a leaf
_DELEGATED = ("trusted.delegate", "user.delegate")  # what systemd marks a delegated group with


class Refusal(Exception):  # noqa: N818  # not an error: an answer in plain words
    """Why a limit cannot be enforced here."""


@record
class Place:
    """A folder in which groups may be made, or a group's own, and the version of its interface."""

    folder: str
    version: int


def place_for(controller: str) -> Place:
    """Return where groups with a controller may be made.

    Raises:
        Refusal: nowhere.
    """
    try:
        own, mounts = read(_CGROUP).splitlines(), read(_MOUNTS).splitlines()
    except OSError:
        raise Refusal("this system has no control groups") from None
    groups = [line.split(":", 2) for line in own]
    legacy = next((g[2] for g in groups if controller in g[1].split(",")), None)
    if legacy is not None:
        point = _mounted(mounts, "cgroup", controller)
        if legacy != "/":
            raise Refusal(
                f"the {controller} control group {legacy} belongs to what started this kernel"
            )
        return Place(point, 1)
    unified = next((g[2] for g in groups if g[0] == "0"), None)
    if unified is None:
        raise Refusal(f"Linux has no {controller} control groups here")
    return Place(_subtree(_mounted(mounts, "cgroup2", None), unified, controller), 2)


def _mounted(mounts: list[str], kind: str, controller: str | None) -> str:
    """Return the mount point of a hierarchy, mounted from its root (proc(5), mountinfo)."""
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        root, point = fields.split(" ")[3:5]
        filesystem, _, options = rest.split(" ", 2)
        names = options.split(",")
        if filesystem == kind and root == "/" and (controller is None or controller in names):
            return point
    raise Refusal(f"no {controller or 'unified'} control groups are mounted")


def _subtree(mount: str, own: str, controller: str) -> str:
    """Return the folder of a v2 subtree that is ours, with the controller given to its groups.

    Raises:
        Refusal: there is none, or it has no such controller.
    """
    base = own.removesuffix(f"/{_HOSTS}")  # another host has made room there before
    folder = (mount + base).rstrip("/")
    if base not in ("", "/") and not _delegated(folder):
        raise Refusal(f"the control group {own} was not delegated to this kernel")
    try:
        if controller not in read(f"{folder}/cgroup.controllers").split():
            raise Refusal(f"the controller {controller} was not passed on to this kernel")
        if controller not in read(f"{folder}/cgroup.subtree_control").split():
            if base not in ("", "/"):
                _make_room(folder)
            write(f"{folder}/cgroup.subtree_control", f"+{controller}")
    except OSError as error:
        raise Refusal(f"{folder}: {error.strerror}") from None
    return folder


def _delegated(folder: str) -> bool:
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


def _make_room(folder: str) -> None:
    """Move a delegated group's own processes into a leaf: v2 gives controllers to no others."""
    leaf = f"{folder}/{_HOSTS}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(leaf)
    for pid in read(f"{folder}/cgroup.procs").split():
        with contextlib.suppress(ProcessLookupError):
            write(f"{leaf}/cgroup.procs", pid)


def read(path: str) -> str:
    """Return the text of an interface file."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Write to an interface file, in one call; it is never created."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
