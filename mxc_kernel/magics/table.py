"""The policy magics, as one table: what each is called, accepts and means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mxc_kernel.magics import commands, grants, limits
from mxc_kernel.magics.outcome import Step
from mxc_kernel.magics.usage import Argument

__all__ = ["CELL_MAGICS", "MAGICS", "Form", "Magic"]

Kind = Literal["line", "line_cell"]


@dataclass(frozen=True)
class Form:
    """A magic as it is written on a line, or at the top of a whole cell.

    Attributes:
        run: given the arguments, the outcome so far and the context, returns the next outcome. It
            changes nothing else, so a later magic that fails undoes it.
        arguments: what it accepts.
    """

    run: Step
    arguments: tuple[Argument, ...] = ()


@dataclass(frozen=True)
class Magic:
    """One policy magic.

    Attributes:
        name: its name without percent signs.
        doc: what it does; the first line is the summary.
        line: how it works on a line.
        cell: how it works as a cell magic; None where it is none.
    """

    name: str
    doc: str
    line: Form
    cell: Form | None = None

    @property
    def kind(self) -> Kind:
        """Whether it stands on a line only, or at the top of a whole cell too."""
        return "line_cell" if self.cell else "line"

    def form(self, *, cell: bool) -> Form:
        """Return how it works as it was written."""
        return self.cell if cell and self.cell else self.line

    def usage(self, *, cell: bool = False) -> str:
        """Return the line to write, such as ``%allow_ro PATH…``."""
        words = (argument.usage for argument in self.form(cell=cell).arguments)
        return " ".join([f"{'%%' if cell else '%'}{self.name}", *words])

    @property
    def help(self) -> str:
        """The whole help text: usage, meaning and each argument."""
        usages = [self.usage(), *([self.usage(cell=True)] if self.cell else [])]
        items = dict.fromkeys((*self.line.arguments, *(self.cell.arguments if self.cell else ())))
        arguments = [f"  {item.usage}  {item.doc}" for item in items]
        return "\n".join([*usages, "", self.doc, *([""] if arguments else []), *arguments])


_ANY_PATH = "files or folders, absolute or from the notebook's folder"
_RO_PATHS = Argument("paths", _ANY_PATH, "PATH", many=True, offers="readonly")
_RW_PATHS = Argument("paths", _ANY_PATH, "PATH", many=True, offers="readwrite")
_HELD_PATHS = Argument("paths", _ANY_PATH, "PATH", many=True, offers="held")
_RO = Argument("--ro", "files or folders to read", "PATH", many=True, offers="readonly")
_RW = Argument("--rw", "files or folders to read and write", "PATH", many=True, offers="readwrite")
_STRICT = Argument("--strict", "change nothing if a name of the session cannot be carried along")
_TIMEOUT = Argument("--timeout", "time for a cell, such as 30s", "DURATION")
_MEMORY = Argument("--memory", "memory of the sandbox, such as 2GiB", "SIZE")
_LIMITS = (
    Argument("--cpu", "processor time of a cell, such as 10m", "DURATION"),
    _MEMORY,
    Argument("--processes", "processes and threads at a time", "COUNT"),
    Argument("--open-files", "descriptors that one process may have open", "COUNT"),
    Argument("--file-size", "the largest file that a cell may write", "SIZE"),
    Argument("--scratch", "space in the sandbox's own folders", "SIZE"),
    Argument("--scratch-files", "files and folders in them", "COUNT"),
    Argument("--added", "space that a session may add to a writable grant", "SIZE"),
    Argument("--added-files", "files and folders that it may add there", "COUNT"),
    Argument("--output", "text that a cell may show, such as 1MiB", "SIZE"),
    Argument("--rich", "pictures, tables and widgets that a cell may show", "SIZE"),
    Argument("--single", "the largest of them", "SIZE"),
    Argument("--outputs", "how many outputs a cell may have", "COUNT"),
    Argument("--rate", "messages a second that are not joined", "COUNT"),
    Argument("--total", "what all cells together may show", "SIZE"),
    Argument("--exceeded", "what becomes of a cell over these", choices=("continue", "stop")),
)
_BOTH_WAYS = """
%{name} holds from this cell on, and code of earlier cells can use it too. %%{name} holds for its
own cell: the sandbox is replaced before it and again before the next one. A new sandbox gets the
session's names; threads, widgets and debug sessions end."""

