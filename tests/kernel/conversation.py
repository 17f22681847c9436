"""A client that keeps every message of every channel and knows what the protocol promises."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import zmq

from .conftest import TIMEOUT, Kernel

__all__ = ["Conversation", "Exchange"]

# What a thread, a task or a subprocess may still bring when its cell is over.
_LATE = {"stream", "display_data", "update_display_data", "clear_output"} | {
    "comm_open",
    "comm_msg",
    "comm_close",
}
# What belongs to no request: the kernel's own doings, and output that nobody asked for.
_UNASKED = {"status", "comm_close", "iopub_welcome", "debug_event", "stream"}


@dataclass
class Exchange:
    """A request and all that came of it."""

    request: dict[str, Any]
    channel: str
    replies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    published: list[dict[str, Any]] = field(default_factory=list)

    @property
    def msg_type(self) -> str:
        return str(self.request["header"]["msg_type"])

    @property
    def expects_reply(self) -> bool:
        return self.msg_type.endswith("_request")

    @property
    def states(self) -> list[str]:
        return [m["content"]["execution_state"] for m in self.of_type("status")]

    @property
    def settled(self) -> bool:
        """Whether nothing more has to come."""
        return "idle" in self.states and bool(self.replies) >= self.expects_reply

    @property
    def content(self) -> dict[str, Any]:
        """The reply's content."""
        return self.replies[0][1]["content"]

    def of_type(self, msg_type: str) -> list[dict[str, Any]]:
        return [m for m in self.published if m["msg_type"] == msg_type]

    def printed(self) -> str:
        return "".join(m["content"]["text"] for m in self.of_type("stream"))

    def problems(self) -> Iterator[str]:
        """Yield what the protocol does not allow, or promises and did not come."""
        yield from self._replies()
        if self.states != ["busy", "idle"]:
            yield f"statuses are {self.states}"
            return
        kinds = [m["msg_type"] for m in self.published]
        if kinds[0] != "status":
            yield f"{kinds[0]} before the busy"
        idle = next(i for i, m in enumerate(self.published) if _is_idle(m))
        allowed = {"debug_event"} if self.msg_type == "debug_request" else _LATE
        late = set(kinds[idle + 1 :]) - allowed
        if late:
            yield f"{sorted(late)} after the idle"
        if self.msg_type == "execute_request" and self.replies:
            yield from self._cell()

    def _replies(self) -> Iterator[str]:
        if len(self.replies) != self.expects_reply:
            yield f"{len(self.replies)} replies"
        for channel, reply in self.replies:
            if channel != self.channel:
                yield f"reply on {channel}"
            if reply["msg_type"] != self.msg_type.removesuffix("_request") + "_reply":
                yield f"reply of type {reply['msg_type']}"
            if reply["content"].get("status") not in ("ok", "error", "aborted", *_OWN_STATUS):
                yield f"status {reply['content'].get('status')} in the reply"

    def _cell(self) -> Iterator[str]:
        content, asked = self.content, self.request["content"]
        inputs, errors = self.of_type("execute_input"), self.of_type("error")
        if content["status"] == "aborted":
            if len(self.published) != 2:
                yield "an aborted cell has published something"
            return
        if content.get("ename") == "UnknownSubshellError":
            return
        if not asked["silent"]:
            if len(inputs) != 1 or self.published[1]["msg_type"] != "execute_input":
                yield "no execute_input, or not right behind the busy"
            elif inputs[0]["content"]["execution_count"] != content["execution_count"]:
                yield "the reply has another execution count than the input"
            failed = content["status"] == "error"
            # A cell that is killed or stopped may have shown an error of its own before.
            most = failed + content.get("ename", "").startswith("Sandbox")
            if not failed <= len(errors) <= most:
                yield f"{len(errors)} errors and a reply that says {content['status']}"
            if errors and errors[-1]["content"]["ename"] != content.get("ename"):
                yield "the reply has another error than was published last"
        if len(self.of_type("execute_result")) > 1:
            yield "more than one result"


_OWN_STATUS = ("complete", "incomplete", "invalid", "unknown", None)  # is_complete; usage has none


def _is_idle(message: dict[str, Any]) -> bool:
    return (
        message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
    )  # fmt: skip


