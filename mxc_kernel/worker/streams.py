"""Standard output and error as a cell sees them, text and descriptor alike."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import codecs
import os
import select
import threading
from typing import Any

from ipykernel.iostream import OutStream

__all__ = ["CellStream"]

_READ_SIZE = 64 << 10  # bytes; ipykernel reads 1,000 at a time


class CellStream(OutStream):
    """ipykernel's stream with another watch over its descriptor.

    What a subprocess or C code wrote before the cell ended arrives before the cell's end; a
    character split between two reads stays whole; nothing is echoed to the process's original
    descriptor, which leads to the host's bounded diagnostics. ``fileno()`` is the watched one, so
    that ``subprocess.run(..., stdout=sys.stdout)`` reaches the cell too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
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
