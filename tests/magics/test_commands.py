"""What the policy magics do: all of a cell or none, never beyond the ceiling."""

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
from mxc_kernel.policy import (
    Access,
    Ceiling,
    Filesystem,
    HtmlLevel,
    Layer,
    Limits,
    Network,
    NetworkMode,
    Policy,
    Request,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path.resolve()
    for name in ("Documents/old", "Downloads", "Private", "note books"):
        (home / name).mkdir(parents=True)
    (home / "Documents" / "report.csv").write_text("x")
    return home


def a_ceiling(home: Path, **fields: object) -> Ceiling:
    policy = Policy(
        filesystem=Filesystem.of(
            readonly=[str(home / "Documents")],
            readwrite=[str(home / "Downloads"), str(home / "note books")],
        ),
        limits=Limits(cell_timeout=60, memory=2 << 30, processes=64, output=1 << 20),
        html=HtmlLevel.FRAME,
    )
    return replace(Ceiling(policy, layers=(Layer("user", "/etc/a.toml", policy),)), **fields)


def a_context(home: Path, **fields: object) -> magics.MagicContext:
    ceiling = a_ceiling(home)
    context = magics.MagicContext(
        ceiling,
        Request(),
        str(home),
        contract=lambda policy: f'{{"n": {len(policy.filesystem.grants)}}}',
    )
    return replace(context, **fields)


def run(source: str, context: magics.MagicContext) -> magics.Outcome:
    return magics.apply(magics.parse(source), context)


def refusal(source: str, context: magics.MagicContext) -> SandboxPolicyError:
    with pytest.raises(SandboxPolicyError) as caught:
        run(source, context)
    assert caught.value.remedy
    return caught.value


# --- grants -----------------------------------------------------------------------------------


def test_allow_ro_grants_reading(home: Path) -> None:
    outcome = run("%allow_ro Documents", a_context(home))
    files = a_ceiling(home).clamp(outcome.request).filesystem
    assert files.access(str(home / "Documents" / "report.csv")) is Access.READONLY
    assert files.access(str(home / "Downloads")) is Access.NONE
    assert str(home / "Documents") in outcome.views[0].text
    assert "read-only" in outcome.views[0].text


def test_allow_rw_grants_writing_to_several_paths(home: Path) -> None:
    outcome = run(f"%allow_rw Downloads '{home}/note books'", a_context(home))
    files = a_ceiling(home).clamp(outcome.request).filesystem
    assert files.access(str(home / "Downloads" / "new.txt")) is Access.READWRITE
    assert files.access(str(home / "note books")) is Access.READWRITE


def test_grants_add_up_over_cells(home: Path) -> None:
    context = a_context(home)
    context = replace(context, request=run("%allow_ro Documents", context).request)
    request = run("%allow_rw Downloads", context).request
    assert request.filesystem.access(str(home / "Documents")) is Access.READONLY
    assert request.filesystem.access(str(home / "Downloads")) is Access.READWRITE


def test_a_later_magic_that_fails_undoes_the_earlier_ones(home: Path) -> None:
    context = a_context(home)
    refusal("%allow_rw Downloads\n%allow_rw Private", context)
    assert context.request == Request()
    assert run("%allow_rw Downloads", context).request != Request()


def test_beyond_the_ceiling_says_what_was_asked_what_is_held_and_whom_to_ask(home: Path) -> None:
    error = refusal("%allow_rw Documents", a_context(home))
    assert str(home / "Documents") in error.message
    assert "read and write was asked for" in error.message
    assert "holds read-only" in error.message
    assert "[filesystem] readwrite in /etc/a.toml" in error.remedy
    error = refusal("%allow_ro Private", a_context(home))
    assert "holds no access" in error.message
    assert "[filesystem] readonly in /etc/a.toml" in error.remedy


def test_a_grant_that_the_session_holds_does_not_widen_what_may_be_asked(home: Path) -> None:
    held = Request().allow(str(home / "Private"), Access.READWRITE)  # clamped away, never checked
    refusal("%allow_rw Private", a_context(home, request=held))
    assert run("%allow_ro Documents", a_context(home, request=held)).request


def test_without_a_ceiling_the_message_says_how_to_write_one(home: Path) -> None:
    context = a_context(home, ceiling=Ceiling(Policy()))
    assert "mxc-kernel init" in refusal("%allow_ro Documents", context).remedy
    for source in ("%ceiling", "%policy"):
        assert "mxc-kernel init" in run(source, context).views[0].text


def test_where_the_ceiling_takes_no_requests_every_grant_is_refused(home: Path) -> None:
    context = a_context(home, ceiling=a_ceiling(home, requests="none"))
    assert "takes no requests" in refusal("%allow_ro Documents", context).message


def test_a_missing_path_is_refused_with_the_folder_to_grant(home: Path) -> None:
    error = refusal("%allow_rw 'note books/deep/new.txt'", a_context(home))
    assert "does not exist" in error.message
    assert f"%allow_rw '{home}/note books'" in error.remedy
    assert run(error.remedy.split(": ", 1)[1], a_context(home)).request


def test_beyond_the_ceiling_the_refusal_does_not_tell_whether_the_path_exists(home: Path) -> None:
    there = refusal("%allow_ro Private", a_context(home))
    missing = refusal("%allow_ro Privatx", a_context(home))
    assert str(there).replace("Private", "Privatx") == str(missing)


def test_a_symlink_is_judged_by_where_it_leads_and_does_not_tell(home: Path) -> None:
    (home / "Downloads" / "out").symlink_to(home / "Private")
    error = refusal("%allow_rw Downloads/out", a_context(home))
    assert "symbolic link" in error.message
    assert "Private" not in str(error)
    (home / "elsewhere").symlink_to(home / "Private")
    error = refusal("%allow_rw elsewhere", a_context(home))
    assert "Private" not in str(error)
    (home / "in").symlink_to(home / "Downloads")
    request = run("%allow_rw in", a_context(home)).request
    assert request.filesystem.access(str(home / "Downloads")) is Access.READWRITE


def test_dots_cannot_lead_out_of_the_ceiling(home: Path) -> None:
    error = refusal("%allow_rw Downloads/../Private", a_context(home))
    assert f"{home}/Private" in error.message


def test_revoke_takes_back_and_allow_gives_again(home: Path) -> None:
    context = a_context(home)
    context = replace(context, request=run("%allow_rw Downloads", context).request)
    outcome = run("%revoke Downloads", context)
    folder = str(home / "Downloads")
    assert context.ceiling.clamp(outcome.request).filesystem.access(folder) is Access.NONE
    assert "stays in memory" in outcome.views[0].text
    again = run("%allow_rw Downloads", replace(context, request=outcome.request)).request
    assert context.ceiling.clamp(again).filesystem.access(folder) is Access.READWRITE


def test_relative_paths_start_from_the_notebooks_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    request = run("%allow_ro Documents/old", a_context(home)).request
    assert request.filesystem.access(str(home / "Documents" / "old")) is Access.READONLY
    refusal("%allow_ro Documents", a_context(home, notebook_dir=None))


def test_a_tilde_is_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    request = run("%allow_ro ~/Documents", a_context(home, notebook_dir="/")).request
    assert request.filesystem.access(str(home / "Documents")) is Access.READONLY


# --- showing ----------------------------------------------------------------------------------


def test_policy_shows_what_holds_after_the_magics_before_it(home: Path) -> None:
    outcome = run("%policy\n%allow_ro Documents\n%policy", a_context(home))
    assert str(home / "Documents") not in outcome.views[0].text
    assert str(home / "Documents") in outcome.views[2].text


def test_policy_json_is_the_contract_for_the_policy_at_that_point(home: Path) -> None:
    outcome = run("%policy --json\n%allow_ro Documents\n%policy --json", a_context(home))
    assert '{"n": 0}' in outcome.views[0].text
    assert '{"n": 1}' in outcome.views[2].text
    refusal("%policy --json", a_context(home, contract=None))


def test_ceiling_shows_paths_limits_and_files(home: Path) -> None:
    text = run("%ceiling", a_context(home)).views[0].text
    for part in (str(home / "Documents"), "read-only", "closed", "2GiB", "64", "/etc/a.toml"):
        assert part in text


def test_ceiling_narrows_until_the_kernel_restarts(home: Path) -> None:
    context = a_context(home)
    outcome = run(
        "%ceiling --readonly Downloads --deny Documents --network closed --html text "
        "--timeout 10s --memory 1GiB --processes 8 --output 1KiB",
        context,
    )
    most = context.ceiling.policy.meet(outcome.request.narrowed)
    assert most.filesystem.access(str(home / "Downloads")) is Access.READONLY
    assert most.filesystem.access(str(home / "Documents")) is Access.NONE
    assert most.filesystem.access(str(home / "note books")) is Access.READWRITE
    assert most.network == Network(NetworkMode.CLOSED)
    assert most.html is HtmlLevel.TEXT
    assert most.limits == Limits(10, 1 << 30, 8, output=1024)
    narrowed = replace(context, request=outcome.request)
    assert "given up" in refusal("%allow_rw Downloads", narrowed).message
    assert "10s" in refusal("%timeout 20s", narrowed).message
    assert run("%allow_ro Downloads", narrowed).request
    wider = run("%ceiling --html frame --memory 2GiB", narrowed).request
    assert wider.narrowed == outcome.request.narrowed


def test_denials_lists_what_was_reported(home: Path) -> None:
    report = {"kind": "filesystem", "errno": "ENOENT", "operation": "read"}
    evidence = ({"denials": [{**report, "path": f"{home}/Documents/report.csv"}]},)
    text = run("%denials", a_context(home, denials=evidence)).views[0].text
    assert f"%allow_ro {home}/Documents/report.csv" in text
    missing = ({"denials": [{**report, "path": f"{home}/Documents/missing.csv"}]},)
    text = run("%denials", a_context(home, denials=missing)).views[0].text
    assert "%allow_ro" not in text


def test_denials_does_not_tell_where_a_link_made_in_the_sandbox_leads(home: Path) -> None:
    (home / "Downloads" / "out").symlink_to(home / "Private")
    (home / "Private" / "there").write_text("x")
    texts = []
    for name in ("there", "absent"):
        report = {"kind": "filesystem", "errno": "ENOENT", "path": f"{home}/Downloads/out/{name}"}
        context = a_context(home, denials=({"denials": [report]},))
        texts.append(run("%denials", context).views[0].text.replace(name, "?"))
    assert texts[0] == texts[1]


# --- limits -----------------------------------------------------------------------------------


def test_timeout_and_limits_lower_what_is_in_force(home: Path) -> None:
    context = a_context(home)
    outcome = run("%timeout 30s\n%limits --memory 1GiB --processes 8 --output 64KiB", context)
    assert context.ceiling.clamp(outcome.request).limits == Limits(30, 1 << 30, 8, output=64 << 10)
    for part in ("30s", "1GiB", "8", "64KiB"):
        assert part in outcome.views[1].text
    assert run("%timeout", context).request == context.request
    assert run("%limits", context).request == context.request


@pytest.mark.parametrize(
    ("option", "field", "value", "more"),
    [
        ("--cpu 9s", "cpu_time", 9.0, "--cpu 10s"),
        ("--open-files 9", "open_files", 9, "--open-files 10"),
        ("--file-size 9KiB", "file_size", 9 << 10, "--file-size 10KiB"),
        ("--scratch 9KiB", "scratch_space", 9 << 10, "--scratch 10KiB"),
        ("--scratch-files 9", "scratch_files", 9, "--scratch-files 10"),
        ("--added 9KiB", "grant_space", 9 << 10, "--added 10KiB"),
        ("--added-files 9", "grant_files", 9, "--added-files 10"),
    ],
)
def test_each_limit_can_be_lowered_and_not_raised(
    home: Path, option: str, field: str, value: float, more: str
) -> None:
    context = a_context(home)
    outcome = run(f"%limits {option}", context)
    assert getattr(context.ceiling.clamp(outcome.request).limits, field) == value
    assert option.split()[1] in outcome.views[0].text
    policy = replace(context.ceiling.policy, limits=Limits(**{field: value}))
    held = replace(context, ceiling=Ceiling(policy))
    assert f"{field}: " in refusal(f"%limits {more}", held).message


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("%timeout 2m", "ceiling holds 1m"),
        ("%timeout off", "off was asked for, the ceiling holds 1m"),
        ("%limits --memory 3GiB", "ceiling holds 2GiB"),
        ("%limits --processes 65", "ceiling holds 64"),
        ("%limits --output 2MiB", "ceiling holds 1MiB"),
    ],
)
def test_limits_beyond_the_ceiling_are_refused(home: Path, source: str, says: str) -> None:
    assert says in refusal(source, a_context(home)).message


