"""Runs on a cluster: a real scheduler and real workers on this machine's loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mxc_kernel.batch import RunReport, Status, run_notebooks, run_notebooks_async
from mxc_kernel.batch.cluster import check_address
from mxc_kernel.batch.running import Watcher
from mxc_kernel.errors import MxcKernelError
from tests.batch.conftest import Folder

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("installed_kernelspec", "environ"),
    # distributed leaves tasks and sockets to the collector when a worker was killed.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TIMEOUT = 240  # seconds; generous, a busy machine is not a failure


def wait_for(condition: Callable[[], Any]) -> Any:
    until = time.monotonic() + TIMEOUT
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


class Cluster:
    """A scheduler and workers, each a process of its own; one that dies is not started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        file = folder / "scheduler.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        self._start("scheduler", *options, "--scheduler-file", str(file))
        wait_for(file.exists)
        self.address: str = wait_for(lambda: _json(file)).get("address")

    def add_worker(self, ceiling: Path) -> int:
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
        options += ["--local-directory", str(self.folder), "--memory-limit", "0"]
        return self._start("worker", self.address, *options, MXC_KERNEL_CEILING=str(ceiling)).pid

    def _start(self, kind: str, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "distributed.cli.dask_" + kind, *arguments],
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()  # a worker would wait for its task
        for process in reversed(self.processes):
            process.wait(TIMEOUT)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except ValueError:
        return None


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


class Seen(Watcher):
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def begun(self, name: str, cells: int) -> None:
        self.events.append(("begun", name))

    def cell_done(self, name: str, cell: Any) -> None:
        self.events.append(("cell", name))

    def done(self, report: Any) -> None:
        self.events.append(("done", report.name))


def outcomes(report: RunReport) -> list[tuple[str, Status, int]]:
    return [(nb.name, nb.status, nb.attempts) for nb in report.notebooks]


def test_a_cluster_made_here_gives_the_same_report(folder: Folder) -> None:
    folder.add("a", f"print(open({str(folder.data / 'figures.txt')!r}).read())")
    folder.add("b", f"%allow_ro {folder.data}\nprint('b')", "1 / 0", "print('not reached')")
    (folder.source / "c.ipynb").write_text("no notebook")
    seen = Seen()
    report = run_notebooks(
        [folder.source],
        output_dir=folder.executed,
        ceiling=str(folder.ceiling),
        jobs=2,
        scheduler="dask",
        watcher=seen,
    )
    assert outcomes(report) == [
        ("a.ipynb", Status.DENIED, 1),
        ("b.ipynb", Status.ERROR, 1),
        ("c.ipynb", Status.NOT_A_NOTEBOOK, 1),
    ]
    first = report.notebooks[0]
    assert first.worker
    assert first.worker.startswith("tls://127.0.0.1:")
    assert first.cells[0].denials[0].grant
    assert folder.result("b").cells[0].outputs[-1].text == "b\n"
    assert folder.result("a").metadata.mxc.run.status == "denied"
    assert [seen.events.count((kind, "b.ipynb")) for kind in ("begun", "cell", "done")] == [1, 2, 1]
    again = run_notebooks(
        [folder.source], output_dir=folder.executed, ceiling=str(folder.ceiling), resume=True
    )
    assert [nb.resumed for nb in again.notebooks] == [True, True, False]


