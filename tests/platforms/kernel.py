"""A kernel whose host is that of another system, with the stand-in for its executable."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from mxc_kernel import kernel, portable_starter, session
from mxc_kernel.mxc import contract
from mxc_kernel.mxc.surroundings import (
    MACOS_ENFORCED,
    WINDOWS_ENFORCED,
    macos_workload,
    windows_workload,
)
from mxc_kernel.mxc.tree import Tree
from mxc_kernel.policy import Filesystem, MountPlan, Network, PathStyle


class StandIn:
    """What the other system does in its own way, as far as there is a way to do it here."""

    creationflags = 0
    dacl_mutation = False

    def __init__(self, backend: str) -> None:
        self.backend = backend
        windows = backend == "processcontainer"
        self.enforced = WINDOWS_ENFORCED if windows else MACOS_ENFORCED

    def check_user(self) -> None:
        """Accept root: it is this machine's bubblewrap that holds."""

    def group(self, memory: int | None, processes: int | None) -> Tree:
        return Tree()

    def launcher_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        names = ("STAND_IN_TESTS", "STAND_IN_LOG", "STAND_IN_OPEN")
        return {"PATH": "/usr/bin:/bin"} | {n: environ[n] for n in names if n in environ}

    def workload_environment(
        self, scratch: str, python: str, environ: Mapping[str, str]
    ) -> dict[str, str]:
        if self.backend == "processcontainer":
            return windows_workload(there(scratch), there(python), {"SystemRoot": r"C:\Windows"})
        return macos_workload(scratch, python)


def there(path: str) -> str:
    return "C:" + path.replace("/", "\\")


class Starter(portable_starter.PortableStarter):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(StandIn(os.environ["STAND_IN_BACKEND"]), *arguments)

    def executable(self, settings: object) -> Any:
        path = os.environ["STAND_IN"]
        return SimpleNamespace(source=path, exec_path=path, version="stand-in", sha256="0" * 64)

    def _render(
        self, mounts: MountPlan, network: Network, workload: contract.Workload
    ) -> dict[str, object]:
        """Render with the other system's paths."""
        windows = self.backend == "processcontainer"
        spell = there if windows else str
        style = PathStyle.WINDOWS if windows else PathStyle.MACOS
        spelled = {
            name: tuple(map(spell, getattr(mounts, name)))
            for name in ("readonly", "readwrite", "denied")
        }
        workload = contract.Workload(
            name=workload.name,
            command=(spell(workload.command[0]), *workload.command[1:]),
            cwd=spell(workload.cwd),
            environment=workload.environment,
            readonly=tuple(map(spell, workload.readonly)),
            hidden=tuple(map(spell, workload.hidden)),
            readwrite=tuple(map(spell, workload.readwrite)),
        )
        plan = replace(mounts, filesystem=Filesystem((), style), **spelled)
        return super()._render(plan, network, workload)


if __name__ == "__main__":
    session.starter_here = Starter
    kernel.main(sys.argv[1:])
