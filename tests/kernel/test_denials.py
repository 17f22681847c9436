"""The note beside a traceback that says what the sandbox blocked."""

from __future__ import annotations

from pathlib import Path

from .conftest import Folders, Kernel, Start


def test_a_blocked_write_names_the_path_the_rule_and_the_operator(
    kernel: Kernel, folders: Folders
) -> None:
    result = kernel.run(f"open('{folders.documents}/report.txt', 'w')")
    assert "reported" in result.shown
    assert f"{folders.documents}/report.txt" in result.shown
    assert "%allow_rw" not in result.shown  # the ceiling holds no more than reading
    kinds = [m["msg_type"] for m in result.messages]
    assert kinds.index("error") < kinds.index("display_data")


def test_what_the_ceiling_permits_comes_with_the_magic_that_allows_it(
    kernel: Kernel, folders: Folders
) -> None:
    write = f"open('{folders.downloads}/new.txt', 'w').close()"
    result = kernel.run(write)
    (magic,) = {line.strip() for line in result.shown.splitlines() if "%allow_rw" in line}
    magic = magic[magic.index("%allow_rw") :]
    assert kernel.run(f"{magic}\n{write}").status == "ok"
    assert (folders.downloads / "new.txt").exists()


def test_a_path_that_is_simply_missing_gets_no_note(kernel: Kernel, folders: Folders) -> None:
    result = kernel.run(f"open('{folders.documents}/no-such-file')")
    assert result.error.startswith("FileNotFoundError")
    assert result.shown == ""


def test_outside_the_ceiling_the_note_does_not_tell_what_exists(
    kernel: Kernel, folders: Folders
) -> None:
    there = kernel.run(f"open('{folders.outside}/private.txt')").shown
    missing = kernel.run(f"open('{folders.outside}/privacy.txt')").shown
    assert there
    assert there == missing.replace("privacy.txt", "private.txt")


def test_the_network_gets_a_note(kernel: Kernel) -> None:
    result = kernel.run("import urllib.request; urllib.request.urlopen('http://example.org')")
    assert result.status == "error"
    assert "network" in result.shown


def test_an_ordinary_error_gets_no_note(kernel: Kernel) -> None:
    assert kernel.run("1 / 0").shown == ""


def test_a_relative_path_without_the_notebooks_folder_is_explained(
    start: Start, ceiling: Path, folders: Folders
) -> None:
    kernel = start(ceiling, cwd=folders.documents.parent)
    result = kernel.run("open('Documents/report.txt')")
    assert "Relative paths start in the sandbox's scratch folder" in result.shown
    assert kernel.run(f"open('{folders.documents}/report.txt').read()").value == "'figures\\n'"
    assert kernel.run("open('/tmp/scratch/none')").status == "error"
