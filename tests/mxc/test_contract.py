"""What the executable is told: no more than the policy, in words that it accepts."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxc_kernel.errors import (
    SandboxBackendUnsupportedError,
    SandboxPolicyError,
    SandboxUnavailableError,
)
from mxc_kernel.mxc import cgroup, contract, launcher
from mxc_kernel.mxc.contract import Workload, render
from mxc_kernel.policy import (
    Access,
    Exceeded,
    Filesystem,
    Limits,
    MountPlan,
    Network,
    NetworkMode,
    Policy,
    plan_mounts,
)
from mxc_kernel.session import Session

WORKLOAD = Workload(
    "test", ("python3", "-c", 'print("it\'s")'), "/tmp", {"LANG": "C.UTF-8"}, ("/usr",)
)
Request = dict[str, Any]


def read_back(request: Request) -> Filesystem:
    """What the executable makes of a request: the deepest path wins, the lesser on the same."""
    files = request["filesystem"]
    return Filesystem.of(
        readonly=files["readonlyPaths"],
        readwrite=files["readwritePaths"],
        denied=files["deniedPaths"],
    )


# --- nothing more than was granted ---------------------------------------------------------------

TREE = (
    *(
        "a",
        "a/b",
        "a/b/c",
        "a/b/.git/hooks",
        "a/.venv",
        "a b",
        "ä",
        "base",
        "base/lib",
        "base/ours",
    ),
    *("a/missing", "gone", "a/b/link"),  # not there, or a symlink
)


@pytest.fixture(scope="module")
def tree() -> Iterator[str]:
    """A few folders with names that are protected where they can be written."""
    root = os.path.realpath(tempfile.mkdtemp(prefix="mxc-kernel-test-", dir="/var/tmp"))
    for name in TREE[:-3]:
        os.makedirs(os.path.join(root, name), exist_ok=True)
    os.symlink("c", os.path.join(root, "a/b/link"))
    yield root
    shutil.rmtree(root)


GRANTS = st.lists(st.tuples(st.sampled_from(("", *TREE)), st.sampled_from(Access)), max_size=8)
NAMES = st.lists(st.sampled_from(("a", "a/b", "base", "base/lib")), unique=True, max_size=2)


@settings(deadline=None)
@given(GRANTS, NAMES)
def test_a_request_grants_no_more_than_the_plan_and_the_baseline(
    tree: str, grants: list[tuple[str, Access]], baseline: list[str]
) -> None:
    files = Filesystem(tuple((os.path.join(tree, name), access) for name, access in grants))
    plan = plan_mounts(files)
    own = tuple(os.path.join(tree, name) for name in baseline)
    hidden = os.path.join(tree, "base/ours")
    request = render(plan, Network(), replace(WORKLOAD, readonly=own, hidden=(hidden,)))
    told = read_back(request)
    assert told <= plan.filesystem.join(Filesystem.of(readonly=own))
    assert told.access(hidden) is Access.NONE
    for path in plan.denied:
        # Closed, unless the workload declares it or something inside.
        assert told.access(path) is Access.NONE
    if not own:
        assert told == plan.filesystem.revoke(hidden)  # and no less either


def test_the_reading_back_would_notice_a_wider_request(tree: str) -> None:
    plan = plan_mounts(Filesystem.of(readonly=[f"{tree}/a"]))
    for wider in (
        replace(plan, readwrite=(f"{tree}/a/b",)),
        replace(plan, readonly=(tree,)),
        replace(plan, readonly=(f"{tree}/a", f"{tree}/ä")),
    ):
        assert not read_back(render(wider, Network(), WORKLOAD)) <= plan.filesystem.join(
            Filesystem.of(readonly=WORKLOAD.readonly)
        )


# --- in words that the executable accepts --------------------------------------------------------


ODD_NAMES = ("it's", "two\nlines", "ünï ☃", "a b", "$HOME", "~", "*", "\\", "-rf", "a" * 200)


def odd_plan(tree: str) -> MountPlan:
    paths = tuple(f"{tree}/{name}" for name in ODD_NAMES)
    return MountPlan(Filesystem.of(readwrite=paths), readwrite=paths)


ODD_ENVIRONMENT = {"A": "=", "B": "two\nlines", "C": "☃ \"'$HOME", "D": ""}
SAMPLES: dict[str, Callable[[str], Request]] = {
    "nothing granted": lambda _: render(MountPlan(Filesystem()), Network(), WORKLOAD),
    "each level": lambda tree: render(
        plan_mounts(
            Filesystem.of(
                readonly=[f"{tree}/base"], readwrite=[f"{tree}/a"], denied=[f"{tree}/a/b/c"]
            )
        ),
        Network(),
        replace(WORKLOAD, readonly=(f"{tree}/base",), hidden=(f"{tree}/base/ours",)),
    ),
    "odd names": lambda tree: render(odd_plan(tree), Network(), WORKLOAD),
    "odd values": lambda _: render(
        MountPlan(Filesystem()), Network(), replace(WORKLOAD, environment=ODD_ENVIRONMENT)
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_executable_accepts_what_is_rendered(
    name: str, tree: str, judged: Callable[[Request], str]
) -> None:
    request = SAMPLES[name](tree)
    assert "validation passed" in judged(request)
    # The control: it reads every part.
    for part in (request, request["process"], request["filesystem"], request["network"]):
        part["unheardOf"] = True
        assert "Configuration parse error" in judged(request)
        del part["unheardOf"]


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_passed_on_exactly(name: str) -> None:
    path = f"/srv/{name}/x"
    plan = MountPlan(Filesystem.of(readwrite=[path]), readwrite=(path,))
    coded = json.dumps(render(plan, Network(), WORKLOAD)).encode()
    assert json.loads(coded)["filesystem"]["readwritePaths"] == [path]


UNSPEAKABLE = ('/a"b', "/a\0b", "/a/../b", "/..", "relative", "", "~/x", "/a\udcffb")


@pytest.mark.parametrize("path", UNSPEAKABLE)
@pytest.mark.parametrize("place", ["readonly", "readwrite", "denied", "own", "hidden", "cwd"])
def test_what_the_executable_would_misread_is_refused(path: str, place: str) -> None:
    plan, workload = MountPlan(Filesystem()), WORKLOAD
    if place in ("readonly", "readwrite", "denied"):
        plan = replace(plan, **{place: (path,)})
    elif place == "cwd":
        workload = replace(workload, cwd=path)
    else:
        workload = replace(workload, **{"readonly" if place == "own" else place: (path,)})
    with pytest.raises(SandboxPolicyError) as caught:
        render(plan, Network(), workload)
    assert repr(path) in caught.value.message


@pytest.mark.parametrize("value", ["a\0b", "a\udcffb"])
def test_a_variable_that_cannot_be_passed_on_is_named(value: str) -> None:
    with pytest.raises(SandboxPolicyError, match="LC_ALL"):
        render(MountPlan(Filesystem()), Network(), replace(WORKLOAD, environment={"LC_ALL": value}))


# --- every field of a policy has an effect -------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    """What a launch under a ceiling comes to.

    Attributes:
        effective: the policy in force.
        request: what the executable is told; the error where it would be told nothing.
        group: the limits given to the control group.
    """

    effective: Policy
    request: Request | SandboxBackendUnsupportedError
    group: tuple[int | None, int | None] | None

    def told(self) -> Request:
        assert isinstance(self.request, dict)
        return self.request


Launched = Callable[[str], Launch]


@pytest.fixture
def launched(sandbox_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Launched:
    """Prepare a launch under a ceiling file's text, all but the launch itself."""
    (sandbox_folder / "data" / "closed").mkdir(parents=True)
    (sandbox_folder / "data").chmod(0o777)
    groups = mock.Mock()
    monkeypatch.setattr(cgroup, "create", groups)
    failing = mock.Mock(side_effect=SandboxUnavailableError("not today", remedy="None."))
    monkeypatch.setattr(launcher, "launch", failing)

    def launch(text: str) -> Launch:
        groups.reset_mock()
        file = sandbox_folder / "ceiling.toml"
        file.write_text(text.replace("DATA", str(sandbox_folder / "data")))
        file.chmod(0o644)
        environ = {"MXC_KERNEL_CEILING": str(file), "HOME": "/nowhere", "OF_MINE": "1"}
        session = Session(notebook_dir=str(sandbox_folder), environ=os.environ | environ)
        try:
            session.start()
            context = session.magic_context()
            assert context.contract is not None
            request: Request | SandboxBackendUnsupportedError
            try:
                request = json.loads(context.contract(session.effective))
            except SandboxBackendUnsupportedError as error:
                request = error
            call = groups.call_args
            return Launch(session.effective, request, call.args if call else None)
        finally:
            session.close()

    return launch


