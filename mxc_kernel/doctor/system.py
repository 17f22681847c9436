"""Checks of the machine: interpreters, executables, user namespaces, identities."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mxc_kernel.doctor.check import Check, Status, failed
from mxc_kernel.errors import MxcKernelError
from mxc_kernel.mxc import binary, identity, runtime

if TYPE_CHECKING:
    from mxc_kernel.mxc.binary import VerifiedBinary
    from mxc_kernel.mxc.identity import Identity
    from mxc_kernel.mxc.runtime import Interpreter
    from mxc_kernel.policy import Settings

_TRIED_BWRAP = (0, 8, 0)  # the oldest bubblewrap that the sandbox was tried with (Debian 12)
_NEWER_BWRAP = "Install bubblewrap 0.8.0 or newer."
_NAMESPACE_TIMEOUT = 20.0  # seconds; it takes about 10 ms


def check_python(version: tuple[int, int] = sys.version_info[:2], flags: object = None) -> Check:
    """Is this interpreter new enough, and does it ignore the current folder and PYTHONPATH?"""
    flags = sys.flags if flags is None else flags
    name = "Python of the kernel"
    detail = f"{version[0]}.{version[1]} at {sys.executable}"
    if version < (3, 11):
        return Check(name, Status.FAIL, detail, "Install mxc-kernel into Python 3.11 or newer.")
    if not (getattr(flags, "safe_path", False) and getattr(flags, "ignore_environment", False)):
        return Check(
            name,
            Status.FAIL,
            f"{detail}, which may import from the current folder or PYTHONPATH",
            "Start it as `mxc-kernel`, or as python -E -P -m mxc_kernel.",
        )
    return Check(name, Status.OK, f"{detail}; imports nothing from the current folder")


def check_executable(
    settings: Settings, open_verified: Callable[[str | None], VerifiedBinary] = binary.open_verified
) -> Check:
    """Is the MXC executable there, and is it the very one that is pinned?"""
    name = "MXC executable"
    try:
        with open_verified(settings.executable) as found:
            return Check(
                name,
                Status.OK,
                f"{found.version} at {found.source}, SHA-256 {found.sha256[:16]}... as pinned",
            )
    except MxcKernelError as error:
        return failed(name, error)


def check_bubblewrap(
    directory: Callable[[], str] = binary.bwrap_directory,
    version_in: Callable[[str], tuple[int, ...]] = binary.bwrap_version,
) -> Check:
    """Is bubblewrap there, trusted, and of a version that was tried?"""
    name = "bubblewrap"
    try:
        folder = directory()
        version = version_in(folder)
    except MxcKernelError as error:
        return failed(name, error)
    detail = f"{'.'.join(map(str, version))} in {folder}"
    if version < _TRIED_BWRAP:
        return Check(
            name,
            Status.WARN,
            f"{detail}, older than any that was tried",
            _NEWER_BWRAP,
        )
    return Check(name, Status.OK, f"{detail}, where only root can replace it")


def check_namespaces(
    settings: Settings,
    directory: Callable[[], str] = binary.bwrap_directory,
    sysctl: Callable[[str], str | None] | None = None,
) -> Check:
    """May the user that cells run as create user namespaces?"""
    name = "user namespaces"
    try:
        bwrap = os.path.join(directory(), "bwrap")
        with leased(settings) as user:
            trial = _unshare(bwrap, user)
    except MxcKernelError as error:
        return failed(name, error)
    except (OSError, subprocess.SubprocessError) as error:
        return Check(
            name, Status.FAIL, f"they could not be tried: {error}", "Install bubblewrap again."
        )
    who = f"uid {user.uid}" if user else "this user"
    if trial.returncode == 0:
        return Check(name, Status.OK, f"{who} can create them (a bubblewrap of its own ran)")
    said = trial.stderr.strip().splitlines()[-1:] or [f"exit status {trial.returncode}"]
    remedy = _NEWER_BWRAP if "nknown option" in said[0] else _namespace_remedy(sysctl or _sysctl)
    return Check(name, Status.FAIL, f"{who} cannot create them: {said[0]}", remedy)


def check_landlock(version: Callable[[], int] | None = None) -> Check:
    """Does the kernel have Landlock, which closes the sandbox's init process to the cells?"""
    from mxc_kernel.mxc import attestation  # Linux only

    name = "Landlock"
    found = (version or attestation.landlock_version)()
    if not found:
        return Check(
            name,
            Status.WARN,
            "this kernel has none, so code in a cell can take over the sandbox's init process,"
            " whose system calls are not filtered",
            "Boot Linux 5.13 or newer with `landlock` in the lsm= list (/sys/kernel/security/lsm).",
        )
    return Check(name, Status.OK, f"version {found}")


@contextmanager
def leased(settings: Settings) -> Iterator[Identity | None]:
    """Hold the identity that cells would get: one of its own for root, else none.

    Raises:
        SandboxUnavailableError: no uid is free.
    """
    if not identity.is_root():
        yield None
        return
    first, last = settings.uids
    with identity.lease(range(first, last + 1)) as lease:
        yield lease.identity


def _unshare(bwrap: str, user: Identity | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [bwrap, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        timeout=_NAMESPACE_TIMEOUT,
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
    )


def _sysctl(key: str) -> str | None:
    try:
        with open(f"/proc/sys/{key.replace('.', '/')}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def _namespace_remedy(sysctl: Callable[[str], str | None]) -> str:
    """Name the switch that is off, of those that distributions use."""
    if sysctl("user.max_user_namespaces") == "0":
        return "Run: sudo sysctl -w user.max_user_namespaces=15000"
    if sysctl("kernel.unprivileged_userns_clone") == "0":  # Debian up to 10, hardened kernels
        return "Run: sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1":  # Ubuntu from 23.10
        return (
            "AppArmor forbids it. Give bwrap a profile that allows `userns` (Ubuntu's package"
            " apparmor-profiles has bwrap-userns-restrict), or run:"
            " sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        )
    return (
        "In a container, allow it there (Docker: --security-opt seccomp=unconfined"
        " --security-opt systempaths=unconfined); else ask the administrator."
    )


def check_identity(settings: Settings) -> Check:
    """Which user do cells run as?"""
    name = "user of the cells"
    try:
        with leased(settings) as user:
            if user is None:
                uid = "" if sys.platform == "win32" else f"uid {os.geteuid()}, "
                return Check(name, Status.OK, f"{uid}the same as the kernel's")
            return Check(
                name,
                Status.OK,
                f"a uid of its own for each kernel, now {user.uid}, since this is root;"
                " files that a cell writes belong to it",
            )
    except MxcKernelError as error:
        return failed(name, error)


def check_interpreter(
    settings: Settings,
    default: Callable[[Identity | None], Interpreter] = runtime.default,
) -> Check:
    """Which Python do cells run in, and can their user reach it?"""
    name = "Python of the cells"
    try:
        with leased(settings) as user:
            chosen = settings.python
            found = runtime.describe(chosen, user) if chosen else default(user)
            closed = runtime.closed_to(user, found) if user else None
    except MxcKernelError as error:
        return failed(name, error)
    if closed is not None:
        return Check(
            name,
            Status.FAIL,
            f"the user of the cells cannot use {found.executable}: {closed} is closed to it",
            "Run `mxc-kernel setup`, or choose an interpreter that everyone may run.",
        )
    return Check(
        name, Status.OK, f"{found.version} at {found.executable}, ipykernel {found.ipykernel}"
    )
