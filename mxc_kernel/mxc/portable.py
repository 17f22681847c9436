"""Starts the MXC executable where there is no ``/proc``, and ends what it started.

Common to Windows and macOS. What the launcher on Linux does by memory files, descriptors and
signals is done here by a private file, three pipes, frames and whatever the system has to end a
whole tree of processes (`Group`). Nothing of it needs those systems, so it is run by tests on
Linux, with an executable that behaves as theirs do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from mxc_kernel.errors import SandboxUnavailableError
from mxc_kernel.mxc.pipes import ThreadedPipes

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from mxc_kernel.mxc.enforcement import Enforcement

__all__ = ["Host", "PortableProcess", "ProcessGroup", "RunFolder", "start"]

_DIAGNOSTICS = 64 << 10  # bytes of the sandbox's own stderr kept for error messages


class ProcessGroup(Protocol):
    """All processes of a sandbox, as a system can end them."""

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        """Take the launcher in, before it has started anything; raises OSError."""

    def end(self, timeout: float) -> bool:
        """End all of them; false if some are left after ``timeout`` seconds."""

    def memory(self) -> int:
        """Return how many bytes they use, 0 where it cannot be told."""

    def close(self) -> None:
        """Give back what the system keeps for it."""


class Host(Protocol):
    """What one system does in its own way.

    Attributes:
        backend: the MXC backend that enforces policies there.
        creationflags: for CreateProcess; 0 elsewhere.
        dacl_mutation: whether the operator lets MXC change access lists; only Windows has them.
        enforced: what is enforced by whom, for people.
    """

    backend: str
    creationflags: int
    dacl_mutation: bool
    enforced: tuple[tuple[str, str], ...]

    def group(self, memory: int | None, processes: int | None) -> ProcessGroup:
        """Return what will end a sandbox as a whole, and hold these limits where it can."""

    def launcher_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the whole environment of the executable, from the host's."""

    def workload_environment(
        self, scratch: str, python: str, environ: Mapping[str, str]
    ) -> dict[str, str]:
        """Return what a program inside needs to find its folders and the system."""

    def check_user(self) -> None:
        """Raise SandboxUnavailableError for a user whose sandbox would not hold."""


