"""What the records hold, as pydantic models: they judge records in `verify`, and make the schema.

A record is never made through them: writing must not wait for pydantic. The version is that of
``v`` in each record; a field that is added with a default keeps it, anything else raises it.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

__all__ = ["VERSION", "audit_schema", "entry_problem", "record_problem"]

VERSION = 1

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[
    str,
    StringConstraints(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"
    ),
]
SessionName = Annotated[str, StringConstraints(pattern=r"^[0-9]{8}T[0-9]{9}Z-[0-9a-f]{8}$")]
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$")]
Word = Annotated[str, StringConstraints(max_length=200)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Counts = dict[str, Count]
Access = Literal["none", "readonly", "readwrite"]
Algorithm = Literal["sha256", "hmac-sha256"]


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class Line(_Model):
    """What every line has."""

    v: Literal[1]
    """Version of this schema."""
    n: Count
    """Number of the line in its chain, from 0."""
    time: Time
    """When it was written, in UTC by the host's clock."""
    prev: Hash
    """Digest of the line before, as its bytes stand in the file without the newline; zeros for the
    first. SHA-256, or HMAC-SHA256 with the operator's key."""


class IndexHead(_Model):
    """The index as it was when a session began."""

    entries: Count
    head: Hash


class Executable(_Model):
    """What sets up the sandbox."""

    backend: Word
    """What isolates, such as bubblewrap."""
    version: Word
    """Version of the executable."""
    sha256: Hash
    """Hash of the executable's bytes; what was hashed is what runs."""


class SandboxState(Executable):
    """The sandbox that a cell runs in."""

    number: Count
    """Which one of the session; its own record says more."""
    throwaway: bool
    """Whether it is for this cell alone."""
    attested: Count
    """How many checks it has passed before it got any code. One that fails is not used."""


class CellNumber(_Model):
    """The cell of another record."""

    number: Count


class Cell(CellNumber):
    """A cell as it came from a frontend."""

    number: Count
    """Which one of the session, from 1."""
    id: Id | None
    """The frontend's id of the cell in the notebook, if it told one."""
    request: Id | None
    """The frontend's id of the message."""
    execution_count: Count
    """What stands in brackets beside it."""
    silent: bool
    """Whether the frontend wanted no trace of it."""
    subshell: Id | None
    """The subshell that it is for, if not the main one."""
    expressions: Count
    """How many user expressions came with it."""


class Code(_Model):
    """What a cell runs."""

    sha256: Hash
    """Hash of its UTF-8."""
    length: Count
    """Characters."""
    text: str | None = None
    """The code, redacted, if the ceiling has it kept."""


class CeilingState(_Model):
    """The ceiling in force."""

    sha256: Hash
    layers: list[Literal["system", "user", "project"]]


class PolicyState(_Model):
    """Hashes of what was asked for, what of it the ceiling holds, and what is in force."""

    requested: Hash
    clamped: Hash
    effective: Hash


class State(_Model):
    """What became of the session's names since the last record of a cell."""

    carried: Count
    """Names carried into another sandbox. The sandbox's word, as the next two."""
    lost: Count
    """Names that could not be."""
    changed: Count
    """Names that are not quite the same there."""
    gone: bool
    """Whether all of them went with their sandbox."""


class Changes(_Model):
    """What changed since the last record of a cell."""

    relaunches: Count
    """Sandboxes that took the place of another."""
    state: State | None


class Error(_Model):
    """What ended a cell."""

    kind: Word
    """Class of the error."""
    by: Literal["code", "host"]
    """Whose word that is: the cell's code, or the kernel's."""


class Bytes(_Model):
    """Bytes of printed text."""

    sent: Count
    dropped: Count


class Outputs(Bytes):
    """Bytes and number of pictures, tables, widgets and errors."""

    messages: Count
    refused: Count


class Output(_Model):
    """What of a cell's output was sent to the frontend, and what was dropped."""

    text: Bytes
    rich: Outputs


class Denial(_Model):
    """Something that the cell reported as blocked. The sandbox's word."""

    kind: Literal["filesystem", "network"]
    operation: Word
    errno: Word
    path: str | None
    """Label of the path, or the path itself if the ceiling says so."""
    host: Word | None


class PolicyDocument(_Model):
    """All that a policy says."""

    filesystem: dict[str, Access]
    """Access by label of a path, or by path if the ceiling says so."""
    network: dict[str, Any]
    limits: dict[str, Any]
    html: str
    environment: list[str]
    """Names of variables, never values."""


class Layer(_Model):
    """A ceiling file."""

    name: Literal["system", "user", "project"]
    source: str


class _Record(Line):
    session: SessionName


class SessionRecord(_Record):
    """The first record of a session."""

    kind: Literal["session"]
    chain: Algorithm
    key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")] | None
    """Tells which key the chain was made with."""
    kernel: Word
    """Version of mxc-kernel."""
    pid: Count
    uid: Count | None
    host: str | None
    """Name of the machine."""
    notebook: str | None
    """Label of the notebook's path, if Jupyter told it."""
    folder: str
    """Label of the folder that it started in."""
    run: Id | None
    """Name of the batch run that it belongs to (MXC_KERNEL_RUN)."""
    paths: Literal["labels", "raw"]
    index: IndexHead


