"""Tries what the policy must not let through, before any code of the user's runs.

For systems where the host cannot look into the sandbox; see `mxc_kernel.mxc.probe` for who judges.
Only the standard library.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["tried"]

_PATIENCE = 2.0  # seconds; a firewall may drop a connection without a word


def tried(orders: Mapping[str, Any]) -> dict[str, str | None]:
    """Try to read a file, write a file and connect to a port.

    Args:
        orders: ``read`` and ``write``, paths; ``connect``, an address and a port.

    Returns:
        For each what came of it: None where it was blocked.
    """
    return {
        "read": _read(orders["read"]),
        "write": _write(orders["write"]),
        "connect": _connect(*orders["connect"]),
    }


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(64)
    except OSError:
        return None


def _write(path: str) -> str | None:
    try:
        with open(path, "xb"):
            return "written"
    except OSError:
        return None


def _connect(address: str, port: int) -> str | None:
    try:
        with socket.create_connection((address, port), _PATIENCE):
            return "connected"
    except OSError:
        return None
