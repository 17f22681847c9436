"""Reads from a traceback what the failing call was about.

The interpreter knows the exact piece of source that was running in each frame. Where that is a
plain call with plain arguments, the arguments tell what the error itself does not: the mode of an
``open``, the host of a connection, the file of a database. Anything less plain is "unknown"; an
error in here never replaces the cell's own.
"""

from __future__ import annotations

import ast
import linecache
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

__all__ = ["database", "host", "operation"]

_MAX_FRAMES = 64  # of a traceback, innermost first
_MAX_SOURCE = 4096  # characters of a call's source
_WRITERS = frozenset(
    {"chmod", "chown", "link", "makedirs", "mkdir", "mkfifo", "remove", "removedirs", "rename"}
    | {"replace", "rmdir", "rmtree", "symlink", "touch", "truncate", "unlink", "utime"}
    | {"write_bytes", "write_text"}
)
_READERS = frozenset(
    {"access", "chdir", "iterdir", "listdir", "lstat", "read_bytes", "read_text", "readlink"}
    | {"scandir", "stat", "walk"}
)


def operation(error: BaseException) -> str:
    """Return "read", "write" or "unknown": what the failing call was about to do to a file."""
    try:
        frame, call = next(_frames(error))
        if call is None:  # no source, as in the frozen standard library: the function's own name
            return _by_name(frame.f_code.co_name)
        return _operation(frame, call)
    except Exception:  # noqa: BLE001 - odd source, odd objects: not worth a second error
        return "unknown"


def _operation(frame: FrameType, call: ast.Call) -> str:
    name = _name(call.func)
    return _mode(frame, call) if name in {"open", "io_open"} else _by_name(name)


def _by_name(name: str) -> str:
    return "write" if name in _WRITERS else "read" if name in _READERS else "unknown"


def host(error: BaseException) -> str:
    """Return the host that could not be reached, or an empty string."""
    try:
        for frame, call in _frames(error):
            if call is not None and _name(call.func) in {"connect", "connect_ex", "getaddrinfo"}:
                target = _value(frame, call.args[0]) if call.args else None
                if found := _host(target):
                    return found
            for variable in ("host", "address", "sockaddr", "addr"):
                if found := _host(frame.f_locals.get(variable)):
                    return found
    except Exception:  # noqa: BLE001
        return ""
    return ""


def database(error: BaseException) -> str:
    """Return the path of the SQLite database that a failing call was about, or an empty string."""
    try:
        frame, call = next(_frames(error))
        if call is None:
            return ""
        if _name(call.func) == "connect":
            return str(_value(frame, call.args[0] if call.args else call.keywords[0].value) or "")
        owner = _value(frame, call.func.value) if isinstance(call.func, ast.Attribute) else None
        connection: Any = getattr(owner, "connection", owner)
        rows = connection.execute("PRAGMA database_list").fetchall()
        return str(rows[0][2])
    except Exception:  # noqa: BLE001
        return ""


def _frames(error: BaseException) -> Iterator[tuple[FrameType, ast.Call | None]]:
    """Yield the frames, innermost first, each with the call it was in if that can be told."""
    steps: list[TracebackType] = []
    traceback = error.__traceback__
    while traceback is not None:
        steps.append(traceback)
        traceback = traceback.tb_next
    for step in islice(reversed(steps), _MAX_FRAMES):
        if step.tb_frame.f_code.co_name == "_modified_open":
            continue  # IPython's wrapper around open, which passes its arguments on
        yield step.tb_frame, _call(step)


def _call(step: TracebackType) -> ast.Call | None:
    code = step.tb_frame.f_code
    position = next(islice(code.co_positions(), step.tb_lasti // 2, None), None)
    if position is None:
        return None
    line, end_line, start, end = position
    if line is None or end_line is None or start is None or end is None:
        return None
    lines = linecache.getlines(code.co_filename, step.tb_frame.f_globals)[line - 1 : end_line]
    if not lines:
        return None
    # Columns count UTF-8 bytes. Cut the end first: it may be on the line of the start.
    raw = [text.encode() for text in lines]
    raw[-1] = raw[-1][:end]
    raw[0] = raw[0][start:]
    source = b"".join(raw).decode("utf-8", "replace")
    if len(source) > _MAX_SOURCE:
        return None
    try:
        node = ast.parse(f"({source}\n)", mode="eval").body
    except (SyntaxError, ValueError):
        return None
    return node if isinstance(node, ast.Call) else None


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _value(frame: FrameType, node: ast.expr | None) -> Any:
    """Return the value of a literal, a variable or a variable's attribute; None for all else."""
    if node is None:
        return None
    if isinstance(node, ast.Name):
        return frame.f_locals.get(node.id, frame.f_globals.get(node.id))
    if isinstance(node, ast.Attribute):
        return getattr(_value(frame, node.value), node.attr, None)
    if isinstance(node, ast.Tuple):
        return tuple(_value(frame, element) for element in node.elts)
    return node.value if isinstance(node, ast.Constant) else None


def _mode(frame: FrameType, call: ast.Call) -> str:
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "mode"), None)
    if given is None:
        # a method such as Path.open has the path in front of the dot, the mode comes first
        place = 0 if isinstance(call.func, ast.Attribute) and not _is_module(frame, call) else 1
        given = call.args[place] if len(call.args) > place else None
    mode = "r" if given is None else _value(frame, given)
    if isinstance(mode, int):
        return "write" if mode & 3 else "read"  # os.open: O_WRONLY or O_RDWR
    if not isinstance(mode, str):
        return "unknown"
    return "write" if set(mode) & set("wax+") else "read"


def _is_module(frame: FrameType, call: ast.Call) -> bool:
    owner = _value(frame, call.func.value) if isinstance(call.func, ast.Attribute) else None
    return type(owner).__name__ == "module"


def _host(value: object) -> str:
    if isinstance(value, tuple) and value:
        value = value[0]
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value if isinstance(value, str) else ""
