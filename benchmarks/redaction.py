"""Redaction alone: ``python -P -m benchmarks.redaction [--splits N] [--markdown]``.

Times are of the processor, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from mxc_kernel.output.documents import redact_html
from mxc_kernel.output.redaction import Rules, Stream, redact

_LINES = 20_000
_WRITE, _CHUNK = 100, 64 << 10  # characters: a print, and a frame of the pipe
_ROUNDS = 5
_PROOF = "tests/output/test_redaction.py"
_SECRETS = 50  # host values, as many as a rich environment has


@dataclass(frozen=True)
class Figure:
    """One line: what was measured, the value, its unit, and the goal if there is one."""

    title: str
    value: float
    unit: str
    goal: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; more is better for rates, less for times."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.unit == "MB/s" else self.value <= self.goal


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.redaction", description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="print the table for a page")
    parser.add_argument(
        "--splits", type=int, metavar="N", help="only look for leaks, in N random splits a rule"
    )
    options = parser.parse_args(arguments)
    if options.splits:
        return _prove(options.splits)
    figures = list(_figures())
    if options.markdown:
        print("| work | measured | goal |\n|---|--:|--:|")
        for figure in figures:
            print("| " + " | ".join(_cells(figure)) + " |")
    else:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("redaction")
        for name in ("measured", "goal"):
            table.add_column(name, justify="right", no_wrap=True)
        for figure in figures:
            style = {True: "green", False: "red", None: ""}[figure.met]
            table.add_row(*_cells(figure), style=style)
        Console(width=None if sys.stdout.isatty() else 100).print(table)
    return 0


def _figures() -> Iterator[Figure]:
    chance = random.Random(1)
    texts = {name: make(chance) for name, make in _TEXTS.items()}
    yield Figure("making the rules", _best(lambda _: Rules(), "") * 1e3, "ms")
    rules = Rules()
    many = Rules({"host-secret": [chance.randbytes(15).hex() for _ in range(_SECRETS * 25)]})
    for name, text in texts.items():
        goal = 150 if name == "log text" else None
        yield Figure(f"{name}, streamed", _rate(partial(_stream, rules), text), "MB/s", goal)
    yield Figure(
        f"log text, with {_SECRETS} secrets of the host, streamed",
        _rate(partial(_stream, many), texts["log text"]),
        "MB/s",
    )
    yield Figure(
        "log text, whole", _rate(lambda text: redact(text, rules), texts["log text"]), "MB/s"
    )
    yield Figure("HTML table", _rate(lambda text: redact_html(text, rules), _table(chance)), "MB/s")
    for name in ("log text", "a URL a line", "coloured"):
        times = _writes(Stream(rules), texts[name])
        goal = 30 if name == "log text" else None
        yield Figure(f"a write of 100 bytes, {name}, median", times[len(times) // 2], "µs")
        yield Figure(
            f"a write of 100 bytes, {name}, p99", times[len(times) * 99 // 100], "µs", goal
        )


def _stream(rules: Rules, text: str) -> None:
    stream = Stream(rules)
    for start in range(0, len(text), _CHUNK):
        stream.feed(text[start : start + _CHUNK], 0.0)


def _writes(stream: Stream, text: str) -> list[float]:
    """Return the microseconds that each write took, sorted."""
    times = []
    for start in range(0, len(text), _WRITE):
        piece = text[start : start + _WRITE]
        before = time.thread_time_ns()
        stream.feed(piece, 0.0)
        times.append((time.thread_time_ns() - before) / 1e3)
    return sorted(times)


def _rate(work: Callable[[str], object], text: str) -> float:
    return len(text.encode()) / _best(work, text) / 1e6


def _best(work: Callable[[str], object], text: str) -> float:
    """Return the seconds of the best of some rounds: the others had company."""
    found = []
    for _ in range(_ROUNDS):
        before = time.process_time()
        work(text)
        found.append(time.process_time() - before)
    return min(found)


def _log(chance: random.Random) -> str:
    return "".join(
        f"2026-11-20 23:07:{n % 60:02d},{n % 1000:03d} INFO [worker-{n % 8}] request "
        f"{chance.getrandbits(64):016x} took {chance.random():.3f}s status=200 bytes={n}\n"
        for n in range(_LINES)
    )


def _urls(chance: random.Random) -> str:
    return "".join(
        f"2026-11-20 23:07:{n % 60:02d} GET http://10.0.0.{n % 255}:8080/items/"
        f"{chance.getrandbits(64):016x}?page=2 took {chance.random():.3f}s\n"
        for n in range(_LINES)
    )


def _coloured(chance: random.Random) -> str:
    return "".join(
        f"\x1b[32m2026-11-20\x1b[0m \x1b[1;34mINFO\x1b[0m request \x1b[33m"
        f"{chance.getrandbits(64):016x}\x1b[0m took {chance.random():.3f}s\n"
        for n in range(_LINES)
    )


def _base64(chance: random.Random) -> str:
    return base64.b64encode(chance.randbytes(2_000_000)).decode()


def _table(chance: random.Random) -> str:
    rows = "".join(
        f"<tr><th>{n}</th><td>{chance.random():.6f}</td><td>name {n}</td></tr>\n"
        for n in range(_LINES)
    )
    return f'<table border="1" class="dataframe"><tbody>\n{rows}</tbody></table>'


_TEXTS: dict[str, Callable[[random.Random], str]] = {
    "log text": _log,
    "a URL a line": _urls,
    "coloured": _coloured,
    "Base64": _base64,
}


def _cells(figure: Figure) -> tuple[str, str, str]:
    better = "≥" if figure.unit == "MB/s" else "≤"
    shown = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:,.1f}"
    goal = f"{better} {figure.goal:,.0f} {figure.unit}" if figure.goal is not None else ""
    return figure.title, f"{shown} {figure.unit}", goal


def _prove(splits: int) -> int:
    """Run the tests that look for leaks with as many splits of each example."""
    root = Path(__file__).resolve().parents[1]
    return subprocess.run(
        (
            *(sys.executable, "-P", "-m", "pytest", "-q", "-o", "timeout=0"),
            *("-k", "do_not_leak", _PROOF),
        ),
        cwd=root,
        env={**os.environ, "MXC_KERNEL_SPLITS": str(splits)},
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
