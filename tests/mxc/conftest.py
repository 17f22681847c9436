from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mxc_kernel.errors import SandboxUnavailableError
from mxc_kernel.mxc import binary, identity, provision

AS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="session")
def real_executable() -> str:
    """The pinned MXC executable; fetched if this machine does not have it yet."""
    try:
        with binary.open_verified() as found:
            return found.source
    except SandboxUnavailableError:
        return provision.fetch_executable(print)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that every user can enter and read; pytest's own are closed to others."""
    place = Path(tempfile.mkdtemp(prefix="mxc-kernel-test-", dir="/var/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def base_python() -> str:
    """A Python that the sandbox's user can run: as an ordinary user that is our own."""
    return provision._system_python()[0] if AS_ROOT else sys.executable


@pytest.fixture
def make_environment(base_python: str) -> Callable[..., str]:
    """Make a virtual environment with a stand-in for ipykernel in it; return its interpreter."""

    def make(home: Path, *, ipykernel: str | None = "7.1.0", base: str = base_python) -> str:
        subprocess.run([base, "-I", "-m", "venv", "--without-pip", home], check=True, umask=0o022)
        modules = next(home.glob("lib/python*/site-packages"))
        if ipykernel is not None:
            old = os.umask(0o022)
            (modules / "ipykernel").mkdir()
            (modules / "ipykernel" / "__init__.py").write_text("stand_in = True\n")
            (modules / f"ipykernel-{ipykernel}.dist-info").mkdir()
            os.umask(old)
        return str(home / "bin" / "python")

    return make


Judge = Callable[[dict[str, Any]], str]


@pytest.fixture(scope="session")
def judged() -> Iterator[Judge]:
    """Have the real executable judge a request without running anything; return what it says."""
    lease = identity.lease() if os.geteuid() == 0 else None
    user: dict[str, Any] = {}
    if lease is not None:
        user = {"user": lease.identity.uid, "group": lease.identity.gid, "extra_groups": []}
    with binary.open_verified() as executable:

        def judge(request: dict[str, Any]) -> str:
            coded = base64.b64encode(json.dumps(request).encode()).decode()
            done = subprocess.run(
                ["lxc-exec", "--config-base64", coded, "--dry-run"],
                executable=executable.exec_path,
                pass_fds=(executable.fd,),
                env={"PATH": binary.bwrap_directory()},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                **user,
            )
            return done.stdout + done.stderr

        yield judge
    if lease is not None:
        lease.close()
