"""Every process of a sandbox is found and ended where there is no namespace that does it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from mxc_kernel.mxc.tree import Process, Tree, belonging, running

FAMILY = """
import os, subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
pids = [subprocess.Popen(sleeper).pid, subprocess.Popen(sleeper, start_new_session=True).pid]
# A daemon: it leaves the group, and its parent ends.
middle = '''
import subprocess, sys
print(subprocess.Popen(sys.argv[1:], stdout=2, start_new_session=True).pid, flush=True)
sys.stdin.readline()
'''
pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
orphan = subprocess.Popen([sys.executable, "-c", middle, *sleeper], **pipes)
pids.append(int(orphan.stdout.readline()))
print(*pids, flush=True)
sys.stdin.readline()
orphan.communicate("")
print("orphaned", flush=True)
time.sleep(600)
"""


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[bytes], list[psutil.Process]]]:
    """A launcher with a child in its group, one that left it, and one whose parent will end."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", FAMILY.replace("sys.stdout.readline = None\n", "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert launcher.stdout is not None
    found = [psutil.Process(int(pid)) for pid in launcher.stdout.readline().split()]
    yield launcher, found
    for process in found:
        if process.is_running():
            process.kill()
    launcher.kill()
    launcher.communicate()


def test_all_are_ended_also_those_that_left_and_lost_their_parents(
    family: tuple[subprocess.Popen[bytes], list[psutil.Process]],
) -> None:
    launcher, processes = family
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    tree = Tree()
    tree.adopt(launcher)
    assert {process.pid for process in processes} <= {row.pid for row in tree.look()}
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    launcher.stdin.write(b"\n")
    launcher.stdin.flush()
    assert launcher.stdout.readline() == b"orphaned\n"
    assert tree.memory() > 0
    assert tree.end(30)
    launcher.wait(30)
    assert not psutil.wait_procs(processes, timeout=30)[1]
    assert tree.end(30)  # and again, when there is nothing left
    tree.close()
    assert bystander.poll() is None  # the control: nobody else was touched
    bystander.communicate()


def row(pid: int, parent: int, group: int, *, state: str = "S", started: str = "now") -> Process:
    return Process(pid, parent, group, 4096, state, started)


def test_a_number_that_was_given_to_another_process_is_not_taken_for_the_first() -> None:
    table = [row(10, 1, 10, started="later"), row(11, 10, 10)]
    assert belonging(table, {10: "earlier"}, set()) == []
    assert [each.pid for each in belonging(table, {10: "later"}, set())] == [10, 11]


def test_what_has_ended_is_not_waited_for() -> None:
    table = [row(10, 1, 10, state="Z"), row(11, 10, 99), row(12, 1, 10)]
    assert [each.pid for each in belonging(table, {}, {10})] == [11, 12]


def test_the_table_shows_this_very_process() -> None:
    me = psutil.Process()
    (found,) = [each for each in running() if each.pid == me.pid]
    assert found.parent == me.ppid()
    assert found.memory > 0
