"""The shortcuts of the start, and the plain way where they do not fit."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = "import sys; sorted({'jupyter_client.manager', 'debugpy'} & set(sys.modules))"


def test_the_shortcuts_leave_out_what_a_kernel_does_not_need(start):
    assert start().ok(LOADED) == "[]"


def test_without_them_the_child_works_as_well(start):
    child = start(env={"MXC_KERNEL_LEAN": "0"})
    assert "jupyter_client.manager" in child.ok(LOADED)


def test_the_bare_package_is_whole_when_asked(start):
    child = start()
    child.ok("from jupyter_client import KernelManager\nimport jupyter_client")
    assert child.ok("jupyter_client.KernelManager is KernelManager") == "True"
    assert child.ok("jupyter_client.session.Session.__module__") == "'jupyter_client.session'"
    assert child.run("jupyter_client.nothing_of_that_name").reply["ename"] == "AttributeError"


BROKEN = """
import sys
from importlib.machinery import PathFinder
from mxc_kernel.worker import lean

class Refuse:  # as if a future release had another layout: the first attempt fails half-way
    refused = False
    def find_spec(self, name, path=None, target=None):
        if name == {refuse!r} and not Refuse.refused:
            Refuse.refused = True
            raise {error}
        return None

sys.meta_path.insert(0, Refuse())
module = lean.import_kernel_application()
import ipykernel.debugger, jupyter_client
assert Refuse.refused
assert module.IPKernelApp.name == "ipython-kernel"
assert type(jupyter_client.KernelManager) is not None
assert "jupyter_client.manager" in sys.modules
assert not hasattr(ipykernel.debugger.Debugger, "_describe")
print("plain")
"""


@pytest.mark.parametrize("refuse", ["jupyter_client.session", "ipykernel.zmqshell"])
@pytest.mark.parametrize("error", ["ImportError('moved')", "AttributeError('gone')"])
def test_a_layout_that_does_not_fit_falls_back_to_the_plain_import(refuse, error):
    code = BROKEN.format(refuse=refuse, error=error)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("plain\n", 0), done.stderr


def test_without_loopback_there_is_no_debugger(monkeypatch):
    from mxc_kernel.worker import lean

    class Refusing:
        def __enter__(self):
            raise OSError("no such network")

        def __exit__(self, *args):
            pass

    assert lean._has_loopback()
    monkeypatch.setattr(lean.socket, "socket", Refusing)
    assert not lean._has_loopback()
