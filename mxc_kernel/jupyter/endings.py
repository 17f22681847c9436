"""How a cell ends: with the child's reply, with an error of the host's, or because it went too far.

The one place that answers cells.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from mxc_kernel.audit.facts import Outcome
from mxc_kernel.crossings import limit_error
from mxc_kernel.errors import (
    AuditError,
    MxcKernelError,
    SandboxExecutionError,
    SandboxOutputError,
    SandboxTimeoutError,
)
from mxc_kernel.jupyter.cell import Cell
from mxc_kernel.jupyter.clock import CellClock
from mxc_kernel.jupyter.frontends import Frontends
from mxc_kernel.jupyter.gate import Gate
from mxc_kernel.jupyter.messages import ChildMessage
from mxc_kernel.mxc.enforcement import Crossing
from mxc_kernel.session import Session
from mxc_kernel.views import notice, refusal_view

__all__ = ["Endings"]

_KILL_GRACE = 5.0  # seconds a cell gets to end after it was interrupted for what it did
_TOLD = 100  # denials in a reply's metadata


class Endings:
    """Answers cells.

    Args:
        session: explains what was blocked, interrupts and kills.
        frontends: where the answers go.
        gate: what the child's replies pass.
        ended: called when a cell has been answered.

    Attributes:
        next_count: execution count of the next cell.
    """

    def __init__(
        self,
        session: Session,
        frontends: Frontends,
        gate: Gate,
        ended: Callable[[Cell], None],
    ) -> None:
        self.next_count = 1
        self._session = session
        self._frontends = frontends
        self._gate = gate
        self._ended = ended

    # --- too far --------------------------------------------------------------------------------

    def start_clock(self, cell: Cell, limit: float) -> None:
        """End a cell that runs for longer than a limit, in seconds."""

        def expire() -> None:
            self._stop(
                cell,
                SandboxTimeoutError(
                    f"the cell passed its limit of {limit:g} s and was interrupted; "
                    "the names defined so far are kept",
                    remedy="Raise the limit with %timeout within the ceiling, or split the work.",
                ),
                SandboxTimeoutError(
                    f"the cell passed its limit of {limit:g} s, did not react to an interrupt "
                    "and was killed with its sandbox; the names defined so far are gone",
                    remedy="Raise the limit with %timeout within the ceiling, or split the work.",
                ),
            )

        cell.clock = CellClock(limit, expire)

    def stop_for_output(self, cell: Cell) -> None:
        """End a cell that has passed a limit of output, where the policy says so."""
        remedy = "Print less, or raise the limit with %limits within the ceiling."
        self._stop(
            cell,
            SandboxOutputError(
                "the cell passed a limit of output and was interrupted; "
                "the names defined so far are kept",
                remedy=remedy,
            ),
            SandboxOutputError(
                "the cell passed a limit of output, did not react to an interrupt and was killed "
                "with its sandbox; the names defined so far are gone",
                remedy=remedy,
            ),
        )

    def stop_for_limit(self, cell: Cell, crossing: Crossing) -> None:
        """End a cell that has passed a limit of what it may use."""
        if cell.stopped is None:
            self._left_running(cell, end=True)  # they may keep the cell from ending in time
        self._stop(cell, limit_error(crossing, killed=False), limit_error(crossing, killed=True))

    def _stop(self, cell: Cell, interrupted: MxcKernelError, killed: MxcKernelError) -> None:
        """Interrupt a cell, and end its child if that does not help."""
        if cell.stopped is None:
            cell.stopped = interrupted
            self._session.interrupt()
            cell.last_resort = asyncio.get_running_loop().call_later(
                _KILL_GRACE, self._session.kill, killed
            )

    # --- answers --------------------------------------------------------------------------------

    def conclude_if_done(self, cell: Cell) -> None:
        """Answer a cell once the child has both replied and gone idle."""
        if cell.reply is None or not cell.idle:
            return
        if cell.held:
            cell.settled.set()  # something is to be done before it is answered
        else:
            self.conclude(cell)

    def conclude(self, cell: Cell) -> None:
        """Answer a cell with what the child replied."""
        message = cell.reply
        assert message is not None
        count = message.content.get("execution_count")
        if isinstance(count, int) and self.next_count <= count + 1 <= self.next_count + 1:
            self.next_count = count + 1
        reply = self._gate.reply(message, cell.content)
        facts = self._gate.finish(cell.request)
        if reply is not None and cell.stopped is None:
            self._show_error(cell, reply.content)
        cell.evidence = message.metadata.get("mxc")
        facts |= self._blocked(cell)
        self._left_running(cell, end=cell.stopped is not None)
        if cell.stopped is not None:
            self.fail(cell, cell.stopped, facts)
            return
        if reply is None:
            error = SandboxExecutionError(
                "the sandbox answered with something that is no reply",
                remedy="Run the cell again; %sandbox restart starts a fresh sandbox.",
            )
            self.fail(cell, error, facts)
            return
        for note in reply.notes:
            self._gate.note(cell.request, notice(note))
        if reply.redacted:
            facts["redacted"] = dict(reply.redacted + Counter(facts.get("redacted", {})))
        failed = reply.content.get("status") == "error"
        kind = str(reply.content.get("ename")) if failed else None
        metadata = {**reply.metadata, "mxc": self._audit(cell, facts, kind, "code")}
        self._frontends.answer(cell.request, reply.content, metadata=metadata, date=message.date)
        self._end(cell)

    def _show_error(self, cell: Cell, content: dict[str, Any]) -> None:
        """Publish the error of a reply where none has been.

        IPython publishes none when an interrupt hits it while it puts the traceback together, and
        for a usage error or a group of exceptions (it prints those); another was over a limit. What
        keeps outputs alone, a saved notebook above all, would then show a cell that did not fail.
        """
        if content.get("status") != "error" or cell.request.output.error_shown:
            return
        name, value = content["ename"], content["evalue"]
        # Not the reply's traceback, which may be that of an earlier cell.
        error = {"ename": name, "evalue": value, "traceback": [f"{name}: {value}"]}
        content.update(error)
        self._gate.settle(cell.request)
        self._frontends.publish("error", error, cell.request)

    def _blocked(self, cell: Cell) -> dict[str, Any]:
        """Tell the user what a cell reported as blocked; return the same as data."""
        findings = self._session.explain(cell.evidence)
        if not findings:
            return {}
        from mxc_kernel import denials

        if (view := denials.note(findings)) is not None:
            self._gate.note(cell.request, view)
        plain = [finding.plain() for finding in findings[:_TOLD]]
        return {"denials": self._gate.redacted_facts(cell.request, plain)}

    def _left_running(self, cell: Cell, *, end: bool) -> None:
        """Say which processes a cell leaves running, or end them; a throwaway ends by itself."""
        if cell.in_throwaway and not end:
            return
        for view in self._session.left_running(cell, end=end):
            if not cell.silent:
                self._gate.note(cell.request, view)

    def answer_missing(self, cell: Cell) -> None:
        """Answer a cell whose child has gone idle without a reply."""
        if cell.reply is None:
            self.fail_with(cell, "KeyboardInterrupt", "interrupted before its first line", [])

    def fail(self, cell: Cell, error: MxcKernelError, facts: dict[str, Any] | None = None) -> None:
        """End a cell with one of the host's errors."""
        name = type(error).__name__
        message = self._gate.quoting(cell.request, error.message)
        lines = [f"{name}: {message}", self._gate.quoting(cell.request, error.remedy)]
        # A cell's own error may have the same name; only the host can say that it was the host's.
        facts = {**(facts or self._gate.finish(cell.request)), "error": name}
        self.fail_with(cell, name, message, lines, facts)

    def fail_with(
        self,
        cell: Cell,
        name: str,
        value: str,
        traceback: list[str],
        facts: dict[str, Any] | None = None,
    ) -> None:
        """End a cell with an error that the child did not send.

        Args:
            cell: it.
            name: the error's class.
            value: what it says.
            traceback: lines to show; by default name and value.
            facts: what is known of its output, if that has been finished.
        """
        request = cell.request
        facts = facts or self._gate.finish(request)
        self._gate.settle(request)
        error = {"ename": name, "evalue": value, "traceback": traceback or [f"{name}: {value}"]}
        self._frontends.publish("error", error, request)
        by_code = cell.audited is not None and name == "KeyboardInterrupt"
        facts = self._audit(cell, facts, name, "code" if by_code else "host")
        cell.reply = ChildMessage("execute_reply", {"status": "error"}, {}, [], None)
        self._frontends.answer(
            request,
            {
                "status": "error",
                **error,
                "execution_count": cell.count,
                "user_expressions": {},
                "payload": [],
            },
            metadata={"mxc": facts},
        )
        if not cell.silent:
            self.next_count = max(self.next_count, cell.count + 1)
        self._end(cell)

    def _audit(
        self, cell: Cell, facts: dict[str, Any], error: str | None, by: str
    ) -> dict[str, Any]:
        """Record a cell's end, before it is answered.

        Args:
            cell: it.
            facts: what is known of its output.
            error: the class of the error that it ended with.
            by: whose word that is, ``code`` or ``host``.

        Returns:
            The reply's ``metadata.mxc``: those facts, what the cell used, and where its record is.
        """
        journal, begun = self._session.journal, cell.audited
        if begun is None:
            journal.refused(cell.source, error or "")
            return facts
        usage = begun.usage()
        outcome = Outcome(
            "ok" if error is None else "error",
            error,
            by,
            usage,
            cell.request.output.figures(),
            facts.get("redacted", {}),
            self._gate.dropped,
            cell.evidence,
            cell.inputs,
        )
        try:
            journal.finish(begun, outcome)
        except AuditError as failure:
            self._gate.note(cell.request, refusal_view(failure))
        where = {"session": begun.session, "cell": begun.cell, "record": begun.record}
        return {**facts, "usage": usage, "audit": where}

    def _end(self, cell: Cell) -> None:
        if cell.clock is not None:
            cell.clock.cancel()
        for timer in (cell.last_resort, cell.reply_timer):
            if timer is not None:
                timer.cancel()
        self._ended(cell)
