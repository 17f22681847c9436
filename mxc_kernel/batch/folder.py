"""Writing results where no sandbox can lead them astray.

A sandbox that may write a folder can put a symbolic link there, and whoever writes through it from
outside writes wherever it says. So every folder on the way is opened without following links (but
for those that root has made, such as a ``/home`` on another disk), and files are made under a name
of their own and renamed into place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mxc_kernel.errors import MxcKernelError

__all__ = ["Folder", "open_folder"]

_LINKS = 40  # as many as Linux follows in one path
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = ".mxc-kernel-run.lock"


class Folder:
    """An open folder; what is written goes there even if its path comes to mean another one.

    Args:
        fd: its descriptor, which it owns from now on.
        path: where it is, without symbolic links.
    """

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place as a whole: whoever looks finds the old text or the new one.

        No claim is made for a power cut: nothing is flushed to the disk.

        Args:
            name: the file's name, below the folder; missing folders in it are made.
            data: the file's content.

        Raises:
            MxcKernelError: it cannot be written, or a symbolic link stands in its place.
        """
        folder, _, last = name.rpartition("/")
        with _told(os.path.join(self.path, name)), self._below(folder) as fd:
            with suppress(FileNotFoundError):
                if stat.S_ISLNK(os.stat(last, dir_fd=fd, follow_symlinks=False).st_mode):
                    raise OSError(errno.ELOOP, "a symbolic link stands there")
            temporary = f".{last[:200]}.tmp"
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=fd)  # of a run that was killed
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(temporary, flags, 0o666, dir_fd=fd), "wb") as file:
                file.write(data)
            os.rename(temporary, last, src_dir_fd=fd, dst_dir_fd=fd)

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if it is not there or no regular file.

        Args:
            name: the file's name, below the folder.
        """
        folder, _, last = name.rpartition("/")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with self._below(folder, make=False) as fd:
                file = os.open(last, flags, dir_fd=fd)
        except OSError:
            return None
        with open(file, "rb") as opened:
            return opened.read() if stat.S_ISREG(os.fstat(file).st_mode) else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs from writing to this folder.

        Raises:
            MxcKernelError: another one does already.
        """
        with _told(self.path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(_LOCK, flags, 0o600, dir_fd=self._fd)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MxcKernelError(
                    f"another run writes to {self.path}",
                    remedy="Wait for it, or name another folder with --output-dir.",
                ) from None
            yield
            os.unlink(_LOCK, dir_fd=self._fd)
        finally:
            os.close(lock)

    @contextmanager
    def _below(self, path: str, *, make: bool = True) -> Iterator[int]:
        fds = [os.dup(self._fd)]
        try:
            for name in filter(None, path.split("/")):
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o777, dir_fd=fds[-1])
                fds.append(os.open(name, _FOLDER, dir_fd=fds[-1]))
            yield fds[-1]
        finally:
            for fd in fds:
                os.close(fd)


def open_folder(path: str, *, make: bool = True) -> Folder:
    """Open a folder without following links that anyone but root has made.

    Args:
        path: an absolute path.
        make: whether to make it, and the folders above it, where they are missing.

    Raises:
        MxcKernelError: it is not there, cannot be made, or is reached through a symbolic link.
    """
    with _told(path):
        return _walk(path, make=make)


def _walk(path: str, *, make: bool) -> Folder:
    pending = path.split("/")[::-1]
    fds, names = [os.open("/", _FOLDER)], list[str]()
    links = 0
    try:
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if names:
                    names.pop()
                    os.close(fds.pop())
                continue
            target = _roots_link(name, fds[-1])
            if target is not None:
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                pending += target.split("/")[::-1]
                while target.startswith("/") and names:
                    names.pop()
                    os.close(fds.pop())
                continue
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o777, dir_fd=fds[-1])
            fds.append(os.open(name, _FOLDER, dir_fd=fds[-1]))
            names.append(name)
        return Folder(os.dup(fds[-1]), "/" + "/".join(names))
    finally:
        for fd in fds:
            os.close(fd)


def _roots_link(name: str, folder: int) -> str | None:
    """Return where a symbolic link leads that root has made where only root makes any.

    Raises:
        OSError: it is someone else's link.
    """
    try:
        status, above = os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(folder)
    except FileNotFoundError:
        return None
    if not stat.S_ISLNK(status.st_mode):
        return None
    if status.st_uid or above.st_uid or (above.st_mode & 0o022 and not above.st_mode & 0o1000):
        raise OSError(errno.ELOOP, f"{name} is a symbolic link")
    return os.readlink(name, dir_fd=folder)


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        link = error.errno in (errno.ELOOP, errno.ENOTDIR)
        raise MxcKernelError(
            f"{path} cannot be written: {error.strerror}",
            remedy="Name the folder itself and not a link to it."
            if link
            else "Choose another place with --output-dir.",
        ) from error
