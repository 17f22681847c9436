"""What the kernel itself says in a notebook: one content, as plain text and as HTML.

A view is built from blocks and rendered twice, so the terminal (and nbclient's log) and JupyterLab
cannot say different things. The HTML is plain tags: without its styles, which a sanitiser may
strip, it reads the same. Colours are JupyterLab's variables, so it fits light and dark themes;
there is no script, no link and nothing remote. All text is untrusted (a path may be named
``<script>``): it is escaped, and characters that are invisible or turn the reading direction are
written out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from mxc_kernel.errors import MxcKernelError
from mxc_kernel.policy import Ceiling, Filesystem, Limits, Network, NetworkMode, Policy
from mxc_kernel.policy.model import ANY_NAME, NO_CAP
from mxc_kernel.policy.quantities import format_duration, format_size

if TYPE_CHECKING:
    from mxc_kernel.magics import SandboxFacts

__all__ = [
    "NO_CEILING",
    "Block",
    "Code",
    "Lines",
    "Paragraph",
    "Table",
    "View",
    "ceiling_view",
    "declared_view",
    "grants_view",
    "limits_view",
    "notice",
    "policy_view",
    "refusal_view",
    "sandbox_view",
    "size_text",
    "throwaway_view",
    "verbatim_view",
    "visible",
]

NO_CEILING = (
    "No ceiling is set up, so nothing can be granted. The operator of this machine runs "
    "mxc-kernel init in a terminal, edits the file that it names, and restarts the kernel."
)
_BOUNDARY = (
    "It is the boundary: whoever writes the notebook, an agent included, writes its requests too."
)
_FRAME = (
    "border-left:3px solid var(--jp-{colour}, {fallback});margin-top:6px;padding:2px 0 2px 12px;"
    "font-family:var(--jp-content-font-family, sans-serif);"
    "color:var(--jp-content-font-color1, inherit)"
)
_COLOURS = {"calm": ("brand-color1", "#1976d2"), "blocked": ("warn-color1", "#f57c00")}
_CODE = "font-family:var(--jp-code-font-family, monospace);background:none;padding:0;color:inherit"
_CELL = "text-align:left;vertical-align:top;padding:2px 16px 2px 0"


class Code(str):
    """A path, a magic or a file's key inside a text: set in the code font."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph of words and inline code."""

    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines to copy, such as magics to paste; newlines inside a line are made visible."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a heading over each column; a cell is words, or words and inline code."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


Cell = str | tuple[str, ...]
Block = Paragraph | Lines | Table


@dataclass(frozen=True, slots=True)
class View:
    """An output of the kernel itself.

    Attributes:
        text: for terminals and nbclient.
        html: for JupyterLab; the same words in the same order.
        kind: ``blocked`` if it reports that something was stopped, else ``note``. It stands in the
            output's metadata, which code in the sandbox cannot write.
    """

    text: str
    html: str
    kind: str = "note"

    def bundle(self) -> dict[str, str]:
        """Return the MIME bundle for a ``display_data`` message."""
        return {"text/plain": self.text, "text/html": self.html}


