"""The index: the chain of a user's sessions, with the head of each once it has ended.

A session's own chain cannot tell that its last records were cut off; the index can. Kernels of one
user share it under a lock, at their start and end only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from mxc_kernel.audit import locking
from mxc_kernel.audit.chain import Chain, Head
from mxc_kernel.audit.lines import Ending, Lines, create, ending, read_head

__all__ = ["Index", "now", "part", "parts"]

_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def now() -> str:
    """Return the time as records have it: UTC, ISO 8601, microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def part(session: str, number: int = 1) -> str:
    """Return the name of a session's file, or of one of those that follow it."""
    return f"{session}.jsonl" if number == 1 else f"{session}.{number}.jsonl"


def parts(folder: str, session: str) -> list[str]:
    """Return the paths of a session's files, in order, up to the first that is not there."""
    found: list[str] = []
    while os.path.lexists(path := f"{folder}/sessions/{part(session, len(found) + 1)}"):
        found.append(path)
    return found


class Index:
    """The index of one audit folder.

    Args:
        folder: the audit folder.
        chain: how the sessions are linked.
        fsync: whether an entry has to be on the disk itself.
    """

    def __init__(self, folder: str, chain: Chain, *, fsync: bool = False) -> None:
        self._folder = folder
        self._chain = chain
        self._fsync = fsync

    def open_session(self, session: str, first: Callable[[Head], Lines]) -> tuple[Lines, Head]:
        """Enter a session.

        Args:
            session: its name.
            first: creates its files and writes its first record, which is to hold the head that it
                is given: so each knows the other.

        Returns:
            What that made, and the index's head with the session.

        Raises:
            OSError: the index or the session's files cannot be written.
        """
        with self._opened() as index:
            self._seal_dead(index)
            try:
                lines = first(index.head)
                head = self._add(index, "opened", session, first=lines.head.digest)
            except OSError:
                # What the index does not know must not be there. The files are closed by whoever
                # made them, or with the last reference to them.
                for path in (*parts(self._folder, session), f"{self._folder}/live/{session}"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
                raise
        return lines, head

    def close_session(self, session: str, head: Head) -> Head:
        """Take note of a session's end.

        Raises:
            OSError: the index cannot be written. The session is sealed later, like a dead one.
        """
        with self._opened() as index:
            end = self._add(index, "closed", session, records=head.length, head=head.digest)
            os.unlink(f"{self._folder}/live/{session}")
        return end

    def remove(self, age: float) -> Head | None:
        """Delete the trails of ended sessions that were last written so many seconds ago.

        The index says of each that it was removed, and when.

        Returns:
            The index's head, if there were any.

        Raises:
            OSError: the index cannot be written.
        """
        head = None
        with self._opened() as index:
            for session in self._older(time.time() - age):
                head = self._add(index, "removed", session)
                for path in reversed(parts(self._folder, session)):
                    os.unlink(path)
        return head

    # --- inside ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Lines]:
        with locking.held(f"{self._folder}/lock"):
            path = f"{self._folder}/index.jsonl"
            fresh = not os.path.lexists(path)
            fd = create(path) if fresh else os.open(path, _FLAGS)
            head_path = f"{self._folder}/index.head"
            before = read_head(head_path)
            head_fd = os.open(head_path, _FLAGS | os.O_CREAT, 0o600)
            end = ending(fd, self._chain)
            lines = Lines(fd, head_fd, self._chain, end.head, end.size)
            lines.fsync = self._fsync
            try:
                self._mend(lines, before, end)
                yield lines
            finally:
                lines.close()

    def _mend(self, index: Lines, before: Head | None, end: Ending) -> None:
        """Take note of an index that does not end as its head says; `verify` reports it."""
        expected = before or Head()
        # Nobody can tell the digest that a chain with another key comes to.
        mine = end.last is None or end.last.get("chain") == self._chain.name
        whole = expected.length == end.head.length and (expected == end.head or not mine)
        if not end.fragment and (whole or expected.length == end.head.length - 1):
            return
        more = self._put_aside("index", end.fragment)
        missing = {"records": expected.length, "head": expected.digest}
        self._add(index, "mended", None, expected=missing, **more)

    def _seal_dead(self, index: Lines) -> None:
        """Give those sessions an end whose kernels have died without one."""
        for session in sorted(os.listdir(f"{self._folder}/live")):
            path = f"{self._folder}/live/{session}"
            try:
                head_fd = os.open(path, _FLAGS)
            except OSError:
                continue
            try:
                if locking.take(head_fd):
                    self._seal(index, session)
                    os.unlink(path)
            finally:
                os.close(head_fd)

    def _seal(self, index: Lines, session: str) -> None:
        expected = read_head(f"{self._folder}/live/{session}") or Head()
        paths = parts(self._folder, session)
        more: dict[str, Any] = {}
        if paths and not self._has_my_chain(paths[0]):
            # Nobody without its key can tell how it ends; the dead kernel's own word is kept.
            self._add(
                index,
                "sealed",
                session,
                records=expected.length,
                head=expected.digest,
                unchecked=True,
            )
            return
        end = Ending(None, Head(), 0, b"")
        for path in reversed(paths):
            fd = os.open(path, _FLAGS)
            try:
                end = ending(fd, self._chain)
                if end.fragment:
                    more = self._put_aside(session, end.fragment)
                    os.ftruncate(fd, end.size)
            finally:
                os.close(fd)
            if end.last is not None:
                break  # a part that was begun and got no line does not say where the chain ends
        if expected != end.head:
            more["expected"] = {"records": expected.length, "head": expected.digest}
        self._add(index, "sealed", session, records=end.head.length, head=end.head.digest, **more)

    def _has_my_chain(self, path: str) -> bool:
        with open(path, "rb") as file:
            try:
                first = orjson.loads(file.readline())
                return (first["chain"], first["key"]) == (self._chain.name, self._chain.fingerprint)
            except (ValueError, TypeError, KeyError):
                return self._chain.fingerprint is None

    def _put_aside(self, name: str, fragment: bytes) -> dict[str, Any]:
        """Keep a half-written line beside the trail, so that the trail can go on."""
        if not fragment:
            return {}
        digest = hashlib.sha256(fragment).hexdigest()
        with contextlib.suppress(FileExistsError):
            fd = create(f"{self._folder}/aside/{name}.{digest[:16]}")
            try:
                os.write(fd, fragment)
            finally:
                os.close(fd)
        return {"fragment": _fragment(fragment)}

    def _add(self, index: Lines, event: str, session: str | None, **more: Any) -> Head:
        named: Mapping[str, Any] = {} if session is None else {"session": session}
        fields = {"time": now(), "event": event, **named, "chain": self._chain.name, **more}
        return index.append(fields)

    def _older(self, limit: float) -> list[str]:
        """Return the ended sessions whose last file is older than a time since the epoch."""
        live = set(os.listdir(f"{self._folder}/live"))
        sessions = {name.partition(".")[0] for name in os.listdir(f"{self._folder}/sessions")}
        return [
            session
            for session in sorted(sessions - live)
            if (paths := parts(self._folder, session)) and os.stat(paths[-1]).st_mtime < limit
        ]


def _fragment(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