def test_no_limit_may_be_asked_for_where_the_ceiling_has_none(home: Path) -> None:
    ceiling = Ceiling(replace(a_ceiling(home).policy, limits=Limits()))
    context = a_context(home, ceiling=ceiling, request=Request().with_limits(cell_timeout=5))
    assert run("%timeout off", context).request.limits.cell_timeout is None


# --- usage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "%allow_rw",
        "%allow_ro --read x",
        "%policy --jso",
        "%policy x",
        "%policy --json=1",
        "%ceiling --html all",
        "%ceiling --memory",
        "%timeout 1s 2s",
        "%limits --processes x",
        "%limits --processes 0",
        "%denials -h",
        "%revoke",
        "%policy --help",
        "%policy requst --ro x",
        "%policy request",
        "%policy request --json --ro x",
        "%policy --ro x",
        "%sandbox restrat",
        "%sandbox --strict",
        "%checkpoint now",
        "%restore --strict",
    ],
)
def test_usage_errors_name_the_line_and_the_usage(
    home: Path, source: str, capfd: pytest.CaptureFixture[str]
) -> None:
    error = refusal(f"# c\n{source}", a_context(home))
    name = source[1:].split()[0]
    assert f"line 2, %{name}: " in error.message
    assert f"Usage: {MAGICS[name].usage()}" == error.remedy
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("source", ["%timeout soon", "%timeout 0s", "%limits --memory 1GB"])
def test_amounts_are_checked(home: Path, source: str) -> None:
    refusal(source, a_context(home))


