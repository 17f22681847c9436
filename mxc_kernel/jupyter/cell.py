"""One cell on its way, and the order that it is in."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from mxc_kernel.audit.facts import Begun, Source
from mxc_kernel.errors import MxcKernelError
from mxc_kernel.jupyter.clock import CellClock
from mxc_kernel.jupyter.messages import ChildMessage, parse_object
from mxc_kernel.jupyter.requests import Request
from mxc_kernel.magics import Throwaway
from mxc_kernel.policy import Request as PolicyRequest

__all__ = ["Cell", "Lane", "Plan"]


class Cell:
    """An execute request on its way.

    Attributes:
        request: the frontend's message.
        content: its parsed content.
        preparation: applying its magics and getting a child for it, while that is under way.
        clock: counts its time, where there is a limit.
        stopped: what it is answered with, since it was interrupted for what it did.
        last_resort: kills the child of a cell that does not react to that.
        reply_timer: answers a cell whose child has gone idle without a reply.
        count: its execution count.
        sent: it has been handed to the child.
        begun: the child has started to run it, so an interrupt reaches it.
        reply: the child's reply; held until the child's idle, so that output comes first.
        idle: the child has said that all output was sent.
        interrupted: an interrupt came before it had begun.
        asking: it has asked the user something, which is not answered yet.
        held: something is to be done after the child is finished and before it is answered.
        in_throwaway: it runs in a child of its own.
        settled: the child is finished with it, or it has ended.
        ended: the reply and the idle have gone to the frontend.
        audited: its pending record, once that is written; only then it is sent.
        evidence: what the child reported as blocked, as it came.
        inputs: how often the user answered its questions.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.content = parse_object(request.parts[3])
        self.preparation: asyncio.Task[Plan] | None = None
        self.clock: CellClock | None = None
        self.stopped: MxcKernelError | None = None
        self.last_resort: asyncio.TimerHandle | None = None
        self.reply_timer: asyncio.TimerHandle | None = None
        self.count = 0
        self.sent = False
        self.begun = False
        self.reply: ChildMessage | None = None
        self.idle = False
        self.interrupted = False
        self.asking = False
        self.held = False
        self.in_throwaway = False
        self.settled = asyncio.Event()
        self.ended = asyncio.Event()
        self.audited: Begun | None = None
        self.evidence: object = None
        self.inputs = 0
        self._id = parse_object(request.parts[2]).get("cellId")  # JupyterLab and nbclient tell it

    @property
    def source(self) -> Source:
        """The cell as the audit sees it."""
        expressions = self.content.get("user_expressions")
        return Source(
            self.code,
            self._id,
            self.request.msg_id,
            self.count,
            self.silent,
            self.request.subshell,
            len(expressions) if isinstance(expressions, dict) else 0,
        )

    @property
    def code(self) -> str:
        """The source to run."""
        code = self.content.get("code")
        return code if isinstance(code, str) else ""

    @property
    def silent(self) -> bool:
        """Whether the frontend wants no trace of it."""
        return bool(self.content.get("silent"))

    @property
    def stops_on_error(self) -> bool:
        """Whether an error aborts the cells queued behind it."""
        return bool(self.content.get("stop_on_error", True))

    @property
    def allows_input(self) -> bool:
        """Whether the child may ask the user for input."""
        return bool(self.content.get("allow_stdin", False))


@dataclass(frozen=True)
class Plan:
    """How a prepared cell is to be run.

    Attributes:
        handled: its policy magics, as the child's stubs will see them.
        afterwards: what the session asks for once the cell has ended, where that differs.
        throwaway: the child of its own that it runs in.
    """

    handled: tuple[str, ...]
    afterwards: PolicyRequest | None
    throwaway: Throwaway | None


class Lane:
    """The requests of one shell channel or subshell, in their order."""

    def __init__(self) -> None:
        self.waiting: deque[Request | Cell] = deque()
        self.current: Cell | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def holding(self) -> bool:
        """Whether a new request would overtake one that was not handed to the child yet."""
        return bool(self.waiting) or (self.current is not None and not self.current.sent)

    def lets_pass(self, request: Request) -> bool:
        """Whether a comm message may go to the child ahead of the cells that wait.

        The running cell may await it; ipykernel, too, dispatches comms beside a cell. It does not
        overtake an older one, least of all the one that opens its comm.
        """
        return (
            request.msg_type in ("comm_msg", "comm_close")
            and self.current is not None
            and self.current.sent
            and not any(
                isinstance(item, Request) and item.msg_type.startswith("comm_")
                for item in self.waiting
            )
        )
