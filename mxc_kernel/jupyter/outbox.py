"""What is on its way to the frontends for one request: in its order, and no faster than it is read.

Three things make a message wait, and all that comes after it waits behind it. A stream may hold
back the beginning of a secret (:mod:`mxc_kernel.output.redaction`, at most 0.25 s). A cell may send
more messages than a frontend can draw; then texts are joined, and of several updates of one display
or widget only the last goes out. And ``clear_output(wait=True)`` means nothing until there is
something new to show. Neither a prompt nor the end of a cell waits for any of it.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from mxc_kernel.jupyter.messages import ChildMessage
from mxc_kernel.output.redaction import MARK, Rules, Stream
from mxc_kernel.views import View

__all__ = ["OUTPUTS", "WINDOW", "Clock", "Outbox", "Rate", "Text"]

OUTPUTS = frozenset({"display_data", "error", "execute_result", "stream"})
"""What a frontend adds to a cell's output area; a waiting ``clear_output`` clears before it."""

WINDOW = 0.04
"""Seconds in which some messages pass one by one; what is joined is late by less than one sees."""

_MOST = 1000  # messages that wait at most
_MOST_BYTES = 4 << 20  # bytes (of text: characters) that wait at most


class Clock(Protocol):
    """What of an event loop is needed to wait."""

    def time(self) -> float:
        """Return seconds on a clock that never goes back."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Any:
        """Call back after some seconds; what is returned has a ``cancel``."""


class Rate:
    """How many messages may still pass one by one, over all requests together."""

    def __init__(self) -> None:
        self._since = float("-inf")
        self._window = WINDOW
        self._left = 0

    def take(self, now: float, per_second: int) -> bool:
        """Count a message and say whether it may pass.

        Args:
            now: seconds.
            per_second: messages a second.
        """
        if now >= self.renewed:
            self._since = now
            self._window = max(WINDOW, 1 / max(1, per_second))
            self._left = max(1, int(min(per_second, 1_000_000) * WINDOW))
        self._left -= 1
        return self._left >= 0

    @property
    def renewed(self) -> float:
        """When messages may pass again."""
        return self._since + self._window


@dataclass(slots=True)
class Text:
    """A run of text of one stream.

    Attributes:
        name: ``stdout`` or ``stderr``.
        parts: what of it may be shown.
        open: whether the stream still holds some of it back.
        since: when the oldest of the parts came.
    """

    name: str
    parts: list[str] = field(default_factory=list)
    open: bool = True
    since: float = 0.0


@dataclass(slots=True)
class _Waiting:
    item: Text | ChildMessage | View
    size: int = 0
    key: tuple[str, str] | None = None


class Outbox:
    """Sends what one request prints and shows, in order.

    Args:
        rules: what to redact in the streams.
        send: takes what goes out: a run of text, a message of the child, a view of the host's.
        rate: shared by all requests.
        per_second: messages a second that pass one by one.
        clock: the event loop.
    """

    def __init__(
        self,
        rules: Rules,
        send: Callable[[Text | ChildMessage | View], None],
        rate: Rate,
        per_second: int,
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._send = send
        self._rate = rate
        self._per_second = per_second
        self._clock = clock
        self._queue: OrderedDict[int, _Waiting] = OrderedDict()
        self._numbers = itertools.count()
        self._latest: dict[tuple[str, str], int] = {}  # the update that a newer one replaces
        self._size = 0
        self._streams: dict[str, Stream] = {}
        self._open: dict[str, deque[Text]] = {}  # where what a stream holds back will stand
        self._clear: ChildMessage | None = None  # waits for something new to show
        self._timer: Any = None
        self._due = 0.0

    @property
    def masked(self) -> dict[str, int]:
        """Secrets masked in the streams so far, by name."""
        counts: dict[str, int] = {}
        for stream in self._streams.values():
            for name, number in stream.counts.items():
                counts[name] = counts.get(name, 0) + number
        return counts

    # --- in -------------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> None:
        """Take text of a stream.

        Args:
            name: ``stdout`` or ``stderr``.
            text: the next piece.
        """
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = Stream(self._rules)
            self._open[name] = deque()
        now = self._clock.time()
        self._make_place(name, stream)
        self._fill(name, stream, stream.feed(text, now))
        self._forward(now)

    def add(self, item: ChildMessage | View, size: int = 0) -> None:
        """Take a message, to be sent behind what came before it.

        Args:
            item: a message of the child's, its shape already checked, or a view of the host's.
            size: its bytes.
        """
        if isinstance(item, View):
            self._put(item, size)
        elif item.msg_type == "clear_output":
            self._clear = item
            if not item.content["wait"]:
                self._put_clear()
        else:
            if item.msg_type in OUTPUTS or _captures(item):
                self._put_clear()
            self._put_message(item, size)
        self._forward(self._clock.time())

    def _make_place(self, name: str, stream: Stream) -> None:
        """Have a run of text of this stream at the end of the queue."""
        self._put_clear()
        opened = self._open[name]
        if self._queue:
            last = next(reversed(self._queue.values())).item
            if type(last) is Text and last.name == name:
                if not last.open:
                    last.open = True
                    opened.append(last)
                return
            if opened:
                stream.mark()
        place = Text(name)
        opened.append(place)
        self._put(place)

    def _fill(self, name: str, stream: Stream, shown: str) -> None:
        """Put what a stream shows where it belongs."""
        opened = self._open[name]
        for i, part in enumerate(shown.split(MARK) if len(opened) > 1 else (shown,)):
            if i:
                opened.popleft().open = False
            if part:
                if not opened[0].parts:
                    opened[0].since = self._clock.time()
                opened[0].parts.append(part)
                self._size += len(part)
        if not stream.held:
            while opened:
                opened.popleft().open = False

    def _put(
        self, item: Text | ChildMessage | View, size: int = 0, key: tuple[str, str] | None = None
    ) -> None:
        number = next(self._numbers)
        self._queue[number] = _Waiting(item, size, key)
        self._size += size
        if key is not None:
            self._latest[key] = number

    def _put_message(self, message: ChildMessage, size: int) -> None:
        """Put a message at the end, in place of one that it makes superfluous."""
        key = _replaces(message)
        before = self._latest.get(key) if key is not None else None
        if key is None and message.msg_type.startswith("comm_"):
            # What follows may not move in front of this.
            self._latest.pop(("comm", message.content["comm_id"]), None)
        if before is not None:
            waiting = self._remove(before)
            if message.msg_type == "comm_msg" and isinstance(waiting.item, ChildMessage):
                state = {**_state(waiting.item), **_state(message)}
                message.content["data"] = {**message.content["data"], "state": state}
                size += waiting.size
        self._put(message, size, key)

    def _put_clear(self) -> None:
        """Let a waiting clear go, and forget the outputs that nobody would see before it."""
        if self._clear is None:
            return
        clear, self._clear = self._clear, None
        while self._queue:
            number = next(reversed(self._queue))
            if not _is_cleared(self._queue[number].item):
                break
            self._remove(number)
        self._put(clear)

    def _remove(self, number: int) -> _Waiting:
        waiting = self._queue.pop(number)
        self._size -= waiting.size
        if isinstance(waiting.item, Text):
            self._size -= sum(map(len, waiting.item.parts))
        if waiting.key is not None and self._latest.get(waiting.key) == number:
            del self._latest[waiting.key]
        return waiting

    # --- out ------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether something waits."""
        return bool(self._queue)

    def hurry(self) -> None:
        """Send what only waits because there is much of it."""
        self._forward(self._clock.time(), at_once=True)

    def settle(self) -> None:
        """Send everything now; what may still become a secret is masked as if its time were up."""
        now = self._clock.time()
        for name, stream in self._streams.items():
            if stream.held:
                self._fill(name, stream, stream.flush(now))
        self._forward(now, at_once=True)

    def release_clear(self) -> None:
        """Send a ``clear_output`` that still waits for something to show."""
        self._put_clear()
        self._forward(self._clock.time(), at_once=True)

    def _forward(self, now: float, *, at_once: bool = False) -> None:
        """Send from the front what may pass."""
        queue = self._queue
        if len(queue) > _MOST or self._size > _MOST_BYTES:
            at_once = True
            if self._is_held():
                self.settle()
                return
        due = None
        while queue:
            number, waiting = next(iter(queue.items()))
            item = waiting.item
            whole = not isinstance(item, Text) or not item.open
            if whole and isinstance(item, Text) and not item.parts:
                self._remove(number)
                continue
            if isinstance(item, Text) and not item.parts:
                break  # the stream decides first
            if isinstance(item, Text) and item.open and not at_once and now < item.since + WINDOW:
                # Nearly always the rest is shown after all: then it is one message, not two.
                due = item.since + WINDOW
                break
            if not at_once and not self._rate.take(now, self._per_second):
                due = self._rate.renewed
                break
            if whole:
                self._remove(number)
                self._send(item)
            elif isinstance(item, Text):
                shown, item.parts = item.parts, []
                self._size -= sum(map(len, shown))
                self._send(Text(item.name, shown))
                break
        if queue:
            self._wake(now, due)

    def _is_held(self) -> bool:
        return any(stream.held for stream in self._streams.values())

    def _wake(self, now: float, due: float | None) -> None:
        """Come back when something of what waits may go: at the time given, or by a stream's."""
        dues = [s.deadline for s in self._streams.values() if s.deadline is not None]
        due = min(dues if due is None else [*dues, due], default=now)
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        self._timer = self._clock.call_later(max(0.0, due - now), self._wakened)

    def _wakened(self) -> None:
        self._timer = None
        now = max(self._clock.time(), self._due)  # timers may be early by a rounding error
        for name, stream in self._streams.items():
            if stream.held:
                self._fill(name, stream, stream.expire(now))
        self._forward(now)


def _replaces(message: ChildMessage) -> tuple[str, str] | None:
    """Return what of a frontend a message only brings up to date; the last such counts."""
    content = message.content
    if message.msg_type == "update_display_data":
        return "display", content["transient"]["display_id"]
    if message.msg_type == "comm_msg" and not message.buffers and not _captures(message):
        data = content["data"]
        if data.get("method") == "update" and not data.get("buffer_paths") and _state(message):
            return "comm", content["comm_id"]
    return None


def _state(message: ChildMessage) -> dict[str, Any]:
    state = message.content["data"].get("state")
    return state if isinstance(state, dict) else {}


def _captures(message: ChildMessage) -> bool:
    """Whether a message tells an Output widget whose output to take: it keeps its place."""
    return message.msg_type in ("comm_msg", "comm_open") and "msg_id" in _state(message)


def _is_cleared(item: Text | ChildMessage | View) -> bool:
    """Whether a ``clear_output`` takes away what would be shown here."""
    if isinstance(item, Text):
        return not item.open
    return isinstance(item, ChildMessage) and item.msg_type in ("clear_output", "display_data")
