"""The table of requests: the host's own truth about who asked what.

Parents, identities and sessions of every message to a frontend come from here. What the child
writes as a parent is only a key to look up, so it cannot answer for another request, twice, or on
another channel.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mxc_kernel.jupyter.messages import Incoming
from mxc_kernel.wire import Channel

if TYPE_CHECKING:
    from mxc_kernel.jupyter.gate import RequestOutput

__all__ = ["Request", "RequestTable"]

_REMEMBERED = 1_000  # answered requests whose late output (of threads) still finds its parent


class Request:
    """One message from a frontend that the child may refer to.

    Attributes:
        channel: where it came from and its reply goes.
        open: no reply has been sent yet.
        announced: its busy status was published; there is only one.
        busy: that status was published and its idle was not.
        parent: the raw header, the parent of everything that belongs to the request.
        parts: the raw message, until it has been passed on.
        asked: its content, where the reply has to fit to it; until it is answered.
        output: what the gate keeps about this request's output.
    """

    __slots__ = (
        "announced",
        "asked",
        "busy",
        "channel",
        "header",
        "identities",
        "open",
        "output",
        "parent",
        "parts",
    )

    def __init__(self, channel: Channel, message: Incoming, output: RequestOutput) -> None:
        self.channel = channel
        self.identities = message.identities
        self.header = message.header
        self.parent = message.parts[0]
        self.parts = message.parts
        self.output = output
        self.asked: dict[str, Any] = {}
        self.open = self.expects_reply
        self.announced = False
        self.busy = False

    @property
    def msg_id(self) -> str:
        """The frontend's id of the message."""
        return str(self.header["msg_id"])

    @property
    def msg_type(self) -> str:
        """The message's type."""
        return str(self.header["msg_type"])

    @property
    def expects_reply(self) -> bool:
        """Whether the protocol wants an answer (comm messages have none)."""
        return self.msg_type.endswith("_request")

    @property
    def finished(self) -> bool:
        """Whether its reply, if there is one, and its idle have gone to the frontend."""
        return self.announced and not self.busy and not self.open

    @property
    def reply_type(self) -> str:
        """The only message type that answers it."""
        return self.msg_type.removesuffix("_request") + "_reply"

    @property
    def subshell(self) -> str | None:
        """The subshell it is for; None is the main shell."""
        subshell = self.header.get("subshell_id")
        return subshell if isinstance(subshell, str) else None


class RequestTable:
    """Requests by their message id, forgetting the oldest answered ones."""

    def __init__(self) -> None:
        self._requests: OrderedDict[str, Request] = OrderedDict()

    def add(self, request: Request) -> None:
        """Remember a request."""
        self._requests[request.msg_id] = request
        if len(self._requests) > _REMEMBERED:
            oldest = next((r for r in self._requests.values() if r.finished), None)
            if oldest is not None:
                del self._requests[oldest.msg_id]
                # It refers back to the request: thousands would lie about until a full collection.
                oldest.output.box = None

    def find(self, parent: dict[str, Any]) -> Request | None:
        """Return the request that a header from the child names, if there is one."""
        msg_id = parent.get("msg_id")
        return self._requests.get(msg_id) if isinstance(msg_id, str) else None

    def unfinished(self) -> Iterator[Request]:
        """Yield the requests that still wait for a reply or an idle."""
        return (r for r in list(self._requests.values()) if not r.finished)
