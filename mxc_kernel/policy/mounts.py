"""From what is in force to what is mounted: the last look at the disk before a launch.

A policy speaks of paths, a mount of what is there now. Three facts, each measured with the real
executable on Linux, make the difference:

- A denied path that does not exist is created on the host, and a read-only one fails the launch,
  so rules on missing paths cannot be mounted; `appeared` finds afterwards what a sandbox made
  there.
- A folder on the way to a mounted file can be renamed, and the file with it: ``mv .git x`` and a
  new ``.git/hooks`` got past a read-only ``.git/hooks``. A mount point cannot be renamed, so each
  folder between a grant and a rule inside it is mounted as well (`MountPlan.readwrite` names it
  again).
- A mount on a file goes away when a program outside replaces the file by renaming another over it,
  as editors and ``git config`` do. The session compares `MountPlan.covers` with the sandbox's
  mounts before each cell and starts a new one if some are gone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from mxc_kernel.policy.access import Access
from mxc_kernel.policy.filesystem import Filesystem
from mxc_kernel.policy.places import NAMES
from mxc_kernel.records import record

__all__ = ["MountPlan", "appeared", "plan_mounts"]

# Looking for protected names costs about 0.04 ms for each folder. Repositories lie at a grant's
# root or a level or two below it; what is deeper than that, or after the first 256 folders, is not
# looked for.
_DEPTH = 2
_FOLDERS = 256
_ENTRIES = 4096
_SKIPPED = frozenset({"node_modules", "__pycache__"})


@record
class MountPlan:
    """What to mount for a file system, in the order in which it must be given to the executable.

    Args:
        filesystem: what is in force once it is mounted.
        readonly: paths to mount read-only.
        readwrite: paths to mount for writing, with the folders that must not be renamed.
        denied: paths to hide.
        covers: those of all these that keep a larger grant from reaching something.
        absent: granted paths that are not there, or have become symlinks since; not mounted.
        seen: protected paths that are there, mounted or not.
        uncovered: protected paths that are there but are symlinks, which nothing can be mounted
            on: a sandbox could replace them.
        complete: whether all folders down to the second level were looked at for protected names.
    """

    filesystem: Filesystem
    readonly: tuple[str, ...] = ()
    readwrite: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    seen: frozenset[str] = frozenset()
    uncovered: tuple[str, ...] = ()
    complete: bool = True


def plan_mounts(filesystem: Filesystem) -> MountPlan:
    """Compare what is in force with what is on the disk, and say what to mount.

    Reads folders only to find protected names (git hooks, editors' tasks, virtual environments), a
    bounded number of them, through descriptors that refuse symlinks.

    Args:
        filesystem: what a ceiling's `clamp` returned.
    """
    found, complete = _protected(filesystem)
    everything = (filesystem.style.everything, Access.READWRITE)
    rules = Filesystem((everything, *((path, Access.READONLY) for path in found)), filesystem.style)
    wanted = filesystem.meet(rules)
    mounted: list[tuple[str, Access]] = []
    covers: list[str] = []
    absent: list[str] = []
    uncovered: list[str] = []
    seen = set(found)
    for path, access in wanted.grants:
        there = os.path.lexists(path)
        plain = there and _is_plain(path)
        covers_some = access < _above(wanted, path)
        if covers_some and there:
            seen.add(path)
        if plain:
            mounted.append((path, access))
            covers.extend([path] if covers_some else [])
        elif not covers_some:
            absent.append(path)
        elif there:
            uncovered.append(path)
    in_force = Filesystem(tuple(mounted), filesystem.style)
    pins = {pin for path in covers for pin in _between(in_force, path)}
    return MountPlan(
        filesystem=in_force,
        readonly=in_force.readonly,
        readwrite=tuple(sorted({*in_force.readwrite, *pins})),
        denied=in_force.denied,
        covers=tuple(sorted({*covers, *pins})),
        absent=tuple(absent),
        seen=frozenset(seen),
        uncovered=tuple(uncovered),
        complete=complete,
    )


def appeared(before: MountPlan, filesystem: Filesystem) -> tuple[str, ...]:
    """Return protected paths that are there now and were not when the mounts were planned.

    A sandbox may have made them, and something outside may run them: people should look at them
    first.

    Args:
        before: the plan that the sandbox was launched with.
        filesystem: what that plan was made from.
    """
    return tuple(sorted(plan_mounts(filesystem).seen - before.seen))


def _is_plain(path: str) -> bool:
    """Whether no symlink is in a path."""
    try:
        return os.path.realpath(path) == path
    except OSError:  # there was one, which was removed between two looks
        return False


def _above(filesystem: Filesystem, path: str) -> Access:
    parts = filesystem.style.parts(path)
    if not parts:
        return Access.NONE
    return filesystem.access(filesystem.style.join(parts[:-1]))


def _between(filesystem: Filesystem, path: str) -> Iterator[str]:
    """The writable folders above a path, below the grant that makes them writable."""
    parts = filesystem.style.parts(path)
    for end in range(len(parts) - 1, 0, -1):
        folder = filesystem.style.join(parts[:end])
        grant = filesystem.grant_for(folder)
        if grant is None or grant[1] is not Access.READWRITE or grant[0] == folder:
            return
        yield folder


def _protected(filesystem: Filesystem) -> tuple[list[str], bool]:
    """Find protected names at and below the grants that may be written."""
    found: list[str] = []
    budget = _FOLDERS
    complete = os.scandir in os.supports_fd  # else nothing can be looked at safely
    for root in filesystem.readwrite if complete else ():
        level: list[tuple[str, ...]] = [()]
        for depth in range(_DEPTH + 1):
            below: list[tuple[str, ...]] = []
            for names in level:
                if budget == 0:
                    return found, False
                budget -= 1
                folder = os.path.join(root, *names)
                if filesystem.access(folder) is not Access.READWRITE:
                    continue
                entries, whole = _listed(root, names)
                complete &= whole
                found.extend(os.path.join(folder, name) for name in _rules_in(folder, entries))
                if depth < _DEPTH:
                    below.extend(
                        (*names, name) for name in sorted(entries) if _worth(name, entries)
                    )
            level = below
    return found, complete


def _listed(root: str, names: tuple[str, ...]) -> tuple[dict[str, bool], bool]:
    """Return the names in a folder, whether each is a folder itself, and whether that is all."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    entries: dict[str, bool] = {}
    try:
        fd = os.open(root, flags)
    except OSError:  # a file, or gone: nothing to find in it
        return entries, True
    try:
        for name in names:
            below = os.open(name, flags, dir_fd=fd)
            os.close(fd)
            fd = below
        with os.scandir(fd) as listing:
            for entry in listing:
                if len(entries) == _ENTRIES:
                    return entries | _known_in(fd), False
                entries[entry.name] = entry.is_dir(follow_symlinks=False)
    except OSError:  # removed or made unreadable meanwhile; a sandbox of ours cannot read it either
        return entries, True
    finally:
        os.close(fd)
    return entries, True


def _known_in(folder: int) -> dict[str, bool]:
    """Look for the protected names one by one, where a folder is too large to list."""
    known = {}
    for name in {names[0] for names, _ in NAMES} | {".git"}:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            continue
        known[name] = stat.S_ISDIR(status.st_mode)
    return known


def _rules_in(folder: str, entries: dict[str, bool]) -> Iterator[str]:
    """Yield the protected names among a folder's entries."""
    if entries.get(".git") is False:
        yield ".git"  # a file that says where the repository is
    for names, _ in NAMES:
        if names[0] in entries:
            path = os.path.join(*names)
            if len(names) == 1 or os.path.lexists(os.path.join(folder, path)):
                yield path


def _worth(name: str, entries: dict[str, bool]) -> bool:
    return entries[name] and not name.startswith(".") and name not in _SKIPPED
