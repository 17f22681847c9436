"""The command ``mxc-kernel run``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator

from rich.console import Console

from mxc_kernel.batch.folder import open_folder
from mxc_kernel.batch.outcomes import EXIT_STATUS, Status
from mxc_kernel.batch.page import render_page
from mxc_kernel.batch.parameters import parse_pairs, read_file
from mxc_kernel.batch.plan import make_plan
from mxc_kernel.batch.progress import Lines, Live, summary
from mxc_kernel.batch.runner import Options, run_notebooks_async
from mxc_kernel.batch.running import Watcher
from mxc_kernel.errors import MxcKernelError
from mxc_kernel.policy import parse_duration

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Run what a command line names.

    Returns:
        The exit status: `EXIT_STATUS` of the gravest outcome, or 128 and the number of the signal
        that ended the run.
    """
    parameters = read_file(options.parameters_file) if options.parameters_file else {}
    chosen = Options(
        ceiling=os.path.abspath(os.path.expanduser(options.ceiling)) if options.ceiling else None,
        cell_timeout=_seconds(options.cell_timeout),
        timeout=_seconds(options.timeout),
        allow_errors=options.allow_errors,
        parameters={**parameters, **parse_pairs(options.parameters)},
        requests=not options.no_requests,
    )
    return asyncio.run(_run(options, chosen))


def _seconds(text: str | None) -> float | None:
    return parse_duration(text) if text else None


async def _run(options: argparse.Namespace, chosen: Options) -> int:
    plan = make_plan(options.paths, options.output_dir)
    if not plan.jobs:
        raise MxcKernelError(
            f"There are no notebooks in {', '.join(options.paths)}.",
            remedy="Name a folder that holds files called *.ipynb.",
        )
    report_file = _absolute(options.report or os.path.join(plan.output_dir, "report.json"))
    page_file = _absolute(options.html) if options.html is not None else None
    if options.html == "":
        page_file = os.path.join(plan.output_dir, "report.html")
    console = Console(stderr=True, highlight=False)
    stop, signals = asyncio.Event(), list[int]()

    def on_signal(signum: int) -> None:
        if not signals:
            console.print("Stopping; what is done is kept.", markup=False)
        signals.append(signum)
        stop.set()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, on_signal, signum)
    with _watching(console, len(plan.jobs)) as watcher:
        report = await run_notebooks_async(
            options.paths,
            output_dir=plan.output_dir,
            jobs=options.jobs,
            options=chosen,
            resume=options.resume,
            scheduler=options.scheduler,
            watcher=watcher,
            stop=stop,
            also_written=[file for file in (report_file, page_file) if file],
        )
    _write(report_file, report.as_json())
    if page_file is not None:
        _write(page_file, render_page(report, at=page_file))
    console.print(summary(report), markup=False, soft_wrap=True)
    if signals and report.status in (Status.INTERRUPTED, Status.NOT_RUN):
        return 128 + signals[0]
    return EXIT_STATUS[report.status]


@contextlib.contextmanager
def _watching(console: Console, total: int) -> Iterator[Watcher]:
    if console.is_terminal and not console.is_dumb_terminal:
        with Live(console, total) as live:
            yield live
    else:
        yield Lines(console, total)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _write(path: str, data: bytes) -> None:
    with open_folder(os.path.dirname(path)) as folder:
        folder.write(os.path.basename(path), data)
