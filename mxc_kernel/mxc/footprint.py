"""Which host folders an interpreter must see in the sandbox, beyond what MXC shows everyone.

An interpreter's own answer is never taken as a list of paths to grant. It names prefixes and module
folders, and they count only where its executable's path leads to them, so that neither a strange
build nor a forged cache file has, say, a home folder granted.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

from mxc_kernel.records import record

__all__ = ["Footprint", "links", "of"]

# Visible in every Linux sandbox that MXC sets up (measured with 1.0.1), so not granted again.
_BASELINE = re.compile(r"/(bin|sbin|lib[^/]*|etc|usr/(bin|sbin|lib[^/]*|libexec|share))(/|$)")
# Granted whole these would replace the sandbox's private ones or show far more than an interpreter.
_NEVER = frozenset({"/", "/dev", "/home", "/proc", "/root", "/run", "/sys", "/tmp", "/usr", "/var"})  # noqa: S108
# What an environment consists of. A folder with anything else in it, such as a project or a home
# that was made an environment, is granted only in these parts.
_PARTS = frozenset(
    {"bin", "etc", "include", "lib", "lib32", "lib64", "libexec", "man", "pyvenv.cfg", "sbin"}
    | {"share", "ssl"}
)
_MARKS = frozenset({".gitignore", ".lock", "CACHEDIR.TAG", "mxc-runtime.json"})
_MODULES = ("site-packages", "dist-packages")
_MAX_LINKS = 40  # as many as Linux follows


@record
class Footprint:
    """What an interpreter needs and what it would like to see.

    Args:
        readonly: paths to grant. Some may be symbolic links: they are to be granted under exactly
            these names, which the interpreter's own links and settings contain.
        unseen: module folders that are not granted: the sources of packages in development mode,
            often whole projects, which only a ceiling may grant.
    """

    readonly: tuple[str, ...]
    unseen: tuple[str, ...]


def of(executable: str, prefixes: Sequence[str], modules: Sequence[str]) -> Footprint:
    """Work out an interpreter's footprint.

    Args:
        executable: its absolute path, not resolved.
        prefixes: what it says of its ``sys.prefix`` and the like.
        modules: the existing folders on its ``sys.path``.
    """
    granted: list[str] = []
    hops = list(links(executable))
    for prefix in _confirmed(executable, hops, prefixes):
        for path in _tree(prefix):
            _grant(granted, path)
            _grant(granted, os.path.realpath(path))
    for folder in modules:
        if os.path.basename(folder) in _MODULES:
            _grant(granted, folder)
    for hop in hops:
        # A link outside of all that would be missing inside, and the interpreter with it. Its
        # folder is granted if that holds programs, otherwise the link alone, under its own name.
        parent = os.path.dirname(hop)
        _grant(granted, parent if os.path.basename(parent) == "bin" else hop)
    _grant(granted, os.path.realpath(executable))
    unseen = [path for path in modules if not _seen(path, granted) and not _is_ours(path)]
    return Footprint(tuple(granted), tuple(unseen))


def _confirmed(executable: str, hops: Sequence[str], prefixes: Sequence[str]) -> Iterator[str]:
    """Yield the prefixes that the executable's path leads to; any other was made up.

    They hold the executable, a link on the way to it, or its environment's ``home``.
    """
    places = [executable, *hops, os.path.realpath(executable)]
    holders = {os.path.dirname(os.path.dirname(place)) for place in places}
    for holder in tuple(holders):
        home = _home(os.path.join(holder, "pyvenv.cfg"))
        if home:
            holders.add(os.path.dirname(home))
    holders |= {os.path.realpath(holder) for holder in holders}
    for prefix in dict.fromkeys(prefixes):
        if prefix in holders and os.path.isdir(prefix):
            yield prefix


def _home(config: str) -> str | None:
    """Return where a virtual environment says its base interpreter is."""
    try:
        with open(config, encoding="utf-8", errors="surrogateescape") as file:
            for line in file.read(64 << 10).splitlines():
                key, _, value = line.partition("=")
                if key.strip().lower() == "home" and os.path.isabs(value.strip()):
                    return os.path.normpath(value.strip())
    except OSError:
        pass
    return None


def _tree(prefix: str) -> list[str]:
    """Return the prefix if it holds nothing but an environment, else its parts that do."""
    if prefix == "/usr":
        return []  # MXC shows what is needed of it
    names = set(os.listdir(prefix))
    dedicated = names <= _PARTS | _MARKS or "conda-meta" in names
    if (dedicated or sys.platform == "darwin") and prefix not in _NEVER:
        return [prefix]
    return [os.path.join(prefix, name) for name in sorted(_PARTS & names)]


def _grant(granted: list[str], path: str) -> None:
    if path not in _NEVER and not _seen(path, granted):
        granted.append(path)


def _seen(path: str, granted: Sequence[str]) -> bool:
    return bool(_BASELINE.match(path)) or any(_within(path, folder) for folder in granted)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _is_ours(folder: str) -> bool:
    """Return whether a folder is there for this package alone: a development install of it.

    Its host side must not be seen inside; installed the usual way, it lies among the other packages
    in ``site-packages``, where it does no harm.
    """
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    return _within(package, os.path.realpath(folder))


def links(path: str) -> Iterator[str]:
    """Yield the place of every symbolic link that is followed on the way to a path, in order.

    Args:
        path: an absolute path.
    """
    steps, current, followed = path.split("/"), "/", 0
    while steps and followed < _MAX_LINKS:
        step = steps.pop(0)
        place = os.path.dirname(current) if step == ".." else os.path.join(current, step)
        if step in ("", ".") or not os.path.islink(place):
            current = current if step in ("", ".") else place
            continue
        yield place
        followed += 1
        target = os.readlink(place)
        current = "/" if target.startswith("/") else current
        steps = target.split("/") + steps
