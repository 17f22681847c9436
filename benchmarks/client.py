"""A frontend that does next to nothing, so that what is measured is the kernel.

Messages are kept as they came; only what is needed to know when a request is done is decoded while
the clock runs. The rest is decoded afterwards, to be sure that all of the output arrived.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import zmq
from jupyter_client.session import Session

__all__ = ["CHANNELS", "BenchmarkError", "Client", "Exchange", "Message"]

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
TIMEOUT = 60.0  # seconds for one request; far above what any of them takes
_RECONNECT = 1  # milliseconds; of ZMQ's own 100, a part would be added to a start by chance
_ASK_AGAIN = 0.02  # seconds without an idle status before the kernel is asked once more
_DELIMITER = b"<IDS|MSG>"


class BenchmarkError(Exception):
    """A kernel did not do the work, so there is nothing to measure."""


@dataclass(frozen=True)
class Message:
    """One message; its content is decoded on demand."""

    kind: str
    parent: str
    raw: memoryview

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(bytes(self.raw))
        return content

    @property
    def is_idle(self) -> bool:
        return self.kind == "status" and self.content["execution_state"] == "idle"


@dataclass(frozen=True)
class Exchange:
    """A request and everything that answered it.

    Attributes:
        reply: the reply's content.
        replied: seconds from sending the request to its reply.
        done: seconds to its reply and its idle status, whichever came later.
        published: what came on iopub in between.
    """

    reply: dict[str, Any]
    replied: float
    done: float
    published: list[Message]

    @property
    def text(self) -> str:
        """All that was printed.

        Raises:
            BenchmarkError: something came on stderr, or the kernel says that it left output out.
        """
        notices = [m.content for m in self.published if m.kind == "display_data"]
        for content in notices:
            if "mxc" in content["metadata"]:
                raise BenchmarkError(f"the kernel complained: {content['data']['text/plain']}")
        streams = [message.content for message in self.published if message.kind == "stream"]
        for content in streams:
            if content["name"] != "stdout":
                raise BenchmarkError(f"the kernel complained: {content['text'][:1000]}")
        return "".join(content["text"] for content in streams)

    def shown(self, mime: str) -> str:
        """The one thing displayed, in one of its types."""
        shown = [m.content["data"] for m in self.published if m.kind == "display_data"]
        if len(shown) != 1 or mime not in shown[0]:
            raise BenchmarkError(f"expected one {mime}, got {[sorted(data) for data in shown]}")
        value: str = shown[0][mime]
        return value


class Client:
    """The channels of one kernel, which need not be there yet.

    Args:
        connection: what its connection file says; the transport is ipc.
        check: raises if the kernel's process has ended: then waiting is in vain.
    """

    def __init__(self, connection: Mapping[str, Any], check: Callable[[], None]) -> None:
        self._connection = connection
        self._check = check
        self._context = zmq.Context()
        self._session = Session(key=connection["key"].encode())
        self._shell = self._connect("shell", zmq.DEALER)
        self._control = self._connect("control", zmq.DEALER)
        self._iopub = self._connect("iopub", zmq.SUB)
        self._poller = zmq.Poller()
        self._poller.register(self._shell, zmq.POLLIN)
        self._poller.register(self._iopub, zmq.POLLIN)

    def close(self) -> None:
        self._context.destroy(linger=0)

    def execute(self, code: str) -> Exchange:
        """Run a cell as a notebook does.

        Raises:
            BenchmarkError: it failed.
        """
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        exchange = self.request("execute_request", content)
        if exchange.reply["status"] != "ok":
            raise BenchmarkError(f"the cell {code!r} failed: {exchange.reply}")
        return exchange

    def request(self, kind: str, content: Mapping[str, object]) -> Exchange:
        """Send a request on the shell channel and wait for its reply and its idle status."""
        begin = time.perf_counter()
        parent = self._send(self._shell, kind, content)
        reply: dict[str, Any] | None = None
        published: list[Message] = []
        replied = 0.0
        idle = False
        while reply is None or not idle:
            messages = self._receive(begin + TIMEOUT)
            if not messages:
                missing = "idle status" if reply is not None else "reply"
                raise BenchmarkError(f"{kind}: no {missing} within {TIMEOUT:g} s")
            for message in messages:
                if message.parent != parent:
                    continue
                if message.kind.endswith("_reply"):
                    replied, reply = time.perf_counter() - begin, message.content
                elif message.is_idle:
                    idle = True
                else:
                    published.append(message)
        return Exchange(reply, replied, time.perf_counter() - begin, published)

    def wait_until_ready(self, begin: float) -> tuple[float, float]:
        """Wait for a kernel that has just been started.

        Args:
            begin: when that was, as ``time.perf_counter`` tells it.

        Returns:
            Seconds to the first kernel_info_reply and to the first idle status. A status that was
            published before our subscription had arrived is never seen: then the kernel is asked
            once more, as every frontend does, and the time to the second answer counts.
        """
        asked = {self._send(self._shell, "kernel_info_request", {})}
        replied = idle = None
        while replied is None or idle is None:
            patience = begin + TIMEOUT if replied is None else time.perf_counter() + _ASK_AGAIN
            messages = self._receive(patience)
            now = time.perf_counter() - begin
            if not messages:
                if replied is None:
                    raise BenchmarkError(f"no kernel_info_reply within {TIMEOUT:g} s")
                asked.add(self._send(self._shell, "kernel_info_request", {}))
            for message in messages:
                if message.parent not in asked:
                    continue
                if message.kind == "kernel_info_reply":
                    replied = replied or now
                elif message.is_idle:
                    idle = idle or now
        # The next request must not find answers to the second question.
        self.request("kernel_info_request", {})
        return replied, idle

    def shut_down(self, *, restart: bool) -> None:
        """Ask the kernel to end. That it has ended is seen at its process."""
        self._send(self._control, "shutdown_request", {"restart": restart})

    def _connect(self, channel: str, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT)
        socket.setsockopt(zmq.RCVHWM, 0)  # nothing is lost on this side
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(f"ipc://{self._connection['ip']}-{self._connection[f'{channel}_port']}")
        return socket

    def _send(self, socket: zmq.Socket[bytes], kind: str, content: Mapping[str, object]) -> str:
        message = self._session.msg(kind, dict(content))
        socket.send_multipart(self._session.serialize(message))
        return str(message["header"]["msg_id"])

    def _receive(self, until: float) -> list[Message]:
        """Return what has come, after waiting for something to come; nothing if nothing came."""
        while True:
            left = until - time.perf_counter()
            if left <= 0:
                return []
            # A second at a time, so that a kernel that died is noticed and not waited for.
            ready = self._poller.poll(int(min(left, 1.0) * 1000) + 1)
            if ready:
                return [message for socket, _ in ready for message in _drain(socket)]
            self._check()


def _drain(socket: zmq.Socket[bytes]) -> list[Message]:
    messages: list[Message] = []
    while True:
        try:
            frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return messages
        buffers = [frame.buffer for frame in frames]
        start = next(i for i, buffer in enumerate(buffers) if buffer == _DELIMITER)
        header, parent = (json.loads(bytes(buffer)) for buffer in buffers[start + 2 : start + 4])
        messages.append(Message(header["msg_type"], parent.get("msg_id", ""), buffers[start + 5]))
