"""Turns the error that ended a cell into evidence of what the sandbox denied.

The evidence is a report, not a proof: the host checks it against the policy and words it as what
"the cell reported". Paths are left as the program gave them, made absolute but never resolved: a
symlink or ``..`` that is missing in here may well exist on the host, and only the host may look.
"""

from __future__ import annotations

import errno
import os
import socket
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from mxc_kernel.worker import callsite

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Collector", "evidence"]

Denial = dict[str, str]

_FILE_ERRORS = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENXIO, errno.EXDEV}
_NETWORK_ERRORS = {
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ECONNREFUSED,
    errno.ENETDOWN,
    errno.EADDRNOTAVAIL,
}
_LIMIT_ERRORS = {
    errno.EMFILE: "open_files",
    errno.EFBIG: "file_size",
    errno.ENOSPC: "scratch",
    errno.ENOMEM: "memory",
}
# What fails with EAGAIN where there are too many processes, as the code that called it names it.
_STARTERS = frozenset(
    {"fork", "forkpty", "fork_exec", "_fork_exec", "posix_spawn", "posix_spawnp", "spawn"}
)
_MAX_DENIALS = 16
_MAX_TEXT = 4096  # bytes of UTF-8 in one string; PATH_MAX on Linux
_MAX_CHAIN = 32  # exceptions followed through causes, contexts and groups


class Collector:
    """Gathers the evidence of one cell at a time, per subshell.

    Args:
        shell: IPython's shell, whose cell results carry the exceptions.
    """

    def __init__(self, shell: Any) -> None:
        self._found: ContextVar[list[Denial]] = ContextVar("mxc_denials")
        shell.events.register("post_run_cell", self._after_cell)

    def begin(self) -> None:
        """Start a cell: nothing found yet."""
        self._found.set([])

    def add(self, denial: Denial) -> None:
        """Add evidence that no exception carries."""
        self._found.get([]).append(denial)

    def take(self) -> dict[str, object] | None:
        """Return the evidence in the form the host reads, or None when there is none."""
        found = self._found.get([])
        fitting = [denial for denial in found if _fits(denial)]
        if not found:
            return None
        return {
            "denials": fitting[:_MAX_DENIALS],
            "truncated": len(fitting) < len(found) or len(fitting) > _MAX_DENIALS,
        }

    def _after_cell(self, result: Any) -> None:
        error = getattr(result, "error_before_exec", None) or getattr(result, "error_in_exec", None)
        if error is not None:
            for denial in evidence(error):
                self.add(denial)


def _fits(denial: Denial) -> bool:
    # A shortened path would be another path, so an over-long one is left out whole.
    return all(len(os.fsencode(text)) <= _MAX_TEXT for text in denial.values())


def evidence(error: BaseException) -> list[Denial]:
    """Return what the error and those behind it say about denied files and hosts, each once."""
    found: list[Denial] = []
    for link in _chain(error):
        for denial in _denials_of(link):
            if denial not in found:
                found.append(denial)
    return found


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, its causes and contexts, even those hidden by ``from None``."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _MAX_CHAIN:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        behind = [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            behind += link.exceptions[:_MAX_CHAIN]
        waiting += [other for other in behind if other is not None]


def _denials_of(error: BaseException) -> Iterator[Denial]:
    if isinstance(error, OSError):
        if isinstance(error, socket.gaierror) or error.errno in _NETWORK_ERRORS:
            yield _network(error)
        elif error.errno in _FILE_ERRORS:
            yield from _files(error)
        elif error.errno in _LIMIT_ERRORS:
            yield _limit(_LIMIT_ERRORS[error.errno])
        elif error.errno == errno.EAGAIN and _STARTERS & _names_where_raised(error):
            yield _limit("processes")
    elif isinstance(error, MemoryError):
        yield _limit("memory")
    elif isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        yield _limit("processes")
    elif f"{type(error).__module__}.{type(error).__name__}" == "sqlite3.OperationalError":
        yield from _database(error)


def _limit(name: str) -> Denial:
    return {"kind": "limit", "limit": name}


def _names_where_raised(error: BaseException) -> frozenset[str]:
    """Return the names that the function which raised an error uses."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frozenset(frame.tb_frame.f_code.co_names) if frame is not None else frozenset()


def _files(error: OSError) -> Iterator[Denial]:
    name = errno.errorcode.get(error.errno or 0, "")
    operation = "write" if error.errno in {errno.EROFS, errno.EXDEV} else ""
    for path in (error.filename, error.filename2):
        if isinstance(path, str | bytes) and path:
            operation = operation or callsite.operation(error)
            yield _file(name, path, operation)


def _file(name: str, path: str | bytes, operation: str) -> Denial:
    return {
        "kind": "filesystem",
        "errno": name,
        "path": _absolute(os.fsdecode(path)),
        "operation": operation,
    }


def _absolute(path: str) -> str:
    if os.path.isabs(path):
        return path
    try:
        return os.path.join(os.getcwd(), path)
    except OSError:  # the working folder itself is gone
        return os.path.join("/", path)


def _network(error: OSError) -> Denial:
    if isinstance(error, socket.gaierror):
        names = {value: key for key, value in vars(socket).items() if key.startswith("EAI_")}
        name = names.get(error.errno, "")
    else:
        name = errno.errorcode.get(error.errno or 0, "")
    return {"kind": "network", "host": callsite.host(error), "errno": name}


def _database(error: BaseException) -> Iterator[Denial]:
    """SQLite says neither the path nor the system's error, so the call has to tell."""
    message = str(error)
    if "unable to open database file" in message:
        name = "ENOENT"
    elif "attempt to write a readonly database" in message:
        name = "EROFS"
    else:
        return
    if path := callsite.database(error):
        yield _file(name, path, "write")
