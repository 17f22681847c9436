"""A ceiling file counts only if nobody else can have written it."""

import os
import socket
import stat

import pytest

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy.trust import read_trusted

STRANGER = 60999  # a uid that this machine gives to nobody, for files as root


@pytest.fixture
def file(tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    for path in (folder.parent, folder):
        path.chmod(0o755)
    path = folder / "ceiling.toml"
    path.write_bytes(b"content")
    path.chmod(0o644)
    assert read_trusted(str(path)) == (
        b"content",
        os.path.realpath(path),
    )  # the control of each test
    return path


def refused(path, *words):
    with pytest.raises(SandboxPolicyError) as error:
        read_trusted(str(path))
    assert error.value.remedy
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write(file, mode):
    file.chmod(mode)
    refused(file, "others may write", f"chmod go-w {file}")
    file.chmod(0o600)
    assert read_trusted(str(file))


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_folder_above_it_that_others_may_write(file, level, mode):
    folder = file.parents[level]
    folder.chmod(mode)
    refused(file, "others may write", f"chmod go-w {folder}")


@pytest.mark.parametrize("level", [0, 1])
def test_a_shared_folder_with_the_sticky_bit_is_accepted(file, level):
    file.parents[level].chmod(0o777 | stat.S_ISVTX)
    assert read_trusted(str(file))


def test_somebody_elses_file_or_folder(file):
    if os.geteuid() == 0:
        for path in (file, file.parent, file.parent.parent):
            os.chown(path, STRANGER, -1)
            refused(file, f"uid {STRANGER}", "root")
            os.chown(path, 0, -1)
        assert read_trusted(str(file))
    else:
        # Nothing here can be given away; root's own file is trusted for everyone.
        assert read_trusted("/etc/passwd")
        assert os.stat("/etc/passwd").st_uid == 0


def test_somebody_elses_file_in_a_shared_folder(file):
    file.parent.chmod(0o777 | stat.S_ISVTX)
    assert read_trusted(str(file))
    if os.geteuid() == 0:
        os.chown(file, STRANGER, -1)
        refused(file, f"uid {STRANGER}")


def test_the_file_may_not_be_a_symlink(file):
    link = file.with_name("link.toml")
    link.symlink_to(file)
    refused(link, "is a symlink")


def test_a_folder_may_be_a_symlink_and_is_checked_where_it_leads(file, tmp_path):
    link = tmp_path / "link"
    link.symlink_to("a/../a/b")
    through = link / file.name
    assert read_trusted(str(through)) == (b"content", os.path.realpath(file))
    file.parent.chmod(0o777)
    refused(through, "others may write")


def test_the_folder_that_holds_the_symlink_is_checked_too(file, tmp_path):
    loose = tmp_path / "loose"
    loose.mkdir()
    (loose / "link").symlink_to(file.parent)
    loose.chmod(0o755)
    assert read_trusted(str(loose / "link" / file.name))
    loose.chmod(0o777)
    refused(loose / "link" / file.name, "others may write", str(loose))


def test_a_circle_of_symlinks_ends(tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    refused(tmp_path / "one" / "ceiling.toml", "cannot be read")


def test_only_a_missing_file_is_absent(file):
    assert read_trusted(str(file.with_name("other.toml"))) is None
    assert read_trusted(str(file.parent / "nowhere" / "ceiling.toml")) is None
    refused(file / "ceiling.toml", "cannot be read")  # a file where a folder should be
    file.with_name("dangling").symlink_to("nothing")
    refused(file.with_name("dangling"), "is a symlink")


def test_what_is_not_a_regular_file(file):
    refused(file.parent, "not a regular file")
    pipe = file.with_name("pipe")
    os.mkfifo(pipe, 0o600)
    refused(pipe, "not a regular file")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(file.parent)  # a socket's path may not be long
        try:
            listener.bind("s")
        finally:
            os.chdir(here)
        os.chmod(file.with_name("s"), 0o600)
        refused(file.with_name("s"), "cannot be read")


def test_a_file_of_any_sensible_size(file):
    file.write_bytes(b"#" * (1 << 20))
    assert read_trusted(str(file))
    file.write_bytes(b"#" * ((1 << 20) + 1))
    refused(file, "larger than 1 MiB")


def test_nothing_stays_open(file):
    before = os.listdir("/proc/self/fd")
    read_trusted(str(file))
    file.chmod(0o666)
    refused(file)
    assert os.listdir("/proc/self/fd") == before
