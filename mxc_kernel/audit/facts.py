"""What the audit is told of a cell and of what it runs under."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mxc_kernel.mxc.usage import Usage
    from mxc_kernel.policy import Ceiling, Policy, Request

__all__ = ["Begun", "Outcome", "Sandbox", "Source", "Under"]


class Source(NamedTuple):
    """A cell as it came.

    Attributes:
        code: its source.
        cell: the frontend's id of the cell, if it told one.
        request: the frontend's id of the message.
        execution_count: its execution count.
        silent: whether the frontend wanted no trace of it.
        subshell: the subshell it is for, if not the main one.
        expressions: how many ``user_expressions`` came with it.
    """

    code: str
    cell: str | None = None
    request: str | None = None
    execution_count: int = 0
    silent: bool = False
    subshell: str | None = None
    expressions: int = 0


class Sandbox(NamedTuple):
    """A sandbox that was launched.

    Attributes:
        launched: what stands for it; another launch, another object.
        policy: what is in force in it, as mounted.
        version: the executable's version.
        sha256: the hash of the executable's bytes.
        backend: what isolates.
        attested: what was checked before it got any code, and who says so.
        usage: looks at what it has used so far.
    """

    launched: object
    policy: Policy
    version: str
    sha256: str
    backend: str
    attested: Sequence[tuple[str, str]]
    usage: Callable[[], Usage]


class Under(NamedTuple):
    """What a cell runs under.

    Attributes:
        ceiling: the operator's.
        request: all that was asked for.
        clamped: what of it the ceiling holds.
        sandbox: where it runs.
        throwaway: whether that sandbox is for this cell alone.
    """

    ceiling: Ceiling
    request: Request
    clamped: Policy
    sandbox: Sandbox
    throwaway: bool


class Begun(NamedTuple):
    """A cell with a pending record.

    Attributes:
        session: the trail's name.
        record: the pending record's number.
        cell: the cell's number in the session.
        started: when, on the monotonic clock.
        used: what its sandbox had used by then.
        sandbox: where it runs.
        clock: when, in nanoseconds since the epoch.
        pending: the record's fields.
    """

    session: str
    record: int
    cell: int
    started: float
    used: Usage
    sandbox: Sandbox
    clock: int
    pending: Mapping[str, Any]

    def usage(self) -> dict[str, Any]:
        """Return what it has used up to now: seconds of wall and processor time, peak bytes."""
        used = self.sandbox.usage()
        cpu = None
        if used.cpu is not None and self.used.cpu is not None:
            cpu = round(max(0.0, used.cpu - self.used.cpu), 6)
        peak = used.memory_peak if used.memory_peak is not None else self.used.memory_peak
        duration = round(time.monotonic() - self.started, 6)
        return {"duration": duration, "cpu": cpu, "memory_peak": peak}


class Outcome(NamedTuple):
    """How a cell ended.

    Attributes:
        status: ``ok`` or ``error``.
        error: the error's class, if there was one.
        by: whose word that is: ``code`` or ``host``.
        usage: from `Begun.usage`.
        output: bytes of text and of other output, sent and dropped.
        redactions: how often each rule has masked something.
        dropped: what the gate has dropped so far, by reason.
        evidence: what the child reported as blocked, as it came.
        inputs: how often the user answered a question.
    """

    status: str
    error: str | None
    by: str
    usage: Mapping[str, Any]
    output: Mapping[str, Any]
    redactions: Mapping[str, int]
    dropped: Mapping[str, int]
    evidence: object
    inputs: int
