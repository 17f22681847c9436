"""Starts children on Windows and macOS, where the host cannot look into the sandbox.

What differs from Linux, the reference: the sandbox has no ``/tmp`` of its own, so each child gets a
private folder; nothing tells from outside whether the policy is in force, so the worker tries what
must not work before it answers, and the host looks at what came of that on its own side; and there
is no uid to lease, so a kernel that is root does not start.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mxc_kernel.child import Child
from mxc_kernel.errors import SandboxUnavailableError
from mxc_kernel.mxc import bundle, contract, runtime
from mxc_kernel.mxc.portable import Host, PortableProcess, RunFolder, start
from mxc_kernel.mxc.probe import Probe
from mxc_kernel.policy import NATIVE, Access, MountPlan, Network, Policy, Settings, plan_mounts
from mxc_kernel.starter import PACKAGE, Launched, Starter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mxc_kernel.magics import SandboxFacts
    from mxc_kernel.mxc.ahead import VerifiedAhead

__all__ = ["PortableStarter", "native_host"]


def native_host() -> Host:
    """Return what this system does in its own way.

    Raises:
        SandboxUnavailableError: MXC 1.0.1 has nothing for it.
    """
    if sys.platform == "win32":
        from mxc_kernel.mxc.windows import WindowsHost

        return WindowsHost()
    if sys.platform == "darwin":
        from mxc_kernel.mxc.macos import MacHost

        return MacHost()
    raise SandboxUnavailableError(
        f"there is no MXC sandbox for {sys.platform}",
        remedy="Run the kernel on Linux, Windows 11 or macOS.",
    )


class PortableStarter(Starter):
    """Starts the children of one kernel.

    Args:
        host: what this system does in its own way.
        notebook_dir: the notebook's folder on the host.
        python: the child's interpreter; None for the operator's choice or our own.
        arguments: command line for the child's IPKernelApp. It is as untrusted as the child.
        environ: the host's environment.
        executable: the verification of the executable, where it has begun already.
        connection_file: canonical path of this kernel's connection file; None if there is none.
    """

    def __init__(
        self,
        host: Host,
        notebook_dir: str,
        python: str | None,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        executable: VerifiedAhead | None = None,
        connection_file: str | None = None,
    ) -> None:
        super().__init__(notebook_dir, python, arguments, environ, executable, connection_file)
        self._host = host
        self._folder = RunFolder()  # the children's folders lie in it

    @property
    def backend(self) -> str:
        """The MXC backend that enforces the policy."""
        return self._host.backend

    @property
    def scratch(self) -> str:
        """The folder that holds the private folder of every child."""
        return self._folder.path

    def start(self, policy: Policy, settings: Settings) -> Launched:
        """Start a child under a policy.

        Args:
            policy: what is in force. Nothing else decides what is granted.
            settings: the operator's settings.

        Raises:
            MxcKernelError: a prerequisite is missing, a grant cannot be had, or the backend cannot
                enforce the policy.
        """
        self._host.check_user()
        self._refuse_own_connection(policy)
        executable = self.executable(settings)
        folder = RunFolder(self._folder.path)
        try:
            workload, python = self._workload_in(folder.scratch, policy, settings)
            mounts = plan_mounts(policy.filesystem)
            rendered = self._render(mounts, policy.network, workload)
            request = folder.keep("request.json", json.dumps(rendered).encode())
            probe = Probe(folder)
            process = start(
                [os.path.basename(executable.source), "--config", request],
                executable=executable.exec_path,
                env=self._host.launcher_environment(self._environ),
                group=self._host.group(policy.limits.memory, policy.limits.processes),
                folder=folder,
                creationflags=self._host.creationflags,
            )
        except BaseException:
            folder.close()
            raise
        child = Child(process, bundle.build(python.magic))
        child.on_hello = probe.judge
        child.greet(self._greeting_for(process, mounts, probe))
        return Launched(child, policy, mounts)

    def contract_text(self, policy: Policy, settings: Settings) -> str:
        """Return the request to the executable for a policy, for people to read."""
        scratch = os.path.join(self._folder.path, "mxc-kernel-NAME", "scratch")
        workload, _ = self._workload_in(scratch, policy, settings)
        mounts = plan_mounts(policy.filesystem)
        rendered = self._render(mounts, policy.network, workload)
        return json.dumps(rendered, indent=2, ensure_ascii=False)

    def facts(self, child: Child | None, spare: Child | None, settings: Settings) -> SandboxFacts:
        """Return what the host knows of the running sandbox, for ``%sandbox``."""
        from mxc_kernel.magics import SandboxFacts

        executable = self.executable(settings)
        process = child.process if child is not None else None
        return SandboxFacts(
            executable=executable.source,
            version=executable.version,
            sha256=executable.sha256,
            backend=self.backend,
            pid=process.workload() if process else None,
            uptime=time.monotonic() - process.started if process else None,
            memory=process.memory() if process else None,
            spare=spare.process.memory() if spare else None,
            user="the same as the kernel's",
            attested=child.attested if child is not None else (),
            enforced=self._host.enforced,
        )

    def close(self) -> None:
        """Give everything back. End the children first."""
        super().close()
        self._folder.close()

    def _render(
        self, mounts: MountPlan, network: Network, workload: contract.Workload
    ) -> dict[str, object]:
        return contract.render(mounts, network, workload, self.backend)

    def _workload_in(
        self, scratch: str, policy: Policy, settings: Settings
    ) -> tuple[contract.Workload, runtime.Interpreter]:
        if self._interpreter is None:
            configured = self._python or settings.python
            self._interpreter = runtime.describe(configured) if configured else runtime.default()
        python = self._interpreter
        visible = any(NATIVE.within(PACKAGE, path) for path in python.readonly)
        environment = {
            **self._shown(policy),
            **self._host.workload_environment(scratch, python.executable, self._environ),
        }
        workload = contract.Workload(
            name=f"mxc-python-{os.getpid()}",
            command=tuple(bundle.command(python.executable)),
            cwd=scratch,
            environment=environment,
            readonly=python.readonly,
            hidden=(PACKAGE,) if visible else (),
            readwrite=(scratch,),
            dacl_mutation=self._host.dacl_mutation,
        )
        return workload, python

    def _greeting_for(
        self, process: PortableProcess, mounts: MountPlan, probe: Probe
    ) -> dict[str, object]:
        granted = mounts.filesystem.access(self._notebook_dir) > Access.NONE
        return {
            "cwd": self._notebook_dir if granted else None,
            "scratch": process.scratch,
            "execution_count": 1,
            "history": os.path.join(process.scratch, ".history.sqlite"),
            "argv": self._arguments,
            "forbidden": probe.orders,
        }
