"""A session's audit: what is recorded of each cell, and when.

Knows policies and plain facts, nothing of Jupyter. What comes from the child is bounded, redacted
and marked as its word. The shapes of the records are in :mod:`mxc_kernel.audit.schema`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mxc_kernel.audit import folder as folders
from mxc_kernel.audit.anchoring import Failure
from mxc_kernel.audit.chain import Chain, read_key
from mxc_kernel.audit.facts import Begun, Outcome, Sandbox, Source, Under
from mxc_kernel.audit.labels import Labels, salt
from mxc_kernel.audit.outlets import Outlets
from mxc_kernel.audit.policies import Policies
from mxc_kernel.audit.trail import Trail
from mxc_kernel.audit.wording import Wording, counts, executable
from mxc_kernel.errors import AuditError, MxcKernelError
from mxc_kernel.policy import Audit, Ceiling, Policy, Request

if TYPE_CHECKING:
    from mxc_kernel.audit.reading import AuditedCell

__all__ = ["Journal"]

log = logging.getLogger(__name__)

_LIVE = 4  # sandboxes that may be met again: the session's, the one before it, throwaway ones
_BURST = 1.0  # seconds in which what reaches the child beside cells is counted into one record


class Journal:
    """Records what a session does.

    Args:
        environ: the kernel's environment.
        notebook_dir: the notebook's folder.
        settings: returns how the operator wants the trail kept.

    """

    def __init__(
        self,
        environ: Mapping[str, str],
        notebook_dir: str,
        settings: Callable[[], Audit],
    ) -> None:
        self._environ = environ
        self._notebook_dir = notebook_dir
        self._read_settings = settings
        self._trail: Trail | None = None
        self._words = Wording(lambda: self._settings)
        self._policies = Policies()
        self._cells = 0
        self._requested: tuple[Request, Policy] | None = None
        self._sandboxes: dict[int, tuple[object, int]] = {}  # by id, with the object that has it
        self._launches = 0
        self._state: dict[str, Any] | None = None
        self._relaunches = 0
        self._dropped: Counter[str] = Counter()
        self._roads: Counter[str] = Counter()
        self._burst = False
        self._owed: list[tuple[str, dict[str, Any]]] = []
        self._told: set[str] = set()
        self._closed = False
        self._outlets: Outlets | None = None

    def redact_with(self, redact: Callable[[str], str]) -> None:
        """Have secrets masked in texts; before that, no text of the child's is kept."""
        self._words.redact = redact

    # --- life -----------------------------------------------------------------------------------

    @property
    def session(self) -> str | None:
        """The trail's name; None while there is none."""
        return self._trail.session if self._trail is not None else None

    def open(self) -> Trail:
        """Begin the trail, if it has not begun.

        Raises:
            AuditError: it cannot be written. It is tried again at the next call.
        """
        if self._trail is None:
            settings = self._settings
            try:
                folder = folders.make(self._environ)
                self._words.labels = Labels(salt(folder), self._roots())
            except OSError as error:
                raise folders.refusal(error, folders.audit_folder(self._environ)) from error
            chain = Chain(read_key(settings.key) if settings.key else None)
            first = self._words.session(self._environ, self._notebook_dir)
            self._trail = Trail(folder, chain, first, fsync=settings.fsync, rotate=settings.rotate)
            self._outlets = Outlets(self._trail, settings, first, self._unanchored)
            self._outlets.anchor()
            if settings.retention is not None:
                self._trail.remove_older(settings.retention)
        return self._trail

    def close(self) -> None:
        """End the trail."""
        if self._trail is None or self._closed:
            return
        try:
            self._append("end", {"cells": self._cells, "sandboxes": self._launches})
        except AuditError as error:
            log.warning("%s", error)
        self._closed = True
        self._trail.close()
        if self._outlets is not None:
            self._outlets.close()

    def cells(self) -> tuple[str | None, list[AuditedCell]]:
        """Return the trail's name, and its cells so far.

        Raises:
            AuditError: it cannot be read.
        """
        from mxc_kernel.audit.reading import Wanted, cells

        if self._trail is None:
            return None, []
        folder = folders.audit_folder(self._environ)
        try:
            return self._trail.session, list(cells(folder, Wanted(self._trail.session)))
        except OSError as error:
            raise AuditError(
                f"the audit trail cannot be read: {error.strerror}",
                remedy=f"Look at {folder}, or run `mxc-kernel audit verify`.",
            ) from error

    # --- sandboxes ------------------------------------------------------------------------------

    def launched(self, sandbox: Sandbox, reason: str) -> None:
        """Record a sandbox, before anything of the user's is sent to it; once.

        Args:
            sandbox: it.
            reason: why it was launched: ``start``, ``policy``, ``restart``, ``restore``, ``death``
                or ``throwaway``.

        Raises:
            AuditError: it cannot be recorded.
        """
        if id(sandbox.launched) in self._sandboxes:
            return
        self.open()  # labels are made with what lies in its folder
        self._append(
            "sandbox",
            {
                "number": self._launches + 1,
                "reason": reason,
                "policy": self._policy(sandbox.policy),
                "attested": [list(fact) for fact in sandbox.attested],
                **executable(sandbox),
            },
        )
        self._launches += 1
        if reason not in ("start", "throwaway"):
            self._relaunches += 1
        if len(self._sandboxes) >= _LIVE:
            del self._sandboxes[next(iter(self._sandboxes))]
        self._sandboxes[id(sandbox.launched)] = (sandbox.launched, self._launches)

    def carried(self, names: int, lost: int, changed: int, *, gone: bool = False) -> None:
        """Take note of what became of the session's names; the next record of a cell has it.

        Args:
            names: how many were carried into another sandbox.
            lost: how many could not be.
            changed: how many are not quite the same there.
            gone: whether all of them went with their sandbox.
        """
        before = self._state or {"carried": 0, "lost": 0, "changed": 0, "gone": False}
        self._state = {
            "carried": before["carried"] + names,
            "lost": before["lost"] + lost,
            "changed": before["changed"] + changed,
            "gone": before["gone"] or gone,
        }

    # --- cells ----------------------------------------------------------------------------------

    def begin(self, source: Source, under: Under) -> Begun:
        """Write a cell's pending record; only then may its code be sent.

        Raises:
            AuditError: it cannot be written. The cell must not run.
        """
        reason = "throwaway" if under.throwaway else "death" if self._launches else "start"
        self.launched(under.sandbox, reason)
        if self._requested is None or self._requested[0] is not under.request:
            self._requested = (under.request, under.request.policy)
        ceiling = self._ceiling(under.ceiling)
        policy = {
            "requested": self._policy(self._requested[1]),
            "clamped": self._policy(under.clamped),
            "effective": self._policy(under.sandbox.policy),
        }
        fields = {
            **self._words.cell(source, self._cells + 1),
            "ceiling": ceiling,
            "policy": policy,
            "grants": self._grants(under.sandbox.policy),
            "sandbox": {
                "number": self._sandboxes[id(under.sandbox.launched)][1],
                "throwaway": under.throwaway,
                "attested": len(under.sandbox.attested),
                **executable(under.sandbox),
            },
            "limits": under.clamped.limits.plain(),
            **self._changed(),
        }
        record = self._append("pending", fields)
        self._relaunches, self._state = 0, None
        self._cells += 1
        trail = self.open()
        used, clock = under.sandbox.usage(), time.time_ns()
        return Begun(
            trail.session,
            record,
            self._cells,
            time.monotonic(),
            used,
            under.sandbox,
            clock,
            fields,
        )

    def finish(self, begun: Begun, outcome: Outcome) -> None:
        """Write a cell's finished record.

        Raises:
            AuditError: it cannot be written now. It is kept, and written before anything else.
        """
        dropped = Counter(outcome.dropped) - self._dropped
        self._dropped = Counter(outcome.dropped)
        error = None
        if outcome.error is not None:
            error = {"kind": self._words.word(outcome.error), "by": outcome.by}
        fields = {
            "cell": {"number": begun.cell},
            "pending": begun.record,
            "status": outcome.status,
            "error": error,
            **outcome.usage,
            "output": outcome.output,
            "redactions": counts(outcome.redactions),
            "dropped": counts(dropped),
            "denials": self._words.denials(outcome.evidence),
            "inputs": outcome.inputs,
            **self._changed(),
        }
        self._relaunches, self._state = 0, None
        if self._outlets is not None:
            self._outlets.cell(begun, fields)
        try:
            self._append("finished", fields)
        except AuditError as error:
            self._owed.append(("finished", fields))
            raise AuditError(
                "the cell has run, but its end could not be written to the audit trail; "
                "no other cell runs before that is done",
                remedy=error.remedy,
            ) from None

    def refused(self, source: Source, error: str) -> None:
        """Record a cell that was not sent to the child, as far as that can be recorded."""
        try:
            self.open()
            self._append(
                "refused",
                {
                    **self._words.cell(source, self._cells + 1),
                    "error": {"kind": error, "by": "host"},
                },
            )
            self._cells += 1
        except AuditError as failure:
            log.warning("%s", failure)

    # --- other roads ----------------------------------------------------------------------------

    def road(self, kind: str) -> None:
        """Record that something else than a cell is about to reach the child.

        The first of a burst is recorded before it is sent, the others of the same second with it in
        one record.

        Args:
            kind: one of a fixed set.

        Raises:
            AuditError: it cannot be recorded. It should not be sent.
        """
        self._roads[kind] += 1
        if self._burst:
            return
        try:
            self._write_roads()
        except AuditError:
            self._roads[kind] -= 1
            raise
        import asyncio

        self._burst = True
        asyncio.get_running_loop().call_later(_BURST, self._end_burst)

    def _end_burst(self) -> None:
        self._burst = False
        if self._closed or not self._roads:
            return
        try:
            self._write_roads()
        except AuditError as error:  # it stays counted, and no cell runs before it is written
            log.warning("%s", error)

    def _write_roads(self) -> None:
        if found := counts(self._roads):
            self._write("roads", {"counts": found})
            self._roads.clear()

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _settings(self) -> Audit:
        try:
            return self._read_settings()
        except MxcKernelError:  # the ceiling cannot be read; no cell runs, and that is recorded
            return Audit()

    def _append(self, kind: str, fields: dict[str, Any]) -> int:
        """Write a record behind all that has still to be written."""
        while self._owed:
            self._write(*self._owed[0])
            del self._owed[0]
        self._write_roads()
        return self._write(kind, fields)

    def _write(self, kind: str, fields: dict[str, Any]) -> int:
        if self._closed:  # its descriptors may be somebody else's by now
            raise AuditError("the audit trail has ended", remedy="Restart the kernel.")
        trail, settings = self.open(), self._settings
        trail.fsync, trail.rotate = settings.fsync, settings.rotate
        number = trail.append(kind, fields)
        if self._outlets is not None:
            self._outlets.written()
        return number

    def _unanchored(self, failure: Failure) -> None:
        where, why = failure
        with contextlib.suppress(AuditError):
            self._append("anchor", {"to": where, "why": self._words.word(why)})

    def _roots(self) -> dict[str, str]:
        from mxc_kernel.policy.known import home_folder

        roots = {"/": "/"} if os.sep == "/" else {}
        return {**roots, "~": home_folder(self._environ), "${notebook_dir}": self._notebook_dir}

    def _changed(self) -> dict[str, Any]:
        return {"relaunches": self._relaunches, "state": self._state}

    def _policy(self, policy: Policy) -> str:
        """Return a policy's hash; what it says is recorded where it is met for the first time."""
        digest, plain = self._policies.describe(policy, self._words.path, self._settings.paths)
        if digest not in self._told:
            self._append("policy", {"sha256": digest, "policy": plain})
            self._told.add(digest)
        return digest

    def _grants(self, policy: Policy) -> list[list[str]]:
        _, plain = self._policies.describe(policy, self._words.path, self._settings.paths)
        return [[path, access] for path, access in plain["filesystem"].items()]

    def _ceiling(self, ceiling: Ceiling) -> dict[str, Any]:
        digest = self._policies.ceiling(ceiling)
        if digest not in self._told:
            layers = [
                {"name": layer.name, "source": self._words.path(layer.source)}
                for layer in ceiling.layers
            ]
            self._append("ceiling", {"sha256": digest, "layers": layers})
            self._told.add(digest)
        return {"sha256": digest, "layers": [layer.name for layer in ceiling.layers]}
