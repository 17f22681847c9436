"""Completion of policy magics' arguments, which the host answers and the child knows nothing of.

Paths come from the ceiling, and from folders that it holds. Nothing else on the host is listed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from mxc_kernel.denials import quoted
from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.magics.outcome import MagicContext
from mxc_kernel.magics.parser import parse_cell
from mxc_kernel.magics.table import CELL_MAGICS, MAGICS
from mxc_kernel.magics.usage import Argument
from mxc_kernel.magics.words import Partial, split_partial
from mxc_kernel.policy import NATIVE, Access, Filesystem, canonical

__all__ = ["Completion", "complete"]

_OFFERED = 200  # matches; nobody reads more
_READ = 4096  # entries of a folder, some 5 ms

_HEAD = re.compile(r"(%%?)([a-z_]+) ")


@dataclass(frozen=True)
class Completion:
    """What may stand in a cell instead of what was typed.

    Attributes:
        matches: the texts to put in.
        cursor_start: where they begin, in Unicode characters from the cell's start.
        cursor_end: where what they stand for ends.
    """

    matches: tuple[str, ...]
    cursor_start: int
    cursor_end: int


def complete(code: str, cursor: int, context: MagicContext) -> Completion | None:
    """Complete the arguments of a policy magic at the top of a cell.

    Args:
        code: the cell as it is being written.
        cursor: where the cursor is, in Unicode characters, as in Jupyter's ``complete_request``.
        context: what magics may know about their session.

    Returns:
        What fits, or None where the cursor is not in such arguments: then the child answers.
    """
    typed = code[: max(cursor, 0)]
    line = typed.rfind("\n") + 1
    head = _HEAD.match(typed, line)
    if head is None or not _counts(typed[:line], head[2], cell=head[1] == "%%"):
        return None
    partial = split_partial(typed[head.end() :])
    if partial is None:
        return Completion((), len(typed), len(typed))
    form = MAGICS[head[2]].form(cell=head[1] == "%%")
    matches = tuple(islice(_matches(form.arguments, partial, context), _OFFERED))
    return Completion(matches, head.end() + partial.start, len(typed))


def _counts(above: str, name: str, *, cell: bool) -> bool:
    """Tell whether a magic below these lines would be the host's."""
    if name not in MAGICS:
        return False
    if cell:
        return name in CELL_MAGICS and not above.strip(" \t\r\n")
    try:
        parsed = parse_cell(above, MAGICS, CELL_MAGICS)
    except SandboxPolicyError:
        return False
    return not (parsed.has_code or parsed.cell_magic)


def _matches(
    arguments: tuple[Argument, ...], partial: Partial, context: MagicContext
) -> Iterator[str]:
    expected, must = _expected(arguments, partial.before)
    options = "--" not in partial.before
    if options and partial.word.startswith("-"):
        yield from _options(arguments, partial)
        return
    if expected is not None:
        yield from (word for word in expected.choices if word.startswith(partial.word))
        yield from _paths(partial.word, expected, context)
    if options and not must and not partial.word:
        yield from _options(arguments, partial)


def _options(arguments: tuple[Argument, ...], partial: Partial) -> Iterator[str]:
    for argument in arguments:
        again = argument.many or argument.name not in partial.before
        if argument.option and again and argument.name.startswith(partial.word):
            yield argument.name


def _expected(
    arguments: tuple[Argument, ...], before: tuple[str, ...]
) -> tuple[Argument | None, bool]:
    """Return what the next word is a value of, and whether an option's value has to come."""
    options = {argument.name: argument for argument in arguments if argument.option}
    positionals = [argument for argument in arguments if not argument.option]
    taking: Argument | None = None
    must = ended = False
    for word in before:
        if not ended and word.startswith("-"):
            ended = word == "--"
            option = options.get(word)  # with its value after a "=" it takes no other
            taking = None if option is None or option.flag else option
            must = taking is not None
        elif taking is not None:
            taking = taking if taking.many else None
            must = False
        elif positionals and not positionals[0].many:
            del positionals[0]
    return taking or (positionals[0] if positionals else None), must


def _paths(word: str, argument: Argument, context: MagicContext) -> Iterator[str]:
    """Offer grants of the ceiling, and what is in folders that it holds, as the parser reads it."""
    if argument.offers is None:
        return
    lead, slash, name = word.rpartition("/")
    lead += slash
    try:
        folder = canonical(lead or ".", base=context.notebook_dir)
    except SandboxPolicyError:
        folder = ""
    files, access = _within_reach(argument, context)
    need = Access.READWRITE if argument.offers == "readwrite" else Access.READONLY
    found: dict[str, str] = {}
    if folder and access(folder) >= need:  # else only deeper grants could be offered
        for entry in _entries(folder):
            if entry.startswith(name) and (name or not entry.startswith(".")):
                found[entry] = os.path.join(folder, entry.rstrip("/"))
    for root, _ in files.grants:
        text = (folder and _relative(root, folder)) or ("" if word else root)
        if text and text.startswith(name) and f"{text}/" not in found:
            found[text] = root
    # Some 0.1 ms each to judge, and rarely are all of them wanted.
    for text in sorted(found):
        match = _quoted(lead + text)
        if match is not None and access(found[text]) >= need:
            yield match


def _within_reach(
    argument: Argument, context: MagicContext
) -> tuple[Filesystem, Callable[[str], Access]]:
    """Return the grants to offer, and what gives the most that may be asked for at a path."""
    if argument.offers == "held":
        held = context.ceiling.clamp(context.request).filesystem
        return held, held.access
    ceiling, narrowed = context.ceiling, context.request.narrowed.filesystem

    def most(path: str) -> Access:
        return min(ceiling.holds(path), ceiling.places.by_name(path), narrowed.access(path))

    return ceiling.policy.filesystem, most


def _relative(path: str, folder: str) -> str:
    """Return a path as seen from a folder above it; empty where it lies elsewhere."""
    if path == folder or not NATIVE.within(path, folder):
        return ""
    return os.path.relpath(path, folder)


def _entries(folder: str) -> set[str]:
    """List a folder, whose own folders end in a slash, with no symbolic link on the way to it.

    Code in the sandbox may put a link there after the path was made canonical.
    """
    entries: set[str] = set()
    if os.scandir not in os.supports_fd:  # then nothing can be listed safely
        return entries
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    way = flags | getattr(os, "O_PATH", os.O_RDONLY)  # a folder on the way need not be readable
    fd = os.open("/", way)
    try:
        names = folder.strip("/").split("/")
        for name in names:
            below = os.open(name or ".", way, dir_fd=fd)
            os.close(fd)
            fd = below
        below = os.open(".", flags | os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        with os.scandir(fd) as listing:
            for entry, _ in zip(listing, range(_READ), strict=False):
                entries.add(entry.name + "/" * entry.is_dir(follow_symlinks=False))
    except OSError:
        pass
    finally:
        os.close(fd)
    return entries


def _quoted(path: str) -> str | None:
    """Quote a path as it was typed; a tilde in front stays one for the eye as well."""
    if path.startswith("~/"):
        rest = quoted(path[2:])
        return None if rest is None else f"~/{rest}"
    return quoted(f"./{path}" if path[:1] in ("-", "~") else path)
