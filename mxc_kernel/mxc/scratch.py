"""The file systems in memory that a sandbox has to itself, and limits on each of them.

MXC sets no size, so that each may take half of the host's memory. Root can give one another size
from outside (fspick(2), fsconfig(2)), and then a write beyond it fails in the sandbox. Everybody
else can only look how full they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

from mxc_kernel.mxc import mounted

__all__ = ["Scratch"]

_SYS_FSCONFIG, _SYS_FSPICK = 431, 433  # the same on every processor
_CLOEXEC, _EMPTY_PATH = 1, 8
_SET_STRING, _RECONFIGURE = 1, 7

_libc = ctypes.CDLL(None, use_errno=True)


class Scratch:
    """The private file systems of one sandbox.

    Found and opened before any code of the user's runs; the descriptors do not change their meaning
    whatever happens inside. They keep the file systems, so they have to be closed.

    Args:
        pid: the sandboxed process.

    Raises:
        OSError: it is gone, or its mounts cannot be read.
        ValueError: its mounts cannot be understood.
    """

    def __init__(self, pid: int) -> None:
        # What the host has mounted too is a grant that lies in memory: not the sandbox's own.
        hosts = {mount.device for mount in mounted.read("/proc/self/mountinfo")}
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._open: dict[str, int] = {}
        self._brought: dict[int, int] = {}  # files that were there from the start
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            for mount in mounted.read(f"/proc/{pid}/mountinfo"):
                if mount.kind == "tmpfs" and mount.device not in hosts | self._open.keys():
                    fd = os.open(f"/proc/{pid}/root{mount.point}", flags)
                    self._open[mount.device] = fd
                    status = os.fstatvfs(fd)
                    self._brought[fd] = status.f_files - status.f_ffree
            undo.pop_all()

    def limit(self, space: int | None, files: int | None) -> bool:
        """Have Linux enforce limits on each; false where it does not.

        Args:
            space: bytes; None for the half of the machine's memory that is the default.
            files: files and folders; None for the default, one for each page of that.
        """
        pages = os.sysconf("SC_PHYS_PAGES") // 2
        size = pages * os.sysconf("SC_PAGE_SIZE") if space is None else space
        count = pages if files is None else files
        return all(
            _reconfigure(fd, {b"size": str(size), b"nr_inodes": str(count + self._brought[fd])})
            for fd in self._open.values()
        )

    def used(self) -> tuple[int, int]:
        """Return the bytes and the files in the fullest, each by itself."""
        space = files = 0
        for fd in self._open.values():
            status = os.fstatvfs(fd)
            space = max(space, (status.f_blocks - status.f_bfree) * status.f_frsize)
            files = max(files, status.f_files - status.f_ffree - self._brought[fd])
        return space, files

    def total(self) -> int:
        """Return the bytes in all of them."""
        found = map(os.fstatvfs, self._open.values())
        return sum((status.f_blocks - status.f_bfree) * status.f_frsize for status in found)

    def close(self) -> None:
        """Let go of them. Safe more than once."""
        while self._open:
            os.close(self._open.popitem()[1])


def _reconfigure(fd: int, options: dict[bytes, str]) -> bool:
    """Change options of the mounted file system that a descriptor stands for."""
    context = _libc.syscall(_SYS_FSPICK, fd, b"", _CLOEXEC | _EMPTY_PATH)
    if context < 0:
        return False
    try:
        return all(
            _libc.syscall(_SYS_FSCONFIG, context, _SET_STRING, name, value.encode(), 0) == 0
            for name, value in options.items()
        ) and (_libc.syscall(_SYS_FSCONFIG, context, _RECONFIGURE, None, None, 0) == 0)
    finally:
        os.close(context)
