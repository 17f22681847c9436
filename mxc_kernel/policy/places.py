"""Files and folders that no grant opens, or opens less far than it says.

Two reasons put a place here: what lies there is run or trusted by something outside the sandbox (a
shell's start-up file, a git hook, a kernelspec), so writing to it is a way out; or it holds what
lets its reader act as the user (Jupyter's connection files and cookie secret, SSH keys). Sockets
are a third: a read-only mount does not stop a program from connecting to one (`/run` holds the
system's).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from mxc_kernel.policy.access import NATIVE, Access, Key, PathStyle
from mxc_kernel.policy.filesystem import Filesystem
from mxc_kernel.records import record, replace

__all__ = ["NAMES", "Place", "Places"]


@record
class Place:
    """A path with a rule of its own.

    Args:
        path: canonical.
        highest: the most that any grant gives there, one of a larger folder included.
        why: why, as a clause without a full stop.
        by_name: the most that may be asked for by naming the place or something in it.
        whole: whether the rule also covers what is inside.
        secret: hidden by a grant of a larger folder, unless a ceiling names it.
    """

    path: str
    highest: Access
    why: str
    by_name: Access = Access.READWRITE
    whole: bool = True
    secret: bool = False


# Names that are never more than read-only in any folder: each is run, or decides what is run, when
# its folder is next used outside. `.git` itself stays writable, so that committing works; where it
# is a file it says where the repository is, and `mounts` covers it.
NAMES: tuple[tuple[Key, str], ...] = tuple(
    (tuple(name.split("/")), why)
    for why, names in (
        (
            "git runs what it finds there",
            ".git/hooks .git/config .git/config.worktree .git/modules",
        ),
        ("Mercurial runs what it finds there", ".hg/hgrc"),
        (
            "Python imports it at start",
            "site-packages dist-packages sitecustomize.py usercustomize.py .venv venv",
        ),
        ("it runs when an editor opens the folder", ".vscode .idea .zed .fleet .devcontainer"),
        ("it runs when an assistant opens the folder", ".claude .cursor .codex .gemini .mcp.json"),
        ("it runs when a shell enters the folder", ".envrc .direnv"),
        ("it runs when someone commits", ".pre-commit-config.yaml .husky .githooks"),
        ("Jupyter and IPython read it at start", ".ipython .jupyter"),
        ("it is a ceiling", ".mxc-ceiling.toml"),
    )
    for name in names.split()
)


@record
class Places:
    """All places with rules of their own.

    Args:
        table: the places, in any order.
        style: how paths are compared.
        opened: secret paths that the ceiling names.
    """

    table: tuple[Place, ...] = ()
    style: PathStyle = NATIVE
    opened: tuple[str, ...] = ()

    def with_places(self, places: Iterable[Place]) -> Places:
        """Add places, such as the notebook's file and the audit log."""
        return replace(self, table=(*self.table, *places))

    def opening(self, paths: Iterable[str]) -> Places:
        """Open those of the paths that are secret to reading: a ceiling names them."""
        return replace(self, opened=tuple(path for path in paths if self.is_secret(path)))

    def is_secret(self, path: str) -> bool:
        """Whether only a ceiling that names the path, or something secret above it, opens it."""
        return any(place.secret for place in self._around(path))

    def guard(self, filesystem: Filesystem) -> Filesystem:
        """Return the most of these grants that the places leave; it never grants more."""
        return self._rooted(self._rooted(filesystem).meet(self.caps))

    def _rooted(self, filesystem: Filesystem) -> Filesystem:
        """Leave of each grant what may begin at its very path."""
        grants = ((path, min(access, self._for_root(path))) for path, access in filesystem.grants)
        return Filesystem(tuple(grants), self.style)

    def highest(self, path: str) -> Access:
        """Return the most that a path can be given, whatever is granted."""
        return min(self.caps.access(path), self._for_root(path))

    def by_name(self, path: str) -> Access:
        """Return the most that may be asked for by naming a path."""
        return min([self.highest(path), *(place.by_name for place in self._around(path))])

    def why(self, path: str) -> str | None:
        """Return why a path cannot be given full access, as a clause; None if it can."""
        places = [
            place
            for place in self._around(path)
            if min(place.highest, place.by_name) < Access.READWRITE
        ]
        if places:
            return min(places, key=lambda place: min(place.highest, place.by_name)).why
        return self._rule_on_names(path)

    @cached_property
    def caps(self) -> Filesystem:
        """What is left of the whole file system by the places that cover what is inside them."""
        grants = [(self.style.everything, Access.READWRITE)]
        for place in self.table:
            if place.whole:
                around = [other for other in self._around(place.path) if other.whole]
                grants.append((place.path, min(other.highest for other in around)))
        caps = Filesystem(tuple(grants), self.style)
        for path in self.opened:
            around = [place for place in self._around(path) if place.whole and not place.secret]
            open_as = min([Access.READONLY, *(place.highest for place in around)])
            caps = caps.allow(path, open_as)
        return caps

    @cached_property
    def _at(self) -> dict[Key, list[Place]]:
        places: dict[Key, list[Place]] = {}
        for place in self.table:
            places.setdefault(self.style.key(self.style.parts(place.path)), []).append(place)
        return places

    def _around(self, path: str) -> list[Place]:
        """The places that a path is or, where they cover what is inside, is in."""
        key = self.style.key(self.style.parts(path))
        return [
            place
            for end in range(len(key) + 1)
            for place in self._at.get(key[:end], ())
            if place.whole or end == len(key)
        ]

    def _for_root(self, path: str) -> Access:
        """The most that a grant beginning at this very path can give it."""
        exact = [place.highest for place in self._around(path) if not place.whole]
        named = Access.READONLY if self._rule_on_names(path) else Access.READWRITE
        return min([named, *exact])

    def _rule_on_names(self, path: str) -> str | None:
        parts = self.style.parts(path)
        if self.style is not PathStyle.POSIX:
            parts = tuple(part.casefold() for part in parts)
        for names, why in NAMES:
            for start in range(len(parts) - len(names) + 1):
                if parts[start : start + len(names)] == names:
                    return why
        return None
