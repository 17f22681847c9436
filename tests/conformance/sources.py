"""Test suites of other projects, out of the source distributions of the versions installed here."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

__all__ = ["TOOLS", "source", "tools"]

ROOT = Path(__file__).parents[2]
STORE = ROOT / ".venv" / "conformance"  # goes with `make clean`

TOOLS = ("flaky", "pytest-asyncio", "testpath", "xmltodict")
"""What those suites import beyond our own test tools; pinned in constraints.txt."""


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-E", "-P", "-m", "pip", "--no-input", "--quiet"]
    subprocess.run(
        [*command, "--disable-pip-version-check", *arguments], check=True, stdin=subprocess.DEVNULL
    )


def source(package: str) -> Path:
    """Return the unpacked source distribution of the installed version, fetched once.

    Raises:
        subprocess.CalledProcessError: pip could not fetch it; pip has said why.
    """
    name = f"{package}-{version(package)}"
    target = STORE / name
    if target.is_dir():
        return target
    STORE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STORE) as folder:
        _pip("download", "--no-deps", "--no-binary", package, "--dest", folder,
             name.replace(f"{package}-", f"{package}=="))  # fmt: skip
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (Path(folder) / archive.name.removesuffix(".tar.gz")).rename(target)
    return target


def tools() -> Path:
    """Return a folder with :data:`TOOLS`, installed once, apart from .venv.

    There they would be plugins of our own tests as well.
    """
    target = STORE / "tools"
    if not target.is_dir():
        STORE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=STORE) as folder:
            _pip("install", "--no-deps", "--target", f"{folder}/tools",
                 "--constraint", str(ROOT / "constraints.txt"), *TOOLS)  # fmt: skip
            shutil.move(f"{folder}/tools", target)
    return target
