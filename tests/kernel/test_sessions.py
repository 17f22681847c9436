"""What only a session can do: grants for one cell, throwaway cells, snapshots, a new ceiling."""

from __future__ import annotations

from pathlib import Path

import psutil

from .conftest import Folders, Kernel, Start, is_busy


def test_a_grant_for_one_cell_ends_with_it(kernel: Kernel, folders: Folders) -> None:
    target = folders.downloads / "f"
    write = f"open({str(target)!r}, 'w').close()"
    kernel.run("x = [1]\ny = x")
    result = kernel.run(f"%%allow_rw {folders.downloads}\n{write}\nx.append(2)\nx")
    assert result.value == "[1, 2]"
    assert target.exists()
    target.unlink()
    # Its names stay, its grant does not.
    assert kernel.run("x, x is y").value == "([1, 2], True)"
    assert kernel.run(write).status == "error"
    assert not target.exists()


def test_a_thread_of_such_a_cell_does_not_keep_the_grant(kernel: Kernel, folders: Folders) -> None:
    target = folders.downloads / "late"
    code = (
        "import threading, time\n"
        "def late():\n"
        "    while True:\n"
        f"        open({str(target)!r}, 'a').write('x'); time.sleep(0.02)\n"
        "threading.Thread(target=late, daemon=True).start()\n"
        "time.sleep(0.2)"
    )
    kernel.run(f"%%allow_rw {folders.downloads}\n{code}")
    size = target.stat().st_size
    assert size > 0  # the control: it did write while it might
    kernel.run("import time; time.sleep(0.3)")
    assert target.stat().st_size == size


def test_an_error_in_such_a_cell_ends_the_grant_too(kernel: Kernel, folders: Folders) -> None:
    write = f"open('{folders.downloads}/f', 'w').close()"
    failed = kernel.run(f"%%allow_rw {folders.downloads}\n\n1 / 0")
    assert failed.error.startswith("ZeroDivisionError")
    assert "line 3" in "\n".join(failed.of_type("error")[0]["content"]["traceback"])
    assert kernel.run(write).status == "error"


def test_a_throwaway_cell_has_exactly_its_grants_and_names(
    kernel: Kernel, folders: Folders
) -> None:
    kernel.run("secret = 1\ndata = {'rows': [1, 2, 3]}")
    report = f"open('{folders.documents}/report.txt').read()"
    result = kernel.run(
        "%%sandbox --in data --out total\n"
        "total = sum(data['rows'])\n"
        "made = 1\n"
        f"try: {report}\n"
        "except OSError: print('no file')\n"
        "print('secret' in dir())"
    )
    assert result.stream() == "no file\nFalse\n"
    assert kernel.run("total").value == "6"
    assert kernel.run("made").error.startswith("NameError")
    granted = kernel.run(f"%%sandbox --ro {folders.documents}\nprint({report})")
    assert "figures" in granted.stream()
    refused = kernel.run(f"%%sandbox --ro {folders.outside}\nprint('ran')")
    assert refused.error.startswith("SandboxPolicyError")
    assert refused.stream() == ""


def test_a_throwaway_cell_cannot_bring_code_into_the_session(kernel: Kernel) -> None:
    code = "class Trap:\n    def __reduce__(self): return print, ('it ran',)\ntrap = Trap()"
    refused = kernel.run(f"%%sandbox --out trap\n{code}")
    assert refused.error.startswith("SandboxPolicyError")
    assert "trap" in refused.error
    assert "it ran" not in refused.stream() + kernel.run("pass").stream()
    assert kernel.run("trap").error.startswith("NameError")
    asked_for = kernel.run(f"%%sandbox --out trap --objects\n{code}")
    assert asked_for.status == "ok", asked_for.error
    assert kernel.run("'trap' in dir()").value == "True"


def test_a_throwaway_cell_that_dies_leaves_the_session_alone(kernel: Kernel) -> None:
    kernel.run("x = 1")
    result = kernel.run("%%sandbox\nimport os; os._exit(1)")
    assert result.content["ename"] == "SandboxExecutionError"
    assert kernel.run("x").value == "1"


def test_a_throwaway_cell_can_be_interrupted_and_times_out(kernel: Kernel) -> None:
    kernel.run("x = 1")
    msg_id = kernel.send("%%sandbox\nprint('begun', flush=True)\nimport time; time.sleep(600)")
    kernel.wait_for_text(msg_id, "begun")
    kernel.interrupt()
    assert kernel.wait(msg_id).error.startswith("KeyboardInterrupt")
    late = kernel.run("%%sandbox --timeout 1s\nimport time; time.sleep(600)")
    assert late.content["ename"] == "SandboxTimeoutError"
    assert kernel.run("x").value == "1"


def test_a_checkpoint_can_be_restored(kernel: Kernel) -> None:
    kernel.run("x = {'kept': 1}\ndef f(): return x")
    assert "Checkpoint" in kernel.run("%checkpoint").shown
    kernel.run("x['kept'] = 2\ny = 3")
    result = kernel.run("%restore\nx, f() is x, 'y' in dir()")
    assert result.value == "({'kept': 1}, True, False)"
    assert "Restored as of" in result.shown


def test_names_can_be_brought_back_after_a_death(kernel: Kernel) -> None:
    kernel.run("x = 1")
    kernel.run("%checkpoint")
    kernel.run("import os; os._exit(1)")
    assert "%restore" in kernel.run("pass").shown
    assert kernel.run("x").error.startswith("NameError")
    assert kernel.run("%restore\nx").value == "1"


