"""The command `mxc-kernel`: what it prints, what it writes, and what it never imports."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mxc_kernel import __version__, policy
from mxc_kernel.cli import main
from mxc_kernel.errors import SandboxUnavailableError
from mxc_kernel.mxc import provision, runtime

COMMAND = str(Path(sys.executable).parent / "mxc-kernel")
PLANTED = ("zmq", "pydantic", "argparse", "jupyter_client", "mxc_kernel")


def run(*command: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# Nothing is imported from the current folder or PYTHONPATH


@pytest.fixture
def planted(tmp_path):
    """A folder of modules that leave a mark when they are imported, as files and as packages."""
    folder = tmp_path / "planted"
    folder.mkdir()
    mark = tmp_path / "imported"
    code = f"open({str(mark)!r}, 'a').write(__name__ + '\\n')\n"
    for name in PLANTED[:-1]:
        (folder / f"{name}.py").write_text(code)
    (folder / "mxc_kernel").mkdir()
    (folder / "mxc_kernel" / "__init__.py").write_text(code)
    return folder, mark


@pytest.mark.parametrize("name", PLANTED)
def test_a_plain_python_does_import_what_was_planted(planted, tmp_path, name):
    folder, mark = planted
    run(sys.executable, "-c", f"import {name}", cwd=folder)
    run(sys.executable, "-c", f"import {name}", cwd=tmp_path, PYTHONPATH=str(folder))
    assert mark.read_text() == f"{name}\n{name}\n"


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["ceiling", "show"], ["ceiling", "schema"], ["install", "--prefix", "new"]],
    ids=" ".join,
)
@pytest.mark.parametrize("place", ["cwd", "PYTHONPATH", "both"])
def test_the_command_does_not(planted, tmp_path, arguments, place):
    folder, mark = planted
    environ = {} if place == "cwd" else {"PYTHONPATH": str(folder)}
    cwd = tmp_path if place == "PYTHONPATH" else folder
    done = run(COMMAND, *arguments, cwd=cwd, **environ)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert not mark.exists()


def test_nor_does_the_module_with_libraries_planted(planted):
    folder, mark = planted
    (folder / "mxc_kernel" / "__init__.py").unlink()
    (folder / "mxc_kernel").rmdir()  # which the interpreter itself would look for there
    done = run(sys.executable, "-m", "mxc_kernel", "ceiling", "show", cwd=folder)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert not mark.exists()


def test_an_interpreter_that_drops_the_options_does_not_loop(tmp_path):
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    code = f"import sys; sys.executable = {str(wrapper)!r}; import mxc_kernel_start as s; s.main()"
    done = run(sys.executable, "-c", code)
    assert done.returncode == 1
    assert "does not honour -E and -P" in done.stderr


def test_the_second_start_leaves_no_trace_in_the_environment(tmp_path):
    done = run(COMMAND, "--version")
    code = "import mxc_kernel_start as s, os, sys; s.main(); print(*os.environ)"
    again = run(sys.executable, "-E", "-P", "-c", code, _MXC_KERNEL_STARTED_OVER="1")
    assert done.stdout == f"mxc-kernel {__version__}\n"
    assert "_MXC_KERNEL_STARTED_OVER" not in again.stdout


# It starts quickly, and fails with words


def test_help_imports_neither_jupyter_nor_the_policy():
    code = "import sys; from mxc_kernel.cli import main\ntry: main(['--help'])\n"
    code += "except SystemExit: print(*sys.modules, file=sys.stderr)"
    loaded = set(run(sys.executable, "-P", "-c", code).stderr.split())
    assert "mxc_kernel.cli" in loaded
    assert loaded.isdisjoint({"jupyter_client", "zmq", "pydantic", "mxc_kernel.policy", "asyncio"})


def test_an_error_is_two_lines_and_status_1(tmp_path, capsys):
    taken = tmp_path / "ceiling.toml"
    taken.write_text("mine")
    assert main(["init", "--path", str(taken)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mxc-kernel: ")
    assert "Edit it" in err
    assert len(err.splitlines()) == 2


def test_a_wrong_command_line_is_status_2():
    for arguments in ([], ["ceiling"], ["no-such"], ["install", "--user", "--sys-prefix"]):
        assert run(COMMAND, *arguments).returncode == 2


def test_a_reader_that_left_early_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [COMMAND, "ceiling", "show"], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


# setup


@pytest.fixture
def steps(monkeypatch):
    """Record which steps `setup` takes, on a machine that needs an interpreter built."""
    taken: list[object] = []
    monkeypatch.setattr(provision, "fetch_executable", lambda _say: taken.append("executable"))
    monkeypatch.setattr(provision, "install_bubblewrap", lambda _say: taken.append("bubblewrap"))
    monkeypatch.setattr(provision, "needs_runtime", lambda: True)
    monkeypatch.setattr(provision, "build_runtime", lambda _say, **what: taken.append(what))
    return taken


def broken() -> None:
    raise SandboxUnavailableError("there is none", remedy="Run `mxc-kernel setup`.")


def test_setup_builds_an_interpreter_with_what_was_asked_for(steps):
    assert main(["setup", "--with", "polars", "--extra", "demo", "--constraints", "c.txt"]) == 0
    assert steps[:2] == ["executable", "bubblewrap"]
    assert {"polars", "numpy", "pandas"} <= set(steps[2]["packages"])
    assert not any(";" in package for package in steps[2]["packages"])
    assert steps[2]["constraints"] == "c.txt"


def test_a_bare_setup_keeps_the_interpreter_that_is_there(steps, monkeypatch, capsys):
    there = SimpleNamespace(executable="/var/lib/python")
    monkeypatch.setattr(runtime, "default", lambda: there)
    assert main(["setup"]) == 0
    assert steps == ["executable", "bubblewrap"]
    assert "/var/lib/python" in capsys.readouterr().out
    monkeypatch.setattr(runtime, "default", broken)
    assert main(["setup"]) == 0
    assert steps[-1] == {"packages": [], "constraints": None}


def test_setup_builds_nothing_where_nothing_is_needed(steps, monkeypatch):
    monkeypatch.setattr(provision, "needs_runtime", lambda: False)
    assert main(["setup", "--with", "polars"]) == 0
    assert steps == ["executable", "bubblewrap"]


def test_an_extra_that_does_not_exist(steps, capsys):
    assert main(["setup", "--extra", "no-such"]) == 1
    assert "no extra 'no-such'" in capsys.readouterr().err


# init


def test_init_writes_a_private_file_that_is_a_valid_ceiling(tmp_path, capsys):
    path = tmp_path / "new" / "folder" / "ceiling.toml"
    old = os.umask(0o022)
    try:
        assert main(["init", "--path", str(path)]) == 0
    finally:
        os.umask(old)
    assert path.read_text() == policy.example_ceiling()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    assert str(path) in capsys.readouterr().out
    assert main(["ceiling", "check", str(path)]) == 0


@pytest.mark.parametrize("arguments", [["init"], ["init", "--user"]])
def test_init_goes_to_the_users_place_by_default(tmp_path, monkeypatch, arguments):
    monkeypatch.delenv("MXC_KERNEL_CEILING", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert main(arguments) == 0
    place = tmp_path / "config" / "mxc-kernel" / "ceiling.toml"
    assert place.read_text() == policy.example_ceiling()


@pytest.mark.parametrize("kind", ["file", "link to a file", "dangling link", "folder"])
def test_init_overwrites_nothing(tmp_path, kind):
    path, other = tmp_path / "ceiling.toml", tmp_path / "other"
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("mine")
    else:
        if kind == "link to a file":
            other.write_text("mine")
        path.symlink_to(other)
    before = sorted((entry.name, entry.is_symlink()) for entry in tmp_path.iterdir())
    assert main(["init", "--path", str(path)]) == 1
    assert sorted((entry.name, entry.is_symlink()) for entry in tmp_path.iterdir()) == before
    assert kind in ("folder", "dangling link") or path.read_text() == "mine"


# ceiling


@pytest.fixture
def ceiling(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    path = tmp_path / "ceiling.toml"
    path.write_text(f'[filesystem]\nreadonly = ["{data}"]\n')
    path.chmod(0o600)
    monkeypatch.setenv("MXC_KERNEL_CEILING", str(path))
    return path, data


def test_show_names_the_file_and_the_grant(ceiling, capsys):
    path, data = ceiling
    assert main(["ceiling", "show"]) == 0
    out = capsys.readouterr().out
    assert str(path) in out
    assert str(data) in out


def test_explain_says_why(ceiling, capsys):
    path, data = ceiling
    assert main(["ceiling", "explain", str(data / "below" / ".." / "x.csv")]) == 0
    granted = capsys.readouterr().out
    assert main(["ceiling", "explain", str(path.parent / "elsewhere")]) == 0
    denied = capsys.readouterr().out
    assert str(data / "x.csv") in granted
    assert policy.Access.READONLY.words in granted
    assert policy.Access.NONE.words in denied.splitlines()[0]


def test_check_accepts_a_good_file_and_refuses_a_bad_one(ceiling, tmp_path, capsys):
    assert main(["ceiling", "check", str(ceiling[0])]) == 0
    assert main(["ceiling", "check", str(tmp_path / "missing.toml")]) == 1
    assert "does not exist" in capsys.readouterr().err
    bad = tmp_path / "bad.toml"
    bad.write_text("[filesystem]\nreadable = []\n")
    assert main(["ceiling", "check", str(bad)]) == 1
    assert "readable" in capsys.readouterr().err


def test_check_looks_at_the_owner_and_mode(ceiling, capsys):
    ceiling[0].chmod(0o666)
    assert main(["ceiling", "check", str(ceiling[0])]) == 1
    assert str(ceiling[0]) in capsys.readouterr().err


def test_schema_is_json_and_names_the_keys(capsys):
    assert main(["ceiling", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"filesystem", "network", "limits", "output", "start"} <= set(schema["properties"])
