"""A file of chained JSON lines and the head beside it, written so that what is there is whole.

A line is written first and the head, in place, second. So a head is never ahead of its lines as
long as the machine runs; a process that dies between the two leaves it one line behind.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from mxc_kernel.audit.chain import HEAD_BYTES, START, Chain, Head

__all__ = ["Ending", "Lines", "create", "ending", "read_head"]

_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_TURN = 1 << 20  # bytes read at a time from the end of a file


def create(path: str) -> int:
    """Create a file that only this user can read.

    Raises:
        OSError: it exists or cannot be made.
    """
    return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)


class Lines:
    """Appends lines to a chain.

    Args:
        fd: the file that gets the lines; owned from now on.
        head_fd: the file that gets the head; owned from now on.
        chain: how they are linked.
        head: the last line that there is.
        size: bytes of the file.

    Attributes:
        head: the last line that was written.
        size: bytes of the file.
        fsync: whether a line is on the disk itself, not only with the system, when `append`
            returns.
    """

    def __init__(
        self, fd: int, head_fd: int, chain: Chain, head: Head | None = None, size: int = 0
    ) -> None:
        self.head = head or Head()
        self.size = size
        self.fsync = False
        self._fd = fd
        self._head_fd = head_fd
        self._chain = chain

    def append(self, fields: Mapping[str, Any]) -> Head:
        """Write one line, whole or not at all; it gets its number and link.

        Returns:
            The head with it.

        Raises:
            OSError: it could not be written. All is as before.
        """
        record = {"v": 1, "n": self.head.length, **fields, "prev": self.head.digest}
        line = orjson.dumps(record)
        head = Head(self.head.length + 1, self._chain.digest(line))
        try:
            _write(self._fd, line + b"\n", self.size)
            _write(self._head_fd, head.encode(), 0)
            if self.fsync:
                _sync(self._fd)
                _sync(self._head_fd)
        except OSError:
            self._take_back()
            raise
        self.head = head
        self.size += len(line) + 1
        return head

    def go_on_in(self, fd: int) -> None:
        """Go on in another, empty file."""
        os.close(self._fd)
        self._fd, self.size = fd, 0

    def close(self) -> None:
        """Close both files."""
        os.close(self._fd)
        os.close(self._head_fd)

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._fd, self.size)
            _write(self._head_fd, self.head.encode(), 0)
        except OSError:  # the next line is written over what is left
            return


def _write(fd: int, data: bytes, at: int) -> None:
    """Write all of the data at a place of a file."""
    if sys.platform == "win32":
        os.lseek(fd, at, os.SEEK_SET)
    while data:
        if sys.platform == "win32":
            written = os.write(fd, data)
        else:
            written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written


def _sync(fd: int) -> None:
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def read_head(path: str) -> Head | None:
    """Return the head that stands in a file; None where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    try:
        return Head.decode(os.read(fd, HEAD_BYTES + 1))
    finally:
        os.close(fd)


class Ending(NamedTuple):
    """How a file of lines ends.

    Attributes:
        last: the last whole line, parsed; None where there is none, or it is no JSON object.
        head: the end of the chain by that line.
        size: bytes up to its end.
        fragment: what stands behind it: a line that was not finished.
    """

    last: dict[str, Any] | None
    head: Head
    size: int
    fragment: bytes


def ending(fd: int, chain: Chain) -> Ending:
    """Look at how a file of lines ends, without reading more of it than that takes."""
    size = os.fstat(fd).st_size
    tail = b""
    start = size
    while start and tail.count(b"\n") < 2:
        begin = max(0, start - _TURN)
        os.lseek(fd, begin, os.SEEK_SET)
        tail = os.read(fd, start - begin) + tail
        start = begin
    whole, newline, fragment = tail.rpartition(b"\n")
    if not newline:
        return Ending(None, Head(), 0, fragment)
    line = whole.rpartition(b"\n")[2]
    try:
        last = orjson.loads(line)
    except orjson.JSONDecodeError:
        last = None
    number = last.get("n") if isinstance(last, dict) else None
    count = number + 1 if isinstance(number, int) else 0
    head = Head(count, chain.digest(line) if count else START)
    return Ending(last if count else None, head, size - len(fragment), fragment)
