"""Finds the policy magics at the top of a cell, exactly where IPython sees them too.

A policy magic counts only where its meaning does not depend on running anything: before the first
line of code, where another magic (``%matplotlib inline``) counts as code. Blank lines and comments
may stand in between. That makes strings, continuation lines, ``exec`` and ``run_line_magic`` a
non-question: all of them are code, or come after code. What is not recognised here reaches IPython
unchanged, where the child's stub of the same name refuses to act.

IPython expands ``{name}`` and ``$name`` in a magic's arguments unless the magic is marked
``no_var_expand``; the stubs must be, else they would see another text than the host acted on.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.magics.words import WordError, split

__all__ = ["Call", "ParsedCell", "parse_cell"]

# str.splitlines, which IPython uses, but lazily: a 10 MB cell costs no more than its first line.
_LINE = re.compile(
    "([^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]*)(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]|\\Z)"
)
_ORDINARY_ENDS = frozenset({"\n", "\r\n", ""})
_BLANKS = " \t"
_SIMILAR = 0.8  # difflib's ratio; %timeit is 0.77 from %timeout and must stay IPython's

_LONGEST_TYPO = 40  # characters

_NO_MIXING = "line magics and a cell magic of the policy do not go into one cell"


@dataclass(frozen=True, slots=True)
class Call:
    """One policy magic of a cell.

    Attributes:
        name: the magic's name, without the percent sign.
        arguments: the rest of its line exactly as IPython passes it on.
        words: the arguments as shell words.
        line: the line number in the cell, from 1.
        cell: whether it is a cell magic, ``%%name`` on the cell's first line.
    """

    name: str
    arguments: str
    words: tuple[str, ...]
    line: int
    cell: bool = False

    @property
    def text(self) -> str:
        """The name and the arguments as one string; the child's stub recognises the call by it."""
        return f"{self.name} {self.arguments}" if self.arguments else self.name


@dataclass(frozen=True, slots=True)
class ParsedCell:
    """What the host needs to know about a cell before it runs.

    Attributes:
        calls: the policy magics at its top, in order.
        has_code: whether anything but policy magics, comments and blank lines is left to run.
    """

    calls: tuple[Call, ...]
    has_code: bool

    @property
    def cell_magic(self) -> bool:
        """Whether the first line is a cell magic of the host's; it is then the only call.

        The child is to run what follows as an ordinary cell.
        """
        return any(call.cell for call in self.calls)

    @property
    def handled(self) -> list[str]:
        """The calls as strings for the child: its stubs let exactly these pass, in this order."""
        return [call.text for call in self.calls]


def parse_cell(source: str, names: Collection[str], cell_names: Collection[str] = ()) -> ParsedCell:
    """Find the policy magics at the top of a cell.

    Args:
        source: the cell, unchanged.
        names: the names of the policy magics.
        cell_names: those of them that are cell magics too.

    Returns:
        The calls in order, and whether code is left.

    Raises:
        SandboxPolicyError: a policy magic that is indented, misspelt, continued over lines, out of
            place as a cell magic, or whose arguments are not shell words. Nothing of the cell may
            run then.
    """
    calls: list[Call] = []
    unusual_end = False
    first = True
    for number, (line, end) in enumerate(_lines(source), 1):
        text = line.strip(_BLANKS)
        if text and not text.startswith("#"):
            if not _is_policy_magic(text, names, first=first):
                return ParsedCell(tuple(calls), has_code=True)
            # IPython splits lines at form feeds and the like, Python's compiler does not: a line
            # that only one of them sees must not carry a grant.
            if unusual_end or end not in _ORDINARY_ENDS:
                raise _refusal(number, text, "an unusual line separator stands in or above it")
            if line.startswith("%%"):
                _check_cell_magic(number, text, cell_names, first=first)
            elif calls and calls[0].cell:
                raise _refusal(number, text, _NO_MIXING)
            calls.append(_call(number, line, names))
        first = first and not text
        unusual_end = unusual_end or end not in _ORDINARY_ENDS
    return ParsedCell(tuple(calls), has_code=False)


def _lines(source: str) -> Iterator[tuple[str, str]]:
    for found in _LINE.finditer(source):
        yield found[1], found[2]


def _is_policy_magic(text: str, names: Collection[str], *, first: bool) -> bool:
    """Tell whether a line of code is a policy magic.

    Args:
        text: the line without surrounding blanks.
        names: the names of the policy magics.
        first: whether only blank lines stand above it, where ``%%`` begins a cell magic.

    Raises:
        SandboxPolicyError: the line looks like a policy magic but is none (a likely typo).
    """
    if not text.startswith("%"):
        return False
    signs = len(text) - len(text.lstrip("%"))
    name = re.split(r"\s", text[signs:], maxsplit=1)[0]
    if name in names:
        return True
    bare = name.rstrip("?")
    if bare in names and bare != name:
        return False  # %allow_rw? and %allow_rw??: help, which IPython gives
    if (signs == 1 or not first) and len(name) <= _LONGEST_TYPO:
        near = difflib.get_close_matches(name.casefold(), names, n=1, cutoff=_SIMILAR)
        if near:
            raise SandboxPolicyError(
                f"there is no magic %{_short(name)}: no code was run.",
                remedy=f"Did you mean %{near[0]}? For help run %{near[0]}? in a cell of its own.",
            )
    return False


def _call(number: int, line: str, names: Collection[str]) -> Call:
    """Read one line that is known to be a policy magic.

    Raises:
        SandboxPolicyError: it is indented, or its arguments are not shell words.
    """
    text = line.rstrip()
    if line[0] in _BLANKS:
        raise _refusal(number, text, "it is indented: a policy magic stands at the start of a line")
    # IPython ends the name at the first space and nowhere else.
    signs = 2 if text.startswith("%%") else 1
    name, _, arguments = text[signs:].partition(" ")
    if name not in names:
        raise _refusal(number, text, "after its name a magic needs a space")
    try:
        words = split(arguments)
    except WordError as error:
        raise _refusal(number, text, str(error)) from None
    return Call(name, arguments, words, number, cell=signs == 2)


def _check_cell_magic(number: int, text: str, cell_names: Collection[str], *, first: bool) -> None:
    """Refuse ``%%`` where IPython would see no cell magic, or the magic is none.

    IPython drops blank lines above a cell magic; below a comment it takes the second percent sign
    for a part of the name.

    Raises:
        SandboxPolicyError: says where it would be right.
    """
    name = re.split(r"\s", text.lstrip("%"), maxsplit=1)[0]
    if name not in cell_names:
        raise _refusal(number, text, f"it is no cell magic: write %{name} with one percent sign")
    if not first:
        reason = f"%%{name} stands on the first line of its cell, and as the only policy magic"
        raise _refusal(number, text, reason)


def _refusal(number: int, text: str, reason: str) -> SandboxPolicyError:
    name = re.split(r"\s", text.strip().lstrip("%"), maxsplit=1)[0]
    return SandboxPolicyError(
        f"line {number}, %{_short(name)}: {reason}.",
        remedy=f"Correct the line and run the cell again; %{_short(name)}? shows the usage.",
    )


def _short(name: str) -> str:
    return ascii(name[:40])[1:-1]
