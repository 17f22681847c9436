"""What only Windows has: job objects, and files that nobody may write while they are open.

By hand through ctypes, as a dependency for four calls would be in every user's way. Written from
Microsoft's documentation; run by the CI on Windows, never by the authors.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    import msvcrt
    import os
    import subprocess
    import time
    from collections.abc import Mapping
    from ctypes import wintypes

    from mxc_kernel.errors import SandboxUnavailableError, SandboxUntrustedBinaryError
    from mxc_kernel.mxc.surroundings import WINDOWS_ENFORCED, windows_launcher, windows_workload

    __all__ = ["Job", "WindowsHost", "open_protected"]

    _CREATE_SUSPENDED = 0x00000004
    # No console window, a group that Ctrl+C in the server's console does not reach, and suspended:
    # nothing is started before the job holds it.
    _CREATION_FLAGS = (
        _CREATE_SUSPENDED | subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    )

    # winnt.h, jobapi2.h
    _EXTENDED_LIMITS, _ACCOUNTING = 9, 1
    _LIMIT_ACTIVE_PROCESS, _LIMIT_JOB_MEMORY = 0x00000008, 0x00000200
    _LIMIT_DIE_ON_UNHANDLED, _LIMIT_KILL_ON_CLOSE = 0x00000400, 0x00002000
    # fileapi.h, winnt.h
    _GENERIC_READ, _SHARE_READ, _OPEN_EXISTING = 0x80000000, 0x00000001, 3
    _OPEN_REPARSE_POINT, _REPARSE_POINT, _DIRECTORY = 0x00200000, 0x00000400, 0x00000010
    _INVALID_HANDLE = ctypes.c_void_p(-1).value
    _FILE_NOT_FOUND, _PATH_NOT_FOUND = 2, 3

    class _BasicLimits(ctypes.Structure):
        _fields_ = (
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", wintypes.DWORD),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", wintypes.DWORD),
            ("SchedulingClass", wintypes.DWORD),
        )

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = (
            ("BasicLimitInformation", _BasicLimits),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        )

    class _Accounting(ctypes.Structure):
        _fields_ = (
            ("Times", ctypes.c_int64 * 4),
            ("TotalPageFaultCount", wintypes.DWORD),
            ("TotalProcesses", wintypes.DWORD),
            ("ActiveProcesses", wintypes.DWORD),
            ("TotalTerminatedProcesses", wintypes.DWORD),
        )

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.CreateJobObjectW.restype = wintypes.HANDLE
    _kernel32.CreateFileW.restype = wintypes.HANDLE
    _ntdll = ctypes.WinDLL("ntdll")

    def _check(result: int) -> None:
        if not result:
            raise ctypes.WinError(ctypes.get_last_error())

    class Job:
        """A job object: everything that the launcher starts is in it, and ends with it.

        Windows ends it too when the last handle to it goes, so a killed host leaves nothing behind.

        Args:
            memory: bytes that all its processes may commit; None for no limit.
            processes: processes that it may have at a time; None for no limit.
        """

        def __init__(self, memory: int | None = None, processes: int | None = None) -> None:
            self._handle = wintypes.HANDLE(_kernel32.CreateJobObjectW(None, None))
            _check(self._handle.value or 0)
            limits = _ExtendedLimits()
            basic = limits.BasicLimitInformation
            # No dialog of the error reporting service may keep a dead process waiting.
            basic.LimitFlags = _LIMIT_KILL_ON_CLOSE | _LIMIT_DIE_ON_UNHANDLED
            if memory is not None:
                basic.LimitFlags |= _LIMIT_JOB_MEMORY
                limits.JobMemoryLimit = memory
            if processes is not None:
                basic.LimitFlags |= _LIMIT_ACTIVE_PROCESS
                basic.ActiveProcessLimit = min(processes, 0xFFFFFFFF)
            size = ctypes.sizeof(limits)
            _check(
                _kernel32.SetInformationJobObject(
                    self._handle, _EXTENDED_LIMITS, ctypes.byref(limits), size
                )
            )

        def adopt(self, process: subprocess.Popen[bytes]) -> None:
            """Take a suspended process in and let it run."""
            handle = wintypes.HANDLE(int(process._handle))  # type: ignore[attr-defined]
            _check(_kernel32.AssignProcessToJobObject(self._handle, handle))
            # subprocess keeps no handle of the thread that ResumeThread would want.
            if _ntdll.NtResumeProcess(handle) < 0:
                raise OSError("the process could not be resumed")

        def end(self, timeout: float) -> bool:
            """End all of its processes; false if some are left after ``timeout`` seconds."""
            if self._handle.value is None:
                return True
            _kernel32.TerminateJobObject(self._handle, 1)
            deadline = time.monotonic() + timeout
            while self._active():
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.01)
            return True

        def _active(self) -> int:
            found = _Accounting()
            size = ctypes.sizeof(found)
            _check(
                _kernel32.QueryInformationJobObject(
                    self._handle, _ACCOUNTING, ctypes.byref(found), size, None
                )
            )
            return int(found.ActiveProcesses)

        def memory(self) -> int:
            """Return the most bytes that its processes have committed at a time."""
            limits = _ExtendedLimits()
            size = ctypes.sizeof(limits)
            _check(
                _kernel32.QueryInformationJobObject(
                    self._handle, _EXTENDED_LIMITS, ctypes.byref(limits), size, None
                )
            )
            return int(limits.PeakJobMemoryUsed)

        def close(self) -> None:
            """Close it, which ends whatever is left in it."""
            if self._handle.value is not None:
                _kernel32.CloseHandle(self._handle)
                self._handle.value = None

    class WindowsHost:
        """Windows 11: AppContainers through ``wxc-exec.exe``.

        Args:
            dacl_mutation: the operator lets MXC change the access lists of what is granted.
        """

        backend = "processcontainer"
        creationflags = _CREATION_FLAGS
        enforced: tuple[tuple[str, str], ...] = WINDOWS_ENFORCED

        def __init__(self, *, dacl_mutation: bool = False) -> None:
            self.dacl_mutation = dacl_mutation

        def group(self, memory: int | None, processes: int | None) -> Job:
            """Return a job object with these limits."""
            return Job(memory, processes)

        def launcher_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
            """Return the executable's environment."""
            return windows_launcher(environ)

        def workload_environment(
            self, scratch: str, python: str, environ: Mapping[str, str]
        ) -> dict[str, str]:
            """Return the environment of the sandboxed Python."""
            return windows_workload(scratch, python, environ)

        def check_user(self) -> None:
            """Accept everybody: an AppContainer gets none of its user's rights."""

    def open_protected(path: str) -> tuple[int, str] | None:
        """Open a file so that nobody can write, rename or delete it until it is closed.

        Neither can its folders be renamed then. What is hashed through the descriptor is therefore
        what CreateProcess loads from the path.

        Args:
            path: the file.

        Returns:
            A descriptor to read it, and its path without links, drive letters of ``subst`` and
            short names; None if there is no such file.

        Raises:
            SandboxUntrustedBinaryError: it is a link or a folder.
            SandboxUnavailableError: it cannot be opened so; somebody may have it open for writing.
        """
        handle = _kernel32.CreateFileW(
            path, _GENERIC_READ, _SHARE_READ, None, _OPEN_EXISTING, _OPEN_REPARSE_POINT, None
        )
        if handle == _INVALID_HANDLE:
            number = ctypes.get_last_error()
            if number in (_FILE_NOT_FOUND, _PATH_NOT_FOUND):
                return None
            raise SandboxUnavailableError(
                f"the MXC executable {path} cannot be read: {ctypes.FormatError(number)}",
                remedy="Close what has it open, or remove it and run `mxc-kernel setup`.",
            )
        fd = msvcrt.open_osfhandle(handle, os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT)
        attributes = os.fstat(fd).st_file_attributes
        if attributes & (_REPARSE_POINT | _DIRECTORY):
            os.close(fd)
            raise SandboxUntrustedBinaryError(
                f"{path} is not a regular file of a plausible size",
                remedy="Remove it, then run `mxc-kernel setup`; links are not followed.",
            )
        buffer = ctypes.create_unicode_buffer(32768)
        length = _kernel32.GetFinalPathNameByHandleW(wintypes.HANDLE(handle), buffer, 32768, 0)
        if not 0 < length < 32768:
            os.close(fd)
            raise SandboxUnavailableError(
                f"the path of {path} cannot be told", remedy="Put it on a local disk."
            )
        return fd, buffer.value
