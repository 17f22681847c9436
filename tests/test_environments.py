"""Machines on which something is missing or broken: what a user sees in the cell and in the doctor.

Each is made for real, in a mount namespace (and where need be a user namespace) of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can mount something over the system's own folders"
)

ROOT = Path(__file__).parents[1]

# Another /usr/bin, changed without a trace outside: its upper layer is a tmpfs of the namespace.
_OWN_PROGRAMS = """
mkdir {work}/layers
mount -t tmpfs tmpfs {work}/layers
mkdir {work}/layers/upper {work}/layers/work
programs=$(dirname "$(readlink -f /usr/bin/bwrap)")
mount -t overlay overlay \
    -o lowerdir=$programs,upperdir={work}/layers/upper,workdir={work}/layers/work $programs
rm $programs/bwrap
"""
# A user namespace with all users in it. Who enters it has no uid, and so loses its capabilities at
# the next program, until the map is written; the program after that has them again.
_USERS = """
unshare --user --mount sh -c 'until [ "$(id -u)" = 0 ]; do sleep 0.02; done; exec "$@"' sh "$@" &
until [ "$(readlink /proc/$!/ns/user)" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.02; done
echo 0 0 4000000000 > /proc/$!/gid_map
echo 0 0 4000000000 > /proc/$!/uid_map
wait $!
"""
_OLD = """
cat > $programs/bwrap <<'OLD'
#!/bin/sh
[ "$1" = --version ] && echo "bubblewrap 0.1.8" && exit
echo "bwrap: Unknown option $1" >&2
exit 1
OLD
chmod 755 $programs/bwrap
"""


@dataclass
class Seen:
    """What a user sees."""

    cell: dict[str, Any]
    checks: dict[str, dict[str, str]]
    doctor_status: int
    ran: bool

    def failed(self) -> list[str]:
        return [name for name, check in self.checks.items() if check["status"] == "fail"]


@pytest.fixture
def look(sandbox_folder: Path) -> Callable[..., Seen]:
    """Break something, run a cell that leaves a file behind, ask the doctor, and report."""
    work, granted = sandbox_folder / "work", sandbox_folder / "granted"
    for folder in (work, granted):
        folder.mkdir()
        folder.chmod(0o777)
    ceiling = sandbox_folder / "ceiling.toml"
    ceiling.write_text(
        f'[filesystem]\nreadwrite = ["{granted}"]\n\n[start]\nreadwrite = ["{granted}"]\n'
    )
    ceiling.chmod(0o644)

    def run(setup: str = "", *, user_namespace: bool = False, **environ: str) -> Seen:
        code = f"open({str(granted / 'ran')!r}, 'w').close()\n'done'"
        script = f'set -e\n{setup.format(work=work)}\nexec "$@"'
        environment = {
            **os.environ,
            "MXC_KERNEL_CEILING": str(ceiling),
            "XDG_STATE_HOME": str(work / "state"),
            **{name: value.format(work=work) for name, value in environ.items()},
        }
        enter = ("sh", "-c", _USERS, "sh") if user_namespace else ("unshare", "--mount")
        look_here = (sys.executable, "-P", "-m", "tests.environment")
        done = subprocess.run(
            [*enter, "sh", "-c", script, "sh", *look_here, code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["left"] == []
        doctor = found["doctor"]
        return Seen(found["cell"], doctor["checks"], doctor["status"], (granted / "ran").exists())

    return run


def _is_refused(seen: Seen, error: str, words: str, check: str, remedy: str) -> None:
    """No cell ran, the cell says why and what to do, and so does the doctor."""
    assert not seen.ran
    assert seen.cell["status"] == "error"
    assert seen.cell["error"].startswith(f"{error}: "), seen.cell
    assert words in seen.cell["shown"]
    assert seen.doctor_status == 1
    assert check in seen.failed(), seen.checks
    assert remedy in seen.checks[check]["remedy"], seen.checks[check]


def test_a_healthy_machine(look: Callable[..., Seen]) -> None:
    """The control for all that follows."""
    seen = look()
    assert seen.cell["status"] == "ok"
    assert seen.ran
    assert seen.failed() == []


def test_no_bubblewrap(look: Callable[..., Seen]) -> None:
    _is_refused(
        look(_OWN_PROGRAMS),
        "SandboxUnavailableError",
        "apt-get install bubblewrap",
        "bubblewrap",
        "apt-get install bubblewrap",
    )


def test_a_bubblewrap_that_is_too_old(look: Callable[..., Seen]) -> None:
    seen = look(_OWN_PROGRAMS + _OLD)
    _is_refused(
        seen,
        "SandboxExecutionError",
        "Run `mxc-kernel doctor`.",
        "user namespaces",
        "Install bubblewrap 0.8.0 or newer.",
    )
    assert "0.1.8" in seen.checks["bubblewrap"]["detail"]


def test_no_user_namespaces(look: Callable[..., Seen]) -> None:
    # The switch belongs to a user namespace; outside of this one nothing changes.
    seen = look("echo 0 > /proc/sys/user/max_user_namespaces", user_namespace=True)
    _is_refused(
        seen,
        "SandboxExecutionError",
        "Run `mxc-kernel doctor`.",
        "user namespaces",
        "sysctl -w user.max_user_namespaces=15000",
    )
    assert look(user_namespace=True).ran  # the control: it is the switch, not the namespace


def test_a_container_that_masks_parts_of_proc(look: Callable[..., Seen]) -> None:
    # As Docker does; Linux then lets nobody mount a /proc of his own, since it would show them.
    _is_refused(
        look("mount --bind /dev/null /proc/timer_list"),
        "SandboxExecutionError",
        "Run `mxc-kernel doctor`.",
        "user namespaces",
        "systempaths=unconfined",
    )


def test_no_shared_memory(look: Callable[..., Seen]) -> None:
    seen = look("umount -l /dev/shm; mount -t tmpfs -o ro tmpfs /dev/shm")
    assert seen.cell["status"] == "ok", seen.cell  # the sandbox has a /dev/shm of its own
    assert seen.ran
    assert seen.failed() == []


FULL = """
mkdir {work}/full
mount -t tmpfs -o size=64k tmpfs {work}/full
dd if=/dev/zero of={work}/full/filler bs=4k count=100 2>/dev/null || true
"""
READONLY = """
mkdir {work}/home
mount -t tmpfs -o ro tmpfs {work}/home
"""


def test_a_full_disk(look: Callable[..., Seen]) -> None:
    seen = look(FULL, XDG_STATE_HOME="{work}/full", HOME="{work}/full")
    _is_refused(seen, "AuditError", "No space left on device", "audit trail", "Make room")


def test_a_readonly_home(look: Callable[..., Seen]) -> None:
    seen = look(READONLY, XDG_STATE_HOME="", HOME="{work}/home")
    _is_refused(seen, "AuditError", "Read-only file system", "audit trail", "writable")


@pytest.mark.parametrize(
    ("setup", "folder"), [(FULL, "full"), (READONLY, "home")], ids=["full", "read-only"]
)
def test_no_room_for_temporary_files(look: Callable[..., Seen], setup: str, folder: str) -> None:
    seen = look(setup, KERNELS_TMPDIR=f"{{work}}/{folder}")
    assert seen.cell["status"] == "ok", seen.cell  # the kernel itself needs none
    assert seen.ran
    assert seen.failed() == []
