"""Access levels, and what a path means on each system.

Nothing here touches a disk: a path is a tuple of names below one imaginary root that holds
everything, and a `PathStyle` says how to split a path into names and which names are the same.
"""

from __future__ import annotations

import re
import sys
from enum import Enum, IntEnum

from mxc_kernel.errors import SandboxPolicyError

__all__ = ["NATIVE", "Access", "Key", "PathStyle"]

Key = tuple[str, ...]


class Access(IntEnum):
    """What a sandbox may do with a file or folder and everything below it."""

    NONE = 0
    READONLY = 1
    READWRITE = 2

    @property
    def words(self) -> str:
        """The level in words, for messages."""
        return ("no access", "read-only", "read and write")[self]


# Names that Windows gives to devices in every folder, with or without an extension.
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
# Patterns stay text, and are compiled when a Windows path first needs them: 2 ms of each start.
_DEVICES = r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\.|$)"
_NOT_IN_NAMES = r'[\x00-\x1f<>:"|?*]'
_DRIVE = r"([A-Za-z]):(?=[\\/]|$)"
_UNC = r"[\\/]{2}([^\\/]+)[\\/]+([^\\/]+)"
# What Windows makes up for names that do not fit into eight characters, a dot and three more.
# https://learn.microsoft.com/openspecs/windows_protocols/ms-fscc (short names)
_SHORT = r"(?i)[^.~ ]{1,6}~[0-9]{1,6}(\.[^. ]{0,3})?"

# The sealed system volume of macOS has these links and firmlinks, the same on every machine from
# macOS 11 on: /usr/share/firmlinks, and hier(7). A firmlink is invisible to realpath(3), so one
# file has two absolute paths, and a rule on the one would not be found for the other.
_DATA_VOLUME = ("System", "Volumes", "Data")
_FIRMLINKS = frozenset(
    tuple(path.split("/"))
    for path in (
        *("AppleInternal", "Applications", "Library", "Users", "Volumes", "cores", "opt"),
        *("private", "usr/local", "usr/share/snmp", "usr/libexec/cups"),
        *(f"System/Library/{name}" for name in ("Caches", "Assets", "AssetsV2", "Speech")),
        *("System/Library/PreinstalledAssets", "System/Library/PreinstalledAssetsV2"),
        "System/Library/CoreServices/CoreTypes.bundle/Contents/Library",
    )
)
_ROOT_LINKS = {
    "tmp": ("private", "tmp"),
    "var": ("private", "var"),
    "etc": ("private", "etc"),
    "home": (*_DATA_VOLUME, "home"),
}


class PathStyle(Enum):
    r"""How a system spells and compares absolute paths.

    - ``POSIX``: ``/a/b``; names are compared byte by byte.
    - ``MACOS``: ``/a/b``; case and Unicode form do not matter (APFS as installed by default),
      and the system's own links are the same place: ``/tmp`` is ``/private/tmp``.
    - ``WINDOWS``: ``C:\a`` and ``\\server\share\a``, with or without ``\\?\``; case does
      not matter.
    """

    POSIX = "posix"
    MACOS = "macos"
    WINDOWS = "windows"

    @property
    def everything(self) -> str:
        """The path that stands for the whole file system; on Windows for all drives and shares."""
        return "*" if self is PathStyle.WINDOWS else "/"

    def parts(self, path: str) -> Key:
        """Split an absolute path into its names; the whole file system is the empty tuple.

        Repeated and trailing separators and ``.`` are dropped.

        Args:
            path: an absolute path without ``..``.

        Raises:
            SandboxPolicyError: the path is relative, has ``..`` or names no file on such a system.
        """
        if path == self.everything:
            return ()
        if "\0" in path:
            raise _unusable(path, "it holds a NUL")
        parts = _windows_parts(path) if self is PathStyle.WINDOWS else _posix_parts(path)
        if self is PathStyle.MACOS:
            parts = _macos_place(parts)
        if ".." in parts:
            raise _unusable(path, "it holds '..'")
        return parts

    def key(self, parts: Key) -> Key:
        """Return the names in the form in which they are compared."""
        if self is PathStyle.POSIX:
            return parts
        fold = _fold_windows if self is PathStyle.WINDOWS else _fold_macos
        return tuple(fold(name) for name in parts)

    def join(self, parts: Key) -> str:
        """Return the one spelling of a path that `parts` came from."""
        if self is not PathStyle.WINDOWS:
            return "/" + "/".join(parts)
        if not parts:
            return self.everything
        if len(parts) == 1 and parts[0].endswith(":"):
            return parts[0] + "\\"
        return "\\".join(parts)

    def normal(self, path: str) -> str:
        """Return the path without repeated or trailing separators.

        Raises:
            SandboxPolicyError: see `parts`.
        """
        return self.join(self.parts(path))

    def has_short_name(self, path: str) -> bool:
        """Whether a name in the path may be one that Windows made up for a longer one (8.3).

        Then it is another spelling of a path that only the disk knows.
        """
        return self is PathStyle.WINDOWS and any(
            re.fullmatch(_SHORT, name) for name in self.parts(path)[1:]
        )

    def within(self, path: str, folder: str) -> bool:
        """Whether the path is the folder or lies below it; ``/database`` is not below ``/data``.

        Raises:
            SandboxPolicyError: see `parts`.
        """
        above = self.key(self.parts(folder))
        return self.key(self.parts(path))[: len(above)] == above