class Conversation:
    """Sends requests to a kernel, answers its questions, and checks all that it says.

    Args:
        kernel: a kernel that is ready.
        answers: whether a question of `input()` is answered at once.
    """

    def __init__(self, kernel: Kernel, *, answers: bool = True) -> None:
        self.kernel = kernel
        self.exchanges: dict[str, Exchange] = {}
        self.questions: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []  # of the debugger
        self.problems: list[str] = []
        self._answers = answers
        self._running: str | None = None
        self._count = 0
        self._seen: Counter[str] = Counter()
        client = kernel.client
        self._channels = {
            "iopub": client.iopub_channel,
            "shell": client.shell_channel,
            "control": client.control_channel,
            "stdin": client.stdin_channel,
        }
        self._poller = zmq.Poller()
        for channel in self._channels.values():
            self._poller.register(channel.socket, zmq.POLLIN)
        kernel.reply(client.kernel_info())
        kernel.stale_iopub()  # of what came before us

    # --- what is asked --------------------------------------------------------------------------

    def send(
        self,
        msg_type: str,
        content: dict[str, Any] | None = None,
        *,
        channel: str = "shell",
        subshell: str | None = None,
    ) -> Exchange:
        """Send a request and return what will come of it."""
        message = self.kernel.client.session.msg(msg_type, content or {})
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        exchange = Exchange(message, channel)
        self.exchanges[message["header"]["msg_id"]] = exchange
        self._channels[channel].send(message)
        return exchange

    def execute(self, code: str, *, subshell: str | None = None, **options: Any) -> Exchange:
        """Send a cell."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": True,
            "stop_on_error": True,
            **options,
        }
        return self.send("execute_request", content, subshell=subshell)

    # --- what comes back ------------------------------------------------------------------------

    def settle(self, timeout: float = TIMEOUT) -> None:
        """Take messages until every request has what it must get.

        Raises:
            AssertionError: some request got no reply or no idle in that time (seconds).
        """
        self.take_until(
            lambda: all(exchange.settled for exchange in self.exchanges.values()), timeout
        )

    def take_until(self, done: Any, timeout: float = TIMEOUT) -> None:
        """Take messages until a condition holds."""
        end = time.monotonic() + timeout
        while not done():
            left = end - time.monotonic()
            assert left > 0, f"still waiting for {self._unsettled()}; {self.problems}"
            self.take(left)

    def take(self, wait: float) -> None:
        """Take the messages that are there, or the first that comes in so many seconds."""
        ready = {id(socket) for socket, _ in self._poller.poll(wait * 1000)}
        for name, channel in self._channels.items():
            if id(channel.socket) in ready:
                self._received(name, channel.get_msg(timeout=0))

    def _unsettled(self) -> list[str]:
        return [
            f"{exchange.msg_type} {exchange.request['content']} with states {exchange.states} and "
            f"{len(exchange.replies)} replies"
            for exchange in self.exchanges.values()
            if not exchange.settled
        ]

    def _received(self, channel: str, message: dict[str, Any]) -> None:
        msg_id = message["header"]["msg_id"]
        self._seen[msg_id] += 1
        if self._seen[msg_id] > 1:
            self._wrong(f"{message['msg_type']} came twice on {channel}")
        if message["msg_type"] == "debug_event":
            self.events.append(message)
        parent = message["parent_header"]
        exchange = self.exchanges.get(parent.get("msg_id", ""))
        if exchange is None:
            if parent or channel != "iopub" or message["msg_type"] not in _UNASKED:
                self._wrong(f"{message['msg_type']} on {channel} belongs to no request: {parent}")
            return
        if parent["session"] != exchange.request["header"]["session"]:
            self._wrong(f"{message['msg_type']} has another session than its request")
        if channel == "iopub":
            exchange.published.append(message)
            self._in_turn(exchange, message)
        elif channel == "stdin":
            self._asked(exchange, message)
        else:
            exchange.replies.append((channel, message))

    def _in_turn(self, exchange: Exchange, message: dict[str, Any]) -> None:
        """Check that the cells of the main shell come one after the other."""
        if exchange.msg_type != "execute_request":
            return
        if exchange.request["header"].get("subshell_id") is not None:
            return
        msg_id = exchange.request["header"]["msg_id"]
        state = message["content"].get("execution_state")
        if message["msg_type"] == "status" and state == "busy":
            if self._running is not None:
                self._wrong("a cell began before the one ahead of it had ended")
            self._running = msg_id
        elif message["msg_type"] == "status" and state == "idle":
            self._running = None
        elif message["msg_type"] == "execute_input":
            count = message["content"]["execution_count"]
            if count < self._count:
                self._wrong(f"execution count {count} after {self._count}")
            self._count = count

    def _asked(self, exchange: Exchange, message: dict[str, Any]) -> None:
        self.questions.append(message)
        if message["msg_type"] != "input_request":
            self._wrong(f"{message['msg_type']} on stdin")
        if not exchange.request["content"].get("allow_stdin") or exchange.settled:
            self._wrong("a question from a request that may not ask")
        elif self._answers:
            self.kernel.client.input("an answer")

    def _wrong(self, what: str) -> None:
        self.problems.append(what)

    # --- the verdict ----------------------------------------------------------------------------

    def check(self) -> None:
        """Settle, and assert that everything was as the protocol has it."""
        self.settle()
        self.execute("'the last'")
        self.settle()
        while self._poller.poll(0):
            self.take(0)
        found = list(self.problems)
        for exchange in self.exchanges.values():
            found += [
                f"{exchange.msg_type} {str(exchange.request['content'])[:300]}: {problem}"
                for problem in exchange.problems()
            ]
        assert not found, "\n".join(found)
