"""What is counted as added to a grant. How much room its file system has is made up here."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mxc_kernel.hostfiles import open_unlinked
from mxc_kernel.mxc import processes
from mxc_kernel.mxc.quota import Added, Quota

KIB = 1 << 10
LONG = 60.0  # seconds that a walk may take


class Room:
    """The room of a file system, and a quota that looks at it."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = [1 << 40, 1 << 30]
        monkeypatch.setattr(Quota, "_free", lambda _: list(self.left))
        self.quota = Quota(str(path), open_unlinked)

    def lose(self, space: int = 1 << 30, files: int = 0) -> None:
        self.left[0] -= space
        self.left[1] -= files

    def over(
        self,
        space: int | None = 100 * KIB,
        files: int | None = None,
        *,
        budget: float = LONG,
        unlinked: int = 0,
    ) -> str:
        return self.quota.over(Added(space, files), budget, lambda _device, _path: unlinked)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    old = tmp_path / "grant" / "old"
    old.mkdir(parents=True)
    (old / "big").write_bytes(bytes(1 << 20))
    _make_older(old / "big", monkeypatch)
    made = Room(tmp_path / "grant", monkeypatch)
    yield made
    made.quota.close()


def _make_older(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have sessions begin after a file was made; the clock of files is a few ms behind."""
    monkeypatch.setattr("mxc_kernel.mxc.quota.time.time", lambda: path.stat().st_ctime + 1e-3)
    while os.stat(path.parent).st_ctime <= path.stat().st_ctime + 1e-3:
        (path.parent / "tick").touch()
        (path.parent / "tick").unlink()


def write(path: Path, size: int = 200 * KIB) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(os.urandom(size))
        os.fsync(file.fileno())


def test_what_was_there_before_does_not_count(room: Room) -> None:
    room.lose()
    assert room.over() == ""


@pytest.mark.parametrize("where", ["new", "old/new", "a/b/c/d/e/new"])
def test_what_was_added_counts(room: Room, where: str) -> None:
    write(Path(room.quota.path) / where)
    room.lose()
    assert room.over() == "space"
    assert room.over() == ""  # said once
    assert (room.quota.added().space or 0) >= 200 * KIB


def test_nothing_is_walked_through_while_there_is_room(room: Room) -> None:
    write(Path(room.quota.path) / "new")
    room.lose(space=50 * KIB)
    assert room.over() == ""
    room.lose(space=60 * KIB)
    assert room.over() == "space"


def test_no_more_counts_than_the_room_that_was_lost(room: Room) -> None:
    """A large file of before that was only appended to is not new."""
    with (Path(room.quota.path) / "old" / "big").open("ab") as file:
        file.write(b"x")
    room.lose(space=101 * KIB)
    assert room.over() == "space"  # it cannot be told apart
    assert room.quota.added().space == 101 * KIB


def test_no_limit_no_walk(room: Room) -> None:
    write(Path(room.quota.path) / "new")
    room.lose()
    assert room.over(space=None) == ""


def test_files_count(room: Room) -> None:
    for number in range(30):
        (Path(room.quota.path) / str(number)).touch()
    room.lose(space=0, files=50)
    assert room.over(space=None, files=40) == ""
    room.lose(space=0, files=50)
    assert room.over(space=None, files=20) == "files"


def test_a_date_that_was_set_back_helps_nobody(room: Room) -> None:
    write(Path(room.quota.path) / "new")
    os.utime(Path(room.quota.path) / "new", (0, 0))
    room.lose()
    assert room.over() == "space"


def test_links_are_not_followed(room: Room, tmp_path: Path) -> None:
    write(tmp_path / "outside" / "new")
    (Path(room.quota.path) / "link").symlink_to(tmp_path / "outside")
    room.lose()
    assert room.over() == ""


@pytest.mark.parametrize("depth", [120, 2500])  # the second's path is longer than a path may be
def test_deep_folders_are_walked_through(room: Room, depth: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with inside(Path(room.quota.path), depth) as folder:
        room.lose()
        assert room.over(space=(depth * 4 + 100) * KIB) == ""  # what others may have written
        fd = os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
        os.write(fd, os.urandom(200 * KIB))
        os.fsync(fd)
        os.close(fd)
        room.lose()
        assert room.over(space=(depth * 4 + 100) * KIB) == "space"
    assert len(os.listdir("/proc/self/fd")) == before


@contextlib.contextmanager
def inside(top: Path, depth: int) -> Iterator[int]:
    """Make folders in folders, and give the last."""
    folder = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=folder)
        folder, above = os.open("d", os.O_RDONLY, dir_fd=folder), folder
        os.close(above)
    try:
        yield folder
    finally:
        os.close(folder)
        subprocess.run(["rm", "-r", str(top / "d")], check=True)  # shutil.rmtree recurses too deep


def test_a_folder_that_moves_under_the_walk_leads_it_nowhere_else(
    room: Room, tmp_path: Path
) -> None:
    grant = Path(room.quota.path)
    (grant / "a").mkdir()
    for number in range(200):
        (grant / "a" / str(number)).touch()
    outside = tmp_path / "outside"
    write(outside / "new")
    room.lose()
    assert room.over(budget=0) == ""
    moved = False
    said = []
    for _ in range(1000):
        said.append(room.over(space=190 * KIB, budget=0))
        if not moved:
            (grant / "a").rename(outside / "a")
            moved = True
    assert not any(said)
    write(grant / "new")
    room.lose()
    assert room.over(space=190 * KIB) == "space"


def test_a_file_with_many_names_counts_once(room: Room) -> None:
    write(Path(room.quota.path) / "new", 400 * KIB)
    for number in range(50):
        os.link(Path(room.quota.path) / "new", Path(room.quota.path) / str(number))
    room.lose()
    assert room.over(space=600 * KIB) == ""
    room.lose()
    assert room.over(space=300 * KIB) == "space"


def test_a_file_with_holes_counts_what_it_takes(room: Room) -> None:
    write(Path(room.quota.path) / "new")
    os.truncate(Path(room.quota.path) / "new", 1 << 34)
    room.lose()
    assert room.over(space=400 * KIB) == ""
    room.lose()
    assert room.over(space=100 * KIB) == "space"


@pytest.mark.parametrize(("unlinked", "said"), [(0, ""), (200 * KIB, "space")])
def test_files_without_a_name_count(room: Room, unlinked: int, said: str) -> None:
    room.lose()
    assert room.over(unlinked=unlinked) == said


def test_a_walk_goes_on_where_it_stopped(room: Room) -> None:
    for number in range(1000):
        (Path(room.quota.path) / "old" / str(number)).touch()
    write(Path(room.quota.path) / "old" / "zzz")
    room.lose()
    said = [room.over(budget=0) for _ in range(1000)]
    assert said[0] == ""
    assert said.count("space") == 1


def test_a_file_that_is_granted_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "file", 500 * KIB)
    room = Room(tmp_path / "file", monkeypatch)
    room.lose()
    assert room.over() == ""
    write(tmp_path / "file", 900 * KIB)
    room.lose()
    assert room.over() == "space"
    room.quota.close()


@pytest.mark.parametrize("made", ["link", "link/below"])
def test_a_grant_that_was_replaced_by_a_link_is_not_opened(tmp_path: Path, made: str) -> None:
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match=r"directory|symbolic"):
        Quota(str(tmp_path / made), open_unlinked)
    Quota(str(tmp_path / "real" / "below"), open_unlinked).close()


def test_open_and_mapped_files_without_a_name_are_found(tmp_path: Path) -> None:
    import mmap

    device = tmp_path.stat().st_dev

    def counted(folder: Path = tmp_path) -> int:
        return processes.unlinked([os.getpid()], device, str(folder))

    held = (tmp_path / "held").open("w+b")
    held.write(bytes(os.urandom(1 << 20)))
    held.flush()
    os.fsync(held.fileno())
    mapped = mmap.mmap(held.fileno(), 1 << 20)
    assert counted() == 0  # it has a name
    (tmp_path / "held").unlink()
    assert counted() >= 1 << 20
    assert counted(tmp_path / "elsewhere") == 0
    held.close()
    assert counted() >= 1 << 20  # mapped, which keeps it
    mapped.close()
    assert counted() == 0
