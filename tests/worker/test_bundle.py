"""The code that goes to the child, and how the child comes to life with it."""

from __future__ import annotations

import json
import marshal
import os
import subprocess
import sys
from importlib.util import MAGIC_NUMBER

import pytest

from mxc_kernel.mxc import bundle
from mxc_kernel.wire import Channel

OTHER_MAGIC = b"\x00\x00\r\n"


def modules(magic):
    data = bundle.build(magic)
    size = int.from_bytes(data[:8], "big")
    assert size == len(data) - 8
    return marshal.loads(data[8:])


def test_it_holds_the_worker_and_nothing_of_the_host():
    names = set(modules(MAGIC_NUMBER))
    assert {"mxc_kernel", "mxc_kernel.wire", "mxc_kernel.worker.app", "cloudpickle"} <= names
    ours = {name for name in names if name.startswith("mxc_kernel")}
    assert {name.split(".")[1] for name in ours if "." in name} == {"wire", "worker"}


def test_bytecode_only_for_the_same_interpreter():
    assert all(is_code for name, (_, _, is_code, _) in modules(MAGIC_NUMBER).items() if "." in name)
    assert not any(is_code for _, _, is_code, _ in modules(OTHER_MAGIC).values())


@pytest.mark.parametrize("magic", [MAGIC_NUMBER, OTHER_MAGIC])
def test_the_host_s_folders_do_not_go_along(magic):
    here = os.path.dirname(bundle.__file__).encode()
    assert here not in bundle.build(magic)


@pytest.mark.parametrize("magic", [MAGIC_NUMBER, OTHER_MAGIC], ids=["bytecode", "source"])
def test_a_child_starts_from_it(start, magic):
    child = start(magic=magic)
    assert child.facts["pid"] == child.process.pid
    assert child.facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert child.facts["ipykernel"]
    assert child.ok("1 + 1") == "2"


def test_the_worker_is_not_taken_from_an_installed_package(start):
    child = start()
    child.ok("import mxc_kernel, mxc_kernel.worker.app as app")
    assert child.ok("mxc_kernel.__file__ if hasattr(mxc_kernel, '__file__') else None") is None
    assert child.run("import mxc_kernel.errors").reply["ename"] == "ModuleNotFoundError"


def test_a_package_of_the_child_s_own_comes_before_the_stand_in(start):
    child = start()
    child.ok("import cloudpickle")
    assert child.ok("cloudpickle.__spec__.origin.startswith('<')") == "False"


@pytest.mark.parametrize("sent", [b"", b"\0\0\0\0\0\0\1\0abc"])
def test_a_child_whose_host_goes_away_at_once_ends_quietly(sent):
    done = subprocess.run(
        bundle.command(sys.executable), input=sent, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_hello_comes_before_the_heavy_imports(start):
    """The host learns that the workload started even when ipykernel cannot be imported."""
    child = start(env={"PYTHONPATH": "/nonexistent"})
    assert json.dumps(child.facts)
    assert child.frame()[0] is Channel.IOPUB
