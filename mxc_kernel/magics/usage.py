"""What a magic accepts after its name: options and paths, checked without printing or exiting."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

__all__ = ["Argument", "UsageError", "count", "read"]


class UsageError(ValueError):
    """The words do not fit the magic; the message says which one and why."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One option or positional argument.

    Attributes:
        name: ``--json`` for an option, ``paths`` for a positional.
        doc: what it means, for the help text.
        metavar: how the usage line writes its value; empty for a flag.
        many: whether it takes one or more values; an option may be repeated too.
        required: whether a positional must be there.
        choices: the only values that are accepted; empty for any.
        offers: the paths that completion offers: where the ceiling holds reading, or writing, or
            those that the session holds.
    """

    name: str
    doc: str
    metavar: str = ""
    many: bool = False
    required: bool = True
    choices: tuple[str, ...] = ()
    offers: Literal["readonly", "readwrite", "held"] | None = None

    @property
    def option(self) -> bool:
        """Whether it is named by its own word, such as ``--json``."""
        return self.name.startswith("-")

    @property
    def flag(self) -> bool:
        """Whether it is an option without a value."""
        return self.option and not self.metavar and not self.choices

    @property
    def usage(self) -> str:
        """The argument as the usage line writes it."""
        value = "|".join(self.choices) or self.metavar
        if self.many:
            value += "…"
        if not self.option:
            return value if self.required else f"[{value}]"
        return f"[{self.name} {value}]" if value else f"[{self.name}]"


class _Reader(argparse.ArgumentParser):
    """An argparse parser that neither prints nor exits, whatever it is given."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def read(arguments: tuple[Argument, ...], words: tuple[str, ...]) -> dict[str, Any]:
    """Read the words of a call.

    Args:
        arguments: what the magic accepts.
        words: the words after its name.

    Returns:
        A value for each argument under its name, ``open_files`` for ``--open-files``: a list where
        ``many`` is set, a bool for a flag, else a string or None.

    Raises:
        UsageError: a word is unknown, missing or not among the choices.
    """
    _check_options(arguments, words)
    # Abbreviations would change their meaning the day an option is added.
    reader = _Reader(add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    for argument in arguments:
        _add(reader, argument)
    given = vars(reader.parse_args(list(words)))
    for argument in arguments:
        chosen = given[argument.name.lstrip("-").replace("-", "_")]
        if argument.choices and chosen is not None and chosen not in argument.choices:
            *some, last = argument.choices
            expected = f"{', '.join(some)} or {last}" if some else last
            hint = _hint(chosen, argument.choices)
            raise UsageError(f"expected {expected}, not {chosen!a}{hint}")
    return given


def _check_options(arguments: tuple[Argument, ...], words: tuple[str, ...]) -> None:
    """Refuse unknown options.

    Raises:
        UsageError: names the option, and the one that may have been meant.
    """
    known = [argument.name for argument in arguments if argument.option]
    end = words.index("--") if "--" in words else len(words)
    for word in words[:end]:
        name = word.partition("=")[0]
        if name.startswith("--") and name not in known and " " not in word:
            raise UsageError(f"there is no option {ascii(name)[1:-1]}{_hint(name, known)}")


def _hint(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _add(reader: _Reader, argument: Argument) -> None:
    if argument.flag:
        reader.add_argument(argument.name, action="store_true")
    elif argument.option and argument.many:
        reader.add_argument(argument.name, action="extend", nargs="+", default=[])
    elif argument.option:
        reader.add_argument(argument.name)
    elif argument.many:
        nargs = "+" if argument.required else "*"
        reader.add_argument(argument.name, nargs=nargs, metavar=argument.metavar)
    elif argument.required:
        reader.add_argument(argument.name, metavar=argument.metavar)
    else:
        reader.add_argument(argument.name, nargs="?", metavar=argument.metavar)


def count(text: str) -> int:
    """Read a positive whole number.

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not int(text):
        raise UsageError(f"{text!r} is no positive whole number")
    return int(text)
