"""The arguments of a policy magic: the shell's words, without the shell's expansions.

Two readers see the same line: the host, which acts on it, and IPython in the child, which finds
magics with Python's tokenizer. What one of them could read in another way is refused here: a
bracket or a triple quote that Python would continue over the next lines, a closing ``?`` that
IPython would take for a help request, a backslash before a quote. What a shell would expand
(``$HOME``, ``*.csv``) is refused too and not taken literally, because another path than the one
meant would be granted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Partial", "WordError", "split", "split_partial"]

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PIECE = re.compile(
    r"""
    (?P<space>[ \t]+)
  | '(?P<single>[^']*)'
  | "(?P<double>(?:[^"\\]|\\.)*)"
  | \\(?P<escaped>[ ])
  | (?P<plain>[^\s'"\\()\[\]{}<>;&|*?$`]+)
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(r'\\(["\\$`])')
_EXPANSION = re.compile(r"(?<!\\)(?:\\\\)*[$`]")
_ODD_BACKSLASHES = re.compile(r"(?<!\\)(?:\\\\)*\\\Z")


class WordError(ValueError):
    """The text is not a list of shell words; the message says why."""


def split(text: str) -> tuple[str, ...]:
    r"""Split the arguments of a magic into words as a POSIX shell would.

    Quotes and ``\ `` (a backslash and a space) keep a word together; ``#`` at the start of a word
    begins a comment. Whatever is accepted here means the same to a POSIX shell.

    Args:
        text: the rest of the magic's line, after its name.

    Returns:
        The words, their quotes removed.

    Raises:
        WordError: an unclosed quote, a character with a meaning to the shell outside quotes, or a
            text that Python's tokenizer would read in another way than the shell does.
    """
    words, _ = _scan(text)
    return tuple(word for _, word in words)


@dataclass(frozen=True, slots=True)
class Partial:
    """Arguments that are still being written, up to the cursor.

    Attributes:
        before: the words before the one under the cursor.
        word: what that one stands for so far; empty where none was begun.
        start: where it begins in the text, its quote included.
    """

    before: tuple[str, ...]
    word: str
    start: int


def split_partial(text: str) -> Partial | None:
    """Split arguments of which the last word is still being written, its quote perhaps open.

    Args:
        text: the arguments up to the cursor.

    Returns:
        The words, or None in a comment and where `split` would refuse whatever follows.
    """
    for closing in ("", "'", '"'):
        try:
            words, inside = _scan(text + closing)
        except WordError:
            continue
        if inside is None:
            return None
        if not inside:
            words.append((len(text), ""))
        start, word = words.pop()
        return Partial(tuple(word for _, word in words), word, start)
    return None


def _scan(text: str) -> tuple[list[tuple[int, str]], bool | None]:
    """Read words with the positions at which they begin.

    Returns:
        The words, and whether the text ends inside the last one; None if it ends in a comment.

    Raises:
        WordError: see `split`.
    """
    if found := _CONTROL.search(text):
        raise WordError(f"it holds the control character {found[0]!a}")
    if text.endswith("\\"):  # even in a comment, IPython takes the next line for the rest of this
        raise WordError("it ends in a backslash: a policy magic stands on one line")
    words: list[tuple[int, str]] = []
    inside = False
    position = 0
    while position < len(text):
        if not inside and text[position] == "#":
            return words, None
        piece = _PIECE.match(text, position)
        if piece is None:
            raise WordError(_reason(text[position:]))
        if piece["space"] is not None:
            inside = False
        elif inside:
            start, word = words.pop()
            words.append((start, word + _value(piece)))
        else:
            words.append((position, _value(piece)))
            inside = True
        position = piece.end()
    return words, inside


def _value(piece: re.Match[str]) -> str:
    """Return what one piece of a word stands for.

    Raises:
        WordError: Python's tokenizer would see the piece's quotes elsewhere than the shell does.
    """
    if piece["escaped"] is not None:
        return " "
    if piece["plain"] is not None:
        if not piece["plain"].isprintable():
            raise WordError("it holds an invisible character outside quotes")
        return piece["plain"]
    before = piece.string[piece.start() - 1 : piece.start()]
    if before.isalnum() or before in {"_", "'", '"'}:
        # x"…" may be an f-string to Python, whose braces run over lines; "" before " is a triple.
        raise WordError("a quote begins inside a word: put the whole argument in quotes")
    if piece["single"] is not None:
        if _ODD_BACKSLASHES.search(piece["single"]):
            # To Python the backslash hides the closing quote, so the string would go on.
            raise WordError("a quoted text ends in a backslash")
        return piece["single"]
    if _EXPANSION.search(piece["double"]):
        raise WordError("variables are not expanded: for a literal $ or ` use single quotes")
    return _ESCAPE.sub(r"\1", piece["double"])


def _reason(rest: str) -> str:
    """Say why no piece of a word begins with ``rest``."""
    character = rest[0]
    if character in "'\"":
        return f"the quote {character} is not closed"
    if character == "\\":
        return "outside quotes a backslash may only stand before a space: use quotes"
    if character in "$`":
        return "variables are not expanded: write the path out, or quote it with single quotes"
    if character in "*?[":
        return f"patterns are not expanded: name each path, or quote a literal {character}"
    if character.isspace():
        return f"it holds the unusual white space {character!a}: put the argument in quotes"
    return f"{character} has a meaning in a shell: put the argument in quotes"
