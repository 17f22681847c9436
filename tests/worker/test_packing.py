"""Pictures are packed faster, and to the same JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.worker.packing import fast_pictures

calls: list[int] = []


def pack(content: Any) -> bytes:
    packed = json.dumps(content, ensure_ascii=False).encode()
    calls.append(len(packed))
    return packed


LONG = 300_000
pieces = st.sampled_from(["QUJD", 'a"b', "a\\b", "a\nb", "é", "\x7f", "\x00"])


@given(st.lists(pieces, min_size=1, max_size=3), st.booleans())
def test_what_is_packed_is_the_same(parts: list[str], twice: bool) -> None:
    text = "".join(parts)
    long = text * (LONG // len(text) + 1)
    data = {"image/png": long, "text/plain": "<Figure>"} | ({"image/jpeg": long} if twice else {})
    content = {"data": data, "metadata": {"a": [1, None]}, "transient": {}}
    assert json.loads(fast_pictures(pack)(content)) == content


def test_the_encoder_does_not_see_a_long_picture_and_sees_a_short_one() -> None:
    calls.clear()
    for size in (LONG, 100):
        content = {"data": {"image/png": "A" * size}}
        assert fast_pictures(pack)(content) == json.dumps(content).encode()
    assert calls[0] < 200
    assert calls[1] > 100


def test_other_contents_pass_as_they_are() -> None:
    for content in ({}, {"data": "text"}, {"name": "stdout", "text": "x" * LONG}, [1]):
        assert fast_pictures(pack)(content) == json.dumps(content).encode()
