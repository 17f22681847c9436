from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import mxc_kernel
from mxc_kernel.errors import SandboxUnavailableError
from mxc_kernel.mxc import binary, footprint, identity, runtime

from .conftest import AS_ROOT


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "cache_folder", lambda: str(tmp_path / "cache"))


@pytest.fixture
def questions(monkeypatch) -> list[list[str]]:
    """The programs that were run since."""
    asked = []
    run = subprocess.run

    def note(command, **options):
        asked.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", note)
    return asked


def modules_of(executable: str) -> Path:
    return next(Path(executable).parent.parent.glob("lib/python*/site-packages"))


class TestOurOwn:
    def test_it_is_what_this_process_runs_on(self, questions):
        ours = runtime.describe()
        assert ours.executable == runtime._absolute(sys.executable)
        assert os.path.samefile(ours.executable, sys.executable)
        assert ours.version == ".".join(map(str, sys.version_info[:3]))
        assert ours.magic == importlib.util.MAGIC_NUMBER
        assert ours.ipykernel == importlib.metadata.version("ipykernel")
        assert questions == []

    def test_it_sees_its_packages_and_its_base(self):
        ours = runtime.describe()
        base = Path(sys.base_prefix) / "lib"
        for path in (sys.executable, base, ours.modules, os.path.realpath(sys.executable)):
            assert footprint._seen(str(path), ours.readonly) or str(path).startswith("/usr/")

    def test_it_is_not_shown_the_source_of_this_package(self):
        package = Path(mxc_kernel.__file__).parent
        if package.parent.name in ("site-packages", "dist-packages"):
            pytest.skip("installed among the other packages, where it does no harm")
        ours = runtime.describe()
        assert str(package.parent) in sys.path
        assert not footprint._seen(str(package), ours.readonly)
        assert not any(footprint._within(str(package), path) for path in ours.unseen)

    def test_root_and_users_have_an_interpreter_that_the_sandbox_can_run(self, monkeypatch):
        monkeypatch.setattr(runtime, "MANAGED", "/nonexistent")
        if not AS_ROOT:
            assert runtime.default() == runtime.describe()
            return
        somebody = identity.Identity(identity.DEFAULT_RANGE[0], identity.DEFAULT_RANGE[0])
        if runtime.closed_to(somebody, runtime.describe()) is None:
            assert runtime.default() == runtime.describe()
        else:
            with pytest.raises(SandboxUnavailableError, match="cannot reach") as refused:
                runtime.default()
            assert "mxc-kernel setup" in refused.value.remedy

    @pytest.mark.skipif(not AS_ROOT, reason="only root's sandbox has another user: tested above")
    def test_root_takes_the_managed_one_where_ours_is_closed(
        self, make_environment, open_place, monkeypatch
    ):
        made = make_environment(open_place / "0123")
        (open_place / "current").symlink_to("0123")
        monkeypatch.setattr(runtime, "MANAGED", str(open_place))
        monkeypatch.setattr(runtime, "closed_to", lambda *_: None)
        assert runtime.default() == runtime.describe()
        monkeypatch.setattr(runtime, "closed_to", lambda *_: "/root")
        assert runtime.default().executable == made


