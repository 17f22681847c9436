"""Plain data as JSON and raw bytes: what may cross between sandboxes without bringing code along.

What unpickles can run code of whoever pickled it. These few types cannot, whatever the bytes say:
numbers, text, bytes, lists, tuples, sets, dicts, numpy arrays and pandas tables of such. What two
values share becomes two copies.
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mxc_kernel.wire import Buffer

__all__ = ["NotPlainError", "pack", "unpack"]

_DEPTH = 100
# A dtype without Python objects, as numpy writes it: "<f8", "|S3", "<M8[25s]".
_DTYPE = re.compile(r"[<>|][biufcmMSU]\d{1,9}(\[\d{0,9}[a-zA-Z]{1,2}\])?")
_MIXED = ("object", "str", "string")  # pandas' dtypes of columns that are packed item by item
_SEQUENCES: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
_WRITTEN: dict[str, Callable[[str], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float,
    "complex": complex,
}


class NotPlainError(TypeError):
    """A value of a type that is not plain data."""


def pack(value: Any) -> tuple[bytes, list[Buffer]]:
    """Return a value as JSON and the raw buffers that it refers to.

    Raises:
        NotPlainError: something in it is not plain data. Subclasses are not: they have code.
    """
    buffers: list[Buffer] = []
    return json.dumps(_packed(value, buffers, _DEPTH)).encode(), buffers


def unpack(data: bytes, buffers: Sequence[bytearray]) -> Any:
    """Return the value that :func:`pack` was given.

    Nothing is made that is larger than the data and the buffers, whatever they claim to hold.

    Args:
        data: JSON. Only what it speaks of is imported: numpy for arrays, pandas for tables.
        buffers: taken over: an array keeps its one as its memory.

    Raises:
        ValueError: the bytes are not of that form, or need a package that is not here.
    """
    try:
        return _unpacked(json.loads(data), dict(enumerate(buffers)))
    except ImportError as error:
        raise ValueError(f"needs a package that is not here: {error}") from None
    except Exception as error:  # noqa: BLE001 - numpy and pandas raise what they like
        raise ValueError(f"not plain data: {error!r}") from None


def _packed(value: Any, buffers: list[Buffer], depth: int) -> Any:
    kind = type(value)
    if value is None or kind in (bool, str) or (kind is float and math.isfinite(value)):
        return value
    if not depth:
        raise NotPlainError("nested too deeply, or in itself")
    if kind in (int, float, complex):
        return {"t": kind.__name__, "v": hex(value) if kind is int else str(value)}
    if kind in (bytes, bytearray):
        buffers.append(value)
        return {"t": kind.__name__, "v": len(buffers) - 1}
    if kind in _SEQUENCES.values():
        return {"t": kind.__name__, "v": [_packed(item, buffers, depth - 1) for item in value]}
    if kind is dict:
        pairs = [
            [_packed(key, buffers, depth - 1), _packed(item, buffers, depth - 1)]
            for key, item in value.items()
        ]
        return {"t": "dict", "v": pairs}
    return _packed_array(value, buffers) or _packed_table(value, buffers, depth)


def _packed_array(value: Any, buffers: list[Buffer]) -> Any:
    """Pack a numpy array or scalar; None for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic):
        return None
    scalar = isinstance(value, numpy.generic)
    if type(value) is not (value.dtype.type if scalar else numpy.ndarray):
        raise NotPlainError(f"a {type(value).__name__}")
    if not _DTYPE.fullmatch(value.dtype.str) or value.dtype.names:
        raise NotPlainError(f"an array of {value.dtype}")
    array = numpy.ascontiguousarray(value).reshape(-1)
    if scalar and value.dtype.kind in "SU" and array[0] != value:
        raise NotPlainError("numpy text that ends in a NUL")  # numpy itself drops it
    # As bytes: dates have no buffer of their own.
    buffers.append(array.view(numpy.uint8).data if array.nbytes else b"")
    shape = None if scalar else value.shape
    # The array's dtype: empty text has none of its own, and takes up a byte there.
    return {"t": "array", "v": len(buffers) - 1, "dtype": array.dtype.str, "shape": shape}


