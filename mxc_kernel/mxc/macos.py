"""What only macOS has: code signatures, and the mark of files that were downloaded."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from mxc_kernel.errors import SandboxUnavailableError, SandboxUntrustedBinaryError
from mxc_kernel.mxc.identity import is_root
from mxc_kernel.mxc.surroundings import MACOS_ENFORCED, macos_launcher, macos_workload
from mxc_kernel.mxc.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TEAM", "MacHost", "check_signature", "is_quarantined"]

TEAM = "UBF8T346G9"
"""Microsoft Corporation's team identifier with Apple."""

_QUARANTINE = "com.apple.quarantine"
_CODESIGN = "/usr/bin/codesign"
_XATTR = "/usr/bin/xattr"
_TIMEOUT = 60  # seconds; codesign may ask Apple's servers whether a certificate was revoked
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


class MacHost:
    """macOS on Apple silicon: Seatbelt through ``mxc-exec-mac``."""

    backend = "seatbelt"
    creationflags = 0
    dacl_mutation = False
    enforced: tuple[tuple[str, str], ...] = MACOS_ENFORCED

    def group(self, memory: int | None, processes: int | None) -> Tree:  # noqa: ARG002
        """Return what ends the tree of processes; nothing there holds the limits."""
        return Tree()

    def launcher_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the executable's environment."""
        return macos_launcher(environ)

    def workload_environment(
        self,
        scratch: str,
        python: str,
        environ: Mapping[str, str],  # noqa: ARG002
    ) -> dict[str, str]:
        """Return the environment of the sandboxed Python."""
        return macos_workload(scratch, python)

    def check_user(self) -> None:
        """Refuse root: a Seatbelt profile is all that would stand between.

        Raises:
            SandboxUnavailableError: it is root.
        """
        if is_root():
            raise SandboxUnavailableError(
                "a sandbox is never started as root", remedy="Start Jupyter as an ordinary user."
            )


def check_signature(path: str, codesign: str = _CODESIGN) -> None:
    """Refuse an executable that Microsoft has not signed, beside the hash of its bytes.

    Args:
        path: the executable.
        codesign: the system's program that checks it.

    Raises:
        SandboxUntrustedBinaryError: it has no signature, another team's, or one that is broken.
    """
    requirement = f'=anchor apple generic and certificate leaf[subject.OU] = "{TEAM}"'
    command = [codesign, "--verify", "--strict", "-R", requirement, path]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
            env=_ENVIRONMENT,
        )
        said = done.stderr.strip().splitlines()[-1:]
        problem = "" if done.returncode == 0 else (said or [f"exit status {done.returncode}"])[0]
    except (OSError, subprocess.SubprocessError) as error:
        problem = str(error)
    if problem:
        raise SandboxUntrustedBinaryError(
            f"the signature of {path} is not that of team {TEAM}: {problem}",
            remedy="Remove that file, then run `mxc-kernel setup` for the verified one.",
        )


def is_quarantined(path: str, xattr: str = _XATTR) -> bool:
    """Whether a file has the mark of a download, with which macOS may refuse to start it."""
    command = [xattr, "-p", _QUARANTINE, path]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
            env=_ENVIRONMENT,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
