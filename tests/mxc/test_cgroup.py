"""Control groups: where they are made, what they limit, and that none is left behind.

What depends on the machine is tested on made-up hierarchies as well, which stand in for the
kernel's files but enforce nothing; the effects are tested wherever a real group can be made.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mxc_kernel.mxc import cgroup, delegation
from mxc_kernel.mxc.delegation import Refusal, place_for

MIB = 1 << 20
FILES = {
    "pids": {"pids.max": "max", "pids.current": "3", "pids.events": "max 0"},
    "memory-1": {
        "memory.limit_in_bytes": "-1",
        "memory.memsw.limit_in_bytes": "-1",
        "memory.usage_in_bytes": str(50 * MIB),
        "memory.max_usage_in_bytes": str(60 * MIB),
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0",
    },
    "memory-2": {
        "memory.max": "max",
        "memory.swap.max": "max",
        "memory.current": str(50 * MIB),
        "memory.peak": str(60 * MIB),
        "memory.events": "low 0\noom 0\noom_kill 0",
    },
}


class Tree:
    """A made-up hierarchy: a new folder in it gets the kernel's files, and goes with them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.kinds: dict[str, tuple[str, ...]] = {}
        self._monkeypatch = monkeypatch
        mkdir, rmdir = os.mkdir, os.rmdir

        def make(path: str, *rest: int) -> None:
            mkdir(path, *rest)
            for mount, kinds in self.kinds.items():
                if str(path).startswith(mount):
                    self.fill(Path(path), kinds)

        def remove(path: str) -> None:
            if any(str(path).startswith(mount) for mount in self.kinds):
                shutil.rmtree(path)
            else:
                rmdir(path)

        monkeypatch.setattr(os, "mkdir", make)
        monkeypatch.setattr(cgroup, "os", _OsWith(remove))  # rmtree needs the real one

    def fill(self, folder: Path, kinds: tuple[str, ...]) -> None:
        (folder / "cgroup.procs").write_text("")
        for kind in kinds:
            for name, text in FILES[kind].items():
                (folder / name).write_text(text)

    def describe(self, cgroups: str, mounts: str) -> None:
        (self.root / "cgroup").write_text(cgroups)
        (self.root / "mountinfo").write_text(mounts)
        self._monkeypatch.setattr(delegation, "_CGROUP", str(self.root / "cgroup"))
        self._monkeypatch.setattr(delegation, "_MOUNTS", str(self.root / "mountinfo"))

    def v1(self, own: str = "/") -> None:
        mounts = ""
        for controller, kind in (("memory", "memory-1"), ("pids", "pids")):
            (self.root / controller).mkdir()
            self.kinds[str(self.root / controller)] = (kind,)
            mounts += (
                f"30 25 0:2{len(mounts)} / {self.root / controller} rw,relatime"
                f" shared:7 - cgroup cgroup rw,{controller}\n"
            )
        self.describe(f"8:pids:/\n4:memory:{own}\n0::/\n", mounts)

    def v2(self, own: str, controllers: str = "cpu memory pids") -> Path:
        """Make a unified hierarchy with our own group in it; return that group's folder."""
        mount = self.root / "unified"
        folder = mount / own.strip("/")
        folder.mkdir(parents=True)
        (folder / "cgroup.controllers").write_text(controllers)
        (folder / "cgroup.subtree_control").write_text("memory pids")
        self.fill(folder, ())
        self.kinds[str(mount)] = ("memory-2", "pids")
        self.describe(f"0::{own}\n", f"30 25 0:26 / {mount} rw - cgroup2 cgroup2 rw,nsdelegate\n")
        return folder


class _OsWith:
    """The module `os` with another way to remove a folder."""

    def __init__(self, remove: Callable[[str], None]) -> None:
        self.rmdir = remove

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    return Tree(tmp_path, monkeypatch)


@pytest.fixture
def real() -> Iterator[cgroup.Group]:
    """A group on this machine, at most 30 processes."""
    group = cgroup.create(None, 30)
    yield group
    group.close()


def _groups(folder: Path) -> list[Path]:
    return sorted(folder.glob("mxc-kernel-*"))


def test_v1_limits_memory_with_swap_and_processes(tree: Tree) -> None:
    tree.v1()
    group = cgroup.create(100 * MIB, 40)
    [memory], [pids] = _groups(tree.root / "memory"), _groups(tree.root / "pids")
    assert (memory / "memory.limit_in_bytes").read_text()[:9] == str(100 * MIB)
    assert (memory / "memory.memsw.limit_in_bytes").read_text()[:9] == str(100 * MIB)
    assert (pids / "pids.max").read_text()[:2] == "40"
    assert group.refusals == {}
    assert group.how("memory") == group.how("processes") == "Linux: a control group (v1)"
    assert group.memory_peak() == 60 * MIB
    group.close()
    assert not _groups(tree.root / "memory")
    assert not _groups(tree.root / "pids")


def test_a_group_of_whatever_started_us_is_left_alone(tree: Tree) -> None:
    tree.v1(own="/somebody/else")
    (tree.root / "memory/somebody/else").mkdir(parents=True)
    group = cgroup.create(100 * MIB, 40)
    assert "/somebody/else belongs to what started this kernel" in group.how("memory")
    assert not list((tree.root / "memory").rglob("mxc-kernel-*"))
    assert group.how("processes") == "Linux: a control group (v1)"  # decided by itself
    group.close()


