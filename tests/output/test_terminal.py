"""Colours stay; what steers a terminal goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.output.redaction import Rules, redact
from mxc_kernel.output.terminal import Splitter, clean, visible_bidi


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[31mred\x1b[0m",
        "\x1b[38;5;208mx\x1b[48;2;1;2;3m",
        "a\rb\tc\n",
        "back\b\b",
        "\x1b[K\x1b[2K\x1b[A\x1b[1A",
        "emoji 👩\u200d💻 ❤\ufe0f",
        "żółć 漢字 [1m]",
    ],
)
def test_kept(text):
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil.example/\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;aGVsbG8=\x07x", "x"),
        ("\x9d52;c;aGVsbG8=\x9cx", "x"),
        ("\x1bP+q544e\x1b\\x", "x"),
        ("\x1b_payload\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\x", "x"),
        ("\x1b[2J\x1b[1;1H\x1b[5B\x1b[?25l\x1b[6n\x1b[?1049hx", "x"),
        ("\x9b31mred\x9b2J", "\x1b[31mred"),
        ("a\x00b\x07c\x0ed\x7fe\x85f", "abcdef"),
        ("\x1bc\x1b(B\x1b=x", "x"),
        ("unfinished \x1b]0;title\nnext line", "unfinished \nnext line"),
        ("end \x1b[31", "end "),
    ],
)
def test_dropped(text, shown):
    assert clean(text) == shown


PIECES = st.sampled_from(
    [
        "\x1b",
        "[",
        "]",
        "0;",
        "31",
        "m",
        "K",
        "J",
        "\x07",
        "\\",
        "\n",
        "\x9b",
        "\x9d",
        "\x9c",
        "P",
        "x",
        "\b",
    ]
)


@given(st.lists(PIECES, max_size=20), st.integers(0, 40))
def test_two_writes_are_split_like_one(pieces, place):
    text = "".join(pieces)
    whole, whole_extras = Splitter().split(text)
    splitter = Splitter()
    first, extras = splitter.split(text[:place])
    second, more = splitter.split(text[place:])
    assert first + second == whole
    assert [extra for _, extra in extras + more] == [extra for _, extra in whole_extras]


@given(st.lists(PIECES, max_size=30))
def test_cleaning_twice_changes_nothing(pieces):
    once = clean("".join(pieces))
    assert clean(once) == once
    assert "\x1b]" not in once
    assert not set(once) & set("\x07\x9b\x9c\x9d\x00")


def test_a_dropped_sequence_does_not_join_the_halves_of_a_secret_unseen():
    token = "gh" + "p_" + "a1B2" * 9
    shown, counts = redact(token[:9] + "\x1b]0;x\x07" + token[9:] + "\n", Rules())
    assert shown == "[redacted: github-token]\n"
    assert counts == {"github-token": 1}


def test_hidden_characters_of_our_own_messages_are_spelled_out():
    assert visible_bidi("/data/\u202egnp.exe\x1b[0m\u200b\n") == (
        "/data/<U+202E>gnp.exe<U+001B>[0m<U+200B>\n"
    )
    assert visible_bidi("żółć 漢字") == "żółć 漢字"
