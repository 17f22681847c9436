"""Every way in which a notebook can end is told apart: real notebooks in the real sandbox."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mxc_kernel.batch import RunReport, Status, run_notebooks
from mxc_kernel.batch.outcomes import EXIT_STATUS, judge, worst
from tests.batch.conftest import Folder

pytestmark = pytest.mark.usefixtures("installed_kernelspec", "environ")


def run(folder: Folder, **options: Any) -> RunReport:
    options.setdefault("ceiling", str(folder.ceiling))
    return run_notebooks([folder.source], output_dir=folder.executed, **options)


def statuses(report: RunReport) -> dict[str, Status]:
    return {notebook.name.removesuffix(".ipynb"): notebook.status for notebook in report.notebooks}


def noted(folder: Folder, name: str) -> Any:
    return folder.result(name).metadata["mxc"]["run"]


def test_each_outcome_is_told_apart(folder: Folder) -> None:
    target = folder.root / "written.txt"
    folder.add("ok", "print('fine')", "6 * 7")
    folder.add("error", "1 / 0", "print('not reached')")
    folder.add("denied", f"open({str(target)!r}, 'w').write('x')")
    folder.add("refused", f"%allow_rw {folder.data}\nprint('not run')")
    folder.add("dead", "import os, signal", "os.kill(os.getpid(), signal.SIGKILL)", "1")
    folder.add("slow", "import time\nwhile True: time.sleep(0.1)")
    folder.add("loud", "print('x' * 3_000_000)")
    folder.add("forged", "class SandboxTimeoutError(Exception): pass\nraise SandboxTimeoutError")
    (folder.source / "text.ipynb").write_text("not a notebook")
    report = run(folder, jobs=2, cell_timeout=3)
    expected = {
        "ok": Status.OK,
        "error": Status.ERROR,
        "denied": Status.DENIED,
        "refused": Status.POLICY_REFUSED,
        "dead": Status.DEAD_KERNEL,
        "slow": Status.CELL_TIMEOUT,
        "loud": Status.TRUNCATED,
        "forged": Status.ERROR,
        "text": Status.NOT_A_NOTEBOOK,
    }
    assert statuses(report) == expected
    assert not target.exists()
    assert report.status is worst(expected.values()) is Status.DEAD_KERNEL
    for name, status in expected.items():
        if name != "text":
            assert noted(folder, name)["status"] == status
    assert len({EXIT_STATUS[status] for status in expected.values()}) == len(set(expected.values()))


def test_a_cells_results_and_facts_are_kept(folder: Folder) -> None:
    folder.add(
        "facts",
        "print('fine')\n6 * 7",
        f"open({str(folder.data / 'figures.txt')!r}).read()",
        "print('AKIA' + 'IOSFODNN7EXAMPLE')",
    )
    report = run(folder, allow_errors=True)
    (notebook,) = report.notebooks
    first, blocked, secret = notebook.cells
    done = folder.result("facts")
    assert [out.get("text") for out in done.cells[0].outputs][:1] == ["fine\n"]
    assert done.cells[0].outputs[1].data["text/plain"] == "42"
    assert (first.status, first.execution_count) == (Status.OK, 1)
    assert notebook.audit_session
    assert first.peak_memory
    assert notebook.peak_memory
    assert notebook.peak_memory >= first.peak_memory > 10_000_000
    assert blocked.status is Status.DENIED
    assert blocked.error is not None
    assert blocked.error.name == "FileNotFoundError"
    assert blocked.denials[0].grant == f"%allow_ro {folder.data / 'figures.txt'}"
    assert done.cells[1].metadata["mxc"]["run"]["status"] == "denied"
    assert secret.status is Status.OK
    assert sum(secret.redacted.values()) == 1
    assert "AKIA" not in json.dumps(done.cells[2].outputs)
    assert notebook.status is Status.DENIED  # going on does not make it right


def test_what_was_not_reached_shows_no_old_results(folder: Folder) -> None:
    path = folder.add("stale", "1 / 0", "print('reached')")
    notebook = json.loads(path.read_text())
    old = {"output_type": "stream", "name": "stdout", "text": "an old result"}
    notebook["cells"][1] |= {"outputs": [old], "execution_count": 7}
    notebook["metadata"]["widgets"] = {"old": {}}
    notebook["metadata"]["mxc"] = {"run": {"status": "ok"}}
    path.write_text(json.dumps(notebook))
    report = run(folder)
    done = folder.result("stale")
    assert statuses(report) == {"stale": Status.ERROR}
    assert len(report.notebooks[0].cells) == 1
    assert done.cells[1].outputs == []
    assert done.cells[1].execution_count is None
    assert "widgets" not in done.metadata
    assert noted(folder, "stale")["status"] == "error"
    assert done.metadata.kernelspec.name == "mxc-python"


def test_expected_errors_are_no_failure(folder: Folder) -> None:
    folder.add("expected", ("1 / 0", ["raises-exception"]), "print('reached')")
    hidden = ("open('/root/x', 'w')", ["raises-exception"])
    folder.add("hidden", hidden, "print('reached')")
    report = run(folder)
    assert statuses(report) == {"expected": Status.OK, "hidden": Status.DENIED}
    assert [cell.status for cell in report.notebooks[0].cells] == [Status.ERROR, Status.OK]
    assert len(report.notebooks[1].cells) == 2


def test_a_notebook_passes_its_time(folder: Folder) -> None:
    folder.add("endless", "print('begun', flush=True)", "import time\nwhile True: time.sleep(0.1)")
    report = run(folder, timeout=8)
    assert statuses(report) == {"endless": Status.NOTEBOOK_TIMEOUT}
    cells = report.notebooks[0].cells
    assert [cell.status for cell in cells] == [Status.OK, Status.NOTEBOOK_TIMEOUT]
    assert folder.result("endless").cells[1].outputs[-1].ename == "KeyboardInterrupt"


def test_a_policy_in_the_metadata_is_clamped(folder: Folder) -> None:
    asked = {"readonly": [str(folder.data), "/root"], "readwrite": [str(folder.out)]}
    policy = {"mxc": {"policy": {"filesystem": asked, "limits": {"cell_timeout": "1h"}}}}
    cells = (
        f"print(open({str(folder.data / 'figures.txt')!r}).read())",
        f"print(open({str(folder.out / 'made.txt')!r}, 'w').write('made'))",
    )
    folder.add("asks", *cells, metadata=policy)
    folder.add("silent", *cells)
    folder.set_ceiling(folder.ceiling.read_text() + '[limits]\ncell_timeout = "10m"\n')
    report = run(folder)
    assert statuses(report) == {"asks": Status.OK, "silent": Status.DENIED}
    assert (folder.out / "made.txt").read_text() == "made"
    granted = [(row.path, row.granted) for row in report.notebooks[0].asked]
    assert granted == [
        (str(folder.data), "read-only"),
        ("/root", "no access"),
        (str(folder.out), "read and write"),
    ]


def test_no_requests_ignores_them_all(folder: Folder) -> None:
    policy = {"mxc": {"policy": {"filesystem": {"readonly": [str(folder.data)]}}}}
    read = f"print(open({str(folder.data / 'figures.txt')!r}).read())"
    folder.add("metadata", read, metadata=policy)
    folder.add("magic", f"%allow_ro {folder.data}\n{read}")
    assert statuses(run(folder)) == {"metadata": Status.OK, "magic": Status.OK}
    report = run(folder, requests=False)
    assert statuses(report) == {"metadata": Status.DENIED, "magic": Status.POLICY_REFUSED}


@pytest.mark.parametrize(
    "policy",
    [
        {"filesystem": {"readonly": "/data"}},
        {"filesystem": {"denied": ["/x"]}},
        {"network": {"mode": "open"}},
        {"limits": {"cell_timeout": "soon"}},
        {"filesystem": {"readonly": ['a"b']}},
        "everything",
    ],
)
def test_a_policy_that_cannot_be_read_is_refused(folder: Folder, policy: Any) -> None:
    folder.add("odd", "print('not run')", metadata={"mxc": {"policy": policy}})
    report = run(folder)
    assert statuses(report) == {"odd": Status.POLICY_REFUSED}
    assert report.notebooks[0].reason
    assert not (folder.executed / "odd.ipynb").exists()


def test_without_a_sandbox_nothing_runs_and_nothing_counts_as_done(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = folder.root / "lxc-exec"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    folder.add("plain", "print('ran')", "print('on')")
    with monkeypatch.context() as patch:
        patch.setenv("MXC_BIN_DIR", str(folder.root))
        report = run(folder)
    assert statuses(report) == {"plain": Status.UNAVAILABLE}
    assert len(report.notebooks[0].cells) == 1
    again = run(folder, resume=True)
    assert statuses(again) == {"plain": Status.OK}
    assert not again.notebooks[0].resumed


def test_a_name_is_no_proof() -> None:
    said = {"status": "error", "ename": "SandboxTimeoutError"}
    assert judge(said, {}) is Status.ERROR
    assert judge(said, {"error": "SandboxTimeoutError"}) is Status.CELL_TIMEOUT
    assert judge(said, {"error": "SandboxLimitError"}) is Status.LIMIT
    assert judge(said, {"error": "SomethingNewError"}) is Status.DEAD_KERNEL
    assert judge(said, {"denials": [{"by_policy": False}]}) is Status.ERROR
    assert judge({"status": "ok"}, {"outputs_refused": 2}) is Status.TRUNCATED
