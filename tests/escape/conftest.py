"""Two stages for attacks.

The box runs an attack in the real sandbox twice: as a cell would, and with the hardening left out.
What fails in the first and succeeds in the second was stopped by the hardening and nothing else. No
Jupyter: the launcher, the executable, the contract and the worker's hardening are the real ones.

The stage is a user's home with a real kernel in it. The tests of a file share it, and leave it as
they found it.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import mxc_kernel.worker.hardening
from mxc_kernel.mxc import binary, contract, filters, identity, launcher, runtime
from mxc_kernel.policy import Filesystem, Network, NetworkMode, plan_mounts

from .stage import Stage

PATIENCE = 60.0  # seconds
MACHINE = os.uname().machine

# The hardening comes as text, as the worker's modules do; what an attack needs comes after it.
_FRAME = """
import json, sys
orders = json.loads(sys.stdin.readline())
if orders["hardening"] is not None:
    scope = {"__name__": "hardening"}
    exec(orders["source"], scope)
    scope["harden"](orders["hardening"])
exec(orders["prelude"])
"""
_PRELUDE = """
import ctypes, errno, os, signal, socket, struct, subprocess, sys
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

def call(number, *arguments):
    'Make a system call; return its result, or the name of the error.'
    ctypes.set_errno(0)
    words = [ctypes.c_ulong(a & (1 << 64) - 1) if isinstance(a, int) else a for a in arguments]
    result = _libc.syscall(ctypes.c_long(number), *words)
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]

def tried(function, *arguments, **options):
    'Call a function; return its result, or the name of the error.'
    try:
        return function(*arguments, **options)
    except OSError as error:
        return errno.errorcode[error.errno]

def ended(function):
    'Run a function in a child; return its exit status, negative for a signal, and the dump flag.'
    pid = os.fork()
    if not pid:
        function()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return [os.waitstatus_to_exitcode(status), os.WCOREDUMP(status)]
"""


@dataclass(frozen=True)
class Box:
    """A sandbox under a policy, to run one attack after another in.

    Args:
        user: whom it runs as; None for ourselves.
        python: its interpreter.
        executable: the verified MXC executable.
        granted: a folder to read.
        writable: a folder to write, with a denied one and a denied file in it.
        numbers: of system calls, by name.
    """

    user: identity.Identity | None
    python: runtime.Interpreter
    executable: binary.VerifiedBinary
    granted: Path
    writable: Path
    numbers: Callable[[str], int] = field(repr=False)

    @property
    def denied(self) -> Path:
        return self.writable / "denied"

    def run(self, code: str, *, hardened: bool = True) -> Any:
        """Run code that leaves its answer in ``answer``; return that."""
        process, orders = self.start(hardened=hardened)
        sent = json.dumps(orders | {"prelude": f"{_PRELUDE}\n{code}\nprint(json.dumps(answer))"})
        try:
            said = _exchange(process, sent.encode() + b"\n")
            assert said, process.diagnostics
            return json.loads(said)
        finally:
            process.close()

    def both(self, code: str) -> tuple[Any, Any]:
        """Return the answers of a sandbox as it should be, and of one without the hardening."""
        return self.run(code), self.run(code, hardened=False)

    def start(self, *, hardened: bool) -> tuple[launcher.SandboxProcess, dict[str, Any]]:
        """Start a sandbox that waits for its orders; return it, and what they begin with."""
        mounts = plan_mounts(
            Filesystem.of(
                readonly=[str(self.granted)],
                readwrite=[str(self.writable)],
                denied=[str(self.denied), str(self.writable / "denied.txt")],
            )
        )
        workload = contract.Workload(
            name="escape-test",
            command=(self.python.executable, "-P", "-s", "-c", _FRAME),
            cwd="/tmp",
            environment={"PATH": "/usr/bin:/bin", "HOME": "/tmp"},
            readonly=self.python.readonly,
        )
        request = contract.render(mounts, Network(NetworkMode.CLOSED), workload)
        process = launcher.launch(
            self.executable, binary.bwrap_directory(), json.dumps(request).encode(), self.user
        )
        programs = [_base64(program) for program in filters.load(MACHINE)]
        hardening = {
            "writable": mounts.readwrite,
            "masked": mounts.denied,
            "programs": programs,
        }
        source = Path(mxc_kernel.worker.hardening.__file__).read_text("utf-8")
        return process, {"hardening": hardening if hardened else None, "source": source}


def _base64(data: bytes) -> str:
    from binascii import b2a_base64

    return b2a_base64(data).decode()


def _exchange(process: launcher.SandboxProcess, data: bytes) -> bytes:
    """Send all of the data, and read to the end."""
    said, end = b"", time.monotonic() + PATIENCE
    waiting = memoryview(data)
    while time.monotonic() < end:
        writers: Sequence[int] = [process.stdin] if waiting else []
        readable, writable, _ = select.select([process.stdout], writers, [], 1)
        if writable:
            waiting = waiting[os.write(process.stdin, waiting) :]
        if readable:
            some = os.read(process.stdout, 1 << 16)
            if not some:
                process.read_diagnostics()
                return said
            said += some
        process.read_diagnostics()
    raise AssertionError(f"no answer in time: {process.diagnostics}")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A sandbox with one folder to read and one to write."""
    import shutil
    import tempfile

    import pyseccomp

    root = Path(tempfile.mkdtemp(prefix="mxc-kernel-test-", dir="/var/tmp"))
    root.chmod(0o755)
    granted, writable = root / "granted", root / "writable"
    for folder in (granted, writable, writable / "denied", root / "outside"):
        folder.mkdir()
        folder.chmod(0o777)
    (granted / "report.txt").write_text("figures")
    (writable / "denied.txt").write_text("private")
    (root / "outside" / "private.txt").write_text("private")
    held = identity.lease() if os.geteuid() == 0 else None
    try:
        user = held.identity if held is not None else None
        with binary.open_verified() as executable:
            yield Box(
                user,
                runtime.default(user),
                executable,
                granted,
                writable,
                lambda name: pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name),
            )
    finally:
        if held is not None:
            held.close()
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def stage(installed_kernelspec: str) -> Iterator[Stage]:
    """A home with a kernel in it, for all tests of a file."""
    with Stage(installed_kernelspec) as made:
        yield made