def test_a_path_that_looks_like_an_option_is_given_after_two_dashes(home: Path) -> None:
    (home / "Downloads" / "-x").mkdir()
    context = a_context(home, notebook_dir=str(home / "Downloads"))
    refusal("%allow_rw -x", context)
    assert run("%allow_rw -- -x", context).request.filesystem


@pytest.mark.parametrize(
    "source",
    [
        "%%allow_rw",
        "%%sandbox x",
        "%%sandbox restart",
        "%%sandbox --in 1x",
        "%%sandbox --in ,",
        "%%sandbox --out a,class",
        "%%sandbox --out __builtins__",
        "%%sandbox --objects",
        "%%sandbox --processes 3",
    ],
)
def test_usage_errors_of_cell_magics(home: Path, source: str) -> None:
    error = refusal(f"{source}\npass", a_context(home))
    name = source[2:].split()[0]
    assert error.message.startswith(f"line 1, %%{name}: ")
    assert f"Usage: {MAGICS[name].usage(cell=True)}" == error.remedy


def test_an_option_of_the_other_form_is_answered_with_that_forms_usage(home: Path) -> None:
    for source, name in [("%sandbox --ro Documents", "%%sandbox"), ("%%sandbox --strict", "%sand")]:
        error = refusal(source, a_context(home))
        assert "there is no option" in error.message
        assert error.remedy.startswith(f"Usage: {name}")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("%ceiling --html saf", "expected text, safe or frame, not 'saf'"),
        ("%policy --jso", "did you mean --json?"),
        ("%allow_rw --stict x", "did you mean --strict?"),
        ("%sandbox restat", "did you mean restart?"),
        ("%ceiling --html saf", "did you mean safe?"),
        ("%%sandbox --read x", "there is no option --read"),
    ],
)
def test_a_typo_in_an_option_is_answered_with_a_suggestion(
    home: Path, source: str, says: str
) -> None:
    assert says in refusal(source, a_context(home)).message


