"""The JSON request that the MXC executable reads: contract version 1.0.0.

Everything the executable is told stands in one :class:`Workload`; what a policy does not grant is
absent from it, and absent means denied. ``network`` is always written out in full. One function
renders for each backend, over shared parts; `mxc_kernel.mxc.backends` says what each can enforce.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy import Filesystem, MountPlan, Network, NetworkMode, PathStyle
from mxc_kernel.records import record

__all__ = ["CONTRACT_VERSION", "Workload", "render"]

CONTRACT_VERSION = "1.0.0"

Request = dict[str, object]

# What CreateProcess takes for a command line, its closing NUL left out.
# https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-createprocessw
_LONGEST_COMMAND_LINE = 32766


@record
class Workload:
    """What runs in the sandbox besides the policy: our own part of the request.

    Args:
        name: the container's id, for people reading process lists.
        command: argument list of the program to run.
        cwd: folder inside the sandbox to start in; it must be visible there.
        environment: the program's whole environment. Readable in the launcher's argument list on
            the host, so never a secret.
        readonly: host paths that the program itself needs, the declared baseline.
        hidden: folders inside those that it must not see.
        readwrite: folders of the sandbox's own, on systems where it has no private ``/tmp``.
        dacl_mutation: on Windows, whether MXC may change the access lists of granted paths while
            the sandbox runs. The operator's choice: before 25H2 nothing can be granted without.
    """

    name: str
    command: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str] = {}
    readonly: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    readwrite: tuple[str, ...] = ()
    dacl_mutation: bool = False


def render(
    mounts: MountPlan, network: Network, workload: Workload, backend: str = "bubblewrap"
) -> Request:
    """Return the request that enforces a policy.

    Args:
        mounts: the effective policy's paths, as they are on the disk now.
        network: where connections may go.
        workload: the program and what it needs to start.
        backend: what enforces it: ``bubblewrap``, ``processcontainer`` or ``seatbelt``.

    Raises:
        SandboxBackendUnsupportedError: the policy needs what this backend cannot enforce.
        SandboxPolicyError: a path or a variable that the executable would refuse or misread.
    """
    files = _Files(
        (*workload.readonly, *mounts.readonly),
        (*workload.readwrite, *mounts.readwrite),
        (*workload.hidden, *mounts.denied),
    )
    if backend == "bubblewrap" and network.mode is NetworkMode.CLOSED:
        return _bubblewrap(files, workload)
    from mxc_kernel.mxc import backends  # not before a launch on Linux: see there

    style = backends.of(backend).style
    for path in (*files.readonly, *files.readwrite, *files.denied):
        _refuse_unspeakable(path, style)
    granted = Filesystem.of(
        readonly=files.readonly, readwrite=files.readwrite, denied=files.denied, style=style
    )
    backends.check(backend, granted, network)
    # In normal form no path stands in two lists, where Windows would add up their rights.
    files = _Files(granted.readonly, granted.readwrite, granted.denied)
    if backend == "processcontainer":
        return _processcontainer(files, network, workload)
    return _seatbelt(files, workload)


@record
class _Files:
    """The paths of a request."""

    readonly: tuple[str, ...]
    readwrite: tuple[str, ...]
    denied: tuple[str, ...]


def _bubblewrap(files: _Files, workload: Workload) -> Request:
    """Linux: the command is a line for ``sh -c``; the deepest path wins."""
    return {
        **_head("bubblewrap", workload),
        "process": _process(_shell_line(workload), workload),
        "filesystem": _filesystem(files, workload, PathStyle.POSIX),
        "network": _closed(),
    }


def _processcontainer(files: _Files, network: Network, workload: Workload) -> Request:
    """Windows: the command is a line for CreateProcess, and no window or clipboard is wanted."""
    closed = _closed()
    if network.mode is NetworkMode.OPEN:
        # The executable turns this into the capability internetClient.
        closed["egress"] = {"default": "allow"}
    return {
        **_head("processcontainer", workload),
        "process": _process(_windows_line(workload), workload),
        "filesystem": _filesystem(files, workload, PathStyle.WINDOWS),
        "network": closed,
        "fallback": {"allowDaclMutation": workload.dacl_mutation},
        "ui": _no_ui(),
        "processContainer": {
            "capabilities": [],
            "ui": {
                "isolation": "container",
                "desktopSystemControl": False,
                "systemSettings": "none",
                "ime": False,
            },
        },
    }


def _seatbelt(files: _Files, workload: Workload) -> Request:
    """macOS: the command is a line for ``sh -c``; nothing that widens the profile is set.

    ``keychainAccess``, ``guiAccess``, ``nestedPty`` and ``profileOverride`` are constants here on
    purpose: no ceiling, magic or command line reaches them.
    """
    return {
        **_head("seatbelt", workload),
        "process": _process(_shell_line(workload), workload),
        "filesystem": _filesystem(files, workload, PathStyle.MACOS),
        "network": _closed(),
        "ui": _no_ui(),
        "seatbelt": {
            "nestedPty": False,
            "guiAccess": False,
            "keychainAccess": False,
            "extraMachLookups": [],
        },
    }


# Their shared parts


def _head(backend: str, workload: Workload) -> Request:
    return {
        "version": CONTRACT_VERSION,
        "containment": backend,
        "containerId": workload.name,
    }


def _process(line: str, workload: Workload) -> Request:
    for name, value in workload.environment.items():
        if not _sayable(value):
            raise SandboxPolicyError(
                f"the value of the variable {name} cannot be passed on: it is not UTF-8 text",
                remedy=f"Change {name}, or leave it out of [environment] names in the ceiling.",
            )
    return {
        "commandLine": line,
        "cwd": workload.cwd,
        "env": [f"{name}={value}" for name, value in sorted(workload.environment.items())],
        "inheritDefaultEnv": False,
        "timeout": 0,
    }


def _shell_line(workload: Workload) -> str:
    # `sh -c` runs this line; exec leaves no shell between the sandbox's init and Python.
    return "exec " + shlex.join(workload.command)


def _windows_line(workload: Workload) -> str:
    from subprocess import list2cmdline  # the rules by which the C runtime takes a line apart

    line = list2cmdline(workload.command)
    if len(line) > _LONGEST_COMMAND_LINE:
        raise SandboxPolicyError(
            f"the command line has {len(line)} characters, and Windows takes"
            f" {_LONGEST_COMMAND_LINE}",
            remedy="Install the sandbox's Python under a shorter path.",
        )
    return line


def _filesystem(files: _Files, workload: Workload, style: PathStyle) -> Request:
    for path in (*files.readonly, *files.readwrite, *files.denied, workload.cwd):
        _refuse_unspeakable(path, style)
    return {
        "readonlyPaths": list(files.readonly),
        "readwritePaths": list(files.readwrite),
        "deniedPaths": list(files.denied),
    }


def _closed() -> Request:
    return {
        "egress": {"default": "deny"},
        "ingress": {"default": "deny", "hostLoopback": "deny"},
    }


def _no_ui() -> Request:
    return {"disable": True, "clipboard": "none", "injection": False}


def _refuse_unspeakable(path: str, style: PathStyle) -> None:
    """Refuse what the executable rejects (a quote, NUL) or resolves otherwise (``..``)."""
    if style is PathStyle.WINDOWS:
        style.parts(path)  # raises for what is no plain path there
        plain = '"' not in path
    else:
        plain = path.startswith("/") and '"' not in path and ".." not in path.split("/")
    if not plain or not _sayable(path):
        raise SandboxPolicyError(
            f"the path {path!r} cannot be granted: it has a quote, a NUL or `..`, is relative, "
            "or is not UTF-8",
            remedy="Rename the folder, or grant the folder above it.",
        )


def _sayable(text: str) -> bool:
    """Whether the executable can read a text: Linux's names and values may be any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
