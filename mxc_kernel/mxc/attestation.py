"""Is the policy in force? Read from the host's side, before any user code runs.

The sandbox is set up by programs that are not ours, from a request that they may misread. So, once
the worker has answered and before it is given anything of the user's, the host looks at what the
kernel says of that process (proc(5)). Everything it looks at is irrevocable from then on: none of
it can be undone by a process without capabilities under the worker's filters.

The process is found from the launcher's process tree. What only the child can tell is marked so.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mxc_kernel.errors import SandboxAttestationError
from mxc_kernel.mxc import mounted
from mxc_kernel.policy import MountPlan

if TYPE_CHECKING:
    from mxc_kernel.mxc.launcher import SandboxProcess

__all__ = ["SEEN", "TOLD", "Agreement", "Fact", "attest", "landlock_version"]

SEEN = "seen by the host in /proc"
TOLD = "self-reported by the sandbox; Linux does not show it"

_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_SECCOMP_FILTER = "2"
_FILTERS = 2  # how many the worker installs
_NAMESPACES = ("user", "pid", "mnt", "ipc", "uts")
_NULL_DEVICE = os.makedev(1, 3)
_ANONYMOUS = ("[eventpoll]", "[eventfd]")  # what an event loop is made of; no way to the host
# A number may be closed and opened again between two questions about it, and then the answers do
# not belong together. What was inherited stays.
_LOOKS = 5
_SYS_LANDLOCK_CREATE_RULESET, _LANDLOCK_VERSION = 444, 1
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
_SESSION_KEYRING = -3

_LIMIT_ROWS = {
    "DATA": "Max data size",
    "FSIZE": "Max file size",
    "NOFILE": "Max open files",
    "NPROC": "Max processes",
}

_NO_LANDLOCK = (
    "NO Landlock, which this kernel does not have: code in the sandbox can take over the sandbox's"
    " init process, whose system calls are not filtered"
)

_libc = ctypes.CDLL(None, use_errno=True)

Fact = tuple[str, str]
"""What holds, and who says so."""


class Agreement(NamedTuple):
    """What a sandbox was started with.

    Attributes:
        uid: whom it runs as.
        leased: whether that uid was made for it; else it is the host's own.
        mounts: the policy's paths.
        readonly: host paths that the program itself needs.
        hidden: paths inside those that it must not see.
        network: whether it may share the host's network.
        resources: the most of its resource limits, by the names of ``RLIMIT_…``.
    """

    uid: int
    leased: bool
    mounts: MountPlan
    readonly: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    network: bool = False
    resources: Mapping[str, int] = {}  # never written to


class _Look(NamedTuple):
    """What the checks look at.

    Attributes:
        proc: the child's folder in /proc.
        status: its ``status``, by name.
        mounts: its mounts.
        agreed: what it was started with.
        process: its launcher.
        said: what the child says of itself.
    """

    proc: str
    status: Mapping[str, str]
    mounts: Sequence[mounted.Mount]
    agreed: Agreement
    process: SandboxProcess
    said: Mapping[str, object]


def attest(
    process: SandboxProcess, agreed: Agreement, said: Mapping[str, object]
) -> tuple[Fact, ...]:
    """Compare a sandbox with what it was started with.

    Args:
        process: the sandbox; its worker has answered, so it is hardened.
        agreed: what it was started with.
        said: what the worker says of itself.

    Returns:
        What holds, for people.

    Raises:
        SandboxAttestationError: something does not. The sandbox must be killed.
    """
    pid = process.workload()
    if pid is None:
        raise _mismatch("the sandboxed process cannot be found below its launcher")
    proc = f"/proc/{pid}"
    try:
        mounts = mounted.read(f"{proc}/mountinfo")
        look = _Look(proc, _status(proc), mounts, agreed, process, said)
        return tuple(check(look) for check in _CHECKS)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise _mismatch(f"{proc} cannot be read: {error}") from error


def landlock_version() -> int:
    """Return the version of Landlock that this system's kernel offers, 0 for none."""
    version = _libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    return max(0, int(version))


