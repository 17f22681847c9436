from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.errors import SandboxUnavailableError, SandboxUntrustedBinaryError
from mxc_kernel.mxc import binary, folders, release, trust

SCRIPT = b"#!/bin/sh\necho original\n"
DIGEST = hashlib.sha256(SCRIPT).hexdigest()
MACHINE = release.for_this_machine()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(SCRIPT)
    path.chmod(0o755)
    return path


def run(verified: binary.VerifiedBinary) -> str:
    return subprocess.run(
        ["program"],
        executable=verified.exec_path,
        pass_fds=[verified.fd],
        capture_output=True,
        check=True,
        text=True,
    ).stdout


class TestVerify:
    def test_the_pinned_bytes_run(self, program):
        with binary.verify(str(program), DIGEST) as verified:
            assert run(verified) == "original\n"
            assert (verified.source, verified.sha256) == (str(program), DIGEST)

    def test_a_missing_file_is_none(self, tmp_path):
        assert binary.verify(str(tmp_path / "absent"), DIGEST) is None
        assert binary.verify(str(tmp_path / "absent" / "program"), DIGEST) is None

    @pytest.mark.parametrize("position", [0, len(SCRIPT) // 2, len(SCRIPT) - 1])
    def test_one_changed_byte_is_refused(self, program, position):
        changed = bytearray(SCRIPT)
        changed[position] ^= 1
        program.write_bytes(changed)
        with pytest.raises(SandboxUntrustedBinaryError, match="SHA-256"):
            binary.verify(str(program), DIGEST)

    @pytest.mark.parametrize("data", [b"", SCRIPT[:-1], SCRIPT + b"\n"])
    def test_missing_and_additional_bytes_are_refused(self, program, data):
        program.write_bytes(data)
        with pytest.raises(SandboxUntrustedBinaryError):
            binary.verify(str(program), DIGEST)

    def test_what_is_not_a_regular_file_is_refused(self, program, tmp_path):
        link, folder, fifo = (tmp_path / name for name in ("link", "folder", "fifo"))
        link.symlink_to(program)
        folder.mkdir()
        os.mkfifo(fifo)  # opened the plain way, this one would hang
        for path in (link, folder, fifo, Path("/dev/null")):
            with pytest.raises(SandboxUntrustedBinaryError, match="not a regular file"):
                binary.verify(str(path), DIGEST)

    def test_a_linked_folder_on_the_way_is_followed(self, program, tmp_path):
        (tmp_path / "way").symlink_to(tmp_path)
        with binary.verify(str(tmp_path / "way" / "program"), DIGEST) as verified:
            assert run(verified) == "original\n"

    def test_a_change_after_the_check_reaches_nothing(self, program):
        with binary.verify(str(program), DIGEST) as verified:
            program.write_bytes(b"#!/bin/sh\necho changed\n")
            assert run(verified) == "original\n"
            program.unlink()
            assert run(verified) == "original\n"

    @pytest.mark.skipif(sys.platform != "linux", reason="sealed memory is Linux's")
    def test_the_verified_bytes_can_no_longer_change(self, program):
        with binary.verify(str(program), DIGEST) as verified:
            for change in (
                lambda: os.pwrite(verified.fd, b"x", 0),
                lambda: os.truncate(verified.fd, 0),
                lambda: os.truncate(verified.fd, 1 << 20),
                lambda: os.pwrite(os.open(verified.exec_path, os.O_RDWR), b"x", 0),
            ):
                with pytest.raises(PermissionError):
                    change()
            assert os.pread(verified.fd, 1 << 20, 0) == SCRIPT

    def test_without_sealed_memory_a_private_copy_runs(self, program, monkeypatch):
        monkeypatch.setattr(binary, "_has_memfd", lambda: False)
        with binary.verify(str(program), DIGEST) as verified:
            program.write_bytes(b"#!/bin/sh\necho changed\n")
            folder = os.path.dirname(verified.exec_path)
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
            os.close(os.dup(verified.fd))
            assert run(verified) == "original\n"
        assert not os.path.exists(folder)

    def test_nothing_stays_open_after_a_refusal(self, program):
        before = sorted(os.listdir("/proc/self/fd")) if sys.platform == "linux" else []
        with pytest.raises(SandboxUntrustedBinaryError):
            binary.verify(str(program), "1" * 64)
        if before:
            assert sorted(os.listdir("/proc/self/fd")) == before

    @pytest.mark.parametrize("digest", ["", "0" * 64, "0", DIGEST.upper(), DIGEST[:-1], "g" * 64])
    def test_a_placeholder_digest_trusts_nothing(self, program, digest):
        with pytest.raises(SandboxUntrustedBinaryError, match="no digest"):
            binary.verify(str(program), digest)

    @given(st.binary(max_size=200))
    def test_only_the_pinned_bytes_ever_pass(self, tmp_path_factory, data):
        path = tmp_path_factory.mktemp("any") / "program"
        path.write_bytes(data)
        own = hashlib.sha256(data).hexdigest()
        with binary.verify(str(path), own) as verified:
            assert os.pread(verified.fd, 1 << 10, 0) == data
        if data != SCRIPT:
            with pytest.raises(SandboxUntrustedBinaryError):
                binary.verify(str(path), DIGEST)
        shutil.rmtree(path.parent)


class TestRelease:
    def test_every_pin_is_a_digest(self):
        pins = [each.sha256 for each in release.EXECUTABLES.values()]
        assert [release.checked_digest(pin) for pin in pins] == pins
        assert len(set(pins)) == len(pins) == 5

    def test_machines(self):
        assert release.for_this_machine("linux", "x86_64").member == "bin/x64/lxc-exec"
        assert release.for_this_machine("linux", "aarch64").member == "bin/arm64/lxc-exec"
        assert release.for_this_machine("win32", "AMD64").member == "bin/x64/wxc-exec.exe"
        for system, machine in (("linux", "riscv64"), ("darwin", "x86_64"), ("sunos5", "x86_64")):
            with pytest.raises(SandboxUnavailableError):
                release.for_this_machine(system, machine)


class TestResolution:
    """Which of several files is taken: made-up executables, with the pin set to fit one."""

    @pytest.fixture
    def environ(self, tmp_path, monkeypatch) -> dict[str, str]:
        pinned = release.Executable(MACHINE.arch, MACHINE.name, DIGEST)
        monkeypatch.setitem(release.EXECUTABLES, (sys.platform, MACHINE.arch), pinned)
        monkeypatch.setattr(binary, "data_folder", lambda _environ: str(tmp_path / "data"))
        monkeypatch.setattr(binary, "SYSTEM_DATA", str(tmp_path / "system"))
        return {
            "HOME": str(tmp_path),
            "MXC_BIN_DIR": str(tmp_path / "dir"),
            "npm_config_prefix": str(tmp_path / "npm"),
            "PATH": str(tmp_path / "node" / "bin"),
        }

    @staticmethod
    def put(path: Path, data: bytes = SCRIPT) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)

    def test_the_order(self, environ, tmp_path):
        configured = tmp_path / "chosen"
        package = ("lib", "node_modules", "@microsoft", "mxc-sdk", "bin", MACHINE.arch)
        node = self.put(tmp_path / "node" / "bin" / "node")
        assert node
        places = [
            configured,
            tmp_path / "dir" / MACHINE.name,
            tmp_path / "dir" / MACHINE.arch / MACHINE.name,
            tmp_path / "data" / "mxc" / release.VERSION / MACHINE.arch / MACHINE.name,
            tmp_path.joinpath("npm", *package, MACHINE.name),
            tmp_path.joinpath("node", *package, MACHINE.name),
        ]
        for place in places:
            self.put(place)
        for place in places:
            chosen = str(configured) if configured.exists() else None
            with binary.open_verified(chosen, environ) as verified:
                assert verified.source == str(place)
            place.unlink()
        with pytest.raises(SandboxUnavailableError, match="not found") as missing:
            binary.open_verified(None, environ)
        assert "mxc-kernel setup" in missing.value.remedy

    def test_a_configured_file_that_is_missing_is_not_replaced_by_another(self, environ, tmp_path):
        self.put(tmp_path / "dir" / MACHINE.name)
        with binary.open_verified(None, environ):
            pass
        with pytest.raises(SandboxUnavailableError, match="configured"):
            binary.open_verified(str(tmp_path / "chosen"), environ)

    def test_a_wrong_file_is_an_error_though_a_right_one_follows(self, environ, tmp_path):
        self.put(tmp_path / "dir" / MACHINE.name, b"other")
        self.put(tmp_path / "dir" / MACHINE.arch / MACHINE.name)
        with pytest.raises(SandboxUntrustedBinaryError):
            binary.open_verified(None, environ)

    def test_the_folders_are_those_of_platformdirs(self, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
            for value in (None, "", "/somewhere"):
                if value is None:
                    monkeypatch.delenv(name, raising=False)
                else:
                    monkeypatch.setenv(name, value)
                assert folders.data_folder() == platformdirs.user_data_dir("mxc-kernel", False)
                assert folders.cache_folder() == platformdirs.user_cache_dir("mxc-kernel", False)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert folders.data_folder() == "/var/lib/mxc-kernel"


class TestBubblewrap:
    @pytest.fixture
    def tree(self, tmp_path) -> Path:
        """A made-up root: <root>/usr/bin/bwrap, with <root>/bin a link as on a real system."""
        folder = tmp_path / "usr" / "bin"
        folder.mkdir(parents=True)
        for path in (tmp_path, folder.parent, folder):
            path.chmod(0o755)
        (folder / "bwrap").write_bytes(SCRIPT)
        (folder / "bwrap").chmod(0o755)
        (tmp_path / "bin").symlink_to("usr/bin")
        return tmp_path

    @staticmethod
    def find(tree: Path, *directories: str, owner: int | None = None) -> str:
        owner = os.geteuid() if owner is None else owner
        paths = [str(tree / each) for each in directories or ("usr/bin",)]
        return binary.bwrap_directory(paths, owner=owner, root=str(tree))

    def test_the_system_s_own_is_trusted(self):
        directory = binary.bwrap_directory()
        assert directory in binary.TRUSTED_DIRECTORIES
        assert binary.bwrap_version(directory) >= (0, 8)

    def test_the_first_folder_that_has_it(self, tree):
        assert self.find(tree, "sbin", "usr/bin") == str(tree / "usr/bin")
        assert self.find(tree, "bin") == str(tree / "bin")

    def test_none(self, tree):
        with pytest.raises(SandboxUnavailableError, match="not found"):
            self.find(tree, "sbin")

    @pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
    @pytest.mark.parametrize("step", ["", "usr", "usr/bin", "usr/bin/bwrap"])
    def test_one_that_others_could_replace(self, tree, step, mode):
        (tree / step).chmod(mode)
        with pytest.raises(SandboxUntrustedBinaryError, match="writable by others"):
            self.find(tree)
        (tree / step).chmod(0o755)
        assert self.find(tree) == str(tree / "usr/bin")

    def test_one_that_belongs_to_somebody_else(self, tree):
        with pytest.raises(SandboxUntrustedBinaryError, match="belongs to uid"):
            self.find(tree, owner=os.geteuid() + 1)

    def test_links_are_followed_with_the_same_suspicion(self, tree):
        program = tree / "usr" / "bin" / "bwrap"
        other = tree / "opt"
        other.mkdir(mode=0o755)
        program.rename(other / "bwrap")
        program.symlink_to("../../opt/bwrap")
        assert self.find(tree) == str(tree / "usr/bin")
        other.chmod(0o777)
        with pytest.raises(SandboxUntrustedBinaryError, match="opt is writable"):
            self.find(tree)

    @pytest.mark.parametrize("target", ["/bin/sh", "../../../outside", "bwrap", "../bin"])
    def test_links_out_of_the_tree_in_circles_or_to_folders(self, tree, target):
        program = tree / "usr" / "bin" / "bwrap"
        program.unlink()
        program.symlink_to(target)
        with pytest.raises(SandboxUntrustedBinaryError):
            self.find(tree)

    def test_a_tree_below_tmp_is_not_trusted_from_the_real_root(self, tree):
        with pytest.raises(SandboxUntrustedBinaryError):
            trust.check_owned(str(tree / "usr/bin/bwrap"), owner=os.geteuid())


def test_the_real_executable_runs_from_sealed_memory(real_executable):
    with binary.open_verified(real_executable) as verified:
        assert verified.sha256 == MACHINE.sha256
        assert verified.version == release.VERSION
        answer = subprocess.run(
            ["lxc-exec", "--help"],
            executable=verified.exec_path,
            pass_fds=[verified.fd],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "--config" in answer.stdout


def test_nothing_slow_is_imported():
    code = (
        "import sys; import mxc_kernel.mxc.binary, mxc_kernel.mxc.runtime; "
        "slow = {'pydantic', 'platformdirs', 'subprocess', 'tempfile', 'asyncio', 'pathlib'}; "
        "print(sorted(slow & set(sys.modules)))"
    )
    command = [sys.executable, "-P", "-S", "-c", code]
    environ = {**os.environ, "PYTHONPATH": str(Path(binary.__file__).parents[2])}
    answer = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
