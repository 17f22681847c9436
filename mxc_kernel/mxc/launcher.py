"""Starts the MXC executable, finds what it started, and ends all of it.

Each step here closes something measured on the real executable: a terminal shared with the sandbox
(TIOCSTI), the user's session keyring readable inside, a sandbox that outlives a killed parent, a
sandbox orphaned by a signal during its start.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING

from mxc_kernel.errors import SandboxUnavailableError
from mxc_kernel.mxc.binary import VerifiedBinary
from mxc_kernel.mxc.cgroup import Group
from mxc_kernel.mxc.identity import Identity

if TYPE_CHECKING:
    import asyncio

    from mxc_kernel.mxc.enforcement import Enforcement

__all__ = ["SandboxProcess", "launch"]

_PR_SET_PDEATHSIG = 1
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
_PIPE_BYTES = 1 << 20  # a larger pipe lets both sides work at the same time
_DIAGNOSTICS = 64 << 10  # bytes of the sandbox's own stderr kept for error messages

_libc = ctypes.CDLL(None, use_errno=True)


def launch(
    binary: VerifiedBinary,
    bwrap_directory: str,
    request: bytes,
    identity: Identity | None,
    group: Group | None = None,
) -> SandboxProcess:
    """Start the executable on a request.

    Call it from one long-lived thread: the executable dies with the thread that started it.

    Args:
        binary: the verified executable; the very bytes that were hashed are what runs.
        bwrap_directory: the trusted folder that holds ``bwrap``, the launcher's whole PATH.
        request: the contract's JSON.
        identity: the unprivileged user to run as; needed exactly when this process is root.
        group: the control group that everything of the sandbox is in from its first instruction.
            The sandbox closes it; where none was started, the caller does.

    Raises:
        SandboxUnavailableError: running as root without an identity, or the start itself failed.
    """
    if (os.geteuid() == 0) != (identity is not None):
        # As root the sandbox would keep every capability and could remount its way out.
        raise SandboxUnavailableError(
            "a sandbox is never started as root",
            remedy="Start the kernel as an ordinary user, or let it lease a uid of its own.",
        )
    config = _readonly_memfd(request)
    try:
        with group.doors() if group else contextlib.nullcontext(()) as doors:
            process = subprocess.Popen(
                ["lxc-exec", "--config", f"/proc/self/fd/{config}"],
                executable=binary.exec_path,
                pass_fds=(binary.fd, config),
                preexec_fn=_before_exec(binary.fd, doors),
                start_new_session=True,  # no controlling terminal inside, and one group to kill
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env={"PATH": bwrap_directory},
                user=identity.uid if identity else None,
                group=identity.gid if identity else None,
                extra_groups=[] if identity else None,
                umask=0o077,
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxUnavailableError(
            f"the sandbox could not be started: {error}", remedy="Run `mxc-kernel doctor`."
        ) from error
    finally:
        os.close(config)
    _offer_to_oom_killer(process.pid)
    return SandboxProcess(process, group)


def _before_exec(binary_fd: int, doors: Collection[int]) -> Callable[[], None]:
    """Return what the forked process does last before it becomes the executable.

    Everything is looked up before the fork: between fork and exec nothing may be imported or
    allocate more than it must.
    """
    prctl, syscall, parent = _libc.prctl, _libc.syscall, os.getpid()
    setrlimit, cores = resource.setrlimit, _core_limit()
    keyctl = _SYS_KEYCTL.get(os.uname().machine)

    def prepare() -> None:
        # After the change of uid, which would clear it. If the parent is already gone, so are we.
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        for door in doors:
            os.write(door, b"0")  # the writing process itself; if it fails, nothing is executed
        setrlimit(resource.RLIMIT_CORE, cores)
        if keyctl is not None:
            syscall(keyctl, _KEYCTL_JOIN_SESSION_KEYRING, None)
        fcntl.fcntl(binary_fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)

    return prepare


def _offer_to_oom_killer(pid: int) -> None:
    """Let Linux, when memory runs out, end the sandbox before anything else (proc(5)).

    Now, while the launcher has no children: they inherit it. Not between fork and exec, where a
    process that has changed its uid may not write there.
    """
    with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "wb") as file:
        file.write(b"1000")


def _core_limit() -> tuple[int, int]:
    """Return the limit under which nothing in the sandbox leaves a core dump.

    That is 1: with 0 Linux still pipes a dump to the handler in ``core_pattern``, a program outside
    of the sandbox that would read hostile memory (core(5)). Who may not raise the limit keeps 0.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0 and os.geteuid() == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, 1))
        hard = 1
    return (0, 0) if hard == 0 else (1, 1)


