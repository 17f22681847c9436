"""What goes out of the trail beside the records: anchors, now and then, and telemetry."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mxc_kernel.audit.anchoring import Anchoring, Failure
from mxc_kernel.audit.anchors import anchor
from mxc_kernel.audit.facts import Begun
from mxc_kernel.audit.index import now
from mxc_kernel.audit.trail import Trail
from mxc_kernel.policy import Audit

if TYPE_CHECKING:
    from mxc_kernel.audit.telemetry import Telemetry

__all__ = ["Outlets"]

log = logging.getLogger(__name__)


class Outlets:
    """The outlets of one trail.

    Args:
        trail: it.
        settings: where they lead.
        first: the first record's fields.
        record: writes a record that an anchor could not be put.
    """

    def __init__(
        self,
        trail: Trail,
        settings: Audit,
        first: Mapping[str, Any],
        record: Callable[[Failure], None],
    ) -> None:
        self._trail = trail
        self._anchoring = Anchoring(settings)
        self._every = settings.anchor_every
        self._record = record
        self._due = False
        self._told: set[str] = set()
        self._closed = False
        self.telemetry: Telemetry | None = None
        if settings.otel is not None:
            session = {"session": trail.session, **first}
            self.telemetry = _telemetry(settings.otel, session)

    def written(self) -> None:
        """Have the trail anchored in a while, with what is written until then."""
        if self._due or not self._anchoring.wanted:
            return
        import asyncio

        with contextlib.suppress(RuntimeError):  # no loop runs: a test, or the very end
            asyncio.get_running_loop().call_later(self._every, self.anchor)
            self._due = True

    def anchor(self) -> None:
        """Anchor the trail as it is now."""
        self._due = False
        if self._anchoring.wanted:
            trail = self._trail
            self._failed(self._anchoring.put(anchor(now(), trail.session, trail.head, trail.index)))

    def cell(self, begun: Begun, finished: Mapping[str, Any]) -> None:
        """Export a cell, if that is wanted."""
        if self.telemetry is not None:
            self.telemetry.put((begun.clock, time.time_ns(), begun.pending, finished))

    def close(self) -> None:
        """Anchor the end, and let what is under way come to its end, as far as it is quick."""
        self._closed = True
        self.anchor()
        self._failed(self._anchoring.close())
        if self.telemetry is not None:
            self.telemetry.close()

    def _failed(self, failures: list[Failure]) -> None:
        """Tell that an anchor could not be put. The cells go on; the trail says so, once."""
        for where, why in failures:
            log.warning("the audit trail could not be anchored (%s): %s", where, why)
            if not self._closed and where not in self._told:
                self._told.add(where)
                # Not anchored by itself: that would fail again, and for ever.
                due, self._due = self._due, True
                self._record((where, why))
                self._due = due


def _telemetry(endpoint: str, session: Mapping[str, Any]) -> Telemetry:
    from mxc_kernel.audit.telemetry import Exporter, Telemetry

    def make() -> Exporter:
        from mxc_kernel.audit.otlp import otlp

        return otlp(endpoint, session)

    return Telemetry(make)
