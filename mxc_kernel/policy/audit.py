"""What an operator says about the audit trail."""

from __future__ import annotations

from typing import Literal

from mxc_kernel.records import record

__all__ = ["Audit"]


@record
class Audit:
    """How the audit trail is kept. It cannot be switched off.

    Args:
        code: whether cells' code is kept, redacted; its hash and length always are.
        paths: whether paths are written out, or stand as labels that tell them apart.
        fsync: whether a record is on the disk itself before the cell runs: against a loss of power.
        rotate: bytes after which a session goes on in another file.
        retention: seconds after which ended sessions are deleted; None keeps them.
        anchor_file: file outside that gets the trail's head; None for none.
        anchor_command: command that gets it on standard input; empty for none.
        anchor_every: seconds between two anchors while records are written.
        key: file of root's with a key for the chain; None for none.
        otel: address of an OpenTelemetry collector (OTLP over HTTP); None exports nothing.
    """

    code: bool = False
    paths: Literal["labels", "raw"] = "labels"
    fsync: bool = False
    rotate: int = 16 << 20
    retention: float | None = None
    anchor_file: str | None = None
    anchor_command: tuple[str, ...] = ()
    anchor_every: float = 60.0
    key: str | None = None
    otel: str | None = None
