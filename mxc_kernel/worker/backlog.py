"""Bounds what a cell has printed and shown but the pipe has not taken yet.

ipykernel keeps any amount of it. Here a thread that goes on printing waits, and a KeyboardInterrupt
reaches it while it waits. Nothing can wait for ever by our own doing: only threads that run user
code wait, they hold no lock meanwhile, and what they wait for is one thread that waits for the host
alone.

What is counted is not exact: an interrupt may strike between any two lines. So no count is trusted
for longer than the queue has something in it, and who waits has first asked for it to be emptied.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ipykernel.iostream import IOPubThread

__all__ = ["LIMIT", "OutputThread", "Room"]

LIMIT = 256 << 10  # bytes or characters, in each of: either stream, all other messages together

# These serve the frontends' requests, which must not wait behind output.
_SERVING = frozenset({"Control", "IOPub", "Shell channel"})
# At a cell's end an interrupt would not reach it any more, and there is only one of each.
_NEVER_WAIT = (b".status", b".error")


class Room:
    """Where threads wait until there is room again."""

    def __init__(self) -> None:
        self._waiting: deque[threading.Lock] = deque()
        self._process = os.getpid()

    def wait_while(self, full: Callable[[], bool], ask: Callable[[], None]) -> None:
        """Return when ``full()`` has become false; at once in a thread that may not wait.

        Args:
            full: what to wait for; must be true for a reason that ``ask`` puts an end to.
            ask: has the queue emptied, after which :meth:`wake` is called. Every round asks: the
                count that ``full`` goes by may be a late one of what has been sent already.
        """
        if threading.current_thread().name in _SERVING or os.getpid() != self._process:
            return
        while full():
            # A lock of its own, since an interrupt at the wrong moment of a condition's wait comes
            # out as "RuntimeError: release unlocked lock".
            room = threading.Lock()
            room.acquire()
            self._waiting.append(room)
            ask()
            if full():
                room.acquire()

    def wake(self) -> None:
        """Let those who wait look again."""
        with contextlib.suppress(IndexError):
            while True:
                self._waiting.popleft().release()


class OutputThread(IOPubThread):
    """ipykernel's IOPub thread with a bounded queue.

    Attributes:
        room: where those wait that have too much in the queue.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.room = Room()
        self._queued = 0  # bytes
        self._counting = threading.Lock()
        self._messages: deque[tuple[int, Callable[[], None]]] = deque()
        super().__init__(*args, **kwargs)

    def send_multipart(self, message: Any, *args: Any, **kwargs: Any) -> None:
        """Send a message in this thread; wait if too much is on its way.

        What this thread itself sends, the text that a stream flushes, goes out at once behind the
        messages that came before. Queued like those it would escape the count, and a thread that
        waits for room in its own queue waits for ever.
        """

        def send() -> None:
            self._really_send(message, *args, **kwargs)

        if not self.thread.is_alive():  # it has ended, or this is a forked process
            send()
            return
        if threading.current_thread() is self.thread:
            self._send_waiting()
            send()
            return
        if not bytes(message[0]).endswith(_NEVER_WAIT):
            self.room.wait_while(self._full, lambda: self.schedule(self._send_waiting))
        size = sum(memoryview(part).nbytes for part in message)
        self._count(size)
        self._messages.append((size, send))
        self.schedule(self._send_waiting)

    def _send_waiting(self) -> None:
        while self._messages:
            size, send = self._messages.popleft()
            try:
                send()
            finally:
                self._count(-size)
        self._queued = 0
        self.room.wake()

    def _full(self) -> bool:
        return self._queued > LIMIT

    def _count(self, size: int) -> None:
        with self._counting:
            self._queued += size
