"""The unprivileged user that a kernel started as root runs its sandbox as.

As root a sandbox would keep every capability in its namespace and could remount its way out, so the
kernel leases a uid, and the gid of the same number, that nobody else is using: not an account, not
another kernel, not a running process. The lease is a file lock; it ends with the kernel, however
the kernel ends.

Files that the sandbox creates in a folder granted for writing belong to the leased uid. Leases are
given lowest first, so that the next kernel usually can work on with them. Users' files are never
given other owners or modes.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import TYPE_CHECKING

from mxc_kernel.errors import SandboxPolicyError, SandboxUnavailableError
from mxc_kernel.records import record

if TYPE_CHECKING or sys.platform != "win32":
    import fcntl
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

__all__ = [
    "DEFAULT_RANGE",
    "Closed",
    "Identity",
    "Lease",
    "check_reachable",
    "is_root",
    "lease",
    "unreachable",
]

# 60706-61183: systemd's table of uids (systemd.io/UIDS-GIDS) has no use for it: it lies between the
# users it maps into containers or makes up for logins and its dynamic services (61184-65519).
# Debian's policy (9.2.2) keeps 60000-64999 for accounts of packages, listed in base-passwd: none of
# them is below 61184 today, and one that gets created is an account, which a lease passes over. It
# is below 65536, so that it exists inside containers that have only 65536 uids.
DEFAULT_RANGE = range(60706, 61184)
LOCKS = "/run/mxc-kernel/uids"

_FIRST_USER = 1000  # below are the system's accounts, also those that a package adds tomorrow
_NEVER = frozenset({65534, 65535, 2**32 - 1})  # nobody, and -1 in 16 and 32 bits


@record
class Identity:
    """A user without name, privileges or supplementary groups."""

    uid: int
    gid: int


def is_root() -> bool:
    """Whether this process is root, which Windows does not have."""
    return sys.platform != "win32" and os.geteuid() == 0


class Lease:
    """A uid that is this process's alone until it is closed or the process ends.

    Attributes:
        identity: the leased user.
    """

    def __init__(self, identity: Identity, fd: int) -> None:
        self.identity = identity
        self._fd = fd

    def close(self) -> None:
        """Give the uid back. End everything that runs under it first."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def lease(uids: Sequence[int] = DEFAULT_RANGE, *, locks: str = LOCKS) -> Lease:
    """Lease a uid for this kernel's sandbox.

    Args:
        uids: the uids to choose from, the preferred ones first.
        locks: folder of the lock files, which only root may enter.

    Raises:
        SandboxUnavailableError: not root, a range that touches real accounts, or none is free.
    """
    if not is_root():
        raise SandboxUnavailableError(
            "only a kernel started as root leases a uid",
            remedy="Nothing to do: as an ordinary user the sandbox runs as you.",
        )
    if not uids or min(uids) < _FIRST_USER or max(uids) >= 2**31:
        raise SandboxUnavailableError(
            f"the uids to lease must lie between {_FIRST_USER} and {2**31 - 1}",
            remedy=f"Choose a range that no account uses; the default is {_text(DEFAULT_RANGE)}.",
        )
    folder = _open_locks(locks)
    try:
        running: set[int] | None = None
        for uid in uids:
            if uid in _NEVER or not _is_mapped(uid) or _is_account(uid):
                continue
            fd = _lock(folder, str(uid))
            if fd is None:
                continue
            # After the lock: the last holder's processes may still be on their way out.
            running = _running() if running is None else running
            if uid not in running:
                return Lease(Identity(uid, uid), fd)
            os.close(fd)
    finally:
        os.close(folder)
    raise SandboxUnavailableError(
        f"every uid of {_text(uids)} is in use or does not exist here",
        remedy="End kernels that are no longer needed, or configure another range of uids.",
    )


def _text(uids: Sequence[int]) -> str:
    return f"{min(uids)}-{max(uids)}"


def _open_locks(path: str) -> int:
    """Open the folder of the lock files, creating it if need be.

    Raises:
        SandboxUnavailableError: somebody other than root could have put something there.
    """
    try:
        for folder in (os.path.dirname(path), path):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise SandboxUnavailableError(
            f"the folder of the uid locks {path} cannot be used: {error.strerror}",
            remedy=f"Make {os.path.dirname(path)} a folder that belongs to root.",
        ) from None
    status = os.fstat(fd)
    if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(fd)
        raise SandboxUnavailableError(
            f"the folder of the uid locks {path} is open to others than root",
            remedy=f"Remove {path}; the next kernel creates it anew.",
        )
    return fd


