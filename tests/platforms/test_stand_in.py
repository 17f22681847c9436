"""A whole kernel on the host's code for Windows and macOS, against the stand-in executable."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from mxc_kernel.mxc.probe import TRIED
from tests.kernel.conftest import TIMEOUT, Kernel
from tests.platforms.windows_line import split_as_windows

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BACKENDS = ("processcontainer", "seatbelt")

pytestmark = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="the stand-in's walls are bubblewrap's"
)


class Machine:
    """A machine of another system.

    Attributes:
        backend: its backend.
        documents: a folder that the ceiling lets be read.
        downloads: a folder that the ceiling lets be written.
        outside: a folder that nobody grants.
    """

    def __init__(self, backend: str, folder: Path) -> None:
        self.backend = backend
        self.documents, self.downloads, self.outside = (
            folder / name for name in ("Documents", "Downloads", "outside")
        )
        for each in (self.documents, self.downloads, self.outside):
            each.mkdir()
            each.chmod(0o777)
        (self.documents / "report.txt").write_text("figures\n")
        (self.outside / "private.txt").write_text("private\n")
        self.log = folder / "log"
        self.stand_in = folder / "stand-in"
        source = (HERE / "stand_in.py").read_text()
        self.stand_in.write_text(f"#!{sys.executable} -I\n{source}")
        self.stand_in.chmod(0o755)
        ceiling = folder / "ceiling.toml"
        ceiling.write_text(
            f'[filesystem]\nreadonly = ["{self.documents}"]\nreadwrite = ["{self.downloads}"]\n'
            f'[start]\nreadonly = ["{self.documents}"]\n'
        )
        ceiling.chmod(0o644)
        self.environ = {
            **os.environ,
            "MXC_KERNEL_CEILING": str(ceiling),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
            "TMPDIR": str(folder),
            "PYTHONPATH": str(ROOT),
            "STAND_IN": str(self.stand_in),
            "STAND_IN_BACKEND": backend,
            "STAND_IN_LOG": str(self.log),
            "STAND_IN_TESTS": str(ROOT),
        }

    def launches(self) -> list[dict[str, Any]]:
        """What the stand-in was given, each time that it was started."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


StartHere = Callable[..., Kernel]


@pytest.fixture(params=BACKENDS)
def machine(request: pytest.FixtureRequest, sandbox_folder: Path) -> Machine:
    return Machine(request.param, sandbox_folder)


@pytest.fixture
def start(machine: Machine, tmp_path: Path) -> Iterator[StartHere]:
    """Start kernels on that machine; all of them end with the test."""
    folder = tmp_path / "kernels" / "stand-in"
    folder.mkdir(parents=True)
    spec = {
        "argv": [sys.executable, "-P", "-m", "tests.platforms.kernel", "-f", "{connection_file}"],
        "display_name": "stand-in",
        "language": "python",
        "interrupt_mode": "message",
    }
    (folder / "kernel.json").write_text(json.dumps(spec))
    started: list[Kernel] = []

    def start_one(**environ: str) -> Kernel:
        manager = KernelManager(
            kernel_name="stand-in",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(folder.parent)]),
            transport="ipc",
            connection_file=str(tmp_path / f"connection-{len(started)}.json"),
        )
        manager.start_kernel(cwd=str(tmp_path), env={**machine.environ, **environ})
        client = manager.client()
        client.start_channels()
        kernel = Kernel(manager, client)
        started.append(kernel)
        client.wait_for_ready(timeout=TIMEOUT)
        return kernel

    yield start_one
    for kernel in started:
        kernel.client.stop_channels()
        if kernel.manager.has_kernel:
            kernel.manager.shutdown_kernel()


def test_cells_run_and_only_what_is_granted_can_be_reached(
    machine: Machine, start: StartHere
) -> None:
    kernel = start()
    first = kernel.run("6 * 7")
    assert first.value == "42", first.error
    assert kernel.run(f"open({str(machine.documents / 'report.txt')!r}).read()").value == (
        "'figures\\n'"
    )
    for code in (
        f"open({str(machine.outside / 'private.txt')!r}).read()",
        f"open({str(machine.outside / 'new.txt')!r}, 'w')",
        f"open({str(machine.documents / 'new.txt')!r}, 'w')",
        f"open({str(machine.downloads / 'new.txt')!r}, 'w')",  # in the ceiling, not asked for
        "import socket; socket.create_connection(('127.0.0.1', 9), 2)",
    ):
        assert kernel.run(code).status == "error", code
    assert os.listdir(machine.outside) == ["private.txt"]
    assert os.listdir(machine.documents) == ["report.txt"]
    assert os.listdir(machine.downloads) == []