def _session_keyring() -> int:
    """Return the number of the host's own session keyring; negative where there is none."""
    number = _SYS_KEYCTL.get(os.uname().machine)
    return -1 if number is None else int(_libc.syscall(number, 0, _SESSION_KEYRING, 0))


def _mismatch(line: str) -> SandboxAttestationError:
    return SandboxAttestationError(
        f"the sandbox is not what the policy says, so it was ended: {line}",
        remedy="Run `mxc-kernel doctor`. If nothing was changed meanwhile, report this.",
    )


def _status(proc: str) -> dict[str, str]:
    with open(f"{proc}/status", encoding="utf-8", errors="replace") as file:
        return {name: value.strip() for name, _, value in (li.partition(":") for li in file)}


# The checks. Each returns what holds, or raises.


def _user(look: _Look) -> Fact:
    """The uid is the agreed one, in every role, and no group came along that was not meant to."""
    for name in ("Uid", "Gid"):
        ids = set(map(int, look.status[name].split()))
        expected = {look.agreed.uid} if name == "Uid" or look.agreed.leased else {os.getgid()}
        if ids != expected or (name == "Uid" and 0 in ids):
            raise _mismatch(f"{name}: {look.status[name]}")
    allowed = set() if look.agreed.leased else {os.getgid(), *os.getgroups()}
    if not set(map(int, look.status["Groups"].split())) <= allowed:
        raise _mismatch(f"Groups: {look.status['Groups']}")
    return f"uid {look.agreed.uid} on the host, not root", SEEN


def _capabilities(look: _Look) -> Fact:
    for name in _CAPABILITIES:
        if int(look.status[name], 16):
            raise _mismatch(f"{name}: {look.status[name]}")
    return "no capabilities, and none to be had", SEEN


def _privileges(look: _Look) -> Fact:
    if look.status["NoNewPrivs"] != "1":
        raise _mismatch(f"NoNewPrivs: {look.status['NoNewPrivs']}")
    return "no new privileges by running programs", SEEN


def _system_calls(look: _Look) -> Fact:
    filters = look.status.get("Seccomp_filters")  # Linux 5.9 and newer
    # In a container the host has filters of its own, which are inherited.
    expected = int(_status("/proc/self").get("Seccomp_filters", "0")) + _FILTERS
    few = filters is not None and int(filters) < expected
    if look.status["Seccomp"] != _SECCOMP_FILTER or few:
        raise _mismatch(f"Seccomp: {look.status['Seccomp']}, Seccomp_filters: {filters}")
    return "system calls filtered", SEEN


def _namespaces(look: _Look) -> Fact:
    wanted = _NAMESPACES if look.agreed.network else (*_NAMESPACES, "net")
    for name in wanted:
        if _same(f"{look.proc}/ns/{name}", f"/proc/self/ns/{name}"):
            raise _mismatch(f"ns/{name}: it is the host's")
    return f"namespaces of its own: {', '.join(wanted)}", SEEN


def _mounts(look: _Look) -> Fact:
    problem = mounted.compare(
        mounted.read("/proc/self/mountinfo"),
        look.mounts,
        look.agreed.mounts,
        readonly=look.agreed.readonly,
        hidden=look.agreed.hidden,
    )
    if problem is not None:
        raise _mismatch(f"mountinfo: {problem}")
    return "mounts: only what the policy grants, writable only what it says", SEEN


def _descriptors(look: _Look) -> Fact:
    """No descriptor that the host or the launcher had was inherited, but for the three pipes.

    The worker goes on loading meanwhile and opens files of its own. Those lie on its own mounts,
    and what has no place on a mount must not be an object that any process above it has.
    """
    process = look.process
    pipes = {_identity(fd) for fd in (process.stdin, process.stdout, process.stderr)}
    above = ["self", *map(str, (process.pid, *process.tree()[:2]))]
    foreign = {of for pid in above for of in _objects(f"/proc/{pid}/fd")} - pipes
    own = {mount.number for mount in look.mounts}
    for number in os.listdir(f"{look.proc}/fd"):
        for _ in range(_LOOKS):
            try:
                target, of, mount = _descriptor(look.proc, number)
            except FileNotFoundError:
                break  # closed meanwhile
            kind, _, name = target.partition(":")
            if (
                of in pipes
                or mount in own
                or (kind == "anon_inode" and name in _ANONYMOUS)
                or (kind in ("pipe", "socket", "/memfd") and of not in foreign)
            ):
                break
        else:
            raise _mismatch(f"fd/{number}: {target}")
    return "no descriptor of the host's but the pipes to it", SEEN


