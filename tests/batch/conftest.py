"""Folders of notebooks and ceilings for runs in the real sandbox."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

Cell = str | tuple[str, list[str]]


class Folder:
    """Notebooks to run, with a ceiling, in folders that the sandbox's own uid can reach."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = root / "notebooks"
        self.executed = root / "executed"
        self.data = root / "data"
        self.out = root / "out"
        for folder in (self.source, self.data, self.out):
            folder.mkdir()
            folder.chmod(0o755)
        self.out.chmod(0o777)
        (self.data / "figures.txt").write_text("1 2 3\n")
        self.ceiling = root / "ceiling.toml"
        self.set_ceiling(f'[filesystem]\nreadonly = ["{self.data}"]\nreadwrite = ["{self.out}"]\n')

    def set_ceiling(self, text: str) -> None:
        self.ceiling.write_text(text)
        self.ceiling.chmod(0o644)

    def add(self, name: str, *cells: Cell, metadata: dict[str, Any] | None = None) -> Path:
        """Write a notebook; a cell is its source, or its source and its tags."""
        notebook = new_notebook(metadata=metadata or {})
        for cell in cells:
            source, tags = (cell, []) if isinstance(cell, str) else cell
            notebook.cells.append(new_code_cell(source, metadata={"tags": tags} if tags else {}))
        path = self.source / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True, parents=True)
        nbformat.write(notebook, path)
        return path

    def result(self, name: str) -> Any:
        return nbformat.read(self.executed / f"{name}.ipynb", as_version=4)


@pytest.fixture
def folder(sandbox_folder: Path) -> Folder:
    return Folder(sandbox_folder)


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], dict[str, str]]:
    """No ceiling of the developer's; returns the environment for commands."""
    monkeypatch.delenv("MXC_KERNEL_CEILING", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return lambda: dict(os.environ)