def test_nothing_to_restore_is_said(kernel: Kernel) -> None:
    kernel.run("x = 1")
    assert "no snapshot" in kernel.run("%restore").error
    assert kernel.run("x").value == "1"


def test_a_strict_change_is_refused_if_a_name_would_be_lost(
    kernel: Kernel, folders: Folders
) -> None:
    write = f"open('{folders.downloads}/f', 'w').close()"
    kernel.run("numbers = (n for n in range(3))\nnext(numbers)")
    refused = kernel.run(f"%allow_rw --strict {folders.downloads}\n{write}")
    assert "numbers" in refused.error
    assert not (folders.downloads / "f").exists()
    assert kernel.run("next(numbers)").value == "1"
    kernel.run("del numbers")
    assert kernel.run(f"%allow_rw --strict {folders.downloads}\n{write}").status == "ok"


def test_a_restart_by_magic_keeps_the_names_and_ends_the_processes(kernel: Kernel) -> None:
    kernel.run("import subprocess\nx = 1\nsubprocess.Popen(['sleep', '601'])\nNone")
    before = psutil.Process(kernel.pid).children(recursive=True)
    assert kernel.run("%sandbox restart\nx").value == "1"
    assert not psutil.wait_procs(before, timeout=10)[1]


def test_the_sandbox_tells_what_it_is(kernel: Kernel) -> None:
    shown = kernel.run("%sandbox").shown
    assert "bubblewrap" in shown
    assert "5bd6bdf4" in shown or "e8391d55" in shown  # the pinned executable's hash


def test_an_interrupt_while_names_are_packed_keeps_everything(
    kernel: Kernel, folders: Folders
) -> None:
    kernel.run(
        "import time\n"
        "class Slow:\n    def __reduce__(self): time.sleep(600); return Slow, ()\n"
        "x = 1\nslow = Slow()"
    )
    msg_id = kernel.send(f"%allow_rw {folders.downloads}")
    kernel.wait_for(msg_id, is_busy)
    kernel.interrupt()
    assert kernel.wait(msg_id).error.startswith("KeyboardInterrupt")
    assert kernel.run("del slow\nx").value == "1"
    # What the abandoned packing has left in the pipe is not taken for the next one's.
    assert kernel.run(f"%allow_rw {folders.downloads}\nx").value == "1"


def test_a_ceiling_that_narrows_counts_from_the_next_cell(
    kernel: Kernel, ceiling: Path, folders: Folders
) -> None:
    report = f"open('{folders.documents}/report.txt').read()"
    wide = ceiling.read_text()
    assert kernel.run(f"x = 1\n{report}").value == "'figures\\n'"
    ceiling.write_text(f'[filesystem]\nreadwrite = ["{folders.downloads}"]\n')
    assert kernel.run(report).status == "error"
    assert kernel.run("x").value == "1"
    # Wider again counts only for the next kernel.
    ceiling.write_text(wide)
    assert kernel.run(report).status == "error"


def test_a_project_file_only_narrows(start: Start, ceiling: Path, folders: Folders) -> None:
    project = folders.documents / ".mxc-ceiling.toml"
    outside = f"open('{folders.outside}/private.txt').read()"
    report = f"open('{folders.documents}/report.txt').read()"
    project.write_text(f'[filesystem]\nreadonly = ["{folders.documents}", "{folders.outside}"]\n')
    folders.documents.chmod(0o755)  # a ceiling where anybody may write is refused
    kernel = start(ceiling, cwd=folders.documents)
    assert kernel.run(report).value == "'figures\\n'"
    assert kernel.run(f"%allow_ro {folders.outside}\n{outside}").status == "error"
    assert kernel.run(f"%allow_rw {folders.downloads}").status == "error"
    assert start(ceiling).run(f"%allow_rw {folders.downloads}").status == "ok"


def test_a_git_hook_in_a_writable_folder_cannot_be_planted(
    kernel: Kernel, folders: Folders
) -> None:
    hooks = folders.downloads / ".git" / "hooks"
    hooks.mkdir(parents=True)
    for folder in (hooks.parent, hooks):
        folder.chmod(0o777)
    plant = f"open('{hooks}/post-commit', 'w').write('evil')"
    kernel.run(f"%allow_rw {folders.downloads}")
    assert kernel.run(plant).status == "error"
    moved = f"import os, shutil; os.rename('{hooks.parent}', '{folders.downloads}/x')"
    assert kernel.run(moved).status == "error"
    assert list(hooks.iterdir()) == []
    assert kernel.run(f"open('{folders.downloads}/ordinary', 'w').close()").status == "ok"
    assert (folders.downloads / "ordinary").exists()


def test_a_protected_file_that_was_replaced_outside_is_protected_again(
    kernel: Kernel, folders: Folders
) -> None:
    config = folders.downloads / ".git" / "config"
    config.parent.mkdir()
    config.write_text("[core]\n")
    for path in (config.parent, config):
        path.chmod(0o777)
    write = f"open('{config}', 'a').write('evil')"
    kernel.run(f"%allow_rw {folders.downloads}\nx = 1")
    assert kernel.run(write).status == "error"
    fresh = config.with_name("config.new")  # as git and editors save
    fresh.write_text("[core]\nbare = false\n")
    fresh.chmod(0o777)
    fresh.replace(config)
    assert kernel.run(write).status == "error"
    assert "evil" not in config.read_text()
    assert kernel.run("x").value == "1"
    assert kernel.run(f"open('{folders.downloads}/ordinary', 'w').close()").status == "ok"