def test_a_change_of_policy_carries_the_names_to_a_new_sandbox(
    machine: Machine, start: StartHere
) -> None:
    kernel = start()
    kernel.run("x = list(range(1000))")
    written = machine.downloads / "out.txt"
    result = kernel.run(
        f"%allow_rw {machine.downloads}\nopen({str(written)!r}, 'w').write(str(sum(x)))"
    )
    assert result.status == "ok", result.error
    assert written.read_text() == "499500"
    granted = [launch["request"]["filesystem"]["readwritePaths"] for launch in machine.launches()]
    assert not any("Downloads" in path for path in granted[0])
    assert any("Downloads" in path for path in granted[-1])


def test_what_the_executable_is_given(machine: Machine, start: StartHere) -> None:
    kernel = start()
    assert kernel.run("1").value == "1"
    (launch,) = machine.launches()
    request = launch["request"]
    assert request["containment"] == machine.backend
    assert "MXC_KERNEL_CEILING" not in launch["environ"]  # nothing of the host's but what is named
    paths = [path for listed in request["filesystem"].values() for path in listed]
    if machine.backend == "processcontainer":
        assert all(path.startswith("C:\\") and "/" not in path for path in paths)
        assert split_as_windows(request["process"]["commandLine"])[0].startswith("C:\\")
        assert request["fallback"] == {"allowDaclMutation": False}
    else:
        assert request["seatbelt"]["keychainAccess"] is False
    # No folder that others use is granted, only one that was made for this sandbox.
    assert str(machine.environ["TMPDIR"]) not in paths
    (private,) = machine.stand_in.parent.glob("mxc-kernel-*")
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_an_interrupt_goes_through_the_frame_channel(machine: Machine, start: StartHere) -> None:
    kernel = start()
    msg_id = kernel.send("print('running', flush=True)\nwhile True:\n    pass")
    kernel.wait_for_text(msg_id, "running")
    kernel.interrupt()
    result = kernel.wait(msg_id)
    assert result.status == "error"
    assert result.error.startswith("KeyboardInterrupt")
    assert kernel.run("'still here'").value == "'still here'"


def test_megabytes_pass_both_ways(machine: Machine, start: StartHere) -> None:
    kernel = start()
    sent = "y" * 3_000_000
    assert kernel.run(f"s = {sent!r}\nlen(s)").value == "3000000"
    kernel.run(f"%allow_rw {machine.downloads}\nb = bytes(20_000_000)")
    assert kernel.run("%%sandbox --in b\nlen(b)").value == "20000000"
    assert (
        "100000 lines"
        in kernel.run("for i in range(100_000): print(i)\nprint('100000 lines')").stream()
    )


def test_magics_say_what_is_enforced_and_by_whom(machine: Machine, start: StartHere) -> None:
    kernel = start()
    kernel.run("1")
    said = kernel.run("%sandbox").shown
    assert machine.backend in said
    assert TRIED in said
    system = "Windows" if machine.backend == "processcontainer" else "macOS"
    assert system in said
    policy = kernel.run("%policy --json").shown
    assert machine.backend in policy


def processes(kernel: Kernel) -> list[psutil.Process]:
    return psutil.Process(kernel.manager.provisioner.pid).children(recursive=True)


def test_everything_a_cell_started_ends_with_the_kernel(machine: Machine, start: StartHere) -> None:
    kernel = start()
    code = (
        "import subprocess, sys\n"
        "sleeper = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "a = subprocess.Popen(sleeper)\n"
        "b = subprocess.Popen(sleeper, start_new_session=True)\n"
    )
    result = kernel.run(code)
    assert result.status == "ok", result.error
    before = processes(kernel)
    assert sum("time.sleep(600)" in process.cmdline()[-1] for process in before) == 2
    assert kernel.run("%sandbox").status == "ok"  # the host looks at the processes now
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel()
    assert not psutil.wait_procs(before, timeout=TIMEOUT)[1]
    assert not list(machine.stand_in.parent.glob("mxc-kernel-*"))  # nor its folder


def test_a_child_that_dies_is_replaced(machine: Machine, start: StartHere) -> None:
    kernel = start()
    result = kernel.run("import os; os._exit(3)")
    assert result.status == "error"
    assert kernel.run("'a fresh one'").value == "'a fresh one'"
    assert len(machine.launches()) == 2


def test_an_open_sandbox_is_found_out_before_any_code_runs(
    machine: Machine, start: StartHere
) -> None:
    kernel = start(STAND_IN_OPEN="1")
    result = kernel.run(f"open({str(machine.outside / 'ran')!r}, 'w')")
    assert result.status == "error"
    assert "was ended" in result.error
    assert os.listdir(machine.outside) == ["private.txt"]
    assert machine.launches()  # the control: it had been started
