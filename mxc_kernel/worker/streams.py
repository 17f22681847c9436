"""Standard output and error as a cell sees them, text and descriptor alike."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import codecs
import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ipykernel.iostream import OutStream

from mxc_kernel.worker.backlog import LIMIT, Room

__all__ = ["CellStream", "remember_less"]

_READ_SIZE = 64 << 10  # bytes; ipykernel reads 1,000 at a time
# Characters sent without waiting for the next flush. The host works on one piece while the next is
# made, so that 100 MB take two thirds of the time of one message.
_PIECE = 64 << 10

_REMEMBERED = (
    64 << 10
)  # characters of a cell's stdout, and of its stderr, that %notebook can export


class CellStream(OutStream):
    """ipykernel's stream with another watch over its descriptor.

    What a subprocess or C code wrote before the cell ended arrives before the cell's end; a
    character split between two reads stays whole; nothing is echoed to the process's original
    descriptor, which leads to the host's bounded diagnostics. ``fileno()`` is the watched one, so
    that ``subprocess.run(..., stdout=sys.stdout)`` reaches the cell too.

    Who prints faster than the host takes it waits, and so does a subprocess, whose pipe is full.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unsent = 0  # characters since the last flush
        self._pushed = False
        self._room = Room()
        self._draining = threading.Lock()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        super().__init__(*args, **kwargs)
        if hasattr(os, "register_at_fork"):
            # A fork while another thread is in here would leave the lock held for ever over there,
            # and the first print of the forked process would hang.
            lock = self._buffer_lock
            os.register_at_fork(
                before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
            )

    def fileno(self) -> int:
        """Return the descriptor whose output the cell shows."""
        if self._fid is None:
            return int(super().fileno())
        return int(self._original_stdstream_fd)

    def write(self, string: str) -> int | None:  # type: ignore[override]  # ipykernel's own type
        """Write to the stream; wait while too much of it has not been sent.

        A long text goes piece by piece: as one message it would be held several times over.
        """
        if not isinstance(string, str) or len(string) <= _PIECE:
            return self._write_piece(string)
        for start in range(0, len(string), _PIECE):
            self._write_piece(string[start : start + _PIECE])
        return len(string)

    def _write_piece(self, piece: str) -> int | None:
        if self._unsent >= _PIECE and self.pub_thread is not None:
            if not self._pushed:
                self._push()
            self._room.wait_while(self._full, self._push)
        written = super().write(piece)
        self._unsent += len(piece)
        return written

    def _push(self) -> None:
        self._pushed = True
        self.pub_thread.schedule(self._flush)

    def _full(self) -> bool:
        return self._unsent >= LIMIT

    def _rotate_buffers(self) -> Any:
        self._unsent = 0
        self._pushed = False
        self._room.wake()
        return super()._rotate_buffers()

    def _setup_stream_redirects(self, name: str) -> None:
        super()._setup_stream_redirects(name)
        reading: Any = self._fid
        os.set_blocking(reading, False)

    def _watch_pipe_fd(self) -> None:
        if self._fid is None:
            return
        poller = select.poll()
        poller.register(self._fid, select.POLLIN)
        while self._should_watch:
            poller.poll()
            if not self._drain():
                return

    def _drain(self) -> bool:
        """Move what is in the pipe into the stream; return whether there may be more later."""
        reading: Any = self._fid
        with self._draining:
            while True:
                try:
                    data = os.read(reading, _READ_SIZE)
                except BlockingIOError:
                    return True
                except OSError:
                    return False
                text = self._decoder.decode(data, final=not data)
                if text and self._should_watch:
                    self.write(text)
                if not data:
                    return False

    def flush(self) -> None:
        """Send everything written so far, through the descriptor included.

        ipykernel waits on an event, and an interrupt at the wrong moment of that wait comes out as
        "RuntimeError: release unlocked lock" (2 of 400 on a busy machine). A bare lock is safe.
        """
        thread = self.pub_thread.thread if self.pub_thread else None
        if thread is None or not thread.is_alive() or thread is threading.current_thread():
            super().flush()
            return
        if self._fid is not None and self._should_watch:
            self._drain()
        sent = threading.Lock()
        sent.acquire()
        self.pub_thread.schedule(self._flush)
        self.pub_thread.schedule(sent.release)
        sent.acquire(timeout=self.flush_timeout)


def remember_less(shell: Any) -> None:
    """Bound what IPython keeps of a cell's output, for its ``%notebook`` magic alone.

    From IPython 9 on that is all of it, for as long as the kernel lives.
    """
    remember = getattr(shell, "_tee", None)
    if remember is None:
        return

    @contextmanager
    def remember_the_start(channel: str) -> Iterator[None]:
        stream = getattr(sys, channel)
        plain = stream.write
        with remember(channel):
            remembering, left = stream.write, _REMEMBERED

            def write(data: Any, *args: Any, **kwargs: Any) -> Any:
                nonlocal left
                if left > 0 and isinstance(data, str):
                    left -= len(data)
                    if left >= 0:
                        return remembering(data, *args, **kwargs)
                return plain(data, *args, **kwargs)

            stream.write = write
            try:
                yield
            finally:
                stream.write = plain

    shell._tee = remember_the_start
