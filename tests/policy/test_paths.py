"""One path for whatever a person writes."""

import os

import pytest

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy import canonical, mounts
from mxc_kernel.policy.paths import symlinks


@pytest.fixture
def root(tmp_path):
    return os.path.realpath(tmp_path)


def test_symlinks_at_any_level_dots_and_slashes(root):
    os.makedirs(f"{root}/real/in")
    os.symlink("real", f"{root}/one")
    os.symlink(f"{root}/one/in", f"{root}/two")
    for text in ("two", "./two/", "one//in", "one/in/../in", "missing/../two", f"{root}/two"):
        assert canonical(text, base=root) == f"{root}/real/in"
    # After the symlink, not before it: the text says root, the system says root/real.
    assert canonical("two/..", base=root) == f"{root}/real"
    assert canonical("two/missing/x", base=root) == f"{root}/real/in/missing/x"


def test_home(root, monkeypatch):
    monkeypatch.setenv("HOME", root)
    assert canonical("~", base=None) == root
    assert canonical("~/x", base="/srv") == f"{root}/x"


def test_nothing_else_is_expanded(root, monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    for text in ("$HOME", "${notebook_dir}", "*", "a?[b]{c,d}", "a b", "é\n'"):
        assert canonical(text, base=root) == f"{root}/{text}"


def test_the_root_and_above(root):
    assert canonical("/", base=None) == canonical("/../..", base=None) == "/"
    assert canonical("//etc", base=None) == "/etc"


@pytest.mark.parametrize("text", ["", "a\0b", 'a"b', "a\udc80b", "~nosuchuser/x"])
def test_what_cannot_be_a_grant(text, root):
    with pytest.raises(SandboxPolicyError) as error:
        canonical(text, base=root)
    assert error.value.remedy
    assert canonical("a'b", base=root)


def test_a_relative_path_needs_a_base(root):
    assert canonical("x", base=root) == f"{root}/x"
    with pytest.raises(SandboxPolicyError, match="not an absolute path"):
        canonical("x", base=None)


def test_a_circle_of_symlinks(root):
    os.symlink("b", f"{root}/a")
    os.symlink("a", f"{root}/b")
    for text in ("a", "a/x"):
        with pytest.raises(SandboxPolicyError, match="leads back to itself"):
            canonical(text, base=root)


def test_where_the_symlinks_on_a_path_lie(root):
    os.makedirs(f"{root}/real/in")
    os.symlink("real", f"{root}/one")
    os.symlink("../../one/in", f"{root}/real/in/two")
    found = symlinks(f"{root}/one/in/two/x")
    assert found == (f"{root}/one", f"{root}/real/in/two", f"{root}/one")
    assert symlinks(f"{root}/real/in/x") == ()
    os.symlink("circle", f"{root}/circle")
    assert set(symlinks(f"{root}/circle")) == {f"{root}/circle"}


def test_a_path_that_changes_while_it_is_resolved_is_refused(root, monkeypatch):
    """A sandbox can remove a link between the look that finds it and the one that reads it."""
    os.symlink("missing", f"{root}/link")
    assert canonical(f"{root}/link", base=None) == f"{root}/missing"

    def gone(name):
        raise FileNotFoundError(2, "No such file or directory", name)

    monkeypatch.setattr(os, "readlink", gone)
    with pytest.raises(SandboxPolicyError, match="changes while it is being looked at"):
        canonical(f"{root}/link", base=None)
    assert not mounts._is_plain(f"{root}/link")
