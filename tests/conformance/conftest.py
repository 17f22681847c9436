"""One kernel for all tests of a file: ours, and plain ipykernel as the control."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

from tests.kernel.conftest import TIMEOUT, Kernel

KERNELS = {"mxc-kernel": "mxc-python", "ipykernel": "python3"}


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder that both kernels may write."""
    path = Path(os.path.realpath(tempfile.mkdtemp(prefix="mxc-kernel-test-", dir="/var/tmp")))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module", params=KERNELS)
def kernel(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Kernel]:
    """A kernel that the tests of a file share, under a ceiling that changes no output."""
    private = Path(tempfile.mkdtemp(prefix="mxc-kernel-test-"))  # short: a socket's path is limited
    ceiling = private / "ceiling.toml"
    grant = f'readwrite = ["{scratch}"]\n'
    ceiling.write_text(
        f'[filesystem]\n{grant}[start]\n{grant}[output]\nhtml = "trusted"\n'
        '[limits]\noutput = "64MiB"\n'
    )
    environment = {
        **os.environ,
        "MXC_KERNEL_CEILING": str(ceiling),
        "XDG_CONFIG_HOME": str(private),
        "IPYTHONDIR": str(private / "ipython"),
    }
    manager = KernelManager(kernel_name=KERNELS[request.param], transport="ipc")
    manager.connection_file = str(private / "connection.json")
    manager.start_kernel(cwd=str(scratch), env=environment)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=TIMEOUT)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        shutil.rmtree(private)
