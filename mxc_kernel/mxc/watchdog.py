"""Looks after the limits that Linux does not hold for us, from a thread of its own.

A thread, because output may keep the event loop busy while memory fills. It sleeps while no cell
runs, but for a look now and then at what cells left running.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mxc_kernel.mxc.enforcement import Crossing, Enforcement

__all__ = ["Watchdog"]

_BUSY, _IDLE = 0.25, 2.0  # seconds between two passes
_AWAKE = 2.0  # seconds after the last cell began; many short ones must not each wake the thread


class Watchdog:
    """Checks sandboxes until it is closed.

    Args:
        report: called in the watchdog's thread with each limit that was passed.
    """

    def __init__(self, report: Callable[[Enforcement, Crossing], None]) -> None:
        self._report = report
        self._watched: tuple[Enforcement, ...] = ()
        self._wake = threading.Event()
        self._dozing = False
        self._last_cell = 0.0
        self._closed = False
        self._thread: threading.Thread | None = None

    def watch(self, *sandboxes: Enforcement) -> None:
        """Look after these from now on, and after no others, as a cell begins in one of them."""
        self._watched = sandboxes
        self._last_cell = time.monotonic()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
            self._thread.start()
        elif self._dozing:
            self._wake.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            busy = any(sandbox.busy for sandbox in self._watched)
            self._dozing = not busy and time.monotonic() - self._last_cell > _AWAKE
            woken = self._wake.wait(_IDLE if self._dozing else _BUSY)
            self._wake.clear()
            if not woken:  # else a cell has just begun, and there is nothing to see yet
                for sandbox in self._watched:
                    self._look(sandbox)

    def _look(self, sandbox: Enforcement) -> None:
        try:
            for crossing in sandbox.check():
                self._report(sandbox, crossing)
        except Exception:  # a bug of ours must not end the watch
            logging.getLogger(__name__).exception("the watchdog failed in a pass")