def _packed_table(value: Any, buffers: list[Buffer], depth: int) -> Any:
    """Pack a pandas DataFrame or Series.

    Raises:
        NotPlainError: it is neither, or its columns are of other types.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None or type(value) not in (pandas.DataFrame, pandas.Series):
        raise NotPlainError(f"a {type(value).__name__}")
    index = _packed_index(value.index, buffers, depth)
    if type(value) is pandas.DataFrame:
        columns = [_packed_column(value.iloc[:, i], buffers, depth) for i in range(value.shape[1])]
        names = _packed_index(value.columns, buffers, depth)
        return {"t": "frame", "v": columns, "columns": names, "index": index}
    name = _packed(value.name, buffers, depth - 1)
    return {
        "t": "series",
        "v": _packed_column(value, buffers, depth),
        "name": name,
        "index": index,
    }


def _packed_index(index: Any, buffers: list[Buffer], depth: int) -> Any:
    multi = index.nlevels > 1
    levels = [index.get_level_values(i) for i in range(index.nlevels)] if multi else [index]
    names = [_packed(name, buffers, depth - 1) for name in index.names]
    return {"v": [_packed_column(level, buffers, depth) for level in levels], "names": names}


def _packed_column(column: Any, buffers: list[Buffer], depth: int) -> Any:
    dtype, numpy = column.dtype, sys.modules["numpy"]
    if str(dtype) in _MIXED:
        missing = sys.modules["pandas"].NA
        items = [None if item is missing else item for item in column]
        return {"dtype": str(dtype), "v": [_packed(item, buffers, depth - 1) for item in items]}
    if not isinstance(dtype, numpy.dtype):
        raise NotPlainError(f"a column of {dtype}")  # its values alone would be another column
    return _packed_array(column.to_numpy(), buffers)


def _unpacked(value: Any, left: dict[int, bytearray]) -> Any:
    """Return a value; ``left`` are the buffers that nothing has used yet."""
    if not isinstance(value, dict):
        if value is None or isinstance(value, bool | str | float):
            return value
        raise ValueError(f"a {type(value).__name__} as it is")
    kind, content = value["t"], value["v"]
    if kind in _WRITTEN:
        return _WRITTEN[kind](_checked(content, str))
    if kind in ("bytes", "bytearray"):
        buffer = left.pop(content)
        return buffer if kind == "bytearray" else bytes(buffer)
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](_unpacked(item, left) for item in _checked(content, list))
    if kind == "dict":
        return {_unpacked(key, left): _unpacked(item, left) for key, item in content}
    if kind == "array":
        return _unpacked_array(value, left)
    return _unpacked_table(value, left)


def _checked(content: Any, kind: type) -> Any:
    if type(content) is not kind:
        raise ValueError(f"a {type(content).__name__} in place of a {kind.__name__}")
    return content


def _unpacked_array(value: dict[str, Any], left: dict[int, bytearray]) -> Any:
    # A dtype's text can also name Python objects; only what has none gets to numpy.
    if not _DTYPE.fullmatch(value["dtype"]):
        raise ValueError(f"an array of {value['dtype']}")
    import numpy

    dtype, buffer = numpy.dtype(value["dtype"]), left.pop(value["v"])
    shape = () if value["shape"] is None else tuple(_checked(value["shape"], list))
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"an array of the shape {shape}")
    # Before numpy sees the shape: it must be the data that decides how much memory is taken.
    if math.prod(shape) * dtype.itemsize != len(buffer):
        raise ValueError(f"an array of {len(buffer)} bytes and the shape {shape}")
    array = numpy.ndarray(shape, dtype, buffer)
    return array[()] if value["shape"] is None else array


def _unpacked_table(value: dict[str, Any], left: dict[int, bytearray]) -> Any:
    if value["t"] not in ("frame", "series"):
        raise ValueError(f"{value['t']!r}")
    import pandas  # type: ignore[import-untyped,unused-ignore]

    index = _unpacked_index(value["index"], left)
    if value["t"] == "series":
        name = _unpacked(value["name"], left)
        return _series(value["v"], index, left).rename(name)
    columns = [_series(column, index, left) for column in _checked(value["v"], list)]
    frame = pandas.DataFrame(dict(enumerate(columns)), index=index)
    frame.columns = _unpacked_index(value["columns"], left)
    return frame


def _series(value: dict[str, Any], index: Any, left: dict[int, bytearray]) -> Any:
    import pandas

    values, dtype = _unpacked_column(value, left)
    if len(values) != len(index):
        raise ValueError(f"a column of {len(values)} rows in a table of {len(index)}")
    return pandas.Series(values, dtype=dtype, index=index)


def _unpacked_index(value: dict[str, Any], left: dict[int, bytearray]) -> Any:
    import pandas

    names = [_unpacked(name, left) for name in _checked(value["names"], list)]
    levels = [
        pandas.Index(values, dtype=dtype, tupleize_cols=False)
        for values, dtype in (_unpacked_column(level, left) for level in value["v"])
    ]
    if len(levels) == len(names) == 1:
        return levels[0].rename(names[0])
    return pandas.MultiIndex.from_arrays(levels, names=names)


def _unpacked_column(value: dict[str, Any], left: dict[int, bytearray]) -> tuple[Any, str | None]:
    """Return the values and the dtype to give them; None for the one they have."""
    if value.get("t") == "array":
        array = _unpacked_array(value, left)
        if value["shape"] is None or array.ndim != 1:
            raise ValueError("a column with other than one dimension")
        return array, None
    if value["dtype"] not in _MIXED:
        raise ValueError(f"a column of {value['dtype']}")
    return [_unpacked(item, left) for item in _checked(value["v"], list)], value["dtype"]
