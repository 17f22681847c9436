"""``mxc-kernel run`` as a process: its exit status, its lines, its signals, its results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

from mxc_kernel.batch.report import RunReport
from tests.batch.conftest import Folder

COMMAND = [sys.executable, "-E", "-P", "-m", "mxc_kernel", "run"]
TIMEOUT = 100  # seconds

pytestmark = pytest.mark.usefixtures("installed_kernelspec", "environ")


def begin(folder: Folder, *arguments: object) -> subprocess.Popen[str]:
    options = ["--ceiling", folder.ceiling, "--output-dir", folder.executed]
    return subprocess.Popen(
        [*COMMAND, *map(str, [folder.source, *options, *arguments])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Folder, *arguments: object) -> tuple[int, str]:
    process = begin(folder, *arguments)
    stdout, stderr = process.communicate(timeout=TIMEOUT)
    assert stdout == ""
    return process.returncode, stderr


def report(folder: Folder) -> RunReport:
    return RunReport.model_validate_json((folder.executed / "report.json").read_bytes())


def executed(folder: Folder, name: str) -> Any:
    try:
        return nbformat.read(folder.executed / f"{name}.ipynb", as_version=4)
    except FileNotFoundError:
        return None


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return found


def kernels_of(pid: int) -> list[int]:
    """The processes that a run has started, by their parent."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == pid:
            found.append(int(entry))
    return found


def test_a_good_run_is_told_in_plain_lines(folder: Folder) -> None:
    folder.add("a", "print('a')")
    folder.add("b/c", "print('c')")
    status, said = run(folder, "--jobs", 1)
    assert status == 0
    lines = said.splitlines()
    assert lines[0].startswith("[1/2] a.ipynb: ok (1/1 cells, ")
    assert lines[1].startswith("[2/2] b/c.ipynb: ok (1/1 cells, ")
    assert lines[2].startswith("2 notebooks in ")
    assert "2 ok" in lines[2]
    assert "\x1b" not in said
    found = report(folder)
    assert (found.status, found.counts) == ("ok", {"ok": 2})
    assert (folder.executed / "b/c.ipynb").exists()
    assert sorted(os.listdir(folder.executed)) == ["a.ipynb", "b", "report.json"]


def test_the_exit_status_is_that_of_the_gravest_outcome(folder: Folder) -> None:
    folder.add("a", "print('a')")
    folder.add("b", "1 / 0")
    status, said = run(folder)
    assert status == 3
    assert "b.ipynb: error" in said
    assert "ZeroDivisionError: division by zero" in said
    folder.add("c", "open('/root/x', 'w')")
    assert run(folder)[0] == 4
    (folder.source / "b.ipynb").unlink()
    (folder.source / "c.ipynb").unlink()
    assert run(folder)[0] == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_resume_goes_on(folder: Folder, signum: signal.Signals) -> None:
    folder.add("a", "print('done')")
    marker = folder.out / "go"
    wait = f"import os, time\nwhile not os.path.exists({str(marker)!r}): time.sleep(0.05)"
    folder.add("b", f"%allow_rw {folder.out}\nprint('first')", wait, "print('last')")
    folder.add("c", "print('never begun')")
    process = begin(folder, "--jobs", 1)
    wait_for(lambda: (nb := executed(folder, "b")) and nb.cells[0].outputs, process)
    kernels = kernels_of(process.pid)
    assert kernels
    process.send_signal(signum)
    _, said = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signum
    assert "Stopping; what is done is kept." in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in kernels)
    stopped = report(folder)
    assert stopped.counts == {"ok": 1, "interrupted": 1, "not_run": 1}
    assert [cell.status for cell in stopped.notebooks[1].cells] == ["ok", "interrupted"]
    assert executed(folder, "b").cells[0].outputs[-1].text == "first\n"
    assert executed(folder, "c") is None

    before = (folder.executed / "a.ipynb").stat().st_ino
    marker.touch()
    status, said = run(folder, "--resume")
    assert status == 0
    assert "a.ipynb: ok (1/1 cells" in said
    assert "done before" in said
    assert (folder.executed / "a.ipynb").stat().st_ino == before
    resumed = report(folder)
    assert [(nb.status, nb.resumed) for nb in resumed.notebooks] == [
        ("ok", True),
        ("ok", False),
        ("ok", False),
    ]
    assert [cell.status for cell in resumed.notebooks[0].cells] == ["ok"]