def data_access(launch: Launch) -> list[str]:
    told = launch.told()["filesystem"]
    return [
        f"{level} {Path(path).name}"
        for level in ("readonlyPaths", "readwritePaths", "deniedPaths")
        for path in told[level]
        if "mxc-kernel-test-" in path
    ]


def network(launch: Launch) -> object:
    if isinstance(launch.request, SandboxBackendUnsupportedError):
        return launch.request.message.partition('"')[2].partition('"')[0], launch.group
    return launch.request["network"]


def passed(launch: Launch) -> bool:
    return "OF_MINE=1" in launch.told()["process"]["env"]


RO = '[filesystem]\nreadonly=["DATA"]\n[start]\nreadonly=["DATA"]\n'
RW = '[filesystem]\nreadwrite=["DATA"]\n[start]\nreadwrite=["DATA"]\n'
HOLED = RW.replace("]\n[start]", ']\ndenied=["DATA/closed"]\n[start]')
CLOSED = {
    "egress": {"default": "deny"},
    "ingress": {"default": "deny", "hostLoopback": "deny"},
}

# Field, what the ceiling says of it, where it is looked at, and what is seen there. Where the host
# enforces a field while cells run, what is seen is what it goes by, and EFFECTS names the test.
FLIPS: list[tuple[str, str, Callable[[Launch], object], object]] = [
    ("filesystem", "", data_access, []),
    ("filesystem", RO, data_access, ["readonlyPaths data"]),
    ("filesystem", RW, data_access, ["readwritePaths data"]),
    ("filesystem", HOLED, data_access, ["readwritePaths data", "deniedPaths closed"]),
    ("network", "", network, CLOSED),
    ("network", '[network]\nmode="closed"', network, CLOSED),
    ("network", '[network]\nmode="hosts"\nhosts=["example.org"]', network, ("hosts", None)),
    ("network", '[network]\nmode="open"', network, ("open", None)),
    ("environment", "", passed, False),
    ("environment", '[environment]\nnames=["OF_MINE"]', passed, True),
    ("limits.memory", '[limits]\nmemory="1GiB"', lambda it: it.group and it.group[0], 1 << 30),
    ("limits.memory", '[limits]\nmemory="off"', lambda it: it.group and it.group[0], None),
    ("limits.processes", "[limits]\nprocesses=99", lambda it: it.group and it.group[1], 99),
    ("limits.processes", '[limits]\nprocesses="off"', lambda it: it.group and it.group[1], None),
    ("limits.cell_timeout", "", lambda it: it.effective.limits.cell_timeout, None),
    ("limits.cell_timeout", '[limits]\ncell_timeout="9s"', lambda it: it.effective.limits.cell_timeout, 9),  # noqa: E501
    ("limits.output", "", lambda it: it.effective.limits.output, 1 << 20),
    ("limits.output", '[limits]\noutput="9KiB"', lambda it: it.effective.limits.output, 9 << 10),
    *(
        (f"limits.{name}", text, lambda it, name=name: getattr(it.effective.limits, name), seen)
        for name, text, seen in (
            ("rich_output", "", 256 << 20),
            ("rich_output", '[limits]\nrich_output="9KiB"', 9 << 10),
            ("single_output", "", 64 << 20),
            ("single_output", '[limits]\nsingle_output="9KiB"', 9 << 10),
            ("session_output", "", 10 << 30),
            ("session_output", '[limits]\nsession_output="9KiB"', 9 << 10),
            ("outputs", "", 10_000),
            ("outputs", "[limits]\noutputs=9", 9),
            ("output_rate", "", 200),
            ("output_rate", "[limits]\noutput_rate=9", 9),
            ("cpu_time", "", None),
            ("cpu_time", '[limits]\ncpu_time="9s"', 9),
            ("open_files", "", 4096),
            ("open_files", "[limits]\nopen_files=99", 99),
            ("file_size", "", None),
            ("file_size", '[limits]\nfile_size="9KiB"', 9 << 10),
            ("scratch_space", "", 2 << 30),
            ("scratch_space", '[limits]\nscratch_space="9KiB"', 9 << 10),
            ("scratch_files", "", 200_000),
            ("scratch_files", "[limits]\nscratch_files=9", 9),
            ("grant_space", "", 16 << 30),
            ("grant_space", '[limits]\ngrant_space="9KiB"', 9 << 10),
            ("grant_files", "", 1_000_000),
            ("grant_files", "[limits]\ngrant_files=9", 9),
            ("output_exceeded", "", Exceeded.CONTINUE),
            ("output_exceeded", '[limits]\noutput_exceeded="stop"', Exceeded.STOP),
        )
    ),
    ("html", "", lambda it: it.effective.html.name, "SAFE"),
    ("html", '[output]\nhtml="trusted"', lambda it: it.effective.html.name, "TRUSTED"),
]  # fmt: skip
TESTS = Path(__file__).parent.parent
EFFECTS = {
    "limits.cell_timeout": (
        "kernel/test_endings.py",
        "test_a_timeout_interrupts_and_says_that_the_state_is_kept",
    ),
    "limits.output": (
        "kernel/test_output.py",
        "test_output_beyond_the_cap_is_cut_once_with_the_true_total",
    ),
    "limits.rich_output": (
        "kernel/test_output.py",
        "test_pictures_over_the_cap_are_refused_and_counted",
    ),
    "limits.outputs": (
        "kernel/test_output.py",
        "test_pictures_over_the_cap_are_refused_and_counted",
    ),
    "limits.single_output": (
        "jupyter/test_gate.py",
        "test_pictures_over_the_limits_are_refused_and_said_once",
    ),
    "limits.session_output": (
        "jupyter/test_gate.py",
        "test_the_session_has_a_limit_of_its_own",
    ),
    "limits.output_rate": (
        "kernel/test_output.py",
        "test_a_chatty_cell_is_paced_and_ends_with_its_last_state",
    ),
    "limits.output_exceeded": (
        "kernel/test_output.py",
        "test_a_cell_over_its_cap_is_stopped_where_the_ceiling_says_so",
    ),
    "html": ("kernel/test_output.py", "test_an_operator_can_trust_output_or_allow_text_alone"),
}


