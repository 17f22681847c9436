"""Notes on denials: true to the policy, silent about the host, and no tool for a forger."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxc_kernel.denials import explain, overview
from mxc_kernel.magics.words import split
from mxc_kernel.policy import (
    Access,
    Ceiling,
    Filesystem,
    Layer,
    Network,
    NetworkMode,
    Policy,
    Request,
)
from mxc_kernel.views import View

POLICY = Policy(
    filesystem=Filesystem.of(
        readonly=["/home/u/Documents"],
        readwrite=["/home/u/Downloads", "/home/u/list.txt", "/home/u/a b", "/home/u/Shared"],
        denied=["/home/u/Shared/inner/closed"],
    )
)
CEILING = Ceiling(POLICY, layers=(Layer("user", "/etc/ceiling.toml", POLICY),))
NOTHING, CLOSED = Request(), Network()
SCRATCH = "/tmp/scratch"


def note(
    path: object = None,
    errno: str = "ENOENT",
    operation: str = "read",
    *,
    request: Request = NOTHING,
    ceiling: Ceiling = CEILING,
    **more: Any,
) -> View | None:
    report = {"kind": "filesystem", "errno": errno, "path": path, "operation": operation}
    return explain(
        {"denials": [report], "truncated": False},
        ceiling=ceiling,
        effective=ceiling.clamp(request),
        scratch=SCRATCH,
        **more,
    )


def text(*arguments: Any, **more: Any) -> str:
    view = note(*arguments, **more)
    assert view is not None
    return view.text


def lines(view: View | None) -> list[str]:
    """Return the magics that a note recommends."""
    return (
        [line.strip() for line in view.text.split("\n") if line.startswith("    %")] if view else []
    )


HELD = (
    Request()
    .allow("/home/u/Documents", Access.READONLY)
    .allow("/home/u/Downloads", Access.READWRITE)
)


# --- within the ceiling -----------------------------------------------------------------------


def test_an_invisible_file_within_the_ceiling_is_recommended_by_its_exact_path() -> None:
    said = text("/home/u/Documents/a.csv")
    assert said.startswith(
        "Blocked by the sandbox\nThe cell reported: reading /home/u/Documents/a.csv."
    )
    assert "No grant in force reaches it." in said
    assert lines(note("/home/u/Documents/a.csv")) == ["%allow_ro /home/u/Documents/a.csv"]


@pytest.mark.parametrize("errno", ["EROFS", "ENOENT", "EACCES", "EPERM"])
def test_writing_within_the_ceiling_recommends_the_folder(errno: str) -> None:
    request = Request().allow("/home/u/Downloads", Access.READONLY)
    view = note("/home/u/Downloads/new.txt", errno, "write", request=request)
    assert lines(view) == ["%allow_rw /home/u/Downloads"]
    assert view is not None
    assert "It is read-only in this session." in view.text


def test_writing_recommends_the_path_itself_where_the_ceiling_does_not_hold_its_folder() -> None:
    assert lines(note("/home/u/list.txt", "ENOENT", "write")) == ["%allow_rw /home/u/list.txt"]
    assert lines(note("/home/u/Downloads", "EROFS", "write")) == ["%allow_rw /home/u/Downloads"]


def test_a_folder_that_may_not_be_asked_for_is_not_recommended() -> None:
    view = note("/home/u/Shared/inner/x", "ENOENT", "write")
    assert lines(view) == ["%allow_rw /home/u/Shared/inner/x"]


def test_a_recommendation_can_be_pasted() -> None:
    view = note("/home/u/a b/new.txt", "ENOENT", "write")
    assert lines(view) == ["%allow_rw '/home/u/a b'"]


def test_a_name_that_cannot_be_pasted_is_not_recommended() -> None:
    for name in ("a\u202eb", 'a"b', "a\nb"):
        assert lines(note(f"/home/u/Documents/{name}")) == []


def test_what_the_sandbox_may_write_but_only_read_was_granted_needs_the_operator() -> None:
    said = text("/home/u/Documents/x", "EROFS", "write", request=HELD)
    assert "It is read-only in this session." in said
    assert "[filesystem] readwrite in /etc/ceiling.toml" in said
    assert "%allow" not in said


def test_a_ceiling_that_takes_no_requests_gets_no_recommendation() -> None:
    said = text("/home/u/Documents/a", ceiling=replace(CEILING, requests="none"))
    assert "%allow" not in said
    assert "takes no requests" in said


def test_a_path_that_is_missing_on_the_host_too_gets_no_note_where_that_is_known() -> None:
    asked: list[str] = []

    def missing(path: str) -> bool:
        asked.append(path)
        return False

    assert note("/home/u/Documents/a.csv", exists=missing) is None
    assert note("/home/u/Documents/a.csv", exists=lambda _path: True) is not None
    assert note("/etc/passwd", exists=missing) is None
    assert note("/home/u/.ssh/id_rsa", exists=missing) is not None
    assert asked == ["/home/u/Documents/a.csv"]


# --- within the grants ------------------------------------------------------------------------


def test_a_missing_file_within_a_grant_gets_no_note() -> None:
    assert note("/home/u/Documents/missing", request=HELD) is None
    assert note("/home/u/Downloads/missing", "ENOENT", "write", request=HELD) is None
    assert note("/home/u/Documents/missing") is not None


def test_a_refusal_by_the_files_own_mode_is_not_put_on_the_policy() -> None:
    said = text("/home/u/Documents/x", "EACCES", request=HELD)
    assert said.startswith("Refused, but not by the policy")
    assert "owner and mode" in said
    assert "%allow" not in said


def test_a_link_out_of_a_grant_is_explained_by_the_reported_name() -> None:
    said = text("/home/u/Downloads/link", "EROFS", "write", request=HELD)
    assert said.startswith("Blocked by the sandbox")
    assert "symbolic link leads out" in said
    assert "/home/u/Downloads/link" in said


def test_renaming_between_grants_is_explained() -> None:
    assert "copy and delete" in text("/home/u/Downloads/x", "EXDEV", "write", request=HELD)


# --- outside the ceiling ----------------------------------------------------------------------


def test_outside_the_ceiling_only_the_operator_can_help() -> None:
    said = text("/home/u/.ssh/id_rsa")
    assert "/home/u/.ssh/id_rsa" in said
    assert "Only the operator" in said
    assert "[filesystem] readonly in /etc/ceiling.toml" in said
    assert "%allow" not in said


def test_without_a_ceiling_the_note_says_how_to_write_one() -> None:
    assert "mxc-kernel init" in text("/home/u/x", ceiling=Ceiling(Policy()))


@pytest.mark.parametrize("errno", ["ENOENT", "EACCES", "EPERM"])
def test_outside_the_ceiling_the_note_does_not_depend_on_the_error(errno: str) -> None:
    assert text("/home/u/.ssh/id_rsa", errno) == text("/home/u/.ssh/id_rsa", "ENOENT")


def test_the_disk_is_not_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    there = str(tmp_path / "there")
    (tmp_path / "there").write_text("x")
    before = text(there)

    def forbidden(*_arguments: object, **_named: object) -> Any:
        raise AssertionError("the disk was looked at")

    looks: list[tuple[object, str]] = [(builtins, "open"), (os, "open")]
    looks += [(os, name) for name in ("stat", "lstat", "readlink", "scandir", "listdir", "access")]
    looks += [(os.path, "realpath"), (os.path, "exists"), (os.path, "lexists")]
    for module, name in looks:
        monkeypatch.setattr(module, name, forbidden)
    said = [text(there), text(str(tmp_path / "other")), text("/home/u/Documents/a")]
    monkeypatch.undo()
    assert said[0] == before == said[1].replace("other", "there")


# --- the sandbox's own ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/usr/lib/x", "/etc/passwd", "/opt/python/x", "/bin/sh"])
def test_the_baseline_is_explained_but_never_recommended(path: str) -> None:
    said = text(path, "EROFS", "write", readonly=["/opt/python"])
    assert "belongs to the sandbox itself" in said
    assert "%allow" not in said
    assert note(path, "ENOENT", readonly=["/opt/python"]) is None
    assert note(path, "EACCES", readonly=["/opt/python"]) is None


def test_scratch_and_private_tmp() -> None:
    assert note(f"{SCRATCH}/x") is None
    assert note(f"{SCRATCH}/x", "EACCES", "write") is None
    assert "/tmp of its own" in text("/tmp/data.csv")
    assert note("/tmp/x", "EACCES", "write") is None


# --- network ----------------------------------------------------------------------------------


def network_note(host: object, network: Network = CLOSED) -> View | None:
    policy = replace(POLICY, network=network)
    ceiling = Ceiling(policy, layers=(Layer("user", "/etc/ceiling.toml", policy),))
    evidence = {"denials": [{"kind": "network", "host": host, "errno": ""}]}
    return explain(evidence, ceiling=ceiling, effective=ceiling.clamp(Request()))


def test_a_closed_network_is_explained() -> None:
    view = network_note("example.org")
    assert view is not None
    for part in (
        "connecting to example.org",
        "network is closed",
        "[network] in /etc/ceiling.toml",
    ):
        assert part in view.text
    assert network_note("localhost") is not None
    assert network_note("") is not None
    assert network_note(7) is not None


def test_a_network_that_is_open_to_the_host_needs_no_note() -> None:
    listed = Network(NetworkMode.HOSTS, frozenset({"example.org"}))
    assert network_note("Example.org.", listed) is None
    assert network_note("x", Network(NetworkMode.OPEN)) is None
    view = network_note("other.org", listed)
    assert view is not None
    assert "not listed" in view.text


# --- several, and forged ----------------------------------------------------------------------


def reports(count: int, make: Callable[[int], str]) -> dict[str, object]:
    one = {"kind": "filesystem", "errno": "ENOENT", "operation": "read"}
    return {"denials": [{**one, "path": make(number)} for number in range(count)]}


def test_repeated_reports_make_one_note_and_many_are_cut() -> None:
    same = reports(50, lambda _number: "/home/u/x")
    view = explain(same, ceiling=CEILING, effective=Policy())
    assert view is not None
    assert view.text.count("The cell reported") == 1
    view = explain(reports(10_000, lambda n: f"/home/u/{n}"), ceiling=CEILING, effective=Policy())
    assert view is not None
    assert view.text.count("The cell reported") == 5
    assert "more: see %denials" in view.text


def test_the_overview_joins_what_can_be_asked_for() -> None:
    evidence = [
        reports(2, lambda n: f"/home/u/Documents/{n}"),
        {"denials": [{"kind": "filesystem", "errno": "EROFS", "path": "/home/u/Downloads/n"}]},
        reports(1, lambda _number: "/home/u/.ssh/id_rsa"),
    ]
    view = overview(evidence, ceiling=CEILING, effective=Policy())
    assert lines(view) == [
        "%allow_ro /home/u/Documents/0 /home/u/Documents/1",
        "%allow_rw /home/u/Downloads",
    ]
    assert "/home/u/.ssh/id_rsa" in view.text
    assert "may be missing" in view.text
    granted = overview(evidence, ceiling=CEILING, effective=CEILING.clamp(HELD))
    assert lines(granted) == []
    assert "No denials" in overview([], ceiling=CEILING, effective=Policy()).text


@pytest.mark.parametrize(
    "path",
    [
        None,
        7,
        "",
        "relative",
        "~/x",
        "a\0b",
        "/a\0b",
        "/\ud800",
        "/" + "a" * 5000,
        ["/x"],
        {"a": 1},
    ],
)
def test_a_path_that_is_none_gets_no_note(path: object) -> None:
    assert note(path) is None


def test_dots_in_a_report_are_resolved_by_the_text() -> None:
    view = note("/home/u/Documents/../../../etc/shadow", "EACCES")
    assert view is None  # /etc, the sandbox's own
    assert lines(note("/home/u/Documents/../.ssh/id_rsa")) == []
    assert lines(note("//home//u/Documents/./a")) == ["%allow_ro /home/u/Documents/a"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_PATHS = st.one_of(
    _JSON,
    st.lists(
        st.sampled_from(
            [
                "home",
                "u",
                "Documents",
                "Downloads",
                "Shared",
                "inner",
                "closed",
                "..",
                ".",
                "a b",
                "x'",
                "é",
                "",
                "$(id)",
            ]
        ),
        max_size=7,
    ).map(lambda names: "/" + "/".join(names)),
)
_REPORTS = st.one_of(
    _JSON,
    st.fixed_dictionaries(
        {},
        optional={
            "kind": st.sampled_from(["filesystem", "network"]) | _JSON,
            "errno": st.sampled_from(["EROFS", "ENOENT", "EACCES", "EPERM", "EXDEV"]) | _JSON,
            "operation": st.sampled_from(["write", "read", "unknown"]) | _JSON,
            "path": _PATHS,
            "host": _JSON,
        },
    ),
)
_EVIDENCE = st.dictionaries(st.text(), _JSON, max_size=2) | st.fixed_dictionaries(
    {"denials": st.lists(_REPORTS, max_size=4) | _JSON}, optional={"truncated": _JSON}
)


@given(_EVIDENCE, st.booleans())
@settings(max_examples=600, deadline=None)
def test_no_report_makes_the_kernel_recommend_more_than_its_path(
    evidence: dict[str, Any], held: bool
) -> None:
    effective = CEILING.clamp(HELD if held else Request())
    view = explain(evidence, ceiling=CEILING, effective=effective, scratch=SCRATCH)
    listed = overview([evidence], ceiling=CEILING, effective=effective, scratch=SCRATCH)
    named = [
        os.path.normpath(report["path"]).replace("//", "/")
        for report in (evidence.get("denials") if isinstance(evidence.get("denials"), list) else ())
        if isinstance(report, dict) and isinstance(report.get("path"), str) and report["path"]
    ]
    for line in lines(view) + lines(listed):
        name, _, arguments = line.partition(" ")
        access = {"%allow_ro": Access.READONLY, "%allow_rw": Access.READWRITE}[name]
        for path in split(arguments):
            assert path in named or (
                access is Access.READWRITE and path in map(os.path.dirname, named)
            )
            assert CEILING.holds(path) >= access
            assert effective.filesystem.access(path) < access
