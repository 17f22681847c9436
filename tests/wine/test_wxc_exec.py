"""Every request for Windows passes the real executable's own validation."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mxc_kernel.mxc import provision, release
from tests.mxc.corpus import CORPUS, ROOTS, Request
from tests.wine.stand_in_dll import STAND_INS, build

WINE = shutil.which("wine64") or shutil.which("wine") or "/usr/lib/wine/wine64"
# What Windows itself would have there, and what the requests of the corpus grant.
FOLDERS = (
    *(r"Program Files\Python313", r"Users\ada\AppData\Local\mxc-kernel\run\k1\scratch"),
    *(rf"work\{name}" for name in ("data/private", "data/out", "out/.git", "it's", "a b", "ä ☃")),
    *(rf"work\{name}" for name in ("$HOME", "%TEMP%", "a;b", "(x)", "a/b")),
)
Judge = Callable[[Request], tuple[int, str]]

if not os.path.exists(WINE):
    pytest.skip("there is no Wine here (Debian: apt-get install wine64)", allow_module_level=True)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned executable with its stand-ins, and a Windows of its own."""
    here = tmp_path_factory.mktemp("wine")
    executable = release.EXECUTABLES["win32", "x64"]
    with open(provision._pack(str(here), os.environ, print), "rb") as package:
        provision._check_integrity(package)
        provision._extract(package, executable, str(here / executable.name))
    for name, functions in STAND_INS.items():
        (here / name).write_bytes(build(name, functions))
    return here


@pytest.fixture(scope="session")
def judged(folder: Path) -> Judge:
    """Have wxc-exec.exe validate a request; return its exit status and what it says."""
    prefix = folder / "prefix"
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "WINEPREFIX": str(prefix),
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "userenv,bcryptprimitives=n;mscoree,mshtml=",
        "LANG": "C.UTF-8",
    }
    options = {"env": env, "capture_output": True, "text": True, "errors": "replace"}
    subprocess.run([WINE, "wineboot", "-i"], check=False, timeout=110, **options)  # type: ignore[call-overload]
    drive = prefix / "drive_c"
    for name in FOLDERS:
        (drive / name.replace("\\", "/")).mkdir(parents=True, exist_ok=True)

    def judge(request: Request) -> tuple[int, str]:
        file = folder / "request.json"
        file.write_text(json.dumps(request), encoding="utf-8")
        command = [WINE, str(folder / "wxc-exec.exe"), "--dry-run", "--config", f"Z:{file}"]
        done = subprocess.run(command, check=False, timeout=60, cwd=folder, **options)  # type: ignore[call-overload]
        return done.returncode, done.stdout + done.stderr

    yield judge
    subprocess.run(["wineserver", "-k"], check=False, timeout=60, env=env)


def test_it_is_the_pinned_executable(folder: Path) -> None:
    executable = release.EXECUTABLES["win32", "x64"]
    found = hashlib.sha256((folder / executable.name).read_bytes()).hexdigest()
    assert found == executable.sha256


WINDOWS = [name for name in CORPUS if name.startswith("processcontainer-")]


@pytest.mark.parametrize("name", WINDOWS)
def test_every_request_passes_validation(name: str, judged: Judge) -> None:
    """Below 25H2, which Wine imitates, MXC grants by access lists, so the operator must agree."""
    request = CORPUS[name]()
    request["fallback"]["allowDaclMutation"] = True
    status, said = judged(request)
    assert "validation passed" in said, said
    assert status == 0


def test_without_the_operators_consent_no_access_list_is_changed(judged: Judge) -> None:
    request = CORPUS["processcontainer-each-level"]()
    assert request["fallback"] == {"allowDaclMutation": False}
    _, said = judged(request)
    assert "validation passed" not in said, said


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("process", "unheardOf", True),
        ("filesystem", "unheardOf", True),
        ("network", "unheardOf", True),
        ("ui", "clipboard", "some"),
        ("processContainer", "capabilities", "none"),
        ("fallback", "allowDaclMutation", "yes"),
    ],
)
def test_a_mistake_is_rejected(section: str, field: str, value: object, judged: Judge) -> None:
    request = CORPUS["processcontainer-nothing"]()
    request[section][field] = value
    status, said = judged(request)
    assert "Configuration parse error" in said, said
    assert status == 1


def test_a_granted_path_that_is_missing_is_rejected(judged: Judge) -> None:
    request = CORPUS["processcontainer-nothing"]()
    request["fallback"]["allowDaclMutation"] = True
    request["filesystem"]["readonlyPaths"].append(ROOTS["processcontainer"] + "missing")
    _, said = judged(request)
    assert "validation passed" not in said, said
