"""Results go where they were meant to go, whatever stands in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mxc_kernel.batch.folder import open_folder
from mxc_kernel.errors import MxcKernelError

ROOT = os.geteuid() == 0


def planted(link: Path, target: Path) -> None:
    """Make a link as a sandbox would: by the user, or as root by another uid."""
    link.symlink_to(target)
    if ROOT:
        os.lchown(link, 60123, 60123)


def test_files_are_replaced_as_a_whole(tmp_path: Path) -> None:
    with open_folder(str(tmp_path / "new/deep")) as folder:
        folder.write("a/b.txt", b"one")
        first = (tmp_path / "new/deep/a/b.txt").stat().st_ino
        folder.write("a/b.txt", b"two")
        assert folder.read("a/b.txt") == b"two"
        assert folder.path == os.path.realpath(tmp_path / "new/deep")
    assert (tmp_path / "new/deep/a/b.txt").stat().st_ino != first
    assert os.listdir(tmp_path / "new/deep/a") == ["b.txt"]


@pytest.mark.parametrize("place", ["above", "folder", "file", "temporary"])
def test_no_link_is_followed(tmp_path: Path, place: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    victim = elsewhere / "b.txt"
    victim.write_text("untouched")
    here = tmp_path / "here"
    here.mkdir()
    target = str(here)
    if place == "above":
        planted(here / "link", elsewhere)
        target = str(here / "link" / "deep")
    elif place == "folder":
        planted(here / "a", elsewhere)
    elif place == "file":
        (here / "a").mkdir()
        planted(here / "a" / "b.txt", victim)
    else:
        (here / "a").mkdir()
        planted(here / "a" / ".b.txt.tmp", victim)

    def write() -> None:
        with open_folder(target) as folder:
            folder.write("a/b.txt", b"changed")

    if place == "temporary":  # it is only a name of ours, and given up
        write()
        assert (here / "a/b.txt").read_bytes() == b"changed"
        assert not (here / "a/b.txt").is_symlink()
    else:
        with pytest.raises(MxcKernelError, match="cannot be written"):
            write()
    assert victim.read_text() == "untouched"
    assert os.listdir(elsewhere) == ["b.txt"]


def test_an_open_folder_stays_the_same(tmp_path: Path) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    other.mkdir()
    with open_folder(str(here)) as folder:
        here.rename(tmp_path / "moved")
        planted(here, other)
        folder.write("b.txt", b"text")
    assert os.listdir(other) == []
    assert (tmp_path / "moved/b.txt").read_bytes() == b"text"


@pytest.mark.skipif(not ROOT, reason="only root makes links that count as root's")
def test_a_link_of_roots_own_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to("disk")
    with open_folder(str(tmp_path / "home" / "ada")) as folder:
        folder.write("b.txt", b"text")
        assert folder.path == os.path.realpath(tmp_path / "disk/ada")


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    planted(tmp_path / "link", tmp_path / "text")
    os.mkfifo(tmp_path / "pipe")
    with open_folder(str(tmp_path)) as folder:
        assert folder.read("text") == b"text"
        assert folder.read("link") is None
        assert folder.read("pipe") is None
        assert folder.read("none") is None