class RunFolder:
    """A folder of this user's alone, for one sandbox: its request, and its scratch folder.

    Args:
        parent: where it is made; the system's folder for temporary files if None. Never granted
            itself: a wide grant would show other programs' files, and on Windows costs seconds.

    Attributes:
        path: the folder, without links.
        scratch: the folder in it that the sandbox may write, the only one that it sees.
    """

    def __init__(self, parent: str | None = None) -> None:
        self.path = os.path.realpath(tempfile.mkdtemp(prefix="mxc-kernel-", dir=parent))  # 0700
        self.scratch = os.path.join(self.path, "scratch")
        os.mkdir(self.scratch, 0o700)

    def keep(self, name: str, content: bytes) -> str:
        """Write a file that the sandbox does not see; return its path."""
        path = os.path.join(self.path, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        return path

    def close(self) -> None:
        """Remove it with everything in it; links in it are removed, not followed."""
        shutil.rmtree(self.path, ignore_errors=True)


def start(
    command: Sequence[str],
    *,
    executable: str,
    env: Mapping[str, str],
    group: ProcessGroup,
    folder: RunFolder,
    creationflags: int = 0,
) -> PortableProcess:
    """Start a program with three pipes, and nothing else of this process's.

    Args:
        command: its argument list. No shell sees it; on Windows `subprocess.list2cmdline` writes
            the line that the program takes apart again.
        executable: the program.
        env: its whole environment.
        group: what ends it, with all that it starts.
        folder: what is removed when it has ended.
        creationflags: for CreateProcess; only Windows has them.

    Raises:
        SandboxUnavailableError: it could not be started.
    """
    try:
        process = subprocess.Popen(
            command,
            executable=executable,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            close_fds=True,  # on Windows: a list of exactly the three handles that are inherited
            cwd=folder.path,
            env=dict(env),
            start_new_session=True,  # ignored on Windows
            creationflags=creationflags,
        )
    except (OSError, ValueError) as error:
        raise SandboxUnavailableError(
            f"the sandbox could not be started: {error}", remedy="Run `mxc-kernel doctor`."
        ) from error
    try:
        group.adopt(process)
    except OSError as error:
        process.kill()
        process.wait()
        raise SandboxUnavailableError(
            f"the sandbox could not be taken into a group that ends it as a whole: {error}",
            remedy="Run `mxc-kernel doctor`.",
        ) from error
    return PortableProcess(process, group, folder)


class PortableProcess:
    """A running launcher and everything below it, where the host cannot look into the sandbox.

    Attributes:
        group: None: no control group holds its limits.
        started: when it was started, as `time.monotonic` has it.
    """

    group = None

    def __init__(
        self, process: subprocess.Popen[bytes], group: ProcessGroup, folder: RunFolder
    ) -> None:
        self._process = process
        self._processes = group
        self._folder = folder
        self.started = time.monotonic()
        self.enforcement: Enforcement | None = None
        self._diagnostics = bytearray()
        streams = (process.stdin, process.stdout, process.stderr)
        ends = []
        for stream in streams:
            assert stream is not None
            ends.append(os.dup(stream.fileno()))  # the threads' own, theirs to close
            stream.close()
        self._pipes = ThreadedPipes(*ends)
        self.read: Callable[[int], bytes] = self._pipes.read
        self.write: Callable[[memoryview], int] = self._pipes.write

    @property
    def pid(self) -> int:
        """The launcher's process id."""
        return self._process.pid

    @property
    def scratch(self) -> str:
        """The sandbox's private folder."""
        return self._folder.scratch

    def watch(
        self,
        loop: asyncio.AbstractEventLoop,
        readable: Callable[[], None],
        diagnostics: Callable[[], None],
    ) -> None:
        """Have these called in the loop when frames or diagnostics can be read."""
        self._pipes.watch(loop, readable, diagnostics)

    def watch_writes(
        self, loop: asyncio.AbstractEventLoop, writable: Callable[[], None] | None
    ) -> None:
        """Have this called in the loop when there is room to write; None for no longer."""
        self._pipes.watch_writes(loop, writable)

    def unwatch(
        self,
        loop: asyncio.AbstractEventLoop,  # noqa: ARG002  # the threads keep theirs
        *,
        diagnostics_only: bool = False,
    ) -> None:
        """Call nothing any more; for diagnostics that have ended nothing is to be done."""
        if not diagnostics_only:
            self._pipes.close()

    def read_diagnostics(self) -> bool:
        """Take what stands on stderr, keeping the end of it; false when it was closed."""
        while True:
            try:
                data = self._pipes.read_stderr(_DIAGNOSTICS)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._diagnostics += data
            del self._diagnostics[:-_DIAGNOSTICS]

    @property
    def diagnostics(self) -> str:
        """The end of what the launcher and the sandbox wrote to stderr. Untrusted text."""
        return self._diagnostics.decode("utf-8", "replace")

    def memory(self) -> int:
        """Return the bytes that all its processes use, 0 where the system does not tell."""
        return self._processes.memory()

    def workload(self) -> int | None:
        """Return the launcher's pid: the sandboxed process cannot be told from outside."""
        return self.pid

    def has_mounts(self, paths: Collection[str]) -> bool:  # noqa: ARG002
        """Return true: there are no mounts that could go away, only rules on names."""
        return True

    def wake(self) -> None:
        """Do nothing: which processes belong to the sandbox itself cannot be told from outside."""

    def interrupt(self) -> bool:
        """Return false: no signal passes into the sandbox, so it is sent as a frame."""
        return False

    def poll(self) -> int | None:
        """Return the exit status if the launcher has ended, as a shell would give it."""
        status = self._process.poll()
        return status if status is None or status >= 0 else 128 - status

    def kill(self, timeout: float = 5.0) -> None:
        """End every process of the sandbox and wait until they are gone."""
        self._processes.end(timeout)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)

    def close(self) -> None:
        """Kill the sandbox, and remove its folder."""
        self.kill()
        self.read_diagnostics()
        self._pipes.close()
        self._processes.close()
        self._folder.close()
