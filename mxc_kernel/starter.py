"""Everything that it takes to start a child under a policy.

The verified executable, the user that it runs as, the interpreter, the environment and the limits
are found once for a kernel and serve all of its children.
"""

from __future__ import annotations

import json
import os
import sys
import time
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mxc_kernel.child import Child
from mxc_kernel.errors import SandboxExecutionError, SandboxPolicyError
from mxc_kernel.mxc import binary, bundle, contract, identity, runtime
from mxc_kernel.mxc.ahead import VerifiedAhead
from mxc_kernel.policy import NATIVE, Access, MountPlan, Policy, Settings, plan_mounts
from mxc_kernel.records import record

if TYPE_CHECKING or sys.platform == "linux":
    from mxc_kernel.mxc import cgroup, filters, launcher
    from mxc_kernel.mxc.enforcement import Enforcement
if TYPE_CHECKING:
    from mxc_kernel.libraries import Libraries
    from mxc_kernel.magics import SandboxFacts
    from mxc_kernel.mxc import attestation
    from mxc_kernel.mxc.sandbox import Sandbox

__all__ = ["PACKAGE", "SCRATCH", "Launched", "Starter", "starter_here"]

SCRATCH = "/tmp/scratch"  # noqa: S108  # inside the sandbox, on its private tmpfs
# In memory IPython's two connections would each have a database of their own, and a search would
# find nothing. Outside of scratch, so that it is not carried over while it is open.
_HISTORY = "/tmp/history.sqlite"  # noqa: S108

# What a terminal or a frontend tells every kernel; none of it is a secret of the host.
_FRONTEND_NAMES = ("COLUMNS", "IPYKERNEL_CELL_NAME", "JPY_SESSION_NAME", "LINES", "TERM")

# Installed beside the child's packages it would be visible with them. The child needs none of it.
PACKAGE = os.path.dirname(os.path.realpath(__file__))

_ENFORCED = (
    ("files", "Linux: only what is granted is mounted, by bubblewrap"),
    ("network", "Linux: a network namespace of its own, with no way out"),
    ("processes of others", "Linux: a process namespace of its own, no capabilities"),
    ("time for a cell", "the kernel's host process: interrupt, then kill"),
    ("output of a cell", "the kernel's host process: capped and redacted"),
    ("displays and help texts", "the kernel's host process: by the level of [output] html"),
    ("messages of widgets", "the kernel's host process: by the level of [output] html"),
)


@record
class Launched:
    """A child and what it was launched with, which is fixed until the next one.

    Attributes:
        child: the child; its handshake is still to come.
        policy: the policy that it runs under.
        mounts: that policy's paths, as they were on the disk.
    """

    child: Child
    policy: Policy
    mounts: MountPlan

    def fits(self, policy: Policy) -> bool:
        """Whether the child lives and may go on, or begin, under a policy."""
        process = self.child.process
        return (
            not self.child.closed
            and _fixed(policy) == _fixed(self.policy)
            and process.has_mounts(self.mounts.covers)
            and (process.enforcement is None or process.enforcement.fits(policy.limits))
        )


def _fixed(policy: Policy) -> tuple[object, ...]:
    """Return what of a policy is fixed at launch; the rest the host applies as it goes."""
    return policy.filesystem, policy.network, policy.environment


