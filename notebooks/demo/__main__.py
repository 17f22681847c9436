"""Runs the notebooks in the real sandbox and checks what came of every cell.

A notebook's cells say in their metadata what is expected of them (`verdict.Expectation`). What a
cell prints is not believed: after each one the host looks for itself. Nothing in the made-up home
folder may have changed but what the cell declares, none of the made-up secrets may stand in its
output, nobody may have called the host's server; and no process may be left after the kernel's end.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text
from run import Report, run

from mxc_kernel.policy.load import system_ceiling

HERE = Path(__file__).resolve().parent.parent
LOG_WIDTH = 120  # columns where the output is no terminal


def main() -> int:
    """Run the notebooks and report; 0 only if every cell came out as expected."""
    parser = argparse.ArgumentParser(
        prog="demo", description="Run the notebooks in the real sandbox and check what came out."
    )
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="run only these")
    parser.add_argument("--output-dir", type=Path, help="keep the executed notebooks here")
    options = parser.parse_args()
    if options.output_dir is not None:
        options.output_dir.mkdir(parents=True, exist_ok=True)
    # So that the kernel is ended and its folder removed whoever ends the demo.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    try:
        return _demonstrate(find(options.notebooks), options.output_dir, console)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def find(names: Sequence[str]) -> list[Path]:
    """Return the notebooks of these names or paths; without any, all that belong to the demo.

    Raises:
        SystemExit: there is no such notebook.
    """
    if not names:
        return sorted(HERE.glob("*.ipynb"))
    found = []
    for name in names:
        places = [Path(name), HERE / name, HERE / f"{name}.ipynb"]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise SystemExit(f"There is no notebook {name!r}.")
        found.append(path)
    return found


def _demonstrate(paths: Sequence[Path], output_dir: Path | None, console: Console) -> int:
    reports = []
    for path in paths:
        with console.status("") as status:  # shown on a terminal only
            report = run(path, output_dir, status.update)
        good = sum(row.as_expected for row in report.rows)
        console.print(
            f"{report.name}: {good} of {len(report.rows)} cells as expected, {report.seconds:.1f} s"
        )
        reports.append(report)
    for report in reports:
        console.print()
        console.print(table(report))
    console.print()
    failures = [failure for report in reports for failure in report.failures]
    if not failures:
        count = sum(len(report.rows) for report in reports)
        console.print(f"All {count} cells came out as expected, inside and on the host.")
        return 0
    console.print("Not as expected:")
    for failure in failures:
        console.print(f"  {failure}", soft_wrap=True)
    if Path(system_ceiling()).exists():
        console.print(f"\n{system_ceiling()} applies to the demo too and may be the reason.")
    return 1


def table(report: Report) -> Table:
    """Lay out what was expected of a notebook's cells and what happened."""
    drawn = Table(title=report.name, title_justify="left", title_style="bold", expand=True)
    drawn.add_column("what the cell tries", ratio=4)
    drawn.add_column("expected", min_width=len("SandboxTimeoutError"))
    drawn.add_column("what happened", ratio=5)
    drawn.add_column("verdict", min_width=len("NOT as expected"))
    for row in report.rows:
        verdict = ("as expected", "green") if row.as_expected else ("NOT as expected", "bold red")
        drawn.add_row(
            Text(row.expected.label),
            Text(row.expected.word),
            Text("; ".join([row.happened, *row.facts])),
            Text(*verdict),
        )
    return drawn


if __name__ == "__main__":
    sys.exit(main())
