"""``%pip`` for a session: packages go to a private environment on top of the interpreter's own.

The interpreter's packages are read-only in the sandbox. So the session has an environment in its
scratch folder that sees them: a folder laid out as a virtual environment, of which only the links
are made. pip running there installs only what is missing, upgrades by shadowing, and leaves the
interpreter's packages alone. The kernel imports from it, ``!python`` and ``!pip`` in a cell run in
it, and since it lies in the scratch folder it is carried over a relaunch with the private files.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import site
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mxc_kernel.worker.denials import Collector

__all__ = ["SessionPackages"]

_BASE = "_mxc_kernel_base.pth"
_PIP_SCRIPT = '#!/bin/sh\nexec "$(dirname "$0")/python" -P -m pip "$@"\n'
_TAIL = 64 << 10  # characters of pip's output looked through for the reason of a failure
_UNREACHABLE = re.compile(
    "name resolution|Name or service not known|Network is unreachable|No route to host"
    "|Failed to establish a new connection|NewConnectionError|nodename nor servname",
)
_NO_PIP = (
    "pip is not installed in this kernel's Python, so %pip cannot install packages. Ask for a "
    "kernel whose interpreter has pip, or for the package to be added to it."
)
_NO_NETWORK = (
    "\nThe package index cannot be reached from this sandbox. Packages can be installed from a "
    "folder of wheels that the sandbox may read:\n"
    "    %pip install --no-index --find-links FOLDER PACKAGE\n"
)


class SessionPackages:
    """The session's own environment.

    Args:
        scratch: the private folder; it need not exist yet.
    """

    def __init__(self, scratch: str) -> None:
        self.prefix = os.path.join(scratch, "packages")
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        self.site_packages = os.path.join(self.prefix, "lib", version, "site-packages")
        self._python = os.path.join(self.prefix, "bin", "python")

    def prepare(self) -> None:
        """Make the environment, first on the import path and on PATH."""
        binaries = os.path.dirname(self._python)
        os.makedirs(binaries, exist_ok=True)
        os.makedirs(self.site_packages, exist_ok=True)
        base = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
        for name in ("python", "python3"):
            link = os.path.join(binaries, name)
            if not os.path.lexists(link):
                os.symlink(base, link)
        for name in ("pip", "pip3"):
            _write(os.path.join(binaries, name), _PIP_SCRIPT, mode=0o700)
        sees_base = str(sys.base_prefix in site.PREFIXES).lower()
        home = os.path.dirname(base)
        _write(
            os.path.join(self.prefix, "pyvenv.cfg"),
            f"home = {home}\ninclude-system-site-packages = {sees_base}\n",
        )
        _write(os.path.join(self.site_packages, _BASE), self._base_folders())
        os.environ["PATH"] = os.pathsep.join([binaries, os.environ.get("PATH", os.defpath)])
        first = next((i for i, entry in enumerate(sys.path) if "-packages" in entry), len(sys.path))
        sys.path.insert(first, self.site_packages)

    @staticmethod
    def _base_folders() -> str:
        """Return lines that add the packages of the virtual environment we run in, if any."""
        if sys.prefix == sys.base_prefix:
            return ""
        folders = [entry for entry in site.getsitepackages() if entry.startswith(sys.prefix)]
        return "".join(f"import site; site.addsitedir({folder!r})\n" for folder in folders)

    def register(self, shell: Any, evidence: Collector) -> None:
        """Put this environment behind ``%pip``.

        Args:
            shell: IPython's shell.
            evidence: is told when the package index could not be reached.
        """

        def pip(line: str) -> None:
            """Run pip for this session, for example ``%pip install PACKAGE``.

            Packages go to an environment of this session's own and can be imported at once. They
            are kept when the sandbox is started anew for a changed policy, and gone when the
            kernel is restarted. Without network, install from a folder of wheels:
            ``%pip install --no-index --find-links FOLDER PACKAGE``.
            """
            if find_spec("pip") is None:
                print(_NO_PIP, file=sys.stderr)  # noqa: T201 - the cell's output
                return
            before = self._path_files()
            if self._run(line) and "install" in line.split()[:1]:
                evidence.add({"kind": "network", "host": "the package index", "errno": ""})
                print(_NO_NETWORK, file=sys.stderr)  # noqa: T201
            self._make_importable(before)

        shell.register_magic_function(pip, "line", "pip")

    def _run(self, line: str) -> bool:
        """Run pip, showing its output as it comes; return whether it failed for want of network."""
        settings = {
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
            "PIP_NO_CACHE_DIR": "1",  # the scratch folder is memory
            "PIP_RETRIES": "1",  # pip's five take half a minute to say that there is no network
        }
        # Through a shell, as IPython's own %pip: wildcards and variables are expanded.
        process = subprocess.Popen(  # noqa: S602 - the line is the user's own code
            f"{shlex.quote(self._python)} -P -m pip {line}",
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=settings | os.environ,
            text=True,
            errors="replace",
        )
        tail = ""
        try:
            for text in process.stdout or ():
                sys.stdout.write(text)
                tail = (tail + text)[-_TAIL:]
        finally:
            if process.stdout is not None:
                process.stdout.close()
            process.wait()  # an interrupt reached pip too: it is in our process group
        return process.returncode != 0 and _UNREACHABLE.search(tail) is not None

    def _path_files(self) -> set[str]:
        return {name for name in os.listdir(self.site_packages) if name.endswith(".pth")}

    def _make_importable(self, before: set[str]) -> None:
        importlib.invalidate_caches()
        for name in sorted(self._path_files() - before):
            site.addpackage(self.site_packages, name, None)


def _write(path: str, text: str, mode: int = 0o600) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
