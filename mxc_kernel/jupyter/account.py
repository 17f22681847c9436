"""What one request has printed and shown so far, against its limits."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mxc_kernel.output.caps import Budget, MessageBudget
from mxc_kernel.policy import Limits
from mxc_kernel.views import View

if TYPE_CHECKING:
    from mxc_kernel.jupyter.messages import ChildMessage
    from mxc_kernel.jupyter.outbox import Outbox

__all__ = ["RequestOutput"]

_UNSENT = 8 << 20  # bytes of displays over the limit that are kept for the end


class RequestOutput:
    """The account of one request.

    Args:
        limits: what it may show at most.

    Attributes:
        text: its text.
        rich: everything else.
        box: what is on its way; None before the first message.
        redacted: secrets masked outside its streams, by name.
        said: the notes on what is not shown, each once.
        notes: what the host itself has shown; it is shown again where the child clears it away.
        count: execution count of its cell.
        writes_to: the stream that its text runs on in.
        errors: errors that came.
        error_shown: one of them has been shown.
        exceeded: a limit was passed.
        finished: its cell has ended; what comes now is from threads and tasks.
        late: it was said that such output is cut.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.text = Budget(limits.output)
        self.rich = MessageBudget(limits.outputs, limits.rich_output, limits.single_output)
        self.box: Outbox | None = None
        self.redacted: Counter[str] = Counter()
        self.said: dict[str, None] = {}
        self.notes: list[tuple[View, dict[str, object]]] = []
        self.count: int | None = None
        self.writes_to: str | None = None
        self.errors = 0
        self.exceeded = self.finished = self.late = self.error_shown = False
        self._unsent: dict[str, ChildMessage] = {}
        self._unsent_size = 0

    def keep_last(self, message: ChildMessage) -> None:
        """Keep the newest state of a display that is over the limit, to show it at the end."""
        name = message.content["transient"]["display_id"]
        before = self._unsent.pop(name, None)
        if before is not None:
            self._unsent_size -= before.size
        if self._unsent_size + message.size <= min(_UNSENT, self.limits.single_output):
            self._unsent_size += message.size
            self._unsent[name] = message

    def take_last(self) -> list[ChildMessage]:
        """Return what was kept, once."""
        kept, self._unsent = list(self._unsent.values()), {}
        self._unsent_size = 0
        return kept

    def figures(self) -> dict[str, dict[str, int]]:
        """Return how many bytes were sent and dropped, of text and of other output."""
        text, rich = self.text.totals, self.rich
        return {
            "text": {"sent": text.shown, "dropped": text.hidden},
            "rich": {
                "sent": rich.seen_bytes - rich.refused_bytes,
                "dropped": rich.refused_bytes,
                "messages": rich.seen,
                "refused": rich.refused,
            },
        }

    def masked(self) -> Counter[str]:
        """Return how many secrets were masked, by name."""
        return self.redacted + Counter(self.box.masked if self.box is not None else ())