def test_a_killed_run_loses_at_most_the_cell_under_way(folder: Folder) -> None:
    folder.add("b", "print('first')", "import time; time.sleep(600)")
    process = begin(folder)
    wait_for(lambda: (nb := executed(folder, "b")) and nb.cells[0].outputs, process)
    kernels = kernels_of(process.pid)
    process.kill()
    process.communicate(timeout=TIMEOUT)
    left = executed(folder, "b")
    assert left.cells[0].outputs[0].text == "first\n"
    assert left.metadata["mxc"]["run"]["status"] == "running"
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in kernels):  # they watch their parent
        assert time.monotonic() < until
        time.sleep(0.05)
    folder.add("b", "print('first')", "print('second')")
    assert run(folder, "--resume")[0] == 0


def test_resume_goes_by_what_decides_the_result(folder: Folder) -> None:
    folder.add("a", ("n = 1", ["parameters"]), "print(n)")
    assert run(folder)[0] == 0

    def runs_again(*options: object) -> bool:
        assert run(folder, "--resume", *options)[0] == 0
        return not report(folder).notebooks[0].resumed

    assert not runs_again()
    os.utime(folder.source / "a.ipynb")
    assert not runs_again()
    assert runs_again("-p", "n=2")
    assert executed(folder, "a").cells[2].outputs[0].text == "2\n"
    assert not runs_again("-p", "n=2")
    folder.set_ceiling(folder.ceiling.read_text() + '[limits]\ncell_timeout = "9m"\n')
    assert runs_again("-p", "n=2")
    folder.add("a", ("n = 1", ["parameters"]), "print(n + 1)")
    assert runs_again("-p", "n=2")
    assert executed(folder, "a").cells[2].outputs[0].text == "3\n"


def test_parameters_are_injected_as_papermill_does(folder: Folder) -> None:
    folder.add("a", ("n, word = 1, 'one'", ["parameters"]), "print(n, word, flag)")
    file = folder.root / "parameters.json"
    file.write_text(json.dumps({"n": 5, "flag": None}))
    status, _ = run(folder, "--parameters-file", file, "-p", "n=7", "--parameters", "word=it's")
    assert status == 0
    done = executed(folder, "a")
    assert done.cells[1].metadata.tags == ["injected-parameters"]
    assert done.cells[2].outputs[0].text == "7 it's None\n"
    theirs = papermill.parameterize.parameterize_notebook(
        papermill.iorw.load_notebook_node(str(folder.source / "a.ipynb")),
        {"n": 7},
        kernel_name="python3",
        language="python",
    )
    assert [cell.metadata.tags for cell in theirs.cells] == [
        cell.metadata.get("tags", []) for cell in done.cells
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--output-dir", "{out}"], "may be granted to write {out}"),
        (["--output-dir", "{out}/deep/down"], "may be granted to write {out}"),
        (["--output-dir", "{root}"], "may be granted to write {out}"),
        (["--report", "{out}/report.json"], "may be granted to write {out}"),
        (["--output-dir", "{root}/link/x"], "link is a symbolic link"),
        (["--ceiling", "{root}/none.toml"], "There is no ceiling file"),
        (["--cell-timeout", "soon"], "not a duration"),
        (["-p", "novalue"], "is no parameter"),
        (["-p", "class=1"], "cannot be the name of a parameter"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    folder: Folder, arguments: list[str], told: str
) -> None:
    folder.add("a", "print('ran')")
    (folder.root / "link").symlink_to(folder.executed)
    os.lchown(folder.root / "link", 60123, 60123) if os.geteuid() == 0 else None
    words = {"out": folder.out, "root": folder.root}
    status, said = run(folder, *(text.format(**words) for text in arguments))
    assert status == 1
    assert told.format(**words) in said
    assert not (folder.executed / "a.ipynb").exists()
    assert os.listdir(folder.out) == []


def test_two_runs_do_not_write_to_one_folder(folder: Folder) -> None:
    folder.add("a", "import time; time.sleep(600)")
    first = begin(folder)
    try:
        wait_for(lambda: executed(folder, "a"), first)
        status, said = run(folder)
        assert status == 1
        assert "another run writes to" in said
    finally:
        first.terminate()
        first.communicate(timeout=TIMEOUT)


def test_the_schema_describes_the_report(folder: Folder) -> None:
    import jsonschema

    folder.add("a", "1 / 0")
    run(folder)
    done = subprocess.run(
        [*COMMAND[:-1], "report", "schema"], capture_output=True, text=True, check=True
    )
    schema = json.loads(done.stdout)
    written = json.loads((folder.executed / "report.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(written, schema)
    written["notebooks"][0]["status"] = "splendid"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written, schema)
