"""The same policy on each backend: as narrow as it says, or refused; never wider."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxc_kernel.errors import SandboxBackendUnsupportedError, SandboxPolicyError
from mxc_kernel.mxc import backends
from mxc_kernel.mxc.backends import BACKENDS, Nesting
from mxc_kernel.mxc.contract import Workload, render
from mxc_kernel.policy import Access, Filesystem, MountPlan, Network, NetworkMode, PathStyle
from tests.mxc.corpus import COMMAND, CORPUS, ROOTS, Request, plan, workload
from tests.platforms.windows_line import split_as_windows

GOLDEN = Path(__file__).parent / "golden"
NONE, RO, RW = Access.NONE, Access.READONLY, Access.READWRITE


# --- what each backend makes of a request, by the rules that its source states --------------------


def deepest_wins(request: Request, style: PathStyle, path: str) -> Access:
    return told(request, style).access(path)


def told(request: Request, style: PathStyle) -> Filesystem:
    files = request["filesystem"]
    return Filesystem.of(
        readonly=files["readonlyPaths"],
        readwrite=files["readwritePaths"],
        denied=files["deniedPaths"],
        style=style,
    )


def rights_add_up(request: Request, style: PathStyle, path: str) -> Access:
    """Windows: entries are inherited; all that allow add up, and any that denies may go first."""
    files = request["filesystem"]

    def reached(name: str) -> bool:
        return any(style.within(path, folder) for folder in files[name])

    if reached("deniedPaths"):
        return NONE
    return max(RO if reached("readonlyPaths") else NONE, RW if reached("readwritePaths") else NONE)


def denials_come_last(request: Request, style: PathStyle, path: str) -> Access:
    """macOS: a denied folder stays denied, whatever lies deeper; else the deepest wins."""
    denied = request["filesystem"]["deniedPaths"]
    if any(style.within(path, folder) for folder in denied):
        return NONE
    return deepest_wins(request, style, path)


MEANING: dict[str, Callable[[Request, PathStyle, str], Access]] = {
    "bubblewrap": deepest_wins,
    "processcontainer": rights_add_up,
    "seatbelt": denials_come_last,
}
TREE = ("a", "a/b", "a/b/c", "a/d", "e", "e/b")
GRANTS = st.lists(st.tuples(st.sampled_from(TREE), st.sampled_from(Access)), max_size=7)


def paths(backend: str) -> dict[str, str]:
    style = BACKENDS[backend].style
    separator = "\\" if style is PathStyle.WINDOWS else "/"
    return {name: ROOTS[backend] + name.replace("/", separator) for name in TREE}


def attempt(
    backend: str, files: Filesystem, network: Network
) -> Request | SandboxBackendUnsupportedError:
    try:
        return render(plan(files), network, workload(backend), backend)
    except SandboxBackendUnsupportedError as error:
        return error


@settings(deadline=None)
@given(st.sampled_from(sorted(BACKENDS)), GRANTS, st.sampled_from(NetworkMode))
def test_a_policy_is_enforced_as_it_says_or_refused(
    backend: str, grants: list[tuple[str, Access]], mode: NetworkMode
) -> None:
    style, places = BACKENDS[backend].style, paths(backend)
    files = Filesystem(tuple((places[name], access) for name, access in grants), style)
    network = Network(mode, frozenset({"example.org"}))
    request = attempt(backend, files, network)
    if isinstance(request, SandboxBackendUnsupportedError):
        assert f'"{backend}"' in request.message
        assert request.message.startswith(("[filesystem] ", "[network] "))
        assert request.remedy
        return
    enforced = MEANING[backend]
    for path in [*places.values(), *(f"{path}x" for path in places.values())]:
        assert enforced(request, style, path) == files.access(path), path
    assert request["containment"] == backend
    opened = request["network"]["egress"]["default"] == "allow"
    assert opened is (mode is NetworkMode.OPEN)
    assert request["network"]["ingress"] == {"default": "deny", "hostLoopback": "deny"}


def test_the_meaning_of_each_backend_tells_them_apart() -> None:
    """The control: what is refused would have been enforced wrongly."""

    def wrong(backend: str, outer: Access, inner: Access) -> bool:
        style, place = BACKENDS[backend].style, paths(backend)
        lists = {RO: "readonlyPaths", RW: "readwritePaths", NONE: "deniedPaths"}
        request: Request = {"filesystem": {name: [] for name in lists.values()}}
        request["filesystem"][lists[outer]].append(place["a"])
        request["filesystem"][lists[inner]].append(place["a/b"])
        return MEANING[backend](request, style, place["a/b"]) is not inner

    for backend, able in BACKENDS.items():
        for nesting, support in able.nested.items():
            assert wrong(backend, *nesting) is not support.enforced, (backend, nesting)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_policy_without_nesting_and_network_is_enforced_everywhere(backend: str) -> None:
    places = paths(backend)
    files = Filesystem.of(
        readonly=[places["a"]], readwrite=[places["e"]], denied=[places["a/b"]],
        style=BACKENDS[backend].style,
    )  # fmt: skip
    request = render(plan(files), Network(), workload(backend), backend)
    assert told(request, files.style).meet(files) == files


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_network_mode_is_taken_for_another(backend: str) -> None:
    for mode in NetworkMode:
        network = Network(mode, frozenset({"example.org"}))
        support = BACKENDS[backend].network[mode]
        if support.enforced:
            render(
                plan(Filesystem((), BACKENDS[backend].style)), network, workload(backend), backend
            )
            continue
        with pytest.raises(SandboxBackendUnsupportedError) as caught:
            render(
                plan(Filesystem((), BACKENDS[backend].style)), network, workload(backend), backend
            )
        assert f'[network] mode = "{mode.name.lower()}"' in caught.value.message
        assert f'"{backend}"' in caught.value.message
        assert "closed" in caught.value.remedy


def test_the_interpreter_inside_a_writable_grant_is_refused_where_rights_add_up() -> None:
    """The kernel's own needs are judged with the policy: code must not write to its own Python."""
    backend = "processcontainer"
    files = Filesystem.of(readwrite=[r"C:\work"], style=PathStyle.WINDOWS)
    own = replace(workload(backend), readonly=(r"C:\work\.venv",))
    with pytest.raises(SandboxBackendUnsupportedError, match=r"\.venv"):
        render(plan(files), Network(), own, backend)
    own = replace(own, readonly=(r"C:\Python313",))
    assert render(plan(files), Network(), own, backend)


