"""Describes the Python that runs inside the sandbox: what it is and which folders it needs to see.

The host and the child need not share an interpreter. Ours is described from within, in about a
millisecond, as that is part of every start; another one is asked once and its answer is kept.

What it needs to see is worked out from its answer by :mod:`mxc_kernel.mxc.footprint`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys

from mxc_kernel.errors import SandboxUnavailableError
from mxc_kernel.mxc import footprint
from mxc_kernel.mxc.folders import SYSTEM_DATA, cache_folder
from mxc_kernel.mxc.identity import DEFAULT_RANGE, Identity, is_root, lease, unreachable
from mxc_kernel.records import record

__all__ = [
    "IPYKERNEL",
    "MANAGED",
    "MINIMUM_PYTHON",
    "Interpreter",
    "closed_to",
    "default",
    "describe",
]

MINIMUM_PYTHON = (3, 11)
IPYKERNEL = ((6, 29), (8,))  # from the first up to, but not including, the second
MANAGED = f"{SYSTEM_DATA}/runtime"

_QUESTION = """
import importlib.util, json, os, site, sys
print(json.dumps({
    "version": ".".join(map(str, sys.version_info[:3])),
    "magic": importlib.util.MAGIC_NUMBER.hex(),
    "prefixes": [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix],
    "path": [p for p in sys.path if p != getattr(site, "USER_SITE", None)],
}))
"""


@record
class Interpreter:
    """A Python that can run the child.

    Args:
        executable: absolute path; a virtual environment's link is not resolved, or it would no
            longer be that environment.
        version: such as ``3.11.7``.
        magic: its bytecode magic number; code compiled by a Python with the same runs on it.
        ipykernel: version of the ipykernel it has.
        modules: the folder that has it, usually a ``site-packages``.
        readonly: paths it needs beyond MXC's own baseline. Some may be symbolic links: they are
            to be granted under exactly these names, not under their real paths.
        unseen: folders that it would import from but that are not granted, such as the source of
            packages in development mode; the ceiling can grant them.
    """

    executable: str
    version: str
    magic: bytes
    ipykernel: str
    modules: str
    readonly: tuple[str, ...]
    unseen: tuple[str, ...] = ()


@record
class _Facts:
    version: str
    magic: str
    prefixes: tuple[str, ...]
    path: tuple[str, ...]


def default(identity: Identity | None = None) -> Interpreter:
    """Return the interpreter for a kernel that was not told which to use.

    That is our own; started as root, where the sandbox's user cannot reach ours (a home folder is
    usually closed), the one that `mxc-kernel setup` built.

    Args:
        identity: the user that the sandbox will run as; needed only as root, and there any uid
            without an account stands for all of them.

    Raises:
        SandboxUnavailableError: neither can be used.
    """
    if not is_root():
        return describe(sys.executable)
    identity = identity or Identity(DEFAULT_RANGE[0], DEFAULT_RANGE[0])
    ours = describe(sys.executable)
    closed = closed_to(identity, ours)
    if closed is None:
        return ours
    managed = os.path.join(os.path.realpath(os.path.join(MANAGED, "current")), "bin", "python")
    if not os.path.exists(managed):
        raise SandboxUnavailableError(
            f"the sandbox's user cannot reach {ours.executable}: {closed} is closed to it",
            remedy="Run `mxc-kernel setup`, which builds an interpreter that it can reach.",
        )
    return describe(managed)


def closed_to(identity: Identity, interpreter: Interpreter) -> str | None:
    """Return the first folder or file that keeps a user from running an interpreter, if any.

    Needs root. Asked for are the executable, what it is granted and, for packages installed under a
    strict umask, ipykernel's first file; other files are not looked at.
    """
    # The real paths first: they name the folder that is closed, a link would only name itself.
    wanted = [
        os.path.realpath(interpreter.executable),
        *map(os.path.realpath, interpreter.readonly),
        os.path.join(interpreter.modules, "ipykernel", "__init__.py"),
        interpreter.executable,
    ]
    closed = unreachable(identity, [(path, False) for path in wanted])
    return closed[0].at if closed else None


def describe(executable: str = sys.executable, identity: Identity | None = None) -> Interpreter:
    """Describe an interpreter.

    Args:
        executable: its path; our own costs about a millisecond, another up to 50 ms once.
        identity: the user to ask another interpreter as, when root: root never runs a program
            that others may have written. A uid is leased for the question if none is given.

    Raises:
        SandboxUnavailableError: it does not run, or it or its ipykernel is not supported.
    """
    executable = _absolute(executable)
    if executable == _absolute(sys.executable):
        facts = _own_facts()
    else:
        facts = _kept_facts(executable) or _asked_facts(executable, identity)
    _check_python(executable, facts.version)
    folders = [path for path in facts.path if os.path.isdir(path)]
    modules, ipykernel = _ipykernel(executable, folders)
    seen = footprint.of(executable, facts.prefixes, folders)
    return Interpreter(
        executable=executable,
        version=facts.version,
        magic=bytes.fromhex(facts.magic),
        ipykernel=ipykernel,
        modules=modules,
        readonly=seen.readonly,
        unseen=seen.unseen,
    )


def _absolute(executable: str) -> str:
    path = os.path.join(os.getcwd(), executable)
    if ".." not in path.split("/"):
        return os.path.normpath(path)
    # What stands before a ".." may be a link, so only the file system can say where it leads.
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _check_python(executable: str, version: str) -> None:
    if _numbers(version) < MINIMUM_PYTHON:
        wanted = ".".join(map(str, MINIMUM_PYTHON))
        raise SandboxUnavailableError(
            f"{executable} is Python {version}; the sandbox needs {wanted} or newer",
            remedy="Choose another with `mxc-kernel install --python PATH`.",
        )


def _ipykernel(executable: str, folders: list[str]) -> tuple[str, str]:
    """Return the folder and the version of the ipykernel that the child would import.

    Its metadata folder's name says it; importlib.metadata would cost 15 ms more to import.
    """
    pattern = re.compile(r"ipykernel-(\d[^-]*)(?:-.*)?\.(?:dist|egg)-info")
    at_least, below = IPYKERNEL
    bounds = f">={'.'.join(map(str, at_least))},<{'.'.join(map(str, below))}"
    remedy = f"Install it there: {executable} -m pip install 'ipykernel{bounds}'"
    for folder in folders:
        if not os.path.isdir(os.path.join(folder, "ipykernel")):
            continue
        found = [m[1] for name in os.listdir(folder) if (m := pattern.fullmatch(name))]
        if not found:
            continue
        version = max(found, key=_numbers)
        if not at_least <= _numbers(version) < below:
            raise SandboxUnavailableError(
                f"{executable} has ipykernel {version}, which is not supported", remedy=remedy
            )
        return folder, version
    raise SandboxUnavailableError(f"{executable} has no ipykernel", remedy=remedy)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


# What interpreters say of themselves


def _own_facts() -> _Facts:
    import importlib.util
    import site

    return _Facts(
        version=".".join(map(str, sys.version_info[:3])),
        magic=importlib.util.MAGIC_NUMBER.hex(),
        prefixes=(sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix),
        path=tuple(path for path in sys.path if path and path != site.USER_SITE),
    )


def _asked_facts(executable: str, identity: Identity | None) -> _Facts:
    if is_root() and identity is None:
        with lease() as leased:
            return _asked_facts(executable, leased.identity)
    import subprocess

    try:
        answer = subprocess.run(
            [executable, "-I", "-c", _QUESTION],
            user=identity.uid if identity else None,
            group=identity.gid if identity else None,
            extra_groups=[] if identity else None,
            capture_output=True,
            check=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            timeout=30,
        ).stdout
        facts = _parse(json.loads(answer.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        said = getattr(error, "stderr", None) or b""
        last = said.decode("utf-8", "replace").strip().splitlines()[-1:] or [str(error)]
        raise SandboxUnavailableError(
            f"{executable} does not run as a Python interpreter: {last[0]}",
            remedy="Choose another with `mxc-kernel install --python PATH`; started as root, one "
            "that every user may run.",
        ) from None
    _keep_facts(executable, facts)
    return facts


def _parse(answer: object) -> _Facts:
    """Check an interpreter's or the cache's answer.

    Raises:
        ValueError: it is not one.
    """
    if not isinstance(answer, dict) or set(answer) != {"version", "magic", "prefixes", "path"}:
        raise ValueError("an answer without the agreed names")
    version, magic = answer["version"], answer["magic"]
    if not isinstance(version, str) or not isinstance(magic, str):
        raise ValueError("an answer of another type")  # noqa: TRY004
    if not re.fullmatch(r"\d+\.\d+\.\d+", version) or not re.fullmatch(r"(..){2,8}", magic):
        raise ValueError("an answer of another form")
    lists = [answer["prefixes"], answer["path"]]
    for each in lists:
        if not isinstance(each, list) or not all(isinstance(path, str) for path in each):
            raise ValueError("an answer of another type")
    prefixes, path = (tuple(os.path.normpath(p) for p in each if p) for each in lists)
    return _Facts(version, bytes.fromhex(magic).hex(), prefixes, path)


# Their answers, kept


def _cache_file(executable: str) -> str:
    parts = [executable]
    folder = os.path.dirname(executable)
    for path in (executable, os.path.join(os.path.dirname(folder), "pyvenv.cfg")):
        try:
            status = os.stat(path)
        except OSError:
            continue
        parts.append(f"{path} {status.st_mtime_ns} {status.st_size} {status.st_ino}")
    key = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
    return os.path.join(cache_folder(), "interpreters", f"{key}.json")


def _kept_facts(executable: str) -> _Facts | None:
    """Return what an interpreter said before, unless its modules have changed since."""
    try:
        fd = os.open(_cache_file(executable), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, encoding="utf-8") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                return None
            kept = json.loads(file.read(1 << 20))
        facts = _parse(kept["facts"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts if kept.get("modules") == _module_times(facts) else None


def _keep_facts(executable: str, facts: _Facts) -> None:
    path = _cache_file(executable)
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump({"facts": vars(facts), "modules": _module_times(facts)}, file)
        os.replace(temporary, path)
    except OSError:
        return  # without a cache the interpreter is asked each time


def _module_times(facts: _Facts) -> dict[str, int]:
    """Return when each module folder last gained or lost an entry, a ``.pth`` file for instance."""
    return {path: os.stat(path).st_mtime_ns for path in facts.path if os.path.isdir(path)}
