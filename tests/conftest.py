"""What every test of the sandbox needs: a set-up machine and folders that the sandbox can reach."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Time is never a reason to fail here. In CI the examples are always the same, so that a change is
# judged by what it changed; new ones are looked for on developers' machines.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session", autouse=True)
def _no_trail_of_the_developer() -> Iterator[None]:
    """Keep the kernels of tests out of the audit trail of whoever runs them."""
    with (
        tempfile.TemporaryDirectory(prefix="mxc-kernel-state-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("XDG_STATE_HOME", folder)
        yield


_FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figures(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Take a line that is printed when all tests are over: what a long run has measured."""
    return pytestconfig.stash.setdefault(_FIGURES, []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash.get(_FIGURES, [])
    if lines and "MXC_KERNEL_CHAOS_CELLS" in os.environ:  # `make soak`
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def installed_kernelspec() -> str:
    """The kernel's name, as this environment's kernelspec registers it (`make setup` ran)."""
    from jupyter_client.kernelspec import KernelSpecManager

    name = "mxc-python"
    KernelSpecManager().get_kernel_spec(name)
    return name


@pytest.fixture
def sandbox_folder() -> Iterator[Path]:
    """An empty folder whose way is open to the uid that a sandbox is given when started as root.

    pytest's own ``tmp_path`` lies below a 0700 folder.
    """
    path = Path(tempfile.mkdtemp(prefix="mxc-kernel-test-", dir="/var/tmp"))
    path.chmod(0o755)
    yield Path(os.path.realpath(path))
    shutil.rmtree(path)
