"""A second sandbox that stands ready: what it serves, and what it never serves."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.kernel.conftest import TIMEOUT, Folders, Kernel, Start


@pytest.fixture
def with_spare(start: Start, ceiling: Path) -> Kernel:
    ceiling.write_text(ceiling.read_text() + "\n[sandbox]\nspare = true\n")
    return start(ceiling)


def sandboxes(kernel: Kernel) -> set[int]:
    """The host's pids of the Pythons inside, told by the process tree: those without children."""
    below = psutil.Process(kernel.pid).children(recursive=True)
    return {process.pid for process in below if process.name().startswith("python")}


def in_force(kernel: Kernel) -> int:
    """The pid of the sandbox that runs the cells, by the host's own word."""
    shown = kernel.run("%sandbox").shown
    line = next(line for line in shown.splitlines() if line.strip().startswith("process "))
    return int(line.split()[-1])


def spare(kernel: Kernel) -> int:
    """Wait until a spare is ready, and return its pid."""
    for _ in range(TIMEOUT * 10):
        if "spare sandbox" in kernel.run("%sandbox").shown:
            (other,) = sandboxes(kernel) - {in_force(kernel)}
            return other
        kernel.stale_iopub()  # waits a little
    raise AssertionError("no spare came up")


def test_there_is_none_unless_the_operator_wants_one(kernel: Kernel) -> None:
    kernel.run("x = 1")
    assert sandboxes(kernel) == {in_force(kernel)}


def test_restart_takes_the_spare_and_keeps_the_names(with_spare: Kernel) -> None:
    kernel = with_spare
    kernel.run("x = 41")
    ready = spare(kernel)
    result = kernel.run("%sandbox restart\nx + 1")
    assert result.value == "42", (result.error, result.shown)
    assert in_force(kernel) == ready
    assert spare(kernel) != ready  # the next one


def test_after_a_death_the_spare_goes_on(with_spare: Kernel) -> None:
    kernel = with_spare
    kernel.run("pass")
    ready = spare(kernel)
    assert kernel.run("import os; os._exit(1)").status == "error"
    assert kernel.run("'alive'").value == "'alive'"
    assert in_force(kernel) == ready


def test_a_throwaway_cell_without_grants_runs_in_the_spare(with_spare: Kernel) -> None:
    kernel = with_spare
    kernel.run("pass")
    ready = spare(kernel)
    main = in_force(kernel)
    assert "gone" in kernel.run("%%sandbox\nprint('gone')").stream()
    assert in_force(kernel) == main
    assert ready not in sandboxes(kernel)


def test_a_change_of_policy_never_takes_it(with_spare: Kernel, folders: Folders) -> None:
    kernel = with_spare
    kernel.run("pass")
    older = spare(kernel)
    wrote = folders.downloads / "made.txt"
    assert (
        kernel.run(f"%allow_rw {folders.downloads}\nopen({str(wrote)!r}, 'w').close()").status
        == "ok"
    )
    assert in_force(kernel) != older
    wrote.unlink()
    # And the spare of the old policy is of no more use: a restart keeps what was granted.
    assert spare(kernel) != older
    assert kernel.run(f"%sandbox restart\nopen({str(wrote)!r}, 'w').close()").status == "ok"
    assert wrote.exists()
    assert older not in sandboxes(kernel)


def test_it_ends_with_the_kernel(with_spare: Kernel) -> None:
    kernel = with_spare
    kernel.run("pass")
    spare(kernel)
    below = psutil.Process(kernel.pid).children(recursive=True)
    kernel.manager.shutdown_kernel()
    assert not psutil.wait_procs(below, timeout=10)[1]
