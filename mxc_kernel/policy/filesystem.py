"""Which paths a sandbox may reach: access levels over subtrees, where the deepest grant wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mxc_kernel.policy.access import NATIVE, Access, Key, PathStyle
from mxc_kernel.records import derived, record

__all__ = ["Filesystem"]


@record(eq=False)
class Filesystem:
    """A function from absolute paths to access, written as grants on subtrees.

    A path has the access of the deepest grant at or above it and `Access.NONE` where there is none.
    Grants are kept in normal form (sorted, none that repeats what already holds above it), so two
    file systems that give every path the same access are equal.

    Args:
        grants: pairs of an absolute path and its access. Of two grants on one path the lesser
            counts.
        style: how paths are compared.

    Raises:
        SandboxPolicyError: a path is not absolute or cannot be used on such a system.
    """

    grants: tuple[tuple[str, Access], ...] = ()
    style: PathStyle = NATIVE
    _nodes: dict[Key, tuple[str, Access]] = derived()

    def __post_init__(self) -> None:
        nodes: dict[Key, tuple[str, Access]] = {}
        for path, access in self.grants:
            parts = self.style.parts(path)
            key = self.style.key(parts)
            node = (self.style.join(parts), Access(access))
            other = nodes.get(key, node)
            # One of two spellings is kept whichever comes first, else `meet` would not commute.
            nodes[key] = (min(node[0], other[0]), min(node[1], other[1]))
        normal: dict[Key, tuple[str, Access]] = {}
        for key in sorted(nodes):  # a folder sorts before what is in it
            if nodes[key][1] != _deepest(normal, key[:-1] if key else None):
                normal[key] = nodes[key]
        object.__setattr__(self, "grants", tuple(normal.values()))
        object.__setattr__(self, "_nodes", normal)

    @classmethod
    def of(
        cls,
        *,
        readonly: Iterable[str] = (),
        readwrite: Iterable[str] = (),
        denied: Iterable[str] = (),
        style: PathStyle = NATIVE,
    ) -> Filesystem:
        """Make one from lists of paths; of two entries for one path the lesser counts."""
        levels = (
            (denied, Access.NONE),
            (readonly, Access.READONLY),
            (readwrite, Access.READWRITE),
        )
        return cls(tuple((path, level) for paths, level in levels for path in paths), style)

    @classmethod
    def top(cls, style: PathStyle = NATIVE) -> Filesystem:
        """Everything may be read and written."""
        return cls(((style.everything, Access.READWRITE),), style)

    @classmethod
    def bottom(cls, style: PathStyle = NATIVE) -> Filesystem:
        """Nothing is granted."""
        return cls((), style)

    @property
    def readonly(self) -> tuple[str, ...]:
        """The paths at which read-only access begins."""
        return self._paths(Access.READONLY)

    @property
    def readwrite(self) -> tuple[str, ...]:
        """The paths at which read and write access begins."""
        return self._paths(Access.READWRITE)

    @property
    def denied(self) -> tuple[str, ...]:
        """The paths inside grants at which access ends."""
        return self._paths(Access.NONE)

    def access(self, path: str) -> Access:
        """Return what may be done with an absolute path.

        Raises:
            SandboxPolicyError: the path is not absolute or cannot be used on such a system.
        """
        return _deepest(self._nodes, self.style.key(self.style.parts(path)))

    def grant_for(self, path: str) -> tuple[str, Access] | None:
        """Return the grant that decides about a path, or None where no grant reaches it."""
        key = self.style.key(self.style.parts(path))
        for end in range(len(key), -1, -1):
            if node := self._nodes.get(key[:end]):
                return node
        return None

    def meet(self, other: Filesystem) -> Filesystem:
        """Give each path the lesser of both accesses."""
        return self._pointwise(other, min)

    def join(self, other: Filesystem) -> Filesystem:
        """Give each path the greater of both accesses."""
        return self._pointwise(other, max)

    def allow(self, path: str, access: Access) -> Filesystem:
        """Give the path and all below it at least this access; nothing is taken away."""
        return self.join(Filesystem(((path, access),), self.style))

    def revoke(self, path: str) -> Filesystem:
        """Take all access away from the path and all below it."""
        return self.limit(path, Access.NONE)

    def limit(self, path: str, access: Access) -> Filesystem:
        """Give the path and all below it at most this access; nothing is added."""
        everything = (self.style.everything, Access.READWRITE)
        return self.meet(Filesystem((everything, (path, access)), self.style))

    def __le__(self, other: Filesystem) -> bool:
        return all(
            _deepest(self._nodes, key) <= _deepest(other._nodes, key)
            for key in self._nodes.keys() | other._nodes.keys()
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Filesystem):
            return NotImplemented
        return self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())

    def __bool__(self) -> bool:
        return bool(self.grants)

    def _compared(self) -> tuple[PathStyle, tuple[tuple[Key, Access], ...]]:
        return self.style, tuple((key, access) for key, (_, access) in self._nodes.items())

    def _paths(self, level: Access) -> tuple[str, ...]:
        return tuple(path for path, access in self.grants if access is level)

    def _pointwise(
        self, other: Filesystem, choose: Callable[[Access, Access], Access]
    ) -> Filesystem:
        if self.style is not other.style:
            raise ValueError("file systems of two styles cannot be compared")
        # Between the grants of both sides neither access changes, so these points decide it all.
        grants = []
        for nodes in (self._nodes, other._nodes):
            for key, (path, _) in nodes.items():
                access = choose(_deepest(self._nodes, key), _deepest(other._nodes, key))
                grants.append((path, access))
        return Filesystem(tuple(grants), self.style)


def _deepest(nodes: dict[Key, tuple[str, Access]], key: Key | None) -> Access:
    if key is not None:
        for end in range(len(key), -1, -1):
            if node := nodes.get(key[:end]):
                return node[1]
    return Access.NONE
