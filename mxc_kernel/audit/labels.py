"""Labels that tell paths apart without saying what they are."""

from __future__ import annotations

import contextlib
import hmac
import os

from mxc_kernel.audit import locking
from mxc_kernel.audit.lines import create

__all__ = ["Labels", "mark", "salt"]

_SALT = 32  # bytes


def salt(folder: str) -> bytes:
    """Return what the labels of an audit folder are made with; made at the first call.

    It keeps a label from being looked up in a list of likely paths by somebody who was given
    records but not the folder.

    Raises:
        OSError: it can be neither read nor made.
    """
    if (found := _salt_of(folder)) is not None:
        return found
    path = f"{folder}/salt"
    with locking.held(f"{folder}/lock"):
        if (found := _salt_of(folder)) is not None:
            return found
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # it was not finished
        fd = create(path)
        try:
            made = os.urandom(_SALT)
            os.write(fd, made)
        finally:
            os.close(fd)
    return made


def mark(folder: str, path: str) -> str | None:
    """Return what every label of a path ends with in an audit folder, such as ``#4c6f1a90be21``.

    Args:
        folder: the audit folder.
        path: an absolute path.

    Returns:
        It; None where no label was ever made.
    """
    found = _salt_of(folder)
    return None if found is None else Labels(found, {})(path)


def _salt_of(folder: str) -> bytes | None:
    try:
        with open(f"{folder}/salt", "rb") as file:
            found = file.read()
    except FileNotFoundError:
        return None
    return found if len(found) == _SALT else None


class Labels:
    """Makes the labels of one session.

    Args:
        secret: the folder's `salt`.
        roots: folders that have a name of their own, by that name, such as ``~``.
    """

    def __init__(self, secret: bytes, roots: dict[str, str]) -> None:
        self._mac = hmac.new(secret, digestmod="sha256")
        self._roots = sorted(roots.items(), key=lambda item: -len(item[1]))
        self._made: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        """Return the label of a path: the same in all sessions, such as ``~/#4c6f1a90be21``."""
        label = self._made.get(path)
        if label is None:
            if len(self._made) > 1000:  # denials bring any number of paths
                self._made.clear()
            label = self._made[path] = self._make(path)
        return label

    def _make(self, path: str) -> str:
        for name, root in self._roots:
            if path == root:
                return name
            if path.startswith(root.rstrip("/") + "/"):
                return f"{name.rstrip('/')}/#{self._digest(path)}"
        return f"#{self._digest(path)}"

    def _digest(self, path: str) -> str:
        mac = self._mac.copy()
        mac.update(os.fsencode(path) if _encodable(path) else repr(path).encode())
        return mac.hexdigest()[:12]


def _encodable(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # the child's word, not a file's name
        return False
    return True
