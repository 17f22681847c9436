"""How a run comes along: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from mxc_kernel.batch.outcomes import Status
from mxc_kernel.batch.report import CellReport, NotebookReport, RunReport
from mxc_kernel.batch.running import Watcher
from mxc_kernel.policy import format_size
from mxc_kernel.views import visible

__all__ = ["Lines", "Live", "summary"]

_COLOURS = {Status.OK: "green", Status.TRUNCATED: "yellow", Status.NOT_RUN: "dim"}


class Lines(Watcher):
    """One line for each notebook that has ended.

    Args:
        console: where they go.
        total: how many notebooks there are.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._ended = 0

    def done(self, report: NotebookReport) -> None:
        """Say what came of a notebook."""
        self._ended += 1
        if report.status is not Status.NOT_RUN:
            line = f"[{self._ended}/{self._total}] {_line(report)}"
            self._console.print(line, style=None, markup=False, highlight=False, soft_wrap=True)


class Live(Watcher):
    """A bar for each notebook under way and one for the run; those that have ended scroll away.

    Args:
        console: a terminal.
        total: how many notebooks there are.
    """

    def __init__(self, console: Console, total: int) -> None:
        name = Column(ratio=2, no_wrap=True, overflow="ellipsis")
        self._progress = Progress(
            TextColumn("{task.description}", table_column=name, markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[facts]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            expand=True,
            transient=True,
        )
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._denials: Counter[str] = Counter()
        self._memory: dict[str, int] = {}
        self._all = self._progress.add_task("all notebooks", total=total, facts="")

    def __enter__(self) -> Live:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begun(self, name: str, cells: int) -> None:
        """Show a bar for a notebook; one that a dead worker had begun starts again."""
        if (before := self._tasks.pop(name, None)) is not None:
            self._progress.remove_task(before)
        self._denials[name] = 0
        self._tasks[name] = self._progress.add_task(visible(name), total=cells, facts="")

    def cell_done(self, name: str, cell: CellReport) -> None:
        """Move its bar on."""
        self._denials[name] += len(cell.denials)
        self._memory[name] = max(cell.peak_memory or 0, self._memory.get(name, 0))
        facts = _facts(self._denials[name], self._memory[name])
        self._progress.update(self._tasks[name], advance=1, facts=facts)

    def done(self, report: NotebookReport) -> None:
        """Take its bar away, and say what came of it."""
        task = self._tasks.pop(report.name, None)
        self._denials.pop(report.name, None)
        self._memory.pop(report.name, None)
        if task is not None:
            self._progress.remove_task(task)
        self._progress.advance(self._all)
        if report.status is not Status.NOT_RUN:
            colour = _COLOURS.get(report.status, "red")
            self._console.print(_line(report), style=colour, markup=False, highlight=False)


def summary(report: RunReport) -> str:
    """Return the last line of a run."""
    ended = ", ".join(f"{count} {_words(Status(name))}" for name, count in report.counts.items())
    many = len(report.notebooks)
    notebooks = f"{many} notebook{'' if many == 1 else 's'}"
    return f"{notebooks} in {report.seconds:.1f} s: {ended or 'none found'}. {report.output_dir}"


def _line(report: NotebookReport) -> str:
    ran = sum(cell.status is not Status.RUNNING for cell in report.cells)
    facts = _facts(report.denials, report.peak_memory or 0)
    parts = [f"{ran}/{report.cells_total} cells", f"{report.seconds:.1f} s", *filter(None, [facts])]
    if report.resumed:
        parts.append("done before")
    text = f"{visible(report.name)}: {_words(report.status)} ({', '.join(parts)})"
    reason = report.reason.partition("\n")[0]
    if not reason and report.status not in (Status.OK, Status.TRUNCATED):
        errors = [cell.error for cell in report.cells if cell.error and not cell.expected]
        reason = f"{errors[-1].name}: {errors[-1].value}" if errors else ""
    # One line, and no more of it than fits beside a name: both come from the sandbox.
    return f"{text} {visible(reason.partition(chr(10))[0][:200])}".rstrip()


def _facts(denials: int, memory: int) -> str:
    words = [f"{denials} denied"] if denials else []
    return ", ".join(words + ([format_size(memory)] if memory else []))


def _words(status: Status) -> str:
    return status.replace("_", " ")
