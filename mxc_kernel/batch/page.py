"""The report as one HTML page that is safe to open.

Names, errors and paths come from notebooks and sandboxes. All of it is escaped, characters that do
not show are written out, and the page's own policy forbids everything but its one style sheet:
there is no script, no picture, nothing remote. A link leads to an executed notebook by a path
relative to the page.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator
from html import escape
from urllib.parse import quote

from mxc_kernel.batch.outcomes import Status
from mxc_kernel.batch.report import CellReport, NotebookReport, RunReport
from mxc_kernel.policy import format_duration, format_size
from mxc_kernel.views import visible

__all__ = ["render_page"]

_ALL_CELLS = 500  # notebooks up to which the cells of good ones are listed too

_STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--ink:#1c2430;--soft:#5d6878;--line:#dfe3e9;--code:#f0f2f5;
--good:#1a7f4b;--goodbg:#e2f5ea;--warn:#8a5a00;--warnbg:#fdf0d5;--bad:#b3261e;--badbg:#fbe4e2}
@media(prefers-color-scheme:dark){:root{--bg:#14181d;--card:#1d2229;--ink:#e6e9ee;--soft:#9aa5b4;
--line:#323944;--code:#262c35;--good:#6fd39b;--goodbg:#173527;--warn:#f0c168;--warnbg:#3a2f16;
--bad:#f49a93;--badbg:#43211f}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1180px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 10px}
p{margin:4px 0}.soft{color:var(--soft)}a{color:inherit}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin:20px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 18px;
min-width:108px}.tile b{display:block;font-size:24px;line-height:1.2}
table{border-collapse:collapse;width:100%;font-size:14px}
th{font-weight:600;color:var(--soft);text-align:left;white-space:nowrap}
th,td{padding:7px 12px;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr:last-child td{border-bottom:0}.name{overflow-wrap:anywhere;min-width:180px}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;overflow-x:auto;
margin:0 0 14px}details.card>summary{cursor:pointer;padding:12px 16px;font-weight:600}
details.card>div{padding:0 16px 14px;border-top:1px solid var(--line)}
.chip{display:inline-block;border-radius:999px;padding:1px 10px;font-size:13px;font-weight:600;
white-space:nowrap}
.good{color:var(--good);background:var(--goodbg)}.warn{color:var(--warn);background:var(--warnbg)}
.bad{color:var(--bad);background:var(--badbg)}
pre,code{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{background:var(--code);border-radius:4px;padding:1px 5px;overflow-wrap:anywhere}
pre{background:var(--code);border-radius:8px;padding:10px 12px;margin:8px 0;overflow-x:auto;
max-height:340px}ul{margin:6px 0;padding-left:20px}.grow{margin-top:12px}
""".strip()

_GOOD = (Status.OK,)
_WARN = (Status.TRUNCATED, Status.NOT_RUN, Status.RUNNING, Status.INTERRUPTED)


def render_page(report: RunReport, *, at: str | None = None) -> bytes:
    """Return a page about a run.

    Args:
        report: the run.
        at: where the page will be, for links to the executed notebooks; None leaves them out.
    """
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    told = [notebook for notebook in report.notebooks if _worth_telling(notebook)]
    if len(report.notebooks) <= _ALL_CELLS:
        told += [n for n in report.notebooks if n.cells and not _worth_telling(n)]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="referrer" content="no-referrer">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(f'{len(report.notebooks)} notebooks: {_words(report.status)}')}</title>",
        f"<style>{_STYLE}</style></head><body><main>",
        *_head(report),
        *_overview(report, at),
        *(["<h2>Notebook by notebook</h2>"] if told else []),
        *(part for notebook in told for part in _notebook(notebook)),
        "</main></body></html>\n",
    ]
    # A name need not be UTF-8.
    return "".join(parts).encode("utf-8", "backslashreplace")


def _head(report: RunReport) -> Iterator[str]:
    yield f"<h1>Notebooks run in the sandbox {_chip(report.status)}</h1>"
    yield (
        f'<p class="soft">{_text(report.tool)} · begun {_text(report.started)} · took '
        f"{_text(_time(report.seconds))} · {_text(report.output_dir)}</p>"
    )
    options = {
        name: value
        for name, value in report.options.items()
        if value not in (None, False, {}, [], ()) and not (name == "requests" and value)
    }
    if report.options.get("requests") is False:
        options["requests"] = "ignored"
    if options:
        said = " · ".join(f"{name.replace('_', ' ')}: {value}" for name, value in options.items())
        yield f'<p class="soft">{_text(said)}</p>'
    yield '<div class="tiles">'
    for name, count in sorted(report.counts.items(), key=lambda item: -item[1]):
        yield f'<div class="tile"><b>{count}</b>{_chip(Status(name))}</div>'
    denials = sum(notebook.denials for notebook in report.notebooks)
    redacted = sum(_redacted(notebook) for notebook in report.notebooks)
    for count, words in ((denials, "denials"), (redacted, "secrets hidden")):
        yield f'<div class="tile"><b>{count}</b><span class="soft">{words}</span></div>'
    yield "</div>"


