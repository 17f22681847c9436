"""Shortcuts that let the child start faster than plain ipykernel, and the way back.

They lean on how the supported ipykernel and jupyter_client are laid out. Where the layout turns
out to be another one, the ordinary import runs instead. ``MXC_KERNEL_LEAN=0`` in the child's
environment switches them off.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import asyncio
import importlib
import os
import socket
import sys
from collections.abc import Callable
from datetime import datetime
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__all__ = ["import_kernel_application"]

# What these modules take from others for what few sessions ever do, or what Python can do as well:
# together a tenth of the start.
_TAKEN = {
    "tornado.log": {"tornado.escape": "_unicode"},
    "jupyter_client.jsonutil": {"dateutil.parser": "isoparse", "dateutil.tz": "tzlocal"},
    "ipykernel.eventloops": {"packaging.version": "Version"},
}


def import_kernel_application() -> ModuleType:
    """Import and return ``ipykernel.kernelapp``, by the short way if it fits.

    Raises:
        ImportError: ipykernel is not importable at all.
    """
    if os.environ.get("MXC_KERNEL_LEAN") == "0":
        return importlib.import_module("ipykernel.kernelapp")
    before = set(sys.modules)
    try:
        _bare_package("jupyter_client")
        _lazy_debugger()
        for importer, taken in _TAKEN.items():
            _import_with(importer, taken)
        return importlib.import_module("ipykernel.kernelapp")
    except Exception:  # noqa: BLE001 - whatever went wrong, the plain way is still there
        for name in set(sys.modules) - before:
            if name.split(".")[0] in {"ipykernel", "jupyter_client"}:
                del sys.modules[name]
        return importlib.import_module("ipykernel.kernelapp")


def _bare_package(name: str) -> None:
    """Register a package without running its ``__init__``.

    ``jupyter_client``'s pulls in the managers and clients, a fifth of ipykernel's start-up; the
    kernel needs three of its modules. The first attribute that is not there runs ``__init__``.
    """
    spec = find_spec(name)
    if spec is None or spec.loader is None or spec.submodule_search_locations is None:
        raise ImportError(name)
    loader = spec.loader
    module = importlib.util.module_from_spec(spec)

    def complete(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        del module.__dict__["__getattr__"]
        loader.exec_module(module)
        return getattr(module, attribute)

    if name == "jupyter_client":
        # The one name that ipykernel takes from the package itself while it starts.
        def write_connection_file(*args: Any, **kwargs: Any) -> Any:
            connect = importlib.import_module("jupyter_client.connect")
            return connect.write_connection_file(*args, **kwargs)

        module.__dict__["write_connection_file"] = write_connection_file
    module.__dict__["__getattr__"] = complete
    sys.modules[name] = module


def _import_with(importer: str, taken: dict[str, str]) -> None:
    """Import a module that gets stand-ins for the functions that it takes from others.

    The others are not touched: afterwards whoever imports them gets the real ones.
    """
    if importer in sys.modules or any(module in sys.modules for module in taken):
        return
    try:
        for module, name in taken.items():
            stand_in = ModuleType(module)
            stand_in.__dict__[name] = _isoparse if name == "isoparse" else _later(module, name)
            sys.modules[module] = stand_in
        importlib.import_module(importer)
    finally:
        for module in taken:
            del sys.modules[module]


def _later(module: str, name: str) -> Callable[..., Any]:
    """Return a function that imports the real one when it is called."""

    def call(*args: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*args)

    return call


def _isoparse(text: str) -> datetime:
    """Read a message's date; as Jupyter writes them, Python itself can since 3.11."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        date: datetime = _later("dateutil.parser", "isoparse")(text)
        return date


def _lazy_debugger() -> None:
    """Stand in for ``ipykernel.debugger``, which imports debugpy, until somebody debugs."""
    name = "ipykernel.debugger"
    module = ModuleType(name)

    def complete(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(_real_debugger(module), attribute)

    module.__dict__.update(
        _is_debugpy_available=find_spec("debugpy") is not None and _has_loopback(),
        Debugger=LazyDebugger,
        __getattr__=complete,
    )
    sys.modules[name] = module


def _real_debugger(stand_in: ModuleType | None = None) -> ModuleType:
    """Import the real module in place of the stand-in."""
    name = "ipykernel.debugger"
    if stand_in is None or sys.modules.get(name) is stand_in:
        sys.modules.pop(name, None)
    # debugpy warns on standard error when the standard library is frozen, as it is by default
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    return importlib.import_module(name)


def _has_loopback() -> bool:
    """The debugger talks TCP to itself; without loopback it would hang the control thread."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError:
        return False
    return True


class LazyDebugger:
    """Takes the place of ipykernel's ``Debugger`` until the first request that needs it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._arguments = args, kwargs
        self._debugger: Any = None
        self._made: asyncio.Event | None = None

    def _make(self) -> Any:
        if self._debugger is None:
            args, kwargs = self._arguments
            self._debugger = _real_debugger().Debugger(*args, **kwargs)
            if self._made is not None:
                self._made.set()
        return self._debugger

    async def handle_stopped_event(self) -> Any:
        """Wait until there is a debugger, then let it wait for its next stop."""
        if self._debugger is None:
            self._made = asyncio.Event()
            await self._made.wait()
        return await self._debugger.handle_stopped_event()

    async def process_request(self, message: dict[str, Any]) -> Any:
        """Answer ``debugInfo``, which frontends send to every kernel; leave the rest to debugpy."""
        if self._debugger is None and message.get("command") == "debugInfo":
            return self._describe(message)
        return await self._make().process_request(message)

    @staticmethod
    def _describe(message: dict[str, Any]) -> dict[str, Any]:
        """Return what ipykernel 6.29 to 7.4 answer while no debugger runs."""
        from ipykernel.compiler import get_tmp_directory, get_tmp_hash_seed

        return {
            "type": "response",
            "request_seq": message["seq"],
            "success": True,
            "command": "debugInfo",
            "body": {
                "isStarted": False,
                "hashMethod": "Murmur2",
                "hashSeed": get_tmp_hash_seed(),
                "tmpFilePrefix": get_tmp_directory() + os.sep,
                "tmpFileSuffix": ".py",
                "breakpoints": [],
                "stoppedThreads": [],
                "richRendering": True,
                "exceptionPaths": ["Python Exceptions"],
                "copyToGlobals": True,
            },
        }

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._make(), name)
