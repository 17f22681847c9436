"""Completion on the host: options, and paths that the ceiling holds; never another folder's."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxc_kernel import magics
from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.magics.table import MAGICS
from mxc_kernel.magics.words import split
from mxc_kernel.policy import Access, Ceiling, Filesystem, Place, Places, Policy, Request, canonical


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path.resolve()
    for name in (
        "Documents/old files",
        "Documents/.git",
        "Downloads/-x",
        "Private/keys",
        "data/in",
    ):
        (home / name).mkdir(parents=True)
    for name in ("Documents/report.csv", "Documents/it's", "Documents/.hidden", "Private/secret"):
        (home / name).write_text("x")
    monkeypatch.setenv("HOME", str(home))
    return home


def a_context(home: Path) -> magics.MagicContext:
    files = Filesystem.of(
        readonly=[str(home / "Documents"), str(home / "data/in")],
        readwrite=[str(home / "Downloads")],
    )
    return magics.MagicContext(Ceiling(Policy(filesystem=files)), Request(), str(home))


def completed(text: str, context: magics.MagicContext) -> set[str]:
    """Complete at the ``|`` in a cell; what is left in place of the replaced text is checked."""
    cursor = text.index("|")
    found = magics.complete(text.replace("|", ""), cursor, context)
    assert found is not None
    assert found.cursor_end == cursor
    assert found.cursor_start <= cursor
    return {text[: found.cursor_start] + match for match in found.matches}


def arguments(text: str, context: magics.MagicContext) -> set[str]:
    return {split(line.split("\n")[-1].partition(" ")[2])[-1] for line in completed(text, context)}


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("%allow_rw --|", {"--strict"}),
        ("%allow_rw x -|", {"--strict"}),
        ("%policy |", {"request", "--json", "--ro", "--rw"}),
        ("%policy --j|", {"--json"}),
        ("%policy r|", {"request"}),
        ("%policy request --r|", {"--ro", "--rw"}),
        ("%sandbox |", {"restart", "--strict"}),
        ("%sandbox restart |", {"--strict"}),
        ("%sandbox restart --strict |", set()),
        ("%ceiling --html |", {"text", "safe", "frame"}),
        ("%ceiling --html s|", {"safe"}),
        ("%ceiling --html safe --h|", set()),
        ("%%sandbox --o|", {"--out", "--objects"}),
        ("\n%%sandbox --i|", {"--in"}),
        ("# c\n%policy\n\n%limits --m|\nx = 1", {"--memory"}),
        ("%timeout |", set()),
        ("%limits --memory |", set()),
        ("%policy # --|", set()),
        ("%allow_rw $|", set()),
        ("%allow_rw -- --|", set()),
    ],
)
def test_options_and_choices(home: Path, text: str, options: set[str]) -> None:
    expected = {text[: max(text.rfind(" ", 0, text.index("|")) + 1, 0)] + word for word in options}
    assert completed(text, a_context(home)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "|",
        "%|",
        "%allow_r|",
        "%allow_rw|",
        "x = 1\n%allow_rw |",
        "%time x|\n",
        "print('%allow_rw |')",
        " %allow_rw |",
        "%%policy |",
        "# c\n%%allow_rw |",
        "%%allow_rw a\n%policy |",
        "%%allow_rw a\n|",
        "%allow_rw $x\n%policy |",
        "%allow_rw\n|",
    ],
)
def test_anywhere_else_the_child_answers(home: Path, text: str) -> None:
    assert magics.complete(text.replace("|", ""), text.index("|"), a_context(home)) is None


def test_the_ceilings_own_grants_come_first(home: Path) -> None:
    context = a_context(home)
    assert arguments("%allow_ro |", context) == {"Documents", "Downloads", "data/in", "--strict"}
    assert arguments("%allow_rw |", context) == {"Downloads", "--strict"}
    assert arguments("%allow_ro --strict D|", context) == {"Documents", "Downloads"}
    assert arguments(f"%allow_ro {home}/da|", context) == {f"{home}/data/in"}
    assert arguments("%allow_ro ~/Do|", context) == {"~/Documents", "~/Downloads"}
    assert arguments("%policy request --ro Documents --rw |", context) == {"Downloads"}
    elsewhere = replace(context, notebook_dir="/")
    assert f"{home}/Documents" in {"/" + word for word in arguments("%allow_ro |", elsewhere)}
    nowhere = replace(context, notebook_dir=None)
    assert f"{home}/Documents" in arguments("%allow_ro |", nowhere)


def test_below_a_held_folder_its_entries_are_offered_as_the_parser_reads_them(home: Path) -> None:
    context = a_context(home)
    entries = {"Documents/old files/", "Documents/report.csv", "Documents/it's"}
    assert arguments("%allow_ro Documents/|", context) == entries
    assert completed("%allow_ro Documents/o|", context) == {"%allow_ro 'Documents/old files/'"}
    assert completed("%allow_ro 'Documents/o|", context) == {"%allow_ro 'Documents/old files/'"}
    assert completed("%allow_ro ~/Documents/o|", context) == {"%allow_ro ~/'Documents/old files/'"}
    assert arguments("%allow_ro Documents/.|", context) == {"Documents/.git/", "Documents/.hidden"}
    assert arguments("%allow_rw Documents/|", context) == set()
    inside = replace(context, notebook_dir=str(home / "Downloads"))
    assert completed("%allow_rw |", inside) >= {"%allow_rw ./-x/"}
    for line in completed("%allow_ro Documents/|", context):
        assert magics.apply(magics.parse(line), context).request.filesystem


def test_revoke_offers_what_the_session_holds(home: Path) -> None:
    context = replace(a_context(home), request=Request().allow(str(home / "data"), Access.READONLY))
    assert arguments("%revoke |", context) == {"data/in", "--strict"}


def test_nothing_beyond_the_ceiling_is_listed(home: Path) -> None:
    context = a_context(home)
    for word in ("Private/", "Private/s", f"{home}/P", "Documents/../Private/", "/", "/etc/", ".."):
        found = arguments(f"%allow_ro {word}|", context)
        assert not any("Private" in text.rsplit("/", 1)[1] for text in found)
        assert not any(text.startswith(("/etc", "Private")) for text in found)
        for text in found:
            path = canonical(text, base=str(home))
            assert context.ceiling.holds(path)


def test_a_link_is_not_followed_out_of_the_ceiling(home: Path) -> None:
    context = a_context(home)
    (home / "Downloads" / "out").symlink_to(home / "Private")
    (home / "Downloads" / "in").symlink_to(home / "Documents")
    assert arguments("%allow_ro Downloads/out/|", context) == set()
    assert "Downloads/in/report.csv" in arguments("%allow_ro Downloads/in/|", context)


def test_a_link_put_there_after_the_path_was_judged_is_not_followed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = a_context(home)
    (home / "data" / "in" / "one").touch()
    assert arguments("%allow_ro data/in/|", context) == {"data/in/one"}
    (home / "data" / "in").rename(home / "data" / "moved")
    (home / "data" / "in").symlink_to(home / "Private")
    judged = f"{home}/data/in"
    monkeypatch.setattr("mxc_kernel.magics.completion.canonical", lambda *_, **__: judged)
    assert arguments("%allow_ro data/in/|", context) == set()


def test_what_was_given_up_or_is_protected_is_not_offered(home: Path) -> None:
    context = a_context(home)
    request = magics.apply(magics.parse("%ceiling --deny Documents"), context).request
    assert arguments("%allow_ro Do|", replace(context, request=request)) == {"Downloads"}
    places = Places((Place(f"{home}/Documents/it's", Access.NONE, "it is protected"),))
    ceiling = replace(context.ceiling, places=places)
    assert "it's" not in str(arguments("%allow_ro Documents/|", replace(context, ceiling=ceiling)))
    none = replace(context.ceiling, requests="none")
    assert arguments("%allow_ro D|", replace(context, ceiling=none)) == set()


def test_a_large_folder_is_cut(home: Path) -> None:
    for number in range(300):
        (home / "Downloads" / f"f{number:03}").touch()
    assert len(completed("%allow_ro Downloads/|", a_context(home))) == 200


_PIECES = st.sampled_from(
    [
        *(f"%{name}" for name in MAGICS),
        *("%%sandbox", "\n", " ", "--ro", "--", "'", '"', "~/", "é", "Documents/", "D", "..", "/"),
        *("-", "#", "\\", "=", "x = 1", "request", "\t", "$", "\ud800"),
    ]
)


@given(st.lists(_PIECES, max_size=8).map("".join), st.integers(-1, 60))
@settings(max_examples=300, deadline=None)
def test_what_is_offered_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, code: str, cursor: int
) -> None:
    home = tmp_path_factory.getbasetemp().resolve() / "completion"
    os.makedirs(home / "Documents" / "old files", exist_ok=True)
    found = magics.complete(code, cursor, a_context(home))
    if found is None:
        return
    typed = code[: max(cursor, 0)]
    assert 0 <= found.cursor_start <= found.cursor_end == len(typed)
    for match in found.matches:
        cell = typed[: found.cursor_start] + match
        try:
            parsed = magics.parse(cell)
        except SandboxPolicyError as error:
            raise AssertionError(cell) from error
        assert not parsed.has_code
        assert len(parsed.calls[-1].words) >= 1
