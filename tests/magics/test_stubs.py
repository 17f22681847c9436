"""What the child makes of the real magics: help, cell magics taken out, and calls out of place."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from mxc_kernel import magics
from tests.worker.conftest import Child


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    one = Child(str(tmp_path_factory.mktemp("stubs") / "scratch"), magics=magics.describe())
    yield one
    one.close()


def handled(source: str) -> dict[str, list[str]]:
    return {"handled": magics.parse(source).handled}


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("%%allow_rw ~/x 'a  b'\nvalue = 3\nvalue", "3"),
        ("\n  \n%%sandbox --ro '$x' --out a\nimport asyncio\nawait asyncio.sleep(0, 4)", "4"),
        ("%%allow_ro '{x}'\n# c\n'%%allow_ro'", "'%%allow_ro'"),
        ("%%sandbox\n\n%%capture\nprint(1)", None),
    ],
)
def test_the_body_of_a_cell_magic_is_an_ordinary_cell(
    child: Child, source: str, result: str | None
) -> None:
    assert magics.parse(source).cell_magic
    cell = child.run(source, mxc=handled(source))
    assert cell.reply["status"] == "ok", cell.reply
    assert cell.result == result
    assert cell.text() == ""


def test_line_magics_pass_as_the_host_names_them(child: Child) -> None:
    source = "# c\n%allow_rw   '$x'  'a  b'  # {why}\n\n%policy\n5"
    assert child.ok(source, mxc=handled(source)) == "5"


def test_line_numbers_are_kept(child: Child) -> None:
    source = "%%sandbox --timeout 1s\n\nx = 1\n1 / 0"
    failed = child.run(source, mxc=handled(source))
    assert failed.reply["ename"] == "ZeroDivisionError"
    assert "line 4" in "".join(failed.reply["traceback"])


@pytest.mark.parametrize(
    "source",
    [
        "get_ipython().run_cell_magic('allow_rw', '~/x', '1')",
        "get_ipython().run_cell('%%sandbox\\n1').raise_error()",
        "get_ipython().run_line_magic('checkpoint', '')",
        ">>> %%sandbox\n>>> 1",
    ],
)
def test_out_of_place_they_explain_themselves(child: Child, source: str) -> None:
    cell = child.run(source)
    assert (cell.reply["status"], cell.reply["ename"]) == ("error", "UsageError")
    assert "only at the top of a cell" in cell.reply["evalue"]


def test_a_cell_magic_passes_for_its_own_line_only(child: Child) -> None:
    for call in ("run_line_magic('allow_rw', 'a')", "run_cell_magic('allow_rw', 'a', '')"):
        source = f"%%allow_rw a\nget_ipython().{call}"
        assert child.run(source, mxc=handled(source)).reply["ename"] == "UsageError"


@pytest.mark.parametrize("detail", [0, 1])
@pytest.mark.parametrize("item", magics.describe(), ids=lambda item: item["name"])
def test_help_shows_the_usage_and_no_file(child: Child, item: dict[str, str], detail: int) -> None:
    code = f"%{item['name']}"
    content = {"code": code, "cursor_pos": len(code), "detail_level": detail}
    colours = re.compile(r"\x1b\[[0-9;]*m")
    text = colours.sub("", child.ask("inspect_request", content).reply["data"]["text/plain"])
    for line in item["doc"].splitlines():
        assert line.strip() in text
    assert "File:" not in text
    assert "worker" not in text


def test_other_help_is_as_it_was(child: Child) -> None:
    for detail in (0, 1):
        content = {"code": "%time", "cursor_pos": 5, "detail_level": detail}
        assert "File:" in child.ask("inspect_request", content).reply["data"]["text/plain"]