def visible(text: str) -> str:
    r"""Write out every character that does not show, such as ``\u202e`` (right-to-left override).

    A bidirectional control in a path could make a message about one path look like one about
    another; a newline could add a line that the kernel never said.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def notice(title: str, *blocks: Block, blocked: bool = False) -> View:
    """Build a view from a title and blocks.

    Args:
        title: one line, set in bold.
        *blocks: what stands below it.
        blocked: whether the view reports that something was stopped.
    """
    colour, fallback = _COLOURS["blocked" if blocked else "calm"]
    text = "\n".join([visible(title), *(_text(block) for block in blocks)])
    html = "".join(
        [
            f'<div style="{_FRAME.format(colour=colour, fallback=fallback)}">',
            f'<p style="margin:2px 0"><strong>{_safe(title)}</strong></p>',
            *(_html(block) for block in blocks),
            "</div>",
        ]
    )
    return View(text, html, "blocked" if blocked else "note")


def refusal_view(error: MxcKernelError) -> View:
    """Show why the kernel did not do what was asked, and what to do about it."""
    lines = [Paragraph((line,)) for line in error.message.splitlines()[1:]]
    remedy = [Paragraph((line,)) for line in error.remedy.splitlines()]
    first = (error.message.splitlines() or [type(error).__name__])[0]
    return notice(first, *lines, *remedy, blocked=True)


def grants_view(
    title: str,
    paths: Iterable[str],
    effective: Policy,
    *,
    when: str = "from this cell on",
    note: str = "",
) -> View:
    """Show what became of the paths that a magic named.

    Args:
        title: what the magic did.
        paths: the canonical paths.
        effective: the policy that is in force then.
        when: for how long that is.
        note: what else comes of it.
    """
    rows = tuple((Code(path), effective.filesystem.access(path).words) for path in paths)
    return notice(title, Table(("path", f"access {when}"), rows), *_paragraphs(note))


def declared_view(
    rows: Iterable[tuple[str, str, str]], *, ignored: bool = False, note: str = ""
) -> View:
    """Show what a notebook said that it needs, and what it got.

    Args:
        rows: path, what was asked for, and what is granted.
        ignored: whether the ceiling takes no requests, so that nothing was added.
        note: what else comes of it.
    """
    table = Table(
        ("path", "asked for", "granted from this cell on"),
        tuple((Code(path), asked, granted) for path, asked, granted in rows),
    )
    if ignored:
        return notice(
            "Request ignored: the ceiling takes none, the session keeps what it started with",
            table,
        )
    return notice("Requested, as far as the ceiling goes", table, *_paragraphs(note))


def throwaway_view(
    policy: Policy, names_in: Sequence[str], names_out: Sequence[str], *, objects: bool
) -> View:
    """Show what a cell in a sandbox of its own may do.

    Args:
        policy: what is in force there.
        names_in: names that are copied into it.
        names_out: names that are copied back.
        objects: whether they may be objects of any kind.
    """
    form = "as objects, with their code" if objects else "as plain data"
    copied = [
        f"{verb} {form}: {', '.join(names)}."
        for verb, names in (("Copied in", names_in), ("Copied back afterwards", names_out))
        if names
    ]
    return notice(
        "This cell runs in a sandbox of its own, which ends with it",
        _access_table(policy.filesystem),
        _limits_table(policy.limits),
        *_paragraphs(*copied),
    )


def sandbox_view(facts: SandboxFacts, *, changed: bool = False) -> View:
    """Show what the sandbox is, and what enforces the policy.

    Args:
        facts: what the host knows.
        changed: whether this cell changes the policy, so that the facts are about to be old.
    """
    rows = (
        ("executable", Code(facts.executable)),
        ("version", facts.version),
        ("SHA-256", Code(facts.sha256)),
        ("backend", facts.backend),
        ("runs as", facts.user),
        ("process", "none is running" if facts.pid is None else str(facts.pid)),
        ("running for", "unknown" if facts.uptime is None else _elapsed(facts.uptime)),
        ("memory in use", "unknown" if facts.memory is None else format_size(facts.memory)),
        *([] if facts.spare is None else [("spare sandbox", format_size(facts.spare))]),
    )
    late = "This is the sandbox from before this cell's changes." if changed else ""
    return notice(
        "Sandbox",
        Table(("what", "value"), rows),
        Table(("enforced", "by"), facts.enforced),
        *([Table(("attested", "how"), facts.attested)] if facts.attested else ()),
        *_paragraphs(late),
    )


def policy_view(effective: Policy, ceiling: Ceiling) -> View:
    """Show the policy in force."""
    blocks: list[Block] = [_access_table(effective.filesystem), _rules_table(effective)]
    blocks += _why_no_files(ceiling)
    return notice("Policy in force", *blocks)


def ceiling_view(ceiling: Ceiling, narrowed: Policy) -> View:
    """Show the most that a session can be granted, and who decides about it.

    Args:
        ceiling: the operator's ceiling.
        narrowed: the ceiling without what the session gave up.
    """
    blocks: list[Block] = [_access_table(narrowed.filesystem), _rules_table(narrowed)]
    if ceiling.layers:
        rows = tuple((layer.name, Code(layer.source)) for layer in ceiling.layers)
        blocks.append(Table(("layer", "file"), rows))
    blocks.append(Paragraph((_BOUNDARY,)))
    if narrowed != ceiling.policy:
        blocks.append(Paragraph(("This session gave up a part of it until the kernel restarts.",)))
    if ceiling.requests == "none":
        blocks.append(Paragraph(("It lets no magic add to what a session starts with.",)))
    blocks += _why_no_files(ceiling)
    return notice("Ceiling: the most that can be granted", *blocks)


def verbatim_view(title: str, text: str) -> View:
    """Show a text line by line as it is, such as JSON."""
    return notice(title, Lines(tuple(text.splitlines())))


def limits_view(effective: Policy) -> View:
    """Show the limits in force."""
    limits = effective.limits
    return notice(
        "Limits in force",
        Table(
            ("limit", "value"),
            (
                *_limits_table(limits).rows,
                ("processor time of a cell", format_duration(limits.cpu_time)),
                ("open files of a process", _number_text(limits.open_files)),
                ("size of a file", size_text(limits.file_size)),
                ("scratch space", size_text(limits.scratch_space)),
                ("files in scratch", _number_text(limits.scratch_files)),
                ("added to a writable grant", size_text(limits.grant_space)),
                ("files added to it", _number_text(limits.grant_files)),
                ("pictures, tables and widgets", size_text(limits.rich_output)),
                ("the largest of them", size_text(limits.single_output)),
                ("outputs of a cell", _number_text(limits.outputs)),
                ("messages a second", _number_text(limits.output_rate)),
                ("output of all cells", size_text(limits.session_output)),
                ("over a limit of output", limits.output_exceeded.name.lower()),
            ),
        ),
    )


def size_text(size: int | None) -> str:
    """Write a number of bytes for people; None and the top of the limits are no limit."""
    return format_size(None if size is None or size >= NO_CAP else size)


def _number_text(number: int | None) -> str:
    return "off" if number is None or number >= NO_CAP else f"{number:,}"


def _paragraphs(*texts: str) -> list[Block]:
    return [Paragraph((text,)) for text in texts if text]


def _elapsed(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _why_no_files(ceiling: Ceiling) -> list[Block]:
    """Say why nothing can be granted, if so: there is no ceiling, or it lists nothing."""
    if ceiling.policy.filesystem:
        return []
    if all(layer.name == "project" for layer in ceiling.layers):  # it can only take away
        return [Paragraph((NO_CEILING,))]
    empty = [layer.source for layer in ceiling.layers if not layer.policy.filesystem]
    if not empty:
        return [Paragraph(("The ceiling's files have no path in common, so none is granted.",))]
    files = [part for source in empty for part in (" and in ", Code(source))][1:]
    key = Code("[filesystem]")
    return [Paragraph(("No path can be granted: none is listed under ", key, " in ", *files, "."))]


def _access_table(filesystem: Filesystem) -> Block:
    if not filesystem:
        return Paragraph(("No files but the sandbox's own: Python and an empty scratch folder.",))
    rows = tuple((Code(path), access.words) for path, access in filesystem.grants)
    return Table(("path", "access"), rows)


def _rules_table(policy: Policy) -> Table:
    rows = (
        ("network", _network_text(policy.network)),
        *_limits_table(policy.limits).rows,
        ("rich output", policy.html.name.lower()),
        ("environment", _names_text(policy.environment)),
    )
    return Table(("rule", "value"), rows)


def _limits_table(limits: Limits) -> Table:
    return Table(
        ("limit", "value"),
        (
            ("time for a cell", format_duration(limits.cell_timeout)),
            ("memory", size_text(limits.memory)),
            ("processes", _number_text(limits.processes)),
            ("text of a cell", size_text(limits.output)),
        ),
    )


def _network_text(network: Network) -> str:
    if network.mode is NetworkMode.HOSTS:
        return "only " + ", ".join(sorted(network.hosts))
    return network.mode.name.lower()


def _names_text(names: frozenset[str]) -> str:
    if ANY_NAME in names:
        return "every variable"
    return ", ".join(sorted(names)) or "nothing"


def _text(block: Block) -> str:
    match block:
        case Paragraph(parts):
            return "".join(visible(part) for part in parts)
        case Lines(lines):
            return "\n".join(f"    {visible(line)}" for line in lines)
        case Table(headings, rows):
            table: tuple[tuple[Cell, ...], ...] = (headings, *rows)
            cells = [["".join(map(visible, _parts(cell))) for cell in row] for row in table]
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            return "\n".join(
                "  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells
            )


def _html(block: Block) -> str:
    match block:
        case Paragraph(parts):
            return f'<p style="margin:2px 0">{"".join(map(_inline, parts))}</p>'
        case Lines(lines):
            body = "\n".join(_safe(line) for line in lines)
            return f'<pre style="margin:4px 0;{_CODE}">{body}</pre>'
        case Table(headings, rows):
            head = "".join(f'<th style="{_CELL}">{_safe(cell)}</th>' for cell in headings)
            body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
            return (
                '<table style="margin:4px 0;border-collapse:collapse">'
                f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            )


def _cell(cell: Cell) -> str:
    return f'<td style="{_CELL}">{"".join(map(_inline, _parts(cell)))}</td>'


def _parts(cell: Cell) -> tuple[str, ...]:
    return (cell,) if isinstance(cell, str) else cell


def _inline(text: str) -> str:
    return f'<code style="{_CODE}">{_safe(text)}</code>' if isinstance(text, Code) else _safe(text)


def _safe(text: str) -> str:
    return escape(visible(text))
