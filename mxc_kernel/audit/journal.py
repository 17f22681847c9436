"""A session's audit: what is recorded of each cell, and when.

Knows policies and plain facts, nothing of Jupyter. What comes from the child is bounded, redacted
and marked as its word. The shapes of the records are in :mod:`mxc_kernel.audit.schema`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mxc_kernel import __version__
from mxc_kernel.audit import folder as folders
from mxc_kernel.audit.anchoring import Anchoring, Failure
from mxc_kernel.audit.anchors import anchor
from mxc_kernel.audit.chain import Chain, read_key
from mxc_kernel.audit.facts import Begun, Outcome, Sandbox, Source, Under
from mxc_kernel.audit.index import now
from mxc_kernel.audit.labels import Labels, salt
from mxc_kernel.audit.policies import Policies
from mxc_kernel.audit.trail import Trail
from mxc_kernel.errors import AuditError, MxcKernelError
from mxc_kernel.policy import Audit, Ceiling, Policy, Request

if TYPE_CHECKING:
    from mxc_kernel.audit.reading import AuditedCell
    from mxc_kernel.audit.telemetry import Telemetry

__all__ = ["RUN_VARIABLE", "Journal"]

log = logging.getLogger(__name__)

RUN_VARIABLE = "MXC_KERNEL_RUN"
"""A batch run names itself by it; the session's first record repeats it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")  # ids of frontends: nobody's free text
_CODE = 1 << 20  # characters of code that are kept
_TEXT = 200  # characters of a word of the child's
_DENIALS = 16
_KINDS = 40  # reasons, rules and roads in one record; there are fewer
_LIVE = 4  # sandboxes that may be met again: the session's, the one before it, throwaway ones
_BURST = 1.0  # seconds in which what reaches the child beside cells is counted into one record