def _unusable(path: str, why: str) -> SandboxPolicyError:
    return SandboxPolicyError(
        f"{path!r} cannot be used in a policy: {why}",
        remedy="Give an absolute path without '..', as the system itself would print it.",
    )


def _posix_parts(path: str) -> Key:
    if not path.startswith("/"):
        raise _unusable(path, "it is not absolute")
    return tuple(name for name in path.split("/") if name not in ("", "."))


def _macos_place(parts: Key) -> Key:
    """Return the one place of those that the system's own links make the same."""
    folded = tuple(_fold_macos(name) for name in parts[:1])
    if folded and folded[0] in _ROOT_LINKS:
        parts = (*_ROOT_LINKS[folded[0]], *parts[1:])
    rest = parts[len(_DATA_VOLUME) :]
    volume = tuple(_fold_macos(name) for name in parts[: len(_DATA_VOLUME)])
    if volume != tuple(_fold_macos(name) for name in _DATA_VOLUME):
        return parts
    names = tuple(_fold_macos(name) for name in rest)
    linked = any(
        names[: len(link)] == tuple(_fold_macos(name) for name in link) for link in _FIRMLINKS
    )
    return rest if linked else parts


def _windows_parts(path: str) -> Key:
    plain = path
    if path[:4].replace("/", "\\") == "\\\\?\\":
        plain = path[4:]
        if plain[:4].upper().replace("/", "\\") == "UNC\\":
            plain = "\\\\" + plain[4:]
        elif not re.match(_DRIVE, plain):
            raise _unusable(path, "it names a device or a volume")
    if drive := re.match(_DRIVE, plain):
        anchor = drive[1].upper() + ":"
        rest = plain[drive.end() :]
    elif share := re.match(_UNC, plain):
        anchor = f"\\\\{share[1]}\\{share[2]}"
        rest = plain[share.end() :]
        if share[1] in (".", "?") or ".." in (share[1], share[2]):
            raise _unusable(path, "it names a device")
        if share[2].endswith("$"):  # \\host\C$ is drive C: under another name
            raise _unusable(path, "an administrative share is another spelling of a drive")
    else:
        raise _unusable(path, "it is not absolute")
    names = tuple(name for name in re.split(r"[\\/]", rest) if name not in ("", "."))
    for name in names:
        # A name with a trailing dot or space, a stream (`a.txt:s`) or a device is another spelling
        # of some other file, so a rule on that file would not be found for it.
        if name != ".." and (
            name[-1] in ". " or re.search(_NOT_IN_NAMES, name) or re.match(_DEVICES, name)
        ):
            raise _unusable(path, f"{name!r} is not a plain file name on Windows")
    return (anchor, *names)


def _fold_windows(name: str) -> str:
    # NTFS compares through a table of one-to-one upper-case mappings. Folding more than that
    # (`ß`, dotless i, long s) would let a grant on one folder reach another.
    if name.isascii():
        return name.upper()
    return "".join(
        upper if len(upper := char.upper()) == 1 and upper.lower() == char else char
        for char in name
    )


def _fold_macos(name: str) -> str:
    if name.isascii():
        return name.lower()
    from unicodedata import normalize

    return normalize("NFD", normalize("NFD", name).casefold())


NATIVE = {"win32": PathStyle.WINDOWS, "darwin": PathStyle.MACOS}.get(sys.platform, PathStyle.POSIX)
