"""Changing this machine: programs run to their end, folders locked, system packages installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from mxc_kernel.errors import SandboxUnavailableError
from mxc_kernel.mxc.identity import is_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["install_command", "install_package", "locked", "run"]

_OURS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_TIMEOUT = 900  # seconds for one program; the largest download has 61 MB
_MANAGERS = ("apt-get", "dnf", "zypper", "pacman", "apk")
_VERBS = {"pacman": "-S", "apk": "add"}
# Those that are run by us, not only named: without questions, waiting for another run to end.
_UNATTENDED = {
    "apt-get": ("install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"),
    "dnf": ("install", "-y"),
}


def run(
    command: Sequence[str],
    *,
    what: str,
    remedy: str,
    cwd: str = "/",
    env: Mapping[str, str] = os.environ,
) -> str:
    """Run a program to its end and return its output.

    Its umask is 022: what root creates here is for every user to read.

    Args:
        command: the program and its arguments.
        what: what has not been done if it fails, for the message.
        remedy: the error's remedy.
        cwd: the folder to run it in.
        env: its environment.

    Raises:
        SandboxUnavailableError: it did not start, failed, or took more than 15 minutes; with the
            last line that it wrote to stderr.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=True,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            umask=0o022,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1:]
        raise SandboxUnavailableError(": ".join((what, *said)), remedy=remedy) from None
    return done.stdout


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Create a folder if need be and hold its lock; another process waits here meanwhile.

    Root's folders are for every user to read, whatever the umask.

    Raises:
        SandboxUnavailableError: it cannot be created or written.
    """
    lock = os.path.join(folder, ".lock")
    try:
        _make(folder, 0o755 if is_root() else 0o700)
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | _OURS, 0o600)
    except OSError as error:
        raise SandboxUnavailableError(
            f"{folder} cannot be written: {error.strerror}",
            remedy="Make that folder yours, or run the command as the user it belongs to.",
        ) from None
    try:
        _wait_for(fd)
        yield
    finally:
        os.close(fd)


def _wait_for(fd: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                msvcrt.locking(fd, msvcrt.LK_LOCK, 1)  # gives up after ten seconds
            except OSError:
                continue
            return
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX)


def _make(folder: str, mode: int) -> None:
    if os.path.isdir(folder):
        return
    _make(os.path.dirname(folder), mode)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
        os.chmod(folder, mode)


def install_command(package: str) -> str:
    """Return the command line that installs a package of this system, for a person to type."""
    for manager in _MANAGERS:
        if shutil.which(manager):
            return f"{manager} {_VERBS.get(manager, 'install')} {package}"
    return f"your system's package manager, for {package}"


def install_package(package: str, report: Callable[[str], None]) -> None:
    """Install a package of this system.

    Args:
        package: its name.
        report: called with a line of text about what is done.

    Raises:
        SandboxUnavailableError: not root, no known package manager, or it failed; with the command
            to type.
    """
    command = install_command(package)
    manager = next((name for name in _UNATTENDED if shutil.which(name)), None)
    if not is_root() or manager is None:
        raise SandboxUnavailableError(f"{package} is not installed", remedy=f"As root: {command}")
    report(f"Installing {package} with {manager} …")
    install = [manager, *_UNATTENDED[manager], package]
    what, remedy = f"{package} could not be installed", f"Install it by hand: {command}"
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(install, what=what, remedy=remedy, env=env)
    except SandboxUnavailableError:
        if manager != "apt-get":
            raise
        # A fresh container has no package lists at all, an old one stale ones.
        run(["apt-get", "update"], what=what, remedy=remedy, env=env)
        run(install, what=what, remedy=remedy, env=env)
