"""The doctor's checks, each on a healthy and on a broken setting."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from mxc_kernel import cli, doctor
from mxc_kernel.doctor import Check, Status, jupyter, launch, system
from mxc_kernel.errors import SandboxUnavailableError, SandboxUntrustedBinaryError
from mxc_kernel.mxc import identity, runtime
from mxc_kernel.mxc.identity import Identity
from mxc_kernel.mxc.runtime import Interpreter
from mxc_kernel.policy import Settings, example_ceiling

SETTINGS = Settings()


def raises(error):
    def function(*_arguments):
        raise error

    return function


MISSING = SandboxUnavailableError("it is missing", remedy="Install it.")


# Python


@pytest.mark.parametrize(
    ("version", "safe_path", "ignore_environment", "status"),
    [
        ((3, 11), True, True, Status.OK),
        ((3, 10), True, True, Status.FAIL),
        ((3, 11), False, True, Status.FAIL),
        ((3, 11), True, False, Status.FAIL),
    ],
)
def test_python(version, safe_path, ignore_environment, status):
    flags = SimpleNamespace(safe_path=safe_path, ignore_environment=ignore_environment)
    check = system.check_python(version, flags)
    assert check.status is status
    assert bool(check.remedy) == (status is Status.FAIL)


# The MXC executable and bubblewrap


def test_a_verified_executable():
    found = contextlib.nullcontext(
        SimpleNamespace(version="1.0.1", source="/opt/lxc-exec", sha256="5b" * 32)
    )
    check = system.check_executable(SETTINGS, lambda _configured: found)
    assert check.status is Status.OK
    assert "/opt/lxc-exec" in check.detail


@pytest.mark.parametrize(
    "error", [MISSING, SandboxUntrustedBinaryError("another hash", remedy="Remove it.")]
)
def test_no_executable_or_another(error):
    check = system.check_executable(SETTINGS, raises(error))
    assert (check.status, check.detail, check.remedy) == (
        Status.FAIL,
        error.message,
        error.remedy,
    )


def test_a_file_that_is_not_the_executable(tmp_path):
    wrong = tmp_path / "lxc-exec"
    wrong.write_bytes(b"\x7fELF")
    check = system.check_executable(Settings(executable=str(wrong)))
    assert check.status is Status.FAIL
    assert str(wrong) in check.detail


def test_bubblewrap_is_reported_with_its_version():
    check = system.check_bubblewrap(lambda: "/usr/bin", lambda _folder: (0, 8, 0))
    assert check.status is Status.OK
    assert "0.8.0 in /usr/bin" in check.detail


def test_an_old_bubblewrap_is_a_warning():
    check = system.check_bubblewrap(lambda: "/usr/bin", lambda _folder: (0, 7, 9))
    assert check.status is Status.WARN
    assert "0.8.0 or newer" in check.remedy


def test_no_bubblewrap():
    check = system.check_bubblewrap(raises(MISSING))
    assert (check.status, check.remedy) == (Status.FAIL, "Install it.")


# User namespaces


@pytest.fixture
def open_folder():
    """A folder that the user of the cells can enter, as pytest's own are closed to it."""
    folder = tempfile.mkdtemp(prefix="mxc-kernel-test-")
    os.chmod(folder, 0o755)
    yield Path(folder)
    shutil.rmtree(folder)


def test_namespaces_with_the_systems_bubblewrap():
    check = system.check_namespaces(SETTINGS)
    assert check.status is Status.OK, check


@pytest.mark.parametrize(
    ("switches", "remedy"),
    [
        ({"user.max_user_namespaces": "0"}, "user.max_user_namespaces=15000"),
        ({"kernel.unprivileged_userns_clone": "0"}, "kernel.unprivileged_userns_clone=1"),
        ({"kernel.apparmor_restrict_unprivileged_userns": "1"}, "AppArmor"),
        (
            {"user.max_user_namespaces": "9", "kernel.unprivileged_userns_clone": "1"},
            "In a container",
        ),
    ],
)
def test_forbidden_namespaces_name_the_switch(open_folder, switches, remedy):
    bwrap = open_folder / "bwrap"
    bwrap.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"
    )
    bwrap.chmod(0o755)
    check = system.check_namespaces(SETTINGS, lambda: str(open_folder), switches.get)
    assert check.status is Status.FAIL
    assert "No permissions to create new namespace" in check.detail
    assert remedy in check.remedy


def test_a_bubblewrap_that_does_not_run(open_folder):
    (open_folder / "bwrap").write_text("not executable")
    check = system.check_namespaces(SETTINGS, lambda: str(open_folder))
    assert check.status is Status.FAIL
    assert "could not be tried" in check.detail