def test_paths_of_another_system_are_refused() -> None:
    posix = plan(Filesystem.of(readonly=["/srv"], style=PathStyle.POSIX))
    with pytest.raises((SandboxBackendUnsupportedError, SandboxPolicyError)):
        render(posix, Network(), workload("processcontainer"), "processcontainer")


@pytest.mark.parametrize("backend", ["isolation_session", "lxc", "wslc", "", "Bubblewrap"])
def test_other_backends_are_named_and_refused(backend: str) -> None:
    with pytest.raises(SandboxBackendUnsupportedError, match="backend = "):
        render(plan(Filesystem()), Network(), workload("bubblewrap"), backend)


def test_no_sandbox_can_be_bound_to_an_identity_yet() -> None:
    with pytest.raises(SandboxBackendUnsupportedError) as caught:
        backends.check_identity_binding("processcontainer", "ada@example.org")
    assert "identity_binding" in caught.value.message
    assert "missing" in caught.value.message
    with pytest.raises(SandboxBackendUnsupportedError, match="IsolationSession"):
        backends.check_identity_binding("isolation_session", None)
    backends.check_identity_binding("processcontainer", None)


# --- Windows' command line and paths --------------------------------------------------------------


@given(st.lists(st.text(st.sampled_from('ab\\" \t\n%^&|ä'), min_size=1), min_size=1, max_size=5))
def test_windows_takes_the_command_line_apart_into_what_was_meant(rest: list[str]) -> None:
    own = replace(workload("processcontainer"), command=(r"C:\Python 3\python.exe", *rest))
    request = render(plan(Filesystem((), PathStyle.WINDOWS)), Network(), own, "processcontainer")
    assert split_as_windows(request["process"]["commandLine"]) == list(own.command)  # type: ignore[index]


