"""Which MXC executable is run: the one pinned release, as a data table.

The digests were taken from the package that the registry serves under the integrity below; a
different build of the same version is as untrusted as any other file.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from mxc_kernel.errors import SandboxUnavailableError, SandboxUntrustedBinaryError
from mxc_kernel.records import record

__all__ = [
    "CONTRACT_VERSION",
    "EXECUTABLES",
    "INTEGRITY",
    "PACKAGE",
    "VERSION",
    "Executable",
    "checked_digest",
    "for_this_machine",
]

PACKAGE: Final = "@microsoft/mxc-sdk"
VERSION: Final = "1.0.1"
CONTRACT_VERSION: Final = "1.0.0"
INTEGRITY: Final = "sha512-2cP925G5+lQyKzjBVha8uNtVd7XESgDBtgi1yCYYSo9M3xiFyZWtCO4SWPGTk509rdI6nqjyGcZxvEP3t6l8Hg=="  # noqa: E501


@record
class Executable:
    """One executable of the release.

    Args:
        arch: the folder that the package keeps it in, ``x64`` or ``arm64``.
        name: its file name.
        sha256: hexadecimal digest of its bytes.
    """

    arch: str
    name: str
    sha256: str

    @property
    def member(self) -> str:
        """Where it lies inside the package, with forward slashes."""
        return f"bin/{self.arch}/{self.name}"


EXECUTABLES: Final[dict[tuple[str, str], Executable]] = {
    (system, arch): Executable(arch, name, sha256)
    for system, arch, name, sha256 in (
        (
            "linux",
            "x64",
            "lxc-exec",
            "5bd6bdf45bc6c0ecc9bccf372762b571de1f468142c4b2ff80fdb4c540922f26",
        ),
        (
            "linux",
            "arm64",
            "lxc-exec",
            "e8391d55c566ce95c6c838d349941fa0797f037fa617aa0fa4ec39443c6ccddf",
        ),
        (
            "win32",
            "x64",
            "wxc-exec.exe",
            "090f5d1f7bb93104ab08dcd4e8034ef954aeefcdaf6658dde5f7dff4cfc12f3a",
        ),
        (
            "win32",
            "arm64",
            "wxc-exec.exe",
            "91aa4171e8809f33f19622c381116188eab7d8c8cffad231230a31b58146ee77",
        ),
        (
            "darwin",
            "arm64",
            "mxc-exec-mac",
            "c54390e48a25187fdae10758c6a286bede49416cb610c88c6705fd8445e97f60",
        ),
    )
}

_ARCHITECTURES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


def for_this_machine(system: str = sys.platform, machine: str | None = None) -> Executable:
    """Return the release's executable for a system and processor.

    Args:
        system: a value of ``sys.platform``.
        machine: the processor as ``uname`` names it; this machine's if not given.

    Raises:
        SandboxUnavailableError: the release has none for it.
    """
    machine = (machine or _machine()).lower()
    executable = EXECUTABLES.get((system, _ARCHITECTURES.get(machine, machine)))
    if executable is None:
        raise SandboxUnavailableError(
            f"MXC {VERSION} has no executable for {system} on {machine}",
            remedy="Run the kernel on Linux, x86-64 or 64-bit ARM with glibc 2.34 or newer.",
        )
    return executable


def _machine() -> str:
    if hasattr(os, "uname"):
        return os.uname().machine
    import platform  # 7 ms, and only Windows needs it

    return platform.machine()


def checked_digest(digest: str) -> str:
    """Return a pinned SHA-256 if it can pin anything.

    A table entry that is still a placeholder must never come to mean "any file will do".

    Raises:
        SandboxUntrustedBinaryError: it is not a SHA-256 or all zeros.
    """
    if len(digest) != 64 or set(digest) - set("0123456789abcdef") or not digest.strip("0"):
        raise SandboxUntrustedBinaryError(
            "no digest is known for the MXC executable, so none can be trusted",
            remedy="Install a released version of mxc-kernel.",
        )
    return digest
