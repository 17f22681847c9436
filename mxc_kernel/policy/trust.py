"""Reads a file only if nobody but root and the user could have written it or put it there."""

from __future__ import annotations

import errno
import os
import stat
from types import TracebackType

from mxc_kernel.errors import SandboxPolicyError

__all__ = ["read_trusted"]

_LARGEST = 1 << 20  # bytes; a ceiling is a page
_LINKS = 40  # as many symlinks as Linux itself follows in one path


def read_trusted(path: str) -> tuple[bytes, str] | None:
    """Read a file after checking its owner and mode, and those of every folder on the way to it.

    The check is made on opened descriptors, each folder opened below the one checked before, so
    nothing can be swapped between the check and the reading. Root may own anything on the way;
    else the user the kernel runs as must, so that as root only root's files count. A folder that
    others may write is accepted only with the sticky bit (`/tmp`), where they cannot replace what
    is not theirs.

    Args:
        path: an absolute path. Symlinks among its folders are followed, each checked likewise; the
            file itself may not be one.

    Returns:
        The content and the path without symlinks; None if there is no such file.

    Raises:
        SandboxPolicyError: someone else could have written the file, it is not a regular file, it
            is larger than 1 MiB, or it cannot be read.
    """
    if not hasattr(os, "geteuid"):
        raise SandboxPolicyError(
            f"{path}: who may write it cannot be checked on this system yet",
            remedy="Remove the file; without a ceiling nothing is granted.",
        )
    try:
        os.lstat(path)
        with _Walk(path) as walk:
            walk.descend(os.path.dirname(path))
            return walk.read(os.path.basename(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SandboxPolicyError(
            f"{path} cannot be read: {error.strerror}",
            remedy="Make the file readable for the user who runs the kernel, or remove it.",
        ) from error


class _Walk:
    """Goes down from the root, one opened and checked folder at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names: list[str] = []
        self._fds: list[int] = []

    def __enter__(self) -> _Walk:
        self._fds.append(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        self._check(os.fstat(self._fds[0]), "/")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for fd in self._fds:
            os.close(fd)

    def descend(self, folder: str) -> None:
        """Go down to a folder, through symlinks whose owner and folder are checked too."""
        pending = folder.split("/")[::-1]
        links = 0
        while pending:
            name = pending.pop()
            if name == "..":
                self._up(1)
            elif name not in ("", "."):
                status = os.stat(name, dir_fd=self._fds[-1], follow_symlinks=False)
                if not stat.S_ISLNK(status.st_mode):
                    self._enter(name)
                    continue
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                self._check_owner(status, self._at(name))
                target = os.readlink(name, dir_fd=self._fds[-1])
                pending.extend(target.split("/")[::-1])
                if target.startswith("/"):
                    self._up(len(self._names))

    def read(self, name: str) -> tuple[bytes, str]:
        """Read the file of this name; also return its path without symlinks."""
        # Non-blocking: opening a pipe that someone left there must not hang the kernel.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self._fds[-1])
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise SandboxPolicyError(
                f"{self._path} is a symlink",
                remedy="Put the file itself there, or name the file it leads to.",
            ) from None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise SandboxPolicyError(
                    f"{self._path} is not a regular file", remedy="Put a plain text file there."
                )
            self._check(status, self._at(name))
            content = b""
            while len(content) <= _LARGEST and (chunk := os.read(fd, _LARGEST)):
                content += chunk
        finally:
            os.close(fd)
        if len(content) > _LARGEST:
            raise SandboxPolicyError(
                f"{self._path} is larger than 1 MiB", remedy="Shorten the file."
            )
        return content, self._at(name)

    def _enter(self, name: str) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fds.append(os.open(name, flags, dir_fd=self._fds[-1]))
        self._names.append(name)
        self._check(os.fstat(self._fds[-1]), self._at())

    def _up(self, levels: int) -> None:
        for _ in range(min(levels, len(self._names))):
            self._names.pop()
            os.close(self._fds.pop())

    def _at(self, *names: str) -> str:
        return "/" + "/".join((*self._names, *names))

    def _check(self, status: os.stat_result, at: str) -> None:
        self._check_owner(status, at)
        shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        # With access control lists the group's bit stands for the widest entry, so it covers them.
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not shared:
            raise SandboxPolicyError(
                f"{self._path} is not trusted: others may write {at}",
                remedy=f"Run `chmod go-w {at}`.",
            )

    def _check_owner(self, status: os.stat_result, at: str) -> None:
        if status.st_uid in (0, os.geteuid()):
            return
        mine = "root" if os.geteuid() == 0 else f"root or uid {os.geteuid()}"
        raise SandboxPolicyError(
            f"{self._path} is not trusted: {at} belongs to uid {status.st_uid}, not to {mine}",
            remedy=f"Keep ceilings where {mine} owns every folder, or change the owner of {at}.",
        )
