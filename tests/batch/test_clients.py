"""Others who run notebooks: nbclient with our options, papermill with the name alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from nbclient import NotebookClient

from mxc_kernel.batch import client_options
from tests.batch.conftest import Folder

pytestmark = pytest.mark.usefixtures("installed_kernelspec", "environ")


def test_nbclient_runs_in_the_sandbox_and_leaves_nothing(folder: Folder) -> None:
    read = f"print(open({str(folder.data / 'figures.txt')!r}).read())"
    path = folder.add("a", read, "import time; time.sleep(600)")

    def run(**options: Any) -> Any:
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(
            notebook,
            allow_errors=True,
            resources={"metadata": {"path": str(folder.source)}},
            **client_options(ceiling=str(folder.ceiling), cell_timeout=1, **options),
        )
        manager = client.create_kernel_manager()
        private = Path(manager.connection_file).parent
        assert private.stat().st_mode & 0o777 == 0o700
        client.execute()
        assert not private.exists()
        return notebook

    asked = run(readonly=(str(folder.data),))
    assert asked.cells[0].outputs[0].text == "1 2 3\n\n"
    assert asked.cells[1].outputs[-1].ename == "SandboxTimeoutError"
    unasked = run()
    assert "FileNotFoundError" in [out.get("ename") for out in unasked.cells[0].outputs]


def test_papermill_needs_the_kernels_name_alone(folder: Folder) -> None:
    seen = folder.root / "home.txt"
    tagged = ("n = 1", ["parameters"])
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = (tagged, f"print(n)\nopen({str(seen)!r}, 'w')")
    path = folder.add("a", *cells, metadata={"kernelspec": spec})
    done = folder.root / "done.ipynb"
    with pytest.raises(papermill.PapermillExecutionError, match=r"home\.txt"):
        papermill.execute_notebook(
            str(path),
            str(done),
            {"n": 5},
            kernel_name="mxc-python",
            progress_bar=False,
        )
    outputs = nbformat.read(done, as_version=4).cells[-1].outputs
    assert outputs[0].text == "5\n"
    assert not seen.exists()
    assert os.listdir(folder.out) == []
