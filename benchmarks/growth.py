"""How cost grows, as tables for a page: ``python -P -m benchmarks.growth [--only WHAT]``."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import psutil

from benchmarks import kernels, rounds
from benchmarks.client import BenchmarkError
from benchmarks.kernels import Contender, Kernel
from mxc_kernel.mxc import runtime

_SECTIONS = """\
[filesystem]
readonly = [{granted}]

[limits]
output = "4GiB"
memory = "8GiB"

[start]
readonly = [{started}]
"""
_WINDOW = 100  # cells whose median is shown
_LINE = "a line of text as it may be printed ...\n"


@dataclass(frozen=True)
class Bench:
    """What a measurement needs.

    Attributes:
        paths: the run's folders.
        child: interpreter of both kernels.
    """

    paths: rounds.Folders
    child: str

    def ours(self, granted: Sequence[str] = (), started: Sequence[str] = ()) -> Contender:
        """Return this kernel under a ceiling that grants some folders."""
        with open(self.paths.ceiling, "w", encoding="utf-8") as file:
            file.write(_SECTIONS.format(granted=_toml(granted), started=_toml(started)))
        return kernels.ours(sys.executable, self.child, self.paths.ceiling)

    def both(self) -> tuple[Contender, Contender]:
        """Return this kernel and plain ipykernel."""
        return self.ours(), kernels.ipykernel(self.child, self.paths.private)

    @contextmanager
    def kernel(self, contender: Contender) -> Iterator[Kernel]:
        """Start a kernel, and end it."""
        with Kernel(contender, self.paths.private) as kernel:
            yield kernel


def cells(bench: Bench) -> Iterator[Sequence[object]]:
    """Measure a trivial cell, and all memory, after a number of cells."""
    yield "cells so far", "ours", "ipykernel", "memory, ours", "memory, ipykernel"
    marks = (100, 1_000, 10_000)
    with ExitStack() as stack:
        opened = [stack.enter_context(bench.kernel(contender)) for contender in bench.both()]
        times: list[list[float]] = [[], []]
        for number in range(1, marks[-1] + 1):
            for kernel, taken in zip(opened, times, strict=True):
                taken.append(kernel.client.execute(f"x = {number}").done)
            if number in marks:
                took = (_ms(statistics.median(taken[-_WINDOW:])) for taken in times)
                yield f"{number:,}", *took, *(_mb(_uss(kernel)) for kernel in opened)


def grants(bench: Bench) -> Iterator[Sequence[object]]:
    """Measure a start and a relaunch with a number of folders granted."""
    yield "folders granted", "start to first idle", "relaunch with one more"
    root = bench.paths.granted
    for count in (1, 10, 50, 200):
        folders = [os.path.join(root, str(number)) for number in range(count + 1)]
        for folder in folders:
            os.makedirs(folder, exist_ok=True)
        starts, relaunches = [], []
        for _ in range(5):
            with bench.kernel(bench.ours(folders, folders[:-1])) as kernel:
                starts.append(kernel.started.idle)
                relaunches.append(kernel.client.execute(f"%allow_ro {folders[-1]}\npass").done)
        yield count, _ms(statistics.median(starts)), _ms(statistics.median(relaunches))


def state(bench: Bench) -> Iterator[Sequence[object]]:
    """Measure a relaunch that carries names of a size."""
    yield "state", "relaunch to the next result"
    for size in (1, 10, 100, 1_000, 2_000):
        with bench.kernel(bench.ours([bench.paths.granted])) as kernel:
            kernel.client.execute(f"kept = bytearray(b'x') * {size * 10**6}")
            done = kernel.client.execute(f"%allow_ro {bench.paths.granted}\nassert kept[-1] == 120")
            yield f"{size:,} MB", _ms(done.done)


def output(bench: Bench) -> Iterator[Sequence[object]]:
    """Measure text of a size, printed at once."""
    yield "printed at once", "ours", "ipykernel", "ratio"
    with ExitStack() as stack:
        opened = [stack.enter_context(bench.kernel(contender)) for contender in bench.both()]
        for size in (1, 10, 100, 200):
            took = []
            for kernel in opened:
                code = f"text = ({_LINE!r} * {size * 10**6 // len(_LINE)})"
                kernel.client.execute(code)
                exchange = kernel.client.execute("print(text, end='')")
                if len(exchange.text) != size * 10**6 // len(_LINE) * len(_LINE):
                    raise BenchmarkError(f"{len(exchange.text)} characters arrived")
                took.append(exchange.done)
            yield f"{size} MB", *map(_ms, took), f"{took[0] / took[1]:.2f}"


def opened(bench: Bench) -> Iterator[Sequence[object]]:
    """Measure kernels that are open at the same time, each with one cell run."""
    yield (
        "kernels open",
        "memory, ours",
        "memory, ipykernel",
        "the last one's start, ours",
        "ipykernel",
    )
    marks = (1, 5, 10, 20)
    memory: list[list[str]] = []
    starts: list[list[str]] = []
    for contender in bench.both():
        memory.append([])
        starts.append([])
        with ExitStack() as stack:
            running: list[Kernel] = []
            for number in range(1, marks[-1] + 1):
                running.append(stack.enter_context(bench.kernel(contender)))
                if number in marks:
                    memory[-1].append(_mb(sum(map(_uss, running))))
                    starts[-1].append(_ms(running[-1].started.idle))
    yield from zip(marks, *memory, *starts, strict=True)


MEASURED: dict[str, Callable[[Bench], Iterator[Sequence[object]]]] = {
    "cells": cells,
    "grants": grants,
    "state": state,
    "output": output,
    "kernels": opened,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print each row as soon as it is known."""
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(MEASURED), default=[])
    chosen = parser.parse_args(arguments).only or list(MEASURED)
    with rounds.folders() as paths:
        bench = Bench(paths, runtime.default().executable)
        for name in chosen:
            begin = time.monotonic()
            for number, row in enumerate(MEASURED[name](bench)):
                print("| " + " | ".join(map(str, row)) + " |", flush=True)
                if number == 0:
                    print("|" + "--:|" * len(row), flush=True)
            print(f"\n({name}: {time.monotonic() - begin:.0f} s)\n", flush=True)


def _toml(paths: Sequence[str]) -> str:
    return ", ".join(f'"{path}"' for path in paths)


def _uss(kernel: Kernel) -> int:
    total = 0
    for process in kernel.processes():
        with suppress(psutil.NoSuchProcess):  # one that was just ending
            total += process.memory_full_info().uss
    return total


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms" if seconds < 0.1 else f"{seconds * 1000:,.0f} ms"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


if __name__ == "__main__":
    main()
