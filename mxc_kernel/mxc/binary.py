"""Finds the MXC executable, verifies it, and holds on to exactly the bytes that were verified.

What is hashed is what is executed: on Linux the file is copied into anonymous memory, sealed there
against every further change, hashed and executed from there. A file swapped or written to after
the check is never reached again. On macOS the copy lies in a folder of this user's alone, and its
signature is checked too; on Windows the file stays where it is, open in a way that forbids others
to write, rename or delete it.

This runs at every kernel's start, before almost anything else is imported. Measured on a 2.5 GHz
Xeon without SHA instructions, 12.4 MB: copy 4.5 ms, seal and map 1 ms, SHA-256 32 ms with the
interpreter lock released, so that another thread can import meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import stat
import sys
from typing import TYPE_CHECKING

from mxc_kernel.errors import SandboxUnavailableError, SandboxUntrustedBinaryError
from mxc_kernel.mxc import release
from mxc_kernel.mxc.folders import SYSTEM_DATA, data_folder
from mxc_kernel.mxc.trust import check_owned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

__all__ = [
    "TRUSTED_DIRECTORIES",
    "SealedBinary",
    "VerifiedBinary",
    "bwrap_directory",
    "bwrap_version",
    "candidates",
    "installed_path",
    "open_sealed",
    "open_verified",
    "seal",
    "verify",
]

TRUSTED_DIRECTORIES = ("/usr/bin", "/bin", "/usr/local/bin")

_MFD_EXEC = 0x0010  # Linux 6.3; without it a system set to non-executable memfds refuses to run it
_F_SEAL_EXEC = 0x0020  # Linux 6.3
_LARGEST = 256 << 20  # bytes; the pinned executables have 12 MB
_SETUP = "Run `mxc-kernel setup`, which fetches and verifies it."


class VerifiedBinary:
    """An executable whose bytes are known and can no longer change.

    Attributes:
        fd: descriptor of those bytes, close-on-exec.
        exec_path: what to execute; valid in this process and in one that inherits ``fd``.
        source: the file they were copied from.
        sha256: their digest.
        version: the MXC release they belong to.
    """

    def __init__(
        self, fd: int, exec_path: str, source: str, sha256: str, *, copied: bool = False
    ) -> None:
        self.fd = fd
        self.exec_path = exec_path
        self.source = source
        self.sha256 = sha256
        self.version = release.VERSION
        self._copied = copied  # to a private folder of its own
        self._closed = False

    def close(self) -> None:
        """Let go of the bytes. Processes that already run them are not affected."""
        if self._closed:
            return
        self._closed = True
        os.close(self.fd)
        if not self._copied:
            return
        with contextlib.suppress(OSError):
            os.unlink(self.exec_path)
            os.rmdir(os.path.dirname(self.exec_path))

    def __enter__(self) -> VerifiedBinary:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SealedBinary:
    """A copy that can no longer change and has not been checked yet. Nothing executes it.

    Args:
        fd: descriptor of the bytes, close-on-exec.
        exec_path: what to execute once they are verified.
        source: the file they were copied from.
        sha256: the digest that they must have.
        copied: whether ``exec_path`` is a copy, alone in its folder, to be removed in the end.
    """

    def __init__(
        self, fd: int, exec_path: str, source: str, sha256: str, *, copied: bool = False
    ) -> None:
        self._binary = VerifiedBinary(fd, exec_path, source, sha256, copied=copied)
        try:
            size = os.fstat(fd).st_size
            self._data = mmap.mmap(fd, size, access=mmap.ACCESS_READ) if size else b""
        except BaseException:
            self._binary.close()
            raise

    def verified(self) -> VerifiedBinary:
        """Return the executable, if it is the right one. Nearly all of it is one call that hashes.

        Raises:
            SandboxUntrustedBinaryError: it has another digest.
        """
        binary = self._binary
        try:
            found = hashlib.sha256(self._data).hexdigest()
            if sys.platform == "darwin" and found == binary.sha256:
                from mxc_kernel.mxc.macos import check_signature

                check_signature(binary.exec_path)
        except BaseException:
            self.close()
            raise
        if found == binary.sha256:
            self._unmap()
            return binary
        self.close()
        raise SandboxUntrustedBinaryError(
            f"{binary.source} is not the MXC {release.VERSION} executable: its SHA-256 is {found}, "
            f"not {binary.sha256}",
            remedy="Remove that file, then run `mxc-kernel setup` for the verified one.",
        )

    def close(self) -> None:
        """Let go of the bytes."""
        self._unmap()
        self._binary.close()

    def _unmap(self) -> None:
        if not isinstance(self._data, bytes):
            self._data.close()


def open_verified(
    configured: str | None = None, environ: Mapping[str, str] = os.environ
) -> VerifiedBinary:
    """Find the executable, and return it once its bytes are verified and cannot change.

    Args:
        configured: path of the executable that the operator chose, if any.
        environ: where ``MXC_BIN_DIR``, ``HOME`` and the like are looked up.

    Raises:
        SandboxUnavailableError: no executable was found.
        SandboxUntrustedBinaryError: one was found that is not the pinned one.
    """
    return open_sealed(configured, environ).verified()


def open_sealed(
    configured: str | None = None, environ: Mapping[str, str] = os.environ
) -> SealedBinary:
    """Find the executable, and return its bytes once they cannot change.

    The first file found decides: a wrong one is an error, not a reason to look further.

    Args:
        configured: path of the executable that the operator chose, if any.
        environ: where ``MXC_BIN_DIR``, ``HOME`` and the like are looked up.

    Raises:
        SandboxUnavailableError: no executable was found.
        SandboxUntrustedBinaryError: what was found is not a regular file.
    """
    executable = release.for_this_machine()
    looked_in: list[str] = []
    for path in candidates(executable, configured, environ):
        binary = seal(path, executable.sha256)
        if binary is not None:
            return binary
        looked_in.append(path)
        if path == configured:
            # A choice that cannot be honoured is said, not silently replaced by another.
            raise SandboxUnavailableError(
                f"the configured MXC executable {path} does not exist",
                remedy="Correct the path or remove the setting.",
            )
    raise SandboxUnavailableError(
        f"the MXC executable was not found (looked for {', '.join(looked_in)})", remedy=_SETUP
    )


def candidates(
    executable: release.Executable,
    configured: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[str]:
    """Yield the paths where the executable may be, the preferred ones first.

    Explicit configuration, ``MXC_BIN_DIR``, our own data folder (then the system's), npm's global
    packages. npm itself is not run for that: it would cost 0.3 s at each start.
    """
    if configured:
        yield configured
    if bin_dir := environ.get("MXC_BIN_DIR"):
        yield os.path.join(bin_dir, executable.name)
        yield os.path.join(bin_dir, executable.arch, executable.name)
    yield installed_path(executable, data_folder(environ))
    if sys.platform != "win32" and os.geteuid() != 0:
        yield installed_path(executable, SYSTEM_DATA)
    for root in _npm_roots(environ):
        yield os.path.join(root, *release.PACKAGE.split("/"), *executable.member.split("/"))


def installed_path(executable: release.Executable, data: str) -> str:
    """Return where `mxc-kernel setup` puts the executable below a data folder."""
    return os.path.join(data, "mxc", release.VERSION, executable.arch, executable.name)


def _npm_roots(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield npm's global package folders: as configured, else beside each node on the PATH."""
    prefixes = [environ.get("npm_config_prefix"), environ.get("NPM_CONFIG_PREFIX")]
    with contextlib.suppress(OSError), open(os.path.expanduser("~/.npmrc"), "rb") as file:
        for line in file.read(64 << 10).decode("utf-8", "replace").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "prefix":
                prefixes.append(os.path.expanduser(value.strip().strip("\"'")))
    for folder in environ.get("PATH", "").split(os.pathsep):
        if os.path.isabs(folder) and os.path.lexists(os.path.join(folder, "node")):
            node = os.path.realpath(os.path.join(folder, "node"))
            prefixes.append(os.path.dirname(os.path.dirname(node)))
    for prefix in dict.fromkeys(prefixes):
        if prefix and os.path.isabs(prefix):
            yield os.path.join(prefix, "lib", "node_modules")


def verify(path: str, sha256: str) -> VerifiedBinary | None:
    """Return the file's bytes, fixed and verified; None if there is no such file.

    Args:
        path: the file. Folders on the way may be links; the file itself may not.
        sha256: the digest that its bytes must have.

    Raises:
        SandboxUntrustedBinaryError: it is not a regular file, or has another digest.
        SandboxUnavailableError: it cannot be read or copied.
    """
    sealed = seal(path, sha256)
    return sealed.verified() if sealed is not None else None


def seal(path: str, sha256: str) -> SealedBinary | None:
    """Return the file's bytes, fixed; None if there is no such file.

    Args:
        path: the file. Folders on the way may be links; the file itself may not.
        sha256: the digest that its bytes must have.

    Raises:
        SandboxUntrustedBinaryError: it is not a regular file.
        SandboxUnavailableError: it cannot be read or copied.
    """
    release.checked_digest(sha256)
    if sys.platform == "win32":
        from mxc_kernel.mxc.windows import open_protected

        opened = open_protected(path)
        return SealedBinary(*opened, path, sha256) if opened else None
    source = _open_regular(path)
    if source is None:
        return None
    sealed = _has_memfd()
    try:
        fd, exec_path = _sealed_copy(source, path) if sealed else _private_copy(source, path)
    except OSError as error:
        raise SandboxUnavailableError(
            f"{path} could not be copied to where it cannot change: {error.strerror}",
            remedy="Free some memory, or put the executable on a local disk.",
        ) from None
    finally:
        os.close(source)
    return SealedBinary(fd, exec_path, path, sha256, copied=not sealed)


def _open_regular(path: str) -> int | None:
    # O_NONBLOCK: opening a FIFO that somebody left there must not hang the start of the kernel.
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        fd = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link, a socket
            raise _not_regular(path) from None
        raise SandboxUnavailableError(
            f"the MXC executable {path} cannot be read: {error.strerror}",
            remedy="Make it readable for this user, or remove it and run `mxc-kernel setup`.",
        ) from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
        os.close(fd)
        raise _not_regular(path)
    return fd


def _not_regular(path: str) -> SandboxUntrustedBinaryError:
    return SandboxUntrustedBinaryError(
        f"{path} is not a regular file of a plausible size",
        remedy="Remove it, then run `mxc-kernel setup`; links to the executable are not followed.",
    )


def _has_memfd() -> bool:
    return hasattr(os, "memfd_create")


def _sealed_copy(source: int, path: str) -> tuple[int, str]:
    """Copy an open file into memory that can no longer be written, grown, shrunk or unsealed."""
    import fcntl

    name = os.path.basename(path)
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(name, flags)  # Linux before 6.3: always executable
    try:
        left = _LARGEST  # a file that somebody keeps growing must not fill the memory
        while left and (count := os.sendfile(fd, source, None, left)):
            left -= count
        os.fchmod(fd, 0o555)
        with contextlib.suppress(OSError):  # Linux before 6.3 does not know this seal
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _F_SEAL_EXEC)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd, f"/proc/self/fd/{fd}"


