"""Cells on their way: the host owns the queue of code to run.

A cell is parsed, its policy magics are applied, the child is relaunched if the policy changed, and
only then is it sent; one cell is under way per shell channel or subshell. So a queued cell never
runs under an older policy, and the host alone says busy, idle and aborted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from mxc_kernel import magics
from mxc_kernel.errors import MxcKernelError, SandboxExecutionError
from mxc_kernel.jupyter.cell import Cell, Lane, Plan
from mxc_kernel.jupyter.endings import Endings
from mxc_kernel.jupyter.frontends import Frontends
from mxc_kernel.jupyter.gate import Gate
from mxc_kernel.jupyter.messages import ChildMessage, Incoming, dump, parse_object
from mxc_kernel.jupyter.requests import Request
from mxc_kernel.magics import Action, Throwaway
from mxc_kernel.mxc.enforcement import Crossing
from mxc_kernel.policy import Limits
from mxc_kernel.policy import Request as PolicyRequest
from mxc_kernel.session import Session
from mxc_kernel.wire import Buffer, Channel

__all__ = ["Cells"]

log = logging.getLogger(__name__)

# An interrupt that hits ipykernel's own code just before a cell's first line makes it go idle
# without a reply. The reply is sent before the idle, so this is time enough for it to arrive.
_REPLY_GRACE = 2.0  # seconds


class Cells:
    """Runs the cells of all lanes.

    Args:
        session: gives each cell a child under the right policy.
        frontends: where statuses, replies and notes go.
        gate: what the child's output passes.
        forward: hands any other request to the child.
    """

    def __init__(
        self,
        session: Session,
        frontends: Frontends,
        gate: Gate,
        forward: Callable[[Request], None],
    ) -> None:
        self._session = session
        self._frontends = frontends
        self._gate = gate
        self._forward = forward
        self._lanes: dict[tuple[Channel, str | None], Lane] = {}
        self._running: dict[Request, Cell] = {}
        self._asking: Request | None = None
        self._quiet = asyncio.Event()  # no cell is at the child
        self._quiet.set()
        self._preparing = asyncio.Lock()  # one policy decision, relaunch and dispatch at a time
        self._endings = Endings(session, frontends, gate, self._ended)
        gate.stop_with(self._stop_for_output)
        session.on_crossing = self._stop_for_limit

    # --- what comes in --------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Queue an execute request."""
        lane = self._lane(request)
        cell = Cell(request)
        lane.waiting.append(cell)
        self._gate.replies.has_seen(cell.code)
        request.parts[3] = b""  # the cell holds the content
        if lane.task is None:
            lane.task = asyncio.get_running_loop().create_task(self._run(lane))

    def pass_in_order(self, request: Request) -> None:
        """Forward a request of any other type, behind the cells that came before it."""
        lane = self._lanes.get((request.channel, request.subshell))
        if lane is not None and lane.holding and not lane.lets_pass(request):
            lane.waiting.append(request)
        else:
            self._forward(request)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the running cell; one that is being prepared is not run."""
        for lane in self._lanes.values():
            cell = lane.current
            if cell is not None and not cell.begun:
                cell.interrupted = True
                if cell.preparation is not None:
                    cell.preparation.cancel()
        for cell in self._running.values():
            if cell.asking and cell.clock is not None:
                cell.clock.resume()
            cell.asking = False  # the interrupt ends its wait, and it may ask again
        if any(cell.interrupted for cell in self._running.values()):
            self._session.wake()  # a child that stands still never begins the cell
        else:
            self._session.interrupt()

    def input_answered(self, message: Incoming) -> None:
        """Hand the user's input to the child, if it asked for any."""
        if self._asking is None:
            return
        cell = self._running.get(self._asking)
        self._no_question_open()
        if cell is not None and cell.clock is not None:
            cell.clock.resume()
        if cell is not None:
            cell.inputs += 1
        self._session.send(Channel.STDIN, message.parts)

    def _no_question_open(self) -> None:
        self._asking = None
        for cell in self._running.values():
            cell.asking = False

    # --- what the child says --------------------------------------------------------------------

    def progress(self, request: Request, msg_type: str, content: dict[str, Any]) -> bool:
        """Take a status or input announcement of a cell; false if the request is no cell's."""
        cell = self._running.get(request)
        if cell is None:
            return request.msg_type == "execute_request"
        if msg_type == "execute_input":
            cell.begun = True
            if cell.interrupted:
                cell.interrupted = False
                self._session.interrupt()
        elif content.get("execution_state") == "idle":
            cell.idle = True
            self._endings.conclude_if_done(cell)
            if cell.reply is None and cell.reply_timer is None:
                loop = asyncio.get_running_loop()
                cell.reply_timer = loop.call_later(_REPLY_GRACE, self._endings.answer_missing, cell)
        return True

    def replied(self, request: Request, message: ChildMessage) -> bool:
        """Take the reply of a cell; false if the request is no cell's."""
        cell = self._running.get(request)
        if cell is None:
            return request.msg_type == "execute_request"
        if cell.reply is None:
            cell.reply = message
            self._endings.conclude_if_done(cell)
        return True

    def input_wanted(self, request: Request, content: dict[str, Any]) -> bool:
        """Ask the user who sent a cell for input; false where the child may not ask."""
        cell = self._running.get(request)
        if cell is None or not cell.allows_input or cell.asking:
            return False  # one question at a time, or a flood of them would bury the frontend
        question = self._gate.question(request, content)
        if question is None:
            return False
        if cell.clock is not None:
            cell.clock.pause()
        self._asking, cell.asking = request, True
        self._frontends.ask(request, "input_request", question)
        return True

    def debug_event(self, content: dict[str, Any]) -> None:
        """Stop the clocks while the debugger holds the code at a breakpoint."""
        for cell in self._running.values():
            if cell.clock is None:
                continue
            if content.get("event") == "stopped":
                cell.clock.pause()
            elif content.get("event") in ("continued", "terminated"):
                cell.clock.resume()

    def _stop_for_output(self, request: Request) -> None:
        cell = self._running.get(request)
        if cell is not None:
            self._endings.stop_for_output(cell)

    def _stop_for_limit(self, crossing: Crossing, cells: Sequence[object]) -> None:
        for cell in list(self._running.values()):
            if cell in cells:
                self._endings.stop_for_limit(cell, crossing)

    def child_died(self, request: Request, error: MxcKernelError) -> bool:
        """Answer a cell whose child is gone; false if the request is no cell's.

        A cell that was not sent yet is left alone: it gets the next child.
        """
        cell = self._running.get(request)
        if cell is None or cell.in_throwaway:
            return request.msg_type == "execute_request"
        self._endings.fail(cell, error)
        return True

    def throwaway_died(self, error: MxcKernelError) -> None:
        """Answer the cell whose throwaway child is gone."""
        for cell in list(self._running.values()):
            if cell.in_throwaway:
                self._endings.fail(cell, error)

    # --- one cell after the other ---------------------------------------------------------------

    def _lane(self, request: Request) -> Lane:
        return self._lanes.setdefault((request.channel, request.subshell), Lane())

    async def _run(self, lane: Lane) -> None:
        while lane.waiting:
            item = lane.waiting.popleft()
            if isinstance(item, Request):
                self._forward(item)
                continue
            lane.current = item
            try:
                await self._execute(item)
            except Exception as error:
                # No descriptor left, or a bug of ours: an answer, and the lane goes on.
                log.exception("the host failed on a cell")
                self._answer_failure(item, error)
            finally:
                lane.current = None
        lane.task = None

    def _answer_failure(self, cell: Cell, error: Exception) -> None:
        if not cell.ended.is_set():
            wrapped = SandboxExecutionError(
                f"the kernel itself failed on this cell: {error}",
                remedy="Run the cell again; if that does not help, restart the kernel.",
            )
            self._endings.fail(cell, wrapped)

    async def _execute(self, cell: Cell) -> None:
        self._frontends.busy(cell.request)
        cell.count = self._endings.next_count
        if not cell.silent:
            self._frontends.publish(
                "execute_input",
                {"code": cell.code, "execution_count": cell.count},
                cell.request,
            )
        async with self._preparing:
            plan = await self._prepared(cell)
            if plan is None:
                return
            if plan.throwaway is not None:
                await self._run_in_throwaway(cell, plan, plan.throwaway)
                return
            self._dispatch(cell, plan, self._session.effective.limits, self._session.send)
            if plan.afterwards is not None:
                await self._end_grant(cell, plan.afterwards)
                return
        await cell.ended.wait()

    async def _prepared(self, cell: Cell) -> Plan | None:
        """Prepare a cell; where that fails or is interrupted, answer it and return None."""
        cell.preparation = asyncio.get_running_loop().create_task(self._prepare(cell))
        try:
            return await cell.preparation
        except Exception as error:  # noqa: BLE001 - logged there
            self._endings.fail(cell, _for_the_user(error))
        except asyncio.CancelledError:
            if not cell.interrupted:
                raise
            self._interrupted(cell)
        finally:
            cell.preparation = None
        return None

    def _interrupted(self, cell: Cell) -> None:
        self._endings.fail_with(cell, "KeyboardInterrupt", "interrupted before it was run", [])

    async def _prepare(self, cell: Cell) -> Plan:
        """Apply the cell's policy magics and get a child for it."""
        session = self._session
        session.refresh()
        parsed = magics.parse(cell.code)
        outcome = magics.Outcome(session.request, ())
        if parsed.calls:
            outcome = magics.apply(parsed, session.magic_context())
        wanted = outcome.this_cell or outcome.request
        renew, restore = Action.RESTART in outcome.actions, Action.RESTORE in outcome.actions
        if renew or restore or session.must_relaunch(wanted):
            # Other lanes' cells may not lose their child under their feet.
            await self._quiet.wait()
        views = [
            *outcome.views,
            *await session.prepare(wanted, renew=renew, restore=restore, strict=outcome.strict),
        ]
        if Action.CHECKPOINT in outcome.actions:
            views += await session.checkpoint()
        if not cell.silent:
            for view in views:
                self._gate.note(cell.request, view)
        return Plan(
            tuple(parsed.handled),
            outcome.request if outcome.this_cell is not None else None,
            outcome.throwaway,
        )

    def _dispatch(
        self,
        cell: Cell,
        plan: Plan,
        limits: Limits,
        send: Callable[[Channel, Sequence[Buffer]], bool],
    ) -> None:
        request = cell.request
        try:
            # On the disk before the code is on its way, or there is no way.
            cell.audited = self._session.journal.begin(
                cell.source, self._session.under(plan.throwaway)
            )
        except MxcKernelError as error:
            self._endings.fail(cell, error)
            return
        header, parent, raw_metadata, _, *buffers = request.parts
        request.parts = []
        metadata = parse_object(raw_metadata)
        metadata["mxc"] = {
            "execution_count": cell.count,
            "handled": plan.handled,
        }
        # Aborting the queue is the host's: the child never has more than one cell of a lane.
        content = {**cell.content, "stop_on_error": False}
        self._running[request] = cell
        self._quiet.clear()
        cell.sent = True
        cell.held = plan.throwaway is not None or plan.afterwards is not None
        cell.in_throwaway = plan.throwaway is not None
        self._gate.begin_cell(request, limits, cell.count)  # its own magics may have set them
        if limits.cell_timeout is not None:
            self._endings.start_clock(cell, limits.cell_timeout)
        self._session.cell_started(cell, throwaway=plan.throwaway is not None)
        parts = [header, parent, dump(metadata), dump(content)]
        if not send(request.channel, [*parts, *buffers]):
            self._endings.fail(cell, self._session.gone())

    async def _end_grant(self, cell: Cell, request: PolicyRequest) -> None:
        """Wait for a cell with a grant of its own, and take the grant back before it is answered.

        Nothing cancels this: an interrupt ends the cell, and the grant has to go in any case.
        """
        await cell.settled.wait()
        try:
            views = await self._session.prepare(request)
        except Exception as error:  # noqa: BLE001 - logged there; whatever it is, the grant goes
            views = self._session.drop(request, _for_the_user(error))
        if not cell.ended.is_set():
            if not cell.silent:
                for view in views:
                    self._gate.note(cell.request, view)
            self._endings.conclude(cell)

    async def _run_in_throwaway(self, cell: Cell, plan: Plan, throwaway: Throwaway) -> None:
        """Run a cell in a child of its own, beside the session's."""
        session = self._session
        try:
            async with session.throwaway(throwaway) as child:
                if cell.interrupted:
                    self._endings.fail_with(
                        cell, "KeyboardInterrupt", "interrupted before it was run", []
                    )
                    return

                def send(channel: Channel, parts: Sequence[Buffer]) -> bool:
                    child.send(channel, parts)
                    return not child.closed

                self._dispatch(cell, plan, session.policy_for(throwaway.request).limits, send)
                await cell.settled.wait()
                if not cell.ended.is_set() and not self._failed(cell):
                    await session.bring_out(child, throwaway)
                # The user need not wait for the end of the sandbox, which takes 0.1 s.
                if not cell.ended.is_set():
                    self._endings.conclude(cell)
        except Exception as error:  # noqa: BLE001 - logged there
            if not cell.ended.is_set():
                self._endings.fail(cell, _for_the_user(error))

    # --- the end of a cell ----------------------------------------------------------------------

    def _ended(self, cell: Cell) -> None:
        if self._asking is cell.request:
            self._asking = None
        self._running.pop(cell.request, None)
        self._session.cell_ended(cell)
        if not self._running:
            self._quiet.set()
        self._gate.idle(cell.request)
        if self._failed(cell) and cell.stops_on_error:
            # Now, not when the lane goes on: the frontend has its answer and may send the next.
            self._abort(self._lane(cell.request))
        cell.ended.set()
        cell.settled.set()

    @staticmethod
    def _failed(cell: Cell) -> bool:
        return cell.reply is not None and cell.reply.content.get("status") == "error"

    def _abort(self, lane: Lane) -> None:
        """Answer the cells that wait behind a failed one, as ipykernel does."""
        waiting, lane.waiting = lane.waiting, deque()
        for item in waiting:
            if isinstance(item, Request):
                lane.waiting.append(item)
                continue
            self._session.journal.refused(item.source, "Aborted")
            self._frontends.busy(item.request)
            self._frontends.answer(item.request, {"status": "aborted"})
            self._gate.idle(item.request)


def _for_the_user(error: Exception) -> MxcKernelError:
    """Return what a cell is answered with: a bug of ours must end in an answer, not in a hang.

    A sandbox that changes files while the host looks at them can provoke errors nobody thought of.
    """
    if isinstance(error, MxcKernelError):
        return error
    log.error("the host failed on a cell", exc_info=error)
    return SandboxExecutionError(
        f"the kernel failed while it prepared the cell or took a grant back: {error!r}",
        remedy="Run the cell again; if that does not help, restart the kernel and report this.",
    )
