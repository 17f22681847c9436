"""A gate between a made-up child and a frontend that only keeps what it gets; time is a number."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from mxc_kernel.jupyter.gate import Gate
from mxc_kernel.jupyter.messages import ChildMessage, Incoming
from mxc_kernel.jupyter.requests import Request
from mxc_kernel.policy import DEFAULT_LIMITS, HtmlLevel, Limits
from mxc_kernel.policy.redaction import Redaction
from mxc_kernel.wire import Channel

SECRET = "correct-horse-7351-battery"


class Hands:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, SimpleNamespace]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object], /) -> SimpleNamespace:
        handle = SimpleNamespace(callback=callback, cancel=lambda: None)
        handle.cancel = lambda: setattr(handle, "callback", None)
        heapq.heappush(self._timers, (self.now + delay, next(self._numbers), handle))
        return handle

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, handle = heapq.heappop(self._timers)
            if handle.callback is not None:
                handle.callback()
        self.now = end


@dataclass
class Sent:
    kind: str
    content: dict[str, Any]
    request: Request | None
    metadata: dict[str, Any]
    buffers: list[bytes]
    when: float


class Listener:
    """Stands for the frontends; what it gets must be JSON."""

    def __init__(self, clock: Hands) -> None:
        self.sent: list[Sent] = []
        self._clock = clock

    def publish(
        self,
        msg_type: str,
        content: Any,
        request: Request | None = None,
        *,
        metadata: Any = None,
        buffers: Any = (),
        date: str | None = None,
    ) -> None:
        plain = json.loads(json.dumps([dict(content), dict(metadata or {})], allow_nan=False))
        self.sent.append(
            Sent(msg_type, *plain[:1], request, plain[1], list(buffers), self._clock.now)
        )

    def idle(self, request: Request) -> None:
        self.publish("status", {"execution_state": "idle"}, request)


class Libraries:
    """Has no charting library, and counts how often it was told to look for them ahead."""

    prepared = 0

    def __call__(self, _name: str) -> None:
        return None

    def prepare(self) -> None:
        self.prepared += 1


@dataclass
class Bench:
    """A gate and all that is around it."""

    limits: Limits = DEFAULT_LIMITS
    html: HtmlLevel = HtmlLevel.SAFE
    environ: dict[str, str] = field(default_factory=lambda: {"SERVICE_PASSWORD": SECRET})

    def __post_init__(self) -> None:
        self.clock = Hands()
        self.libraries = Libraries()
        self.frontends = Listener(self.clock)
        session = SimpleNamespace(
            limits=self.limits,
            effective=SimpleNamespace(html=self.html, limits=self.limits),
            redaction=Redaction(),
            libraries=self.libraries,
        )
        self.gate = Gate(session, self.frontends, self.environ, clock=self.clock)  # type: ignore[arg-type]
        self._ids = itertools.count()

    def request(
        self, msg_type: str = "execute_request", channel: Channel = Channel.SHELL
    ) -> Request:
        header = {"msg_id": f"id-{next(self._ids)}", "msg_type": msg_type}
        raw = json.dumps(header).encode()
        incoming = Incoming([b"one"], header, [raw, b"{}", b"{}", b"{}"])
        return Request(Channel.SHELL, incoming, self.gate.open_request())

    def say(
        self,
        request: Request | None,
        msg_type: str,
        content: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        buffers: list[bytes] | None = None,
    ) -> None:
        """Let the child publish something."""
        size = len(json.dumps(content)) + sum(map(len, buffers or []))
        message = ChildMessage(
            msg_type, json.loads(json.dumps(content)), metadata or {}, buffers or [], None, size
        )
        self.gate.publish(request, message)

    def write(self, request: Request | None, text: str, name: str = "stdout") -> None:
        self.say(request, "stream", {"name": name, "text": text})

    def show(self, request: Request | None, text: str, **more: Any) -> None:
        self.say(request, "display_data", {"data": {"text/plain": text}, "metadata": {}, **more})

    def end(self, request: Request) -> dict[str, Any]:
        facts = self.gate.finish(request)
        self.gate.idle(request)
        return facts

    def stream(self, name: str = "stdout") -> str:
        return "".join(
            s.content["text"]
            for s in self.frontends.sent
            if s.kind == "stream" and s.content["name"] == name
        )

    @property
    def shown(self) -> list[str]:
        """Everything sent, in short: texts as they are, other messages by what they show."""
        return [short(sent) for sent in self.frontends.sent]


def short(sent: Sent) -> str:
    content = sent.content
    if sent.kind == "stream":
        return content["text"]
    if "data" in content and "text/plain" in content.get("data", {}):
        return content["data"]["text/plain"]
    return sent.kind


@pytest.fixture
def bench() -> Bench:
    return Bench()


def limited(**limits: Any) -> Bench:
    """A bench with the default limits but some."""
    return Bench(replace(DEFAULT_LIMITS, **limits))
