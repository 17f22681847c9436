"""A worker's side of a run on a cluster: one notebook as one task.

Imported by the worker's process on whatever machine it is. What comes back is data; nothing is
written on the worker.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mxc_kernel.batch.outcomes import Status
from mxc_kernel.batch.plan import Job
from mxc_kernel.batch.report import CellReport, NotebookReport
from mxc_kernel.batch.runner import Options, prepare
from mxc_kernel.batch.running import NotebookRun, Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Task", "run_task", "stop_run"]

# Of the run that was stopped last: a worker's tasks look whether it is theirs.
_stops: dict[str, set[Callable[[], object]]] = {}
_stopped: set[str] = set()


@dataclass(frozen=True)
class Task:
    """One notebook to run.

    Args:
        run: names the run, and the topic that its events go to.
        job: which notebook.
        content: its text.
        options: how it is run.
        output: where the executed notebook will be, on the machine that submits it.
        key: what a later ``--resume`` goes by there.
    """

    run: str
    job: Job
    content: bytes
    options: Options
    output: str
    key: str | None


def run_task(task: Task) -> tuple[bytes, bytes]:
    """Run a notebook under this machine's ceiling and the task's.

    Returns:
        Its entry in the report (JSON), and the executed notebook; empty where it could not run.
    """
    from distributed import get_worker

    worker = get_worker()
    attempt = uuid.uuid4().hex

    def tell(kind: str, **facts: Any) -> None:
        said = {"kind": kind, "name": task.job.name, "attempt": attempt, **facts}
        worker.log_event(task.run, said)

    report, text = asyncio.run(_run(task, _Telling(tell)))
    report.worker = worker.address
    return report.model_dump_json().encode(), text


async def _run(task: Task, watcher: Watcher) -> tuple[NotebookReport, bytes]:
    with _folder(task.job.folder) as folder:
        job = replace(task.job, source=os.path.join(folder, os.path.basename(task.job.source)))
        prepared = prepare(job, task.content, task.options)
        report, document, manager = prepared.report, prepared.document, prepared.manager
        report.source, report.key, report.output = task.job.source, task.key, task.output
        if document is None or manager is None:
            watcher.begun(report.name, report.cells_total)
            return report, b""
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        if task.run in _stopped:
            stop.set()

        def end() -> None:
            loop.call_soon_threadsafe(stop.set)

        _stops.setdefault(task.run, set()).add(end)
        try:
            run = NotebookRun(
                document,
                report,
                manager,
                lambda: document.note(report),
                watcher,
                stop,
                timeout=task.options.timeout,
                cell_timeout=prepared.cell_timeout,
                allow_errors=task.options.allow_errors,
            )
            await run.run(folder)
        finally:
            _stops[task.run].discard(end)
        return report, document.text(final=True)


@contextmanager
def _folder(path: str) -> Iterator[str]:
    """Give the notebook's folder: the same as where it was submitted, or an empty one."""
    if os.path.isdir(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="mxc-kernel-task-", dir="/var/tmp") as made:
        os.chmod(made, 0o755)  # noqa: S103  # a sandbox of root's has a uid of its own
        yield made


def stop_run(run: str) -> None:
    """End all of this worker's tasks of a run; called on every worker."""
    _stopped.add(run)
    for end in tuple(_stops.get(run, ())):
        end()


class _Telling(Watcher):
    """Sends what goes on to whoever has submitted the run."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell

    def begun(self, name: str, cells: int) -> None:  # noqa: ARG002
        """Tell that an attempt has begun; before anything of the notebook runs."""
        self._tell("begun", cells=cells)

    def cell_done(self, name: str, cell: CellReport) -> None:  # noqa: ARG002
        """Tell what came of a cell, without its texts: the scheduler keeps what it passes on."""
        seen = cell.model_dump(mode="json", include={"index", "status", "seconds", "peak_memory"})
        self._tell("cell", cell=seen, denials=len(cell.denials))


def entry(said: Mapping[str, Any]) -> CellReport:
    """Return a cell's report as far as an event tells it."""
    from mxc_kernel.batch.report import Denial

    cell = CellReport.model_validate(said["cell"])
    cell.denials = [Denial(what="", rule="")] * int(said["denials"])
    return cell


def lost(task: Task, reason: str, status: Status) -> NotebookReport:
    """Return the entry of a notebook whose task came to no result."""
    report = NotebookReport(name=task.job.name, source=task.job.source, status=status)
    report.reason, report.key = reason, task.key
    return report
