"""The JSON request that the MXC executable reads: contract version 1.0.0.

Everything the executable is told stands in one :class:`Workload`; what a policy does not grant is
absent from it, and absent means denied. ``network`` is always written out in full.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from mxc_kernel.errors import SandboxBackendUnsupportedError, SandboxPolicyError
from mxc_kernel.policy import MountPlan, Network, NetworkMode
from mxc_kernel.records import record

__all__ = ["CONTRACT_VERSION", "Workload", "render"]

CONTRACT_VERSION = "1.0.0"


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
    """

    name: str
    command: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str] = {}
    readonly: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


def render(mounts: MountPlan, network: Network, workload: Workload) -> dict[str, object]:
    """Return the request that enforces a policy on Linux, through bubblewrap.

    Args:
        mounts: the effective policy's paths, as they are on the disk now.
        network: where connections may go.
        workload: the program and what it needs to start.

    Raises:
        SandboxBackendUnsupportedError: the policy opens the network, which no backend here can
            limit to what the policy says.
        SandboxPolicyError: a path or a variable that the executable would refuse or misread.
    """
    if network.mode is not NetworkMode.CLOSED:
        raise SandboxBackendUnsupportedError(
            f'network mode "{network.mode.name.lower()}" is not enforced on this system yet',
            remedy='Set [network] mode = "closed" in the ceiling.',
        )
    readonly = [*workload.readonly, *mounts.readonly]
    denied = [*workload.hidden, *mounts.denied]
    for path in (*readonly, *mounts.readwrite, *denied, workload.cwd):
        _refuse_unspeakable(path)
    for name, value in workload.environment.items():
        if not _sayable(value):
            raise SandboxPolicyError(
                f"the value of the variable {name} cannot be passed on: it is not UTF-8 text",
                remedy=f"Change {name}, or leave it out of [environment] names in the ceiling.",
            )
    return {
        "version": CONTRACT_VERSION,
        "containment": "bubblewrap",
        "containerId": workload.name,
        "process": {
            # `sh -c` runs this line; exec leaves no shell between the sandbox's init and Python.
            "commandLine": "exec " + shlex.join(workload.command),
            "cwd": workload.cwd,
            "env": [f"{name}={value}" for name, value in sorted(workload.environment.items())],
            "inheritDefaultEnv": False,
            "timeout": 0,
        },
        "filesystem": {
            "readonlyPaths": readonly,
            "readwritePaths": list(mounts.readwrite),
            "deniedPaths": denied,
        },
        "network": {
            "egress": {"default": "deny"},
            "ingress": {"default": "deny", "hostLoopback": "deny"},
        },
    }


def _refuse_unspeakable(path: str) -> None:
    """Refuse what the executable rejects (a quote, NUL) or resolves otherwise (``..``)."""
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
