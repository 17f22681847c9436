"""The user's names on their way from one child to another, as opaque bytes.

The host never looks inside: both ends are untrusted, and only the new sandbox unpacks what the old
one packed. Chunks are passed on as they come; a snapshot keeps a copy of them in anonymous memory,
where no path leads to it.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mxc_kernel.child import Child
from mxc_kernel.errors import MxcKernelError, SandboxExecutionError, SandboxPolicyError
from mxc_kernel.wire import Channel

__all__ = ["AUTOMATIC", "Carried", "Carrier", "Snapshot", "Transfer"]

_TIMEOUT = 120.0  # seconds for a whole transfer
_NAMED = 200  # lost names that are told; a child could invent any number
_CHUNK = 1 << 20  # bytes of a snapshot sent at a time
_LARGEST = 16 << 30  # bytes of a state that is passed on at all
# A copy is kept so that names survive a child that dies. It costs the host as much memory as the
# state has, for as long as the session lasts, so that of a large state is not kept by itself.
AUTOMATIC = 256 << 20  # bytes


@dataclass(frozen=True)
class Carried:
    """What became of the names.

    Attributes:
        names: how many were carried. The child's word.
        lost: name and reason of those that could not be. The child's word.
        noted: name and remark of those that are not quite the same. The child's word.
    """

    names: int
    lost: tuple[tuple[str, str], ...] = ()
    noted: tuple[tuple[str, str], ...] = ()


class Snapshot:
    """The packed names of a session at one moment.

    Args:
        occasion: why it was taken, in words for the user.
        largest: bytes to keep at most; beyond that the snapshot is given up.

    Attributes:
        taken: when it was taken, in seconds since the epoch.
        carried: what it holds, once it is whole.
    """

    def __init__(self, occasion: str, largest: int = _LARGEST) -> None:
        self.occasion = occasion
        self.taken = time.time()
        self.carried: Carried | None = None
        self._largest = largest
        self._size = 0
        self._file: BinaryIO | None = _anonymous_file()

    def write(self, chunk: bytes) -> None:
        """Add a chunk, or give the snapshot up if it grows too large."""
        self._size += len(chunk)
        if self._size > self._largest:
            self.close()
        if self._file is not None:
            self._file.write(chunk)

    def finish(self, carried: Carried) -> bool:
        """Mark it as whole; false if it was given up."""
        if self._file is None:
            return False
        self._file.flush()
        self.carried = carried
        return True

    def chunks(self) -> Iterator[bytes]:
        """Yield what was written."""
        assert self._file is not None
        for start in range(0, self._size, _CHUNK):
            yield os.pread(self._file.fileno(), _CHUNK, start)

    def close(self) -> None:
        """Forget it."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _anonymous_file() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("mxc-names", os.MFD_CLOEXEC), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


