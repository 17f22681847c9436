"""The STATE frames: runs dump and load between two cells, as if they were one.

The reader of the pipe posts a message of our own into ipykernel's shell channel. So the work waits
for a running cell, runs on the cells' thread and in the cells' context (numpy keeps its print
options in a context variable), and ipykernel tells nobody about it.
"""

from __future__ import annotations

import json
import os
import queue
from typing import TYPE_CHECKING, Any

from mxc_kernel.wire import Buffer, Channel
from mxc_kernel.worker.process_state import remember_start
from mxc_kernel.worker.reasons import reason_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mxc_kernel.worker.snapshot import Report
    from mxc_kernel.worker.transport import Transport

__all__ = ["StateExchange"]

_CHUNK = 1 << 20  # bytes in one frame
_WAITING = 8  # chunks read ahead of a load; beyond that the host gets no credit for more


class StateExchange:
    """Answers the host's STATE frames.

    ``dump``, or ``export`` for some names, is answered by ``chunk`` frames and ``dumped``; a
    ``load`` behind ``chunk`` frames by ``loaded``. A ``merge`` before them says that they are an
    export. The bytes in between mean nothing to the host.

    Args:
        transport: where the answers go.
        shell: IPython's shell, before any cell has run.
        scratch: the private folder that is part of the state.
    """

    def __init__(self, transport: Transport, shell: Any, scratch: str) -> None:
        self._transport = transport
        self._shell = shell
        self._scratch = scratch
        self._chunks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._loading = False
        transport.full = self._full
        # Nobody else can guess it, so no message of a frontend is taken for this one.
        header = {"msg_id": f"mxc-{os.urandom(16).hex()}", "msg_type": "mxc_state", "session": ""}
        self._header = json.dumps(header).encode()
        remember_start(scratch)

    @property
    def message(self) -> list[bytes]:
        """The message to post: header, parent, metadata and content."""
        return [self._header, b"{}", b"{}", b"{}"]

    def receive(self, parts: list[bytes], post: Callable[[list[bytes]], None]) -> None:
        """Take one frame; called in the thread that reads the pipe.

        Args:
            parts: the frame's.
            post: puts a message into ipykernel's shell channel.
        """
        operation = parts[0] if parts else b""
        if operation == b"dump":
            self._work.put(self._dump)
            post(self.message)
        elif operation == b"export" and len(parts) == 3:
            names, objects = json.loads(parts[1]), parts[2] == b"objects"
            self._work.put(lambda: self._export(names, objects))
            post(self.message)
        elif operation == b"merge" and len(parts) == 3:
            names, objects = json.loads(parts[1]), parts[2] == b"objects"
            self._loading = True
            self._work.put(lambda: self._merge(names, objects))
            post(self.message)
        elif operation in (b"chunk", b"load"):
            if not self._loading:
                self._loading = True
                self._work.put(self._load)
                post(self.message)
            if operation == b"load":
                self._loading = False
            self._chunks.put(parts[1] if operation == b"chunk" else None)

    def _full(self) -> bool:
        """Whether enough lies here that the host should wait; the pipe's reader never does."""
        return self._chunks.qsize() >= _WAITING

    def _taken(self) -> None:
        self._transport.give_back(Channel.STATE)

    def is_call(self, message: Sequence[Any]) -> bool:
        """Return whether a message, as ipykernel's shell channel delivers it, is the posted one."""
        return len(message) >= 4 and bytes(message[-4]) == self._header

    def work(self) -> None:
        """Do what the host asked for next."""
        self._work.get()()

    def _dump(self) -> None:
        from mxc_kernel.worker import snapshot  # imports cloudpickle; most sessions never need it

        self._give(lambda sink: snapshot.dump(self._shell, sink, scratch=self._scratch))

    def _export(self, names: list[str], objects: bool) -> None:
        from mxc_kernel.worker import exchange

        self._give(lambda sink: exchange.export(self._shell, sink, names, objects=objects))

    def _give(self, dump: Callable[[ChunkSink], Report]) -> None:
        sink = ChunkSink(self._transport)
        try:
            report = dump(sink)
            sink.flush()
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the host waits for an answer
            content: dict[str, Any] = {"names": 0, "lost": [], "error": reason_for(error)}
        else:
            content = report.content(bytes=sink.written)
        self._answer(b"dumped", content)

    def _load(self) -> None:
        from mxc_kernel.worker import snapshot

        self._take(lambda source: snapshot.load(self._shell, source, scratch=self._scratch))

    def _merge(self, names: list[str], objects: bool) -> None:
        from mxc_kernel.worker import exchange

        self._take(lambda source: exchange.merge(self._shell, source, names, objects=objects))

    def _take(self, load: Callable[[ChunkSource], Report]) -> None:
        source = ChunkSource(self._chunks, self._taken)
        try:
            content = load(source).content()
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001
            content = {"names": 0, "lost": [], "error": reason_for(error)}
        source.skip()
        self._answer(b"loaded", content)

    def _answer(self, operation: bytes, content: dict[str, Any]) -> None:
        self._transport.send(Channel.STATE, [operation, json.dumps(content).encode()])


class ChunkSink:
    """Cuts a stream into frames: small writes are gathered, large ones go from where they lie."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._gathered = bytearray()
        self.written = 0

    def write(self, data: Buffer) -> None:
        """Send ``data``, or keep it with what comes next if it is short."""
        view = memoryview(data).cast("B")
        self.written += view.nbytes
        if len(self._gathered) + view.nbytes > _CHUNK:
            self.flush()
        if view.nbytes < _CHUNK // 16:
            self._gathered += view
            return
        self.flush()
        for start in range(0, view.nbytes, _CHUNK):
            self._transport.send(Channel.STATE, [b"chunk", view[start : start + _CHUNK]])

    def flush(self) -> None:
        """Send what was gathered."""
        if self._gathered:
            self._transport.send(Channel.STATE, [b"chunk", self._gathered])
            self._gathered = bytearray()


class ChunkSource:
    """The stream as it was, from a queue of chunks that None ends.

    Args:
        chunks: the queue.
        on_taken: called after each chunk that was taken out.
    """

    def __init__(
        self, chunks: queue.SimpleQueue[bytes | None], on_taken: Callable[[], None]
    ) -> None:
        self._chunks = chunks
        self._on_taken = on_taken
        self._chunk = memoryview(b"")
        self._ended = False

    def readinto(self, target: memoryview) -> None:
        """Fill ``target``.

        Raises:
            EOFError: the stream ended before.
        """
        filled = 0
        while filled < len(target):
            if not self._chunk:
                self._next()
            part = self._chunk[: len(target) - filled]
            target[filled : filled + len(part)] = part
            self._chunk = self._chunk[len(part) :]
            filled += len(part)

    def skip(self) -> None:
        """Take the rest of the stream out of the queue."""
        while not self._ended:
            self._ended = self._chunks.get() is None
            self._on_taken()

    def _next(self) -> None:
        chunk = None if self._ended else self._chunks.get()
        self._on_taken()
        if chunk is None:
            self._ended = True
            raise EOFError("the state is not whole")
        self._chunk = memoryview(chunk)
