"""The bytecode of everything that a start imports, in one file beside the interpreter.

A start imports some 370 modules. Each costs about ten system calls to find and read: a fifth of the
processor time of a start. `mxc-kernel setup` lets the interpreter write what it has loaded into one
file, and a child takes its modules from there.

The file belongs to whoever owns the interpreter, and so can say no more than the modules
themselves. Each entry is used under the condition that Python sets for its own compiled files: the
source has the time and the size that it had then.

Layout: the length of the index, eight bytes, big-endian; the index, ``(magic, {name: (path, cached
path, is_package, time, size, offset, length)})`` in marshal format; then the code.
"""
# ruff: noqa: ARG002, D102, S302

from __future__ import annotations

import mmap
import os
import sys
from importlib._bootstrap_external import MAGIC_NUMBER
from importlib.machinery import ModuleSpec, SourceFileLoader
from marshal import dumps, loads
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

    Entry = tuple[str, str, bool, int, int, int, int]

__all__ = ["NAME", "Image", "main", "use"]

NAME = "mxc-start.image"
"""What the file is called, in the folder of the virtual environment."""

_HEADER = 16  # bytes before the code in a compiled file: magic, flags, time and size of the source


class Image:
    """Finds modules in the file; one of ``sys.meta_path`` while a child starts.

    Args:
        data: the file's bytes.

    Raises:
        ValueError, EOFError, TypeError: it is none, or of another Python.
    """

    def __init__(self, data: mmap.mmap) -> None:
        code = 8 + int.from_bytes(data[:8], "big")
        magic, entries = loads(data[8:code])
        if magic != MAGIC_NUMBER:
            raise ValueError("an image of another Python")
        self._code = memoryview(data)[code:]
        self._entries: dict[str, Entry] = entries

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        entry = self._entries.get(name)
        if entry is None:
            return None
        file, cached, is_package, time, size, offset, length = entry
        try:
            status = os.stat(file)
        except OSError:
            return None
        if (int(status.st_mtime), status.st_size) != (time, size):
            return None
        loader = _Loader(name, file, self._code[offset : offset + length])
        spec = ModuleSpec(name, loader, origin=file, is_package=is_package)
        spec.has_location = True
        spec.cached = cached
        if is_package:
            assert spec.submodule_search_locations is not None
            spec.submodule_search_locations.append(os.path.dirname(file))
        return spec

    def retire(self) -> None:
        """Leave further imports to Python: a cell's folder may have modules of these names."""
        sys.meta_path.remove(self)
        self._entries = {}
        self._code.release()


class _Loader(SourceFileLoader):
    """Python's own loader of a source file, with the code at hand for the first time."""

    def __init__(self, name: str, path: str, code: memoryview) -> None:
        super().__init__(name, path)
        self._code: memoryview | None = code

    def get_code(self, fullname: str) -> CodeType | None:
        code, self._code = self._code, None
        if code is None:
            return super().get_code(fullname)
        try:
            with code:
                loaded: CodeType = loads(code)
                return loaded
        except (EOFError, TypeError, ValueError):  # cut off or overwritten
            return super().get_code(fullname)


def use() -> Image | None:
    """Take modules from the image of this environment from now on, if there is one that fits."""
    if sys.prefix == sys.base_prefix:
        return None  # nobody writes one for an interpreter that others use too
    try:
        with open(os.path.join(sys.prefix, NAME), "rb", buffering=0) as file:
            image = Image(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError, EOFError, TypeError):
        return None
    sys.meta_path.insert(_before_the_path(), image)
    return image


def _before_the_path() -> int:
    """Return where the finder of files stands; built-in and frozen modules are found before it."""
    for i, finder in enumerate(sys.meta_path):
        if getattr(finder, "__name__", "") == "PathFinder":
            return i
    return len(sys.meta_path)


def main() -> None:
    """Import what a start imports, and write the image to standard output."""
    from mxc_kernel.worker import kernel  # noqa: F401  # the start itself, but for its doing

    entries: dict[str, Entry] = {}
    codes: list[bytes] = []
    offset = 0
    for name, entry, code in _loaded():
        entries[name] = (*entry, offset, len(code))
        codes.append(code)
        offset += len(code)
    index = dumps((MAGIC_NUMBER, entries))
    with os.fdopen(1, "wb") as file:
        file.write(len(index).to_bytes(8, "big") + index + b"".join(codes))


def _loaded() -> Iterator[tuple[str, tuple[str, str, bool, int, int], bytes]]:
    """Yield what came from a compiled file that Python itself would use."""
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        if spec is None or type(spec.loader) is not SourceFileLoader or not spec.cached:
            continue
        try:
            with open(spec.cached, "rb") as file:
                compiled = file.read()
        except OSError:
            continue
        magic, flags, time, size = (compiled[at : at + 4] for at in range(0, _HEADER, 4))
        if magic == MAGIC_NUMBER and not int.from_bytes(flags, "little"):
            source = int.from_bytes(time, "little"), int.from_bytes(size, "little")
            is_package = spec.submodule_search_locations is not None
            yield spec.name, (spec.origin, spec.cached, is_package, *source), compiled[_HEADER:]
