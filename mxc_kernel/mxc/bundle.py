"""Packs the worker's code for the child, which has none of it on disk.

The child's interpreter need not be the host's and may have no ``mxc_kernel`` installed, so the code
travels over the pipe: see :mod:`mxc_kernel.worker.bootstrap` for the format.
"""

from __future__ import annotations

import marshal
import os
from functools import lru_cache
from importlib.util import MAGIC_NUMBER, find_spec, spec_from_file_location
from types import CodeType
from typing import TYPE_CHECKING

from mxc_kernel.errors import SandboxUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BOOTSTRAP", "build", "command"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
_MARSHAL_VERSION = 2  # read by every supported Python, whatever writes it

with open(os.path.join(_PACKAGE, "worker", "bootstrap.py"), encoding="utf-8") as _file:
    BOOTSTRAP = _file.read()
"""The text for ``python -c`` that reads the bundle and starts the worker."""


def command(interpreter_executable: str, *module: str) -> list[str]:
    """Return the child's argument vector.

    ``-P`` keeps the working folder and ``-s`` the user's site folder out of the worker's imports.

    Args:
        interpreter_executable: the path of the child's Python inside the sandbox.
        module: the bundle's module whose ``main`` is to run, if not the worker's.
    """
    return [interpreter_executable, "-P", "-s", "-c", BOOTSTRAP, *module]


@lru_cache(maxsize=4)
def build(interpreter_magic: bytes) -> bytes:
    """Return the bundle: eight bytes of length and the marshalled modules.

    Args:
        interpreter_magic: the child's ``importlib.util.MAGIC_NUMBER``; bytecode is sent when it is
            the host's own, source otherwise.

    Raises:
        SandboxUnavailableError: cloudpickle is not installed beside this package.
    """
    compiled = interpreter_magic == MAGIC_NUMBER
    modules: dict[str, tuple[bool, str, bool, bytes]] = {
        "mxc_kernel": (True, "<mxc_kernel>", False, b"")
    }
    for name, path in (*_worker_modules(), *_cloudpickle_modules()):
        modules[name] = _entry(name, path, compiled=compiled)
    data = marshal.dumps(modules, _MARSHAL_VERSION)
    return len(data).to_bytes(8, "big") + data


def _worker_modules() -> Iterator[tuple[str, str]]:
    yield "mxc_kernel.wire", os.path.join(_PACKAGE, "wire.py")
    for name, path in _modules("mxc_kernel.worker", os.path.join(_PACKAGE, "worker")):
        if name != "mxc_kernel.worker.bootstrap":
            yield name, path


def _cloudpickle_modules() -> Iterator[tuple[str, str]]:
    """Yield cloudpickle's files; the child's own copy, where it has one, is found before them."""
    spec = find_spec("cloudpickle")
    if spec is None or not spec.origin:
        raise SandboxUnavailableError(
            "cloudpickle is not installed beside mxc-kernel.",
            remedy="Install it into the same environment: pip install cloudpickle",
        )
    yield from _modules("cloudpickle", os.path.dirname(spec.origin))


def _modules(package: str, folder: str) -> Iterator[tuple[str, str]]:
    """Yield name and path of a package and of its modules."""
    for file in sorted(os.listdir(folder)):
        stem, extension = os.path.splitext(file)
        if extension == ".py":
            name = package if stem == "__init__" else f"{package}.{stem}"
            yield name, os.path.join(folder, file)


def _entry(name: str, path: str, *, compiled: bool) -> tuple[bool, str, bool, bytes]:
    is_package = os.path.basename(path) == "__init__.py"
    filename = f"<{name}>"  # the host's folders are nobody's business inside
    if not compiled:
        return is_package, filename, False, _read(path)
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        return is_package, filename, False, _read(path)
    code: CodeType = spec.loader.get_code(name)  # type: ignore[attr-defined]  # reads __pycache__
    return is_package, filename, True, marshal.dumps(_relabel(code, filename))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _relabel(code: CodeType, filename: str) -> CodeType:
    """Return the code as if compiled from ``filename``, functions inside it included."""
    constants = tuple(
        _relabel(value, filename) if isinstance(value, CodeType) else value
        for value in code.co_consts
    )
    return code.replace(co_filename=filename, co_consts=constants)
