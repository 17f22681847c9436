"""Turns samples into a table of medians and ratios, and into a file with all of them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import psutil
from rich import box
from rich.table import Table

from benchmarks.rounds import Samples

__all__ = ["ROWS", "Result", "Row", "facts", "markdown", "results", "save", "table"]

OURS, SPARE = "mxc-kernel", "mxc-kernel with a spare"
STOCK, UNFROZEN = "ipykernel", "ipykernel -Xfrozen_modules=off"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        name: the work that it belongs to, as the command line selects it.
        title: what was measured.
        sample: name of the samples.
        goal: the ratio aimed at.
        against: what ipykernel's part is; the same samples if None, nothing if empty.
        contender: which ipykernel.
        ours: which of ours.
        unit: ``ms`` for samples in seconds, ``MB`` for samples in bytes.
    """

    name: str
    title: str
    sample: str
    goal: float | None = None
    against: str | None = None
    contender: str = STOCK
    ours: str = OURS
    unit: str = "ms"


ROWS = (
    Row("start", "start to kernel_info reply", "start-info"),
    Row("start", "start to first idle", "start-idle", goal=0.85),
    Row("start", "start to the end of the first cell", "start-cell"),
    Row("start", f"start to first idle, against {UNFROZEN}", "start-idle", contender=UNFROZEN),
    Row("trivial", "trivial cell, round trip", "trivial", goal=1.25),
    Row("lines", "100,000 printed lines", "lines", goal=1.0),
    Row("stdout", "100 MB of stdout in one write", "stdout", goal=3.0),
    Row("picture", "5 MB picture", "picture", goal=1.5),
    Row("completion", "the first four completions of a session, together", "completion-first"),
    Row("completion", "completion", "completion", goal=1.2),
    Row("inspection", "inspection", "inspection", goal=1.2),
    Row(
        "relaunch",
        "relaunch on a policy change, against a start to first idle",
        "relaunch",
        goal=0.8,
        against="start-idle",
    ),
    Row("restart", "restart to first idle", "restart"),
    Row(
        "spare",
        "%sandbox restart with a spare, against a start to first idle",
        "spare-restart",
        goal=0.3,
        against="start-idle",
        ours=SPARE,
    ),
    Row(
        "spare",
        "%%sandbox cell with a spare, against a start to first idle",
        "spare-throwaway",
        goal=0.3,
        against="start-idle",
        ours=SPARE,
    ),
    Row("memory", "memory (USS), all processes", "memory", goal=1.5, unit="MB"),
    Row("memory", "memory (USS), of that the trusted host", "memory-host", against="", unit="MB"),
)


@dataclass(frozen=True)
class Result:
    """Medians of one row, in the samples' units; None where there is nothing to compare with."""

    row: Row
    ours: float
    ipykernel: float | None

    @property
    def ratio(self) -> float | None:
        return self.ours / self.ipykernel if self.ipykernel else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.row.goal is None or self.ratio is None:
            return None
        return self.ratio <= self.row.goal

    def cells(self) -> tuple[str, str, str, str, str]:
        """The row as text."""
        goal = f"≤ {self.row.goal:.2f}" if self.row.goal is not None else ""
        return (
            self.row.title,
            _shown(self.ours, self.row.unit),
            _shown(self.ipykernel, self.row.unit),
            f"{self.ratio:.2f}" if self.ratio is not None else "",
            goal,
        )


def results(samples: Samples, works: Sequence[str]) -> list[Result]:
    """Return the rows of the chosen work for which there are samples."""
    found = []
    for row in ROWS:
        ours = samples.get(row.sample, {}).get(row.ours)
        if row.name not in works or not ours:
            continue
        against = row.sample if row.against is None else row.against
        theirs = samples.get(against, {}).get(row.contender)
        found.append(
            Result(row, statistics.median(ours), statistics.median(theirs) if theirs else None)
        )
    return found


def table(rows: Sequence[Result], caption: str) -> Table:
    """Return the table for a terminal."""
    shown = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    shown.add_column("work")
    for name in ("ours", "ipykernel", "ratio", "goal"):
        shown.add_column(name, justify="right", no_wrap=True)
    for result in rows:
        style = {True: "green", False: "red", None: ""}[result.met]
        work, ours, theirs, ratio, goal = result.cells()
        shown.add_row(work, ours, theirs, f"[{style}]{ratio}[/]" if style else ratio, goal)
    return shown


def markdown(rows: Sequence[Result], caption: str) -> str:
    """Return the table for a page."""
    lines = ["| work | ours | ipykernel | ratio | goal |", "|---|--:|--:|--:|--:|"]
    lines += ["| " + " | ".join(result.cells()) + " |" for result in rows]
    return "\n".join((*lines, "", caption))


def facts(child: str) -> dict[str, Any]:
    """Return what the figures depend on.

    Args:
        child: the interpreter that both kernels run your code in.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory": psutil.virtual_memory().total,
            "load": os.getloadavg(),
            "root": os.geteuid() == 0,
        },
        "host": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("mxc-kernel", "pyzmq", "psutil")},
        },
        "child": _versions(child),
    }


def save(path: str, about: Mapping[str, object], rows: Sequence[Result], samples: Samples) -> None:
    """Write everything that was measured as JSON."""
    document = {
        **about,
        "results": [
            {
                "work": result.row.name,
                "title": result.row.title,
                "unit": {"ms": "s", "MB": "B"}[result.row.unit],
                "ours": result.ours,
                "ipykernel": result.ipykernel,
                "ratio": result.ratio,
                "goal": result.row.goal,
            }
            for result in rows
        ],
        "samples": samples,
    }
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    value = value * 1000 if unit == "ms" else value / 1e6
    return f"{value:,.1f} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        models = []
    return models[0] if models else platform.processor()


def _versions(python: str) -> dict[str, str]:
    """Ask the child's interpreter what it runs."""
    names = ["ipykernel", "ipython", "jupyter_client", "pyzmq", "tornado"]
    question = (
        "import json, platform\nfrom importlib.metadata import version\n"
        f"print(json.dumps({{'python': platform.python_version(), "
        f"**{{name: version(name) for name in {names}}}}}))"
    )
    answer = subprocess.run(
        [python, "-I", "-c", question], capture_output=True, check=True, text=True
    ).stdout
    found: dict[str, str] = json.loads(answer)
    return found
