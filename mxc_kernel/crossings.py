"""What a person is told about a limit that was passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mxc_kernel.errors import SandboxLimitError
from mxc_kernel.policy.quantities import format_duration, format_size

if TYPE_CHECKING:
    from mxc_kernel.mxc.enforcement import Crossing

__all__ = ["LIMIT_WORDS", "amount", "limit_error", "listed"]

_SHOWN = 5  # names of processes in one note

# What each limit is about, and the option of %limits that sets it.
LIMIT_WORDS: Mapping[str, tuple[str, str]] = {
    "cpu_time": ("processor time of a cell", "--cpu"),
    "memory": ("memory of the whole sandbox", "--memory"),
    "processes": ("processes and threads", "--processes"),
    "open_files": ("open files of a process", "--open-files"),
    "file_size": ("size of a file", "--file-size"),
    "scratch_space": ("space in the sandbox's own folders", "--scratch"),
    "scratch_files": ("files in the sandbox's own folders", "--scratch-files"),
    "grant_space": ("space added to a writable grant", "--added"),
    "grant_files": ("files added to a writable grant", "--added-files"),
}
_AMOUNTS: dict[str, Callable[[Any], str]] = {
    "cpu_time": format_duration,
    **dict.fromkeys(("memory", "file_size", "scratch_space", "grant_space"), format_size),
}


def amount(limit: str, value: float) -> str:
    """Write the value of a limit for people."""
    return _AMOUNTS.get(limit, lambda count: f"{count:,}")(value)


def limit_error(crossing: Crossing, *, killed: bool) -> SandboxLimitError:
    """Return the error for a cell whose sandbox passed a limit.

    Args:
        crossing: the limit.
        killed: whether the sandbox was ended for it, and not the cell interrupted.
    """
    words, option = LIMIT_WORDS[crossing.limit]
    place = f" in {crossing.where}" if crossing.where else ""
    did = "the sandbox was killed for it" if killed else "the cell was interrupted"
    names = "gone" if killed else "kept"
    most = amount(crossing.limit, crossing.most)
    return SandboxLimitError(
        f"the limit {crossing.limit} ({words}) of {most} was passed{place}: {did}; "
        f"the names defined so far are {names}",
        remedy=f"Use less, or raise it with %limits {option} within the ceiling; "
        f"the operator sets {crossing.limit} under [limits].",
    )


def listed(names: Sequence[str]) -> str:
    """Write the names of processes, which they have given themselves, in one line."""
    counted = Counter(n if n.isprintable() else ascii(n)[1:-1] for n in names).most_common()
    words = [f"{name} ({count})" if count > 1 else name for name, count in counted[:_SHOWN]]
    return ", ".join(words) + (", …" if len(counted) > _SHOWN else "")
