"""Runs one notebook in a kernel and a made-up world of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from verdict import NOT_RUN, Expectation, Row, judge
from world import World, made_up_world

__all__ = ["KERNEL", "Report", "run"]

KERNEL = "mxc-python"
CELL_TIMEOUT = 120  # seconds; generous, a busy machine is not a failure
START_TIMEOUT = 60  # seconds

NO_SANDBOX = ("SandboxUnavailableError", "SandboxUntrustedBinaryError", "SandboxExecutionError")
"""Errors after which the other cells would only say the same, where none was expected."""


@dataclass
class Report:
    """What came of one notebook.

    Attributes:
        problems: what was not as expected and belongs to no cell.
    """

    name: str
    rows: list[Row]
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failures(self) -> list[str]:
        """What was not as expected, in one line each."""
        found = [f"“{row.expected.label}”: {what}" for row in self.rows for what in row.problems]
        found += self.problems
        if not_run := sum(row.happened == NOT_RUN for row in self.rows):
            found.append(f"cells that did not run: {not_run}")
        return [f"{self.name}: {what}" for what in found]


def run(path: Path, output_dir: Path | None, progress: Callable[[str], None]) -> Report:
    """Run one notebook.

    Args:
        path: the notebook.
        output_dir: where to keep the executed notebook, if anywhere.
        progress: called with a few words on what is going on.

    Raises:
        ValueError: a cell does not say what is expected of it.
    """
    notebook = nbformat.read(path, as_version=4)
    rows = {
        index: Row(_expectation(cell))
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code"
    }
    report = Report(path.stem, list(rows.values()))
    began = time.monotonic()
    progress(f"{report.name}: starting its kernel")
    with made_up_world() as world:
        try:
            _run_cells(notebook, rows, world, lambda label: progress(f"{report.name}: {label}"))
        except (CellControlSignal, DeadKernelError, RuntimeError, OSError) as error:
            report.problems.append(f"{error} (`mxc-kernel doctor` looks for the cause)")
        left = world.await_processes(0)
    if left:
        report.problems.append(f"{left} processes have outlived the kernel")
    for row in report.rows:
        if row.expected.processes and not left:
            row.facts.append("all gone with the kernel")
    if output_dir is not None:
        nbformat.write(notebook, output_dir / path.name)
    report.seconds = time.monotonic() - began
    return report


def _expectation(cell: Any) -> Expectation:
    try:
        return Expectation(**cell.metadata.get("mxc", {}))
    except TypeError as error:
        raise ValueError(f"the metadata of the cell {cell.source[:40]!r}: {error}") from None


def _run_cells(
    notebook: Any, rows: Mapping[int, Row], world: World, progress: Callable[[str], None]
) -> None:
    """Run the cells in one kernel, and judge each before the next one runs.

    Raises:
        RuntimeError: it cannot go on.
    """
    replies: list[Mapping[str, Any]] = []
    client = NotebookClient(
        notebook,
        kernel_name=KERNEL,
        timeout=CELL_TIMEOUT,
        startup_timeout=START_TIMEOUT,
        allow_errors=True,  # most of the errors here are what is wanted
        on_cell_executed=lambda execute_reply, **_: replies.append(execute_reply["content"]),
    )
    manager = client.create_kernel_manager()
    manager.transport, manager.connection_file = "ipc", world.connection_file
    with client.setup_kernel(cwd=str(world.folder), env=world.environment):
        before = world.files()
        for index, row in rows.items():
            progress(row.expected.label)
            cell = client.execute_cell(notebook.cells[index], index)
            after = world.files()
            judge(row, cell.outputs, replies[-1], _changes(before, after), world)
            before = after
            if row.happened in NO_SANDBOX and not row.as_expected:
                raise RuntimeError("there is no sandbox to go on with")


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    paths = before.keys() | after.keys()
    return {path: after.get(path) for path in paths if before.get(path) != after.get(path)}
