"""The child's end of the pipe, out of reach of accidents in user code."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mxc_kernel.wire import METERED, Allowance, Buffer, Channel, Debt, Frame, FrameReader, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Transport", "secure", "untraced"]

_FIRST_HIGH_FD = 200  # above what a cell's own opens reach, below the usual soft limit of 1024
_PIPE_SIZE = 1 << 20  # bytes; the most an unprivileged process gets (fs.pipe-max-size)
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ; named in fcntl on Linux only


class Transport:
    """Frames to and from the host.

    Frames of different channels take turns, a fragment at a time, and those of a metered channel
    let all others go first. A metered frame waits for the host's credit; no other waits for more
    than room in the pipe, which the host always reads.

    Args:
        incoming: descriptor that the host writes to.
        outgoing: descriptor that the host reads from.
        diagnostics: descriptor of the bounded standard error that the host keeps.

    Attributes:
        full: says whether what the host sends on a metered channel lies here unused.
    """

    def __init__(self, incoming: int, outgoing: int, diagnostics: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self.diagnostics = diagnostics
        self.full: Callable[[], bool] = lambda: False
        self._reader = FrameReader(incoming, self._arrived)
        self._turn = threading.Condition()
        self._writing = False
        self._urgent = 0  # senders on other channels than the metered ones
        self._order = {channel: threading.Lock() for channel in Channel}
        self._allowance = Allowance()
        self._debt = Debt()
        self._debts = threading.Lock()
        self._given: queue.SimpleQueue[_Given] | None = None
        if hasattr(os, "register_at_fork"):
            # A child that user code forks would otherwise mix its bytes into ours.
            os.register_at_fork(after_in_child=self._close)

    def send(self, channel: Channel, parts: Sequence[Buffer]) -> None:
        """Write one frame; returns when it is in the pipe. Safe to call from any thread.

        Raises:
            WireError: the frame is too large.
            OSError: the host is gone.
        """
        fragments = encode(channel, parts)
        if _may_be_interrupted():
            self._give(channel, fragments)
        else:
            self._write(channel, fragments)

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the host closes its end.

        Raises:
            EOFError: the host closed its end.
            WireError: the host's bytes are not a frame.
        """
        for channel, parts in self._reader.frames():
            if channel is not Channel.CREDIT:
                yield channel, parts
                continue
            with self._turn:
                self._allowance.refill(parts)
                self._turn.notify_all()

    def give_back(self, channel: Channel) -> None:
        """Let the host send more on a metered channel, unless too much lies here unused."""
        if self.full():
            return
        with self._debts:
            due = self._debt.due(channel)
        if due is not None:
            self.send(Channel.CREDIT, due)

    def _arrived(self, channel: Channel, cost: int) -> None:
        with self._debts:
            self._debt.take(channel, cost)
        if channel in METERED:
            self.give_back(channel)

    def _write(self, channel: Channel, fragments: Iterable[bytes]) -> None:
        with self._order[channel]:
            for fragment in fragments:
                self._wait_for_turn(channel, fragment)
                try:
                    view = memoryview(fragment)
                    while view:
                        view = view[os.write(self._outgoing, view) :]
                finally:
                    with self._turn:
                        self._writing = False
                        self._turn.notify_all()

    def _wait_for_turn(self, channel: Channel, fragment: bytes) -> None:
        metered = channel in METERED
        with self._turn:
            self._urgent += not metered
            while self._writing or (
                metered and (self._urgent or not self._allowance.covers(channel))
            ):
                self._turn.wait()
            self._urgent -= not metered
            self._writing = True
            self._allowance.spend(channel, fragment)

    def _give(self, channel: Channel, fragments: Iterable[bytes]) -> None:
        """Let a thread that no interrupt can hit write a frame, and wait for it.

        A KeyboardInterrupt between two writes would leave half a fragment in the pipe.
        """
        if self._given is None:
            self._given = queue.SimpleQueue()
            untraced(threading.Thread(target=self._write_given, daemon=True)).start()
        done: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()
        self._given.put((channel, fragments, done))
        error = done.get()
        if error is not None:
            raise error

    def _write_given(self) -> None:
        assert self._given is not None
        while True:
            channel, fragments, done = self._given.get()
            try:
                self._write(channel, fragments)
            except OSError as error:
                done.put(error)
            else:
                done.put(None)

    def _close(self) -> None:
        for fd in (self._incoming, self._outgoing, self.diagnostics):
            with contextlib.suppress(OSError):
                os.close(fd)


_Given = tuple[Channel, Iterable[bytes], "queue.SimpleQueue[OSError | None]"]


def _may_be_interrupted() -> bool:
    """Whether a KeyboardInterrupt can come out of any line of this thread."""
    return threading.current_thread() is threading.main_thread() and callable(
        signal.getsignal(signal.SIGINT)
    )


def secure() -> Transport:
    """Take descriptors 0 and 1 away from everything that runs later; call before other imports.

    Afterwards 0 and 1 are the null device, 2 is still the host's diagnostics pipe, the transport
    sits on high close-on-exec descriptors and nothing else that was inherited is open.
    """
    sys.stdout.flush()
    incoming, outgoing, diagnostics = (_move_up(fd) for fd in (0, 1, 2))
    for fd, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY)):
        null = os.open(os.devnull, mode)
        os.dup2(null, fd)
        os.close(null)
    _close_all_but({0, 1, 2, incoming, outgoing, diagnostics})
    if os.name == "posix":
        _own_signals()
        for fd in (incoming, outgoing):
            _widen(fd)
    return Transport(incoming, outgoing, diagnostics)


def _move_up(fd: int) -> int:
    if os.name != "posix":
        return os.dup(fd)
    import fcntl
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = _FIRST_HIGH_FD if soft == resource.RLIM_INFINITY else min(_FIRST_HIGH_FD, soft - 8)
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(lowest, 3))


def _close_all_but(keep: set[int]) -> None:
    """Close what the launcher leaked: it may be a config file or a lock of the host's."""
    opened: Iterable[int] = range(3, 256)
    for listing in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            opened = [int(name) for name in os.listdir(listing)]
            break
    for fd in set(opened) - keep:
        with contextlib.suppress(OSError):  # the listing's own descriptor is closed already
            os.close(fd)


def _own_signals() -> None:
    """Undo what the launcher's signal thread leaves behind, and lead a group of our own.

    MXC starts the workload with these three signals blocked. Leading the process group lets an
    interrupt reach what a cell has started. SIGINT is ignored until a cell runs, as in ipykernel,
    so that an early interrupt does not end the start-up.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGINT, signal.SIGTERM})
    with contextlib.suppress(OSError):  # already a session leader
        os.setpgid(0, 0)


def _widen(fd: int) -> None:
    """A full 64 KiB pipe costs a context switch per write: 100 MB took 1.6 times as long."""
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, _SET_PIPE_SIZE, _PIPE_SIZE)


def untraced(thread: threading.Thread) -> threading.Thread:
    """Mark a thread so that a debugger neither lists nor stops it, as ipykernel marks its own."""
    thread.pydev_do_not_trace = True  # type: ignore[attr-defined]
    thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]
    return thread