class Starter:
    """Starts the children of one kernel on Linux.

    Args:
        notebook_dir: the notebook's folder on the host.
        python: the child's interpreter; None for the operator's choice or the default one.
        arguments: command line for the child's IPKernelApp. It is as untrusted as the child.
        environ: the host's environment.
        executable: the verification of the executable, where it has begun already.
        connection_file: canonical path of this kernel's connection file; None if there is none.
    """

    def __init__(
        self,
        notebook_dir: str,
        python: str | None,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        executable: VerifiedAhead | None = None,
        connection_file: str | None = None,
    ) -> None:
        self._notebook_dir = notebook_dir
        self._python = python
        self._arguments = list(arguments)
        self._environ = environ
        self._executable = executable or VerifiedAhead(environ)
        self._connection_file = connection_file
        self._lease: identity.Lease | None = None
        self._interpreter: runtime.Interpreter | None = None
        self._libraries: Libraries | None = None

    @property
    def backend(self) -> str:
        """The MXC backend that enforces the policy."""
        return "bubblewrap"

    @property
    def scratch(self) -> str:
        """The folder that a child has for itself; on other systems the folder around all those."""
        return SCRATCH

    @property
    def readonly(self) -> tuple[str, ...]:
        """Host paths of the interpreter that every child sees."""
        return self._interpreter.readonly if self._interpreter else ()

    @property
    def libraries(self) -> Libraries:
        """The charting libraries for the output level ``frame``."""
        if self._libraries is None:
            from mxc_kernel.libraries import Libraries, places

            self._libraries = Libraries(lambda: places(self._interpreter))
        return self._libraries

    def start(self, policy: Policy, settings: Settings) -> Launched:
        """Start a child under a policy.

        Args:
            policy: what is in force. Nothing else decides what is granted.
            settings: the operator's settings.

        Raises:
            MxcKernelError: a prerequisite is missing or a grant cannot be had.
        """
        self._refuse_own_connection(policy)
        executable = self._executable.get(settings.executable)
        user = self._user(settings)
        workload, python = self._workload(policy, settings)
        mounts = plan_mounts(policy.filesystem)
        if user is not None:
            identity.check_reachable(
                user,
                [*((p, False) for p in mounts.readonly), *((p, True) for p in mounts.readwrite)],
            )
        request = json.dumps(contract.render(mounts, policy.network, workload)).encode()
        group = cgroup.create(policy.limits.memory, policy.limits.processes)
        enforcement = Enforcement(policy.limits, group)
        try:
            process = launcher.launch(executable, binary.bwrap_directory(), request, user, group)
        except BaseException:
            group.close()
            raise
        process.enforcement = enforcement
        try:
            child = Child(process, bundle.build(python.magic))
            child.on_hello = lambda said: _attested(process, user, mounts, workload, said)
            child.greet(self._greeting(mounts, workload, enforcement.resources))
        except BaseException:
            process.close()  # nobody else knows of it yet
            raise
        return Launched(child, policy, mounts)

    def contract_text(self, policy: Policy, settings: Settings) -> str:
        """Return the request to the executable for a policy, for people to read."""
        workload, _ = self._workload(policy, settings)
        rendered = contract.render(plan_mounts(policy.filesystem), policy.network, workload)
        return json.dumps(rendered, indent=2, ensure_ascii=False)

    def facts(self, child: Child | None, spare: Child | None, settings: Settings) -> SandboxFacts:
        """Return what the host knows of the running sandbox, for ``%sandbox``.

        Args:
            child: the child in force.
            spare: the one that stands ready beside it.
            settings: the operator's settings.
        """
        from mxc_kernel.magics import SandboxFacts

        executable = self._executable.get(settings.executable)
        process = child.process if child is not None else None
        uid = self._lease.identity.uid if self._lease is not None else os.getuid()
        return SandboxFacts(
            executable=executable.source,
            version=executable.version,
            sha256=executable.sha256,
            backend=self.backend,
            pid=process.workload() if process else None,
            uptime=time.monotonic() - process.started if process else None,
            memory=process.memory() if process else None,
            spare=spare.process.memory() if spare else None,
            user=f"uid {uid}",
            attested=child.attested if child is not None else (),
            enforced=(*_ENFORCED, *_limits_enforced(process)),
        )

    def executable(self, settings: Settings) -> binary.VerifiedBinary:
        """Return the verified executable.

        Raises:
            MxcKernelError: there is none, or it is not the pinned one.
        """
        return self._executable.get(settings.executable)

    def close(self) -> None:
        """Give the uid and the executable back. End the children first."""
        if self._lease is not None:
            self._lease.close()
            self._lease = None
        self._executable.close()

    def _refuse_own_connection(self, policy: Policy) -> None:
        """Refuse a grant of the folder that this kernel's connection file lies in.

        Its key would let code in the sandbox send cells of its own, with grants at their top.
        Hiding the file would not do: the sockets of the ipc transport are beside it, which do not
        exist yet when the first sandbox is launched, and what is hidden must exist.

        Raises:
            SandboxPolicyError: the policy grants that folder.
        """
        path = self._connection_file
        if path is None:
            return
        folder = os.path.dirname(path)
        if max(policy.filesystem.access(path), policy.filesystem.access(folder)) > Access.NONE:
            raise SandboxPolicyError(
                f"{folder} would be granted, and this kernel's own connection file lies in it",
                remedy="Start the kernel with a connection file elsewhere (left to itself, Jupyter "
                "takes a folder that is never granted), or leave that folder out of the ceiling.",
            )

    def _user(self, settings: Settings) -> identity.Identity | None:
        """Return whom the sandbox runs as, if not as ourselves."""
        if not identity.is_root():
            return None
        if self._lease is None:
            first, last = settings.uids
            self._lease = identity.lease(range(first, last + 1))
        return self._lease.identity

    def _workload(
        self, policy: Policy, settings: Settings
    ) -> tuple[contract.Workload, runtime.Interpreter]:
        if self._interpreter is None:
            configured, user = self._python or settings.python, self._user(settings)
            self._interpreter = (
                runtime.describe(configured, user) if configured else runtime.default(user)
            )
        python = self._interpreter
        visible = any(NATIVE.within(PACKAGE, path) for path in python.readonly)
        workload = contract.Workload(
            name=f"mxc-python-{os.getpid()}",
            command=tuple(bundle.command(python.executable)),
            cwd="/tmp",  # noqa: S108  # the worker moves on to its own folder
            environment=self._environment(policy, python),
            readonly=python.readonly,
            hidden=(PACKAGE,) if visible else (),
        )
        return workload, python

    def _environment(self, policy: Policy, python: runtime.Interpreter) -> dict[str, str]:
        """Return the child's whole environment. It is visible in the launcher's argument list."""
        return {
            **self._shown(policy),
            "PATH": f"{os.path.dirname(python.executable)}:/usr/bin:/bin",
            "HOME": SCRATCH,
            "TMPDIR": SCRATCH,
            "IPYTHONDIR": f"{SCRATCH}/.ipython",
            "MPLCONFIGDIR": f"{SCRATCH}/.matplotlib",
            "XDG_CACHE_HOME": f"{SCRATCH}/.cache",
            "XDG_CONFIG_HOME": f"{SCRATCH}/.config",
            "XDG_DATA_HOME": f"{SCRATCH}/.local/share",
        }

    def _shown(self, policy: Policy) -> dict[str, str]:
        """Return what of the host's environment the child may have."""
        shown = {n: self._environ[n] for n in _FRONTEND_NAMES if n in self._environ}
        return {"LANG": "C.UTF-8", **shown, **policy.passes(self._environ)}

    def _greeting(
        self, mounts: MountPlan, workload: contract.Workload, resources: Mapping[str, int]
    ) -> dict[str, object]:
        """Return what the worker is told in its HELLO."""
        programs = filters.load(os.uname().machine)
        granted = mounts.filesystem.access(self._notebook_dir) > Access.NONE
        return {
            "cwd": self._notebook_dir if granted else None,
            "scratch": SCRATCH,
            "execution_count": 1,
            "history": _HISTORY,
            "argv": self._arguments,
            "hardening": {
                "writable": mounts.readwrite,
                "masked": (*mounts.denied, *workload.hidden),
                "programs": [b2a_base64(program).decode() for program in programs],
                "resources": resources,
            },
        }