def test_a_worker_that_dies_costs_no_notebook(folder: Folder, cluster: Cluster) -> None:
    first = cluster.add_worker(folder.ceiling)
    # One file for each attempt: as root each sandbox has a uid of its own.
    code = f"import os, time\nopen(f'{folder.out}/begun-{{time.time_ns()}}', 'x').close()"
    wait = f"while not os.path.exists({str(folder.out / 'go')!r}): time.sleep(0.05)"
    ask = {"mxc": {"policy": {"filesystem": {"readwrite": [str(folder.out)]}}}}
    folder.add("a", code, wait, "print('to the end')", metadata=ask)
    for name in "bcd":
        folder.add(name, f"print({name!r})")
    seen = Seen()

    async def run() -> RunReport:
        running = asyncio.create_task(
            run_notebooks_async(
                [folder.source],
                output_dir=folder.executed,
                ceiling=str(folder.ceiling),
                scheduler=cluster.address,
                watcher=seen,
            )
        )

        async def begun(times: int) -> None:
            until = time.monotonic() + TIMEOUT
            while len(list(folder.out.glob("begun-*"))) != times:
                assert not running.done(), running.result()
                assert time.monotonic() < until
                await asyncio.sleep(0.05)

        await begun(1)
        cluster.add_worker(folder.ceiling)
        os.kill(first, signal.SIGKILL)
        await begun(2)
        (folder.out / "go").touch()
        return await running

    report = asyncio.run(run())
    assert outcomes(report) == [
        ("a.ipynb", Status.OK, 2),
        ("b.ipynb", Status.OK, 1),
        ("c.ipynb", Status.OK, 1),
        ("d.ipynb", Status.OK, 1),
    ]
    done = [name for kind, name in seen.events if kind == "done"]
    assert sorted(done) == ["a.ipynb", "b.ipynb", "c.ipynb", "d.ipynb"]
    assert folder.result("a").cells[2].outputs[0].text == "to the end\n"
    assert folder.result("a").metadata.mxc.run.attempts == 2


def test_both_ceilings_hold(folder: Folder, cluster: Cluster) -> None:
    both = folder.data / "both.txt"
    both.write_text("both")
    theirs = folder.root / "theirs.toml"
    theirs.write_text(f'[filesystem]\nreadonly = ["{both}", "{folder.out}"]\n')
    theirs.chmod(0o644)
    folder.set_ceiling(f'[filesystem]\nreadonly = ["{folder.data}"]\n')
    cluster.add_worker(theirs)
    asks = {"mxc": {"policy": {"filesystem": {"readonly": [str(folder.data), str(folder.out)]}}}}
    read = f"print(open({str(both)!r}).read())"
    folder.add("a", read, f"open({str(folder.data / 'figures.txt')!r})", metadata=asks)
    folder.add("b", f"import os\nprint(os.listdir({str(folder.out)!r}))", metadata=asks)
    folder.add("c", f"%allow_ro {both}\n{read}")
    report = run_notebooks(
        [folder.source],
        output_dir=folder.executed,
        ceiling=str(folder.ceiling),
        scheduler=cluster.address,
    )
    statuses = [[cell.status for cell in nb.cells] for nb in report.notebooks]
    assert statuses == [[Status.OK, Status.DENIED], [Status.DENIED], [Status.OK]]
    assert folder.result("a").cells[0].outputs[0].text == "both\n"


@pytest.mark.parametrize(
    "address",
    [
        *("tcp://10.0.0.5:8786", "scheduler.example:8786", "10.0.0.5:8786", "ws://127.0.0.1:80"),
        *("tcp://127.0.0.1.example.com:8786", "tcp://[fe80::1]:8786", "tcp://0.0.0.0:1", ""),
        *("tcp://localhost@10.0.0.5:8786", "ucx://127.0.0.1:8786", "tcp://[::1"),
    ],
)
def test_what_others_could_reach_needs_tls(folder: Folder, address: str) -> None:
    with pytest.raises(MxcKernelError, match="without TLS") as caught:
        check_address(address)
    assert "--tls-cert" in caught.value.remedy
    folder.add("a", "print('ran')")
    with pytest.raises(MxcKernelError, match="without TLS"):
        run_notebooks([folder.source], output_dir=folder.executed, scheduler=address)


def test_loopback_and_tls_are_taken() -> None:
    for address in (
        *("tcp://127.0.0.1:8786", "localhost:8786", "tcp://[::1]:8786", "inproc://1.2.3.4/5/6"),
        *("tls://scheduler.example:8786", "127.0.3.4:1"),
    ):
        check_address(address)
