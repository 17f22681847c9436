"""Limits on memory and processes, where the machine lets the kernel make control groups."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from mxc_kernel.mxc import cgroup, delegation

from .conftest import Folders, Kernel, Start

FORKS = """
import os, signal
made, refused = [], None
try:
    for _ in range(100):
        pid = os.fork()
        if not pid:
            signal.pause()
        made.append(pid)
except BlockingIOError as error:
    refused = error.errno
finally:
    for pid in made:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
print(len(made), refused)
"""


# Each of the processes is under the limit.
SPREAD = """
import os, time
for _ in range(4):
    if not os.fork():
        held = bytearray(b'x') * (150 << 20)
        time.sleep(600)
time.sleep(600)
"""


@pytest.fixture
def refusals() -> dict[str, str]:
    """The limits that cannot be enforced on this machine."""
    group = cgroup.create(None, None)
    group.close()
    return group.refusals


def _limited(folders: Folders, limits: str) -> Path:
    path = folders.root / "limits.toml"
    path.write_text(f"[limits]\n{limits}\n", encoding="utf-8")
    path.chmod(0o644)
    return path


def _groups_of(pid: int) -> list[str]:
    """The control groups that a kernel has on this machine."""
    found = []
    for controller in ("memory", "pids"):
        try:
            folder = delegation.place_for(controller).folder
        except delegation.Refusal:
            continue
        found += [name for name in os.listdir(folder) if f"-{pid}-" in name]
    return found


def test_more_memory_than_the_limit_ends_the_sandbox_and_says_why(
    start: Start, folders: Folders, refusals: dict[str, str]
) -> None:
    kernel = start(_limited(folders, 'memory = "300MiB"'))
    assert kernel.run("len(bytearray(b'x') * (50 << 20))").value == str(50 << 20)
    shown = kernel.run("%sandbox").shown
    assert ("best effort" in shown) == ("memory" in refusals)
    assert refusals.get("memory", "a control group") in shown
    result = kernel.run(SPREAD)
    assert "the limit memory" in result.error or "its memory limit of 300MiB" in result.error
    assert kernel.run("1 + 1").value == "2"


def test_the_same_memory_is_fine_within_the_limit(start: Start, folders: Folders) -> None:
    kernel = start(_limited(folders, 'memory = "2GiB"'))
    assert kernel.run("len(bytearray(b'x') * (1 << 30))").value == str(1 << 30)


def test_more_processes_than_the_limit_are_refused(
    start: Start, folders: Folders, refusals: dict[str, str]
) -> None:
    kernel = start(_limited(folders, "processes = 40"))
    made, refused = kernel.run(FORKS).stream().split()
    assert int(made) < 40
    assert refused == "11"  # EAGAIN
    how = "RLIMIT_NPROC" if "processes" in refusals else "a control group"
    assert how in kernel.run("%sandbox").shown
    assert kernel.run("1 + 1").value == "2"


def test_as_many_processes_are_fine_under_the_default(kernel: Kernel) -> None:
    assert kernel.run(FORKS).stream() == "100 None\n"


def test_a_lower_limit_holds_at_once_in_the_same_sandbox(
    kernel: Kernel, refusals: dict[str, str]
) -> None:
    kernel.run("numbers = iter([1, 2, 3]); next(numbers); kept = (n for n in numbers)")
    assert kernel.run("%limits --processes 40").status == "ok"
    made = int(kernel.run(FORKS).stream().split()[0])
    assert made == 100 if "processes" in refusals else made < 40
    assert kernel.run("next(kept)").value == "2"  # a generator is not carried to a new sandbox


def test_no_group_is_left_after_a_shutdown(
    start: Start, ceiling: Path, refusals: dict[str, str]
) -> None:
    kernel = start(ceiling)
    kernel.run("1")
    pid = kernel.pid
    assert bool(_groups_of(pid)) == (len(refusals) < 2)
    kernel.manager.shutdown_kernel()
    assert not _groups_of(pid)


def test_a_killed_kernels_group_goes_with_the_next_start(
    start: Start, ceiling: Path, refusals: dict[str, str]
) -> None:
    kernel = start(ceiling)
    kernel.run("1")
    pid = kernel.pid
    below = psutil.Process(pid).children(recursive=True)
    os.kill(pid, signal.SIGKILL)
    assert not psutil.wait_procs(below, timeout=10)[1]
    kernel.manager.provisioner.process.wait(10)
    assert bool(_groups_of(pid)) == (len(refusals) < 2)
    start(ceiling).run("1")
    assert not _groups_of(pid)
