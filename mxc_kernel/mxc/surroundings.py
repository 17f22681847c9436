"""The environments of the executable and of the sandboxed Python on Windows and macOS.

Pure, so that they are tested on any system. Variables decide where programs look for code, so
nothing of the host's is passed on but what is named here.
"""

from __future__ import annotations

import ntpath
from collections.abc import Mapping

__all__ = [
    "MACOS_ENFORCED",
    "WINDOWS_ENFORCED",
    "macos_launcher",
    "macos_workload",
    "windows_launcher",
    "windows_workload",
]

_BY_THE_HOST = (
    ("time for a cell", "the kernel's host process: interrupt, then kill"),
    ("output of a cell", "the kernel's host process: capped and redacted"),
    ("displays and help texts", "the kernel's host process: by the level of [output] html"),
    ("messages of widgets", "the kernel's host process: by the level of [output] html"),
)
WINDOWS_ENFORCED = (
    ("files", "Windows: an AppContainer, which only what is granted lets in"),
    ("network", "Windows: an AppContainer without capabilities"),
    ("processes of others", "Windows: an AppContainer, of low integrity"),
    ("memory", "Windows: a job object"),
    ("number of processes", "Windows: a job object"),
    *_BY_THE_HOST,
)
MACOS_ENFORCED = (
    ("files", "macOS: a Seatbelt profile; that a file exists, and its size, is not hidden"),
    ("network", "macOS: a Seatbelt profile without any connection"),
    ("processes of others", "NOT hidden; signals to them are blocked by the Seatbelt profile"),
    ("memory", "NOT enforced: macOS has no control groups"),
    ("number of processes", "NOT enforced: macOS has no control groups"),
    *_BY_THE_HOST,
)

# What Windows' own libraries look for before a program's first line, and MXC for its own files.
_SYSTEM = ("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "PROCESSOR_ARCHITECTURE")
_LAUNCHER = ("LOCALAPPDATA", "USERPROFILE", "TEMP", "TMP", "PROGRAMDATA")


def windows_launcher(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of ``wxc-exec.exe``, which keeps what it must undo in LOCALAPPDATA."""
    found = _named(environ, (*_SYSTEM, *_LAUNCHER))
    return {**found, "PATH": _system_path(found)}


def windows_workload(scratch: str, python: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the sandboxed Python: every folder of the user's is its scratch.

    wxc-exec.exe refuses an environment without SYSTEMROOT and LOCALAPPDATA (seen under Wine).
    """
    found = _named(environ, _SYSTEM)
    home = ntpath.dirname(python)
    return {
        **found,
        "PATH": ";".join((home, ntpath.join(home, "Scripts"), _system_path(found))),
        **dict.fromkeys(("USERPROFILE", "HOME", "TEMP", "TMP", "TMPDIR"), scratch),
        **dict.fromkeys(("LOCALAPPDATA", "APPDATA"), ntpath.join(scratch, "AppData")),
        "IPYTHONDIR": ntpath.join(scratch, ".ipython"),
        "MPLCONFIGDIR": ntpath.join(scratch, ".matplotlib"),
        "PYTHONUTF8": "1",
    }


def _named(environ: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """Pick variables by name; Windows does not tell upper from lower case in them."""
    upper = {name.upper(): value for name, value in environ.items()}
    found = {name: upper[name] for name in names if name in upper}
    root = found.setdefault("SYSTEMROOT", r"C:\Windows")
    found.setdefault("SYSTEMDRIVE", ntpath.splitdrive(root)[0])
    return found


def _system_path(found: Mapping[str, str]) -> str:
    root = found["SYSTEMROOT"]
    return ";".join((ntpath.join(root, "System32"), root))


def macos_launcher(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of ``mxc-exec-mac``, which asks for the home folder alone."""
    home = environ.get("HOME")
    return {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **({"HOME": home} if home else {})}


def macos_workload(scratch: str, python: str) -> dict[str, str]:
    """Return the environment of the sandboxed Python: every folder of the user's is its scratch."""
    return {
        "PATH": f"{python.rpartition('/')[0]}:/usr/bin:/bin",
        "HOME": scratch,
        "TMPDIR": scratch,
        "IPYTHONDIR": f"{scratch}/.ipython",
        "MPLCONFIGDIR": f"{scratch}/.matplotlib",
        "XDG_CACHE_HOME": f"{scratch}/.cache",
        "XDG_CONFIG_HOME": f"{scratch}/.config",
        "XDG_DATA_HOME": f"{scratch}/.local/share",
    }
