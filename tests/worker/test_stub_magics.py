"""The host's magics inside the child: known by name, silent when handled, refused otherwise."""

from __future__ import annotations

import pytest

from tests.worker.conftest import Child

MAGICS = [
    {"name": "allow_rw", "kind": "line_cell", "doc": "Grant read and write access to PATH."},
    {"name": "policy", "kind": "line", "doc": "Show the policy in force."},
]


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    one = Child(str(tmp_path_factory.mktemp("magics") / "scratch"), magics=MAGICS)
    yield one
    one.close()


def test_a_handled_magic_is_silent(child):
    code = "# first\n%allow_rw   ~/x   --until now\n%policy\nprint('ran')"
    cell = child.run(code, mxc={"handled": ["allow_rw ~/x --until now", "policy"]})
    assert (cell.reply["status"], cell.text()) == ("ok", "ran\n")


def test_a_path_is_compared_as_written(child):
    child.ok("HOME = 'expanded'")
    code = "%allow_rw $HOME/{HOME}\n1"
    assert child.ok(code, mxc={"handled": ["allow_rw $HOME/{HOME}"]}) == "1"


@pytest.mark.parametrize(
    ("code", "handled"),
    [
        ("%allow_rw ~/x", []),
        ("%allow_rw ~/y", ["allow_rw ~/x"]),
        ("%allow_rw ~/x\n%allow_rw ~/x", ["allow_rw ~/x"]),
        ("%policy\n%allow_rw ~/x", ["allow_rw ~/x", "policy"]),
        ("x = 1\nget_ipython().run_line_magic('allow_rw', '~/x')", []),
        ("%%allow_rw ~/x\n1", []),
    ],
)
def test_an_unhandled_magic_is_refused_with_the_reason(child, code, handled):
    cell = child.run(code, mxc={"handled": handled})
    assert (cell.reply["status"], cell.reply["ename"]) == ("error", "UsageError")
    assert "only at the top of a cell" in cell.reply["evalue"]


def test_what_was_handled_does_not_last_longer_than_its_cell(child):
    child.ok("pass", mxc={"handled": ["allow_rw ~/x"]})
    assert child.run("%allow_rw ~/x").reply["ename"] == "UsageError"


def test_the_body_of_a_handled_cell_magic_is_an_ordinary_cell(child):
    code = "%%allow_rw  ~/x\nimport asyncio\nvalue = await asyncio.sleep(0, 3)\nvalue"
    assert child.ok(code, mxc={"handled": ["allow_rw ~/x"]}) == "3"
    assert child.ok("value") == "3"
    failed = child.run("%%allow_rw ~/x\n\n1 / 0", mxc={"handled": ["allow_rw ~/x"]})
    assert failed.reply["ename"] == "ZeroDivisionError"
    assert "line 3" in "".join(failed.reply["traceback"])


def test_help_completion_and_listing_know_them(child):
    asked = child.ask("inspect_request", {"code": "%allow_rw", "cursor_pos": 9, "detail_level": 0})
    assert "Grant read and write access" in asked.reply["data"]["text/plain"]
    asked = child.ask("complete_request", {"code": "%allow_", "cursor_pos": 7})
    assert "%allow_rw" in asked.reply["matches"]
    assert "allow_rw" in child.run("%lsmagic").result
