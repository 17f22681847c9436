"""What a sandbox may do, as one value whose every field is a lattice.

``a.meet(b)`` allows what both allow, ``a <= b`` says that `a` allows nothing that `b` does not.
Meeting is idempotent, commutative and associative, so layers may be combined in any order and any
number of times.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from mxc_kernel.policy.access import NATIVE, PathStyle
from mxc_kernel.policy.filesystem import Filesystem
from mxc_kernel.records import field_names, record, replace

__all__ = [
    "ANY_NAME",
    "NO_CAP",
    "PLAIN_ENVIRONMENT",
    "Exceeded",
    "HtmlLevel",
    "Limits",
    "Network",
    "NetworkMode",
    "Policy",
]

NO_CAP = 2**63 - 1  # the top of limits that are always a number
ANY_NAME = (
    "*"  # as the only environment name: every name; no variable can be called so in a ceiling
)

# What tells a program how to print and nothing about the host's user: passes unless a ceiling says
# otherwise.
PLAIN_ENVIRONMENT = frozenset(
    {"LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_NUMERIC", "LC_TIME", "TZ"}
)


class NetworkMode(IntEnum):
    """How far the network reaches: not at all, to listed hosts, or anywhere."""

    CLOSED = 0
    HOSTS = 1
    OPEN = 2


class HtmlLevel(IntEnum):
    """How much of a rich output reaches the frontend."""

    TEXT = 0
    SAFE = 1
    FRAME = 2
    TRUSTED = 3


class Exceeded(IntEnum):
    """What becomes of a cell whose output passes a limit; what is over it is never shown."""

    STOP = 0
    CONTINUE = 1


@record
class Network:
    """Where connections may go.

    Args:
        mode: how far the network reaches.
        hosts: exact host names or addresses, for `NetworkMode.HOSTS` only; an empty list means
            nothing, so it is the same as closed.
    """

    mode: NetworkMode = NetworkMode.CLOSED
    hosts: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        hosts = frozenset(host.lower().rstrip(".") for host in self.hosts)
        listed = self.mode is NetworkMode.HOSTS
        object.__setattr__(self, "hosts", hosts if listed else frozenset())
        if listed and not hosts:
            object.__setattr__(self, "mode", NetworkMode.CLOSED)

    def meet(self, other: Network) -> Network:
        """Reach only what both reach."""
        if self.mode is other.mode is NetworkMode.HOSTS:
            return Network(NetworkMode.HOSTS, self.hosts & other.hosts)
        return self if self.mode <= other.mode else other

    def __le__(self, other: Network) -> bool:
        return self.meet(other) == self


@record
class Limits:
    """Upper bounds; the smaller wins and None is no limit.

    Args:
        cell_timeout: seconds that a cell may run, not counting waits for input.
        memory: bytes that the sandbox's processes and file systems in memory may use.
        processes: processes and threads that the sandbox may have at a time.
        cpu_time: seconds of processor time that a cell may use, in all processes together.
        open_files: descriptors that one process may have open.
        file_size: bytes that one file may grow to by writing.
        scratch_space: bytes in the sandbox's own file systems.
        scratch_files: files and folders in them.
        grant_space: bytes that a session may add to one writable grant.
        grant_files: files and folders that it may add there.
        output: bytes of text that a cell may show; always a number, `NO_CAP` at the top, as are all
            that follow.
        rich_output: bytes of pictures, tables and widgets that a cell may show.
        single_output: bytes of one of them.
        outputs: how many outputs a cell may have, a run of text counting as one.
        output_rate: messages a second that reach a frontend one by one; what comes faster is
            joined.
        session_output: bytes that all cells together may show until the kernel restarts.
        output_exceeded: whether a cell goes on when it passes one of these.
    """

    cell_timeout: float | None = None
    memory: int | None = None
    processes: int | None = None
    cpu_time: float | None = None
    open_files: int | None = None
    file_size: int | None = None
    scratch_space: int | None = None
    scratch_files: int | None = None
    grant_space: int | None = None
    grant_files: int | None = None
    output: int = NO_CAP
    rich_output: int = NO_CAP
    single_output: int = NO_CAP
    outputs: int = NO_CAP
    output_rate: int = NO_CAP
    session_output: int = NO_CAP
    output_exceeded: Exceeded = Exceeded.CONTINUE

    def meet(self, other: Limits) -> Limits:
        """Take the smaller of each pair."""
        return Limits(
            **{name: _smaller(getattr(self, name), getattr(other, name)) for name in LIMIT_NAMES}
        )

    def __le__(self, other: Limits) -> bool:
        return self.meet(other) == self

    @classmethod
    def bottom(cls) -> Limits:
        """Return the limits that leave nothing."""
        nothing: dict[str, Any] = dict.fromkeys((name for name in field_names(cls)), 0)
        return cls(**{**nothing, "output_exceeded": Exceeded.STOP})

    def plain(self) -> dict[str, Any]:
        """Return the limits as JSON-able data."""
        return {**vars(self), "output_exceeded": self.output_exceeded.name.lower()}


LIMIT_NAMES = tuple(name for name in field_names(Limits))


@record
class Policy:
    """All that a sandbox may do.

    The defaults are what holds where nobody says anything: no file, no network, sanitised output.

    Args:
        filesystem: the access to each path.
        network: where connections may go.
        limits: upper bounds on time, memory, processes, files and output.
        html: how much of a rich output reaches the frontend.
        environment: names of host environment variables that the child may have; ``{ANY_NAME}`` is
            all.
    """

    filesystem: Filesystem = Filesystem()
    network: Network = Network()
    limits: Limits = Limits()
    html: HtmlLevel = HtmlLevel.SAFE
    environment: frozenset[str] = PLAIN_ENVIRONMENT

    def __post_init__(self) -> None:
        if ANY_NAME in self.environment:
            object.__setattr__(self, "environment", frozenset({ANY_NAME}))

    @classmethod
    def top(cls, style: PathStyle = NATIVE) -> Policy:
        """Everything is allowed: the identity of `meet`. Never in force by itself."""
        return cls(
            filesystem=Filesystem.top(style),
            network=Network(NetworkMode.OPEN),
            limits=Limits(),
            html=HtmlLevel.TRUSTED,
            environment=frozenset({ANY_NAME}),
        )

    @classmethod
    def bottom(cls, style: PathStyle = NATIVE) -> Policy:
        """Nothing is allowed, not even to run: below every policy, and never in force by itself."""
        return cls(
            filesystem=Filesystem.bottom(style),
            network=Network(),
            limits=Limits.bottom(),
            html=HtmlLevel.TEXT,
            environment=frozenset(),
        )

    def meet(self, other: Policy) -> Policy:
        """Allow only what both allow."""
        return Policy(
            filesystem=self.filesystem.meet(other.filesystem),
            network=self.network.meet(other.network),
            limits=self.limits.meet(other.limits),
            html=min(self.html, other.html),
            environment=_common_names(self.environment, other.environment),
        )

    def __le__(self, other: Policy) -> bool:
        return self.meet(other) == self

    def with_filesystem(self, filesystem: Filesystem) -> Policy:
        """Return this policy with other access to files."""
        return replace(self, filesystem=filesystem)

    def passes(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of the host's environment that the child may have."""
        if ANY_NAME in self.environment:
            return dict(environ)
        return {name: environ[name] for name in sorted(self.environment & environ.keys())}

    def plain(self) -> dict[str, Any]:
        """Return the policy as JSON-able data in one fixed form, for display, audit and digests."""
        return {
            "filesystem": {path: access.name.lower() for path, access in self.filesystem.grants},
            "network": {
                "mode": self.network.mode.name.lower(),
                "hosts": sorted(self.network.hosts),
            },
            "limits": self.limits.plain(),
            "html": self.html.name.lower(),
            "environment": sorted(self.environment),
        }


def _smaller(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _common_names(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    if ANY_NAME in one:
        return other
    return one if ANY_NAME in other else one & other
