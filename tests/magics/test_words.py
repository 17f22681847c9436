"""The shell's words: what is accepted means what a POSIX shell would make of it."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxc_kernel.denials import magic_line
from mxc_kernel.magics.words import WordError, split
from mxc_kernel.policy import Access


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("   ", ()),
        ("~/a /b", ("~/a", "/b")),
        ("'a b' \"c d\"", ("a b", "c d")),
        (r"My\ Documents/x", ("My Documents/x",)),
        ("~/'My Documents'/x", ("~/My Documents/x",)),
        ("--memory='2 GiB'", ("--memory=2 GiB",)),
        ("a # b 'c", ("a",)),
        ("a#b", ("a#b",)),
        ("''", ("",)),
        (r'"a\"b\\c\$d\e"', (r'a"b\c$d\e',)),
        (r"'a\b'", (r"a\b",)),
        ("'what?' '*' '(x)' '$HOME'", ("what?", "*", "(x)", "$HOME")),
        ("été 日本", ("été", "日本")),
        ("a\tb", ("a", "b")),
    ],
)
def test_words_are_split_as_in_a_shell(text: str, words: tuple[str, ...]) -> None:
    assert split(text) == words


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("'a", "not closed"),
        ('a "b', "not closed"),
        ("a\\", "one line"),
        ("a \\\\", "backslash"),
        (r"C:\Users", "use quotes"),
        ("'C:\\'", "ends in a backslash"),
        ("$HOME/x", "variables are not expanded"),
        ('"$HOME/x"', "variables are not expanded"),
        ("`id`", "variables are not expanded"),
        ("*.csv", "patterns are not expanded"),
        ("data?", "patterns are not expanded"),
        ("a(b", "quotes"),
        ("a;b", "quotes"),
        ("a>b", "quotes"),
        ("{a}", "quotes"),
        ("f'{x'", "begins inside a word"),
        ("'''a'''", "begins inside a word"),
        ("a\xa0b", "white space"),
        ("a\x00b", "control"),
        ("'a\x1bb'", "control"),
        ("'\ud800'", "control"),
        ("a\u202eb", "invisible"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(text: str, says: str) -> None:
    with pytest.raises(WordError, match=says):
        split(text)


_TEXTS = st.text(st.sampled_from("ab/~ \t'\"\\#$`*?()[]{};é\u202e-="), max_size=20)


@given(_TEXTS)
@settings(max_examples=500)
def test_what_is_accepted_is_what_shlex_reads(text: str) -> None:
    try:
        words = split(text)
    except WordError:
        return
    # In double quotes a shell also takes the backslash from these; shlex leaves it there.
    read = text.replace("\\$", "$").replace("\\`", "`")
    lexer = shlex.shlex(read, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    expected: list[str] = []
    try:
        expected = list(lexer)
    except ValueError:
        assert "#" in text  # a quote left open inside the comment
    if "#" not in text:
        assert list(words) == expected
    else:
        assert list(words[: len(expected)]) == expected[: len(words)]


def test_what_is_accepted_is_what_sh_reads() -> None:
    texts = ['a \'b c\' "d\\"e\\\\f\\g" h\\ i', "~/x'y'" if False else "x/'y z'", "a # b", "a#b ''"]
    for text in texts:
        shell = subprocess.run(
            ["sh", "-c", f"printf '%s\\0' {text}\n"], capture_output=True, text=True, check=True
        )
        assert shell.stdout.split("\0")[:-1] == list(split(text))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
@settings(max_examples=300)
def test_a_recommended_line_reads_back_as_its_paths(names: list[str]) -> None:
    paths = ["/" + name for name in names]
    line = magic_line(Access.READONLY, *paths)
    if line is None:
        assert any(not path.isprintable() or '"' in path for path in paths)
    else:
        assert split(line.removeprefix("%allow_ro ")) == tuple(paths)