def _private_copy(source: int, path: str) -> tuple[int, str]:
    """Copy an open file into a folder that only this user can enter, and open that copy."""
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="mxc-kernel-")
    copy = os.path.join(folder, os.path.basename(path))
    try:
        with open(copy, "xb") as target, os.fdopen(os.dup(source), "rb") as file:
            shutil.copyfileobj(file, target, 1 << 20)
        os.chmod(copy, 0o500)
        fd = os.open(copy, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return fd, copy


def bwrap_directory(
    directories: Sequence[str] = TRUSTED_DIRECTORIES, *, owner: int = 0, root: str = "/"
) -> str:
    """Return the first trusted folder that has a bubblewrap which only the owner can replace.

    The executable looks bubblewrap up on its PATH, so this folder is made its whole PATH; the
    user's own PATH is never asked.

    Args:
        directories: folders to look in, in order.
        owner: uid that must own the program and every folder and link on the way; root.
        root: where the walk along those folders begins.

    Raises:
        SandboxUnavailableError: there is no bubblewrap in these folders.
        SandboxUntrustedBinaryError: somebody else could replace the one that was found.
    """
    for directory in directories:
        path = os.path.join(directory, "bwrap")
        if os.path.lexists(path):
            check_owned(path, owner=owner, root=root)
            return directory
    raise SandboxUnavailableError(
        f"bubblewrap (bwrap) was not found in {', '.join(directories)}",
        remedy="Run `mxc-kernel setup` as root, or: apt-get install bubblewrap.",
    )


def bwrap_version(directory: str) -> tuple[int, ...]:
    """Return the version of the bubblewrap in a folder that :func:`bwrap_directory` returned.

    This project's tests have run with 0.8.0; nothing is claimed of older ones.

    Raises:
        SandboxUnavailableError: it does not run or does not say its version.
    """
    import subprocess

    try:
        answer = subprocess.run(
            [os.path.join(directory, "bwrap"), "--version"],
            capture_output=True,
            check=True,
            text=True,
            timeout=10,
            env={},
        ).stdout
        return tuple(int(part) for part in answer.split()[1].split("."))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise SandboxUnavailableError(
            f"bubblewrap in {directory} does not say its version: {error}",
            remedy="Reinstall bubblewrap from the system's packages.",
        ) from None
