"""What the host does on Windows and macOS, as far as it is only a decision."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mxc_kernel.doctor import Status
from mxc_kernel.doctor.others import check_quarantine, judge_macos, judge_windows
from mxc_kernel.errors import SandboxUntrustedBinaryError
from mxc_kernel.mxc import binary, macos, surroundings
from mxc_kernel.mxc.portable import RunFolder
from mxc_kernel.policy import Settings

# --- environments ---------------------------------------------------------------------------------

HOST = {
    "SystemRoot": r"D:\Windows",
    "Path": r"C:\evil;C:\Windows",
    "LOCALAPPDATA": r"C:\Users\ada\AppData\Local",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "PYTHONPATH": r"C:\evil",
}


def test_windows_gets_what_it_needs_and_nothing_else_of_the_hosts() -> None:
    inside = surroundings.windows_workload(r"C:\s", r"C:\Python\python.exe", HOST)
    assert inside["SYSTEMROOT"] == r"D:\Windows"
    assert inside["PATH"].split(";") == [
        r"C:\Python",
        r"C:\Python\Scripts",
        r"D:\Windows\System32",
        r"D:\Windows",
    ]
    for name in ("USERPROFILE", "TEMP", "TMP", "HOME", "LOCALAPPDATA", "APPDATA"):
        assert inside[name].startswith(r"C:\s")
    outside = surroundings.windows_launcher(HOST)
    assert outside["LOCALAPPDATA"] == HOST["LOCALAPPDATA"]
    for environ in (inside, outside):
        assert "evil" not in str(environ)
        assert "secret" not in str(environ)


def test_macos_gets_what_it_needs_and_nothing_else_of_the_hosts() -> None:
    inside = surroundings.macos_workload("/s", "/opt/homebrew/bin/python3")
    assert inside["PATH"].split(":")[0] == "/opt/homebrew/bin"
    assert {inside[name] for name in ("HOME", "TMPDIR")} == {"/s"}
    outside = surroundings.macos_launcher({"HOME": "/Users/ada", "DYLD_INSERT_LIBRARIES": "/evil"})
    assert outside == {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/Users/ada"}


# --- the folder of one sandbox --------------------------------------------------------------------


def test_a_sandboxs_folder_is_private_and_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    folder = RunFolder(str(tmp_path))
    assert stat.S_IMODE(os.stat(folder.path).st_mode) == 0o700
    request = folder.keep("request.json", b"{}")
    assert stat.S_IMODE(os.stat(request).st_mode) == 0o600
    os.symlink(kept, os.path.join(folder.scratch, "link"))  # as a sandbox could leave it
    folder.close()
    assert os.listdir(tmp_path) == ["kept"]
    assert (kept / "file").read_text() == "x"


# --- doctor ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "status", "word"),
    [
        (judge_windows(22631), Status.FAIL, "older"),
        (judge_windows(26100), Status.WARN, "access list"),
        (judge_windows(26700), Status.WARN, "docs/platforms.md"),
        (judge_macos("14.5", "arm64"), Status.WARN, "docs/platforms.md"),
        (judge_macos("14.5", "x86_64"), Status.FAIL, "x86_64"),
        (judge_macos("10.15.7", "arm64"), Status.FAIL, "old"),
    ],
)
def test_doctor_says_plainly_what_a_system_is_good_for(
    check: object, status: Status, word: str
) -> None:
    assert getattr(check, "status") is status  # noqa: B009
    assert word in getattr(check, "detail")  # noqa: B009
    assert getattr(check, "remedy")  # noqa: B009


def test_a_quarantined_executable_is_told() -> None:
    with binary.open_verified() as found:
        path = found.source
    settings = Settings(executable=path)
    marked = check_quarantine(settings, lambda looked_at: looked_at == path, "darwin")
    assert marked.status is Status.WARN
    assert f"xattr -d com.apple.quarantine {path}" in marked.remedy
    assert check_quarantine(settings, lambda _path: False, "darwin").status is Status.OK


# --- signatures -----------------------------------------------------------------------------------


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_signature_asked_for_is_that_of_microsofts_team(tmp_path: Path) -> None:
    log = tmp_path / "log"
    codesign = program(tmp_path / "codesign", f'printf "%s\\n" "$@" > {log}')
    macos.check_signature("/x/mxc-exec-mac", codesign)
    asked = log.read_text().splitlines()
    assert asked[:2] == ["--verify", "--strict"]
    assert asked[2:] == [
        "-R",
        '=anchor apple generic and certificate leaf[subject.OU] = "UBF8T346G9"',
        "/x/mxc-exec-mac",
    ]


@pytest.mark.parametrize("text", ["echo not signed at all >&2; exit 1", "exit 3", "kill -9 $$"])
def test_any_other_answer_is_a_refusal(tmp_path: Path, text: str) -> None:
    codesign = program(tmp_path / "codesign", text)
    with pytest.raises(SandboxUntrustedBinaryError, match="UBF8T346G9"):
        macos.check_signature("/x", codesign)
    with pytest.raises(SandboxUntrustedBinaryError):
        macos.check_signature("/x", str(tmp_path / "missing"))


def test_the_mark_of_a_download(tmp_path: Path) -> None:
    assert macos.is_quarantined("/x", program(tmp_path / "yes", "echo 0083; exit 0"))
    assert not macos.is_quarantined("/x", program(tmp_path / "no", "exit 1"))
    assert not macos.is_quarantined("/x", str(tmp_path / "missing"))


# --- what Windows' Python does not have -----------------------------------------------------------

# The standard library is loaded first: it has its own ways for each system.
AS_ON_WINDOWS = """
import sys, os, asyncio, subprocess, tempfile, json, ctypes, logging, tarfile, socket, platform
import importlib.util, jupyter_client, zmq, cloudpickle, platformdirs, orjson, nh3, regex, traitlets
import hashlib, ahocorasick_rs, psutil, ipykernel.kernelspec, rich.console, tomllib, mmap, secrets
gone = ("fcntl", "resource", "pwd", "grp", "termios")
for name in gone:
    sys.modules[name] = None
