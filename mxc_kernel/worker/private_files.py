"""Carries the private scratch folder, which is a new and empty one after a relaunch.

What a cell wrote there, and what ``%pip`` installed there, is as much the session's state as its
variables. Files go as a stream of tar, up to a limit; the caches of libraries stay behind.
"""

from __future__ import annotations

import os
import struct
import tarfile
from typing import TYPE_CHECKING, Any, cast

from mxc_kernel.worker.reasons import reason_for

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["dump", "load"]

_MAX_BYTES = 256 << 20  # of all files together; they lie in memory on both sides
_MAX_FILES = 50_000
_BLOCK = 1 << 20  # bytes of tar written at a time
_LEFT_OUT = frozenset({"__pycache__", ".cache", ".ipython", ".config", "pip-cache"})


def dump(sink: Any, scratch: str) -> dict[str, str]:
    """Write the folder's files as blocks that an empty block ends; return what was left out."""
    lost: dict[str, str] = {}
    blocks = _BlockWriter(sink)
    if scratch and os.path.isdir(scratch):
        with tarfile.open(fileobj=cast("Any", blocks), mode="w|", bufsize=_BLOCK) as archive:
            room = _MAX_BYTES
            for count, (path, name, size) in enumerate(_files(scratch)):
                if size > room or count >= _MAX_FILES:
                    lost[path] = "the private files together are too large to carry"
                    continue
                room -= size
                try:
                    archive.add(path, name, recursive=False)
                except OSError as error:
                    lost[path] = reason_for(error)
    blocks.end()
    return _summary(lost)


def load(source: Any, scratch: str) -> dict[str, str]:
    """Unpack what :func:`dump` wrote into the folder; return what could not be."""
    blocks = _BlockReader(source)
    lost: dict[str, str] = {}
    if blocks.empty:
        return lost
    try:
        if scratch:
            with tarfile.open(fileobj=cast("Any", blocks), mode="r|", bufsize=_BLOCK) as archive:
                archive.extraction_filter = getattr(tarfile, "tar_filter", None)
                for member in archive:
                    _extract(archive, member, scratch, lost)
    finally:
        blocks.skip()
    return _summary(lost)


def _extract(
    archive: tarfile.TarFile, member: tarfile.TarInfo, scratch: str, lost: dict[str, str]
) -> None:
    target = os.path.join(scratch, member.name)
    if os.path.lexists(target) and not member.isdir():
        return  # made by this child already, and perhaps for another interpreter
    try:
        archive.extract(member, scratch)
    except (OSError, tarfile.TarError) as error:
        lost[target] = reason_for(error)


def _summary(lost: dict[str, str], most: int = 10) -> dict[str, str]:
    """Name the first few; thousands of small files would drown everything else."""
    shown = dict(list(lost.items())[:most])
    if len(lost) > most:
        shown[f"{len(lost) - most} more private files"] = "as above"
    return shown


def _files(scratch: str) -> Iterator[tuple[str, str, int]]:
    """Yield path, name below scratch, and size of all folders, files and symbolic links."""
    waiting = [scratch]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                name = os.path.relpath(entry.path, scratch)
                if entry.name in _LEFT_OUT:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    yield entry.path, name, 0
                elif entry.is_symlink():
                    yield entry.path, name, 0
                elif entry.is_file(follow_symlinks=False):
                    yield entry.path, name, entry.stat(follow_symlinks=False).st_size


class _BlockWriter:
    """A file for tarfile: each write becomes a block with its length in front."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    def write(self, data: bytes) -> int:
        if data:
            self._sink.write(struct.pack(">Q", len(data)))
            self._sink.write(data)
        return len(data)

    def end(self) -> None:
        self._sink.write(struct.pack(">Q", 0))


class _BlockReader:
    """A file for tarfile that ends at the empty block."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._block = b""
        self._ended = False
        self._next()
        self.empty = self._ended

    def read(self, count: int) -> bytes:
        parts = []
        while count and self._block:
            part, self._block = self._block[:count], self._block[count:]
            parts.append(part)
            count -= len(part)
            if not self._block:
                self._next()
        return b"".join(parts)

    def skip(self) -> None:
        """Read to the end, so that what follows in the stream can be read."""
        while not self._ended:
            self._next()

    def _next(self) -> None:
        if self._ended:
            return
        head = bytearray(8)
        self._source.readinto(memoryview(head))
        (size,) = struct.unpack(">Q", head)
        block = bytearray(size)
        self._source.readinto(memoryview(block))
        self._block = bytes(block)
        self._ended = not size