def test_describe_gives_each_magic_its_kind_and_usage() -> None:
    described = {item["name"]: item for item in magics.describe()}
    assert described.keys() == MAGICS.keys()
    cells = {"allow_ro", "allow_rw", "sandbox"}
    for name, item in described.items():
        assert item["kind"] == ("line_cell" if name in cells else "line")
        assert item["doc"].startswith(f"%{name}")
        assert (f"\n%%{name}" in item["doc"]) is (name in cells)


# --- any sequence -----------------------------------------------------------------------------

_WORDS = st.sampled_from(
    [
        *("Documents", "Documents/old", "Downloads", "Downloads/..", "Private", ".", "/", "~"),
        *("/etc", "''", "'a b'", "link", "--ro", "--rw", "--strict", "--in", "--out", "--objects"),
        *("a,b", "__x", "request", "restart", "--json", "--", "-x", "10s", "off", "1h", "1GiB"),
        *("--readonly", "--deny", "--memory", "8", "--html", "text", "--timeout", "--output"),
        *("--processes", "--network", "closed", "5GiB"),
    ]
)
_CALLS = st.builds(
    lambda name, words: " ".join([f"%{name}", *words]),
    st.sampled_from(sorted(MAGICS)),
    st.lists(_WORDS, max_size=4),
)
_CELLS = st.one_of(
    st.lists(_CALLS, min_size=1, max_size=3).map("\n".join),
    st.builds("%{}\npass".format, _CALLS),
)


@given(st.lists(_CELLS, max_size=6), st.sampled_from(["magics", "none"]))
@settings(max_examples=300, deadline=None)
def test_any_sequence_of_magics_stays_within_the_ceiling(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str], requests: str
) -> None:
    home = tmp_path_factory.getbasetemp().resolve() / "sequence"
    for name in ("Documents/old", "Downloads", "Private"):
        os.makedirs(home / name, exist_ok=True)
    if not (home / "link").is_symlink():
        (home / "link").symlink_to(home / "Private")
    start = Request().allow(str(home / "Documents"), Access.READONLY)
    context = a_context(home, ceiling=a_ceiling(home, requests=requests, start=start))
    for cell in cells:
        try:
            outcome = run(cell, context)
        except SandboxPolicyError:
            continue
        own = outcome.throwaway.request if outcome.throwaway else outcome.request
        for request in (outcome.request, outcome.this_cell or outcome.request, own):
            assert request.narrowed <= context.request.narrowed
            effective = context.ceiling.clamp(request)
            assert effective <= context.ceiling.policy
            assert effective <= request.narrowed
            assert effective.filesystem.access(str(home / "Private")) is Access.NONE
            if requests == "none":
                assert effective.filesystem <= start.filesystem
        context = replace(context, request=outcome.request)