def test_the_real_switches_can_be_read():
    assert int(system._sysctl("user.max_user_namespaces")) >= 0
    assert system._sysctl("kernel.no_such_switch") is None


# The user and the interpreter of the cells


def test_the_user_of_the_cells_is_not_root():
    with system.leased(SETTINGS) as user:
        assert (user.uid if user else os.geteuid()) != 0
    assert system.check_identity(SETTINGS).status is Status.OK


def test_no_free_uid(monkeypatch):
    monkeypatch.setattr(system.os, "geteuid", lambda: 0)
    monkeypatch.setattr(identity, "lease", raises(MISSING))
    assert system.check_identity(SETTINGS).status is Status.FAIL
    assert system.check_namespaces(SETTINGS, lambda: "/usr/bin").status is Status.FAIL


FOUND = Interpreter(
    executable="/usr/bin/python3",
    version="3.11.2",
    magic=b"",
    ipykernel="7.4.0",
    modules="",
    readonly=(),
)


@pytest.fixture
def as_root(monkeypatch):
    @contextmanager
    def leased(_settings):
        yield Identity(60100, 60100)

    monkeypatch.setattr(system, "leased", leased)


def test_an_interpreter_that_can_be_reached(as_root, monkeypatch):
    monkeypatch.setattr(runtime, "closed_to", lambda _user, _interpreter: None)
    check = system.check_interpreter(SETTINGS, lambda _user: FOUND)
    assert check.status is Status.OK
    assert "3.11.2 at /usr/bin/python3, ipykernel 7.4.0" in check.detail


def test_an_interpreter_in_a_closed_folder(as_root, monkeypatch):
    monkeypatch.setattr(runtime, "closed_to", lambda _user, _interpreter: "/home/someone")
    check = system.check_interpreter(SETTINGS, lambda _user: FOUND)
    assert check.status is Status.FAIL
    assert "/home/someone is closed" in check.detail


def test_no_usable_interpreter():
    assert system.check_interpreter(SETTINGS, raises(MISSING)).status is Status.FAIL


def test_a_configured_interpreter_that_is_not_there(tmp_path):
    chosen = Settings(python=str(tmp_path / "python"))
    check = system.check_interpreter(chosen)
    assert check.status is Status.FAIL
    assert chosen.python in check.detail


# The ceiling


def test_redaction_lists_names_and_never_values():
    environ = {"DB_PASSWORD": "postgres", "X_TOKEN": "a1B2c3D4e5F6"}
    check = jupyter.check_redaction(environ)
    assert check.status is Status.OK
    assert "hidden in output: X_TOKEN; too short" in check.detail
    assert check.detail.endswith("DB_PASSWORD")
    assert "postgres" not in str(check)
    assert "a1B2" not in str(check)
    assert jupyter.check_redaction({}).remedy == ""


@pytest.fixture
def ceiling(tmp_path):
    path = tmp_path / "ceiling.toml"

    def write(text: str) -> dict[str, str]:
        path.write_text(text)
        path.chmod(0o600)
        return {**os.environ, "MXC_KERNEL_CEILING": str(path)}

    (tmp_path / "data").mkdir()
    return write


def test_a_ceiling_that_grants_something(ceiling, tmp_path):
    environ = ceiling(f'[filesystem]\nreadonly = ["{tmp_path}/data"]\n')
    check = jupyter.check_ceiling(environ)
    assert check.status is Status.OK, check
    assert "ceiling.toml" in check.detail


def test_the_example_ceiling_is_fine(ceiling, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "data")
    check = jupyter.check_ceiling(ceiling(example_ceiling()))
    assert check.status is Status.OK, check


def test_a_ceiling_that_grants_nothing(ceiling):
    check = jupyter.check_ceiling(ceiling("[filesystem]\nreadonly = []\n"))
    assert check.status is Status.WARN
    assert "List folders" in check.remedy


def test_a_broken_ceiling_is_reported_and_the_other_checks_go_on(ceiling):
    environ = ceiling("[filesystem\n")
    check = jupyter.check_ceiling(environ)
    assert check.status is Status.FAIL
    assert check.remedy
    assert jupyter.settings(environ) == Settings()


# Jupyter


def spec(*argv: str) -> dict[str, object]:
    return {"argv": list(argv)}


OURS = ("-E", "-P", "-m", "mxc_kernel.kernel", "-f", "{connection_file}")


