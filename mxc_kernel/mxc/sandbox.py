"""What the host needs of a running sandbox, on whichever system.

`mxc_kernel.mxc.launcher.SandboxProcess` is the one for Linux, where the event loop watches the
pipes themselves; `mxc_kernel.mxc.portable.PortableProcess` the one for Windows and macOS, with a
thread for each pipe. Only for type checkers: nothing is gained by loading it before a launch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

    from mxc_kernel.mxc.cgroup import Group
    from mxc_kernel.mxc.enforcement import Enforcement

__all__ = ["Sandbox"]


class Sandbox(Protocol):
    """A launcher and everything below it.

    Attributes:
        enforcement: what holds its limits, if anything of the host's does.
        started: when it was started, as `time.monotonic` has it.
        read: returns bytes of the child's standard output as ``os.read`` does, and never blocks.
        write: takes bytes for its standard input as ``os.write`` does, and never blocks.
    """

    started: float
    enforcement: Enforcement | None
    read: Callable[[int], bytes]
    write: Callable[[memoryview], int]

    @property
    def group(self) -> Group | None:
        """Its control group, if it has one."""

    @property
    def pid(self) -> int:
        """The launcher's process id."""

    @property
    def diagnostics(self) -> str:
        """The end of what came on stderr. Untrusted text."""

    def watch(
        self,
        loop: asyncio.AbstractEventLoop,
        readable: Callable[[], None],
        diagnostics: Callable[[], None],
    ) -> None:
        """Have these called in the loop when frames or diagnostics can be read.

        They are called at least once after `read` has answered that there is nothing for now, as
        soon as there is; how often else is not agreed.
        """

    def watch_writes(
        self, loop: asyncio.AbstractEventLoop, writable: Callable[[], None] | None
    ) -> None:
        """Have this called in the loop when there is room to write; None for no longer."""

    def unwatch(self, loop: asyncio.AbstractEventLoop, *, diagnostics_only: bool = False) -> None:
        """Call nothing any more, or nothing for diagnostics."""

    def read_diagnostics(self) -> bool:
        """Take what stands on stderr; false when it was closed."""

    def memory(self) -> int:
        """Return the bytes that its processes use."""

    def workload(self) -> int | None:
        """Return the pid of the sandboxed Python, or the nearest that the host can tell."""

    def has_mounts(self, paths: Collection[str]) -> bool:
        """Whether what keeps a larger grant from these still holds."""

    def wake(self) -> None:
        """Let go on what someone has stopped, where there are such stops."""

    def interrupt(self) -> bool:
        """Send SIGINT to what runs inside; false where no signal gets there."""

    def poll(self) -> int | None:
        """Return the exit status if the launcher has ended, as a shell would give it."""

    def close(self) -> None:
        """End every process of the sandbox and let go of everything."""