def _lock(folder: int, name: str) -> int | None:
    """Lock a file for as long as its descriptor is open; None if another process holds it.

    The file is never removed: a second process could lock the removed one, a third the new one.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, 0o600, dir_fd=folder)
    except OSError as error:
        raise SandboxUnavailableError(
            f"the lock of uid {name} cannot be used: {error.strerror}",
            remedy="Remove that file; only root can have put it there.",
        ) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_account(uid: int) -> bool:
    import grp
    import pwd

    for find in (pwd.getpwuid, grp.getgrgid):
        try:
            find(uid)
        except KeyError:
            continue
        return True
    return False


def _is_mapped(number: int) -> bool:
    """Return whether the uid and the gid exist in the user namespace we are in (a container's)."""
    for kind in ("uid", "gid"):
        with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
            spans = [tuple(map(int, line.split())) for line in file]
        if not any(first <= number < first + count for first, _outside, count in spans):
            return False
    return True


def _running() -> set[int]:
    """Return every uid and gid, real, effective, saved and file system's, that a process has.

    ``status`` is read, not the owner of ``/proc/<pid>``, which is root for processes that cannot be
    dumped. 78 processes take 3 ms.
    """
    found: set[int] = set()
    for pid in os.listdir("/proc"):
        if not pid.isdecimal():
            continue
        try:
            with open(f"/proc/{pid}/status", "rb") as file:
                status = file.read(4096)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        for line in status.splitlines():
            if line.startswith((b"Uid:", b"Gid:")):
                found.update(map(int, line.split()[1:]))
    return found


@record
class Closed:
    """What keeps a user from a path.

    Args:
        path: the path that was asked for.
        at: the first folder on the way, or the path itself, that does not let the user through.
        need: what is missing there: ``enter``, ``read``, ``write`` or ``exist``.
    """

    path: str
    at: str
    need: str


_TESTS = {"enter": "-x", "read": "-r", "write": "-w"}
# The system's own `test` gives the kernel's answer, with access lists, read-only mounts and network
# file systems in it, where mode bits alone would guess. One run answers for any number of paths.
_SCRIPT = 'while [ $# -gt 0 ]; do if [ "$1" "$2" ]; then printf 1; else printf 0; fi; shift 2; done'


def unreachable(identity: Identity, wanted: Iterable[tuple[str, bool]]) -> list[Closed]:
    """Return which paths a user cannot use, and what on the way is closed to it.

    Needs root. One short-lived ``/bin/sh`` under that uid asks the kernel; about 3 ms in all.

    Args:
        identity: the user.
        wanted: pairs of an absolute path and whether it must be writable, not only readable.

    Raises:
        SandboxUnavailableError: the question could not be asked.
    """
    steps = {path: list(_steps(path, write)) for path, write in wanted}
    tests = list(dict.fromkeys(step for each in steps.values() for step in each))
    passed = _ask(identity, tests) if tests else {}
    found = []
    for path, each in steps.items():
        first = next((step for step in each if not passed[step]), None)
        if first is not None:
            at, need = first
            found.append(Closed(path, at, need if os.path.lexists(at) else "exist"))
    return found


def _steps(path: str, write: bool) -> Iterable[tuple[str, str]]:
    above = [path]
    while os.path.dirname(above[-1]) != above[-1]:
        above.append(os.path.dirname(above[-1]))
    for folder in reversed(above[1:]):
        yield folder, "enter"
    yield path, "read"
    if os.path.isdir(path):
        yield path, "enter"
    if write:
        yield path, "write"


def _ask(identity: Identity, tests: list[tuple[str, str]]) -> dict[tuple[str, str], bool]:
    import subprocess

    arguments = [word for path, need in tests for word in (_TESTS[need], path)]
    try:
        answer = subprocess.run(
            ["/bin/sh", "-c", _SCRIPT, "sh", *arguments],
            user=identity.uid,
            group=identity.gid,
            extra_groups=[],
            capture_output=True,
            check=True,
            cwd="/",
            env={},
            timeout=30,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxUnavailableError(
            f"what uid {identity.uid} can reach could not be found out: {error}",
            remedy="Run `mxc-kernel doctor`; /bin/sh must be executable for everyone.",
        ) from None
    return dict(zip(tests, (byte == ord("1") for byte in answer), strict=True))


def check_reachable(identity: Identity, wanted: Iterable[tuple[str, bool]]) -> None:
    """Refuse granted paths that the sandbox's user cannot use.

    Args:
        identity: the user that the sandbox runs as.
        wanted: pairs of an absolute, canonical path and whether it was granted for writing.

    Raises:
        SandboxPolicyError: naming the folder on the way that is closed to the user.
        SandboxUnavailableError: the question could not be asked.
    """
    written = dict(wanted)
    for closed in unreachable(identity, written.items()):
        raise SandboxPolicyError(
            f"{closed.path} cannot be {'written' if written[closed.path] else 'read'} in the "
            f"sandbox: its user, uid {identity.uid}, may not {_phrase(closed)}",
            remedy=_remedy(closed),
        )


def _phrase(closed: Closed) -> str:
    return f"see {closed.at}" if closed.need == "exist" else f"{closed.need} {closed.at}"


def _remedy(closed: Closed) -> str:
    if closed.need == "exist":
        return f"Check that {closed.at} exists."
    if closed.need == "write":
        return "Use a folder that this uid may write to, or start the kernel as an ordinary user."
    return f"Move it out of {closed.at}, open that to others, or start the kernel as its owner."
