"""Runs the notebooks of nbclient's and papermill's tests in both kernels and compares the outputs.

What is evened out before, because it differs from one run of ipykernel to the next: memory
addresses, random ids (numbered by their first appearance), the folder and name of a cell's
temporary source file, and whether text of one stream came in one piece or in several. Time stamps
that nbclient adds are left out. What differs on purpose: started as root, the sandbox has its own
copy of the interpreter, so the folder of its library is evened out too.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
from nbclient import NotebookClient

from tests.conformance.sources import source
from tests.conformance.suites import environment

__all__ = ["compare_all", "evened", "outputs"]

FOLDERS = {"nbclient": "tests/files", "papermill": "papermill/tests/notebooks"}
NOT_ALONE = {
    "nbclient/Parallel Execute A": "waits for B",
    "nbclient/Parallel Execute B": "waits for A",
    "nbclient/Autokill": "ends its kernel; nbclient's own test looks at how",
    "nbclient/Interrupt": "sleeps until its test interrupts it",
    "nbclient/Sleep1s": "for tests of nbclient's timing",
    "papermill/binder": "runs another papermill in a shell, in its own repository",
    "papermill/keyboard_interrupt": "sleeps until its test interrupts it",
}
TIMEOUT = 60  # seconds for one cell
SHOWN = 1000  # characters of an output that differs

_EVENED = (
    (re.compile(r"0x[0-9a-f]{6,}"), "0x…"),
    (re.compile(r"\S*/ipykernel_\d+/\d+\.py"), "<cell>"),
    (re.compile(r"\S*/lib(?=/python3\.\d+/)"), "<lib>"),
)
_RANDOM_ID = re.compile(r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b")


def compare_all(root: Path) -> dict[str, str]:
    """Run every notebook in both kernels; ``passed`` where the outputs are the same."""
    found = {}
    for name, path in _notebooks():
        work = root / "tmp" / name
        shutil.copytree(path.parent, work)
        work.chmod(0o777)
        ours, theirs = (outputs(path, work, environment(root, ours=is_ours))
                        for is_ours in (True, False))  # fmt: skip
        found[name] = "passed" if ours == theirs else "failed"
        for number, (here, there) in enumerate(zip(ours, theirs, strict=True)):
            if here != there:
                print(f"{name}, cell {number}:")
                for who, what in (("mxc-kernel", here), ("ipykernel", there)):
                    print(f"  {who}: {str(what)[:SHOWN]}")
    return found


def _notebooks() -> Iterator[tuple[str, Path]]:
    for package, folder in FOLDERS.items():
        for path in sorted((source(package) / folder).glob("*.ipynb")):
            name = f"{package}/{path.stem}"
            if name not in NOT_ALONE and _is_for_python(path):
                yield name, path


def _is_for_python(path: Path) -> bool:
    kernel = nbformat.read(path, nbformat.NO_CONVERT).metadata.get("kernelspec", {})
    return str(kernel.get("name", "python3")).startswith("python")


def outputs(path: Path, work: Path, env: dict[str, str]) -> list[Any]:
    """Return the evened outputs of each cell, all of them run whatever fails."""
    notebook = nbformat.read(path, as_version=4)
    # Its connection file may not lie in the folder that the sandbox is granted.
    here = {name: value for name, value in env.items() if name != "TMPDIR"}
    with mock.patch.dict(os.environ, here, clear=True):
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            allow_errors=True,
            timeout=TIMEOUT,
            resources={"metadata": {"path": str(work)}},
        )
        client.execute(env=env)
    return evened(notebook.cells)


def evened(cells: list[Any]) -> list[Any]:
    """Return the outputs of the cells without what differs from run to run."""
    ids: dict[str, str] = {}

    def text(value: str) -> str:
        for pattern, instead in _EVENED:
            value = pattern.sub(instead, value)
        return _RANDOM_ID.sub(lambda m: ids.setdefault(m[0], f"<id {len(ids)}>"), value)

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {plain(key): plain(each) for key, each in sorted(value.items())}
        if isinstance(value, list):
            return [plain(each) for each in value]
        return text(value) if isinstance(value, str) else value

    return [plain(_joined(cell.get("outputs", []))) for cell in cells]


def _joined(outputs: list[Any]) -> list[Any]:
    """Put the text of each stream together where nothing came between."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output["output_type"] == "stream" and last.get("name") == output["name"]:
            last["text"] += output["text"]
        else:
            joined.append(dict(output))
    return joined
