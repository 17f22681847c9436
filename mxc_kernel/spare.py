"""A child kept ready for the policy in force, where the operator wants one.

It serves a restart, a start after a death and a throwaway cell without grants of its own. Never a
change of policy: what a child is allowed is fixed when it is launched.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from mxc_kernel.errors import MxcKernelError

if TYPE_CHECKING:
    from mxc_kernel.child import Child
    from mxc_kernel.policy import Policy
    from mxc_kernel.starter import Launched

__all__ = ["Spare"]

_DELAY = 1.0  # seconds after a cell was prepared, so that no cell waits for a spare to start


class Spare:
    """At most one child that nobody uses yet.

    Args:
        start: launches a child for the policy in force and waits for its handshake.
        policy: tells the policy in force.
    """

    def __init__(
        self, start: Callable[[], Awaitable[Launched]], policy: Callable[[], Policy]
    ) -> None:
        self._start = start
        self._policy = policy
        self._ready: Launched | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def child(self) -> Child | None:
        """The child that stands ready, if any: one whose ipykernel has started."""
        return self._ready.child if self._ready is not None and self._ready.child.alive else None

    def wanted(self) -> None:
        """Have one in a while, for the policy that is in force by then."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._prepare())

    def take(self, policy: Policy) -> Launched | None:
        """Hand over the child if it stands ready for a policy; one that does not fit is ended."""
        launched, self._ready = self._ready, None
        if launched is not None and not launched.fits(policy):
            launched.child.close()
            return None
        return launched

    def close(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
        if self._ready is not None:
            self._ready.child.close()
            self._ready = None

    async def _prepare(self) -> None:
        try:
            await asyncio.sleep(_DELAY)
            # What goes wrong here is met again, and then told, when a child is needed.
            with contextlib.suppress(MxcKernelError):
                if self._ready is not None and not self._ready.fits(self._policy()):
                    self._ready.child.close()
                    self._ready = None
                if self._ready is None:
                    self._ready = await self._start()
        finally:
            self._task = None