@pytest.mark.parametrize(
    ("text", "look", "seen"),
    [flip[1:] for flip in FLIPS],
    ids=[f"{flip[0]}-{number}" for number, flip in enumerate(FLIPS)],
)
def test_a_field_of_the_policy_decides_what_is_told_and_enforced(
    launched: Launched, text: str, look: Callable[[Launch], object], seen: object
) -> None:
    assert look(launched(text)) == seen


@pytest.mark.parametrize(
    "name",
    sorted(
        {item.name for item in fields(Policy) if item.name != "limits"}
        | {f"limits.{item.name}" for item in fields(Limits)}
    ),
)
def test_no_field_of_the_policy_is_without_a_flip(name: str) -> None:
    seen = [repr(flip[3]) for flip in FLIPS if flip[0] == name]
    assert len(set(seen)) > 1, f"nothing shows that {name} has an effect"
    if name in EFFECTS:
        file, test = EFFECTS[name]
        assert f"def {test}(" in (TESTS / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", [NetworkMode.HOSTS, NetworkMode.OPEN])
def test_a_network_that_cannot_be_limited_is_refused(mode: NetworkMode) -> None:
    network = Network(mode, frozenset({"example.org"}))
    with pytest.raises(SandboxBackendUnsupportedError, match=mode.name.lower()):
        render(MountPlan(Filesystem()), network, WORKLOAD)
    assert render(MountPlan(Filesystem()), Network(), WORKLOAD)["network"] == CLOSED


def test_the_version_is_the_one_that_was_measured() -> None:
    assert contract.CONTRACT_VERSION == "1.0.0"
