"""Checks of the audit trail, without which no cell runs."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mxc_kernel.audit.chain import read_key
from mxc_kernel.audit.folder import audit_folder, refusal
from mxc_kernel.doctor.check import Check, Status, failed
from mxc_kernel.errors import MxcKernelError
from mxc_kernel.policy import format_size

if TYPE_CHECKING:
    from mxc_kernel.policy import Settings

__all__ = ["check_audit"]

_LITTLE = 64 << 20  # bytes; a cell takes 2 KiB, and up to 1 MiB where its code is kept


def _room(folder: str) -> tuple[int, bool]:
    """Return the bytes that are free on a folder's disk, and whether it takes another file."""
    if not hasattr(os, "statvfs"):
        return shutil.disk_usage(folder).free, True
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize, bool(disk.f_favail or not disk.f_files)


def check_audit(
    settings: Settings,
    environ: Mapping[str, str] = os.environ,
    room: Callable[[str], tuple[int, bool]] = _room,
) -> Check:
    """Can the trail be written, is its key one, and how is it anchored?"""
    name = "audit trail"
    try:
        folder = audit_folder(environ)
        if settings.audit.key is not None:
            read_key(settings.audit.key)
    except MxcKernelError as error:
        return failed(name, error)
    there = folder
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        return Check(
            name,
            Status.FAIL,
            f"{there} cannot be written, so no cell would run",
            f"Make {there} writable for you, or set XDG_STATE_HOME to another folder.",
        )
    free, takes_files = room(there)
    if not free or not takes_files:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return failed(name, refusal(full, folder))
    if free < _LITTLE:
        return Check(
            name,
            Status.WARN,
            f"{format_size(free)} are free for {folder}; once it is full no cell runs",
            "Make room, or set [audit] retention.",
        )
    audit = settings.audit
    how = ["chained with a key" if audit.key else "chained"]
    if audit.anchor_file or audit.anchor_command:
        how.append("anchored outside")
    return Check(name, Status.OK, f"{folder}, {' and '.join(how)}")
