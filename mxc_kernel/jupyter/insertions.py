"""Text of the child that ends up in a user's cell: completions, indents, history, loaded code.

A policy magic counts because a person (or an agent, under the same ceiling) has put it at the top
of a cell. What code in the sandbox offers for a cell may therefore not be one, nor make one of what
stands there; and it may hold no character that hides or reorders what a reader sees.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mxc_kernel import magics
from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.magics.table import MAGICS

__all__ = ["asks_to_load", "completion", "indent", "inert", "is_inert", "spelled_out"]

_MATCHES = 5000
_MATCH = 1000  # characters
_WORD = 60  # characters of a completion's type
_INDENT = re.compile(r"[ \t]{0,200}")
_MAGIC_NAME = re.compile(r"%{1,2}[A-Za-z_]\w*", re.ASCII)
_MAGIC_LINE = re.compile(rf"[ \t]*%+\s*(?:{'|'.join(MAGICS)})\b")
_LOAD = re.compile(r"\s*%load(?:py)?[ \t][^\n]*\s*")
# Controls, direction marks and overrides, line separators that only some programs know, lone
# surrogates, and the tag characters that spell out an invisible text to a language model.
_HIDING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)

Drop = Callable[[str], None]


def spelled_out(text: str) -> str:
    r"""Return code whose hiding characters are written as Python's escapes, such as ``\u202e``.

    Inside a string they mean the same, and outside one Python refuses them anyway.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "").replace("\v", "")
    return _HIDING.sub(lambda found: ascii(found[0])[1:-1], text)


def is_inert(text: str) -> bool:
    """Whether a cell with this text would hold no policy magic."""
    if "%" not in text:
        return True
    try:
        return not magics.parse(text).calls
    except SandboxPolicyError:
        return False


def inert(text: str) -> str:
    """Return the text of a cell with the policy magics at its top commented out."""
    if is_inert(text):
        return text
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.strip().startswith("%"):
            if not is_inert(line) or _MAGIC_LINE.match(line):
                lines[number] = f"# {line}"
                continue
            break
        if line.strip() and not line.lstrip().startswith("#"):
            break
    changed = "\n".join(lines)
    # What is a mistake to the parser in another way than looked for here is code to nobody.
    return changed if is_inert(changed) else "\n".join(f"# {line}" for line in text.split("\n"))


def asks_to_load(code: object) -> bool:
    """Whether a cell is nothing but ``%load``: its user wants what is loaded in its place."""
    return isinstance(code, str) and _LOAD.fullmatch(code) is not None


def indent(text: str) -> str:
    """Return the indent for a next line; empty if it is anything but blanks."""
    return text if _INDENT.fullmatch(text) else ""


def completion(content: Mapping[str, Any], asked: Mapping[str, Any], drop: Drop) -> dict[str, Any]:
    """Return what may be offered of a child's completions.

    Args:
        content: ``matches``, ``cursor_start``, ``cursor_end``, ``metadata``.
        asked: the request's content, with ``code`` and ``cursor_pos``.
        drop: called with the reason for each match that may not.
    """
    code, cursor = asked.get("code"), asked.get("cursor_pos")
    start, end = content["cursor_start"], content["cursor_end"]
    nothing: dict[str, Any] = {"matches": [], "metadata": {}}
    if not isinstance(code, str) or not isinstance(cursor, int) or not 0 <= cursor <= len(code):
        return {**nothing, "cursor_start": start, "cursor_end": start}
    if not start <= cursor <= end <= len(code) or "\n" in code[start:end]:
        # It would change other text than the word at the cursor.
        drop("complete_reply: a range away from the cursor")
        return {**nothing, "cursor_start": cursor, "cursor_end": cursor}
    offer = _Offer(code, start, end)
    matches = []
    for match in content["matches"][:_MATCHES]:
        if offer.may_be(match):
            matches.append(match)
        else:
            drop("complete_reply: a match that may not stand in a cell")
    return {
        "matches": matches,
        "cursor_start": start,
        "cursor_end": end,
        "metadata": _kinds(content["metadata"], offer, start, end),
    }


class _Offer:
    """Judges the matches for one place in a cell."""

    def __init__(self, code: str, start: int, end: int) -> None:
        self._before, self._after = code[:start], code[end:]
        self._replaced = code[start:end]
        self._line = self._before[self._before.rfind("\n") + 1 :]
        self._has_magics = "%" in code
        self._calls = _calls(code)

    def may_be(self, match: str) -> bool:
        """Whether a match may stand there."""
        if len(match) > _MATCH or not match.isprintable():
            return False
        if not self._has_magics and "%" not in match:
            return True
        if _MAGIC_NAME.fullmatch(match) and self._is_begun(match):
            return True
        if _MAGIC_LINE.match(self._line + match):
            return False
        calls = _calls(self._before + match + self._after)
        return calls == self._calls

    def _is_begun(self, magic: str) -> bool:
        """Whether someone is writing the name of a magic, with its percent sign or without."""
        typed = self._replaced
        if typed.startswith("%"):
            return True
        rest = self._after.partition("\n")[0]
        return bool(typed) and magic.lstrip("%").startswith(typed) and not rest.strip()


def _calls(code: str) -> object:
    """Return what the host would do for a cell; None if it would refuse it."""
    try:
        return magics.parse(code).handled
    except SandboxPolicyError:
        return None


def _kinds(metadata: Mapping[str, Any], offer: _Offer, start: int, end: int) -> dict[str, Any]:
    """Return what JupyterLab shows beside the matches, and puts in instead of them."""
    given = metadata.get("_jupyter_types_experimental")
    if not isinstance(given, list):
        return {}
    kinds = []
    for item in given[:_MATCHES]:
        if not isinstance(item, dict):
            continue
        text, kind, signature = (item.get(key) for key in ("text", "type", "signature"))
        if not isinstance(text, str) or (item.get("start"), item.get("end")) != (start, end):
            continue
        if offer.may_be(text):
            kinds.append(
                {
                    "start": start,
                    "end": end,
                    "text": text,
                    "type": _printable(kind, _WORD),
                    "signature": _printable(signature, _MATCH),
                }
            )
    return {"_jupyter_types_experimental": kinds}


def _printable(value: object, length: int) -> str:
    return value if isinstance(value, str) and value.isprintable() and len(value) <= length else ""