class TestAnother:
    def test_it_is_described_and_keeps_its_link(self, make_environment, open_place):
        executable = make_environment(open_place / "env")
        other = runtime.describe(executable)
        assert other.executable == executable
        assert os.path.islink(executable)
        assert other.ipykernel == "7.1.0"
        assert other.modules == str(modules_of(executable))
        assert other.magic[2:] == b"\r\n"
        assert str(open_place / "env") in other.readonly
        assert other.unseen == ()

    def test_relative_paths(self, make_environment, open_place, monkeypatch):
        executable = make_environment(open_place / "real" / "env")
        (open_place / "link").symlink_to("real/env")
        monkeypatch.chdir(open_place)
        (open_place / "real").chmod(0o755)
        for path in ("real/env/bin/python", "./real//env/./bin/python", "link/../env/bin/python"):
            assert runtime.describe(path).executable == executable
        through = runtime.describe("link/bin/python")
        assert through.executable == str(open_place / "link/bin/python")

    def test_it_is_asked_once_until_it_changes(self, make_environment, open_place, questions):
        executable = make_environment(open_place / "env")
        first = runtime.describe(executable)
        questions.clear()
        assert runtime.describe(executable) == first
        assert questions == []
        (modules_of(executable) / "new.pth").write_text("# a package was installed\n")
        assert runtime.describe(executable) == first
        assert len(questions) == 1
        config = Path(executable).parent.parent / "pyvenv.cfg"
        config.write_text(config.read_text() + "prompt = changed\n")
        runtime.describe(executable)
        assert len(questions) == 2

    def test_a_new_ipykernel_is_noticed(self, make_environment, open_place):
        executable = make_environment(open_place / "env")
        assert runtime.describe(executable).ipykernel == "7.1.0"
        folder = modules_of(executable)
        (folder / "ipykernel-7.1.0.dist-info").rename(folder / "ipykernel-6.30.1.dist-info")
        assert runtime.describe(executable).ipykernel == "6.30.1"

    @pytest.mark.parametrize("version", ["6.29.0", "6.30.0a1", "7.99"])
    def test_supported(self, make_environment, open_place, version):
        executable = make_environment(open_place / "env", ipykernel=version)
        assert runtime.describe(executable).ipykernel == version

    @pytest.mark.parametrize("version", ["6.28.9", "5.5.6", "8.0.0", "10.1", None])
    def test_not_supported(self, make_environment, open_place, version):
        executable = make_environment(open_place / "env", ipykernel=version)
        with pytest.raises(SandboxUnavailableError, match="ipykernel") as refused:
            runtime.describe(executable)
        assert f"{executable} -m pip install 'ipykernel>=6.29,<8'" in refused.value.remedy

    @pytest.mark.parametrize(
        "text",
        [
            "exit 1",
            "echo hello",
            "echo '[]'",
            'echo \'{"version": "3.12.1", "magic": "zz", "prefixes": [], "path": []}\'',
            'echo \'{"version": 3, "magic": "00", "prefixes": [], "path": []}\'',
            'echo \'{"version": "3.12.1", "magic": "cb0d0d0a", "prefixes": "/", "path": []}\'',
        ],
    )
    def test_what_is_not_python(self, open_place, text):
        program = open_place / "python"
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        with pytest.raises(SandboxUnavailableError, match="does not run as a Python"):
            runtime.describe(str(program))

    def test_what_does_not_exist(self, open_place):
        with pytest.raises(SandboxUnavailableError, match="does not run as a Python"):
            runtime.describe(str(open_place / "python"))

    def test_an_old_python(self, open_place):
        program = open_place / "python"
        answer = {"version": "3.10.14", "magic": "6f0d0d0a", "prefixes": [], "path": []}
        program.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
        program.chmod(0o755)
        with pytest.raises(SandboxUnavailableError, match=r"Python 3\.10\.14"):
            runtime.describe(str(program))

    def test_root_never_runs_it_as_root(self, open_place):
        program = open_place / "python"
        program.write_text("#!/bin/sh\necho uid $(id -u) >&2\nexit 1\n")
        program.chmod(0o755)
        with pytest.raises(SandboxUnavailableError) as refused:
            runtime.describe(str(program))
        uid = int(refused.value.message.rsplit("uid ", 1)[1])
        assert uid in identity.DEFAULT_RANGE if AS_ROOT else uid == os.geteuid()

    @pytest.mark.parametrize("kind", ["forged", "link", "broken"])
    def test_a_bad_cache_file_grants_nothing(self, make_environment, open_place, kind):
        executable = make_environment(open_place / "env")
        good = runtime.describe(executable)
        kept = Path(runtime._cache_file(executable))
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        secret = open_place / "secret"
        secret.mkdir()
        content = json.loads(kept.read_text())
        content["facts"]["prefixes"] += [str(secret), "/", "/root", str(Path.home())]
        if kind == "broken":
            kept.write_bytes(b"\xff{")
        elif kind == "forged":
            kept.write_text(json.dumps(content))
        else:
            (open_place / "elsewhere").write_text(json.dumps(content))
            kept.unlink()
            kept.symlink_to(open_place / "elsewhere")
        assert runtime.describe(executable) == good


