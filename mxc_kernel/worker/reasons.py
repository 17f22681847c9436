"""Says in a few words why a value cannot be carried into another process."""

from __future__ import annotations

import re
import sys

__all__ = ["Uncarriable", "reason_for", "reason_for_value"]

_MAX_REASON = 160  # characters

# By the name of the type, so that nothing has to be imported to recognise its instances.
_KINDS = {
    "builtins.generator": "a generator",
    "builtins.coroutine": "a coroutine",
    "builtins.async_generator": "an asynchronous generator",
    "builtins.frame": "a stack frame",
    "builtins.traceback": "a traceback",
    "builtins.memoryview": "a view of memory",
    "_io._IOBase": "an open file",
    "_socket.socket": "a socket",
    "_thread.lock": "a lock",
    "_thread.RLock": "a lock",
    "_thread._local": "thread-local data",
    "threading.Thread": "a thread",
    "threading.Condition": "a lock",
    "threading.Event": "a lock",
    "threading.Semaphore": "a lock",
    "sqlite3.Connection": "a database connection",
    "sqlite3.Cursor": "a database cursor",
    "subprocess.Popen": "a running process",
    "multiprocessing.process.BaseProcess": "a process",
    "multiprocessing.pool.Pool": "a pool of processes",
    "concurrent.futures._base.Executor": "a pool of workers",
    "concurrent.futures._base.Future": "a pending result",
    "_asyncio.Future": "a pending result",
    "_asyncio.Task": "a running task",
    "weakref.ReferenceType": "a weak reference",
    "mmap.mmap": "a memory map",
    "select.epoll": "a poller",
}
_CARRIED = {"_io.StringIO", "_io.BytesIO"}
_CANNOT = re.compile(r"cannot pickle '?([\w.]+)'?")


class Uncarriable(Exception):  # noqa: N818 - says what is so, not that something broke
    """A value that must not be pickled although it could be; the message is the reason."""


def reason_for_value(value: object) -> str | None:
    """Return why a value is known not to be carriable, or None where only trying tells."""
    if any(value is stream for stream in (sys.stdin, sys.stdout, sys.stderr)):
        return None  # carried as "the standard output", whatever that is over there
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(value).__mro__]
    if _CARRIED.intersection(names):
        return None
    return next((_KINDS[name] for name in names if name in _KINDS), None)


def reason_for(error: BaseException) -> str:
    """Return the reason in an error that pickling or unpickling raised, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, Uncarriable):
        return text
    if match := _CANNOT.search(text):
        name = match[1]
        for kind, words in _KINDS.items():
            if name in (kind, kind.rpartition(".")[2]):
                return f"holds {words}"
        if name.startswith("_io."):
            return "holds an open file"
    return f"{type(error).__name__}: {text}"[:_MAX_REASON]
