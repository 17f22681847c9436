"""A whole run: many notebooks, so many at a time, and the report on all of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from mxc_kernel import __version__
from mxc_kernel.batch import document, places
from mxc_kernel.batch.client import SandboxedKernelManager, narrowing, start_plain
from mxc_kernel.batch.folder import Folder, open_folder
from mxc_kernel.batch.outcomes import FINAL, Status
from mxc_kernel.batch.parameters import checked
from mxc_kernel.batch.plan import Job, make_plan
from mxc_kernel.batch.report import Asked, NotebookReport, RunReport
from mxc_kernel.batch.running import NotebookRun, Watcher
from mxc_kernel.errors import MxcKernelError, SandboxPolicyError
from mxc_kernel.policy import Ask, Ceiling, LayerText, load_ceiling

if TYPE_CHECKING:
    pass

__all__ = ["Options", "Output", "Prepared", "prepare", "run_notebooks", "run_notebooks_async"]


@dataclass(frozen=True)
class Options:
    """How notebooks are run.

    Args:
        ceiling: ceiling file in place of the user's.
        cell_timeout: seconds that a cell may run; None for what the ceiling says.
        timeout: seconds that a notebook may take, the start of its kernel included; None for any.
        allow_errors: whether a notebook goes on behind a cell that has failed.
        parameters: names and values to put in; plain data.
        requests: whether the notebooks, and their magics, may ask for anything.
        layers: further layers of the ceiling.
    """

    ceiling: str | None = None
    cell_timeout: float | None = None
    timeout: float | None = None
    allow_errors: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    requests: bool = True
    layers: tuple[LayerText, ...] = ()

    @property
    def all_layers(self) -> tuple[LayerText, ...]:
        """The further layers of the ceiling, with what these options come to."""
        return *self.layers, *narrowing(requests=self.requests, cell_timeout=self.cell_timeout)

    @property
    def decisive(self) -> dict[str, Any]:
        """What of them decides what comes of a notebook, besides its ceiling."""
        return {
            "parameters": dict(self.parameters),
            "timeout": self.timeout,
            "allow_errors": self.allow_errors,
        }

    def plain(self) -> dict[str, Any]:
        """Return them as JSON-able data for the report."""
        return {**asdict(self), "layers": [layer.source for layer in self.layers]}


@dataclass
class Prepared:
    """A notebook that is about to run.

    Attributes:
        report: its entry, filled in as far as it is known; final where it cannot run.
        content: its text.
        document: it, ready to run, or None where it cannot run.
        manager: its kernel, not started yet.
        cell_timeout: seconds that its cells may run, or None.
    """

    report: NotebookReport
    content: bytes = b""
    document: document.Document | None = None
    manager: SandboxedKernelManager | None = None
    cell_timeout: float | None = None


def prepare(job: Job, content: bytes | None, options: Options) -> Prepared:
    """Read a notebook and find out under which ceiling it will run.

    Args:
        job: which notebook.
        content: its text, where it is known already.
        options: how it is to be run.
    """
    report = NotebookReport(name=job.name, source=job.source, status=Status.NOT_RUN)
    prepared, manager = Prepared(report), None
    try:
        content = document.read_source(job.source) if content is None else content
        report.input_sha256 = document.sha256(content)
        loaded = document.load(content, options.parameters)
        report.cells_total = len(loaded.code)
        ask = loaded.ask() if options.requests else Ask()
        manager = SandboxedKernelManager(
            ceiling=options.ceiling or "", start=start_plain(ask, options.all_layers)
        )
        environ = {**os.environ, **manager.variables}
        ceiling = load_ceiling(notebook_dir=job.folder, environ=environ)
        effective = ceiling.clamp(ceiling.start)
    except document.NotANotebookError as error:
        report.status, report.reason = Status.NOT_A_NOTEBOOK, str(error)
        return prepared
    except SandboxPolicyError as error:
        report.status, report.reason = Status.POLICY_REFUSED, str(error)
        if manager is not None:
            manager.drop()
        return prepared
    report.ceiling_sha256 = ceiling.digest
    report.key = document.sha256(
        orjson.dumps(
            [report.input_sha256, report.ceiling_sha256, options.decisive],
            option=orjson.OPT_SORT_KEYS,
        )
    )
    report.asked = _answered(ask, job, ceiling)
    prepared.content, prepared.document, prepared.manager = content, loaded, manager
    prepared.cell_timeout = effective.limits.cell_timeout
    return prepared


def _answered(ask: Ask, job: Job, ceiling: Ceiling) -> list[Asked]:
    """Say what became of the paths that a notebook's metadata asks for."""
    from mxc_kernel.policy import Access, canonical

    files = ceiling.clamp(ceiling.start).filesystem
    wanted = [(word, Access.READONLY) for word in ask.readonly]
    wanted += [(word, Access.READWRITE) for word in ask.readwrite]
    return [
        Asked(
            path=word,
            asked=access.words,
            granted=min(access, files.access(canonical(word, base=job.folder))).words,
        )
        for word, access in wanted
    ]


class Output:
    """The output folder of a run.

    Args:
        folder: it, open.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def path(self, name: str) -> str:
        """Return where a notebook's executed copy is."""
        return os.path.join(self._folder.path, name)

    def done(self, report: NotebookReport) -> NotebookReport | None:
        """Return an earlier run's entry for a notebook that would come out the same again."""
        content = self._folder.read(report.name) if report.key else None
        found = document.done_before(content, report.key or "") if content else None
        if found is None or found.status not in FINAL:
            return None
        return found.model_copy(update={"resumed": True, "source": report.source})

    def save(self, name: str, text: bytes) -> None:
        """Put an executed notebook in place."""
        self._folder.write(name, text)


