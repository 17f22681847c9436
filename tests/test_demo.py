"""The demo for real: it passes as shipped, and it notices what is not as expected."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
DEMO = [sys.executable, "-P", str(NOTEBOOKS / "demo")]
TIMEOUT = 110  # seconds

pytestmark = pytest.mark.usefixtures("installed_kernelspec")


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DEMO, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a demo to its end; whatever comes of it, its folders must be gone."""
    demo = start(*arguments)
    stdout, stderr = demo.communicate(timeout=TIMEOUT)
    assert not worlds(demo)
    return subprocess.CompletedProcess(demo.args, demo.returncode, stdout, stderr)


def worlds(demo: subprocess.Popen[str]) -> list[Path]:
    return list(Path("/var/tmp").glob(f"mxc-kernel-demo-{demo.pid}-*"))


Shorten = Callable[[str, dict[str, dict[str, Any]]], Path]

READ = "read a file in Documents"
CREATE = "create a file in Documents"
DELETE = "delete a file in Documents"
SCRATCH = "write to scratch"
DOWNLOADS = "ask for Downloads, then write"


@pytest.fixture
def shorten(tmp_path: Path) -> Shorten:
    """Make a copy of a notebook with some of its cells, by label, and changes to their metadata."""

    def copy_of(name: str, wanted: dict[str, dict[str, Any]]) -> Path:
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        cells = {c.metadata["mxc"]["label"]: c for c in notebook.cells if "mxc" in c.metadata}
        notebook.cells = [cells[label] for label in wanted]
        for label, changes in wanted.items():
            cells[label].metadata["mxc"].update(changes)
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    return copy_of


def test_notebooks_as_shipped_pass(tmp_path: Path) -> None:
    done = run("01_blocked_writes", "03_untrusted_agent", "--output-dir", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "13 of 13 cells as expected" in done.stdout
    assert "17 of 17 cells as expected" in done.stdout
    assert "NOT as expected" not in done.stdout
    assert "\x1b" not in done.stdout  # plain lines, as it is no terminal
    executed = nbformat.read(tmp_path / "01_blocked_writes.ipynb", as_version=4)
    assert "Total of the year: 42" in executed.cells[2].outputs[0].text


def test_wrong_expectations_fail_and_name_the_cells(shorten: Shorten) -> None:
    path = shorten(
        "01_blocked_writes",
        {
            READ: {"says": ["no such words"], "shows": ["image/png"]},
            CREATE: {},
            DELETE: {"expect": "allowed"},
            SCRATCH: {"expect": "blocked"},
            DOWNLOADS: {"writes": {"Downloads/other.txt": "other"}},
        },
    )
    done = run(path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 of 5 cells as expected" in done.stdout
    complaints = done.stdout.partition("Not as expected:\n")[2].splitlines()
    said = [line.strip().removeprefix("01_blocked_writes: ") for line in complaints]
    denied = "[Errno 30] Read-only file system: 'Documents/report.txt'"
    assert said[:3] == [
        f"“{READ}”: “no such words” is not in its output",
        f"“{READ}”: no image/png is in its output",
        f"“{DELETE}”: expected “allowed”, but it was “blocked” ({denied})",
    ]
    assert said[3:6] == [
        f"“{SCRATCH}”: expected “blocked”, but it was “allowed”",
        f"“{DOWNLOADS}”: Downloads/other.txt is not on the host as it should be",
        f"“{DOWNLOADS}”: Downloads/summary.txt has changed on the host",
    ]


def test_a_secret_in_an_output_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(NOTEBOOKS / "demo")
    from verdict import Expectation, Row, judge
    from world import World

    world = World(tmp_path)
    try:
        for text, problems in ((world.secrets["SSH key"], 1), ("nothing", 0)):
            row = Row(Expectation("print", "allowed"))
            outputs = [{"output_type": "stream", "name": "stdout", "text": f"it is {text}!"}]
            judge(row, outputs, {"status": "ok"}, {}, world)
            assert len(row.problems) == problems
    finally:
        world.close()


def test_an_error_without_the_kernels_note_is_not_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(NOTEBOOKS / "demo")
    from verdict import outcome

    reply = {"status": "error", "ename": "OSError", "evalue": "Read-only file system"}
    note = {"output_type": "display_data", "data": {}, "metadata": {"mxc": {"note": "blocked"}}}
    printed = {"output_type": "stream", "name": "stdout", "text": "Blocked by the sandbox"}
    assert outcome([printed], reply) == "OSError"
    assert outcome([note], reply) == "blocked"
    assert outcome([note], {"status": "ok"}) == "allowed"
    assert outcome([note], {"status": "error", "ename": "SandboxPolicyError"}) == "refused"


def test_a_kernel_without_a_sandbox_fails_in_a_few_lines(
    shorten: Shorten, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "lxc-exec"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("MXC_BIN_DIR", str(tmp_path))
    done = run(shorten("01_blocked_writes", {READ: {}, SCRATCH: {}}))
    assert done.returncode == 1
    complaints = done.stdout.partition("Not as expected:")[2]
    assert "SandboxUntrustedBinaryError" in complaints
    assert "cells that did not run: 1" in complaints


def test_a_demo_that_is_ended_leaves_nothing(shorten: Shorten) -> None:
    path = shorten("01_blocked_writes", {READ: {}})
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = "open('scratch/running', 'w').close()\nimport time; time.sleep(600)"
    nbformat.write(notebook, path)
    demo = start(path)
    try:
        (world,) = wait_for(lambda: worlds(demo), demo)
        wait_for((world / "home/work/scratch/running").exists, demo)
        assert mentioning(world)
    finally:
        demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=TIMEOUT)
    assert demo.returncode == 128 + signal.SIGTERM
    assert not worlds(demo)
    assert not mentioning(world)


def wait_for(condition: Callable[[], Any], demo: subprocess.Popen[str]) -> Any:
    while not (found := condition()):
        assert demo.poll() is None
        time.sleep(0.02)
    return found


def mentioning(world: Path) -> list[str]:
    """Return the processes that have a demo's folder on their command line."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.fsencode(world) in Path("/proc", entry, "cmdline").read_bytes():
                found.append(entry)
        except OSError:
            continue
    return found


def test_an_unknown_name_is_told() -> None:
    done = run("no_such_notebook")
    assert done.returncode == 1
    assert "no_such_notebook" in done.stderr
