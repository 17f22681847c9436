"""Grants for one cell, a sandbox of its own, needs declared up front, and what is to be done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mxc_kernel import magics
from mxc_kernel.magics import Action, SandboxFacts
from mxc_kernel.policy import Access, HtmlLevel, Limits, Place, Places, Request
from tests.magics.test_commands import a_ceiling, a_context, refusal, run

FACTS = SandboxFacts(
    executable="/opt/mxc/lxc-exec",
    version="1.0.1",
    sha256="5bd6" * 16,
    backend="bubblewrap",
    pid=4711,
    uptime=3723.4,
    memory=3 << 20,
    spare=None,
    user="uid 60706",
    enforced=(("files", "bubblewrap's mounts"), ("memory", "the host, by watching")),
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path.resolve()
    for name in ("Documents/old", "Downloads", "Private", "note books"):
        (home / name).mkdir(parents=True)
    return home


def held(request: Request | None, home: Path, name: str) -> Access:
    assert request is not None
    return a_ceiling(home).clamp(request).filesystem.access(str(home / name))


# --- for this cell only -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name", "access"),
    [
        ("%%allow_ro Documents", "Documents", Access.READONLY),
        ("%%allow_rw Downloads", "Downloads", Access.READWRITE),
    ],
)
def test_a_cell_magic_grants_for_its_cell_and_leaves_the_session_alone(
    home: Path, source: str, name: str, access: Access
) -> None:
    before = run("%allow_rw 'note books'", a_context(home)).request
    outcome = run(f"{source}\nopen('x')", a_context(home, request=before))
    assert outcome.request == before
    assert held(outcome.this_cell, home, name) is access
    assert held(outcome.this_cell, home, "note books") is Access.READWRITE
    assert "this cell only" in outcome.views[0].text
    assert "again before the next one" in outcome.views[0].text


def test_a_cell_magic_is_checked_like_any_request(home: Path) -> None:
    assert "holds read-only" in refusal("%%allow_rw Documents", a_context(home)).message
    refusal("%%allow_ro Private", a_context(home))
    refusal("%%allow_ro Documents/missing", a_context(home))
    none = a_context(home, ceiling=a_ceiling(home, requests="none"))
    assert "takes no requests" in refusal("%%allow_ro Documents", none).message
    given_up = run("%ceiling --deny Documents", a_context(home)).request
    refusal("%%allow_ro Documents", a_context(home, request=given_up))


def test_what_changes_nothing_warns_of_nothing(home: Path) -> None:
    before = run("%allow_rw Downloads", a_context(home)).request
    for source in ("%allow_rw Downloads", "%%allow_ro Downloads", "%revoke Documents"):
        text = run(source, a_context(home, request=before)).views[0].text
        assert "widgets" not in text
    assert "widgets" in run("%revoke Downloads", a_context(home, request=before)).views[0].text


# --- a sandbox of its own ---------------------------------------------------------------------


def test_a_throwaway_holds_exactly_what_is_named(home: Path) -> None:
    before = run("%allow_rw Downloads\n%timeout 30s", a_context(home)).request
    outcome = run(
        "%%sandbox --ro Documents --rw 'note books' --memory 1GiB --in a,b --out c\nc = a + b",
        a_context(home, request=before),
    )
    own = outcome.throwaway
    assert own is not None
    assert outcome.request == before
    assert outcome.this_cell is None
    assert held(own.request, home, "Documents") is Access.READONLY
    assert held(own.request, home, "note books") is Access.READWRITE
    assert held(own.request, home, "Downloads") is Access.NONE
    assert a_ceiling(home).clamp(own.request).limits == Limits(30, 1 << 30, 64, output=1 << 20)
    assert (own.names_in, own.names_out, own.objects) == (("a", "b"), ("c",), False)
    text = outcome.views[0].text
    for part in (str(home / "Documents"), "1GiB", "plain data: a, b", "plain data: c"):
        assert part in text


def test_a_throwaway_starts_with_nothing(home: Path) -> None:
    start = Request().allow(str(home / "Documents"), Access.READONLY)
    context = a_context(home, ceiling=a_ceiling(home, start=start), request=start)
    own = run("%%sandbox --out a --objects\na = 1", context).throwaway
    assert own is not None
    assert own.request == Request()
    assert own.objects


def test_a_throwaway_cannot_pass_the_ceiling_nor_what_was_given_up(home: Path) -> None:
    refusal("%%sandbox --rw Documents", a_context(home))
    refusal("%%sandbox --ro Private", a_context(home))
    assert "holds 1m" in refusal("%%sandbox --timeout 2m", a_context(home)).message
    context = a_context(
        home, request=run("%ceiling --deny Documents --html text", a_context(home)).request
    )
    assert "given up" in refusal("%%sandbox --ro Documents", context).message
    own = run("%%sandbox --rw Downloads", context).throwaway
    assert own is not None
    assert context.ceiling.clamp(own.request).html is HtmlLevel.TEXT


# --- needs declared up front ------------------------------------------------------------------


def test_a_declaration_is_clamped_and_says_so(home: Path) -> None:
    (home / "out").symlink_to(home / "Private")
    outcome = run(
        f"%policy request --ro Documents/old Private out --rw Documents Downloads {home}/missing "
        "'note books/none'\nprint(1)",
        a_context(home),
    )
    assert held(outcome.request, home, "Documents") is Access.READONLY
    assert held(outcome.request, home, "Downloads") is Access.READWRITE
    assert held(outcome.request, home, "note books") is Access.NONE
    rows = {line.split("  ")[1].strip(): line for line in outcome.views[0].text.splitlines()[2:-1]}
    for name, ending in (
        ("Documents/old", "read-only"),
        ("Private", "not granted"),
        ("out", "not granted"),
        ("Documents", "only read-only"),
        ("Downloads", "read and write"),
        ("missing", "not granted"),
        ("note books/none", "it does not exist"),
    ):
        assert rows[str(home / name)].endswith(ending)


def test_a_declared_folder_above_what_is_held_gives_what_is_held(home: Path) -> None:
    outcome = run(f"%policy request --ro {home}", a_context(home))
    assert held(outcome.request, home, "Documents") is Access.READONLY
    assert held(outcome.request, home, "Downloads") is Access.READONLY
    assert held(outcome.request, home, "Private") is Access.NONE
    assert f"only {home}/Documents, {home}/Downloads" in outcome.views[0].text


def test_a_declaration_cannot_name_what_only_a_larger_grant_may_show(home: Path) -> None:
    name = str(home / "Downloads" / "code")
    (home / "Downloads" / "code").mkdir()
    place = Place(name, Access.READONLY, "it is the kernel's code", by_name=Access.NONE)
    context = a_context(home, ceiling=a_ceiling(home, places=Places((place,))))
    outcome = run("%policy request --ro Downloads/code", context)
    assert context.ceiling.clamp(outcome.request).filesystem.access(name) is Access.NONE
    assert "not granted" in outcome.views[0].text
    outcome = run("%policy request --rw Downloads", context)
    assert context.ceiling.clamp(outcome.request).filesystem.access(name) is Access.READONLY


def test_a_link_does_not_tell_where_it_leads(home: Path) -> None:
    (home / "out").symlink_to(home)
    text = run("%policy request --ro out", a_context(home)).views[0].text
    assert "Documents" not in text
    assert "not granted" in text


def test_where_the_ceiling_takes_no_requests_a_declaration_is_ignored(home: Path) -> None:
    start = Request().allow(str(home / "Documents"), Access.READONLY)
    ceiling = a_ceiling(home, requests="none", start=start)
    context = a_context(home, ceiling=ceiling, request=start)
    outcome = run("%policy request --ro Documents --rw Downloads\nprint(1)", context)
    assert outcome.request == start
    text = outcome.views[0].text
    assert "ignored" in text
    assert f"{home}/Downloads" in text
    assert text.count("not granted") == 1
    refusal("%allow_rw Downloads", context)


# --- what the session is to do ----------------------------------------------------------------


def test_actions_come_in_order_and_have_no_view(home: Path) -> None:
    outcome = run("%checkpoint\n%allow_rw Downloads\n%sandbox restart\n%restore", a_context(home))
    assert outcome.actions == (Action.CHECKPOINT, Action.RESTART, Action.RESTORE)
    assert len(outcome.views) == 1
    assert not outcome.strict


def test_a_failing_magic_undoes_actions_too(home: Path) -> None:
    refusal("%checkpoint\n%allow_rw Private", a_context(home))


@pytest.mark.parametrize(
    "source",
    [
        "%allow_ro --strict Documents",
        "%allow_rw Downloads --strict\n%policy",
        "%revoke Downloads --strict",
        "%sandbox restart --strict\n%allow_ro Documents",
        "%%allow_rw Downloads --strict",
    ],
)
def test_strict_holds_for_the_whole_cell(home: Path, source: str) -> None:
    assert run(source, a_context(home)).strict
    assert not run(source.replace("--strict", ""), a_context(home)).strict


# --- the sandbox shown ------------------------------------------------------------------------


def test_the_sandbox_is_shown_with_who_enforces_what(home: Path) -> None:
    context = a_context(home, sandbox=lambda: FACTS)
    text = run("%sandbox", context).views[0].text
    for part in ("/opt/mxc/lxc-exec", "1.0.1", "5bd6", "bubblewrap", "4711", "1 h 2 min", "3MiB"):
        assert part in text
    assert "by watching" in text
    assert "before this cell" not in text
    assert "before this cell" in run("%allow_rw Downloads\n%sandbox", context).views[1].text


def test_a_sandbox_that_does_not_run_is_shown_as_that(home: Path) -> None:
    facts = replace(FACTS, pid=None, uptime=None, memory=None)
    text = run("%sandbox", a_context(home, sandbox=lambda: facts)).views[0].text
    assert "none is running" in text
    assert "unknown" in text
    assert refusal("%sandbox", a_context(home)).message
    assert run("%sandbox restart", a_context(home)).actions == (magics.Action.RESTART,)
