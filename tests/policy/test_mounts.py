"""What of a policy is mounted, given what is on the disk."""

import os

import pytest

from mxc_kernel.policy import Access, Filesystem, Place, Places, appeared, plan_mounts
from mxc_kernel.policy import mounts as module

RO, RW, NONE = Access.READONLY, Access.READWRITE, Access.NONE


@pytest.fixture
def root(tmp_path):
    return os.path.realpath(tmp_path)


def make(root, *names):
    for name in names:
        path = os.path.join(root, name)
        if name.endswith("/"):
            os.makedirs(path, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w"):
                pass


def test_grants_are_mounted_as_they_are(root):
    make(root, "rw/ro/", "rw/no/", "file")
    files = Filesystem.of(
        readwrite=[f"{root}/rw"],
        readonly=[f"{root}/rw/ro", f"{root}/file"],
        denied=[f"{root}/rw/no"],
    )
    plan = plan_mounts(files)
    assert plan.filesystem == files
    assert plan.readwrite == (f"{root}/rw",)
    assert plan.readonly == (f"{root}/file", f"{root}/rw/ro")
    assert plan.denied == (f"{root}/rw/no",)
    assert plan.covers == (f"{root}/rw/no", f"{root}/rw/ro")
    assert (plan.absent, plan.uncovered, plan.complete) == ((), (), True)


def test_rules_on_what_is_not_there_are_not_mounted_and_nothing_is_created(root):
    make(root, "rw/")
    files = Filesystem.of(
        readwrite=[f"{root}/rw", f"{root}/gone"],
        readonly=[f"{root}/rw/ro"],
        denied=[f"{root}/rw/no"],
    )
    plan = plan_mounts(files)
    assert plan.filesystem.grants == ((f"{root}/rw", RW),)
    assert plan.absent == (f"{root}/gone",)
    assert os.listdir(root) == ["rw"]
    assert os.listdir(f"{root}/rw") == []


def test_a_grant_that_became_a_symlink_is_left_out(root):
    make(root, "data/", "secret/")
    files = Filesystem.of(readonly=[f"{root}/data"])
    assert plan_mounts(files).readonly == (f"{root}/data",)
    os.rmdir(f"{root}/data")
    os.symlink("secret", f"{root}/data")
    plan = plan_mounts(files)
    assert (plan.readonly, plan.absent) == ((), (f"{root}/data",))


def test_folders_above_a_rule_are_held_in_place(root):
    make(root, "rw/a/b/ro")
    plan = plan_mounts(Filesystem.of(readwrite=[f"{root}/rw"], readonly=[f"{root}/rw/a/b/ro"]))
    assert plan.readwrite == (f"{root}/rw", f"{root}/rw/a", f"{root}/rw/a/b")
    assert set(plan.covers) == {f"{root}/rw/a", f"{root}/rw/a/b", f"{root}/rw/a/b/ro"}
    assert plan.filesystem.readwrite == (f"{root}/rw",)


def test_folders_that_cannot_be_renamed_anyway_are_not(root):
    make(root, "ro/a/no")
    plan = plan_mounts(Filesystem.of(readonly=[f"{root}/ro"], denied=[f"{root}/ro/a/no"]))
    assert plan.readwrite == ()
    assert plan.covers == (f"{root}/ro/a/no",)


def test_protected_names_become_read_only_inside_a_writable_grant(root):
    make(
        root, "p/.git/hooks/", "p/.git/config", "p/.git/objects/", "p/.vscode/", "p/x/y/.git/config"
    )
    make(root, "p/sub/.git", "p/model.pth")
    plan = plan_mounts(Filesystem.of(readwrite=[f"{root}/p"]))
    assert set(plan.readonly) == {
        f"{root}/p/{name}"
        for name in (".git/hooks", ".git/config", ".vscode", "x/y/.git/config", "sub/.git")
    }
    assert f"{root}/p/.git" in plan.readwrite
    assert plan.filesystem.access(f"{root}/p/.git/objects/x") == RW
    assert plan_mounts(Filesystem.of(readonly=[f"{root}/p"])).readonly == (f"{root}/p",)


def test_the_search_does_not_leave_the_grant_or_go_where_nothing_can_be_written(root):
    make(root, "p/ro/.vscode/", "other/.vscode/", "p/.hidden/.vscode/")
    os.symlink("../other", f"{root}/p/link")
    plan = plan_mounts(Filesystem.of(readwrite=[f"{root}/p"], readonly=[f"{root}/p/ro"]))
    assert plan.readonly == (f"{root}/p/ro",)
    assert plan.complete


def test_the_search_is_bounded_and_says_so(root, monkeypatch):
    make(root, *(f"p/d{number}/.vscode/" for number in range(5)))
    assert len(plan_mounts(Filesystem.of(readwrite=[f"{root}/p"])).readonly) == 5
    monkeypatch.setattr(module, "_FOLDERS", 3)
    plan = plan_mounts(Filesystem.of(readwrite=[f"{root}/p"]))
    assert len(plan.readonly) == 2
    assert not plan.complete


def test_known_names_are_found_in_a_folder_too_large_to_list(root, monkeypatch):
    make(root, *(f"p/{number}" for number in range(20)), "p/.vscode/", "p/.git/hooks/")
    monkeypatch.setattr(module, "_ENTRIES", 1)
    plan = plan_mounts(Filesystem.of(readwrite=[f"{root}/p"]))
    assert plan.readonly == (f"{root}/p/.git/hooks", f"{root}/p/.vscode")
    assert not plan.complete


def test_a_protected_symlink_is_reported(root):
    make(root, "p/real/")
    os.symlink("real", f"{root}/p/.vscode")
    plan = plan_mounts(Filesystem.of(readwrite=[f"{root}/p"]))
    assert (plan.readonly, plan.uncovered) == ((), (f"{root}/p/.vscode",))


def test_what_a_sandbox_planted_is_found_afterwards(root):
    make(root, "home/p/.git/hooks/")
    files = Places((Place(f"{root}/home/.bashrc", RO, "it runs"),)).guard(
        Filesystem.of(readwrite=[f"{root}/home"])
    )
    plan = plan_mounts(files)
    assert appeared(plan, files) == ()
    make(root, "home/.bashrc", "home/p/.vscode/tasks.json", "home/p/notes.txt")
    assert appeared(plan, files) == (f"{root}/home/.bashrc", f"{root}/home/p/.vscode")
