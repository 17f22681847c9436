"""What the child gives up before anything of the user's runs: irrevocable, and inherited.

MXC's bubblewrap leaves its caller three things to do. Its init process keeps every system call, and
a process of the same user could write into that one's memory through ``/proc/1/mem``: a Landlock
domain forbids it. System calls that only attacks use are refused by seccomp filters, which the host
sends ready-made. And what is not granted is a writable file system in memory, where a write would
succeed and be gone: Landlock turns it into an error that can be explained.

Only the standard library, and no user code before or beside it. The host attests what of this can
be seen from outside (:mod:`mxc_kernel.mxc.attestation`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import stat
from binascii import a2b_base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["harden"]

_PR_SET_NO_NEW_PRIVS = 38
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SESSION_KEYRING = -3
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1
_SOCK_FILTER = 8  # bytes of one instruction

# linux/landlock.h; the same numbers on every processor.
_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_WRITE_FILE = 1 << 1
_TRUNCATE = 1 << 14  # from version 3
_WRITES = {  # by the version that brought them
    1: _WRITE_FILE | sum(1 << bit for bit in range(4, 13)),  # remove and make, of every kind
    2: 1 << 13,  # rename and link from one folder to another
    3: _TRUNCATE,
}
_SCOPES = {6: 0b11}  # abstract Unix sockets and signals stay within the sandbox

# What has to stay writable besides the grants. Writing to a process outside through /proc is not
# among what this permits: there Linux asks as it asks a debugger, and Landlock says no.
_WRITABLE = (
    "/tmp",  # noqa: S108
    "/proc",
    "/dev/shm",  # noqa: S108
    "/dev/pts",
    *(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx")),
)

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def harden(orders: Mapping[str, Any]) -> dict[str, object]:
    """Give up all that the host tells us to, once and for good.

    Args:
        orders: ``writable``, granted paths that may be written; ``masked``, folders that the policy
            denies; ``programs``, seccomp filters in Base64; ``resources``, the most of each
            resource limit, by the names of ``RLIMIT_…``.

    Returns:
        What the host cannot see from outside: ``landlock``, the version of Landlock in force, 0 for
        none; ``keyring``, the number of the session keyring, None for none.

    Raises:
        OSError: something could not be done. Nothing of the user's may run then.
        RuntimeError: there is a second thread already, which Landlock would not reach.
    """
    if len(os.listdir("/proc/self/task")) != 1:
        raise RuntimeError("hardening comes before the first thread")
    machine = os.uname().machine
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    keyring = _session_keyring(machine)
    _limit_resources(orders.get("resources", {}))
    _close_masks(orders["masked"])
    landlock = _restrict_writes((*orders["writable"], *_WRITABLE), required=orders["writable"])
    # The one with the list of calls last: it stands in nobody's way until then.
    for program in reversed(orders["programs"]):
        _install(machine, a2b_base64(program))
    return {"landlock": landlock, "keyring": keyring}


def _limit_resources(most: Mapping[str, int]) -> None:
    """Lower resource limits; no process without privileges can raise them again."""
    for name, value in most.items():
        number = getattr(resource, f"RLIMIT_{name}")
        soft, hard = (
            value if old == resource.RLIM_INFINITY else min(old, value)
            for old in resource.getrlimit(number)
        )
        resource.setrlimit(number, (soft, hard))


def _session_keyring(machine: str) -> int | None:
    """Return which keyring requests for a key would look at; the filters end such requests."""
    number = _SYS_KEYCTL.get(machine)
    if number is None:
        return None
    keyring: int = _libc.syscall(number, 0, _SESSION_KEYRING, 0)
    return keyring if keyring >= 0 else None


def _close_masks(paths: Iterable[str]) -> None:
    """Let nobody write by mistake into the empty folders that stand for denied ones.

    Where they lie inside of a grant Landlock cannot tell them from it. They are ours, so this is no
    protection; a write would only vanish, and now it fails.
    """
    wanted = {os.fsencode(path) for path in paths}
    if not wanted:
        return
    with open("/proc/self/mountinfo", "rb") as file:
        lines = [line.split(b" ") for line in file]
    for fields in lines:
        kind = fields[fields.index(b"-") + 1]
        point = _unescaped(fields[4])
        # Never a folder of the host's: only a private, empty file system of our own.
        if point in wanted and fields[3] == b"/" and kind == b"tmpfs" and not os.listdir(point):
            status = os.stat(point)
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
                os.chmod(point, 0o555)  # noqa: S103  # readable: it is empty


def _unescaped(text: bytes) -> bytes:
    for char in b" \t\n\\":
        text = text.replace(b"\\%03o" % char, bytes((char,)))
    return text


def _restrict_writes(paths: Iterable[str], *, required: Iterable[str]) -> int:
    """Forbid writes but below some paths, and meddling with processes outside; return the version.

    The kernel counts a process outside of the domain as one that we may not debug: its memory,
    environment and descriptors in ``/proc`` are closed to us.
    """
    version = _libc.syscall(_SYS_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return 0
    handled = sum(bits for since, bits in _WRITES.items() if since <= version)
    scoped = sum(bits for since, bits in _SCOPES.items() if since <= version)
    wanted = _Ruleset(handled, 0, scoped)
    size = ctypes.sizeof(wanted) if scoped else 8  # older ones know only the first field
    ruleset = _check(_libc.syscall(_SYS_CREATE_RULESET, ctypes.byref(wanted), size, 0))
    try:
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                if path in required:
                    raise
                continue
            _allow(ruleset, fd, handled)
        _check(_libc.syscall(_SYS_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return int(version)


def _allow(ruleset: int, fd: int, handled: int) -> None:
    try:
        folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        allowed = handled if folder else handled & (_WRITE_FILE | _TRUNCATE)
        rule = _PathBeneath(allowed, fd)
        _check(_libc.syscall(_SYS_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
    finally:
        os.close(fd)


def _install(machine: str, program: bytes) -> None:
    count, rest = divmod(len(program), _SOCK_FILTER)
    if machine not in _SYS_SECCOMP or rest or not count:
        raise OSError(errno.EINVAL, "no system call filter for this processor")
    code = _Program(count, program)
    number, sync = _SYS_SECCOMP[machine], _SECCOMP_FILTER_FLAG_TSYNC
    _check(_libc.syscall(number, _SECCOMP_SET_MODE_FILTER, sync, ctypes.byref(code)))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