class TestFootprint:
    def test_a_project_that_is_also_an_environment_shows_only_that(
        self, make_environment, open_place
    ):
        executable = make_environment(open_place / "project")
        whole = runtime.describe(executable)
        assert str(open_place / "project") in whole.readonly
        (open_place / "project" / "credentials").write_text("x")
        parts = runtime.describe(executable)
        for name in ("bin", "lib", "pyvenv.cfg"):
            assert str(open_place / "project" / name) in parts.readonly
        assert not footprint._seen(str(open_place / "project" / "credentials"), parts.readonly)

    def test_the_source_of_a_development_install_is_named_not_granted(
        self, make_environment, open_place
    ):
        executable = make_environment(open_place / "env")
        source = open_place / "source"
        source.mkdir(mode=0o755)
        source.chmod(0o755)
        ours = Path(mxc_kernel.__file__).parent.parent
        if AS_ROOT:
            subprocess.run(["chmod", "-R", "a+rX", str(open_place)], check=True)
        (modules_of(executable) / "dev.pth").write_text(f"{source}\n{ours}\n")
        (modules_of(executable) / "dev.pth").chmod(0o644)
        other = runtime.describe(executable)
        assert other.unseen == (str(source),)
        assert not footprint._seen(str(source), other.readonly)

    def test_every_link_on_the_way_is_named(self, tmp_path):
        (tmp_path / "real" / "bin").mkdir(parents=True)
        (tmp_path / "real" / "bin" / "python3.12").write_text("x")
        (tmp_path / "real" / "bin" / "python").symlink_to("python3.12")
        (tmp_path / "alias").symlink_to("real")
        (tmp_path / "env").mkdir()
        (tmp_path / "env" / "python").symlink_to("../alias/bin/python")
        assert list(footprint.links(f"{tmp_path}/env/../env/./python")) == [
            f"{tmp_path}/env/python",
            f"{tmp_path}/alias",
            f"{tmp_path}/real/bin/python",
        ]
        (tmp_path / "loop").symlink_to("loop")
        assert len(list(footprint.links(str(tmp_path / "loop")))) == footprint._MAX_LINKS

    @pytest.mark.parametrize("path", ["/usr/bin", "/usr/lib/python3", "/lib64", "/etc/x", "/bin"])
    def test_what_mxc_shows_anyway_is_not_granted(self, path):
        assert footprint._seen(path, [])

    @pytest.mark.parametrize("path", ["/usr/local", "/usr/local/lib", "/opt", "/usr", "/etcetera"])
    def test_what_mxc_does_not_show(self, path):
        assert not footprint._seen(path, [])

    @pytest.mark.parametrize("path", ["/", "/tmp", "/proc", "/dev", "/root", "/home", "/usr"])
    def test_never_granted_whole(self, path):
        granted: list[str] = []
        footprint._grant(granted, path)
        assert granted == []


def run_inside(program: str, interpreter: runtime.Interpreter, code: str) -> str:
    """Run code on an interpreter in the real sandbox, with nothing granted but its footprint."""
    command = [interpreter.executable, "-P", "-s", "-c", code]
    network = {"egress": {"default": "deny"}, "ingress": {"default": "deny"}}
    network["ingress"]["hostLoopback"] = "deny"
    request = {
        "version": "1.0.0",
        "containment": "bubblewrap",
        "process": {"commandLine": f"exec {shlex.join(command)}", "cwd": "/", "timeout": 30_000},
        "filesystem": {"readonlyPaths": list(interpreter.readonly)},
        "network": network,
    }
    config = os.memfd_create("request")  # another user may reopen it; a pipe he may not
    os.write(config, json.dumps(request).encode())
    with binary.open_verified(program) as verified:
        uid = identity.DEFAULT_RANGE[-1] if AS_ROOT else None
        done = subprocess.run(
            ["lxc-exec", "--config", f"/proc/self/fd/{config}"],
            executable=verified.exec_path,
            pass_fds=[verified.fd, config],
            user=uid,
            group=uid,
            extra_groups=[] if AS_ROOT else None,
            env={"PATH": binary.bwrap_directory()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
        )
    os.close(config)
    return done.stdout + done.stderr


INSIDE = "import sys, ipykernel, json, ctypes; print(ipykernel.stand_in, sys.prefix)"


class TestInTheSandbox:
    def test_an_environment_runs(self, make_environment, open_place, real_executable):
        other = runtime.describe(make_environment(open_place / "env"))
        assert run_inside(real_executable, other, INSIDE) == f"True {open_place}/env\n"

    def test_without_its_footprint_it_does_not(self, make_environment, open_place, real_executable):
        other = runtime.describe(make_environment(open_place / "env"))
        nothing = runtime.Interpreter(**{**vars(other), "readonly": ()})
        assert "not found" in run_inside(real_executable, nothing, INSIDE)

    @pytest.mark.parametrize("folder", ["tools/bin", "odd"])
    def test_through_links_everywhere(
        self, make_environment, open_place, real_executable, base_python, folder
    ):
        linked = open_place / folder
        linked.mkdir(parents=True)
        for path in (linked, linked.parent):
            path.chmod(0o755)
        (linked / "python").symlink_to(base_python)
        make_environment(open_place / "env-1.2", base=str(linked / "python"))
        (open_place / "env").symlink_to("env-1.2")
        executable = str(open_place / "env/bin/python")
        assert str(linked / "python") in footprint.links(executable)
        answer = run_inside(real_executable, runtime.describe(executable), INSIDE)
        assert answer == f"True {open_place}/env\n"

    def test_a_project_s_parts_are_enough(self, make_environment, open_place, real_executable):
        executable = make_environment(open_place / "project")
        (open_place / "project" / "notes").write_text("x")
        (open_place / "project" / "notes").chmod(0o644)
        code = f"{INSIDE}; import os; print(os.path.exists({str(open_place / 'project/notes')!r}))"
        answer = run_inside(real_executable, runtime.describe(executable), code)
        assert answer == f"True {open_place}/project\nFalse\n"