def starter_here(
    notebook_dir: str,
    python: str | None,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    executable: VerifiedAhead | None = None,
    connection_file: str | None = None,
) -> Starter:
    """Return what starts children on this system; the arguments are those of `Starter`.

    Raises:
        SandboxUnavailableError: MXC has nothing for this system.
    """
    if sys.platform == "linux":
        return Starter(notebook_dir, python, arguments, environ, executable, connection_file)
    from mxc_kernel.portable_starter import PortableStarter, native_host

    return PortableStarter(
        native_host(), notebook_dir, python, arguments, environ, executable, connection_file
    )


def _attested(
    process: launcher.SandboxProcess,
    user: identity.Identity | None,
    mounts: MountPlan,
    workload: contract.Workload,
    said: Mapping[str, object],
) -> tuple[attestation.Fact, ...]:
    """Check a sandbox before it gets anything of the user's.

    Raises:
        SandboxAttestationError: it is not what was asked for.
    """
    from mxc_kernel.mxc import attestation  # while the child loads, not before it is launched

    agreed = attestation.Agreement(
        uid=user.uid if user is not None else os.getuid(),
        leased=user is not None,
        mounts=mounts,
        readonly=workload.readonly,
        hidden=workload.hidden,
        resources=process.enforcement.resources if process.enforcement else {},
    )
    if process.enforcement is not None:
        try:
            process.enforcement.take_hold(process)
        except (OSError, ValueError, IndexError) as error:
            raise SandboxExecutionError(
                f"the limits of the sandbox could not be put in force: {error}",
                remedy="Run `mxc-kernel doctor`.",
            ) from error
    return attestation.attest(process, agreed, said)


def _limits_enforced(process: Sandbox | None) -> tuple[tuple[str, str], ...]:
    """Say what holds the limits that depend on the machine."""
    if process is None or process.enforcement is None:
        return (("limits", "no sandbox runs"),)
    return tuple(process.enforcement.how().items())
