"""Terminal escapes in text: what a frontend needs is kept, everything else goes.

Kept are colours (``CSI … m``), erase-in-line (``CSI … K``) and cursor-up (``CSI … A``), which
nested progress bars draw with, and the characters tab, line feed, carriage return and backspace.
Dropped are OSC (8: links, 52: clipboard, 0-2: titles), DCS, APC, PM and SOS strings with their
content, every other control sequence, C0 and C1 controls: in a terminal frontend they retitle
windows, write to the clipboard, answer back into the input or overwrite lines that are not the
cell's.

Splitting happens before redaction looks at the text. Were a sequence dropped afterwards, the halves
of a key on both of its sides would join again in what the user sees.
"""

from __future__ import annotations

import re

__all__ = ["INVISIBLE", "KEPT", "SPECIAL", "Splitter", "clean", "partial", "visible_bidi"]

_KEPT_FINALS = "mKA"
_PARTIAL = 64  # characters of an unfinished sequence that are waited for

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_ZERO_WIDTH = f"\u00ad\u034f\u180e\u200b-\u200d\u2060-\u2064\ufe00-\ufe0f\ufeff{_BIDI}"

INVISIBLE = "".join(
    chr(code)
    for code in (
        *(0x00AD, 0x034F, 0x061C, 0x180E, 0xFEFF),
        *range(0x200B, 0x2010),
        *range(0x202A, 0x202F),
        *range(0x2060, 0x206A),
        *range(0xFE00, 0xFE10),
    )
)
"""Characters without width: they stay in the output, but matching looks past them."""

_CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"]
SPECIAL = (*_CONTROLS, *INVISIBLE)
"""Every character that makes a text need splitting; text without them passes untouched."""

_TOKEN = re.compile(
    rf"""
      (?P<csi> (?:\x1b\[|\x9b) [0-?]* [ -/]* [@-~] )
    | (?P<string> (?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])
        [^\x07\x18\x1a\x1b\x9c\n]* (?P<end> \x07|\x1b\\|\x9c|[\x18\x1a\n\x1b] )? )
    | (?P<partial> (?: \x1b | (?:\x1b\[|\x9b) [0-?]* [ -/]* | \x1b[ -/]+ ) \Z )
    | (?P<escape> \x1b [ -/]* [0-~]? )
    | (?P<width> [\x08{_ZERO_WIDTH}] )
    | (?P<control> [\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f] )
    """,
    re.VERBOSE,
)
# Searching for one set of characters is 30 times as fast as for all these alternatives.
_FIRST = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{_ZERO_WIDTH}]")
_CUT = re.compile(r"\x1b(?:\[[0-?]*[ -/]*)?\Z")
KEPT = re.compile(rf"\x1b\[[0-9;:]*+[{_KEPT_FINALS}]")
"""The sequences that nearly all coloured text has, and that are kept as they are."""
_STRING_END = re.compile(r"\x07|\x1b\\|\x9c|[\x18\x1a\n]|\x1b(?!\Z)")


class Splitter:
    """Splits text into what is matched and shown, and extras that are shown but not matched.

    One per stream: a sequence may arrive in two writes.
    """

    def __init__(self) -> None:
        self._waiting = ""
        self._in_string = False

    @property
    def idle(self) -> bool:
        """Whether no sequence is under way, so that plain text may skip the splitter."""
        return not self._waiting and not self._in_string

    def split(self, text: str) -> tuple[str, list[tuple[int, str]]]:
        """Return the plain text and the extras as ``(offset in the plain text, extra)``.

        Args:
            text: the next piece of the stream.

        An extra is a kept sequence, a backspace or a character without width.
        """
        text, self._waiting = self._waiting + text, ""
        plain: list[str] = []
        extras: list[tuple[int, str]] = []
        position = offset = 0
        if self._in_string:
            position = self._leave_string(text)
        while found := _FIRST.search(text, position):
            start = found.start()
            match = _TOKEN.match(text, start)
            if match is None:  # pragma: no cover - each first character begins a token
                break
            if start > position:
                plain.append(text[position:start])
                offset += start - position
            position = match.end()
            kind = match.lastgroup
            token = match[0]
            if kind == "width" or (kind == "csi" and token[-1] in _KEPT_FINALS):
                extras.append((offset, token.replace("\x9b", "\x1b[")))
            elif kind == "partial":
                self._waiting = token if len(token) <= _PARTIAL else ""
            elif match["string"] is not None:
                position = self._after_string(match)
        plain.append(text[position:])
        return "".join(plain), extras

    def _after_string(self, match: re.Match[str]) -> int:
        """Return where the text goes on behind a string sequence (or its part, at the end)."""
        end = match["end"]
        if end is None or (end == "\x1b" and match.end() == len(match.string)):
            self._in_string = True
            self._waiting = end or ""
            return match.end()
        # An unfinished string must not swallow what follows: it ends at a line's end or an escape.
        return match.end() - (end in "\n\x1b")

    def _leave_string(self, text: str) -> int:
        match = _STRING_END.search(text)
        if match is None:
            self._waiting = "\x1b" if text.endswith("\x1b") else ""
            return len(text)
        self._in_string = False
        return match.end() - (match[0] in ("\n", "\x1b"))


def partial(text: str, start: int) -> bool:
    """Return whether a text ends within the control sequence that begins at an index.

    Args:
        text: the end of a write.
        start: index of its last escape character.
    """
    return len(text) - start <= _PARTIAL and _CUT.match(text, start) is not None


def clean(text: str) -> str:
    """Return a whole text with only the kept sequences.

    Args:
        text: any text; an unfinished sequence at its end is dropped.
    """
    if not _FIRST.search(text):
        return text
    plain, extras = Splitter().split(text)
    pieces: list[str] = []
    position = 0
    for offset, extra in extras:
        pieces += (plain[position:offset], extra)
        position = offset
    return "".join((*pieces, plain[position:]))


def visible_bidi(text: str) -> str:
    """Return a text whose direction controls, zero-width and control characters are spelled out.

    For the kernel's own messages: a path or host name named by a cell must read as what it is.

    Args:
        text: the words of a message; line feeds and tabs stay.
    """
    return _HIDDEN.sub(lambda match: f"<U+{ord(match[0]):04X}>", text)


_HIDDEN = re.compile(
    f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_ZERO_WIDTH}\u2028\u2029\ue000-\uf8ff\ud800-\udfff]"
)