class Transfer:
    """Moves names from a child or a snapshot into a child, a snapshot, or both.

    Args:
        source: where they are.
        target: the child that gets them, ready and idle; None to fill a snapshot only.
        copy: a snapshot to fill on the way.
        dump: the frame that asks a child for its names.
        begin: the frame that tells the target what it gets; none for a whole session.
        strict: refuse, before the target takes anything over, if a name cannot be packed.
    """

    def __init__(
        self,
        source: Child | Snapshot,
        target: Child | None = None,
        *,
        copy: Snapshot | None = None,
        dump: tuple[bytes, ...] = (b"dump",),
        begin: tuple[bytes, ...] = (),
        strict: bool = False,
    ) -> None:
        self.source = source
        self._target = target
        self._copy = copy
        self._dump = dump
        self._begin = begin
        self._strict = strict
        self._size = 0
        loop = asyncio.get_running_loop()
        self._packed: asyncio.Future[Carried] = loop.create_future()
        self._unpacked: asyncio.Future[Carried] = loop.create_future()
        self._resuming: asyncio.Task[None] | None = None

    async def run(self) -> Carried:
        """Carry the names.

        Raises:
            SandboxExecutionError: the target died, or it took too long; the source is unharmed.
            SandboxPolicyError: something cannot be carried, and that was asked to be refused.
        """
        try:
            return await asyncio.wait_for(self._carry(), _TIMEOUT)
        except TimeoutError:
            raise SandboxExecutionError(
                f"the session's names could not be carried within {_TIMEOUT:g} s; "
                "nothing was changed",
                remedy="Delete what is large, or restart the kernel and ask again at its start.",
            ) from None
        finally:
            if self._resuming is not None:
                self._resuming.cancel()

    async def _carry(self) -> Carried:
        target = self._target
        if target is not None and self._begin:
            target.send(Channel.STATE, self._begin)
        if isinstance(self.source, Snapshot):
            assert target is not None
            for chunk in self.source.chunks():
                target.send(Channel.STATE, [b"chunk", chunk])
                await target.drained()
            packed = self.source.carried or Carried(0)
        else:
            self.source.send(Channel.STATE, self._dump)
            packed = await self._packed
            if self._copy is not None:
                self._copy.finish(packed)
        if self._strict and packed.lost:
            names = ", ".join(f"{name} ({reason})" for name, reason in packed.lost)
            raise SandboxPolicyError(
                f"these names could not be carried: {names}; nothing was changed",
                remedy="Delete them, or ask without --strict.",
            )
        if target is None:
            return packed
        target.send(Channel.STATE, [b"load"])
        unpacked = await self._unpacked
        return Carried(
            unpacked.names, (*packed.lost, *unpacked.lost), (*packed.noted, *unpacked.noted)
        )

    @property
    def packing(self) -> bool:
        """Whether the source has still to say that it has sent everything."""
        return isinstance(self.source, Child) and not self._packed.done()

    def frame(self, child: Child, parts: list[bytes]) -> None:
        """Take a STATE frame of one of the two children."""
        if child is self.source:
            self._from_source(parts)
        elif child is self._target:
            self._from_target(parts)

    def died(self, child: Child, error: MxcKernelError) -> None:
        """Take note that one of the two children is gone."""
        if child is self.source and not self._packed.done():
            # Its names are gone either way; the target starts without them.
            why = f"their sandbox died while packing them: {error.message}"
            self._packed.set_result(Carried(0, (("every name", why),)))
        elif child is self._target:
            for future in (self._packed, self._unpacked):
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # one of the two may have nobody waiting

    def _from_source(self, parts: list[bytes]) -> None:
        if parts[:1] == [b"chunk"] and len(parts) == 2:
            self._pass_on(parts[1])
        elif parts[:1] == [b"dumped"] and len(parts) == 2 and not self._packed.done():
            self._packed.set_result(_report(parts[1]))

    def _pass_on(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > _LARGEST and not self._packed.done():
            error = SandboxExecutionError(
                f"the session's names take more than {_LARGEST >> 30} GiB; nothing was changed",
                remedy="Delete what is large, or restart the kernel and ask again at its start.",
            )
            self._packed.set_exception(error)
        if self._packed.done():
            return
        if self._copy is not None:
            self._copy.write(chunk)
        if self._target is not None:
            self._target.send(Channel.STATE, [b"chunk", chunk])
            if self._target.backed_up and self._resuming is None:
                self._resuming = asyncio.get_running_loop().create_task(self._hold_back())

    async def _hold_back(self) -> None:
        """Let the source wait while the target is slower, so that the host holds no more."""
        assert isinstance(self.source, Child)
        assert self._target is not None
        self.source.hold(Channel.STATE)
        try:
            await self._target.drained()
        finally:
            self._resuming = None
            self.source.release(Channel.STATE)

    def _from_target(self, parts: list[bytes]) -> None:
        if parts[:1] == [b"loaded"] and len(parts) == 2 and not self._unpacked.done():
            self._unpacked.set_result(_report(parts[1]))


def _report(raw: bytes) -> Carried:
    """Read what a child says of a dump or a load."""
    try:
        report = json.loads(raw)
    except (ValueError, RecursionError):
        report = None
    if not isinstance(report, dict):
        return Carried(0, (("every name", "its sandbox did not say what became of it"),))
    lost = _pairs(report.get("lost"), "reason")
    if report.get("error"):
        lost = (("every name", str(report["error"])[:200]), *lost)
    names = report.get("names")
    return Carried(
        names if isinstance(names, int) else 0, lost, _pairs(report.get("notes"), "note")
    )


def _pairs(entries: object, what: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(entries, list):
        return ()
    return tuple(
        (str(entry.get("name"))[:200], str(entry.get(what))[:200])
        for entry in entries[:_NAMED]
        if isinstance(entry, dict)
    )


class Carrier:
    """Runs the transfers of a session, one at a time, and keeps its last snapshot.

    Attributes:
        snapshot: the last one that is whole, if any.
    """

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self._transfer: Transfer | None = None
        self._abandoned: list[Child] = []

    async def run(self, transfer: Transfer) -> Carried:
        """Run a transfer.

        Raises:
            MxcKernelError: it failed, see :meth:`Transfer.run`.
        """
        self._transfer = transfer
        try:
            return await transfer.run()
        except BaseException:
            if transfer.packing and isinstance(transfer.source, Child):
                self._abandoned.append(transfer.source)
                transfer.source.interrupt()
            raise
        finally:
            self._transfer = None

    async def checkpoint(self, child: Child) -> tuple[Snapshot, Carried]:
        """Take a snapshot of a child's names and keep it.

        Raises:
            MxcKernelError: it failed; the last snapshot stays.
        """
        snapshot = Snapshot("%checkpoint")
        try:
            carried = await self.run(Transfer(child, copy=snapshot))
        except BaseException:
            snapshot.close()
            raise
        self.keep(snapshot)
        return snapshot, carried

    async def share(
        self, source: Child, target: Child, names: tuple[str, ...], *, objects: bool
    ) -> None:
        """Pass some names from one child to another.

        Args:
            source: where they are.
            target: the child that gets them beside its own.
            names: which ones.
            objects: whether other than plain data may be passed.

        Raises:
            SandboxPolicyError: one cannot be passed; none is.
        """
        named = (json.dumps(names).encode(), b"objects" if objects else b"plain")
        transfer = Transfer(source, target, dump=(b"export", *named), begin=(b"merge", *named))
        carried = await self.run(transfer)
        if carried.lost:
            lost = ", ".join(f"{name} ({why})" for name, why in dict(carried.lost[::-1]).items())
            raise SandboxPolicyError(
                f"these names could not be passed on: {lost}",
                remedy="Pass plain data: numbers, text, lists, dicts and arrays; or --objects.",
            )

    def keep(self, snapshot: Snapshot) -> None:
        """Make a snapshot the last one, if it is whole."""
        if snapshot.carried is None:
            snapshot.close()
            return
        self.close()
        self.snapshot = snapshot

    def frame(self, child: Child, parts: list[bytes]) -> None:
        """Take a STATE frame of a child."""
        if child in self._abandoned:
            # What a transfer that was given up has left in the pipe belongs to no other.
            if parts[:1] == [b"dumped"]:
                self._abandoned.remove(child)
        elif self._transfer is not None:
            self._transfer.frame(child, parts)

    def died(self, child: Child, error: MxcKernelError) -> None:
        """Note that a child is gone."""
        if self._transfer is not None:
            self._transfer.died(child, error)

    def close(self) -> None:
        """Forget the snapshot."""
        if self.snapshot is not None:
            self.snapshot.close()
            self.snapshot = None