for name in ("geteuid", "getuid", "getgid", "getgroups", "uname", "killpg", "setpgid",
             "memfd_create", "pidfd_open", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK",
             "O_DIRECTORY", "O_PATH",
             "MFD_CLOEXEC", "makedev", "fchmod", "sysconf", "getpgid"):
    if hasattr(os, name):
        delattr(os, name)
sys.platform = "win32"
import mxc_kernel.errors, mxc_kernel.kernel, mxc_kernel.session, mxc_kernel.starter
import mxc_kernel.mxc.contract, mxc_kernel.mxc.backends, mxc_kernel.mxc.provision
import mxc_kernel.mxc.portable, mxc_kernel.mxc.surroundings, mxc_kernel.portable_starter
import mxc_kernel.doctor, mxc_kernel.cli, mxc_kernel.jupyter.relay, mxc_kernel.kernelspec
loaded = [name for name in sys.modules if name.startswith("mxc_kernel")]
assert "mxc_kernel.mxc.launcher" not in loaded, "Linux only"
print("loaded", len(loaded))
"""


def test_the_host_loads_without_what_only_posix_has() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", AS_ON_WINDOWS], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("loaded"), done.stderr


@pytest.mark.parametrize("platform", ["freebsd14", "sunos5"])
def test_a_system_without_a_sandbox_is_told_so(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mxc_kernel.errors import SandboxUnavailableError
    from mxc_kernel.mxc import release
    from mxc_kernel.portable_starter import native_host

    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(SandboxUnavailableError, match=platform) as caught:
        native_host()
    assert "Linux, Windows 11 or macOS" in caught.value.remedy
    with pytest.raises(SandboxUnavailableError, match=platform):
        release.for_this_machine(platform, "x86_64")
