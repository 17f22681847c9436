"""Where the trail lies: made and checked before anything else, so that no sandbox can make it.

A rule on a path that is not there cannot be mounted, so a sandbox that may write the folder above
could put a folder of its own there. Hence `make` comes before the first launch.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from mxc_kernel.errors import AuditError
from mxc_kernel.policy.known import own_folder

__all__ = ["PARTS", "audit_folder", "make", "private", "refusal"]

PARTS = ("sessions", "live", "aside")
"""The folders inside: trails; heads of trails that are being written; half-written lines."""


def audit_folder(environ: Mapping[str, str] = os.environ) -> str:
    """Return the audit folder's path.

    Raises:
        SandboxPolicyError: there is no home folder.
    """
    return os.path.join(own_folder("state", environ), "audit")


def make(environ: Mapping[str, str] = os.environ) -> str:
    """Make the audit folder, readable by this user alone, and return its path.

    Raises:
        AuditError: it cannot be made, or someone else owns it.
        SandboxPolicyError: there is no home folder.
    """
    folder = audit_folder(environ)
    try:
        os.makedirs(os.path.dirname(os.path.dirname(folder)), exist_ok=True)
        for path in (os.path.dirname(folder), folder, *(f"{folder}/{part}" for part in PARTS)):
            private(path)
    except OSError as error:
        raise refusal(error, folder) from error
    return folder


def private(path: str) -> None:
    """Make a folder of mode 0700, or check that it is one of our own.

    Raises:
        AuditError: it is a link, or someone else's.
        OSError: it cannot be made.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        status = os.lstat(path)
        mine = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
        if not stat.S_ISDIR(status.st_mode) or not mine:
            raise AuditError(
                f"the audit trail cannot be kept: {path} is not a folder of this user's own",
                remedy=f"Move {path} away, or set XDG_STATE_HOME to a folder of your own.",
            ) from None
        if status.st_mode & 0o077:
            os.chmod(path, 0o700)


def refusal(error: OSError, path: str) -> AuditError:
    """Return the error for a trail that cannot be written."""
    return AuditError(
        f"the audit trail cannot be written ({error.strerror or error}); no cell runs without it",
        remedy=f"Make room, or make {path} writable for you; then run the cell again.",
    )
