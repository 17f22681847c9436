"""Where this kernel keeps its own files.

As platformdirs has it for a user; root's are the whole system's. On Linux the rule is short enough
to write out, which saves importing platformdirs (25 ms) at each start of a kernel.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SYSTEM_DATA", "cache_folder", "data_folder"]

SYSTEM_DATA = "/var/lib/mxc-kernel"
_SYSTEM_CACHE = "/var/cache/mxc-kernel"


def data_folder(environ: Mapping[str, str] = os.environ) -> str:
    """Return the folder of what `mxc-kernel setup` fetches and builds."""
    if sys.platform != "linux":
        import platformdirs

        return platformdirs.user_data_dir("mxc-kernel", appauthor=False)
    if os.geteuid() == 0:
        return SYSTEM_DATA
    return _xdg(environ, "XDG_DATA_HOME", ".local/share")


def cache_folder(environ: Mapping[str, str] = os.environ) -> str:
    """Return the folder of what can be found out again at any time."""
    if sys.platform != "linux":
        import platformdirs

        return platformdirs.user_cache_dir("mxc-kernel", appauthor=False)
    if os.geteuid() == 0:
        return _SYSTEM_CACHE
    return _xdg(environ, "XDG_CACHE_HOME", ".cache")


def _xdg(environ: Mapping[str, str], name: str, fallback: str) -> str:
    base = environ.get(name, "").strip()
    if not base:
        home = environ.get("HOME") or os.path.expanduser("~")
        base = os.path.join(home, *fallback.split("/"))
    return os.path.join(base, "mxc-kernel")
