"""Pickles the user's names as one graph, each in a record of its own.

cloudpickle does most of it. What it does not do, and a notebook needs:

- A function keeps the notebook's namespace as its globals: after ``x = 77``, ``f()`` sees 77. The
  namespace is entered into the pickler's memo as object 0, so that it is never copied and costs
  nothing per object (a persistent id would be asked for every single one).
- Closures that share a cell go on sharing it, and a cached function is cached anew.
- An open file is refused; cloudpickle would silently carry its text.

One pickler writes all records and one unpickler reads them, so two names for one object stay two
names for one object. A record that cannot be read back costs only itself and what refers into it.
"""

from __future__ import annotations

import functools
import io
import pickle
import pickletools
import sys
import types
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import cloudpickle  # type: ignore[import-untyped]

from mxc_kernel.worker.reasons import Uncarriable, reason_for, reason_for_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Record", "Restorer", "pickle_values"]

_IN_BAND = 4096  # bytes; a smaller buffer costs more as a block of its own than copied

Namespace = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """One pickled value.

    Attributes:
        label: whose it is.
        data: the pickle, in pieces that are not copied together.
        buffers: the large memory blocks that the pickle refers to, in order.
    """

    label: str
    data: list[memoryview]
    buffers: list[memoryview]


class _Pieces:
    """A file that keeps what is written as it is: a large string is not copied."""

    def __init__(self) -> None:
        self.pieces: list[memoryview] = []

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.pieces.append(view)
        return view.nbytes

    def take(self) -> list[memoryview]:
        pieces, self.pieces = self.pieces, []
        return pieces


class _NamespacePickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: Any, namespace: Namespace, buffers: list[memoryview] | None) -> None:
        self._namespace = namespace
        super().__init__(file, protocol=5, buffer_callback=functools.partial(_divert, buffers))
        self.memo = {id(namespace): (0, namespace)}

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is types.FunctionType and obj.__globals__ is self._namespace:
            return _reduce_function(obj)
        if kind is types.CellType:
            return _reduce_cell(obj)
        if kind is functools._lru_cache_wrapper and self._is_ours(obj):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        if isinstance(obj, io.IOBase):
            for name in ("stdin", "stdout", "stderr"):
                if obj is getattr(sys, name, None):
                    return getattr, (sys, name)
            if reason := reason_for_value(obj):
                raise Uncarriable(f"holds {reason}")
        return super().reducer_override(obj)

    def _is_ours(self, obj: Any) -> bool:
        return getattr(obj.__wrapped__, "__globals__", None) is self._namespace


def _divert(buffers: list[memoryview] | None, buffer: pickle.PickleBuffer) -> bool:
    """Keep a large buffer out of the pickle; pickle calls this and reads False as "kept out"."""
    raw = buffer.raw()
    if raw.nbytes < _IN_BAND:
        return True
    if buffers is not None:
        buffers.append(raw)
    return False


_FUNCTION_STATE = (
    "__defaults__",
    "__kwdefaults__",
    "__annotations__",
    "__qualname__",
    "__module__",
    "__doc__",
    "__type_params__",
)


def _reduce_function(function: types.FunctionType) -> tuple[Any, ...]:
    state: dict[str, Any] = {}
    for name in _FUNCTION_STATE:
        with suppress(Exception):  # Python 3.14 evaluates annotations when asked for them
            state[name] = getattr(function, name)
    arguments = (
        function.__code__,
        function.__globals__,
        function.__name__,
        None,
        function.__closure__,
    )
    return _make_function, arguments, (state, function.__dict__), None, None, _set_function


def _make_function(*arguments: Any) -> types.FunctionType:
    return types.FunctionType(*arguments)


def _set_function(function: types.FunctionType, state: tuple[dict[str, Any], Namespace]) -> None:
    for name, value in state[0].items():
        setattr(function, name, value)
    function.__dict__.update(state[1])


def _reduce_cell(cell: types.CellType) -> tuple[Any, ...]:
    try:
        contents = (cell.cell_contents,)
    except ValueError:  # not assigned yet
        return _make_cell, ()
    # Contents come after the cell itself: a recursive function is in its own closure.
    return _make_cell, (), contents, None, None, _set_cell


def _make_cell() -> types.CellType:
    return types.CellType()


def _set_cell(cell: types.CellType, contents: tuple[Any]) -> None:
    cell.cell_contents = contents[0]


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def pickle_values(
    values: Mapping[str, Any], namespace: Namespace
) -> tuple[list[Record], dict[str, str]]:
    """Pickle values as one graph.

    Args:
        values: what to carry, by label; the order is kept.
        namespace: the notebook's own, kept by reference.

    Returns:
        The records, and for each label that cannot be pickled the reason.
    """
    lost = {label: why for label, value in values.items() if (why := reason_for_value(value))}
    carried = {label: value for label, value in values.items() if label not in lost}
    failed = ""
    while True:
        records: list[Record] = []
        failure = _pickle_all(carried, namespace, records)
        if failure is None:
            return records, lost
        if failed:  # probing found the rest wanting only together with others
            lost[failure[0]] = failure[1]
        else:
            # A failed record leaves the memo in disorder, so find all the others that fail at once.
            failed = failure[0]
            lost |= _probe(carried, namespace)
            lost.setdefault(*failure)
        carried = {label: value for label, value in carried.items() if label not in lost}


def _pickle_all(
    values: Mapping[str, Any], namespace: Namespace, records: list[Record]
) -> tuple[str, str] | None:
    """Append one record per value; return the first label that fails, and why."""
    pieces = _Pieces()
    buffers: list[memoryview] = []
    pickler = _NamespacePickler(pieces, namespace, buffers)
    for label, value in values.items():
        marker: list[None] = []
        try:
            # Twice the same new list: its second mention spells out how full the memo is.
            pickler.dump((marker, marker, value))
        except Exception as error:  # noqa: BLE001 - a reducer of the user's may raise anything
            return label, reason_for(error)
        records.append(Record(label, pieces.take(), buffers.copy()))
        buffers.clear()
    return None


