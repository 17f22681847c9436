"""Plain data between sandboxes: exact for what is plain, and nothing else gets through."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from mxc_kernel.worker import plain

patient = settings(deadline=None)  # a busy machine is not a failure

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters())
    | st.binary()
)
HASHABLE = st.recursive(
    LEAVES, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4), max_leaves=6
)
BUILTINS = st.recursive(
    LEAVES | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.sets(HASHABLE, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4)
    ),
    max_leaves=20,
)
DTYPES = (
    st_numpy.boolean_dtypes()
    | st_numpy.integer_dtypes(endianness="?")
    | st_numpy.unsigned_integer_dtypes(endianness="?")
    | st_numpy.floating_dtypes(endianness="?")
    | st_numpy.complex_number_dtypes(endianness="?")
    | st_numpy.datetime64_dtypes(endianness="?")
    | st_numpy.timedelta64_dtypes(endianness="?")
    | st_numpy.byte_string_dtypes(min_len=1)
    | st_numpy.unicode_string_dtypes(endianness="?", min_len=1)
)
ARRAYS = st_numpy.arrays(DTYPES, st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0))


def crossed(value: Any) -> Any:
    """What arrives of a value on the other side."""
    data, buffers = plain.pack(value)
    return plain.unpack(bytes(data), [bytearray(memoryview(buffer)) for buffer in buffers])


def described(value: Any) -> Any:
    """A value with its types, so that equal means the same: NaN, -0.0, True and 1."""
    if isinstance(value, (list, tuple)):
        return type(value), [described(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(described(item)) for item in value)
    if isinstance(value, dict):
        return dict, [(described(key), described(item)) for key, item in value.items()]
    return type(value), hex(value) if isinstance(value, int) else repr(value)


@patient
@given(BUILTINS)
def test_builtins_arrive_as_they_were(value: Any) -> None:
    assert described(crossed(value)) == described(value)


@pytest.mark.parametrize(
    "value",
    [
        10**10_000,
        -(2**63) - 1,
        math.nan,
        -math.inf,
        -0.0,
        complex(math.nan, -0.0),
        complex(-0.0, math.inf),
        "\ud800 \0",
        [[], (), set(), frozenset(), {}, b"", bytearray(b"\0")],
        {(1, "a"): {1: {2: [3]}}, None: True, 1.5: 0},
    ],
    ids=range(10),
)
def test_odd_builtins_arrive_as_they_were(value: Any) -> None:
    assert described(crossed(value)) == described(value)


@patient
@given(ARRAYS)
def test_arrays_arrive_as_they_were(array: Any) -> None:
    arrived = crossed(array)
    assert type(arrived) is np.ndarray
    assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
    assert arrived.tobytes() == array.tobytes()  # to the bit: NaN, NaT and -0.0 too
    assert arrived.flags.writeable
    assert arrived.flags.owndata or arrived.base is not None


@patient
@given(ARRAYS.filter(lambda array: array.size))
def test_scalars_arrive_as_they_were(array: Any) -> None:
    scalar = array.reshape(-1)[0]
    arrived = crossed(scalar)
    assert type(arrived) is type(scalar)
    assert arrived.dtype == scalar.dtype
    assert arrived.tobytes() == scalar.tobytes()


def test_arrays_that_are_no_block_of_memory_arrive() -> None:
    base = np.arange(60, dtype=">i4").reshape(3, 4, 5)
    locked = np.arange(3)
    locked.flags.writeable = False
    for array in (base[:, ::2], base.T, base[::-1], np.asfortranarray(base[0]), locked):
        arrived = crossed(array)
        assert np.array_equal(arrived, array)
        assert arrived.dtype == array.dtype
        arrived[0] = arrived[-1]


def test_two_names_for_one_array_become_two_arrays() -> None:
    array = np.zeros(3)
    one, two = crossed([array, array])
    one[0] = 1
    assert two[0] == 0


TABLES = {
    "numbers": pd.DataFrame({"a": [1, 2], "b": [0.5, math.nan], "c": [True, False]}),
    "text and dates": pd.DataFrame(
        {"t": ["x", None], "d": pd.to_datetime(["2024-01-01", None]), "w": pd.to_timedelta([1, 2])}
    ),
    "mixed column": pd.DataFrame({"m": pd.Series([1, "x", None, (2, 3), [4]], dtype=object)}),
    "nullable text": pd.DataFrame({"s": pd.array(["a", None], dtype="string")}),
    "no rows": pd.DataFrame({"a": pd.Series([], dtype="i2"), "b": pd.Series([], dtype=object)}),
    "no columns": pd.DataFrame(index=[3, 4]),
    "nothing at all": pd.DataFrame(),
    "labels twice": pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"], index=[7, 7]),
    "dates as labels": pd.DataFrame({"a": [1]}, index=pd.to_datetime(["2024-01-01"])),
    "levels of labels": pd.DataFrame(
        [[1.0, 2.0]],
        index=pd.MultiIndex.from_tuples([("x", 1)], names=["k", "n"]),
        columns=pd.MultiIndex.from_tuples([("u", 1), ("v", 2)]),
    ),
    "named labels": pd.DataFrame({"a": [1]}, index=pd.Index(["r"], name="row")),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_arrive_as_they_were(name: str) -> None:
    table = TABLES[name]
    arrived = crossed(table)
    # A range of labels arrives as the numbers it stands for.
    pd.testing.assert_frame_equal(arrived, table, check_freq=False)
    for position in range(table.shape[1]):
        column = table.iloc[:, position]
        pd.testing.assert_series_equal(crossed(column), column, check_freq=False)


def test_a_column_can_be_changed_when_it_has_arrived() -> None:
    arrived = crossed(TABLES["numbers"])
    arrived.loc[0, "a"] = 9
    assert arrived["a"].tolist() == [9, 2]


class MyList(list[int]):
    pass


class MyFloat(np.float64):
    pass


class MyFrame(pd.DataFrame):
    pass


def in_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    return value


NOT_PLAIN = {
    "object": object(),
    "function": crossed,
    "class": int,
    "module": json,
    "subclass of list": MyList([1]),
    "subclass of a scalar": MyFloat(1),
    "subclass of a table": MyFrame({"a": [1]}),
    "bool in a subclassed str": type("S", (str,), {})("x"),
    "object array": np.array([object()], dtype=object),
    "array of records": np.zeros(2, dtype=[("a", "i4")]),
    "masked array": np.ma.masked_array([1], [True]),
    "text that numpy shortens": np.str_("a\0"),
    "list in itself": in_itself(),
    "too deep": deep(),
    "object in a column": pd.Series([object()], dtype=object),
    "categories": pd.Series(["a"], dtype="category"),
    "nullable numbers": pd.Series([1, None], dtype="Int64"),
    "time zone": pd.Series(pd.to_datetime(["2024-01-01"]).tz_localize("UTC")),
    "index alone": pd.Index([1]),
    "range": range(3),
    "memoryview": memoryview(b""),
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_what_is_not_plain_is_refused(name: str) -> None:
    for value in (NOT_PLAIN[name], [NOT_PLAIN[name]], {"k": (NOT_PLAIN[name],)}):
        with pytest.raises(plain.NotPlainError):
            plain.pack(value)


# --- bytes from a sandbox that wants something else -----------------------------------------------

KEYS = ["t", "v", "dtype", "shape", "index", "columns", "name", "names"]
KINDS = ["int", "float", "complex", "bytes", "bytearray", "list", "set", "dict", "array", "frame"]
DTYPE_NAMES = ["<f8", "|O", "O", "object", "str", "<f8,<f8", "(9,9)<f8", "|V8", "<U99999999", "a5"]
WORDS = st.sampled_from([*KEYS, *KINDS, *DTYPE_NAMES, "series", "tuple", "frozenset", "<M8[25s]"])
HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=5)
        | st.fixed_dictionaries({"t": WORDS, "v": inner})
        | st.fixed_dictionaries(
            {"t": st.just("array"), "v": st.integers(-1, 2), "dtype": WORDS, "shape": inner}
        )
        | st.fixed_dictionaries(
            {"t": st.sampled_from(["frame", "series"]), "v": inner, "index": inner, "name": inner}
        )
    ),
    max_leaves=20,
)
BUFFERS = st.lists(st.binary(max_size=32).map(bytearray), max_size=3)
PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset)
PLAIN_TYPES = {*PLAIN, dict, np.ndarray, pd.DataFrame, pd.Series}


@patient
@given(HOSTILE, BUFFERS)
def test_json_of_any_form_is_plain_data_or_a_value_error(form: Any, buffers: Any) -> None:
    try:
        value = plain.unpack(json.dumps(form).encode(), buffers)
    except ValueError:
        return
    assert type(value) in PLAIN_TYPES or isinstance(value, np.generic)


@patient
@given(st.binary(), BUFFERS)
def test_bytes_of_any_form_are_plain_data_or_a_value_error(data: bytes, buffers: Any) -> None:
    try:
        plain.unpack(data, buffers)
    except ValueError:
        return


def array_of(dtype: Any, shape: Any, buffer: Any = 0) -> dict[str, Any]:
    return {"t": "array", "v": buffer, "dtype": dtype, "shape": shape}


ROWS = {"v": [array_of("<i8", [1])], "names": [None]}
REFUSED = {
    "a huge array": array_of("<f8", [10**12]),
    "an array of huge sides": array_of("<f8", [0, 10**30]),
    "an array of negative sides": array_of("<f8", [-1]),
    "an array of too many sides": array_of("<f8", [1] * 100),
    "an array of huge items": array_of("<U999999999", [1]),
    "an array of fewer items": array_of("|i1", [2]),
    "an array of objects": array_of("|O", [1]),
    "an array of objects by name": array_of("object", [1]),
    "an array of records": array_of("<i4,<i4", [1]),
    "an array of arrays": array_of("(2,)<i4", [1]),
    "an array of what numpy takes for a dtype": array_of({"names": ["a"], "formats": ["O"]}, [1]),
    "a true side": array_of("<i8", [True]),
    "a number of 5000 digits": 10**4000,
    "a number too large for a float": {"t": "float", "v": 10**400},
    "text for a list": {"t": "list", "v": "abc"},
    "a list in a set": {"t": "set", "v": [{"t": "list", "v": []}]},
    "a buffer that is not there": {"t": "bytes", "v": 9},
    "a buffer counted from the end": {"t": "bytes", "v": -1},
    "a buffer used twice": {"t": "list", "v": [{"t": "bytes", "v": 0}] * 2},
    "another class": {"t": "datetime.datetime", "v": []},
    "a table repeated to the length of its labels": {
        "t": "series",
        "v": {"dtype": "object", "v": ["x"] * 2},
        "name": None,
        "index": ROWS,
    },
    "a column of columns": {
        "t": "series",
        "v": {"t": "frame", "v": []},
        "name": None,
        "index": ROWS,
    },
    "a column of another dtype": {
        "t": "series",
        "v": {"dtype": "category", "v": ["x"]},
        "name": None,
        "index": ROWS,
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_claims_too_much_is_refused_without_taking_memory(name: str) -> None:
    data = json.dumps(REFUSED[name]).encode() if name != "a number of 5000 digits" else b"9" * 5000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"plain data"):
            plain.unpack(data, [bytearray(8)])
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    assert plain.unpack(json.dumps(array_of("<i8", [1])).encode(), [bytearray(8)]).tolist() == [0]


def test_nesting_without_an_end_is_refused() -> None:
    data = b'{"t":"list","v":[' * 100_000
    with pytest.raises(ValueError, match="plain data"):
        plain.unpack(data, [])


PROGRAM = """
import json, sys
from mxc_kernel.worker import plain
form, blocked = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(blocked))
before = set(sys.modules)
try:
    plain.unpack(json.dumps(form).encode(), [bytearray(8)])
except ValueError as error:
    print(error)
print(*sorted({"numpy", "pandas"} & (set(sys.modules) - before)))
"""


def imported(form: Any, *, blocked: tuple[str, ...] = ()) -> str:
    """What reading a form imports in a fresh process."""
    command = [sys.executable, "-P", "-c", PROGRAM, json.dumps([form, blocked])]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_only_what_the_data_speaks_of_is_imported() -> None:
    assert imported({"t": "list", "v": [1.5, {"t": "bytes", "v": 0}]}) == ""
    assert imported({"t": "dict", "v": [["a", {"t": "no such", "v": 0}]]}).startswith("not plain")
    assert "numpy" not in imported(array_of("object", [1]))
    assert imported(array_of("<i8", [1])) == "numpy"  # the control


def test_a_package_that_is_missing_is_named() -> None:
    assert "numpy" in imported(array_of("<i8", [1]), blocked=("numpy",)).partition("\n")[0]