def test_v2_in_a_delegated_subtree(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree.v2("/user.slice/jupyter.scope")
    monkeypatch.setattr(delegation, "_delegated", lambda path: path == str(folder))
    group = cgroup.create(100 * MIB, 40)
    [made] = _groups(folder)
    assert (made / "memory.max").read_text()[:9] == str(100 * MIB)
    assert (made / "memory.swap.max").read_text()[:1] == "0"
    assert (made / "pids.max").read_text()[:2] == "40"
    assert group.paths == (str(made),)
    group.close()
    assert not _groups(folder)


def test_v2_moves_the_hosts_into_a_leaf_before_it_gives_controllers(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree.v2("/jupyter.scope")
    monkeypatch.setattr(delegation, "_delegated", lambda path: path == str(folder))
    (folder / "cgroup.subtree_control").write_text("")
    (folder / "cgroup.procs").write_text("4711\n")
    assert place_for("pids").folder == str(folder)
    assert (folder / "mxc-kernel-hosts/cgroup.procs").read_text() == "4711"
    assert (folder / "cgroup.subtree_control").read_text() == "+pids"
    # The next host starts in the leaf, and finds the same subtree.
    (tree.root / "cgroup").write_text("0::/jupyter.scope/mxc-kernel-hosts\n")
    assert place_for("pids").folder == str(folder)


@pytest.mark.parametrize(
    ("own", "controllers", "why"),
    [
        ("/user.slice/session-1.scope", "memory pids", "was not delegated"),
        ("/", "cpu", "was not passed on"),
    ],
)
def test_v2_elsewhere_says_why_not(tree: Tree, own: str, controllers: str, why: str) -> None:
    folder = tree.v2(own, controllers)
    group = cgroup.create(100 * MIB, 40)
    assert why in group.how("memory")
    assert why in group.how("processes")
    assert group.paths == ()
    assert not _groups(folder)
    group.close()


def test_no_control_groups_at_all_are_said(tree: Tree) -> None:
    tree.describe("", "")
    with pytest.raises(Refusal, match="no memory control groups"):
        place_for("memory")


def test_limits_change_in_place_unless_more_is_in_use(tree: Tree) -> None:
    tree.v1()
    group = cgroup.create(100 * MIB, 40)
    assert group.fits(80 * MIB, 40)
    assert group.set(80 * MIB, 20)
    [memory] = _groups(tree.root / "memory")
    assert (memory / "memory.limit_in_bytes").read_text().startswith(str(80 * MIB))
    assert not group.fits(40 * MIB, 20)  # 50 MiB are in use
    assert not group.fits(80 * MIB, 2)  # and three processes
    group.close()


def test_what_was_hit_is_known_after_the_end(tree: Tree) -> None:
    tree.v1()
    group = cgroup.create(512 * MIB, 40)
    assert group.memory_hit() == ""
    assert group.processes_hit() == ""
    [memory], [pids] = _groups(tree.root / "memory"), _groups(tree.root / "pids")
    (memory / "memory.oom_control").write_text("under_oom 0\noom_kill 2\n")
    (pids / "pids.events").write_text("max 7\n")
    group.close()
    assert group.events() == cgroup.Events(memory=2, processes=7)
    assert group.memory_hit() == "it passed its memory limit of 512MiB"
    assert group.processes_hit() == "it reached its limit of 40 processes and threads"


def test_groups_of_hosts_that_are_gone_are_removed(tree: Tree) -> None:
    tree.v1()
    mine = cgroup.create(None, 40)
    [live] = _groups(tree.root / "pids")
    prefix, pid, started, _ = live.name.rsplit("-", 3)
    gone = live.with_name(f"{prefix}-{pid}-{int(started) - 1}-0")  # our pid, used before
    strange = live.with_name(f"mxc-kernel-1-{pid}-{int(started) - 1}-0")  # another pid namespace
    gone.mkdir()
    strange.mkdir()
    other = cgroup.create(None, 40)
    assert live.exists()
    assert strange.exists()
    assert not gone.exists()
    mine.close()
    other.close()


def test_a_real_group_refuses_processes_over_its_limit(real: cgroup.Group) -> None:
    if "processes" in real.refusals:
        assert real.how("processes").startswith("not enforced here: ")
        return
    assert _forked(real, 20) == (20, cgroup.Events())
    made, events = _forked(real, 60)
    assert made < 30
    assert events.processes > 0


def test_a_closed_group_takes_what_was_left_in_it_along(real: cgroup.Group) -> None:
    with real.doors() as doors:
        sleeper = subprocess.Popen(
            ["sleep", "600"], preexec_fn=lambda: [os.write(door, b"0") for door in doors]
        )
    paths = real.paths
    inside = bool(paths)
    real.close()
    assert not any(os.path.exists(path) for path in paths)
    if not inside:
        sleeper.kill()
    assert sleeper.wait(10) == -9


FORKS = """
import os, signal, sys
made = []
try:
    for _ in range(int(sys.argv[1])):
        pid = os.fork()
        if not pid:
            signal.pause()
        made.append(pid)
except BlockingIOError:
    pass
finally:
    for pid in made:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
print(len(made))
"""


def _forked(group: cgroup.Group, wanted: int) -> tuple[int, cgroup.Events]:
    """How many of so many processes could be made, as another user where we are root."""
    other = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    python = "/usr/bin/python3" if other else sys.executable
    with contextlib.ExitStack() as stack:
        doors = stack.enter_context(group.doors())
        done = subprocess.run(
            [python, "-I", "-c", FORKS, str(wanted)],
            preexec_fn=lambda: [os.write(door, b"0") for door in doors],
            stdout=subprocess.PIPE,
            check=True,
            cwd="/",
            **other,
        )
    return int(done.stdout), group.events()
