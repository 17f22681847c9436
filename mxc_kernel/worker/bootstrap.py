"""Loads the worker into a fresh interpreter; shipped as text to ``python -P -s -c``.

The worker's modules are not on disk inside the sandbox. They come first on standard input: eight
bytes of big-endian length, then that many bytes of marshal data with one entry per module:
``{name: (is_package, filename, is_code, payload)}``.
"""
# ruff: noqa: ARG002, D102, S102, S302

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from marshal import loads
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

if sys.platform == "win32":
    import msvcrt

    for _fd in (0, 1):
        msvcrt.setmode(_fd, os.O_BINARY)


class BundleFinder:
    """Finds and loads the modules of the bundle whose names pass ``wanted``."""

    def __init__(
        self,
        modules: dict[str, tuple[bool, str, bool, bytes]],
        wanted: Callable[[str], bool],
    ) -> None:
        self.modules = {name: entry for name, entry in modules.items() if wanted(name)}

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.modules:
            return None
        is_package, filename, _, _ = self.modules[name]
        return ModuleSpec(name, self, origin=filename, is_package=is_package)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        _, filename, is_code, payload = self.modules[module.__name__]
        code = loads(payload) if is_code else compile(payload, filename, "exec", dont_inherit=True)
        exec(code, module.__dict__)


def read(count: int) -> bytearray:
    """Read exactly ``count`` bytes of standard input; end quietly where the host is gone."""
    data = bytearray()
    while len(data) < count:
        chunk = os.read(0, count - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return data


def start() -> None:
    """Read the bundle and run the worker."""
    modules = loads(read(int.from_bytes(read(8), "big")))
    # Ours first, so that an installed mxc_kernel is never mixed in; stand-ins for packages that
    # the interpreter may lack last.
    sys.meta_path.insert(0, BundleFinder(modules, lambda name: name.startswith("mxc_kernel")))
    sys.meta_path.append(BundleFinder(modules, lambda name: not name.startswith("mxc_kernel")))
    from importlib import import_module

    import_module(sys.argv[1] if sys.argv[1:] else "mxc_kernel.worker.app").main()


start()
