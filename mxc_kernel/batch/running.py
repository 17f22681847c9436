"""One notebook's run: a kernel of its own, cell by cell, and a truthful account of it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from mxc_kernel.batch.client import SandboxedKernelManager
from mxc_kernel.batch.document import Document
from mxc_kernel.batch.outcomes import Status, judge, worst
from mxc_kernel.batch.report import CellReport, Denial, ErrorText, NotebookReport

__all__ = ["NotebookRun", "Watcher"]

_START_TIMEOUT = 60.0  # seconds for the kernel's own process, beyond the sandbox's start_timeout
_INTERRUPT_GRACE = 5.0  # seconds a cell gets to end after it was interrupted; as in the kernel
_SHUTDOWN_GRACE = 5.0  # seconds; the kernel itself gives the user's exit functions 2
_BACKSTOP = 120.0  # seconds beyond a cell's limit, which the kernel holds by itself, in case not
_TRACEBACK = 8_000  # characters of it in the report
_ESCAPES = re.compile(r"\x1b\[[0-9;:]*[mKA]")  # all that the gate lets pass
_LEFT = (Status.DEAD_KERNEL, Status.UNAVAILABLE)
_EXCUSED = (Status.ERROR, Status.DENIED, Status.POLICY_REFUSED)


class Watcher:
    """Told what goes on. This one does nothing; override what is wanted."""

    def begun(self, name: str, cells: int) -> None:
        """A notebook is about to run.

        Args:
            name: its name in the run.
            cells: how many code cells it has.
        """

    def cell_done(self, name: str, cell: CellReport) -> None:
        """A cell of it has ended."""

    def done(self, report: NotebookReport) -> None:
        """It has ended, or will not be run."""


@dataclass
class NotebookRun:
    """Runs one notebook.

    Args:
        document: the notebook; it is filled in.
        report: its entry in the report; it is filled in.
        manager: starts and ends its kernel.
        save: keeps the notebook as it is now.
        watcher: told what goes on.
        stop: set when the run is to end.
        timeout: seconds that the whole notebook may take, or None.
        cell_timeout: seconds after which the kernel stops a cell, or None.
        allow_errors: whether to go on behind a cell that has failed.
    """

    document: Document
    report: NotebookReport
    manager: SandboxedKernelManager
    save: Callable[[], None]
    watcher: Watcher
    stop: asyncio.Event
    timeout: float | None = None
    cell_timeout: float | None = None
    allow_errors: bool = False

    def __post_init__(self) -> None:
        self._ended_by: Status | None = None
        self._cell: CellReport | None = None
        self._client: AsyncKernelClient | None = None
        self._began = 0.0
        self._cell_began = 0.0

    async def run(self, folder: str) -> None:
        """Run it to its end, whatever that is; the report and the notebook say which.

        Args:
            folder: the notebook's folder, where its kernel starts.
        """
        report = self.report
        report.status, report.cells_total = Status.RUNNING, len(self.document.code)
        report.started = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._began = time.monotonic()
        self.watcher.begun(report.name, report.cells_total)
        execution = asyncio.get_running_loop().create_task(self._execute(folder))
        stopped = asyncio.get_running_loop().create_task(self.stop.wait())
        try:
            await asyncio.wait(
                {execution, stopped}, timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if not execution.done():
                stop = self.stop.is_set()
                self._ended_by = Status.INTERRUPTED if stop else Status.NOTEBOOK_TIMEOUT
                await self._interrupt(execution)
        except asyncio.CancelledError:
            self._ended_by = Status.INTERRUPTED
            raise
        finally:
            stopped.cancel()
            execution.cancel()
            await self._finish(execution)

    # --- the cells ------------------------------------------------------------------------------

    async def _execute(self, folder: str) -> None:
        notebook = self.document.notebook
        limit = self.cell_timeout
        client = NotebookClient(
            notebook,
            km=self.manager,
            allow_errors=True,  # which error is a reason to stop is decided here
            timeout=math.ceil(limit + _BACKSTOP) if limit is not None else None,
            on_cell_executed=self._replied,
        )
        await self.manager.start_kernel(cwd=folder)
        client.kc = self._client = self.manager.client()
        notebook.metadata["language_info"] = await _connect(self.manager, self._client)
        self.save()
        for index in self.document.code:
            if self._ended_by is not None:
                return
            await self._run_cell(client, index)
            assert self._cell is not None
            self._cell = None
            if not self._goes_on(self.report.cells[-1]):
                return
        client.set_widgets_metadata()

    async def _run_cell(self, client: NotebookClient, index: int) -> None:
        cell = self.document.notebook.cells[index]
        tags = cell.metadata.get("tags", ())
        self._cell = CellReport(
            index=index,
            id=cell.get("id"),
            status=Status.RUNNING,
            expected="raises-exception" in tags,
        )
        self._cell_began = time.monotonic()
        self.report.cells.append(self._cell)
        try:
            await client.async_execute_cell(cell, index)
        except CellTimeoutError:
            self._cell.status = Status.CELL_TIMEOUT
            raise
        except DeadKernelError:
            self._cell.status = self._ended_by or Status.DEAD_KERNEL
            raise
        self._note_cell()

    def _note_cell(self) -> None:
        """Keep what is known of the cell, now that it has ended."""
        cell = self._cell
        assert cell is not None
        cell.seconds = round(time.monotonic() - self._cell_began, 3)
        peaks = [peak for peak in (self.report.peak_memory, cell.peak_memory) if peak]
        self.report.peak_memory = max(peaks, default=None)
        self.report.seconds = round(time.monotonic() - self._began, 3)
        self.document.note_cell(cell)
        self.save()
        self.watcher.cell_done(self.report.name, cell)

    def _replied(self, *, execute_reply: Mapping[str, Any], **_: Any) -> None:
        """Take what the kernel says of a cell."""
        cell = self._cell
        assert cell is not None
        content = execute_reply["content"]
        facts = execute_reply.get("metadata", {}).get("mxc", {})
        cell.status = judge(content, facts)
        if cell.status in (Status.ERROR, Status.CELL_TIMEOUT) and self._ended_by is not None:
            cell.status = self._ended_by
        cell.execution_count = content.get("execution_count")
        if content.get("status") == "error":
            traceback = "\n".join(content.get("traceback", ()))
            cell.error = ErrorText(
                name=content.get("ename", ""),
                value=content.get("evalue", ""),
                traceback=_shortened(_ESCAPES.sub("", traceback)),
            )
        cell.denials = [Denial.model_validate(denial) for denial in facts.get("denials", ())]
        cell.redacted = facts.get("redacted", {})
        cell.truncated = facts.get("truncated", {})
        cell.outputs_refused = facts.get("outputs_refused", 0)
        cell.peak_memory = facts.get("usage", {}).get("memory_peak")
        self.report.audit_session = facts.get("audit", {}).get("session")

    def _goes_on(self, cell: CellReport) -> bool:
        if cell.status in _LEFT:
            return False  # the names are gone, so whatever came next would mean something else
        excused = self.allow_errors or (cell.expected and cell.status in _EXCUSED)
        return excused or (cell.error is None)

    # --- the end --------------------------------------------------------------------------------

    async def _interrupt(self, execution: asyncio.Task[None]) -> None:
        """Stop the running cell so that it shows where it was, or else without that."""
        if self._cell is not None and self.manager.has_kernel:
            with contextlib.suppress(RuntimeError, OSError):
                await self.manager.interrupt_kernel()
            await asyncio.wait({execution}, timeout=_INTERRUPT_GRACE)

    async def _finish(self, execution: asyncio.Task[None]) -> None:
        """End the kernel and complete the account."""
        await asyncio.wait({execution})
        error = None if execution.cancelled() else execution.exception()
        if self._cell is not None:
            self._cell.status = (
                self._cell.status if self._cell.status is not Status.RUNNING else self._rest(error)
            )
            self._note_cell()
            self._cell = None
        if self._client is not None:
            self._client.stop_channels()
        await _end(self.manager, gently=error is None and self._ended_by is None)
        report = self.report
        counted = [c.status for c in report.cells if not (c.expected and c.status is Status.ERROR)]
        ended = [self._ended_by] if self._ended_by is not None else []
        if error is not None and not ended and not (counted and counted[-1] in _LEFT):
            ended.append(self._rest(error))
            report.reason = report.reason or str(error)
        report.status = worst([*counted, *ended])
        report.seconds = round(time.monotonic() - self._began, 3)
        self.save()

    def _rest(self, error: BaseException | None) -> Status:
        """Say what came of a notebook or a cell that nothing else was said of."""
        if self._ended_by is not None:
            return self._ended_by
        if isinstance(error, CellTimeoutError):
            return Status.CELL_TIMEOUT
        return Status.DEAD_KERNEL if self.report.cells else Status.UNAVAILABLE


async def _connect(manager: SandboxedKernelManager, client: AsyncKernelClient) -> Any:
    """Wait until a kernel that was just started answers; return what it says of its language.

    Jupyter's own `wait_for_ready` then listens for 0.2 s whether anything else comes. The kernel's
    first message on iopub tells as surely that it will reach us.

    Raises:
        RuntimeError: it does not answer.
    """
    client.start_channels(stdin=False, hb=False)
    client.allow_stdin = False
    until = time.monotonic() + _START_TIMEOUT
    asked = client.kernel_info()
    language = None
    heard = asyncio.ensure_future(client.get_iopub_msg(timeout=_START_TIMEOUT))
    try:
        while language is None:
            with contextlib.suppress(Exception):  # nothing yet
                reply = await client.get_shell_msg(timeout=1)
                if reply["parent_header"].get("msg_id") == asked:
                    language = reply["content"].get("language_info", {})
            if language is None and (time.monotonic() > until or not await manager.is_alive()):
                raise RuntimeError("the kernel ended, or did not answer, when it was started")
        await heard
    finally:
        heard.cancel()
    return language


async def _end(manager: SandboxedKernelManager, *, gently: bool) -> None:
    """End a kernel: as Jupyter does, so that the user's exit functions run, or at once."""
    with contextlib.suppress(RuntimeError, OSError):
        if manager.has_kernel:
            if gently:
                await manager.request_shutdown()
            else:
                await manager.signal_kernel(signal.SIGTERM)
            if await manager.wait_ended(_SHUTDOWN_GRACE):
                await manager.finish_shutdown()
            else:
                await manager.shutdown_kernel(now=True)
    await manager.cleanup_resources()


def _shortened(text: str) -> str:
    if len(text) <= _TRACEBACK:
        return text
    half = _TRACEBACK // 2
    return f"{text[:half]}\n[…]\n{text[-half:]}"
