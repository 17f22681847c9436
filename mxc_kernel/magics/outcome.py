"""What magics are told about their session, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from mxc_kernel.policy import Ceiling, Policy, Request
from mxc_kernel.views import View

if TYPE_CHECKING:
    from mxc_kernel.audit.reading import AuditedCell

__all__ = ["Action", "MagicContext", "Outcome", "SandboxFacts", "Step", "Throwaway"]


class Action(StrEnum):
    """What a magic has the session do before the cell's code runs."""

    RESTART = "restart"
    CHECKPOINT = "checkpoint"
    RESTORE = "restore"


@dataclass(frozen=True)
class SandboxFacts:
    """What the host knows about the running sandbox.

    Attributes:
        executable: path of the MXC executable.
        version: its version.
        sha256: the hash of what is executed, in hexadecimal digits.
        backend: the mechanism that isolates, such as ``bubblewrap``.
        pid: the process on the host; None where none runs.
        uptime: seconds since it was started; None where none runs.
        memory: bytes in use; None where unknown.
        spare: bytes in use by the sandbox that stands ready beside it; None where there is none.
        user: whom the sandbox runs as.
        enforced: rows of what is enforced, and by whom or how.
        attested: rows of what was checked before the sandbox got any code, and who says so.
    """

    executable: str
    version: str
    sha256: str
    backend: str
    pid: int | None
    uptime: float | None
    memory: int | None
    spare: int | None
    user: str
    enforced: tuple[tuple[str, str], ...]
    attested: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class MagicContext:
    """What magics may know about their session.

    Attributes:
        ceiling: the operator's ceiling.
        request: what the session has asked for before this cell.
        notebook_dir: the folder that relative paths start from; None where the frontend tells none.
        contract: gives the exact request to the MXC executable for a policy, as JSON text.
        denials: the evidence that the child has sent so far, as it came (untrusted).
        sandbox_readonly: folders of the sandbox itself, such as the interpreter's.
        scratch: the sandbox's scratch folder.
        sandbox: gives the facts about the running sandbox.
        audit: gives the cells of this session as the audit has them, and the session's name.
    """

    ceiling: Ceiling
    request: Request
    notebook_dir: str | None = None
    contract: Callable[[Policy], str] | None = None
    denials: tuple[Mapping[str, object], ...] = ()
    sandbox_readonly: tuple[str, ...] = ()
    scratch: str | None = None
    sandbox: Callable[[], SandboxFacts] | None = None
    audit: Callable[[], tuple[str | None, Sequence[AuditedCell]]] | None = None


@dataclass(frozen=True)
class Throwaway:
    """A cell that runs in a sandbox of its own, which ends with it.

    Attributes:
        request: all that this sandbox is granted, checked against the ceiling.
        names_in: names to copy into it before the cell runs.
        names_out: names to copy into the session when the cell is done.
        objects: whether they may be objects of any kind. Plain data otherwise: what unpacks an
            object runs code of whoever packed it.
    """

    request: Request
    names_in: tuple[str, ...]
    names_out: tuple[str, ...]
    objects: bool


@dataclass(frozen=True)
class Outcome:
    """What the magics of one cell come to.

    Attributes:
        request: what the session asks for from this cell on.
        views: what to show, in order. Actions have none: only the session knows how they went.
        this_cell: what holds during this cell and no longer, with all that the session holds; None
            where that is `request`.
        throwaway: the sandbox to run this cell in instead of the session's.
        actions: what the session has to do before the cell's code runs, in order.
        strict: whether to refuse the change, before it takes effect, if a name cannot be carried.
    """

    request: Request
    views: tuple[View, ...] = ()
    this_cell: Request | None = None
    throwaway: Throwaway | None = None
    actions: tuple[Action, ...] = ()
    strict: bool = False

    def show(self, view: View) -> Outcome:
        """Add a view."""
        return replace(self, views=(*self.views, view))


Step = Callable[[Mapping[str, Any], Outcome, MagicContext], Outcome]
