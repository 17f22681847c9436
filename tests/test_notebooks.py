"""The notebooks as files: valid, clean, and each cell with a word on what is to come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
NAMES = [
    "01_blocked_writes",
    "02_everyday",
    "03_untrusted_agent",
    "04_policy_magics",
    "05_pip",
    "06_state_and_denials",
]


def read(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


def code_cells(name: str) -> list[Any]:
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def test_all_notebooks_are_known_here() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_valid_notebook_for_our_kernel(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "mxc-python"
    assert notebook.metadata.kernelspec.display_name == "Python (MXC sandboxed)"


@pytest.mark.parametrize("name", NAMES)
def test_it_carries_no_outputs(name: str) -> None:
    cells = code_cells(name)
    assert cells
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert {cell.execution_count for cell in cells} == {None}


@pytest.mark.parametrize("name", NAMES)
def test_every_code_cell_says_what_is_expected_of_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(NOTEBOOKS / "demo")
    from verdict import Expectation

    expectations = [Expectation(**cell.metadata["mxc"]) for cell in code_cells(name)]
    labels = [expectation.label for expectation in expectations]
    assert len(set(labels)) == len(labels)


def test_one_of_each_kind_is_shown() -> None:
    expected = {cell.metadata["mxc"]["expect"] for name in NAMES for cell in code_cells(name)}
    assert expected == {"allowed", "blocked", "refused", "contained", "error"}


@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_begins_with_a_heading(name: str) -> None:
    first = read(name).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
