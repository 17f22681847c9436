"""Audited cells as rows, for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mxc_kernel.audit.reading import AuditedCell
from mxc_kernel.policy import format_size
from mxc_kernel.views import Block, Code, Paragraph, View, notice, visible
from mxc_kernel.views import Table as ViewTable

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["HEADINGS", "audit_view", "row", "table"]

HEADINGS = ("time (UTC)", "cell", "status", "took", "CPU", "memory", "output", "blocked", "policy")


def row(cell: AuditedCell) -> tuple[str, ...]:
    """Return what a table shows of a cell, in the order of `HEADINGS`."""
    finished = cell.finished
    count = cell.first["cell"]["execution_count"]
    names = (f"{cell.first['cell']['number']} [{count}]", _status(cell))
    policy = cell.first.get("policy", {}).get("effective", "")[:8]
    when = cell.first["time"][:19].replace("T", " ")
    if finished is None:
        return (when, *names, "", "", "", "", "", policy)
    output = finished["output"]
    return (
        when,
        *names,
        _seconds(finished["duration"]),
        _seconds(finished["cpu"]),
        "" if finished["memory_peak"] is None else format_size(finished["memory_peak"]),
        _sent(output["text"]["sent"] + output["rich"]["sent"])
        + ("+" if output["text"]["dropped"] + output["rich"]["dropped"] else ""),
        _blocked(cell),
        policy,
    )


def table(cells: Iterable[AuditedCell]) -> Table:
    """Return a table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    made = Table("session", "notebook", *HEADINGS, header_style="bold", box=None, pad_edge=False)
    colours = {"ok": "green", "running": "cyan", "unfinished": "magenta"}
    for cell in cells:
        # As text, not as markup: brackets in a name are no colours.
        columns = [Text(visible(text)) for text in row(cell)]
        columns[2].stylize(colours.get(cell.status, "red"))
        notebook = visible(str(cell.session.get("notebook") or cell.session.get("folder") or ""))
        made.add_row(Text(cell.first["session"][-8:]), Text(notebook), *columns)
    return made


def audit_view(cells: Sequence[AuditedCell], session: str | None) -> View:
    """Show the cells of a session in a notebook.

    Args:
        cells: which ones.
        session: the trail's name.
    """
    title = f"Audit of session {session}" if session else "Audit: no trail is written"
    rows = tuple(row(cell) for cell in cells)
    block: Block = ViewTable(HEADINGS, rows) if rows else Paragraph(("No cell yet.",))
    where = Code(f"mxc-kernel audit show --session {session}")
    return notice(title, block, Paragraph(("All of it, in a terminal: ", where)))


def _status(cell: AuditedCell) -> str:
    return f"{cell.status}: {cell.error}" if cell.error else cell.status


def _blocked(cell: AuditedCell) -> str:
    shown = [str(denial["path"] or denial["host"] or denial["kind"]) for denial in cell.denials]
    more = f" and {len(shown) - 1} more" if len(shown) > 1 else ""
    return shown[0] + more if shown else ""


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.3g} s"


def _sent(size: int) -> str:
    return format_size(size) if size else ""
