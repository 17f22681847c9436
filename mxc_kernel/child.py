"""The host's end of the pipes to one sandboxed child.

Reading never stops, whatever the frontends do: what they cannot take yet is left lying here, at
most a window of it, and the child waits for credit. So its replies and its end are always heard.

Started before the event loop exists, so that the child's start-up and the host's own imports run
side by side; :meth:`Child.attach` hands the descriptors to the loop afterwards.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mxc_kernel.errors import (
    MxcKernelError,
    SandboxExecutionError,
    SandboxTimeoutError,
)
from mxc_kernel.outgoing import Outgoing
from mxc_kernel.wire import METERED, Buffer, Channel, Debt, Frame, FrameReader, WireError

if TYPE_CHECKING:
    import asyncio

    from mxc_kernel.mxc.attestation import Fact
    from mxc_kernel.mxc.sandbox import Sandbox

__all__ = ["Child"]

_BACKLOG = 16 << 20  # unsent bytes from which a producer should wait
_KILLED = 128 + 9  # as shells tell of a process that SIGKILL ended
_NO_ROOM = 128 + 7  # SIGBUS on Linux: a page of a file that there was no room for
_READ_TURN = 0.005  # seconds of frames handled before the loop may turn to something else


class Child:
    """Frames to and from one sandbox.

    Args:
        process: the running sandbox.
        bundle: the worker's code, sent before the first frame.

    Attributes:
        on_frame: called with the channel and parts of every frame after the handshake.
        on_hello: called with what the child says of itself, before it is sent or asked anything
            more than its settings; returns what holds for it, or raises to have it killed.
        on_exit: called once with the error that describes the child's end, unless :meth:`close`
            was called first.
        alive: the child has come as far as sending messages.
        facts: what the child said of itself in its HELLO; untrusted.
        attested: what ``on_hello`` returned.
    """

    def __init__(self, process: Sandbox, bundle: bytes) -> None:
        self.process = process
        self.on_frame: Callable[[Channel, list[bytes]], None] = lambda _channel, _parts: None
        self.on_exit: Callable[[MxcKernelError], None] = lambda _error: None
        self.on_hello: Callable[[Mapping[str, object]], tuple[Fact, ...]] = lambda _facts: ()
        self.alive = False
        self.facts: dict[str, object] = {}
        self.attested: tuple[Fact, ...] = ()
        self._nonce = os.urandom(16)
        self._reader = FrameReader(process.read, self._arrived)
        self._debt = Debt()
        self._outgoing = Outgoing(bundle)
        self._outgoing.opened = False
        self._held: set[Channel] = set()
        self._lying: dict[Channel, deque[list[bytes]]] = {c: deque() for c in METERED}
        self._drained: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[None] | None = None
        self._greeted = False
        self._closed = False
        self._wants_to_write = False
        self._flush()

    def greet(self, settings: Mapping[str, object]) -> None:
        """Send the HELLO, with what the worker is to know before it starts ipykernel."""
        self.send(Channel.HELLO, [self._nonce, json.dumps(settings).encode()])

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the loop read and write the descriptors from now on."""
        self._loop = loop
        self._ready = loop.create_future()
        # The error also reaches on_exit; nobody may be waiting for the handshake any more.
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        self.process.watch(loop, self._readable, self._diagnostics_readable)
        self._flush()

    async def ready(self, timeout: float) -> None:
        """Wait for the handshake, which proves that our code runs inside.

        Args:
            timeout: seconds.

        Raises:
            SandboxTimeoutError: no answer in time; the sandbox has been killed.
            SandboxExecutionError: the sandbox ended before it answered.
        """
        import asyncio

        assert self._ready is not None
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), timeout)
        except TimeoutError:
            self.close()
            raise SandboxTimeoutError(
                f"the sandbox did not answer within {timeout:g} s{self._last_words()}",
                remedy="Run `mxc-kernel doctor`; on a slow machine raise [sandbox] start_timeout.",
            ) from None

    def send(self, channel: Channel, parts: Sequence[Buffer]) -> None:
        """Queue one frame and write as much as the pipe takes now.

        Raises:
            WireError: the frame is over the limits of the wire.
        """
        if self._closed:
            return
        self._outgoing.add(channel, parts)
        if not self._wants_to_write:
            self._flush()

    @property
    def backed_up(self) -> bool:
        """Whether so much waits to be written that a producer should wait."""
        return self._outgoing.size > _BACKLOG

    async def drained(self) -> None:
        """Wait until the child has taken what was backed up, or is gone."""
        import asyncio

        while self.backed_up and not self._closed:
            self._drained = asyncio.Event()
            await self._drained.wait()

    def hold(self, channel: Channel) -> None:
        """Leave lying what comes on a metered channel; with its credit used up, the child waits."""
        self._held.add(channel)

    def release(self, channel: Channel) -> None:
        """Take what was left lying, and let the child go on."""
        self._held.discard(channel)
        if self._loop is not None and not self._closed:
            self._loop.call_soon(self._readable)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in what the child runs, and SIGINT in its subprocesses."""
        if not self.process.interrupt():
            self.send(Channel.SIGNAL, [b"interrupt"])

    def close(self) -> None:
        """Kill the sandbox, wait until it is gone and let go of the descriptors."""
        if self._closed:
            return
        self._closed = True
        self._outgoing.clear()
        if self._drained is not None:
            self._drained.set()
        if self._loop is not None:
            self.process.unwatch(self._loop)
        self.process.close()

    @property
    def closed(self) -> bool:
        """Whether the sandbox is gone."""
        return self._closed

    def _flush(self) -> None:
        full = False
        try:
            self._outgoing.write(self.process.write)
        except BlockingIOError:
            full = True
        except BrokenPipeError:
            self._outgoing.clear()  # the end of its stdout tells the rest
        if self._drained is not None and not self.backed_up:
            self._drained.set()
        self._watch_writes(full)

    def _watch_writes(self, wanted: bool) -> None:
        if self._loop is None or wanted == self._wants_to_write:
            return
        self._wants_to_write = wanted
        self.process.watch_writes(self._loop, self._flush if wanted else None)

    def _arrived(self, channel: Channel, cost: int) -> None:
        self._debt.take(channel, cost)
        if channel in METERED and channel not in self._held:
            self._give_back(channel)

    def _give_back(self, channel: Channel) -> None:
        due = self._debt.due(channel) if not self._lying[channel] else None
        if due is not None:
            self.send(Channel.CREDIT, due)

    def _frames(self) -> Iterator[Frame]:
        """Yield what was left lying and may be taken now, then what comes."""
        for channel, lying in self._lying.items():
            while lying and channel not in self._held:
                yield channel, lying.popleft()
            if channel not in self._held:
                self._give_back(channel)
        for channel, parts in self._reader.frames():
            if channel in METERED and (channel in self._held or self._lying[channel]):
                self._lying[channel].append(parts)
            else:
                yield channel, parts

    def _readable(self) -> None:
        if self._closed:
            return
        until = time.monotonic() + _READ_TURN
        try:
            for channel, parts in self._frames():
                self._take(channel, parts)
                if self._closed:
                    return
                if time.monotonic() > until:
                    # Whole frames may stand in the reader's buffer: come back without waiting for
                    # the descriptor, but let the frontends' requests (an interrupt) in first.
                    assert self._loop is not None
                    self._loop.call_soon(self._readable)
                    return
        except EOFError:
            self._take_the_rest()
            self._ended("")
        except WireError as error:
            # A child that breaks the protocol is not reasoned with.
            self._ended(f"it broke the protocol: {error}")
        except MxcKernelError as error:
            self._end(error)
        except Exception as error:  # a bug of ours must end in an answer, not a hang
            import logging  # costs 10 ms, and this module is loaded before the sandbox is launched

            logging.getLogger(__name__).exception("the host failed on a frame")
            self._ended(f"the host failed on what it sent: {error!r}")

    def _take(self, channel: Channel, parts: list[bytes]) -> None:
        if not self._greeted:
            self._greet(channel, parts)
        elif channel is Channel.CREDIT:
            self._outgoing.allowance.refill(parts)
            self._flush()
        else:
            self.alive = True
            self.on_frame(channel, parts)

    def _take_the_rest(self) -> None:
        """Take what was left lying when the child has ended; there is no more to hold back."""
        for channel, lying in self._lying.items():
            while lying and not self._closed:
                self._take(channel, lying.popleft())

    def _greet(self, channel: Channel, parts: list[bytes]) -> None:
        if channel is not Channel.HELLO or len(parts) != 2 or parts[0] != self._nonce:
            raise WireError("no handshake")
        try:
            facts = json.loads(parts[1])
        except (ValueError, RecursionError):
            raise WireError("no handshake") from None
        self.facts = facts if isinstance(facts, dict) else {}
        self.attested = self.on_hello(self.facts)
        self._greeted = True
        # Nothing of the user's was written before: the pipe could carry code to be completed.
        self._outgoing.opened = True
        self._flush()
        assert self._ready is not None
        if not self._ready.done():
            self._ready.set_result(None)

    def _diagnostics_readable(self) -> None:
        if not self.process.read_diagnostics() and self._loop is not None:
            self.process.unwatch(self._loop, diagnostics_only=True)

    def _ended(self, violation: str) -> None:
        self.close()
        enforcement = self.process.enforcement
        if enforcement is not None and enforcement.crossing is not None:
            from mxc_kernel.crossings import limit_error

            self._end(limit_error(enforcement.crossing, killed=True))
            return
        status = self.process.poll()
        words = self._last_words()
        if violation:
            message = f"the sandbox was ended because {violation}{words}"
        elif not self.alive:
            message = f"the sandbox did not start (exit status {status}){self._limits()}{words}"
        else:
            limits = self._limits() if status == _KILLED else ""
            if enforcement is not None and status == _NO_ROOM:
                limits = f": {enforcement.why_no_room()}"
            message = f"the sandboxed Python died ({_describe_status(status)}){limits}{words}"
        remedy = (
            "Run the cell again: it gets a fresh sandbox."
            if self.alive
            else "Run `mxc-kernel doctor`."
        )
        self._end(SandboxExecutionError(message, remedy=remedy))

    def _end(self, error: MxcKernelError) -> None:
        self.close()
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
        self.on_exit(error)

    def _limits(self) -> str:
        """Name the limits that the sandbox hit, by the host's own count."""
        group = self.process.group
        if group is None:
            return ""
        hit = " and ".join(filter(None, (group.memory_hit(), group.processes_hit())))
        return f": {hit}" if hit else ""

    def _last_words(self) -> str:
        words = self.process.diagnostics.strip()[-2000:]
        return f"; it said:\n{words}" if words else ""


def _describe_status(status: int | None) -> str:
    """Say in words how the workload ended. The status is the child's word, not evidence."""
    if status is None:
        return "no exit status"
    if status > 128:
        try:
            return f"killed by {signal.Signals(status - 128).name}"
        except ValueError:
            pass
    return f"exit status {status}"
