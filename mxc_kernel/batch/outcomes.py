"""What can come of a cell, a notebook and a run, and how it is told apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

__all__ = ["EXIT_STATUS", "FINAL", "Status", "judge", "worst"]


class Status(StrEnum):
    """What came of a cell or a notebook. The order is that of gravity, mildest first."""

    OK = "ok"
    """All of it ran."""
    TRUNCATED = "truncated"
    """It ran, but its output passed a limit and is not complete."""
    NOT_A_NOTEBOOK = "not_a_notebook"
    """The file cannot be read as a notebook in Python."""
    ERROR = "error"
    """A cell raised an error of its own."""
    DENIED = "denied"
    """A cell raised an error because the sandbox stopped it."""
    POLICY_REFUSED = "policy_refused"
    """It asked for more than the ceiling holds, or in a way that cannot be understood."""
    CELL_TIMEOUT = "cell_timeout"
    """A cell passed its time."""
    NOTEBOOK_TIMEOUT = "notebook_timeout"
    """The notebook passed its time."""
    LIMIT = "limit"
    """A cell passed a limit on memory, processor time, processes or files and was stopped."""
    DEAD_KERNEL = "dead_kernel"
    """The sandbox or its kernel died."""
    UNAVAILABLE = "unavailable"
    """No sandbox could be had, so nothing ran; that is the machine's fault."""
    NOT_RUN = "not_run"
    """It was not reached."""
    RUNNING = "running"
    """It had not ended when this was written: the runner was killed."""
    INTERRUPTED = "interrupted"
    """The run was stopped."""


EXIT_STATUS: Mapping[Status, int] = {
    Status.OK: 0,
    Status.ERROR: 3,
    Status.DENIED: 4,
    Status.POLICY_REFUSED: 5,
    Status.CELL_TIMEOUT: 6,
    Status.NOTEBOOK_TIMEOUT: 7,
    Status.DEAD_KERNEL: 8,
    Status.TRUNCATED: 9,
    Status.NOT_A_NOTEBOOK: 10,
    Status.UNAVAILABLE: 11,
    Status.LIMIT: 12,
    Status.INTERRUPTED: 130,
    Status.NOT_RUN: 130,
    Status.RUNNING: 130,
}
"""What ``mxc-kernel run`` exits with for the gravest outcome; 1 and 2 are its own errors."""

FINAL = frozenset(Status) - {
    Status.NOT_RUN,
    Status.RUNNING,
    Status.INTERRUPTED,
    Status.UNAVAILABLE,
}
"""What is not run again with ``--resume``: the notebook would come out the same."""

_GRAVITY = {status: number for number, status in enumerate(Status)}

# The host's own errors, by class. Whatever else it may say means that there is no sandbox to go on
# with.
_HOSTS = {
    "SandboxPolicyError": Status.POLICY_REFUSED,
    "SandboxTimeoutError": Status.CELL_TIMEOUT,
    "SandboxLimitError": Status.LIMIT,
    "SandboxOutputError": Status.TRUNCATED,
    "SandboxUnavailableError": Status.UNAVAILABLE,
    "SandboxUntrustedBinaryError": Status.UNAVAILABLE,
    "SandboxBackendUnsupportedError": Status.UNAVAILABLE,
    "SandboxAttestationError": Status.UNAVAILABLE,
    "AuditError": Status.UNAVAILABLE,
}


def judge(content: Mapping[str, Any], facts: Mapping[str, Any]) -> Status:
    """Say what came of a cell, by the kernel's reply.

    A cell's own error may be called like one of the host's, so names count only where the host says
    in the metadata that the error was its own; code in the sandbox cannot write there.

    Args:
        content: the reply's content.
        facts: the ``mxc`` entry of the reply's metadata.
    """
    if content.get("status") == "ok":
        cut = facts.get("truncated") or facts.get("outputs_refused")
        return Status.TRUNCATED if cut else Status.OK
    if error := facts.get("error"):
        return _HOSTS.get(error, Status.DEAD_KERNEL)
    blocked = any(denial.get("by_policy") for denial in facts.get("denials", ()))
    return Status.DENIED if blocked else Status.ERROR


def worst(statuses: Iterable[Status]) -> Status:
    """Return the gravest of some outcomes; ok where there are none."""
    return max(statuses, key=_GRAVITY.__getitem__, default=Status.OK)
