"""A made-up user's home, a ceiling on it and kernels under that ceiling."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.kernel.conftest import TIMEOUT, Kernel, Result, end_kernel, start_kernel

__all__ = ["CHANGE", "PRELUDE", "Stage", "outside"]

# `tried` calls a function and returns its result, or the name of what it raised.
PRELUDE = """
import errno, os, shutil, signal, socket, stat, subprocess, sys, threading, time

def tried(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    except Exception as error:
        return type(error).__name__
"""

# All ways to put another file in the place of one: in place, by removal, by another file, and by
# moving one of the folders above it away.
CHANGE = """
path = {path!r}
def replaced():
    open(path + '.new', 'w').write('planted')
    os.replace(path + '.new', path)
def moved(n):
    above = path
    for _ in range(n): above = os.path.dirname(above)
    os.rename(above, above + '-moved')
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, 'w').write('planted')
answer = [tried(lambda: open(path, 'w').write('planted')), tried(os.unlink, path),
          tried(replaced), tried(moved, 1), tried(moved, 2), tried(moved, 3)]
"""


def outside(code: str, **options: Any) -> str:
    """Run code on the host, as the control for what is attempted in the sandbox.

    Args:
        code: what to run; `PRELUDE` comes before it.
        options: as subprocess has them.

    Returns:
        What it printed.
    """
    command = [sys.executable, "-P", "-c", PRELUDE + code]
    return subprocess.check_output(command, text=True, timeout=TIMEOUT, **options).strip()


class Stage:
    """A home with folders to read and to write, and the kernels that its user starts.

    Args:
        kernelspec: the kernel's name.

    Attributes:
        home: the user's home folder, which the kernels have as HOME.
        documents: granted for reading.
        downloads: granted for writing.
        extra: may be granted, and is not until someone asks.
        outside: beyond the ceiling, with `private.txt` in it.
        scratch: not part of the home; for connection files and the like.
        kernel: the kernel of the tests that need none of their own.
    """

    def __init__(self, kernelspec: str) -> None:
        self._kernelspec = kernelspec
        self._started: list[Kernel] = []
        self._shared: Kernel | None = None
        # pytest's own folders lie below one of mode 0700, which a leased uid may not enter.
        root = tempfile.mkdtemp(prefix="mxc-kernel-test-", dir="/var/tmp")
        self.root = Path(os.path.realpath(root))
        self.root.chmod(0o755)
        self.home = self._folder(self.root / "home")
        self.documents = self._folder(self.home / "Documents")
        self.downloads = self._folder(self.home / "Downloads")
        self.extra = self._folder(self.home / "Extra")
        self.outside = self._folder(self.root / "outside")
        self.scratch = self._folder(self.root / "scratch")
        self.scratch.chmod(0o700)
        (self.documents / "report.txt").write_text("figures")
        (self.outside / "private.txt").write_text("private")
        for path in (self.documents / "report.txt", self.outside / "private.txt"):
            path.chmod(0o666)  # what stops an attack is not the mode
        self.ceiling = self.write_ceiling(
            f"""
[filesystem]
readonly = ["{self.documents}"]
readwrite = ["{self.downloads}", "{self.extra}"]

[start]
readonly = ["{self.documents}"]
readwrite = ["{self.downloads}"]

[limits]
cell_timeout = "30s"
"""
        )

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for kernel in self._started:
                end_kernel(kernel)
        finally:
            shutil.rmtree(self.root)

    @staticmethod
    def _folder(path: Path) -> Path:
        path.mkdir()
        path.chmod(0o777)
        return path

    def write_ceiling(self, text: str, name: str = "ceiling.toml") -> Path:
        """Write a ceiling beside the home."""
        path = self.root / name
        path.write_text(text)
        path.chmod(0o644)
        return path

    def start(
        self, ceiling: Path | None = None, *, prelude: str = PRELUDE, **options: Any
    ) -> Kernel:
        """Start a kernel of this user's, which ends with the stage.

        Args:
            ceiling: another ceiling than the usual one.
            prelude: what it runs first.
            options: as `start_kernel` has them.
        """
        home = {"HOME": str(self.home), "XDG_CONFIG_HOME": "", "XDG_DATA_HOME": ""}
        options["env"] = {**home, **options.get("env", {})}
        options.setdefault("cwd", self.documents)
        ceiling = ceiling or self.ceiling
        kernel = start_kernel(self._kernelspec, self.scratch, ceiling, **options)
        self._started.append(kernel)
        kernel.client.wait_for_ready(timeout=TIMEOUT)
        if prelude:
            ready = kernel.run(prelude)
            assert ready.status == "ok", ready.error
        return kernel

    def end(self, kernel: Kernel) -> None:
        """End one of them now."""
        self._started.remove(kernel)
        end_kernel(kernel)

    @property
    def kernel(self) -> Kernel:
        """The kernel that tests share."""
        if self._shared is None:
            self._shared = self.start()
        return self._shared

    def run(self, code: str, **options: Any) -> Result:
        """Run a cell in the shared kernel."""
        return self.kernel.run(code, **options)

    def value(self, code: str) -> Any:
        """Run a cell that leaves its answer in `answer`; return that."""
        result = self.run(f"{code}\nprint(repr(answer))")
        assert result.status == "ok", result.error
        return ast.literal_eval(result.stream())
