"""Records behave as the frozen dataclasses that they stand in for."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mxc_kernel import records
from mxc_kernel.records import derived, record


@record
class Point:
    x: int
    y: tuple[int, ...] = ()
    kind: ClassVar[str] = "point"

    def __post_init__(self) -> None:
        if self.x == 13:
            raise ValueError("unlucky")
        object.__setattr__(self, "y", tuple(sorted(self.y)))


@dataclass(frozen=True)
class PlainPoint:
    x: int
    y: tuple[int, ...] = ()
    kind: ClassVar[str] = "point"

    __post_init__ = Point.__post_init__


@record(kw_only=True)
class Named(Point):
    name: str = "none"


@record(eq=False)
class Measured:
    text: str
    _length: int = derived()

    def __post_init__(self) -> None:
        object.__setattr__(self, "_length", len(self.text))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Measured) and self._length == other._length

    def __hash__(self) -> int:
        return hash(self._length)


ARGUMENTS = st.tuples(
    st.lists(st.integers(10, 14) | st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=3),
    st.dictionaries(st.sampled_from(["x", "y", "z", "kind"]), st.integers(10, 14)),
)


def made(kind: Any, arguments: Any) -> Any:
    """Return what comes of a call, errors as their class."""
    given_by_place, given_by_name = arguments
    try:
        return kind(*given_by_place, **given_by_name)
    except (TypeError, ValueError) as error:
        return type(error)


@given(ARGUMENTS, ARGUMENTS)
def test_made_compared_and_hashed_as_a_dataclass(one, other):
    records_made = [made(Point, one), made(Point, other)]
    plain = [made(PlainPoint, one), made(PlainPoint, other)]
    assert (records_made[0] == records_made[1]) == (plain[0] == plain[1])
    for ours, theirs in zip(records_made, plain, strict=True):
        if isinstance(theirs, type):
            assert ours is theirs
        else:
            assert vars(ours) == vars(theirs)
            assert repr(ours) == repr(theirs).replace("PlainPoint", "Point")
            assert hash(ours) == hash(theirs)
            assert ours != theirs  # of another class


def test_it_never_changes():
    point = Point(1)
    with pytest.raises(AttributeError, match="never changes"):
        point.x = 2
    with pytest.raises(AttributeError, match="never changes"):
        del point.x
    assert point == Point(1)


@pytest.mark.parametrize("replace", [records.replace, dataclasses.replace])
def test_replacing_checks_anew(replace):
    assert replace(Point(1), y=(3, 2)) == Point(1, (2, 3))
    assert replace(Named(x=1, name="a"), x=2) == Named(x=2, name="a")
    with pytest.raises(ValueError, match="unlucky"):
        replace(Point(1), x=13)
    with pytest.raises(TypeError):
        replace(Point(1), nothing=1)


def test_its_own_comparison_and_what_is_worked_out():
    assert Measured("ab") == Measured("cd")
    assert len({Measured("ab"), Measured("cd"), Measured("abc")}) == 2
    assert records.field_names(Measured) == ("text",)
    with pytest.raises(TypeError):
        Measured("ab", 3)


def test_copies_are_equal():
    for value in (Point(1, (2,)), Named(x=1)):
        assert copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value


def test_it_is_a_dataclass_to_whoever_asks():
    assert dataclasses.is_dataclass(Named)
    assert [item.name for item in dataclasses.fields(Named)] == ["x", "y", "name"]
    assert dataclasses.asdict(Named(x=1)) == {"x": 1, "y": (), "name": "none"}
    adapter = TypeAdapter(Named)
    assert adapter.validate_python({"x": 1, "y": [2, 1]}) == Named(x=1, y=(1, 2))
    with pytest.raises(ValidationError):
        adapter.validate_python({"x": 13})
    with pytest.raises(ValidationError):
        adapter.validate_python({})


def test_what_is_loaded_before_the_launch_needs_no_dataclasses():
    code = """
import sys
import mxc_kernel.kernel, mxc_kernel.session, mxc_kernel.policy.reading
print(sorted({"dataclasses", "inspect", "asyncio", "logging", "pydantic"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-E", "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
