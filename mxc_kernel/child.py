"""The host's end of the pipes to one sandboxed child.

Started before the event loop exists, so that the child's start-up and the host's own imports run
side by side; :meth:`Child.attach` hands the descriptors to the loop afterwards.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mxc_kernel.errors import SandboxExecutionError, SandboxTimeoutError
from mxc_kernel.wire import Buffer, Channel, FrameReader, WireError, encode

if TYPE_CHECKING:
    import asyncio

    from mxc_kernel.mxc.launcher import SandboxProcess

__all__ = ["Child"]

log = logging.getLogger(__name__)

_WRITE_AT_ONCE = 64  # buffers in one gather write; IOV_MAX is 1024 and more gains nothing
_BACKLOG = 16 << 20  # unsent bytes from which a producer should wait
_READ_TURN = 0.005  # seconds of frames handled before the loop may turn to something else


class Child:
    """Frames to and from one sandbox.

    Args:
        process: the running sandbox.
        bundle: the worker's code, sent before the first frame.

    Attributes:
        on_frame: called with the channel and parts of every frame after the handshake.
        on_exit: called once with the error that describes the child's end, unless :meth:`close`
            was called first.
        alive: the child has come as far as sending messages.
        facts: what the child said of itself in its HELLO; untrusted.
    """

    def __init__(self, process: SandboxProcess, bundle: bytes) -> None:
        self.process = process
        self.on_frame: Callable[[Channel, list[bytes]], None] = lambda _channel, _parts: None
        self.on_exit: Callable[[SandboxExecutionError], None] = lambda _error: None
        self.alive = False
        self.facts: dict[str, object] = {}
        self._nonce = secrets.token_bytes(16)
        self._reader = FrameReader(process.stdout)
        self._unsent: deque[memoryview] = deque()
        self._backlog = 0
        self._paused = False
        self._drained: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[None] | None = None
        self._greeted = False
        self._closed = False
        self._wants_to_write = False
        self._queue([bundle])

    def greet(self, settings: Mapping[str, object]) -> None:
        """Send the HELLO, with what the worker is to know before it starts ipykernel."""
        self.send(Channel.HELLO, [self._nonce, json.dumps(settings).encode()])

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the loop read and write the descriptors from now on."""
        self._loop = loop
        self._ready = loop.create_future()
        # The error also reaches on_exit; nobody may be waiting for the handshake any more.
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        loop.add_reader(self.process.stdout, self._readable)
        loop.add_reader(self.process.stderr, self._diagnostics_readable)
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
        self._queue(encode(channel, parts))

    @property
    def backed_up(self) -> bool:
        """Whether so much waits to be written that a producer should wait."""
        return self._backlog > _BACKLOG

    async def drained(self) -> None:
        """Wait until the child has taken what was backed up, or is gone."""
        import asyncio

        while self.backed_up and not self._closed:
            self._drained = asyncio.Event()
            await self._drained.wait()

    def pause(self) -> None:
        """Read nothing from the child, which then waits when its pipe is full."""
        if self._loop is not None and not self._closed:
            self._paused = True
            self._loop.remove_reader(self.process.stdout)

    def resume(self) -> None:
        """Read again."""
        if self._loop is not None and self._paused and not self._closed:
            self._paused = False
            self._loop.add_reader(self.process.stdout, self._readable)
            self._loop.call_soon(self._readable)  # whole frames may stand in the reader's buffer

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in what the child runs, and SIGINT in its subprocesses."""
        if not self.process.interrupt():
            self.send(Channel.SIGNAL, [b"interrupt"])

    def close(self) -> None:
        """Kill the sandbox, wait until it is gone and let go of the descriptors."""
        if self._closed:
            return
        self._closed = True
        self._forget_unsent()
        if self._loop is not None:
            self._loop.remove_reader(self.process.stdout)
            self._loop.remove_reader(self.process.stderr)
            self._loop.remove_writer(self.process.stdin)
        self.process.close()

    @property
    def closed(self) -> bool:
        """Whether the sandbox is gone."""
        return self._closed

    def _queue(self, buffers: Sequence[Buffer]) -> None:
        if self._closed:
            return
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        self._unsent.extend(views)
        self._backlog += sum(map(len, views))
        if not self._wants_to_write:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                written = os.writev(
                    self.process.stdin, [self._unsent[i] for i in range(self._batch())]
                )
                self._backlog -= written
                while written:
                    first = self._unsent[0]
                    if written < len(first):
                        self._unsent[0] = first[written:]
                        break
                    written -= len(first)
                    self._unsent.popleft()
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._forget_unsent()  # the end of its stdout tells the rest
        if self._drained is not None and not self.backed_up:
            self._drained.set()
        self._watch_writes(bool(self._unsent))

    def _forget_unsent(self) -> None:
        self._unsent.clear()
        self._backlog = 0
        if self._drained is not None:
            self._drained.set()

    def _batch(self) -> int:
        return min(len(self._unsent), _WRITE_AT_ONCE)

    def _watch_writes(self, wanted: bool) -> None:
        if self._loop is None or wanted == self._wants_to_write:
            return
        self._wants_to_write = wanted
        if wanted:
            self._loop.add_writer(self.process.stdin, self._flush)
        else:
            self._loop.remove_writer(self.process.stdin)

    def _readable(self) -> None:
        if self._closed or self._paused:
            return
        until = time.monotonic() + _READ_TURN
        try:
            for channel, parts in self._reader.frames():
                if self._greeted:
                    self.alive = True
                    self.on_frame(channel, parts)
                else:
                    self._greet(channel, parts)
                if self._closed or self._paused:
                    return
                if time.monotonic() > until:
                    # Whole frames may stand in the reader's buffer: come back without waiting for
                    # the descriptor, but let the frontends' requests (an interrupt) in first.
                    assert self._loop is not None
                    self._loop.call_soon(self._readable)
                    return
        except EOFError:
            self._ended("")
        except WireError as error:
            # A child that breaks the protocol is not reasoned with.
            self._ended(f"it broke the protocol: {error}")
        except Exception as error:  # a bug of ours must end in an answer, not a hang
            log.exception("the host failed on a frame")
            self._ended(f"the host failed on what it sent: {error!r}")

    def _greet(self, channel: Channel, parts: list[bytes]) -> None:
        if channel is not Channel.HELLO or len(parts) != 2 or parts[0] != self._nonce:
            raise WireError("no handshake")
        try:
            facts = json.loads(parts[1])
        except (ValueError, RecursionError):
            raise WireError("no handshake") from None
        self.facts = facts if isinstance(facts, dict) else {}
        self._greeted = True
        assert self._ready is not None
        if not self._ready.done():
            self._ready.set_result(None)

    def _diagnostics_readable(self) -> None:
        if not self.process.read_diagnostics() and self._loop is not None:
            self._loop.remove_reader(self.process.stderr)

    def _ended(self, violation: str) -> None:
        self.close()
        status = self.process.poll()
        words = self._last_words()
        if violation:
            message = f"the sandbox was ended because {violation}{words}"
        elif not self.alive:
            message = f"the sandbox did not start (exit status {status}){self._limits()}{words}"
        else:
            limits = self._limits() if status == 128 + signal.SIGKILL else ""
            message = f"the sandboxed Python died ({_describe_status(status)}){limits}{words}"
        remedy = (
            "Run the cell again: it gets a fresh sandbox."
            if self.alive
            else "Run `mxc-kernel doctor`."
        )
        error = SandboxExecutionError(message, remedy=remedy)
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