def _readonly_memfd(data: bytes) -> int:
    """Return a read-only descriptor of an anonymous file with ``data``.

    The descriptor is inherited by everything in the sandbox until the worker closes it, so it must
    not be writable there.
    """
    writable = os.memfd_create("mxc-request", os.MFD_CLOEXEC)
    try:
        os.write(writable, data)
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)


class SandboxProcess:
    """A running launcher and everything below it.

    Attributes:
        group: its control group, if it was given one.
        enforcement: what holds its limits, if anything does; closed with it.
        stdin: descriptor to write frames to, not blocking.
        stdout: descriptor to read frames from, not blocking.
        stderr: descriptor of the sandbox's diagnostics, not blocking.
        read: reads from ``stdout`` as ``os.read`` does.
        write: writes to ``stdin`` as ``os.write`` does.
    """

    def __init__(self, process: subprocess.Popen[bytes], group: Group | None = None) -> None:
        self.group = group
        self.enforcement: Enforcement | None = None
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._streams = (process.stdin, process.stdout, process.stderr)
        self.stdin, self.stdout, self.stderr = (stream.fileno() for stream in self._streams)
        self.started = time.monotonic()
        self._diagnostics = bytearray()
        self._workload: int | None = None
        for fd in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(fd, False)
        self.read: Callable[[int], bytes] = partial(os.read, self.stdout)
        self.write: Callable[[memoryview], int] = partial(os.write, self.stdin)
        for fd in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):  # over the user's pipe allowance: the default size
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def watch(
        self,
        loop: asyncio.AbstractEventLoop,
        readable: Callable[[], None],
        diagnostics: Callable[[], None],
    ) -> None:
        """Have these called in the loop when frames or diagnostics can be read."""
        loop.add_reader(self.stdout, readable)
        loop.add_reader(self.stderr, diagnostics)

    def watch_writes(
        self, loop: asyncio.AbstractEventLoop, writable: Callable[[], None] | None
    ) -> None:
        """Have this called in the loop when there is room to write; None for no longer."""
        if writable is None:
            loop.remove_writer(self.stdin)
        else:
            loop.add_writer(self.stdin, writable)

    def unwatch(self, loop: asyncio.AbstractEventLoop, *, diagnostics_only: bool = False) -> None:
        """Call nothing any more, or nothing for diagnostics."""
        loop.remove_reader(self.stderr)
        if not diagnostics_only:
            loop.remove_reader(self.stdout)
            loop.remove_writer(self.stdin)

    @property
    def pid(self) -> int:
        """The launcher's process id, also its session and process group."""
        return self._process.pid

    def read_diagnostics(self) -> bool:
        """Take what stands on stderr, keeping the end of it; false when it was closed."""
        while True:
            try:
                data = os.read(self.stderr, _DIAGNOSTICS)
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

    def tree(self) -> list[int]:
        """Return the pids below the launcher, parents before children, as the host sees them."""
        found: list[int] = []
        waiting = [self.pid]
        while waiting:
            children = list(_children(waiting.pop(0)))
            found += children
            waiting += children
        return found

    def memory(self) -> int:
        """Return the resident bytes of all its processes; shared ones count in each."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", "rb") as file:
                total += int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return total

    def workload(self) -> int | None:
        """Return the host's pid of the sandboxed Python, found from the process tree.

        The launcher starts bwrap, that its init inside the new pid namespace, and that the
        workload, which `exec` keeps at one process.
        """
        if self._workload is None:
            monitor = next(_children(self.pid), None)
            init = next(_children(monitor), None) if monitor else None
            workload = next(_children(init), None) if init else None
            self._workload = workload
        return self._workload

    def has_mounts(self, paths: Collection[str]) -> bool:
        """Whether all of these are still mount points inside the sandbox.

        A mount on a file goes away when a program outside replaces the file by a rename.
        """
        if not paths:
            return True
        try:
            with open(f"/proc/{self.workload()}/mountinfo", encoding="utf-8") as file:
                points = {line.split(" ", 5)[4] for line in file}
        except OSError:
            return False
        return all(_escaped(path) in points for path in paths)

    def wake(self) -> None:
        """Let go on what someone has stopped (SIGSTOP): the launcher, bwrap or the workload.

        A stopped process takes no interrupt and no shutdown. What the workload started is left
        alone: that may stand still on purpose. The signal goes to those that run, too: it takes
        back a stop that was sent and, on a busy machine, has not come into force yet.
        """
        for pid in (self.pid, *self.tree()[:3]):  # as in workload()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGCONT)

    def interrupt(self) -> bool:
        """Send SIGINT to the workload's process group; false where there is no such group yet."""
        from mxc_kernel.mxc import processes

        workload = self.workload()
        stood_still = workload is not None and processes.is_stopped(workload)
        self.wake()
        if workload is None:
            return False
        try:
            if os.getpgid(workload) != workload:
                return False  # the worker has not made its own group yet
            if stood_still:
                self._interrupt_main_thread(workload)
            else:
                os.killpg(workload, signal.SIGINT)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _interrupt_main_thread(self, workload: int) -> None:
        """Interrupt one that stood still just now, and the rest of its process group.

        While its threads come back, Linux hands a signal for the whole process to any of them, and
        only the main one's sleep is ended by it (13 of 25 interrupts were without effect).
        """
        for pid in self.tree():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if pid != workload and os.getpgid(pid) == workload:
                    os.kill(pid, signal.SIGINT)
        _libc.tgkill(workload, workload, signal.SIGINT)

    def poll(self) -> int | None:
        """Return the exit status if the launcher has ended, as a shell would give it."""
        status = self._process.poll()
        return status if status is None or status >= 0 else 128 - status

    def kill(self, timeout: float = 5.0) -> None:
        """End every process of the sandbox and wait until they are gone.

        Args:
            timeout: seconds to wait for the pid namespace to be torn down.

        Safe at any time, also during start-up, and more than once.
        """
        alive = {pid: _pidfd(pid) for pid in self.tree()}
        try:
            if self._process.poll() is None:
                # The group, not the launcher alone: signalling only the launcher within about
                # 15 ms of its start orphaned a live sandbox in 20-50 % of tries; the group in none.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            deadline = time.monotonic() + timeout
            for pid, fd in alive.items():
                if fd is not None:
                    select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
                while fd is None and os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
                    time.sleep(0.01)
        finally:
            for fd in filter(None, alive.values()):
                os.close(fd)

    def close(self) -> None:
        """Kill the sandbox, remove its control group and close the descriptors."""
        self.kill()
        if self.enforcement is not None:
            self.enforcement.close()
        if self.group is not None:
            self.group.close()
        self.read_diagnostics()
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.close()


def _escaped(path: str) -> str:
    """Write a path as mountinfo does (proc(5)): octal for blank, tab, newline and backslash."""
    for char in "\\ \t\n":
        path = path.replace(char, f"\\{ord(char):03o}")
    return path


def _pidfd(pid: int) -> int | None:
    """Open a process; None where it is gone, or where this process may open nothing more."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _children(pid: int) -> Iterator[int]:
    """Yield the children of a process, of whichever of its threads started them."""
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                yield from map(int, file.read().split())
    except OSError:
        return
