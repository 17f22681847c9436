"""The result of one check, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mxc_kernel.errors import MxcKernelError

__all__ = ["Check", "Status", "as_json", "failed", "render"]


class Status(StrEnum):
    """How a check came out; only FAIL keeps cells from running."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was looked at.
        status: how it came out.
        detail: what was found, in plain words.
        remedy: what to do about it; empty where nothing is to be done.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


def render(check: Check) -> str:
    """Return a result as text for a terminal."""
    remedy = f"\n      what to do: {check.remedy}" if check.remedy else ""
    return f"{check.status:<4}  {check.name}: {check.detail}{remedy}"


def as_json(checks: Iterable[Check]) -> dict[str, object]:
    """Return the results as plain values for ``json.dumps``."""
    listed = list(checks)
    return {
        "ok": all(check.status is not Status.FAIL for check in listed),
        "checks": [asdict(check) for check in listed],
    }


def failed(name: str, error: MxcKernelError) -> Check:
    """Return the check that an error stands for."""
    return Check(name, Status.FAIL, error.message, error.remedy)