def _terminal(look: _Look) -> Fact:
    with open(f"{look.proc}/stat", encoding="utf-8", errors="replace") as file:
        number = file.read().rpartition(")")[2].split()[4]
    if number != "0":
        raise _mismatch(f"stat: tty_nr is {number}")
    return "no terminal", SEEN


def _core_dumps(look: _Look) -> Fact:
    """Linux treats the limit 1 as "no dump, and no pipe to a dump handler" (core(5))."""
    soft, hard = _resource_limits(look.proc)["Max core file size"]
    if (soft, hard) == ("0", "0"):
        return "core dumps off, but for a handler that core_pattern pipes them to", SEEN
    if (soft, hard) != ("1", "1"):
        raise _mismatch(f"limits: Max core file size {soft} {hard}")
    return "core dumps off", SEEN


def _resources(look: _Look) -> Fact:
    """No process raises its hard limit; a soft one is the program's own affair below that."""
    shown = _resource_limits(look.proc)
    for name, most in look.agreed.resources.items():
        row = _LIMIT_ROWS[name]
        hard = shown[row][1]
        if hard == "unlimited" or int(hard) > most:
            raise _mismatch(f"limits: {row} {hard}")
    names = ", ".join(f"RLIMIT_{name}" for name in look.agreed.resources)
    return f"resource limits as agreed: {names or 'none'}", SEEN


def _resource_limits(proc: str) -> dict[str, tuple[str, str]]:
    """Return soft and hard limits by the names of proc(5)."""
    found = {}
    with open(f"{proc}/limits", encoding="ascii") as file:
        for line in file:
            name, soft, hard = line[:25].strip(), *line[25:].split()[:2]
            found[name] = (soft, hard)
    return found


def _writes(look: _Look) -> Fact:
    offered = landlock_version()
    if look.said.get("landlock") != offered:
        raise _mismatch(f"Landlock: {look.said.get('landlock')!r}, the kernel offers {offered}")
    if not offered:
        return _NO_LANDLOCK, TOLD
    return f"Landlock {offered}: no way into the sandbox's init process, no lost writes", TOLD


def _keyring(look: _Look) -> Fact:
    if "keyring" not in look.said or look.said["keyring"] == _session_keyring():
        raise _mismatch("the session keyring is the user's")
    return "a session keyring of its own", TOLD


_CHECKS: tuple[Callable[[_Look], Fact], ...] = (
    _user,
    _capabilities,
    _privileges,
    _system_calls,
    _namespaces,
    _mounts,
    _descriptors,
    _terminal,
    _core_dumps,
    _resources,
    _writes,
    _keyring,
)


def _same(one: str, other: str) -> bool:
    return _identity(one) == _identity(other)


def _identity(file: str | int) -> tuple[int, int]:
    status = os.stat(file)
    return status.st_dev, status.st_ino


def _descriptor(proc: str, number: str) -> tuple[str, tuple[int, int], int]:
    """Return what a descriptor is called, which object it is and on which mount."""
    path = f"{proc}/fd/{number}"
    target = os.readlink(path)
    with open(f"{proc}/fdinfo/{number}", encoding="ascii") as file:
        mount = next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))
    return target, _identity(path), mount


def _objects(folder: str) -> Collection[tuple[int, int]]:
    """Return the identities of what a process has open, but for the null device and anonymous ones.

    All anonymous objects (epoll and the like) have one identity, which says nothing.
    """
    found = set()
    for number in os.listdir(folder):
        try:
            status = os.stat(f"{folder}/{number}")
        except FileNotFoundError:
            continue
        if not (stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE):
            found.add((status.st_dev, status.st_ino))
    return found