class Journal:
    """Records what a session does.

    Args:
        environ: the kernel's environment.
        notebook_dir: the notebook's folder.
        settings: returns how the operator wants the trail kept.

    Attributes:
        redact: masks secrets in a text; until it is set, no text of the child's is kept.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        notebook_dir: str,
        settings: Callable[[], Audit],
    ) -> None:
        self.redact: Callable[[str], str] = lambda _text: ""
        self._environ = environ
        self._notebook_dir = notebook_dir
        self._read_settings = settings
        self._trail: Trail | None = None
        self._labels = Labels(b"", {})
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
        self._anchoring: Anchoring | None = None
        self._anchor_due = False
        self._unanchored: set[str] = set()
        self._telemetry: Telemetry | None = None

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
                self._labels = Labels(salt(folder), self._roots())
            except OSError as error:
                raise folders.refusal(error, folders.audit_folder(self._environ)) from error
            chain = Chain(read_key(settings.key) if settings.key else None)
            first = self._first()
            self._trail = Trail(folder, chain, first, fsync=settings.fsync, rotate=settings.rotate)
            self._anchoring = Anchoring(settings)
            self._anchor()
            if settings.retention is not None:
                self._trail.remove_older(settings.retention)
            if settings.otel is not None:
                self._telemetry = _telemetry(
                    settings.otel, {"session": self._trail.session, **first}
                )
        return self._trail

    def close(self) -> None:
        """End the trail."""
        if self._trail is None or self._closed:
            return
        self._closed = True
        try:
            self._append("end", {"cells": self._cells, "sandboxes": self._launches})
        except AuditError as error:
            log.warning("%s", error)
        try:
            self._trail.close()
        except AuditError as error:
            log.warning("%s", error)
        self._anchor()
        self._anchor_failed(self._anchoring.close() if self._anchoring is not None else [])
        if self._telemetry is not None:
            self._telemetry.close()

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
        self._append(
            "sandbox",
            {
                "number": self._launches + 1,
                "reason": reason,
                "policy": self._policy(sandbox.policy),
                "attested": [list(fact) for fact in sandbox.attested],
                **_executable(sandbox),
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
            **self._cell(source),
            "ceiling": ceiling,
            "policy": policy,
            "grants": self._grants(under.sandbox.policy),
            "sandbox": {
                "number": self._sandboxes[id(under.sandbox.launched)][1],
                "throwaway": under.throwaway,
                "attested": len(under.sandbox.attested),
                **_executable(under.sandbox),
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
            error = {"kind": self._word(outcome.error), "by": outcome.by}
        fields = {
            "cell": {"number": begun.cell},
            "pending": begun.record,
            "status": outcome.status,
            "error": error,
            **outcome.usage,
            "output": outcome.output,
            "redactions": _counts(outcome.redactions),
            "dropped": _counts(dropped),
            "denials": self._denials(outcome.evidence),
            "inputs": outcome.inputs,
            **self._changed(),
        }
        self._relaunches, self._state = 0, None
        if self._telemetry is not None:
            self._telemetry.put((begun.clock, time.time_ns(), begun.pending, fields))
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
            self._append("refused", {**self._cell(source), "error": {"kind": error, "by": "host"}})
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
        if counts := _counts(self._roads):
            self._write("roads", {"counts": counts})
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
        trail, settings = self.open(), self._settings
        trail.fsync, trail.rotate = settings.fsync, settings.rotate
        number = trail.append(kind, fields)
        self._anchor_later(settings.anchor_every)
        return number

    def _anchor_later(self, delay: float) -> None:
        """Have the trail anchored in a while, with what is written until then."""
        if self._anchoring is None or not self._anchoring.wanted or self._anchor_due:
            return
        import asyncio

        with contextlib.suppress(RuntimeError):  # no loop runs: a test, or the very end
            asyncio.get_running_loop().call_later(delay, self._anchor)
            self._anchor_due = True

    def _anchor(self) -> None:
        self._anchor_due = False
        trail, anchoring = self._trail, self._anchoring
        if trail is None or anchoring is None or not anchoring.wanted:
            return
        failures = anchoring.put(anchor(now(), trail.session, trail.head, trail.index))
        self._anchor_failed(failures)

    def _anchor_failed(self, failures: list[Failure]) -> None:
        """Tell that an anchor could not be put. The cells go on; the trail says so, once."""
        for where, why in failures:
            log.warning("the audit trail could not be anchored (%s): %s", where, why)
            if not self._closed and where not in self._unanchored:
                self._unanchored.add(where)
                # Not anchored by itself: that would fail again, and for ever.
                due, self._anchor_due = self._anchor_due, True
                with contextlib.suppress(AuditError):
                    self._append("anchor", {"to": where, "why": _plain(why)[:_TEXT]})
                self._anchor_due = due

    def _first(self) -> dict[str, Any]:
        name = self._environ.get("JPY_SESSION_NAME")
        if name and os.path.isabs(name):
            name = self._path(os.path.normpath(name))
        elif name:
            name = self._path(os.path.normpath(os.path.join(self._notebook_dir, name)))
        return {
            "kernel": __version__,
            "pid": os.getpid(),
            "uid": os.getuid() if hasattr(os, "getuid") else None,
            "host": os.uname().nodename if hasattr(os, "uname") else None,
            "notebook": name or None,
            "folder": self._path(self._notebook_dir),
            "run": _id(self._environ.get(RUN_VARIABLE)),
            "paths": self._settings.paths,
        }

    def _roots(self) -> dict[str, str]:
        from mxc_kernel.policy.known import home_folder

        roots = {"/": "/"} if os.sep == "/" else {}
        # The notebook's folder last: where it is the home folder, it is called so.
        return {**roots, "~": home_folder(self._environ), "${notebook_dir}": self._notebook_dir}

    def _path(self, path: str) -> str:
        if self._settings.paths == "raw":
            return _plain(self.redact(path)) or self._labels(path)
        return self._labels(path)

    def _cell(self, source: Source) -> dict[str, Any]:
        code: dict[str, Any] = {
            "sha256": hashlib.sha256(source.code.encode("utf-8", "surrogatepass")).hexdigest(),
            "length": len(source.code),
        }
        if self._settings.code:
            code["text"] = _plain(self.redact(source.code))[:_CODE]
        return {
            "cell": {
                "number": self._cells + 1,
                "id": _id(source.cell),
                "request": _id(source.request),
                "execution_count": source.execution_count,
                "silent": source.silent,
                "subshell": _id(source.subshell),
                "expressions": source.expressions,
            },
            "code": code,
        }

    def _changed(self) -> dict[str, Any]:
        return {"relaunches": self._relaunches, "state": self._state}

    def _policy(self, policy: Policy) -> str:
        """Return a policy's hash; what it says is recorded where it is met for the first time."""
        digest, plain = self._policies.describe(policy, self._path, self._settings.paths)
        if digest not in self._told:
            self._append("policy", {"sha256": digest, "policy": plain})
            self._told.add(digest)
        return digest

    def _grants(self, policy: Policy) -> list[list[str]]:
        _, plain = self._policies.describe(policy, self._path, self._settings.paths)
        return [[path, access] for path, access in plain["filesystem"].items()]

    def _ceiling(self, ceiling: Ceiling) -> dict[str, Any]:
        digest = self._policies.ceiling(ceiling)
        if digest not in self._told:
            layers = [
                {"name": layer.name, "source": self._path(layer.source)} for layer in ceiling.layers
            ]
            self._append("ceiling", {"sha256": digest, "layers": layers})
            self._told.add(digest)
        return {"sha256": digest, "layers": [layer.name for layer in ceiling.layers]}

    def _word(self, text: str) -> str:
        """Return a word of the child's as it may be kept."""
        return _plain(self.redact(text[: _TEXT * 4]))[:_TEXT]

    def _denials(self, evidence: object) -> list[dict[str, Any]]:
        found = evidence.get("denials") if isinstance(evidence, dict) else None
        if not isinstance(found, list):
            return []
        kept = []
        for denial in found[:_DENIALS]:
            if not isinstance(denial, dict):
                continue
            kept.append(
                {
                    "kind": "network" if denial.get("kind") == "network" else "filesystem",
                    "operation": self._word(str(denial.get("operation") or "")),
                    "errno": self._word(str(denial.get("errno") or "")),
                    "path": self._path(str(denial["path"])[:4096]) if denial.get("path") else None,
                    "host": self._word(str(denial["host"])) if denial.get("host") else None,
                }
            )
        return kept


def _telemetry(endpoint: str, session: Mapping[str, Any]) -> Telemetry:
    from mxc_kernel.audit.telemetry import Exporter, Telemetry

    def make() -> Exporter:
        from mxc_kernel.audit.otlp import otlp

        return otlp(endpoint, session)

    return Telemetry(make)


def _executable(sandbox: Sandbox) -> dict[str, str]:
    return {
        "backend": sandbox.backend,
        "version": sandbox.version,
        "sha256": sandbox.sha256,
    }


def _id(text: object) -> str | None:
    return text if isinstance(text, str) and _NAME.fullmatch(text) else None


def _plain(text: str) -> str:
    """Return a text that JSON can hold: lone surrogates are replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts above zero; the rarest are left out if there are too many."""
    some = Counter({name: count for name, count in counts.items() if count > 0})
    return dict(some.most_common(_KINDS))
