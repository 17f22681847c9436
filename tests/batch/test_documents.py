"""Notebooks are read with suspicion; parameters and plans come out as they are meant."""

from __future__ import annotations

import ast
import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mxc_kernel.batch.document import NotANotebookError, done_before, load, read_source
from mxc_kernel.batch.outcomes import Status
from mxc_kernel.batch.parameters import checked, inject, literal, parse_pairs, read_file
from mxc_kernel.batch.plan import make_plan
from mxc_kernel.batch.report import CellReport, NotebookReport
from mxc_kernel.errors import MxcKernelError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_a_parameter_is_the_same_value_in_python(value: Any) -> None:
    text = literal(value)
    assert "\n" not in text  # it could begin a line with a policy magic
    assert eval(text, {"float": float}) == value


def test_what_is_no_plain_data_is_no_parameter() -> None:
    assert math.isnan(eval(literal(math.nan)))
    for value in (object(), b"x", {1, 2}):
        with pytest.raises(MxcKernelError, match="cannot be a parameter"):
            checked({"x": value})
    for name in ("a b", "class", "", "x=1\n%allow_rw /"):
        with pytest.raises(MxcKernelError, match="cannot be the name"):
            checked({name: 1})


def test_words_and_files_of_parameters(tmp_path: Path) -> None:
    pairs = ["a=1", "b=1.5", "c=True", "d=None", "e=x=y", "f="]
    assert parse_pairs(pairs) == {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": None,
        "e": "x=y",
        "f": "",
    }
    for name, text in (("p.json", '{"a": [1]}'), ("p.toml", "a = [1]"), ("p.yaml", "a: [1]")):
        (tmp_path / name).write_text(text)
        assert read_file(str(tmp_path / name)) == {"a": [1]}
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(MxcKernelError, match="no names with values"):
        read_file(str(tmp_path / "bad.json"))


@pytest.mark.parametrize("tags", [[], ["parameters"]])
def test_parameters_stand_behind_the_tagged_cell_and_only_once(tags: list[str]) -> None:
    notebook = new_notebook(
        cells=[new_markdown_cell("words"), new_code_cell("n = 1", metadata={"tags": tags})]
    )
    inject(notebook, {"n": 2})
    inject(notebook, {"n": 3})
    at = 2 if tags else 0
    assert [cell.source for cell in notebook.cells].count("# Parameters\nn = 3") == 1
    assert notebook.cells[at].source == "# Parameters\nn = 3"
    ast.parse(notebook.cells[at].source)
    nbformat.validate(notebook)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "not the form"),
        (b"{}", "missing a key"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 7}', "not the form"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": 7, "cells": []}', "not the form"),
        (b'{"nbformat": 99, "nbformat_minor": 5, "metadata": {}, "cells": []}', ""),
        (
            b'{"nbformat": 4, "cells": [], "metadata": {"kernelspec": {"language": "R"}}}',
            "language is 'r'",
        ),
        (
            b'{"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "x", "metadata": {}}]}',
            "",
        ),
    ],
)
def test_what_is_no_notebook_is_told(content: bytes, why: str) -> None:
    with pytest.raises(NotANotebookError, match=why or None):
        load(content, {})


scraps = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["code", "python"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("nbformat", "nbformat_minor", "cells", "metadata", "source"),
                    *("outputs", "cell_type", "mxc", "run"),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(scraps, scraps, scraps)
def test_no_json_is_a_surprise(cells: Any, metadata: Any, whole: Any) -> None:
    notebook = {"nbformat": 4, "nbformat_minor": 4, "metadata": metadata, "cells": cells}
    for data in (notebook, whole):
        with contextlib.suppress(NotANotebookError):
            load(json.dumps(data).encode(), {"n": 1})
        assert done_before(json.dumps(data).encode(), "key") is None


def test_old_formats_are_converted() -> None:
    old = nbformat.v3.new_notebook(
        worksheets=[nbformat.v3.new_worksheet(cells=[nbformat.v3.new_code_cell("print(1)")])]
    )
    document = load(nbformat.v3.writes_json(old).encode(), {})
    assert [document.notebook.cells[i].source for i in document.code] == ["print(1)"]


def test_what_was_noted_is_read_back() -> None:
    document = load(nbformat.writes(new_notebook(cells=[new_code_cell("1")])).encode(), {})
    report = NotebookReport(name="a", source="/a", status=Status.ERROR, key="key", cells_total=1)
    report.cells = [CellReport(index=0, status=Status.ERROR, seconds=1.5)]
    document.note(report)
    document.note_cell(report.cells[0])
    for final in (True, False):
        assert done_before(document.text(final=final), "key") == report
        assert done_before(document.text(final=final), "other") is None


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text("text")
    (tmp_path / "link.ipynb").symlink_to("a.ipynb")
    os.mkfifo(tmp_path / "pipe.ipynb")
    assert read_source(str(tmp_path / "a.ipynb")) == b"text"
    for name, why in (("link", "symbolic link"), ("pipe", "no regular file"), ("none", "No such")):
        with pytest.raises(NotANotebookError, match=why or None):
            read_source(str(tmp_path / f"{name}.ipynb"))


def test_a_plan_keeps_the_folders_and_leaves_out_what_is_hidden(tmp_path: Path) -> None:
    root = tmp_path / "work"
    for name in ("a.ipynb", "b/c.ipynb", "b/.hidden/d.ipynb", "b/.ipynb_checkpoints/c.ipynb"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    (root / "text.txt").write_text("")
    (root / "executed").mkdir()
    (root / "executed/a.ipynb").write_text("{}")
    (root / "elsewhere").symlink_to(tmp_path)
    plan = make_plan([root], str(root / "executed"))
    assert [job.name for job in plan.jobs] == ["a.ipynb", "b/c.ipynb"]
    assert make_plan([root], None).output_dir == f"{root}-executed"
    both = make_plan([root / "a.ipynb", root / "b/c.ipynb", root / "b"], None)
    assert [job.name for job in both.jobs] == ["a.ipynb", "b/c.ipynb"]
    found = make_plan([str(root / "**/*.ipynb")], str(tmp_path / "x"))
    assert "b/c.ipynb" in [job.name for job in found.jobs]
    with pytest.raises(MxcKernelError, match="There is no"):
        make_plan([root / "none*.ipynb"], None)
