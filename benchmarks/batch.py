"""Notebooks a minute, against plain nbclient with ipykernel: ``python -P -m benchmarks.batch``.

Both run the same notebooks, so many at a time, in turn. ``--memory N`` runs N notebooks in one run
instead, and shows what the runner itself has in memory on the way.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import psutil
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from mxc_kernel.batch import NotebookReport, run_notebooks_async
from mxc_kernel.batch.running import Watcher
from mxc_kernel.mxc import runtime

# A short report of the kind that agents write: an import, some work, a table, a line of text.
CELLS = (
    "import json, math, statistics, random\nrandom.seed(7)",
    "rows = [{'n': n, 'x': random.random()} for n in range(20_000)]",
    "text = json.dumps(rows)\nprint(len(text))",
    "mean = statistics.fmean(row['x'] for row in rows)\nprint(f'{mean:.3f}')",
    "sum(math.sqrt(n) for n in range(300_000))",
    "[row for row in rows if row['x'] > 0.999]",
    "for n in range(200):\n    print(n, n * n)",
    "'done'",
)


@contextmanager
def folder(count: int) -> Iterator[Path]:
    """Make so many notebooks, where the sandbox's own uid can reach them."""
    with tempfile.TemporaryDirectory(prefix="mxc-kernel-bench-", dir="/var/tmp") as made:
        root = Path(os.path.realpath(made))
        root.chmod(0o755)
        (root / "notebooks").mkdir(mode=0o755)
        for number in range(count):
            notebook = new_notebook(cells=[new_code_cell(cell) for cell in CELLS])
            nbformat.write(notebook, root / f"notebooks/{number:04}.ipynb")
        (root / "ceiling.toml").write_text("[start]\nreadonly = []\n")
        (root / "ceiling.toml").chmod(0o644)
        yield root


class _Spec(KernelSpecManager):
    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:  # noqa: ARG002
        python = runtime.default().executable
        argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="ipykernel", language="python")


async def plain(root: Path, jobs: int) -> None:
    """Run the notebooks with nbclient and ipykernel as nbclient's documentation does."""
    paths = sorted((root / "notebooks").iterdir())
    target = root / "plain"
    target.mkdir(exist_ok=True)

    async def work() -> None:
        while paths:
            path = paths.pop()
            notebook = nbformat.read(path, as_version=4)
            manager = AsyncKernelManager(kernel_spec_manager=_Spec(), kernel_name="python3")
            client = NotebookClient(notebook, km=manager, timeout=600)
            client.owns_km = True
            await client.async_execute(cwd=str(path.parent))
            nbformat.write(notebook, target / path.name)

    await asyncio.gather(*(work() for _ in range(jobs)))


async def ours(root: Path, jobs: int, watcher: Watcher | None = None) -> None:
    report = await run_notebooks_async(
        [root / "notebooks"],
        output_dir=root / "executed",
        ceiling=str(root / "ceiling.toml"),
        jobs=jobs,
        watcher=watcher,
    )
    assert report.status == "ok", report.counts


def throughput(count: int, rounds: int, jobs: list[int]) -> None:
    with folder(count) as root:
        print("| jobs | nbclient + ipykernel, notebooks/min | mxc-kernel run | ratio |")
        print("|---|---|---|---|")
        for number in jobs:
            rates: dict[str, list[float]] = {"plain": [], "ours": []}
            for _ in range(rounds):
                for name, run in (("plain", plain), ("ours", ours)):
                    begin = time.perf_counter()
                    asyncio.run(run(root, number))
                    rates[name].append(60 * count / (time.perf_counter() - begin))
            theirs, mine = (statistics.median(rates[name]) for name in ("plain", "ours"))
            print(f"| {number} | {theirs:.0f} | {mine:.0f} | {mine / theirs:.2f} |", flush=True)


class _Memory(Watcher):
    def __init__(self) -> None:
        self._ended = 0
        self._process = psutil.Process()
        self.sizes: list[int] = []

    def done(self, report: NotebookReport) -> None:  # noqa: ARG002
        self._ended += 1
        self.sizes.append(self._process.memory_info().rss)
        if self._ended % 20 == 0:
            handles = self._process.num_fds(), self._process.num_threads()
            size = self.sizes[-1] / (1 << 20)
            print(f"{self._ended}: {size:.1f} MiB, {handles[0]} descriptors, {handles[1]} threads")


def memory(count: int, jobs: int) -> None:
    with folder(count) as root:
        watcher = _Memory()
        asyncio.run(ours(root, jobs, watcher))


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.batch")
    parser.add_argument("--notebooks", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, action="append", default=[])
    parser.add_argument("--memory", type=int, metavar="N", help="N notebooks in one run")
    options: Any = parser.parse_args()
    jobs = options.jobs or [1, 2, 4]
    if options.memory:
        memory(options.memory, jobs[0])
    else:
        throughput(options.notebooks, options.rounds, jobs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
