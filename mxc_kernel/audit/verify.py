"""Checks an audit folder: every record in its place, every session as the index says it ended.

Reads only. What this proves, and what it cannot, is in docs/audit.md.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from mxc_kernel.audit import anchors as kept
from mxc_kernel.audit import locking
from mxc_kernel.audit.chain import Chain, Head
from mxc_kernel.audit.index import part, parts
from mxc_kernel.audit.lines import read_head
from mxc_kernel.audit.schema import entry_problem, record_problem
from mxc_kernel.audit.walk import BrokenChainError, Walk

__all__ = ["Finding", "Report", "verify"]

_SESSION = re.compile(r"([0-9]{8}T[0-9]{9}Z-[0-9a-f]{8})((?:\.[0-9]+)?)\.jsonl")


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Attributes:
        level: ``broken`` if records are missing, changed or not where they belong, else ``note``.
        where: a session's name, ``index``, or a file's name.
        what: one sentence without a full stop.
    """

    level: Literal["broken", "note"]
    where: str
    what: str


@dataclass
class Report:
    """What was found in an audit folder.

    Attributes:
        sessions: how many sessions the index lists.
        records: how many records they have.
        keyed: how many sessions are chained with the key that was given.
        head: the end of the index.
        findings: what else there is to say.
    """

    sessions: int = 0
    records: int = 0
    keyed: int = 0
    head: Head = field(default_factory=Head)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is broken."""
        return not any(finding.level == "broken" for finding in self.findings)

    def broken(self, where: str, what: str) -> None:
        """Add something that is broken."""
        self.findings.append(Finding("broken", where, what))

    def note(self, where: str, what: str) -> None:
        """Add something that a person may want to know."""
        self.findings.append(Finding("note", where, what))

    def plain(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {
            "ok": self.ok,
            "sessions": self.sessions,
            "records": self.records,
            "keyed": self.keyed,
            "index": {"entries": self.head.length, "head": self.head.digest},
            "findings": [vars(finding) for finding in self.findings],
        }


@dataclass
class _Session:
    """What the index says of a session."""

    name: str
    first: str
    chain: str
    end: Head | None = None
    removed: bool = False


def verify(folder: str, key: bytes | None = None, anchors: Iterable[bytes] = ()) -> Report:
    """Check an audit folder.

    Args:
        folder: it.
        key: the key of its chains. What was chained with a key cannot be checked without it.
        anchors: lines that were kept outside.

    Raises:
        OSError: it cannot be read.
    """
    return _Check(folder, key, kept.read(anchors)).run()


class _Check:
    def __init__(self, folder: str, key: bytes | None, anchors: dict[str, dict[int, str]]) -> None:
        self._folder = folder
        self._plain, self._keyed = Chain(), Chain(key) if key is not None else None
        self._anchors = anchors
        self._report = Report()
        self._lost_index = False

    def run(self) -> Report:
        report = self._report
        expected, live = self._snapshot()
        sessions = self._index(expected)
        report.sessions = len(sessions)
        for session in sessions.values():
            self._session(session, live.get(session.name))
        for name in sorted(live.keys() - sessions.keys()):
            if not live[name].writing:  # else it begins just now
                report.broken(name, "the index does not know it")
        for name in self._names("sessions"):
            match = _SESSION.fullmatch(name)
            of = match[1] if match else ""
            if self._lost_index:
                break  # nobody knows what belongs to it
            if of not in sessions and not (of in live and live[of].writing):
                report.broken(name, "the index does not know this file")
            elif match and name not in {part(of, n) for n in range(1, 1 + self._parts(of))}:
                report.broken(name, "the file before it is missing")
        for name in sorted(self._anchors.keys() - sessions.keys() - {kept.INDEX}):
            report.broken(name, "it was anchored, and the index does not know it")
        if self._keyed is not None and not report.keyed:
            report.broken("index", "no session was chained with this key")
        return report

    # --- what there is --------------------------------------------------------------------------

    def _snapshot(self) -> tuple[Head | None, dict[str, _Live]]:
        """Return the head of the index and those of open sessions, as of one moment."""
        while True:
            before, live = self._index_head(), self._live()
            if before == self._index_head():
                return before, live

    def _index_head(self) -> Head | None:
        return read_head(f"{self._folder}/index.head")

    def _live(self) -> dict[str, _Live]:
        found = {}
        for name in self._names("live"):
            path = f"{self._folder}/live/{name}"
            try:
                fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            except FileNotFoundError:
                continue
            try:
                found[name] = _Live(read_head(path), not locking.take(fd))
            finally:
                os.close(fd)
        return found

    def _names(self, below: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(f"{self._folder}/{below}"))
        return []

    def _parts(self, session: str) -> int:
        return len(parts(self._folder, session))

    # --- the index ------------------------------------------------------------------------------

    def _index(self, expected: Head | None) -> dict[str, _Session]:
        report = self._report
        sessions: dict[str, _Session] = {}
        path = f"{self._folder}/index.jsonl"
        if not os.path.lexists(path):
            if expected is not None or self._anchors:
                report.broken(kept.INDEX, "index.jsonl is missing")
            return sessions
        walk = Walk(self._chain_of, entry_problem, self._watched(kept.INDEX, expected))
        try:
            for entry in walk.lines([path]):
                self._enter(entry, sessions)
        except BrokenChainError as broken:
            report.broken(kept.INDEX, str(broken))
            self._lost_index = True
            return sessions
        report.head = walk.head
        # Other kernels may have written more since the head was read.
        self._compare(kept.INDEX, walk, expected, slack=None)
        if walk.fragment:
            report.note(kept.INDEX, "it ends with a half-written entry")
        return sessions

    def _enter(self, entry: dict[str, Any], sessions: dict[str, _Session]) -> None:
        report, event, name = self._report, entry["event"], entry.get("session", kept.INDEX)
        if entry["chain"] == self._plain.name and report.keyed:
            report.broken(kept.INDEX, f"entry {entry['n']} was made without the key")
        if event == "mended":
            report.broken(
                kept.INDEX, f"it did not end as it had to when entry {entry['n']} was made"
            )
        elif event == "opened":
            report.keyed += entry["chain"] != self._plain.name
            if name in sessions:
                report.broken(name, "it begins twice in the index")
            sessions[name] = _Session(name, entry["first"], entry["chain"])
        elif (session := sessions.get(name)) is None:
            report.broken(name, "it ends in the index before it begins")
        elif session.removed or (session.end is not None and event != "removed"):
            report.broken(name, "it ends twice in the index")
        elif event == "removed":
            session.removed = True
        else:
            session.end = Head(entry["records"], entry["head"])
            if event == "sealed":
                self._sealed(entry)

    def _sealed(self, entry: dict[str, Any]) -> None:
        report, name, expected = self._report, entry["session"], entry.get("expected")
        if fragment := entry.get("fragment"):
            report.note(name, f"a half-written record of {fragment['bytes']} bytes was put aside")
        if expected is None or expected["records"] < entry["records"]:
            report.note(name, "its kernel died; the next one has sealed it")
        elif lost := expected["records"] - entry["records"]:
            report.broken(name, f"{_count(lost)} missing at its end when it was sealed")
        else:
            report.broken(name, "its last record was another one when it was sealed")

    # --- a session ------------------------------------------------------------------------------

    def _session(self, session: _Session, live: _Live | None) -> None:
        report, name = self._report, session.name
        paths = parts(self._folder, name)
        if session.removed:
            if paths:
                report.broken(name, "it was removed, and has records")
            return
        if not paths:
            report.broken(name, "its records are missing")
            return
        expected = session.end
        slack: int | None = 0
        if expected is None:
            expected = live.head if live is not None else None
            slack = None if live is not None and live.writing else 1
        if session.chain != self._plain.name and self._keyed is None:
            report.note(name, "it was chained with a key; give the key to check it")
            return
        chain = self._plain if session.chain == self._plain.name else self._keyed
        walk = Walk(lambda _fields: chain, record_problem, self._watched(name, expected))
        try:
            for record in walk.lines(paths):
                self._record(session, record)
        except BrokenChainError as broken:
            report.broken(name, str(broken))
            return
        report.records += walk.head.length
        if walk.first != session.first:
            report.broken(name, "its first record is not the one that the index knows")
        self._compare(name, walk, expected, slack)
        if session.end is not None and walk.fragment:
            report.broken(name, "there is something behind its last record")
        elif session.end is None:
            writing = live is not None and live.writing
            report.note(name, "it is being written" if writing else "its kernel died")
            if walk.fragment and not writing:
                report.note(name, "it ends with a half-written record")

    def _record(self, session: _Session, record: dict[str, Any]) -> None:
        first = record["kind"] == "session"
        if record["session"] != session.name or first != (record["n"] == 0):
            self._report.broken(session.name, f"record {record['n']} belongs elsewhere")
        elif first and record["chain"] != session.chain:
            self._report.broken(session.name, "the index has another chain for it")

    # --- inside ---------------------------------------------------------------------------------

    def _chain_of(self, fields: Mapping[str, Any]) -> Chain | None:
        return self._plain if fields["chain"] == self._plain.name else self._keyed

    def _watched(self, chain: str, expected: Head | None) -> dict[int, str]:
        anchored = self._anchors.get(chain, {})
        # What the head says and the anchors say has to be the same; both are looked at.
        if expected is not None and anchored.get(expected.length, expected.digest) != (
            expected.digest
        ):
            self._report.broken(chain, f"line {expected.length - 1} is not the one anchored")
        return {**anchored, **({expected.length: expected.digest} if expected else {})}

    def _compare(self, where: str, walk: Walk, expected: Head | None, slack: int | None) -> None:
        """Compare the end of a chain with its head; so many lines more are no wonder."""
        report, length = self._report, walk.head.length
        if expected is None:
            report.broken(where, "its head is missing")
        elif length < expected.length:
            report.broken(where, f"{_count(expected.length - length)} missing at its end")
        elif slack is not None and length > expected.length + slack:
            report.broken(where, f"it is {_count(length - expected.length)} longer than its head")
        for number in sorted(walk.mismatches):
            report.broken(where, f"line {number - 1} is not the one that its head or anchor knows")
        for number in self._anchors.get(where, {}):
            if number > length:
                report.broken(where, f"line {number - 1} was anchored and is missing")


class _Live(NamedTuple):
    head: Head | None
    writing: bool


def _count(lines: int) -> str:
    return "1 line" if lines == 1 else f"{lines} lines"
