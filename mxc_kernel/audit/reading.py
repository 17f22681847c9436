"""Reads trails back, cell by cell, for people. Whether a trail holds is `verify`'s to say."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from mxc_kernel.audit import locking
from mxc_kernel.audit.index import parts

__all__ = ["AuditedCell", "Wanted", "cells", "sessions"]


@dataclass(frozen=True)
class AuditedCell:
    """A cell as its records tell of it.

    Attributes:
        session: the session's first record; empty if it cannot be read.
        first: its pending record, or the one that says that it was refused.
        finished: its finished record; None where there is none.
        live: whether its kernel still writes.
    """

    session: Mapping[str, Any]
    first: Mapping[str, Any]
    finished: Mapping[str, Any] | None
    live: bool

    @property
    def status(self) -> str:
        """``ok``, ``error``, ``refused``, ``running``, or ``unfinished`` where its kernel died."""
        if self.finished is not None:
            return str(self.finished["status"])
        if self.first["kind"] == "refused":
            return "refused"
        return "running" if self.live else "unfinished"

    @property
    def error(self) -> str | None:
        """What ended it, if that was an error."""
        error = (self.finished or self.first).get("error")
        return str(error["kind"]) if error else None

    @property
    def denials(self) -> list[Mapping[str, Any]]:
        """What it reported as blocked."""
        return list(self.finished["denials"]) if self.finished is not None else []

    def plain(self) -> dict[str, Any]:
        """Return it as JSON-able data: its records as they are, and what they come to."""
        return {
            "session": self.first["session"],
            "notebook": self.session.get("notebook"),
            "run": self.session.get("run"),
            "status": self.status,
            "first": dict(self.first),
            "finished": None if self.finished is None else dict(self.finished),
        }


@dataclass(frozen=True)
class Wanted:
    """Which cells to read.

    Attributes:
        session: the beginning or the end of a session's name; empty for any.
        notebook: its path, and what its label ends with; None for any.
        denials: only those in which something was blocked, or that were refused.
        since: seconds since the epoch; None for any time.
    """

    session: str = ""
    notebook: tuple[str, str] | None = None
    denials: bool = False
    since: float | None = None

    def takes(self, session: Mapping[str, Any]) -> bool:
        """Whether a session may hold such cells, by its first record."""
        if self.notebook is None:
            return True
        path, mark = self.notebook
        name = str(session.get("notebook"))
        return name == path or name.endswith(mark)

    def picks(self, cell: AuditedCell) -> bool:
        """Whether a cell is one of them."""
        return not self.denials or bool(cell.denials) or cell.status == "refused"


def sessions(folder: str) -> list[str]:
    """Return the names of the sessions in an audit folder, oldest first.

    Raises:
        OSError: it cannot be read.
    """
    return sorted({name.partition(".")[0] for name in os.listdir(f"{folder}/sessions")})


def cells(folder: str, wanted: Wanted) -> Iterator[AuditedCell]:
    """Yield cells, oldest first by session.

    Lines that cannot be read are left out.

    Args:
        folder: the audit folder.
        wanted: which ones.

    Raises:
        OSError: it cannot be read.
    """
    for name in sessions(folder):
        if not (name.startswith(wanted.session) or name.endswith(wanted.session)):
            continue
        paths = parts(folder, name)
        if wanted.since is not None and _written(paths) < wanted.since:
            continue
        for cell in _cells_of(paths, _is_live(folder, name), wanted):
            if wanted.picks(cell):
                yield cell


def _written(paths: list[str]) -> float:
    return os.stat(paths[-1]).st_mtime if paths else 0.0


def _cells_of(paths: list[str], live: bool, wanted: Wanted) -> Iterator[AuditedCell]:
    session: dict[str, Any] = {}
    first: dict[int, dict[str, Any]] = {}
    finished: dict[int, dict[str, Any]] = {}
    since = "" if wanted.since is None else _stamp(wanted.since)
    for record in _records(paths):
        kind = record.get("kind")
        if kind == "session":
            session = record
            if not wanted.takes(session):
                return
        elif kind in ("pending", "refused") and record["time"] >= since:
            first[record["n"]] = record
        elif kind == "finished":
            finished[record["pending"]] = record
    for number, record in first.items():
        yield AuditedCell(session, record, finished.get(number), live)


def _records(paths: list[str]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with open(path, "rb") as file:
            for line in file:
                try:
                    record = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
                if isinstance(record, dict):
                    yield record


def _is_live(folder: str, name: str) -> bool:
    try:
        fd = os.open(f"{folder}/live/{name}", os.O_RDONLY)
    except OSError:
        return False
    try:
        return not locking.take(fd)
    finally:
        os.close(fd)


def _stamp(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