def _overview(report: RunReport, at: str | None) -> Iterator[str]:
    yield '<div class="card"><table><tr><th>notebook</th><th>outcome</th>'
    headings = ("cells", "time", "denials", "hidden", "cut", "peak memory")
    yield "".join(f'<th class="n">{heading}</th>' for heading in headings) + "</tr>"
    for notebook in report.notebooks:
        cut = sum(bool(cell.truncated) + cell.outputs_refused for cell in notebook.cells)
        values = (
            f"{len(notebook.cells)}/{notebook.cells_total}",
            _time(notebook.seconds) + (" (before)" if notebook.resumed else ""),
            notebook.denials or "",
            _redacted(notebook) or "",
            cut or "",
            format_size(notebook.peak_memory) if notebook.peak_memory else "",
        )
        cells = "".join(f'<td class="n">{_text(str(value))}</td>' for value in values)
        name = f'<td class="name">{_linked(notebook, at)}</td>'
        yield f"<tr>{name}<td>{_chip(notebook.status)}</td>{cells}</tr>"
    yield "</table></div>"


def _linked(notebook: NotebookReport, at: str | None) -> str:
    name = _text(notebook.name)
    if at is None or notebook.output is None:
        return name
    relative = os.path.relpath(notebook.output, os.path.dirname(at))
    # With the dot in front no name can be taken for an address.
    return f'<a href="./{escape(quote(os.fsencode(relative)))}">{name}</a>'


def _notebook(notebook: NotebookReport) -> Iterator[str]:
    opened = " open" if _worth_telling(notebook) else ""
    yield f'<details class="card"{opened}><summary>{_text(notebook.name)} '
    yield f"{_chip(notebook.status)}</summary><div>"
    if notebook.reason:
        yield f"<pre>{_lines(notebook.reason)}</pre>"
    if notebook.attempts > 1:
        yield (
            f"<p>Begun {notebook.attempts} times, because a worker died: what it does outside of "
            "its sandbox may have happened more than once.</p>"
        )
    facts = {
        "worker": notebook.worker,
        "audit session": notebook.audit_session,
        "notebook, SHA-256": notebook.input_sha256,
        "ceiling, SHA-256": notebook.ceiling_sha256,
    }
    said = [f"{name}: <code>{_text(value)}</code>" for name, value in facts.items() if value]
    if said:
        yield f'<p class="soft grow">{" · ".join(said)}</p>'
    if notebook.asked:
        rows = ([row.path, row.asked, row.granted] for row in notebook.asked)
        yield _table(("its metadata asks for", "access", "granted"), rows)
    if notebook.cells:
        yield "<table><tr><th>cell</th><th>outcome</th>"
        yield '<th class="n">time</th><th class="n">memory by then</th></tr>'
        for cell in notebook.cells:
            memory = format_size(cell.peak_memory) if cell.peak_memory else ""
            yield (
                f"<tr><td>{cell.index + 1}</td><td>{_chip(cell.status)}"
                f"{' as expected' if cell.expected else ''}{''.join(_cell(cell))}</td>"
                f'<td class="n">{_text(_time(cell.seconds))}</td><td class="n">{memory}</td></tr>'
            )
        yield "</table>"
    yield "</div></details>"


def _cell(cell: CellReport) -> Iterator[str]:
    if cell.error is not None:
        text = cell.error.traceback or f"{cell.error.name}: {cell.error.value}"
        yield f"<pre>{_lines(text)}</pre>"
    if cell.denials:
        yield "<ul>"
        for denial in cell.denials:
            yield f"<li><strong>{_text(denial.what)}</strong>: {_text(denial.rule)}"
            if denial.grant:
                yield f" <code>{_text(denial.grant)}</code>"
            yield "</li>"
        yield "</ul>"
    if cell.truncated:
        shown, printed = (cell.truncated.get(key, 0) for key in ("shown", "printed"))
        yield f"<p>{format_size(shown)} of {format_size(printed)} of text were kept.</p>"
    if cell.outputs_refused:
        yield f"<p>{cell.outputs_refused} displays were over a limit.</p>"
    if cell.redacted:
        rules = ", ".join(f"{rule} ({count})" for rule, count in cell.redacted.items())
        yield f"<p>Hidden: {_text(rules)}</p>"


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{_text(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _worth_telling(notebook: NotebookReport) -> bool:
    return notebook.status is not Status.OK or bool(notebook.denials) or notebook.attempts > 1


def _redacted(notebook: NotebookReport) -> int:
    return sum(sum(cell.redacted.values()) for cell in notebook.cells)


def _chip(status: Status) -> str:
    look = "good" if status in _GOOD else "warn" if status in _WARN else "bad"
    return f'<span class="chip {look}">{_words(status)}</span>'


def _words(status: Status) -> str:
    return status.replace("_", " ")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else format_duration(round(seconds))


def _text(text: str) -> str:
    return escape(visible(text))


def _lines(text: str) -> str:
    lines = (visible(line.replace("\t", "    ")) for line in text.split("\n"))
    return escape("\n".join(lines))