MAGICS: dict[str, Magic] = {
    magic.name: magic
    for magic in (
        Magic(
            "ceiling",
            "Show the most that this session can be granted. With options, narrow it until the\n"
            "kernel restarts; that cannot be undone. The ceiling is the boundary: whoever writes\n"
            "the notebook, an agent included, writes its magics too.",
            Form(
                commands.show_ceiling,
                (
                    Argument(
                        "--readonly", "make paths read-only", "PATH", many=True, offers="readonly"
                    ),
                    Argument("--deny", "close paths", "PATH", many=True, offers="readonly"),
                    Argument("--network", "close the network", choices=("closed",)),
                    Argument("--html", "richest output to show", choices=("text", "safe", "frame")),
                    _TIMEOUT,
                    *_LIMITS,
                ),
            ),
        ),
        Magic(
            "allow_ro",
            "Let cells read files or folders." + _BOTH_WAYS.format(name="allow_ro"),
            Form(grants.allow_ro, (_RO_PATHS, _STRICT)),
            Form(grants.allow_ro_here, (_RO_PATHS, _STRICT)),
        ),
        Magic(
            "allow_rw",
            "Let cells read and write files or folders." + _BOTH_WAYS.format(name="allow_rw"),
            Form(grants.allow_rw, (_RW_PATHS, _STRICT)),
            Form(grants.allow_rw_here, (_RW_PATHS, _STRICT)),
        ),
        Magic(
            "revoke",
            "Take back all access to files or folders. What was read stays in memory.",
            Form(grants.revoke, (_HELD_PATHS, _STRICT)),
        ),
        Magic(
            "policy",
            "Show the policy in force. With request, ask for all that a notebook needs: what the\n"
            "ceiling does not hold is listed as not granted, and the cell runs.",
            Form(
                commands.policy,
                (
                    Argument("action", "ask for paths", choices=("request",), required=False),
                    _RO,
                    _RW,
                    Argument("--json", "the exact request to the MXC executable"),
                ),
            ),
        ),
        Magic(
            "sandbox",
            "Show what the sandbox is, and what enforces the policy; with restart, replace it by\n"
            "a new one, which gets the session's names. As %%sandbox, run this one cell in a\n"
            "sandbox of its own with exactly the grants named; nothing is kept of it but the\n"
            "names under --out. They are copied as plain data (numbers, text, lists and the\n"
            "like): an object of any other kind could bring code into the session.",
            Form(
                commands.sandbox,
                (
                    Argument("action", "replace it", choices=("restart",), required=False),
                    _STRICT,
                ),
            ),
            Form(
                grants.throwaway,
                (
                    _RO,
                    _RW,
                    _TIMEOUT,
                    _MEMORY,
                    Argument("--in", "names to copy in, such as a,b", "NAMES", many=True),
                    Argument("--out", "names to copy back afterwards", "NAMES", many=True),
                    Argument("--objects", "copy objects of any kind, and trust their code"),
                ),
            ),
        ),
        Magic(
            "checkpoint",
            "Take a snapshot of the session's names, for %restore or after a crash.",
            Form(commands.checkpoint),
        ),
        Magic(
            "restore",
            "Bring back the names as they were in the last snapshot, taken by %checkpoint or at\n"
            "the last change of policy.",
            Form(commands.restore),
        ),
        Magic(
            "timeout",
            "Limit the time of a cell from here on, or show the limits.",
            Form(
                limits.timeout,
                (
                    Argument(
                        "duration",
                        "such as 30s, 5m, 1.5h or off (as far as the ceiling goes)",
                        "DURATION",
                        required=False,
                    ),
                ),
            ),
        ),
        Magic(
            "limits",
            "Show the limits in force; with options, lower them.",
            Form(limits.limits, _LIMITS),
        ),
        Magic(
            "denials",
            "Show what cells reported as blocked so far, and the lines that would allow it.",
            Form(commands.denials),
        ),
        Magic(
            "audit",
            "Show what the audit trail says of this session's cells so far.",
            Form(
                commands.audit,
                (
                    Argument("--last", "how many cells, 20 if left out", "COUNT"),
                    Argument("--denials", "only those in which something was blocked"),
                ),
            ),
        ),
    )
}

CELL_MAGICS = frozenset(magic.name for magic in MAGICS.values() if magic.cell)
