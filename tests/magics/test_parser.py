"""Policy magics are found at the top of a cell, and exactly where IPython would call them."""

from __future__ import annotations

import ast
import re
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from IPython.core import magics as ipython_magics
from IPython.core.inputtransformer2 import TransformerManager

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.magics import parse
from mxc_kernel.magics.table import CELL_MAGICS, MAGICS


def calls(source: str) -> list[tuple[str, tuple[str, ...], int]]:
    return [(call.name, call.words, call.line) for call in parse(source).calls]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("%allow_ro ~/x", [("allow_ro", ("~/x",), 1)]),
        ("\n\n# why\n  # and how\n%policy\nprint(1)", [("policy", (), 5)]),
        (
            "%allow_ro a\n%allow_rw b\n\n%policy\n1",
            [("allow_ro", ("a",), 1), ("allow_rw", ("b",), 2), ("policy", (), 4)],
        ),
        ("%allow_ro a\r\n%policy\r\n1", [("allow_ro", ("a",), 1), ("policy", (), 2)]),
        ("%allow_ro 'a b'  # mine   ", [("allow_ro", ("a b",), 1)]),
    ],
)
def test_calls_at_the_top_are_found(source: str, expected: list[object]) -> None:
    assert calls(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "",
        "x = 1\n%policy",
        "'''\n%policy\n'''",
        "x = '%policy'",
        "\\\n%policy",
        "exec('%policy')",
        "get_ipython().run_line_magic('policy', '')",
        "x = %policy",
        "if True:\n    %policy",
        "policy",
        "!echo\n%policy",
        "! %policy",
        "%matplotlib inline\n%policy",
        "%%bash\n%policy",
        "  %%bash\n%policy",
        "\n\x0c\n%%bash\n%policy",
        ">>> %policy",
        "In [1]: %policy",
        "% policy",
        "%policy?",
        "%policy??",
        "?%policy",
        "??policy",
        "%%policy?",
        "%timeit x",
        "%pip install x",
        "%%allow_nothing_like_it",
        "%",
        "%%",
        "\ufeff%policy",
    ],
)
def test_anything_else_is_left_to_ipython(source: str) -> None:
    parsed = parse(source)
    assert parsed.calls == ()
    assert parsed.has_code == bool(source)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("  %policy", "indented"),
        ("\t%allow_rw x\n\ty", "indented"),
        ("%%policy", "one percent sign"),
        ("%policy\n%%allow_rw x", "first line of its cell"),
        ("%%allow_rw x\n%%allow_ro y", "first line of its cell"),
        ("%%allow_rw x\n# c\n\n%policy\n1", "do not go into one cell"),
        ("%%allow_rw x\n%%policy", "one percent sign"),
        ("%%allow_rw x\n%polcy", "no magic"),
        (" %%allow_rw x", "indented"),
        ("%%allow_rw\tx", "needs a space"),
        ("%%allow_rw 'a\nb'", "not closed"),
        ("%%allow_rw a\x0bb", "separator"),
        ("\x0c\n%%allow_rw a", "separator"),
        ("# c\n%%allow_rw x", "first line of its cell"),
        ("%policy\t--json", "needs a space"),
        ("%allow_rw a \\\n b", "one line"),
        ("%allow_rw 'a\nb'", "not closed"),
        ("%policy # c \\\n%policy", "one line"),
        ("%allow_rw a?", "patterns"),
        ("%allow_rw ?", "patterns"),
        ("%allow_rw a\x0bb", "separator"),
        ("# a\x0c%allow_rw b", "separator"),
        ("%allow_rw a\rb", "separator"),
        ("%allow_rx a", "no magic %allow_rx"),
        ("%policy; 1", "no magic %policy;"),
        ("# c\n%Policy", "no magic"),
        ("%allow_ro a\n%polcy", "no magic"),
    ],
)
def test_a_doubtful_magic_is_refused(source: str, says: str) -> None:
    with pytest.raises(SandboxPolicyError, match=says) as caught:
        parse(source)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("source", "words", "line", "has_code"),
    [
        ("%%allow_rw ~/x 'a b'\nopen('a b/c')", ("~/x", "a b"), 1, True),
        ("\n \t\n%%allow_ro a\n", ("a",), 3, False),
        ("%%sandbox\n# only a comment", (), 1, False),
        ("%%sandbox --in a,b\r\n%%bash\r\nls", ("--in", "a,b"), 1, True),
        ("%%sandbox\nx = 1\n%policy", (), 1, True),
        ("%%sandbox\n%time 1\n%policy", (), 1, True),
    ],
)
def test_a_cell_magic_is_found_on_the_first_line(
    source: str, words: tuple[str, ...], line: int, has_code: bool
) -> None:
    parsed = parse(source)
    (call,) = parsed.calls
    assert (call.words, call.line, call.cell) == (words, line, True)
    assert parsed.cell_magic
    assert parsed.has_code is has_code
    assert parsed.handled == [source.strip().splitlines()[0][2:]]