def test_a_command_line_that_windows_would_cut_is_refused() -> None:
    own = replace(workload("processcontainer"), command=("python.exe", "x" * 33_000))
    with pytest.raises(SandboxPolicyError, match="characters"):
        render(plan(Filesystem((), PathStyle.WINDOWS)), Network(), own, "processcontainer")


UNSPEAKABLE = (
    r"C:\a\..\b",
    r"\\.\pipe\x",
    r"C:\NUL",
    r"C:\a:b",
    "/srv",
    r"C:a",
    r"\\h\C$\x",
    "C:\\a\0",
)


@pytest.mark.parametrize("path", UNSPEAKABLE)
@pytest.mark.parametrize("place", ["readonly", "readwrite", "denied", "cwd", "own"])
def test_what_windows_would_read_otherwise_is_refused(path: str, place: str) -> None:
    mounts, own = MountPlan(Filesystem((), PathStyle.WINDOWS)), workload("processcontainer")
    if place in ("readonly", "readwrite", "denied"):
        mounts = replace(mounts, **{place: (path,)})  # type: ignore[arg-type]
    elif place == "cwd":
        own = replace(own, cwd=path)
    else:
        own = replace(own, readwrite=(path,))
    with pytest.raises(SandboxPolicyError):
        render(mounts, Network(), own, "processcontainer")


# --- the whole of each request --------------------------------------------------------------------


@pytest.mark.parametrize("name", CORPUS)
def test_requests_are_those_that_were_looked_at(name: str) -> None:
    """The files were read by eye; MXC_KERNEL_GOLDEN=write writes them anew, for another look."""
    text = json.dumps(CORPUS[name](), indent=1, ensure_ascii=False) + "\n"
    file = GOLDEN / f"{name}.json"
    if os.environ.get("MXC_KERNEL_GOLDEN") == "write":
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_every_golden_file_is_compared() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CORPUS)


def keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("name", CORPUS)
def test_nothing_that_widens_a_backend_is_ever_asked_for(name: str) -> None:
    request = CORPUS[name]()
    assert not keys(request) & {"profileOverride", "learningMode", "runtimeConfig", "networkProxy"}
    seatbelt = request.get("seatbelt", {})
    assert not any(seatbelt.values())
    assert set(seatbelt) in (
        set(),
        {"nestedPty", "guiAccess", "keychainAccess", "extraMachLookups"},
    )
    assert request.get("processContainer", {}).get("capabilities", []) == []


def test_no_setting_reaches_what_widens_a_backend() -> None:
    """Neither a ceiling file's keys nor a workload's have names for them."""
    from mxc_kernel.policy import ceiling_schema

    schema = json.dumps(ceiling_schema()).lower()
    for word in ("keychain", "nestedpty", "guiaccess", "machlookup", "profileoverride", "identity"):
        assert word not in schema
        assert word not in "".join(Workload.__dataclass_fields__).lower()
    assert "readwrite" in schema  # the control


def test_capabilities_are_complete_and_each_says_where_it_is_known_from() -> None:
    kinds = {backends.RUN, backends.PARSED, backends.SOURCE, backends.DOCUMENTED}
    for able in BACKENDS.values():
        assert set(able.network) == set(NetworkMode)
        others = [(o, i) for o in Access for i in Access if o is not i]
        assert {Nesting(*pair) for pair in others} == set(able.nested)
        single = (able.files, able.limits, able.attestation, able.stdio)
        for support in (*able.network.values(), *able.nested.values(), *single):
            assert support.source in kinds
            assert support.why
        for support in (*able.network.values(), *able.nested.values()):
            assert bool(support.instead) is not support.enforced


def test_the_command_has_every_character_that_is_hard_to_pass_on() -> None:
    assert all(char in COMMAND[-1] for char in "'\"\\\n %$^&")