class CeilingRecord(_Record):
    """A ceiling that is met for the first time in a session."""

    kind: Literal["ceiling"]
    sha256: Hash
    layers: list[Layer]


class PolicyRecord(_Record):
    """A policy that is met for the first time in a session."""

    kind: Literal["policy"]
    sha256: Hash
    """Hash of `policy` as JSON with sorted keys and no blanks."""
    policy: PolicyDocument


class SandboxRecord(_Record, Executable):
    """A sandbox that was launched, before anything of the user's was sent to it."""

    kind: Literal["sandbox"]
    number: Count
    reason: Literal["start", "policy", "restart", "restore", "death", "throwaway"]
    policy: Hash
    attested: list[tuple[str, str]]
    """What was checked, and who says so: the host saw it, or the sandbox reported it."""


class PendingRecord(_Record, Changes):
    """A cell whose code is about to be sent to the sandbox."""

    kind: Literal["pending"]
    cell: Cell
    code: Code
    ceiling: CeilingState
    policy: PolicyState
    grants: list[tuple[str, Access]]
    """What is in force on files."""
    sandbox: SandboxState
    limits: dict[str, Any]


class FinishedRecord(_Record, Changes):
    """The end of a cell, before the frontend gets the reply."""

    kind: Literal["finished"]
    cell: CellNumber
    pending: Count
    """Number of its pending record."""
    status: Literal["ok", "error"]
    error: Error | None
    duration: Seconds
    cpu: Seconds | None
    """Seconds of processor time of the sandboxed Python; None if it died."""
    memory_peak: Count | None
    """The most bytes that its sandbox has had in use so far."""
    output: Output
    redactions: Counts
    """How often each rule has masked something."""
    dropped: Counts
    """Messages from the sandbox that did not pass since the last such record, by reason."""
    denials: list[Denial]
    inputs: Count
    """How often the user answered a question of the cell."""


class RefusedRecord(_Record):
    """A cell that was not sent to the sandbox."""

    kind: Literal["refused"]
    cell: Cell
    code: Code
    error: Error


class RoadsRecord(_Record):
    """What was sent to the sandbox beside cells: how often, by kind."""

    kind: Literal["roads"]
    counts: Counts


class AnchorRecord(_Record):
    """The head of the trail could not be put outside of it, where the operator wants it."""

    kind: Literal["anchor"]
    to: Literal["file", "command"]
    why: Word


class EndRecord(_Record):
    """The last record of a session that ended by itself."""

    kind: Literal["end"]
    cells: Count
    sandboxes: Count


Record = Annotated[
    SessionRecord
    | CeilingRecord
    | PolicyRecord
    | SandboxRecord
    | PendingRecord
    | FinishedRecord
    | RefusedRecord
    | RoadsRecord
    | AnchorRecord
    | EndRecord,
    Field(discriminator="kind"),
]


class HeadState(_Model):
    """The end of a chain."""

    records: Count
    head: Hash


class Fragment(_Model):
    """A half-written line that was put aside."""

    bytes: Count
    sha256: Hash


class _Entry(Line):
    chain: Algorithm
    """How `prev` of this entry was made."""


class OpenedEntry(_Entry):
    """A session began."""

    event: Literal["opened"]
    session: SessionName
    first: Hash
    """Digest of its first record."""


class ClosedEntry(_Entry, HeadState):
    """A session ended by itself."""

    event: Literal["closed"]
    session: SessionName


class SealedEntry(_Entry, HeadState):
    """A session whose kernel died, as the next one found it."""

    event: Literal["sealed"]
    session: SessionName
    expected: HeadState | None = None
    """What its kernel had last said, if that is something else."""
    fragment: Fragment | None = None
    unchecked: bool = False
    """Whether it was made with a key that whoever sealed it does not have."""


class RemovedEntry(_Entry):
    """A session whose records were deleted, by the operator's retention."""

    event: Literal["removed"]
    session: SessionName


class MendedEntry(_Entry):
    """The index did not end as it had to."""

    event: Literal["mended"]
    expected: HeadState
    fragment: Fragment | None = None


Entry = Annotated[
    OpenedEntry | ClosedEntry | SealedEntry | RemovedEntry | MendedEntry,
    Field(discriminator="event"),
]


@cache
def _judge(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def record_problem(line: bytes) -> str | None:
    """Return what is wrong with a record, in one line; None if nothing is."""
    return _problem(line, Record)


def entry_problem(line: bytes) -> str | None:
    """Return what is wrong with an entry of the index, in one line; None if nothing is."""
    return _problem(line, Entry)


def _problem(line: bytes, kind: Any) -> str | None:
    try:
        _judge(kind).validate_json(line)
    except ValueError as error:
        return " ".join(str(error).split())[:300]
    return None


def audit_schema() -> dict[str, Any]:
    """Return the JSON Schema of the records, and of the index's entries under ``$defs/Entry``."""
    record = TypeAdapter(Record).json_schema(ref_template="#/$defs/{model}")
    entry = TypeAdapter(Entry).json_schema(ref_template="#/$defs/{model}")
    definitions = {**record.pop("$defs"), **entry.pop("$defs"), "Entry": entry}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A record of mxc-kernel's audit trail, version {VERSION}",
        **record,
        "$defs": definitions,
    }
