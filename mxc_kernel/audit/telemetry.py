"""Exports what is audited to an OpenTelemetry collector, for operators who collect centrally.

A copy of the trail, never in its place: cells hand their figures to a queue and go on, whatever
becomes of them. All that takes time (importing the SDK takes half a second) happens in a thread.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

__all__ = ["CellSpan", "Exporter", "Telemetry"]

log = logging.getLogger(__name__)

_WAITING = 1000  # cells that may wait to be exported; what comes beyond is counted and left out
_AT_THE_END = 1.0  # seconds that the end of a session waits for the last ones

CellSpan = tuple[int, int, Mapping[str, Any], Mapping[str, Any]]
"""Beginning and end of a cell in nanoseconds since the epoch, and its two records."""


class Exporter(Protocol):
    """Sends spans and figures on."""

    def cell(self, span: CellSpan) -> None:
        """Take a cell."""

    def close(self) -> None:
        """Send what is left."""


class Telemetry:
    """Hands cells to an exporter in a thread of its own.

    Args:
        make: makes the exporter, in that thread.

    Attributes:
        lost: cells that were left out because too many waited.
    """

    def __init__(self, make: Callable[[], Exporter]) -> None:
        self.lost = 0
        self._make = make
        self._queue: queue.Queue[CellSpan | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def put(self, span: CellSpan) -> None:
        """Hand over a cell; never waits."""
        try:
            self._queue.put_nowait(span)
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Let the exporter send what is left, for a second at most."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(_AT_THE_END)
        if self.lost:
            log.warning("%d cells were not exported: the collector was too slow", self.lost)

    def _run(self) -> None:
        try:
            exporter = self._make()
        except ImportError as error:
            log.warning("nothing is exported: %s. Run `pip install 'mxc-kernel[otel]'`.", error)
            return
        except Exception as error:  # noqa: BLE001  # an SDK's refusal must not end in a traceback
            log.warning("nothing is exported: %s", error)
            return
        while (span := self._queue.get()) is not None:
            try:
                exporter.cell(span)
            except Exception as error:  # noqa: BLE001
                log.warning("a cell was not exported: %s", error)
        exporter.close()
