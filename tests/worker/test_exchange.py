"""Single names between a session and a throwaway sandbox: what is asked for, whole, or nothing."""

from __future__ import annotations

import json
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxc_kernel.wire import Channel
from mxc_kernel.worker import exchange
from tests.worker.conftest import Child

TRAP = (
    "class Trap:\n    def __reduce__(self): return exec, ('import builtins; builtins.sprung = 1',)"
)
SPRUNG = "hasattr(__import__('builtins'), 'sprung')"


def answer(child: Child, operation: bytes) -> tuple[list[bytes], dict[str, Any]]:
    """Return the chunks before a STATE frame, and what the frame reports."""
    chunks = []
    while True:
        channel, parts = child.frame()
        if channel is Channel.STATE and parts[0] == operation:
            return chunks, json.loads(parts[1])
        if channel is Channel.STATE:
            chunks.append(parts[1])


def how(objects: bool) -> bytes:
    return b"objects" if objects else b"plain"


def export(
    child: Child, *names: str, objects: bool = False
) -> tuple[list[bytes], dict[str, str], int]:
    """Export names; return the stream, what was lost, and how many names it has."""
    child.send(Channel.STATE, b"export", json.dumps(names).encode(), how(objects))
    chunks, report = answer(child, b"dumped")
    assert "error" not in report
    return chunks, {entry["name"]: entry["reason"] for entry in report["lost"]}, report["names"]


def merge(child: Child, chunks: list[bytes], *names: str, objects: bool = False) -> dict[str, Any]:
    """Merge a stream into a child; return its report, with ``lost`` by name."""
    child.send(Channel.STATE, b"merge", json.dumps(names).encode(), how(objects))
    for chunk in chunks:
        child.send(Channel.STATE, b"chunk", chunk)
    child.send(Channel.STATE, b"load")
    _, report = answer(child, b"loaded")
    return report | {"lost": {entry["name"]: entry["reason"] for entry in report["lost"]}}


@pytest.fixture
def pair(start: Any) -> tuple[Child, Child]:
    """A throwaway sandbox's worker and a session's."""
    return start(), start()


def test_plain_names_arrive(pair: tuple[Child, Child]) -> None:
    one, two = pair
    one.ok("import numpy as np\na = np.arange(300_000.0)\nb = {'rows': [1, (2, b'x')]}\nc = 1")
    chunks, lost, count = export(one, "a", "b")
    assert (lost, count) == ({}, 2)
    two.ok("b = 'before'; mine = 1")
    report = merge(two, chunks, "a", "b")
    assert (report["lost"], report["names"]) == ({}, 2)
    two.ok("a[0] = 5")
    assert two.ok("a.shape, a.dtype.str, b, mine") == (
        "((300000,), '<f8', {'rows': [1, (2, b'x')]}, 1)"
    )
    assert two.ok("'c' in globals()") == "False"


def test_objects_arrive_where_both_sides_were_told_so(pair: tuple[Child, Child]) -> None:
    one, two = pair
    one.ok("class P:\n    def get(self): return self.v\np = P(); p.v = [1]\nsame = p.v")
    chunks, lost, _ = export(one, "p", "same", objects=True)
    assert lost == {}
    assert merge(two, chunks, "p", "same", objects=True)["lost"] == {}
    assert two.ok("p.get() is same") == "True"


def test_what_is_not_plain_or_not_there_is_named_at_the_source(pair: tuple[Child, Child]) -> None:
    one, _ = pair
    one.ok("class P: pass\np = P()\nn = 1\nloop = []; loop.append(loop)")
    _, lost, count = export(one, "p", "n", "loop", "nothing")
    assert count == 1
    assert lost == {
        "p": "not plain data: a P",
        "loop": "not plain data: nested too deeply, or in itself",
        "nothing": "not defined",
    }
    assert one.ok("n") == "1"


