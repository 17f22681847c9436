"""A kernel that cannot have its sandbox says so in every cell, and runs nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mxc_kernel.mxc.binary import open_verified

from .conftest import Folders, Result, Start


def _explanation(result: Result) -> str:
    assert result.status == "error"
    return "\n".join(result.of_type("error")[0]["content"]["traceback"])


@pytest.fixture
def executable(sandbox_folder: Path) -> Path:
    """A copy of the real executable in a folder of its own."""
    with open_verified() as binary:
        copy = sandbox_folder / "bin" / os.path.basename(binary.source)
        copy.parent.mkdir()
        shutil.copyfile(binary.source, copy)
    copy.chmod(0o755)
    return copy


def test_an_executable_of_ones_own_choice_works_if_it_is_the_pinned_one(
    start: Start, ceiling: Path, executable: Path
) -> None:
    kernel = start(ceiling, env={"MXC_BIN_DIR": str(executable.parent)})
    assert kernel.run("1 + 1").value == "2"


def test_a_changed_executable_is_never_run(start: Start, ceiling: Path, executable: Path) -> None:
    with executable.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    kernel = start(ceiling, env={"MXC_BIN_DIR": str(executable.parent)})
    result = kernel.run("print('ran')")
    assert "SandboxUntrustedBinaryError" in _explanation(result)
    assert result.stream() == ""
    # A kernel without a sandbox still answers, and works once the cause is gone.
    kernel.client.complete("pri", 3)
    assert kernel.reply_content()["matches"] == []
    with executable.open("r+b") as file:
        file.seek(1000)
        file.write(byte)
    assert kernel.run("print('ran')").stream() == "ran\n"


def test_a_bad_ceiling_is_explained_and_nothing_runs(start: Start, ceiling: Path) -> None:
    good = ceiling.read_text()
    ceiling.write_text(good + "\n[filesytem]\n")
    kernel = start(ceiling)
    explanation = _explanation(kernel.run("print('ran')"))
    assert "filesytem" in explanation
    assert str(ceiling) in explanation
    ceiling.write_text(good)
    assert kernel.run("print('ran')").stream() == "ran\n"


def test_a_ceiling_that_others_may_write_is_refused(start: Start, ceiling: Path) -> None:
    ceiling.chmod(0o666)
    kernel = start(ceiling)
    assert str(ceiling) in _explanation(kernel.run("1"))
    ceiling.chmod(0o644)
    assert kernel.run("1 + 1").value == "2"


def test_a_missing_interpreter_is_explained(start: Start, ceiling: Path) -> None:
    kernel = start(ceiling, arguments=("--python", "/nonexistent/python"))
    assert "/nonexistent/python" in _explanation(kernel.run("1"))


def test_only_the_worker_of_our_own_code_is_inside(start: Start, ceiling: Path) -> None:
    kernel = start(ceiling)
    assert kernel.run("import mxc_kernel.wire, mxc_kernel.worker").status == "ok"
    for name in ("session", "policy", "jupyter.relay", "mxc.launcher"):
        assert kernel.run(f"import mxc_kernel.{name}").error.startswith("ModuleNotFoundError")
    host = Path(shutil.__file__).parent  # the control: the standard library's way is known
    package = Path(__import__("mxc_kernel").__file__).parent
    assert (package / "session.py").exists()
    assert host.exists()
    assert kernel.run(f"open('{package}/session.py')").status == "error"


def test_a_grant_that_the_sandboxs_user_cannot_reach_names_the_closed_folder(
    start: Start, ceiling: Path, folders: Folders
) -> None:
    inside = folders.downloads / "inside"
    inside.mkdir()
    inside.chmod(0o777)
    folders.downloads.chmod(0o700)
    kernel = start(ceiling)
    result = kernel.run(f"%allow_ro {inside}\n'ran'")
    if os.geteuid() == 0:  # the sandbox has a uid of its own
        assert f"enter {folders.downloads}" in result.error
        folders.downloads.chmod(0o755)
        result = kernel.run(f"%allow_ro {inside}\n'ran'")
    assert result.value == "'ran'"
