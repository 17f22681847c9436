"""Runs a test suite that others wrote against one kernel, and judges what came out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from jupyter_client.kernelspec import KernelSpecManager

from tests.conformance.sources import source, tools

__all__ = ["OURS", "SUITES", "Suite", "differences", "environment", "judge", "run", "world"]

OURS = "mxc-python"
HERE = Path(__file__).parent
TEST_TIMEOUT = 100  # seconds for one test; theirs is 30, on a machine of its own


@dataclass(frozen=True)
class Suite:
    """A test suite of another project.

    Args:
        package: its name at the package index, installed here in the version to be tested.
        tree: the folder of the source distribution that its tests need; for ipykernel and nbclient
            not the package itself, which would be a second copy of the installed one.
        tests: the folder of its tests.
        files: those that speak to a running kernel; what the others test is not a kernel.
    """

    package: str
    tree: str
    tests: str
    files: tuple[str, ...]


SUITES = (
    Suite(
        "ipykernel",
        "tests",
        "tests",
        (
            "test_async.py",
            "test_comm.py",
            "test_connect.py",
            "test_debugger.py",
            "test_kernel.py",
            "test_message_spec.py",
            "test_subshell_wedge.py",
            "test_subshells.py",
        ),
    ),
    Suite("nbclient", "tests", "tests", ("test_client.py",)),
    Suite(
        "papermill",
        "papermill",
        "papermill/tests",
        ("test_autosave.py", "test_clientwrap.py", "test_engines.py", "test_execute.py"),
    ),
)


@contextmanager
def world() -> Iterator[Path]:
    """Yield a folder for one run: `tmp`, a ceiling that grants it, and our kernel as ``python3``.

    The ceiling trusts output: what is made safe otherwise differs from ipykernel on purpose.
    """
    with TemporaryDirectory(prefix="mxc-conformance-", dir="/var/tmp") as name:
        root = Path(os.path.realpath(name))
        root.chmod(0o755)
        (root / "tmp").mkdir()
        (root / "tmp").chmod(0o777)
        grant = f'readwrite = ["{root}/tmp"]\n'
        ceiling = root / "ceiling.toml"
        ceiling.write_text(
            f'[filesystem]\n{grant}[start]\n{grant}[output]\nhtml = "trusted"\n[limits]\n'
            'output = "64MiB"\n'
        )
        spec = root / "jupyter" / "kernels" / "python3"
        spec.mkdir(parents=True)
        ours = KernelSpecManager().get_kernel_spec(OURS).to_dict()
        (spec / "kernel.json").write_text(json.dumps(ours))
        yield root


def environment(root: Path, *, ours: bool) -> dict[str, str]:
    """Return the environment in which ``python3`` is our kernel, or ipykernel as the control."""
    chosen = {
        **{name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": f"{root}/tmp",
        "XDG_CONFIG_HOME": f"{root}/config",
        "XDG_STATE_HOME": f"{root}/state",
        "IPYTHONDIR": f"{root}/ipython",
        "MXC_KERNEL_CEILING": f"{root}/ceiling.toml",
    }
    if ours:
        chosen["JUPYTER_PATH"] = f"{root}/jupyter"
    return chosen


def run(suite: Suite, root: Path, *, ours: bool) -> dict[str, str]:
    """Run a suite.

    Returns:
        ``passed``, ``failed`` or ``skipped`` for every test, by "file::test".

    Raises:
        RuntimeError: pytest could not run it.
    """
    work = root / "tmp" / f"{suite.package}-{'ours' if ours else 'control'}"
    shutil.copytree(source(suite.package) / suite.tree, work / suite.tree)
    for path in (work, *work.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    report = root / f"{work.name}.xml"
    paths = (str(HERE / "foreign"), str(tools()), str(work))
    options = (
        *("-c", os.devnull, f"--rootdir={work}", "--quiet", "--tb=short", "-W", "ignore"),
        *("-p", "no:cacheprovider", "-p", "open_folders"),
        *("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"),
        *(f"--timeout={TEST_TIMEOUT}", f"--junitxml={report}", "-o", "junit_family=xunit1"),
    )
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "pytest", *options),
            *(f"{work}/{suite.tests}/{file}" for file in suite.files),
        ],
        cwd=work,
        env={**environment(root, ours=ours), "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {done.returncode} on the tests of {suite.package}")
    return outcomes(report)


def outcomes(report: Path) -> dict[str, str]:
    """Read what pytest wrote about each test."""
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        file = Path(case.get("file", ""))
        group = case.get("classname", "").rpartition(".")[2]
        name = "::".join(
            [file.name, *([group] if group != file.stem else []), case.get("name", "")]
        )
        tags = {child.tag for child in case}
        found[name] = "failed" if tags & {"failure", "error"} else (
            "skipped" if "skipped" in tags else "passed"
        )  # fmt: skip
    return found


def differences(package: str) -> dict[str, str]:
    """Return the tests that must fail here, each with its reason."""
    with (HERE / "differences.toml").open("rb") as file:
        return dict(tomllib.load(file).get(package, {}))


def judge(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """Compare outcomes with the tests that must fail; an empty list is what was expected.

    A listed test that passes is wrong too: the list would then hide its next failure.
    """
    problems = [
        f"{name}: failed" for name, how in found.items() if how == "failed" and name not in expected
    ]
    problems += [
        f"{name}: {found.get(name, 'did not run')}, but differences.toml says that it must fail"
        for name in expected
        if found.get(name) != "failed"
    ]
    if "passed" not in found.values():
        problems.append("no test passed")
    return problems