def test_line_magics_make_no_cell_magic() -> None:
    assert not parse("%sandbox\n1").cell_magic
    assert not parse("%%bash\n1").cell_magic
    assert not parse("").cell_magic


def test_a_typo_is_answered_with_a_suggestion() -> None:
    for typo, name in [("allow_rx", "allow_rw"), ("ceilling", "ceiling"), ("revok", "revoke")]:
        with pytest.raises(SandboxPolicyError) as caught:
            parse(f"%{typo} ~/x")
        suggested = caught.value.remedy.split("%")[1].split("?")[0]
        assert suggested in MAGICS
        assert suggested == name or typo == "allow_rx"


def test_no_magic_of_ipython_is_taken_for_a_typo() -> None:
    groups = [getattr(ipython_magics, name) for name in dir(ipython_magics)]
    names = {"alias_magic", "autoreload", "conda", "connect_info", "edit", "subshell", "uv"}
    for group in groups:
        for kind in getattr(group, "magics", {}).values():
            names |= set(kind)
    assert len(names) > 80
    for name in names:
        assert parse(f"%{name} x").calls == ()


@pytest.mark.parametrize(
    ("source", "has_code"),
    [
        ("%policy", False),
        ("%policy\n\n# only a comment\n", False),
        ("# nothing", False),
        ("%policy\npass", True),
    ],
)
def test_whether_code_is_left(source: str, has_code: bool) -> None:
    assert parse(source).has_code is has_code


def test_handled_is_what_ipython_passes_on() -> None:
    parsed = parse("%allow_rw  ~/x 'a  b'  # {c} $d  \n%policy\n")
    assert parsed.handled == ["allow_rw  ~/x 'a  b'  # {c} $d", "policy"]


# --- agreement with IPython -------------------------------------------------------------------


