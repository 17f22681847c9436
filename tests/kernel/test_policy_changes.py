"""A change of policy in the middle of a session."""

from __future__ import annotations

from pathlib import Path

from .conftest import Folders, Kernel, Start, is_busy


def test_names_survive_a_change_of_policy(kernel: Kernel, folders: Folders) -> None:
    kernel.run(
        "import math, numpy as np\n"
        "x = [1, 2]\n"
        "same = x\n"
        "a = np.arange(5)\n"
        "class Point:\n    def __init__(self, v): self.v = v\n"
        "p = Point(7)\n"
        "def area(r): return math.pi * r ** 2 + x[0]"
    )
    result = kernel.run(f"%allow_rw {folders.downloads}\nx, a.sum(), p.v, isinstance(p, Point)")
    assert result.value is not None, result.error
    assert result.value.startswith("([1, 2]")
    assert result.value.endswith("7, True)")
    assert kernel.run("x is same, area(0)").value == "(True, 1.0)"
    assert result.content["execution_count"] == 2


def test_what_cannot_be_carried_is_named(kernel: Kernel, folders: Folders) -> None:
    kernel.run("numbers = (n for n in range(9))\nkept = 1")
    result = kernel.run(f"%allow_rw {folders.downloads}\nkept")
    assert result.value == "1"
    assert "numbers" in result.shown
    assert "generator" in result.shown


def test_a_failed_magic_changes_nothing_and_runs_no_code(kernel: Kernel, folders: Folders) -> None:
    kernel.run("x = 1")
    result = kernel.run(f"%allow_rw {folders.downloads}\n%allow_ro\nx = 2")
    assert result.error.startswith("SandboxPolicyError")
    assert kernel.run("x").value == "1"
    assert kernel.run(f"open('{folders.downloads}/f', 'w')").status == "error"


def test_magics_count_only_at_the_top_of_a_cell(kernel: Kernel, folders: Folders) -> None:
    target = folders.downloads / "f"
    write = f"open({str(target)!r}, 'w').close()"
    for code in (
        f"pass\n%allow_rw {folders.downloads}\n{write}",
        f"get_ipython().run_line_magic('allow_rw', '{folders.downloads}')\n{write}",
        f"exec(\"get_ipython().run_cell('%allow_rw {folders.downloads}')\")\n{write}",
        f's = """\n%allow_rw {folders.downloads}\n"""\n{write}',
    ):
        assert kernel.run(code).status == "error"
        assert not target.exists()
    assert kernel.run(f"# why\n\n%allow_rw {folders.downloads}\n{write}").status == "ok"
    assert target.exists()


def test_a_queued_cell_runs_under_the_policy_of_its_turn(kernel: Kernel, folders: Folders) -> None:
    first = kernel.send("import time; time.sleep(0.3)")
    second = kernel.send(f"%allow_rw {folders.downloads}")
    third = kernel.send(f"open('{folders.downloads}/f', 'w').close()")
    assert [kernel.wait(m).status for m in (first, second, third)] == ["ok"] * 3
    assert (folders.downloads / "f").exists()


def test_a_grant_can_be_given_back(kernel: Kernel, folders: Folders) -> None:
    write = f"open('{folders.downloads}/f', 'w').close()"
    assert kernel.run(f"%allow_rw {folders.downloads}\n{write}").status == "ok"
    (folders.downloads / "f").unlink()
    assert kernel.run(f"%revoke {folders.downloads}\n{write}").status == "error"
    assert not (folders.downloads / "f").exists()


def test_views_show_what_is_allowed_and_what_is_in_force(kernel: Kernel, folders: Folders) -> None:
    ceiling = kernel.run("%ceiling").of_type("display_data")[0]["content"]["data"]
    policy = kernel.run("%policy").of_type("display_data")[0]["content"]["data"]
    for kind in ("text/plain", "text/html"):
        assert str(folders.downloads) in ceiling[kind]
        assert str(folders.documents) in policy[kind]
        assert str(folders.downloads) not in policy[kind]


def test_an_interrupt_during_a_change_keeps_the_old_policy_and_state(
    kernel: Kernel, folders: Folders
) -> None:
    kernel.run("x = 1")
    msg_id = kernel.send(f"%allow_rw {folders.downloads}\nx = 2")
    kernel.wait_for(msg_id, is_busy)
    kernel.interrupt()
    assert kernel.wait(msg_id).error.startswith("KeyboardInterrupt")
    assert kernel.run("x").value == "1"
    assert kernel.run(f"open('{folders.downloads}/f', 'w')").status == "error"


def test_a_granted_folder_that_vanishes_is_a_clear_error(kernel: Kernel, folders: Folders) -> None:
    folder = folders.downloads / "later"
    folder.mkdir()
    kernel.run("x = 1")
    folder.rmdir()
    result = kernel.run(f"%allow_rw {folder}")
    assert result.error.startswith("SandboxPolicyError")
    assert str(folder) in result.error
    folder.mkdir()
    assert kernel.run(f"%allow_ro {folder}\nx").value == "1"


def test_two_kernels_do_not_share_a_grant(start: Start, ceiling: Path, folders: Folders) -> None:
    one, two = start(ceiling), start(ceiling)
    write = f"open('{folders.downloads}/f', 'w').close()"
    assert one.run(f"%allow_rw {folders.downloads}\n{write}").status == "ok"
    assert two.run(write).status == "error"


def test_help_and_completion_know_the_policy_magics(kernel: Kernel) -> None:
    payload = kernel.run("%allow_rw?").content["payload"]
    assert "PATH" in payload[0]["data"]["text/plain"]
    kernel.client.complete("%allow_r", 8)
    assert {"%allow_ro", "%allow_rw"} <= set(kernel.reply_content()["matches"])


def test_arguments_of_magics_are_completed_within_the_ceiling(
    kernel: Kernel, folders: Folders
) -> None:
    def matches(code: str) -> list[str]:
        # By its id: a slow start leaves a second reply to kernel_info_request behind.
        return kernel.reply(kernel.client.complete(code, len(code)))["content"]["matches"]

    assert "--json" in matches("%policy --")
    assert any("report.txt" in match for match in matches(f"%allow_ro {folders.documents}/"))
    assert matches(f"%allow_ro {folders.outside}/") == []
    kernel.run("variable_of_mine = 1")
    assert "variable_of_mine" in matches("variable_of")
