"""What cells use of their sandboxes, and what becomes of those that take too much.

Brings together the running cells, the sandboxes that they run in, and the thread that looks after
both (:mod:`mxc_kernel.mxc.watchdog`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mxc_kernel import notices
from mxc_kernel.crossings import limit_error
from mxc_kernel.hostfiles import open_unlinked
from mxc_kernel.mxc import processes
from mxc_kernel.mxc.quota import Quota
from mxc_kernel.mxc.watchdog import Watchdog

if TYPE_CHECKING:
    from mxc_kernel.child import Child
    from mxc_kernel.errors import MxcKernelError
    from mxc_kernel.mxc.enforcement import Crossing, Enforcement
    from mxc_kernel.policy import MountPlan
    from mxc_kernel.starter import Launched
    from mxc_kernel.views import View

__all__ = ["Consumption"]


class Consumption:
    """Counts and looks after what a session's cells use.

    Args:
        loop: where the session lives.
        on_crossing: called with a limit that was passed and the cells that are to be stopped.
        end_idle: called to end the sandbox that passed a limit while no cell ran in it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_crossing: Callable[[Crossing, Sequence[object]], None],
        end_idle: Callable[[Enforcement, MxcKernelError], None],
    ) -> None:
        self._loop = loop
        self._on_crossing = on_crossing
        self._end_idle = end_idle
        self._cells: dict[object, Enforcement] = {}  # that run
        self._quotas: dict[str, Quota] = {}
        self._watchdog = Watchdog(self._report)

    @property
    def busy(self) -> bool:
        """Whether a cell runs."""
        return bool(self._cells)

    def cell_started(self, cell: object, launched: Launched, others: Iterable[Child]) -> None:
        """Count and look after what a cell uses, right before it is sent.

        Args:
            cell: stands for it.
            launched: the sandbox that it runs in.
            others: all children that there are.
        """
        enforcement = launched.child.process.enforcement
        if enforcement is None:
            return
        enforcement.watch(self._quotas_of(launched.mounts))
        enforcement.cell_started(cell)
        self._cells[cell] = enforcement
        held = (child.process.enforcement for child in others)
        self._watchdog.watch(*(one for one in held if one is not None))

    def cell_ended(self, cell: object) -> None:
        """Look after a cell no longer."""
        enforcement = self._cells.pop(cell, None)
        if enforcement is not None:
            enforcement.cell_ended(cell)

    def left_running(self, cell: object, *, end: bool) -> list[View]:
        """Return the note on the processes that a cell leaves running, and perhaps end them."""
        enforcement = self._cells.get(cell)
        pids = enforcement.left_running() if enforcement is not None else []
        if enforcement is None or not pids:
            return []
        names = [processes.command(pid) for pid in pids]
        if end:
            enforcement.end(pids)
        return notices.left_running(names, ended=end)

    def close(self) -> None:
        """End the thread and let go of the grants."""
        self._watchdog.close()
        for quota in self._quotas.values():
            quota.close()

    def _quotas_of(self, mounts: MountPlan) -> list[Quota]:
        found = []
        for path in mounts.readwrite:
            if path not in self._quotas:
                with contextlib.suppress(OSError):
                    self._quotas[path] = Quota(path, open_unlinked)
            if path in self._quotas:
                found.append(self._quotas[path])
        return found

    def _report(self, enforcement: Enforcement, crossing: Crossing) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: so is everything else
            self._loop.call_soon_threadsafe(self._crossed, enforcement, crossing)

    def _crossed(self, enforcement: Enforcement, crossing: Crossing) -> None:
        if crossing.killed:
            return  # its end says so
        cells = [cell for cell, held in self._cells.items() if held is enforcement]
        if crossing.cell is not None:
            cells = [cell for cell in cells if cell is crossing.cell]
        elif not cells:  # nobody is there to interrupt
            self._end_idle(enforcement, limit_error(crossing, killed=True))
        if cells:
            self._on_crossing(crossing, cells)
