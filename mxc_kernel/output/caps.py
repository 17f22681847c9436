"""Byte and message budgets with the head and the tail kept.

For a live stream "head and tail" means: text is shown as it comes until the head is used up, from
there on it is only counted and the last few KiB are kept, and at the end of the cell one notice
with the true totals and that tail are shown. The last lines of a long output are the ones that
matter (an error, a summary), and memory stays flat however much is printed.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

__all__ = [
    "Budget",
    "Ending",
    "MessageBudget",
    "Totals",
    "byte_length",
    "readable_size",
    "shortened",
]

_TAIL = 64 << 10  # bytes; about 800 lines, enough for a traceback and the lines that led to it
_TAIL_SHARE = 4  # the tail takes at most this fraction of a small budget
_TAIL_PIECES = 200  # runs of one stream in the tail; each is an output of its own in a frontend
_LINE = 1 << 10  # bytes of head given up at most in order to cut at a line's end
# The characters that tokens, keys and Base64 are made of. The kept tail starts behind a run of
# them: redaction sees the tail without what came before, and would not know the rest of a cut
# token.
_TOKEN = re.compile(r"[\w+/=.~%-]*")
_KEY_END = re.compile(r"-----END [A-Z ]{0,32}PRIVATE KEY(?: BLOCK)?-----")
_PIECE = (
    1 << 10
)  # bytes; smaller writes are joined, so that single characters do not cost 100 bytes each


def byte_length(text: str) -> int:
    """Return the number of UTF-8 bytes of a text; lone surrogates count three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def readable_size(count: int) -> str:
    """Return a byte count for people: ``"1.5 MiB"``.

    Args:
        count: bytes.
    """
    if count < 1024:
        return f"{count} B"
    unit = min(4, (count.bit_length() - 1) // 10)
    return f"{count / (1 << 10 * unit):.1f} {('KiB', 'MiB', 'GiB', 'TiB')[unit - 1]}"


@dataclass(frozen=True, slots=True)
class Totals:
    """What a cell printed, and how much of it is seen.

    Attributes:
        printed: UTF-8 bytes the cell printed.
        lines: line ends the cell printed.
        shown: UTF-8 bytes that are shown, head and tail together.
        writes: calls of ``take``.
    """

    printed: int
    lines: int
    shown: int
    writes: int

    @property
    def hidden(self) -> int:
        """UTF-8 bytes that nobody sees."""
        return self.printed - self.shown


@dataclass(frozen=True, slots=True)
class Ending:
    """What is left to show when the cell is over.

    Attributes:
        notice: the truncation notice, a line of its own; empty if nothing was lost.
        tail: ``(stream, text)`` in the order printed.
        totals: the true totals, for metadata and the audit.
    """

    notice: str
    tail: tuple[tuple[str, str], ...]
    totals: Totals

    @property
    def text(self) -> str:
        """Notice and tail as one text."""
        return self.notice + "".join(text for _, text in self.tail)


class Budget:
    """The text of one cell: head shown live, the rest counted, the tail shown at the end.

    Args:
        limit: UTF-8 bytes shown at most, head and tail together; ``None`` shows all.
        tail: bytes of the limit kept for the tail; by default 64 KiB or a quarter of a small limit.
    """

    def __init__(self, limit: int | None, tail: int | None = None) -> None:
        if tail is None:
            tail = _TAIL if limit is None else min(_TAIL, limit // _TAIL_SHARE)
        self._room = limit if limit is None else max(0, limit - tail)
        self._keep = tail
        self._ring: deque[tuple[str, str, int]] = deque()
        self._kept = self._lost = 0
        self._shown = self._writes = 0
        self._hidden_lines = self._shown_lines = 0
        self._line_open = True  # an output that begins with one long line shows its beginning
        self.cut = False
        """Whether the head is used up: from here on ``take`` returns nothing."""

    def take(self, text: str, stream: str = "stdout") -> str:
        """Count a text and return the part of it to show now.

        Args:
            text: what the cell printed.
            stream: where; the tail remembers it.
        """
        self._writes += 1
        size = byte_length(text)
        if not self.cut:
            if self._room is None or size <= self._room:
                self._show(text, size)
                return text
            head = _head(text, self._room, self._line_open)
            self._show(head, byte_length(head))
            self.cut = True
            self._keep += self._room  # what the line's end cost the head
            self._store(text[len(head) :], stream)
            return head
        self._store(text, stream)
        return ""

    def stop(self, *, tail: bool) -> None:
        """Show nothing more from now on.

        Args:
            tail: whether the last of what comes is still kept for the end.
        """
        self.cut = True
        if not tail:
            self.stop_keeping()

    def stop_keeping(self) -> None:
        """Keep no tail from now on: nobody will ask for it."""
        self._lost += self._kept
        self._keep = self._kept = 0
        self._ring.clear()

    @property
    def over(self) -> bool:
        """Whether something is lost already, or will be at the end."""
        return self._lost > 0 or self._kept > self._keep

    def finish(self) -> Ending | None:
        """Return the notice and the tail, or ``None`` if all has been shown."""
        if not self._kept and not self._lost:
            return None
        pieces = _joined(self._ring)
        if self._lost or self._kept > self._keep or len(pieces) > _TAIL_PIECES:
            pieces = _trimmed(pieces[-_TAIL_PIECES:], self._keep)
        shown = sum(byte_length(text) for _, text in pieces)
        self._lost += self._kept - shown
        self._shown += shown
        self._kept = 0
        self._ring.clear()
        totals = self.totals
        return Ending(_notice(totals) if self._lost else "", tuple(pieces), totals)

    @property
    def totals(self) -> Totals:
        """The totals up to now."""
        printed = self._shown + self._kept + self._lost
        return Totals(printed, self._shown_lines + self._hidden_lines, self._shown, self._writes)

    def _show(self, text: str, size: int) -> None:
        if self._room is not None:
            self._room -= size
        self._shown += size
        self._shown_lines += text.count("\n")
        if text:
            self._line_open = text[-1] != "\n"

    def _store(self, text: str, stream: str) -> None:
        """Count a text that is not shown and keep it if it may be part of the tail.

        Whole pieces are dropped, so the ring holds up to twice the tail; ``finish`` cuts exactly.
        Cutting on each write would copy the oldest piece again and again.
        """
        self._hidden_lines += text.count("\n")
        size = byte_length(text)
        if not self._keep:
            self._lost += size
            return
        if size > self._keep:
            kept = _last(text, self._keep)
            self._lost += self._kept + size - (size := byte_length(kept))
            self._kept = 0
            self._ring.clear()
            text = kept
        elif self._ring and self._ring[-1][0] == stream and self._ring[-1][2] < _PIECE:
            _, before, before_size = self._ring.pop()
            self._kept -= before_size
            text, size = before + text, before_size + size
        self._ring.append((stream, text, size))
        self._kept += size
        while self._kept - self._ring[0][2] >= self._keep > 0:
            self._kept -= self._ring[0][2]
            self._lost += self._ring.popleft()[2]


@dataclass(slots=True)
class MessageBudget:
    """How many messages, and how many bytes of them, a cell may send; one size limit for each.

    Args:
        messages: number of messages; ``None`` is no limit.
        size: bytes of all messages together; ``None`` is no limit.
        single: bytes of one message; ``None`` is no limit.
    """

    messages: int | None = None
    size: int | None = None
    single: int | None = None
    seen: int = 0
    seen_bytes: int = 0
    refused: int = 0
    refused_bytes: int = 0

    def admit(self, size: int, *, counts: bool = True) -> bool:
        """Count a message and say whether it may pass.

        Args:
            size: its bytes.
            counts: whether it is a new output, not one that changes what is there.

        A message that is too large for what is left is refused alone; a smaller one after it
        passes, so that one huge picture does not silence the cell.
        """
        passed, passed_bytes = self.seen - self.refused, self.seen_bytes - self.refused_bytes
        ok = (
            (self.single is None or size <= self.single)
            and (self.messages is None or passed + counts <= self.messages)
            and (self.size is None or passed_bytes + size <= self.size)
        )
        if not ok:
            self.refuse(size)
            return False
        self.seen += counts
        self.seen_bytes += size
        return True

    @property
    def full(self) -> bool:
        """Whether no new output may come."""
        return self.messages is not None and self.seen - self.refused >= self.messages

    def refuse(self, size: int) -> None:
        """Count a message that may not pass."""
        self.seen += 1
        self.seen_bytes += size
        self.refused += 1
        self.refused_bytes += size

    def notice(self) -> str | None:
        """Return one line about what was refused, or ``None``."""
        if not self.refused:
            return None
        return (
            f"[{_count(self.refused, 'output')} of {readable_size(self.refused_bytes)} not shown "
            f"and not kept: over the cell's limit; {_count(self.seen, 'output')} of "
            f"{readable_size(self.seen_bytes)} in all]\n"
        )


def shortened(text: str, size: int) -> str:
    """Return a text with its middle cut out, if it is over a size.

    Args:
        text: redacted already, for the cut could go through a secret.
        size: bytes of it that are left at most.
    """
    total = byte_length(text)
    if total <= size:
        return text
    half = size // 2
    return (
        f"{_first(text, half)}\n[cut here: {readable_size(total - 2 * half)} are not shown]\n"
        f"{_last(text, half)}"
    )


def _head(text: str, room: int, line_open: bool) -> str:
    """Return the start of a text in at most ``room`` bytes, up to a line's end if one is near."""
    head = _first(text, room)
    line_end = head.rfind("\n") + 1
    # A line that began in an earlier write is half shown already.
    near = len(head) - line_end <= _LINE and (line_end or not line_open)
    return head[:line_end] if near else head


def _first(text: str, size: int) -> str:
    if text.isascii():
        return text[:size]
    # A character is at most 4 bytes: slicing first keeps the cost in proportion to the budget.
    start = text[:size].encode("utf-8", "surrogatepass")[:size]
    return start.decode("utf-8", "ignore")


def _last(text: str, size: int) -> str:
    if not size:
        return ""
    if text.isascii():
        return text[-size:]
    end = text[-size:].encode("utf-8", "surrogatepass")[-size:]
    return end.decode("utf-8", "ignore")


def _joined(ring: deque[tuple[str, str, int]]) -> list[tuple[str, str]]:
    """Join neighbouring pieces of the same stream."""
    pieces: list[tuple[str, list[str]]] = []
    for stream, text, _ in ring:
        if pieces and pieces[-1][0] == stream:
            pieces[-1][1].append(text)
        else:
            pieces.append((stream, [text]))
    return [(stream, "".join(texts)) for stream, texts in pieces]


def _trimmed(pieces: list[tuple[str, str]], keep: int) -> list[tuple[str, str]]:
    """Cut the tail to its size and let it start where redaction can judge it.

    It starts at a line if there is one, else behind the token that the cut may have split: the rest
    of a split key has no anchor by which a rule could know it. A private key block whose first line
    is gone is dropped up to its end for the same reason.
    """
    result: list[tuple[str, str]] = []
    for stream, text in reversed(pieces):
        last = _last(text, keep)
        keep -= byte_length(last)
        result.append((stream, last))
        if not keep:
            break
    result.reverse()
    starts: dict[str, bool] = {}
    cleaned = []
    for stream, text in result:
        # Each stream has been cut on its own: the first piece of each may start inside a token.
        start = 0 if starts.get(stream) else _safe_start(text)
        starts[stream] = starts.get(stream, False) or start < len(text) or text[-1:] == "\n"
        if start < len(text):
            cleaned.append((stream, text[start:]))
    return cleaned


def _safe_start(text: str) -> int:
    line = text.find("\n") + 1
    token = _TOKEN.match(text)
    start = line or (token.end() if token else 0)
    ends = [match.end() for match in _KEY_END.finditer(text)]
    if ends and text.find("-----BEGIN", 0, ends[0]) < 0:
        start = max(start, ends[0])
    return start


def _notice(totals: Totals) -> str:
    return (
        f"\n[output cut here: the cell printed {readable_size(totals.printed)} in "
        f"{_count(totals.lines, 'line')}; {readable_size(totals.hidden)} of it are not shown and "
        "not kept, the end follows]\n"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
