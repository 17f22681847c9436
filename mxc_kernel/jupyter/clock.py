"""A cell's clock: counts from dispatch and stands still while the user is asked something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["CellClock"]


class CellClock:
    """Calls back once when a cell has used up its time.

    Args:
        limit: seconds of running time.
        on_expiry: called at the end of them.
    """

    def __init__(self, limit: float, on_expiry: Callable[[], None]) -> None:
        self.limit = limit
        self._loop = asyncio.get_running_loop()
        self._on_expiry = on_expiry
        self._left = limit
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._expired = False
        self.resume()

    @property
    def expired(self) -> bool:
        """Whether the time was used up."""
        return self._expired

    def pause(self) -> None:
        """Stop counting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left -= self._loop.time() - self._since

    def resume(self) -> None:
        """Go on counting, if it was paused."""
        if self._timer is None and not self._expired:
            self._since = self._loop.time()
            self._timer = self._loop.call_later(max(0.0, self._left), self._expire)

    def cancel(self) -> None:
        """Count no further, and let go of what was to be called: it mostly refers back."""
        self.pause()
        self._left = float("inf")
        self._on_expiry = _nothing

    def _expire(self) -> None:
        self._timer = None
        self._expired = True
        self._on_expiry()


def _nothing() -> None:
    pass
