"""The same run on the workers of a dask cluster.

A worker's and a scheduler's ports take pickles, so whoever reaches them runs code as their user.
So TLS is asked for wherever another machine, or another user of this one, could be at the other
end: a cluster that is made here always has it, with certificates of its own that are never
written down.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import orjson

from mxc_kernel.batch.outcomes import Status
from mxc_kernel.batch.plan import Job
from mxc_kernel.batch.report import NotebookReport
from mxc_kernel.batch.running import Watcher
from mxc_kernel.errors import MxcKernelError
from mxc_kernel.policy import LayerText, load_ceiling
from mxc_kernel.policy.trust import read_trusted

if TYPE_CHECKING:
    from distributed import Client

    from mxc_kernel.batch.runner import Options, Output

__all__ = ["LOCAL", "check_address", "run_on_cluster", "submitted_layers"]

LOCAL = "dask"
_CONNECT = 30.0  # seconds for a scheduler to answer, and for the first worker to be there
_AHEAD = 2  # tasks submitted for each thread: the next one waits at the worker, and no more


def check_address(address: str) -> None:
    """Refuse an address that is reached without TLS and is not this machine's loopback.

    Args:
        address: of a scheduler or a worker, as dask writes it.

    Raises:
        MxcKernelError: says how to give the scheduler TLS.
    """
    whole = address if "://" in address else f"tcp://{address}"
    try:
        parts = urlsplit(whole)
        host = parts.hostname or ""
    except ValueError:
        parts, host = None, ""
    if parts is not None and parts.scheme in ("tls", "inproc"):
        return
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback or parts is None or parts.scheme != "tcp":
        raise MxcKernelError(
            f"{address} would be spoken to without TLS: whoever can reach it, or stands in between,"
            " could run code as its user.",
            remedy="Start the scheduler and its workers with --tls-ca-file, --tls-cert and "
            "--tls-key, and name its address as tls://…; docs/scale.md has the settings.",
        )


def submitted_layers(folder: str, options: Options) -> tuple[LayerText, ...]:
    """Return this machine's ceiling for a notebook, to be met with that of a worker's machine.

    Args:
        folder: the notebook's folder.
        options: how it is run.

    Raises:
        MxcKernelError: a ceiling file cannot be read.
    """
    from mxc_kernel.policy import CEILING_VARIABLE

    environ = dict(os.environ)
    if options.ceiling:
        environ[CEILING_VARIABLE] = options.ceiling
    host, layers = socket.gethostname(), []
    ceiling = load_ceiling(notebook_dir=folder, environ=environ)
    for name, path in zip(("system", "user", "project"), ceiling.looked_at, strict=False):
        if (trusted := read_trusted(path)) is not None:
            text = trusted[0].decode("utf-8")
            layers.append(LayerText(name, text, f"{path} on {host}"))  # type: ignore[arg-type]
    if not any(layer.name in ("system", "user") for layer in layers):
        layers.append(LayerText("user", "", f"{host}, which has no ceiling"))
    return tuple(layers)


@dataclass
class _Submitter:
    """Hands notebooks to workers and takes the results, so many at a time."""

    client: Client
    options: Options
    output: Output
    resume: bool
    watcher: Watcher
    stop: asyncio.Event
    local: bool
    run: str = field(default_factory=lambda: f"mxc-run-{uuid.uuid4().hex}")

    def __post_init__(self) -> None:
        self._attempts: dict[str, set[str]] = {}

    async def all(self, jobs: Iterable[Job]) -> list[NotebookReport]:
        """Run the notebooks; each is in the result exactly once."""
        waiting, found = deque(jobs), dict[str, NotebookReport]()
        order = [job.name for job in waiting]
        threads = sum(w["nthreads"] for w in self._workers().values())

        async def work() -> None:
            while waiting:
                job = waiting.popleft()
                found[job.name] = await self._one(job)

        self.client.subscribe_topic(self.run, self._told)
        stopping = asyncio.create_task(self._stop_workers())
        try:
            count = min(max(1, threads * _AHEAD), len(order))
            await asyncio.gather(*(work() for _ in range(count)))
        finally:
            stopping.cancel()
            await asyncio.wait({stopping})
            self.client.unsubscribe_topic(self.run)
        return [found[name] for name in order]

    def _workers(self) -> dict[str, Any]:
        workers: dict[str, Any] = self.client.scheduler_info(n_workers=-1)["workers"]
        for address in workers:
            check_address(address)
        return workers

    async def _stop_workers(self) -> None:
        from mxc_kernel.batch.remote import stop_run

        await self.stop.wait()
        await self.client.run(stop_run, self.run)

    async def _one(self, job: Job) -> NotebookReport:
        from mxc_kernel.batch.runner import prepare

        if self.stop.is_set():
            report = NotebookReport(name=job.name, source=job.source, status=Status.NOT_RUN)
        else:
            prepared = prepare(job, None, self.options)
            report = prepared.report
            if prepared.manager is not None:
                prepared.manager.drop()
                earlier = self.output.done(report) if self.resume else None
                report = earlier or await self._submit(job, prepared.content, report)
        self.watcher.done(report)
        return report

    async def _submit(self, job: Job, content: bytes, planned: NotebookReport) -> NotebookReport:
        from mxc_kernel.batch.remote import Task, lost, run_task

        options = self.options
        if not self.local:
            layers = (*options.layers, *submitted_layers(job.folder, options))
            options = replace(options, ceiling=None, layers=layers)
        task = Task(self.run, job, content, options, self.output.path(job.name), planned.key)
        key = f"{self.run}-{uuid.uuid4().hex}"
        future = self.client.submit(run_task, task, key=key, pure=False)
        try:
            entry, text = await cast("Any", future.result())
            report = NotebookReport.model_validate_json(entry)
        except Exception as error:  # noqa: BLE001  # whatever a worker raises
            report = _judged(task, error, lost)
            text = b""
        finally:
            future.release()
        report.attempts = max(1, len(self._attempts.pop(job.name, ())))
        if not text:
            report.output = None
        else:
            if report.attempts > 1:
                text = _with_attempts(text, report.attempts)
            self.output.save(job.name, text)
        return report

    def _told(self, event: tuple[float, dict[str, Any]]) -> None:
        """Take an event of a worker."""
        from mxc_kernel.batch.remote import entry

        said = event[1]
        name = said["name"]
        if said["kind"] == "begun":
            self._attempts.setdefault(name, set()).add(said["attempt"])
            self.watcher.begun(name, said["cells"])
        else:
            self.watcher.cell_done(name, entry(said))


def _judged(task: Any, error: Exception, lost: Any) -> NotebookReport:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        reason = "Each worker that ran it died: its machine's memory may be too small for it."
        found: NotebookReport = lost(task, reason, Status.DEAD_KERNEL)
    else:
        reason = f"its worker could not run it: {type(error).__name__}: {error}"
        found = lost(task, reason[:2000], Status.UNAVAILABLE)
    return found


def _with_attempts(text: bytes, attempts: int) -> bytes:
    notebook = orjson.loads(text)
    notebook["metadata"]["mxc"]["run"]["attempts"] = attempts
    return orjson.dumps(notebook, option=orjson.OPT_INDENT_2) + b"\n"


async def run_on_cluster(
    scheduler: str,
    jobs: Iterable[Job],
    count: int,
    *,
    options: Options,
    output: Output,
    resume: bool,
    watcher: Watcher,
    stop: asyncio.Event,
) -> list[NotebookReport]:
    """Run notebooks on a cluster's workers.

    Args:
        scheduler: "dask" for workers on this machine, or a scheduler's address.
        jobs: the notebooks.
        count: how many workers to start here; not for a cluster that is there.
        options: how they are run.
        output: where the executed ones are written, on this machine.
        resume: whether to leave out what is done.
        watcher: told what goes on.
        stop: ends the run.

    Raises:
        MxcKernelError: there is no such cluster, or it is not safe to talk to.
    """
    local = scheduler == LOCAL
    if not local:
        check_address(scheduler)
    async with _connected(None if local else scheduler, count) as client:
        submitter = _Submitter(client, options, output, resume, watcher, stop, local)
        return await submitter.all(jobs)


@asynccontextmanager
async def _connected(address: str | None, count: int) -> AsyncIterator[Client]:
    try:
        from distributed import Client, LocalCluster, Security
    except ImportError as error:
        raise MxcKernelError(
            "Runs on a cluster need dask.distributed.",
            remedy="Install it: pip install 'mxc-kernel[dask]'",
        ) from error
    if address is None:
        async with (
            LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # else port 8787, which another may have
                security=Security.temporary(),
                asynchronous=True,
                memory_limit=None,
                silence_logs=40,
            ) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            yield client
        return
    encrypted = address.startswith("tls:")
    security = Security(require_encryption=True) if encrypted else Security()
    try:
        client = await Client(address, asynchronous=True, security=security, timeout=_CONNECT)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise MxcKernelError(
            f"No scheduler answers at {address}: {error}",
            remedy="Check the address and, for tls://, dask's settings distributed.comm.tls.",
        ) from error
    try:
        await client.wait_for_workers(1, timeout=_CONNECT)
    except TimeoutError as error:
        await client.close()
        raise MxcKernelError(
            f"The scheduler at {address} has no workers.", remedy="Start some: dask worker …"
        ) from error
    try:
        yield client
    finally:
        await client.close()