def transformed(source: str) -> list[tuple[str, ...]]:
    """Return what IPython would call in a row at the start of a cell.

    A line magic is its name and arguments; a cell magic has ``%`` before its name, and its body.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = TransformerManager().transform_cell(source)
    found: list[tuple[str, ...]] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        kind = re.match(r"get_ipython\(\)\.run_(line|cell)_magic\(", line)
        if kind is None:
            break
        call = ast.parse(line).body[0]
        assert isinstance(call, ast.Expr)
        assert isinstance(call.value, ast.Call)
        name, *rest = (ast.literal_eval(argument) for argument in call.value.args)
        found.append((f"%{name}" if kind[1] == "cell" else name, *rest))
    return found


_ARGUMENTS = st.one_of(
    st.just(""),
    st.text(st.sampled_from("ab/~ '\"\\#?()[]{}=%!,;$f0.-\t\x0c\x1c\r\xa0é"), max_size=16),
    st.lists(
        st.sampled_from(
            [
                "~/x",
                "'a b'",
                '"c\\"d"',
                "'\\'",
                '\\"""',
                "f'{'",
                "x=%y",
                "x=!y",
                "(?",
                "# it's",
                "''",
            ]
        ),
        max_size=4,
    ).map(" ".join),
)
_MAGIC_LINES = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["%"] * 8 + ["%%", " %", "% ", "?%", "! %", ">>> %", "x = %"]),
    st.sampled_from([*MAGICS, "allow_rx", "time"]),
    st.sampled_from([" "] * 6 + ["", "  ", "\t", "?", ";"]),
    _ARGUMENTS,
)
_LINES = st.one_of(
    _MAGIC_LINES,
    st.sampled_from(["", "  ", "# c", "  # it's (", "#\x0c", "%%bash", "%time 1"]),
    st.sampled_from(["x = 1", "'''", '"""', ")", "]?", "x?", "foo'''", "print('%policy')", "\\"]),
)
_CELL_TOPS = st.builds(
    "{}%%{} {}".format,
    st.sampled_from(["", "", "\n", " \n\n", "\x0c\n", "# c\n", " "]),
    st.sampled_from(sorted(CELL_MAGICS)),
    _ARGUMENTS,
).map(lambda line: [line])
_TOPS = _CELL_TOPS | st.lists(
    st.builds("%{} {}".format, st.sampled_from(sorted(MAGICS)), _ARGUMENTS)
    | st.sampled_from(["", "# c", "  # it's ("]),
    max_size=3,
)
_CELLS = st.builds(
    lambda end, top, rest: end.join(top + rest),
    st.sampled_from(["\n", "\n", "\r\n"]),
    _TOPS,
    st.lists(_LINES, max_size=4),
)


@given(_CELLS)
@settings(max_examples=1500, deadline=None)
@example("%allow_rw (a\nb?")
@example('%allow_rw \\"""\nfoo?\n"""')
@example('%allow_rw \'\\\'""" "\nx?')
@example("%allow_rw f'{'\nfoo?")
@example("%allow_rw a=%time")
@example("%allow_rw a=!ls")
@example("# c\n%%policy")
@example("%allow_ro #\\\n%allow_ro ")
@example("%policy\n'''\n%policy\n'''")
@example("\n \n%%allow_ro a\n# c\n x = 1")
@example("%%sandbox --ro a\n%%bash\nls")
@example("\x0c\n%%allow_ro a\n1")
def test_the_host_and_ipython_agree(source: str) -> None:
    try:
        parsed = parse(source)
    except SandboxPolicyError:
        return  # the cell does not reach IPython
    try:
        seen = transformed(source)
    except SyntaxError:
        return  # IPython runs nothing of the cell, and says why
    ours = [(call.name, call.arguments) for call in parsed.calls]
    assert [f"{name} {text}".rstrip() for name, text in ours] == parsed.handled
    if parsed.cell_magic:
        # It is alone, and IPython takes the same text for its line and all the rest for its body.
        (call,) = parsed.calls
        below = source.splitlines(keepends=True)[call.line :]
        name, arguments, body = seen[0]
        assert (name, arguments) == (f"%{call.name}", call.arguments)
        if not any(text in source for text in (">>>", "In [", "...")):  # prompts are taken out
            assert body.split() == "".join(below).split()
        return
    # What the host acts on is what IPython calls first, with the same text.
    assert seen[: len(ours)] == ours
    # What follows the host's calls directly is no policy magic that the host has overlooked, but
    # where a prompt was pasted, or a blank was put after the sign: there the child's stub explains.
    if source.isascii() and not any(text in source for text in (">>>", "In [")):
        for name, *_ in seen[len(ours) : len(ours) + 1]:
            assert name.removeprefix("%") not in MAGICS


@given(st.text(max_size=200))
@settings(max_examples=500)
def test_any_text_is_parsed_or_refused(source: str) -> None:
    try:
        parsed = parse(source)
    except SandboxPolicyError:
        pass
    else:
        assert parsed.has_code or not any(
            line.strip() and not line.strip().startswith(("#", "%")) for line in source.splitlines()
        )


def test_a_large_cell_is_not_read_beyond_its_first_line_of_code() -> None:
    import time

    source = "x = 1\n" * 3_000_000
    start = time.perf_counter()
    assert parse(source).has_code
    assert time.perf_counter() - start < 0.1  # seconds; str.splitlines alone takes longer
