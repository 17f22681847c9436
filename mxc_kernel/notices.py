"""What the kernel itself tells the user about its sandbox."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mxc_kernel.carrying import Carried, Snapshot
from mxc_kernel.crossings import listed
from mxc_kernel.errors import MxcKernelError
from mxc_kernel.policy import MountPlan
from mxc_kernel.views import Block, Code, Lines, Paragraph, Table, View, notice

__all__ = [
    "checkpointed",
    "dropped",
    "fresh_after_death",
    "left_running",
    "not_mounted",
    "relaunched",
    "restored",
]


def relaunched(carried: Carried) -> list[View]:
    """Say which names a change of policy has cost; nothing where all were carried."""
    costs = _costs(carried)
    if not costs:
        return []
    return [
        notice(
            "The policy is in force in a new sandbox; not everything could be carried over.",
            *costs,
            Paragraph(("Threads, open files, widgets and debug sessions end with their sandbox.",)),
        )
    ]


def left_running(names: Sequence[str], *, ended: bool) -> list[View]:
    """Say which processes a cell has left running; nothing where it has not.

    Args:
        names: of the processes, by their own account.
        ended: whether they were ended, since the cell went too far.
    """
    if not names:
        return []
    count = f"{len(names)} process{'' if len(names) == 1 else 'es'}"
    if ended:
        return [notice(f"Ended with the cell: {count} that it had started ({listed(names)}).")]
    return [notice(f"The cell left {count} running until the sandbox ends: {listed(names)}.")]


def fresh_after_death(snapshot: Snapshot | None, reason: str) -> list[View]:
    """Say that the names from before are gone, and what can be brought back.

    Args:
        snapshot: the last one.
        reason: why the sandbox ended, where no cell was told.
    """
    offer: list[Block] = [Paragraph((reason,))] if reason else []
    if snapshot is not None:
        offer.append(
            Paragraph(
                (
                    f"Those as of {_clock(snapshot)} ({snapshot.occasion}) can be brought back: ",
                    Code("%restore"),
                )
            )
        )
    return [
        notice(
            "This cell runs in a fresh sandbox: the one before it ended, "
            "and the names defined in it are gone.",
            *offer,
        )
    ]


def checkpointed(snapshot: Snapshot, carried: Carried) -> list[View]:
    """Say what a checkpoint holds."""
    names = _count(carried.names)
    return [notice(f"Checkpoint at {_clock(snapshot)}: {names}.", *_costs(carried))]


def dropped(error: MxcKernelError) -> list[View]:
    """Say that the sandbox had to be ended for a grant to end."""
    return [
        notice(
            "The grant for this cell has ended, and its sandbox with it, because the names could "
            "not be carried out of it. They are gone.",
            Paragraph((error.message,)),
        )
    ]


def restored(snapshot: Snapshot, carried: Carried) -> list[View]:
    """Say what was brought back, and from when it is."""
    when = f"{_clock(snapshot)} ({snapshot.occasion})"
    return [notice(f"Restored as of {when}: {_count(carried.names)}.", *_costs(carried))]


def _clock(snapshot: Snapshot) -> str:
    return time.strftime("%H:%M:%S", time.localtime(snapshot.taken))


def _count(names: int) -> str:
    return f"{names} name{'' if names == 1 else 's'}"


def _costs(carried: Carried) -> list[Block]:
    """What was lost, and what came over but is not quite the same."""
    blocks: list[Block] = []
    if carried.lost:
        blocks.append(Table(("name", "why it is gone"), carried.lost))
    if carried.noted:
        blocks.append(Table(("name", "what is different"), carried.noted))
    return blocks


def not_mounted(mounts: MountPlan) -> list[View]:
    """Say what is granted and not there, and what a writable grant leaves unprotected."""
    views = []
    if mounts.absent:
        views.append(
            notice(
                "Granted, but not there or no longer the folder that was granted:",
                Lines(mounts.absent),
            )
        )
    if mounts.uncovered:
        views.append(
            notice(
                "These could be replaced by code in the sandbox and be run outside it later. "
                "They are symbolic links, which cannot be made read-only:",
                Lines(mounts.uncovered),
            )
        )
    if not mounts.complete:
        views.append(
            notice(
                "A writable folder is too large to look all through it for files that programs "
                "outside the sandbox run, such as .git/hooks. Grant a smaller one if you can."
            )
        )
    return views
