"""A sandbox's three pipes, read and written by threads: for systems whose loop cannot watch pipes.

Windows' event loop that knows pipes does not know the sockets of ZMQ, and the other way round. So
there each pipe has a thread that blocks on it; the child's side of the host sees what it sees on
Linux: reads and writes that never block, and calls from the loop when it is worth trying again.

Nothing here is particular to Windows, so it is run and tested on every system.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ["ThreadedPipes"]

_READ = 64 << 10  # bytes read at a time
_AHEAD = 1 << 20  # bytes that lie here at most, each way: as many as a large pipe holds on Linux


class ThreadedPipes:
    """The host's ends of the pipes to one child.

    The descriptors belong to it from now on; each is closed by the thread that uses it, since a
    number that is closed under a blocked thread may mean another file to it the next moment.

    Args:
        stdin: descriptor to write to.
        stdout: descriptor to read frames from.
        stderr: descriptor to read diagnostics from.
    """

    def __init__(self, stdin: int, stdout: int, stderr: int) -> None:
        self._outlet = _Outlet(stdin)
        self._frames = _Inlet(stdout)
        self._diagnostics = _Inlet(stderr)
        self.read: Callable[[int], bytes] = self._frames.read
        self.read_stderr: Callable[[int], bytes] = self._diagnostics.read
        self.write: Callable[[memoryview], int] = self._outlet.write

    def watch(
        self,
        loop: asyncio.AbstractEventLoop,
        readable: Callable[[], None],
        diagnostics: Callable[[], None],
    ) -> None:
        """Have these called in the loop when something can be read, or the pipe has ended.

        Each is called once and then not again before a read has answered that there is no more.
        """
        self._frames.watch(_in(loop, readable))
        self._diagnostics.watch(_in(loop, diagnostics))

    def watch_writes(
        self, loop: asyncio.AbstractEventLoop, writable: Callable[[], None] | None
    ) -> None:
        """Have this called in the loop when there is room to write; None for no longer."""
        self._outlet.watch(None if writable is None else _in(loop, writable))

    def close(self) -> None:
        """Let go of the pipes. End the child first: until then a thread may block on one."""
        for end in (self._outlet, self._frames, self._diagnostics):
            end.close()


def _in(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Callable[[], None]:
    def tell() -> None:
        try:
            loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return  # the loop is closed, and nobody is interested any more

    return tell


class _End:
    """What both directions share: a lock, whom to tell, and a thread that owns a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._changed = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._closed = False
        self._tell: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask the thread to end."""
        with self._changed:
            self._closed = True
            self._tell = None
            self._chunks.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._work()
        finally:
            os.close(self._fd)

    def _work(self) -> None:
        raise NotImplementedError


class _Inlet(_End):
    """Reads a pipe a bounded way ahead."""

    _told = False

    def read(self, size: int) -> bytes:
        """Return some bytes, none at the end of the pipe.

        Raises:
            BlockingIOError: nothing is there for now.
        """
        with self._changed:
            if not self._chunks:
                self._told = False
                if self._ended:
                    return b""
                raise BlockingIOError
            data = self._chunks.popleft()
            if len(data) > size:
                self._chunks.appendleft(data[size:])
                data = data[:size]
            self._size -= len(data)
            self._changed.notify_all()
            return data

    def watch(self, tell: Callable[[], None]) -> None:
        """Have this called when something can be read."""
        with self._changed:
            self._tell, self._told = tell, False
            if self._chunks or self._ended:
                self._notify()

    def _notify(self) -> None:
        if self._tell is not None and not self._told:
            self._told = True
            self._tell()

    def _work(self) -> None:
        while True:
            try:
                data = os.read(self._fd, _READ)
            except OSError:  # Windows tells a broken pipe so, where others tell the end
                data = b""
            with self._changed:
                while self._size >= _AHEAD and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                if data:
                    self._chunks.append(data)
                    self._size += len(data)
                else:
                    self._ended = True
                self._notify()
            if not data:
                return


class _Outlet(_End):
    """Writes what was left here, which is never more than a bound."""

    def write(self, data: memoryview) -> int:
        """Take some of the bytes; return how many.

        Raises:
            BlockingIOError: there is no room for now.
            BrokenPipeError: nobody reads the pipe any more.
        """
        with self._changed:
            if self._ended or self._closed:
                raise BrokenPipeError
            room = _AHEAD - self._size
            if room <= 0:
                raise BlockingIOError
            taken = bytes(data[:room])
            self._chunks.append(taken)
            self._size += len(taken)
            self._changed.notify_all()
            return len(taken)

    def watch(self, tell: Callable[[], None] | None) -> None:
        """Have this called when there is room; at once where there is."""
        with self._changed:
            self._tell = tell
            if tell is not None and (self._ended or self._size < _AHEAD):
                tell()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._chunks and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                data = self._chunks.popleft()
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._fd, view) :]
            except OSError:
                self._ended = True
            with self._changed:
                self._size -= len(data)
                if self._tell is not None:
                    self._tell()
                if self._ended:
                    self._chunks.clear()
                    return
