"""The way out: what has waited its turn is capped, redacted and made safe, and published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mxc_kernel.jupyter.account import RequestOutput
from mxc_kernel.jupyter.bundles import Bundles
from mxc_kernel.jupyter.comms import Comms
from mxc_kernel.jupyter.frontends import Frontends
from mxc_kernel.jupyter.messages import ChildMessage
from mxc_kernel.jupyter.outbox import OUTPUTS, Text
from mxc_kernel.jupyter.requests import Request
from mxc_kernel.policy import Exceeded, HtmlLevel
from mxc_kernel.views import View, notice

__all__ = ["COMMS", "Delivery"]

COMMS = frozenset({"comm_close", "comm_msg", "comm_open"})
_DISPLAYS = frozenset({"display_data", "execute_result", "update_display_data"})
_ERRORS = 3  # shown for each request, whatever else is over the limit: they say what went wrong
_NOTES = 100  # for each request
_OURS = "mxc"  # metadata key of the host's own notes; a child that writes it is not heard
_LATE = (
    "[Output that came after its cell had ended is over the cell's limit: "
    "no more of it is shown or kept.]"
)


class Delivery:
    """Publishes what the child shows, and what the host says about it.

    Args:
        frontends: where what passes goes.
        bundles: redacts and makes safe.
        comms: what may be said to widgets; another one for each child.
        level: returns the level of output in force.
        drop: called with the reason for each message that does not pass.

    Attributes:
        shown: bytes shown over the whole session.
        on_exceeded: called when a running request has passed a limit that the policy has it
            stopped for.
    """

    def __init__(
        self,
        frontends: Frontends,
        bundles: Bundles,
        comms: Comms,
        level: Callable[[], HtmlLevel],
        drop: Callable[[str], None],
    ) -> None:
        self.on_exceeded: Callable[[Request], None] = lambda _request: None
        self.shown = 0
        self.comms = comms
        self._frontends = frontends
        self._bundles = bundles
        self._level = level
        self._drop = drop

    def deliver(
        self, request: Request | None, output: RequestOutput, item: Text | ChildMessage | View
    ) -> None:
        """Take what is next in a request's output."""
        if isinstance(item, Text):
            self.print(request, item.name, "".join(item.parts))
        elif isinstance(item, View):
            self.show(request, output, item)
        elif item.msg_type == "clear_output":
            self._frontends.publish("clear_output", item.content, request)
            for view, facts in output.notes:
                self._publish_view(request, view, facts)
        else:
            self._pass(request, output, item)

    def _pass(self, request: Request | None, output: RequestOutput, message: ChildMessage) -> None:
        kind = message.msg_type
        new = kind in OUTPUTS or kind == "comm_open"
        if self.shown + message.size > output.limits.session_output:
            self.refuse(request, output, message.size)
            passes = False
        else:
            passes = output.rich.admit(message.size, counts=new)
            if not passes:
                self.exceed(request, output)
        if kind == "error":
            output.errors += 1
            passes = passes or output.errors <= _ERRORS
        if passes:
            self.shown += message.size
            self.publish(request, output, message)
        elif kind == "update_display_data" and not output.finished:
            output.keep_last(message)

    def publish(
        self, request: Request | None, output: RequestOutput, message: ChildMessage
    ) -> None:
        """Publish a message as the rules leave it, whatever the limits say."""
        content, buffers = message.content, message.buffers
        if message.msg_type in _DISPLAYS:
            content = self._display(request, output, content)
        elif message.msg_type == "error":
            content = self._bundles.error(content, output.redacted)
            output.error_shown = True
        elif message.msg_type in COMMS:
            live = request.msg_id if request is not None and not output.finished else None
            safe = self._bundles.json(content, output.redacted)
            checked = self.comms.check(message.msg_type, safe, buffers, self._level(), live)
            self._say(request, output, checked.notes)
            if checked.content is None:
                self._drop(f"{message.msg_type}: not of a known widget, or not what it knows")
                return
            content, buffers = checked.content, list(checked.buffers)
        else:
            content = self._bundles.json(content, output.redacted)
        self._frontends.publish(
            message.msg_type,
            content,
            request,
            metadata=message.metadata,
            buffers=buffers,
            date=message.date,
        )

    def _display(
        self, request: Request | None, output: RequestOutput, content: dict[str, Any]
    ) -> dict[str, Any]:
        safe = self._bundles.safe(content["data"], content["metadata"], output.redacted)
        metadata = safe.metadata
        if safe.notes:
            metadata = {**metadata, _OURS: {"not_shown": list(safe.notes)}}
            # It stands in the output itself where there was nothing else to show.
            text = safe.data.get("text/plain", "")
            self._say(request, output, [note for note in safe.notes if note not in text])
        return {**content, "data": safe.data, "metadata": metadata}

    def _say(
        self, request: Request | None, output: RequestOutput, notes: list[str] | tuple[str, ...]
    ) -> None:
        """Tell what is not shown: once in a cell, however often it is displayed."""
        for note in notes:
            if note not in output.said and len(output.said) < _NOTES:
                output.said[note] = None
                self.show(request, output, notice(note))

    # --- the host's own words -------------------------------------------------------------------

    def release(self, request: Request) -> None:
        """Have no widget take what the host says next about a request."""
        for content in self.comms.release(request.msg_id):
            self._frontends.publish("comm_msg", content, request)

    def show(
        self, request: Request | None, output: RequestOutput, view: View, **facts: object
    ) -> None:
        """Show a view of the host's, and again whenever the child clears it away."""
        if len(output.notes) < _NOTES:
            output.notes.append((view, facts))
        self._publish_view(request, view, facts)

    def _publish_view(
        self, request: Request | None, view: View, facts: Mapping[str, object]
    ) -> None:
        metadata = {_OURS: {"note": view.kind, **facts}}
        content = {"data": view.bundle(), "metadata": metadata, "transient": {}}
        self._frontends.publish("display_data", content, request)

    def print(self, request: Request | None, name: str, text: str) -> None:
        """Publish text of a stream that has passed the rules already."""
        self._frontends.publish("stream", {"name": name, "text": text}, request)

    # --- limits ---------------------------------------------------------------------------------

    def refuse(self, request: Request | None, output: RequestOutput, size: int) -> None:
        """Count a message that is over a limit."""
        output.rich.refuse(size)
        self.exceed(request, output)

    def exceed(self, request: Request | None, output: RequestOutput) -> None:
        """Note that a request has passed a limit; once."""
        if output.finished or request is None:
            if not output.late:
                output.late = True
                self.show(request, output, notice(_LATE, blocked=True))
        elif not output.exceeded:
            output.exceeded = True
            if output.limits.output_exceeded is Exceeded.STOP:
                self.on_exceeded(request)
