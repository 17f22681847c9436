"""Checks of Windows and macOS, and of systems that MXC has nothing for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from mxc_kernel.doctor.check import Check, Status, failed
from mxc_kernel.errors import MxcKernelError
from mxc_kernel.mxc import binary, macos

if TYPE_CHECKING:
    from mxc_kernel.policy import Settings

__all__ = ["check_quarantine", "check_system", "judge_macos", "judge_windows"]

# https://learn.microsoft.com/windows/release-health/windows11-release-information, and MXC's
# documentation of what its backend can do on each.
_OLDEST_WINDOWS = 26100  # 24H2
_NATIVE_GRANTS = 26600  # after 25H2: grants without a change of access lists
_NEVER_RUN = "docs/platforms.md says what was never run on this system"


def check_system() -> Check:
    """Is this a system that MXC has a sandbox for?"""
    import platform

    if sys.platform == "win32":
        return judge_windows(sys.getwindowsversion().build)
    if sys.platform == "darwin":
        return judge_macos(platform.mac_ver()[0], platform.machine())
    return Check(
        "system",
        Status.FAIL,
        f"MXC has no sandbox for {sys.platform}",
        "Run the kernel on Linux, Windows 11 or a Mac with Apple silicon.",
    )


def judge_windows(build: int) -> Check:
    """Judge a release of Windows.

    Args:
        build: its build number.
    """
    name = "Windows"
    if build < _OLDEST_WINDOWS:
        return Check(
            name,
            Status.FAIL,
            f"build {build} is older than any that MXC supports",
            f"Install Windows 11 24H2 (build {_OLDEST_WINDOWS}) or newer.",
        )
    if build < _NATIVE_GRANTS:
        return Check(
            name,
            Status.WARN,
            f"build {build}: MXC can grant a folder only by changing its access list, which this"
            f" kernel does not let it; {_NEVER_RUN}",
            "Expect MXC to refuse every sandbox here; use a newer Windows, or Linux.",
        )
    return Check(name, Status.WARN, f"build {build}; {_NEVER_RUN}", "Report what you find.")


def judge_macos(version: str, machine: str) -> Check:
    """Judge a Mac.

    Args:
        version: of macOS, such as ``14.5``.
        machine: its processor, as ``uname`` names it.
    """
    name = "macOS"
    if machine != "arm64":
        return Check(
            name,
            Status.FAIL,
            f"MXC has no executable for a Mac with {machine}",
            "Use a Mac with Apple silicon, and a Python that is built for it.",
        )
    if int(version.partition(".")[0] or 0) < 11:
        return Check(name, Status.FAIL, f"{version} is too old", "Install macOS 11 or newer.")
    return Check(name, Status.WARN, f"{version}; {_NEVER_RUN}", "Report what you find.")


def check_quarantine(
    settings: Settings,
    is_quarantined: Callable[[str], bool] = macos.is_quarantined,
    system: str = sys.platform,
) -> Check:
    """Has macOS marked the executable as a download, and may so refuse to start it?"""
    name = "quarantine"
    if system != "darwin":
        return Check(name, Status.OK, "only macOS has it")
    try:
        with binary.open_verified(settings.executable) as found:
            path = found.source
    except MxcKernelError as error:
        return failed(name, error)
    if is_quarantined(path):
        return Check(
            name,
            Status.WARN,
            f"{path} is marked as a download; macOS may refuse to start it",
            f"Its bytes are the pinned ones, so take the mark off: xattr -d"
            f" com.apple.quarantine {path}",
        )
    return Check(name, Status.OK, "the executable is not marked as a download")