def test_the_registered_kernel_and_its_python():
    specs = {"mxc-python": spec("python", *OURS), "lab": spec(sys.executable, *OURS)}
    check = jupyter.check_kernelspec(lambda: specs)
    assert check.status is Status.OK
    assert sys.executable in check.detail


def test_the_kernel_is_really_registered_here():
    assert jupyter.check_kernelspec().status is Status.OK


@pytest.mark.parametrize(
    "specs",
    [
        {},
        {"python3": spec("python", "-m", "ipykernel_launcher")},
        {"lab": spec("/no/such/python", *OURS)},
        {"empty": {}},
    ],
)
def test_no_usable_kernelspec(specs):
    check = jupyter.check_kernelspec(lambda: specs)
    assert check.status is Status.FAIL
    assert "mxc-kernel install" in check.remedy


def test_other_kernels_can_be_picked_until_the_operator_says_otherwise(tmp_path):
    config = tmp_path / "jupyter_server_config.py"
    assert jupyter.check_operator([str(tmp_path)]).status is Status.WARN
    config.write_text("# c.KernelSpecManager.allowed_kernelspecs, ensure_native_kernel\n")
    assert jupyter.check_operator([str(tmp_path)]).status is Status.WARN
    config.write_text("c.KernelSpecManager.allowed_kernelspecs = {'mxc-python'}\n")
    assert jupyter.check_operator([str(tmp_path)]).status is Status.WARN
    (tmp_path / "jupyter_config.json").write_text(
        '{"KernelSpecManager": {"ensure_native_kernel": false}}'
    )
    assert jupyter.check_operator([str(tmp_path)]).status is Status.OK


# A real launch


def test_nothing_is_started_when_something_failed():
    check = launch.check_launch(["bubblewrap"], spec("/no/such/python"))
    assert check.status is Status.FAIL
    assert "not tried: bubblewrap failed" in check.detail


def test_a_kernel_without_a_sandbox_is_found_out():
    stock = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "stock",
        "language": "python",
    }
    check = launch.check_launch(spec=stock)
    assert check.status is Status.FAIL
    assert "the sandbox does not hold" in check.detail


def test_a_kernel_that_dies_is_quoted():
    dying = {
        "argv": [sys.executable, "-c", "raise SystemExit('no sandbox today')"],
        "display_name": "dying",
        "language": "python",
    }
    check = launch.check_launch(spec=dying)
    assert check.status is Status.FAIL
    assert "no sandbox today" in check.detail


@pytest.mark.parametrize("answer", ["", "2 PermissionError OSError", "3 written OSError", "2"])
def test_an_odd_answer_is_a_failure(answer):
    assert launch._judge(answer, escaped=False).status is Status.FAIL


def test_the_sandboxed_kernel_holds():
    check = launch.check_launch()
    assert check.status is Status.OK, check


# The whole


@pytest.fixture
def results(monkeypatch):
    def use(*checks: Check) -> None:
        monkeypatch.setattr(doctor, "examine", lambda: iter(checks))

    return use


GOOD = Check("one", Status.OK, "fine")
ODD = Check("two", Status.WARN, "odd", "Look at it.")
BAD = Check("three", Status.FAIL, "broken", "Mend it.")


@pytest.mark.parametrize(("checks", "status"), [((GOOD, ODD), 0), ((GOOD, BAD), 1), ((), 0)])
def test_the_exit_status_is_1_only_if_a_check_failed(results, checks, status, capsys):
    results(*checks)
    assert cli.main(["doctor"]) == status
    results(*checks)
    capsys.readouterr()
    assert cli.main(["doctor", "--json"]) == status
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] == (status == 0)
    assert [check["status"] for check in report["checks"]] == [str(c.status) for c in checks]


def test_the_text_names_the_remedy(results, capsys):
    results(BAD)
    cli.main(["doctor"])
    assert capsys.readouterr().out == "fail  three: broken\n      what to do: Mend it.\n"


def test_a_failed_check_keeps_the_launch_from_being_tried(monkeypatch):
    monkeypatch.setattr(system, "check_bubblewrap", lambda: BAD)
    checks = {check.name: check for check in doctor.examine()}
    assert checks["three"] == BAD
    assert checks["a real launch"].detail.startswith("not tried: ")
    assert "three" in checks["a real launch"].detail


def test_a_kernel_without_landlock_is_a_warning() -> None:
    assert system.check_landlock(lambda: 7).status is Status.OK
    missing = system.check_landlock(lambda: 0)
    assert missing.status is Status.WARN
    assert "lsm=" in missing.remedy