def test_all_names_arrive_or_none(pair: tuple[Child, Child]) -> None:
    one, two = pair
    one.ok("a = 1; b = 2")
    two.ok("a = 'before'")
    chunks, _, _ = export(one, "a", "b")
    report = merge(two, chunks, "a", "b", "c")
    assert report["lost"] == {"c": "did not arrive"}
    assert report["names"] == 0
    assert two.ok("a, 'b' in globals()") == "('before', False)"
    assert merge(two, chunks, "a", "b")["names"] == 2  # the control
    assert two.ok("a, b") == "(1, 2)"


def test_names_that_nobody_asked_for_are_ignored(pair: tuple[Child, Child]) -> None:
    one, two = pair
    one.ok("a = 1; open = 2; get_ipython = 3")
    chunks, _, count = export(one, "a", "open", "get_ipython")
    assert count == 3
    assert merge(two, chunks, "a")["names"] == 1
    assert two.ok("a, callable(open), callable(get_ipython)") == "(1, True, True)"


def test_a_pickle_is_not_read_where_plain_data_was_agreed(pair: tuple[Child, Child]) -> None:
    one, two = pair
    one.ok(f"{TRAP}\ntrap = Trap()")
    chunks, _, _ = export(one, "trap", objects=True)
    report = merge(two, chunks, "trap")
    assert report["lost"]["trap"].startswith("ValueError: not plain data")
    assert two.ok(f"{SPRUNG}, 'trap' in globals()") == "(False, False)"
    merge(two, chunks, "trap", objects=True)  # the control: that is what the stream does
    assert two.ok(SPRUNG) == "True"


def test_a_pickle_nobody_asked_for_is_not_read_either(pair: tuple[Child, Child]) -> None:
    one, two = pair
    one.ok(f"{TRAP}\ntrap = Trap(); a = 1")
    chunks, _, _ = export(one, "trap", "a", objects=True)
    merge(two, chunks, "a", objects=True)
    assert two.ok(SPRUNG) == "False"


def test_half_a_stream_changes_nothing(pair: tuple[Child, Child]) -> None:
    one, two = pair
    one.ok("a = b'x' * 3_000_000; b = 1")
    chunks, _, _ = export(one, "b", "a")
    for damaged in (chunks[:-1], [], [b"\0" * 100], [b"\0" * 7 + b"\x02{}"]):
        assert merge(two, damaged, "b", "a")["error"]
        assert two.ok("'a' in globals() or 'b' in globals()") == "False"
    assert merge(two, chunks, "b", "a")["names"] == 2  # the same child still takes a whole one


class Stream:
    """A stream that ends."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def readinto(self, target: memoryview) -> None:
        if len(target) > len(self.data):
            raise EOFError
        target[:], self.data = self.data[: len(target)], self.data[len(target) :]


def block(data: bytes) -> bytes:
    return struct.pack(">Q", len(data)) + data


NUMBERS = st.integers(-2, 300) | st.integers(2**62, 2**70) | st.floats() | st.none() | st.text()
HEADS = st.tuples(
    st.sampled_from(["a", "b", 1, None, ["a"]]), NUMBERS, st.lists(NUMBERS, max_size=3) | NUMBERS
)
FORMS = st.tuples(NUMBERS, st.lists(HEADS | NUMBERS, max_size=3), st.binary(max_size=300)).map(
    lambda form: (
        block(json.dumps(form[0]).encode())
        + b"".join(block(json.dumps(head).encode()) for head in form[1])
        + form[2]
    )
)


@settings(deadline=None)
@given(FORMS | st.binary(max_size=100))
def test_a_stream_of_any_form_defines_all_or_nothing(data: bytes) -> None:
    # Its first eight bytes alone may claim any size, which is refused only once it is not there.
    if len(data) >= 8 and struct.unpack(">Q", data[:8])[0] > 1 << 20:
        data = block(data)
    shell = SimpleNamespace(user_ns={})
    try:
        report = exchange.merge(shell, Stream(data), ["a", "b"], objects=False)
    except (EOFError, ValueError):
        assert shell.user_ns == {}
    else:
        assert (set(shell.user_ns) == {"a", "b"}) == (not report.lost)