@dataclass
class _Pool:
    """Runs notebooks on this machine."""

    options: Options
    output: Output
    resume: bool
    watcher: Watcher
    stop: asyncio.Event

    async def run(self, jobs: Iterable[Job], count: int) -> list[NotebookReport]:
        waiting, found = deque(jobs), dict[str, NotebookReport]()
        order = [job.name for job in waiting]

        async def work() -> None:
            while waiting:
                job = waiting.popleft()
                found[job.name] = await self._one(job)

        workers = [asyncio.create_task(work()) for _ in range(min(count, len(order)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers) if workers else None
        return [found[name] for name in order]

    async def _one(self, job: Job) -> NotebookReport:
        if self.stop.is_set():
            report = NotebookReport(name=job.name, source=job.source, status=Status.NOT_RUN)
            self.watcher.done(report)
            return report
        prepared = prepare(job, None, self.options)
        report, manager = prepared.report, prepared.manager
        if manager is None or prepared.document is None:
            self.watcher.done(report)
            return report
        if self.resume and (earlier := self.output.done(report)):
            manager.drop()
            self.watcher.done(earlier)
            return earlier
        loaded = prepared.document
        report.output = self.output.path(job.name)

        def save() -> None:
            loaded.note(report)
            final = report.status is not Status.RUNNING
            self.output.save(job.name, loaded.text(final=final))

        run = NotebookRun(
            loaded,
            report,
            manager,
            save,
            self.watcher,
            self.stop,
            timeout=self.options.timeout,
            cell_timeout=prepared.cell_timeout,
            allow_errors=self.options.allow_errors,
        )
        await run.run(job.folder)
        self.watcher.done(report)
        return report


def run_notebooks(
    paths: Iterable[str | os.PathLike[str]],
    *,
    output_dir: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    options: Options | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    scheduler: str | None = None,
    **named: Any,
) -> RunReport:
    """Run notebooks, each in a sandboxed kernel of its own, and report what came of them.

        report = run_notebooks(["notebooks/"], output_dir="executed", parameters={"year": 2024})

    Args:
        paths: notebooks, folders and patterns.
        output_dir: where the executed notebooks go, by the same names; None for a folder beside the
            notebooks', named like it with ``-executed``.
        jobs: how many run at a time; None for as many as there are processors.
        options: how they are run; or, instead, its fields by name.
        resume: whether to leave out what an earlier run into the same folder has done.
        watcher: told what goes on.
        scheduler: "dask" for workers on this machine, or the address of a dask scheduler; None for
            neither.
        **named: fields of `Options`.

    Returns:
        What came of every notebook. A failure of a notebook is no exception.

    Raises:
        MxcKernelError: nothing could be run at all, such as for an output folder that a sandbox may
            write.
    """
    return asyncio.run(
        run_notebooks_async(
            paths,
            output_dir=output_dir,
            jobs=jobs,
            options=options,
            resume=resume,
            watcher=watcher,
            scheduler=scheduler,
            **named,
        )
    )


async def run_notebooks_async(
    paths: Iterable[str | os.PathLike[str]],
    *,
    output_dir: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    options: Options | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    scheduler: str | None = None,
    stop: asyncio.Event | None = None,
    also_written: Iterable[str] = (),
    **named: Any,
) -> RunReport:
    """Do what `run_notebooks` does where an event loop runs already.

    Args:
        paths: as there.
        output_dir: as there.
        jobs: as there.
        options: as there.
        resume: as there.
        watcher: as there.
        scheduler: as there.
        stop: ends the run when it is set: what is done is kept, the rest is "not_run".
        also_written: absolute paths of further files that the caller writes, such as a report; no
            sandbox may be able to write there either.
        **named: fields of `Options`.

    Raises:
        MxcKernelError: as there.
    """
    options = options or Options(**named)
    checked(options.parameters)
    if options.ceiling is not None and not os.path.exists(options.ceiling):
        raise MxcKernelError(
            f"There is no ceiling file {options.ceiling}.",
            remedy=f"Write an example: mxc-kernel init --path {options.ceiling}",
        )
    plan = make_plan(paths, os.fspath(output_dir) if output_dir is not None else None)
    began = time.monotonic()
    expected = os.path.realpath(plan.output_dir)
    places.check(plan, options, expected, also_written)  # before anything is made there
    with open_folder(plan.output_dir) as folder:
        if folder.path != expected:
            places.check(plan, options, folder.path, ())
        report = RunReport(
            tool=f"mxc-kernel {__version__}",
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            output_dir=folder.path,
            options=options.plain(),
        )
        with folder.locked():
            output, watcher = Output(folder), watcher or Watcher()
            stop, count = stop or asyncio.Event(), jobs or os.cpu_count() or 1
            if scheduler is None:
                pool = _Pool(options, output, resume, watcher, stop)
                report.notebooks = await pool.run(plan.jobs, count)
            else:
                from mxc_kernel.batch.cluster import run_on_cluster

                report.notebooks = await run_on_cluster(
                    scheduler,
                    plan.jobs,
                    count,
                    options=options,
                    output=output,
                    resume=resume,
                    watcher=watcher,
                    stop=stop,
                )
    report.seconds = round(time.monotonic() - began, 3)
    return report