def _probe(values: Mapping[str, Any], namespace: Namespace) -> dict[str, str]:
    """Return the labels that fail on their own, and why; nothing of the pickles is kept."""

    class Nowhere:
        @staticmethod
        def write(data: Any) -> int:
            return len(data)

    lost = {}
    for label, value in values.items():
        try:
            _NamespacePickler(Nowhere, namespace, None).dump(value)
        except Exception as error:  # noqa: BLE001
            lost[label] = reason_for(error)
    return lost


# The C unpickler drops a memo that is given to it, so it is made to read this first: push None,
# exchange it for the persistent object of that id (the namespace), enter that into the memo.
_NAMESPACE_FIRST = b"".join(
    (pickle.PROTO, b"\x05", pickle.NONE, pickle.BINPERSID, pickle.MEMOIZE, pickle.STOP)
)


class _NamespaceUnpickler(pickle.Unpickler):
    namespace: Namespace

    def persistent_load(self, pid: Any) -> Namespace:  # noqa: ARG002
        return self.namespace


class Restorer:
    """Reads records back, in order, into one graph.

    Args:
        namespace: what functions get as their globals.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._feed = _Feed()
        self._unpickler = _NamespaceUnpickler(self._feed, buffers=self._feed.buffers)
        self._unpickler.namespace = namespace
        self._feed.fill([memoryview(_NAMESPACE_FIRST)], [])
        self._unpickler.load()
        self._memo: dict[int, Any] | None = None  # set once a record has failed

    def restore(self, data: list[memoryview], buffers: list[Any]) -> Any:
        """Return the value of the next record.

        Raises:
            Exception: whatever the value's own code raises; the next record can still be read.
        """
        if self._memo is not None:
            return self._restore_carefully(data, buffers)
        self._feed.fill(data, buffers)
        try:
            return self._unpickler.load()[2]
        except BaseException:
            self._memo = dict(self._unpickler.memo.copy())
            self._forget_from(_memo_size(data))
            raise

    def _forget_from(self, start: int) -> None:
        """Drop what the failed record left half made; what is whole by its nature stays."""
        memo = self._memo or {}
        for index, value in memo.items():
            if index >= start and not _is_whole(value):
                memo[index] = _LOST

    def _restore_carefully(self, data: list[memoryview], buffers: list[Any]) -> Any:
        """Read with the slower unpickler, which notices references into a failed record."""
        start = _memo_size(data)
        memo = self._memo or {}
        memo.update(dict.fromkeys(range(len(memo), start), _LOST))
        self._feed.fill(data, buffers)
        unpickler = _CarefulUnpickler(self._feed, buffers=self._feed.buffers)
        unpickler.memo = memo
        try:
            return unpickler.load()[2]
        except BaseException:
            self._forget_from(start)
            raise


_LOST = object()


def _is_whole(value: Any) -> bool:
    """Return whether a value cannot be half made: text, or what an import would find as well."""
    if type(value) in (str, bytes):
        return True
    if isinstance(value, types.ModuleType):
        return sys.modules.get(value.__name__) is value
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        module = sys.modules.get(value.__module__ or "")
        return getattr(module, value.__qualname__, None) is value
    return False


_PythonUnpickler: Any = pickle._Unpickler  # the standard library's own, written in Python


class _CarefulUnpickler(_PythonUnpickler):  # type: ignore[misc]
    """Reads as the C unpickler does, but slower, and can be told what not to hand out."""

    dispatch: ClassVar[dict[int, Any]] = dict(_PythonUnpickler.dispatch)

    def _get(self, index: int) -> None:
        value = self.memo.get(index, _LOST)
        if value is _LOST:
            raise Uncarriable("shares an object with a name that could not be restored")
        self.append(value)

    def load_binget(self) -> None:
        self._get(self.read(1)[0])

    def load_long_binget(self) -> None:
        self._get(int.from_bytes(self.read(4), "little"))

    dispatch[pickle.BINGET[0]] = load_binget
    dispatch[pickle.LONG_BINGET[0]] = load_long_binget


class _Feed:
    """The file and the buffers that an unpickler reads, one record at a time."""

    def __init__(self) -> None:
        self._data: deque[memoryview] = deque()
        self._buffers: deque[Any] = deque()

    def fill(self, data: list[memoryview], buffers: list[Any]) -> None:
        self._data, self._buffers = deque(data), deque(buffers)

    @property
    def buffers(self) -> Any:
        return iter(lambda: self._buffers.popleft(), object())

    def read(self, count: int) -> bytes:
        result = bytearray(count)
        return bytes(result[: self.readinto(result)])

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        filled = 0
        while filled < len(view) and self._data:
            piece = self._data.popleft()
            taken = piece[: len(view) - filled]
            view[filled : filled + len(taken)] = taken
            filled += len(taken)
            if len(taken) < len(piece):
                self._data.appendleft(piece[len(taken) :])
        return filled

    def readline(self) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n") and (byte := self.read(1)):
            line += byte
        return bytes(line)


def _memo_size(data: list[memoryview]) -> int:
    """Return how many objects the memo held when this record began."""
    head = b"".join(bytes(piece[:64]) for piece in data[:2])[:64]
    for opcode, argument, _ in pickletools.genops(head):
        if opcode.name in {"BINGET", "LONG_BINGET"} and isinstance(argument, int):
            return argument
    raise pickle.UnpicklingError("a record without its marker")
