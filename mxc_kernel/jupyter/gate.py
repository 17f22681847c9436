"""The gate: what comes from the child is capped, redacted and made safe on its way to a frontend.

Knows Jupyter's message types; the rules it applies (:mod:`mxc_kernel.output`) know only text and
MIME types. What is not known to it does not pass, and is counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from mxc_kernel.errors import MxcKernelError
from mxc_kernel.jupyter import shapes
from mxc_kernel.jupyter.account import RequestOutput
from mxc_kernel.jupyter.bundles import Bundles
from mxc_kernel.jupyter.comms import Comms
from mxc_kernel.jupyter.delivery import COMMS, Delivery
from mxc_kernel.jupyter.frontends import Frontends
from mxc_kernel.jupyter.messages import ChildMessage
from mxc_kernel.jupyter.outbox import OUTPUTS, Clock, Outbox, Rate
from mxc_kernel.jupyter.replies import Replies, Reply
from mxc_kernel.jupyter.requests import Request
from mxc_kernel.output.caps import Ending
from mxc_kernel.output.operators import operators_rules
from mxc_kernel.policy import HtmlLevel, Limits
from mxc_kernel.session import Session
from mxc_kernel.views import View, notice

__all__ = ["Gate", "RequestOutput"]

log = logging.getLogger(__name__)

_PROMPT = 4096  # characters


class Gate:
    """Caps and redacts what the child shows, and makes it safe.

    Args:
        session: whose policy says how much may be shown.
        frontends: where what passes goes.
        environ: the host's environment, whose secrets are never shown.
        clock: what waits are measured with; the running event loop by default.

    Attributes:
        dropped: what did not pass because it was not what it should be, counted by reason.
        replies: judges the child's replies.
    """

    def __init__(
        self,
        session: Session,
        frontends: Frontends,
        environ: Mapping[str, str],
        clock: Clock | None = None,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self._session = session
        self._frontends = frontends
        self._clock = clock
        self._environ, self._redaction = environ, session.redaction
        self._rules = operators_rules(environ, self._redaction)
        self._bundles = Bundles(
            self._rules,
            self._level,
            lambda model: self.comms.shows(model),
            lambda name: session.libraries(name),
        )
        self._markup: Counter[str] = Counter()
        self._delivery = Delivery(
            frontends, self._bundles, self._new_comms(), self._level, self.drop
        )
        self.replies = Replies(self._bundles, self.drop)
        self._rate = Rate()
        self._prepared = False
        self._waiting: set[Outbox] = set()
        self._orphans = self.open_request()

    def open_request(self, limits: Limits | None = None) -> RequestOutput:
        """Return a fresh account for a request's output.

        Args:
            limits: what it may show; None for the policy in force.
        """
        return RequestOutput(self._session.limits if limits is None else limits)

    def begin_cell(self, request: Request, limits: Limits, count: int) -> None:
        """Give a cell its account, now that its own magics are applied.

        Args:
            request: the cell's.
            limits: what it may show.
            count: its execution count.
        """
        self.settle(request)
        if self._session.redaction != self._redaction:
            self._redaction = self._session.redaction
            self._rules.take_over(operators_rules(self._environ, self._redaction))
        if not self._prepared and self._level() == HtmlLevel.FRAME:
            self._prepared = True
            self._session.libraries.prepare()
        before, request.output = request.output, self.open_request(limits)
        request.output.notes, request.output.count = before.notes, count
        before.box = None  # it refers back to the account, and all of it has been sent

    def stop_with(self, stop: Callable[[Request], None]) -> None:
        """Have a running request stopped when it passes a limit, where the policy says so."""
        self._delivery.on_exceeded = stop

    @property
    def comms(self) -> Comms:
        """What is known of the child's widgets."""
        return self._delivery.comms

    def forget_child(self) -> None:
        """Forget what belongs to a child that is gone."""
        self._delivery.comms = self._new_comms()

    def drop(self, reason: str) -> None:
        """Count what does not pass.

        Args:
            reason: one of a fixed set; the child must not be able to make the list grow.
        """
        self.dropped[reason] += 1
        if self.dropped[reason].bit_count() == 1:  # the first, second, fourth…: no flood of lines
            log.warning("dropped from the child: %s (%d)", reason, self.dropped[reason])

    # --- publications, on their way in ----------------------------------------------------------

    def publish(self, request: Request | None, message: ChildMessage) -> None:
        """Take a publication of the child; what the rules leave of it goes out in order."""
        output = request.output if request is not None else self._orphans
        kind = message.msg_type
        if kind == "stream":
            self._stream(request, output, message.content)
            return
        try:
            message.content = shapes.PUBLICATIONS[kind](message.content)
        except shapes.WrongShapeError as error:
            self.drop(f"{kind}: {error}")
            return
        message.metadata = shapes.metadata(kind, message.metadata)
        if message.buffers and kind not in COMMS:
            self.drop("buffers of other than a comm message")
            message.buffers = []
        if kind == "execute_result" and output.count is not None:
            message.content["execution_count"] = output.count
        if kind != "clear_output" and message.size > output.limits.single_output:
            self._delivery.refuse(request, output, message.size)
            return
        output.writes_to = None
        self._send_in_order(request, output, message)

    def _stream(
        self, request: Request | None, output: RequestOutput, content: Mapping[str, Any]
    ) -> None:
        name, text = content.get("name"), content.get("text")
        if type(text) is not str or (name != "stdout" and name != "stderr"):
            self.drop("stream: it is no text of stdout or stderr")
            return
        if name != output.writes_to and not output.text.cut:
            output.writes_to = name
            # Each change of the stream is an output of its own in a frontend.
            if output.rich.full:
                output.text.stop(tail=not output.finished)
                self._delivery.exceed(request, output)
            else:
                output.rich.admit(0)
        if self._delivery.shown >= output.limits.session_output:
            output.text.stop(tail=False)
        shown = output.text.take(text, name)
        if output.text.over:
            self._delivery.exceed(request, output)
        if shown:
            self._delivery.shown += len(shown)
            box = self._box(request, output)
            box.write(name, shown)
            self._note_waiting(box)

    def _send_in_order(
        self, request: Request | None, output: RequestOutput, item: ChildMessage
    ) -> None:
        box = self._box(request, output)
        if len(self._waiting) > (box in self._waiting) and item.msg_type in COMMS | OUTPUTS:
            # Widgets know no requests: an older state of one must not come after a newer.
            for other in self._waiting - {box}:
                other.hurry()
            self._waiting = {other for other in self._waiting if other.waiting}
        box.add(item, item.size)
        self._note_waiting(box)

    def _note_waiting(self, box: Outbox) -> None:
        if box.waiting:
            self._waiting.add(box)
        else:
            self._waiting.discard(box)

    def _box(self, request: Request | None, output: RequestOutput) -> Outbox:
        if output.box is None:
            output.box = Outbox(
                self._rules,
                lambda item: self._delivery.deliver(request, output, item),
                self._rate,
                output.limits.output_rate,
                self._clock or asyncio.get_running_loop(),
            )
        return output.box

    # --- the host's own words -------------------------------------------------------------------

    def note(self, request: Request, view: View) -> None:
        """Show a view of the host's, behind what the child has shown so far.

        It comes back where the child clears it away, and no widget takes it.
        """
        self._delivery.release(request)
        self._box(request, request.output).add(view)

    def redacted_facts(self, request: Request, content: Any) -> Any:
        """Return JSON that stands beside a request's output without the secrets in it."""
        return self._bundles.json(content, request.output.redacted)

    # --- the end of a request -------------------------------------------------------------------

    def settle(self, request: Request) -> None:
        """Send all that a request has shown so far, for a prompt or an end."""
        if request.output.box is not None:
            request.output.box.settle()
            self._note_waiting(request.output.box)

    def finish(self, request: Request) -> dict[str, Any]:
        """Show what is held back and the end of what was cut, when a request is done.

        Returns:
            facts for the reply's metadata: what was cut, refused or redacted; empty if nothing.
        """
        output = request.output
        facts: dict[str, Any] = {}
        ending = None if output.finished else output.text.finish()
        if ending is not None and not ending.notice:
            # It goes on right behind the head: a secret may begin there and end here.
            for name, text in ending.tail:
                self._box(request, output).write(name, text)
        self.settle(request)
        if not output.finished:
            facts = self._end(request, output, ending)
            output.finished = True
            output.text.stop_keeping()
        if masked := output.masked():
            facts["redacted"] = dict(masked)
        if output.said:
            facts["not_shown"] = list(output.said)
        return facts

    def idle(self, request: Request) -> None:
        """Send what is left of a request, and say that it is done."""
        self.settle(request)
        if request.output.box is not None:
            # Behind the host's notes: they must not be what it makes room for.
            request.output.box.release_clear()
        self._frontends.idle(request)

    def _end(
        self, request: Request, output: RequestOutput, ending: Ending | None
    ) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        refused = output.rich.notice()
        for message in output.take_last():
            self._delivery.publish(request, output, message)
        if (ending is not None and ending.notice) or refused is not None:
            self._delivery.release(request)
        if ending is not None and ending.notice:
            cut = {"printed": ending.totals.printed, "shown": ending.totals.shown}
            facts["truncated"] = cut
            view = notice(ending.notice.strip(), blocked=True)
            self._delivery.show(request, output, view, truncated=cut)
            for name, text in ending.tail:
                self._delivery.print(request, name, self._bundles.text(text, output.redacted))
        if refused is not None:
            facts["outputs_refused"] = output.rich.refused
            view = notice(refused.strip(), blocked=True)
            self._delivery.show(request, output, view, outputs_refused=output.rich.refused)
        return facts

    def redacted(self, text: str) -> str:
        """Return a text without its secrets."""
        return self._bundles.text(text, Counter())

    # --- replies and questions ------------------------------------------------------------------

    def reply(self, message: ChildMessage, asked: Mapping[str, Any]) -> Reply | None:
        """Return what of a reply may pass; None, and counted, if it is none.

        Args:
            message: the child's reply.
            asked: content of the request that it answers.
        """
        return self.replies.read(message, asked)

    def quoting(self, request: Request, text: str) -> str:
        """Return words of the host's, which may quote the child's last ones, as they may pass."""
        return self._bundles.text(text, request.output.redacted)

    def question(self, request: Request, content: dict[str, Any]) -> dict[str, Any] | None:
        """Return a question to the user as it may be asked; all that was shown goes out before."""
        try:
            question = shapes.input_request(content)
        except shapes.WrongShapeError as error:
            self.drop(f"input_request: {error}")
            return None
        self.settle(request)
        prompt = self._bundles.text(question["prompt"][:_PROMPT], request.output.redacted)
        return {**question, "prompt": prompt}

    # --- inside ---------------------------------------------------------------------------------

    def _level(self) -> HtmlLevel:
        try:
            return self._session.effective.html
        except MxcKernelError:  # the ceiling cannot be read any more
            return HtmlLevel.TEXT

    def _new_comms(self) -> Comms:
        return Comms(
            lambda html: self._bundles.html(html, self._markup),
            lambda name: self._session.libraries(name),
        )
