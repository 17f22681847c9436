"""What a session changes in its process besides its names: paths, random states, options.

One :class:`Carrier` per thing. Each is captured and restored on its own, so that an odd value costs
only itself; a library's state is looked at only if the session has imported that library.
"""

from __future__ import annotations

import linecache
import os
import random
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CARRIERS", "Carrier", "remember_start"]

_environment: dict[str, str] = {}
_scratch = ""
_IN_SCRATCH = "\0scratch"  # no path holds a NUL


def remember_start(scratch: str) -> None:
    """Note what the host gave, before user code can change it.

    Args:
        scratch: the private folder; the next process may have it elsewhere.
    """
    global _scratch
    _scratch = scratch
    _environment.clear()
    _environment.update(os.environ)


def _portable(path: str) -> str:
    if _scratch and os.path.join(path, "").startswith(os.path.join(_scratch, "")):
        return _IN_SCRATCH + path[len(_scratch) :]
    return path


def _local(path: str) -> str:
    return path.replace(_IN_SCRATCH, _scratch, 1)


@dataclass(frozen=True)
class Carrier:
    """One thing that is carried.

    Attributes:
        name: how a loss is reported.
        capture: returns a picklable value, or None when there is nothing to carry.
        restore: puts the value in force.
        early: whether it is restored before the names, which may need it to be imported.
    """

    name: str
    capture: Callable[[Any], Any]
    restore: Callable[[Any, Any], None]
    early: bool = False


def _capture_environment(_shell: Any) -> dict[str, str | None] | None:
    now = dict(os.environ)
    changed: dict[str, str | None] = {
        name: value for name, value in now.items() if _environment.get(name) != value
    }
    changed.update((name, None) for name in _environment if name not in now)
    return changed or None


def _restore_environment(_shell: Any, changed: dict[str, str | None]) -> None:
    for name, value in changed.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _capture_folder(_shell: Any) -> str:
    return _portable(os.getcwd())


def _restore_folder(_shell: Any, folder: str) -> None:
    os.chdir(_local(folder))


def _capture_import_path(_shell: Any) -> list[str]:
    return [_portable(entry) for entry in sys.path if isinstance(entry, str)]


def _restore_import_path(_shell: Any, path: list[str]) -> None:
    path = [_local(entry) for entry in path]
    sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]


def _capture_random(_shell: Any) -> Any:
    return random.getstate()


def _restore_random(_shell: Any, state: Any) -> None:
    random.setstate(state)


def _capture_warnings(_shell: Any) -> list[Any]:
    return list(warnings.filters)


def _restore_warnings(_shell: Any, filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]
    with warnings.catch_warnings():
        pass  # leaving makes the module notice that its filters have changed


def _capture_numpy_random(_shell: Any) -> Any:
    numpy_random = sys.modules.get("numpy.random")
    return numpy_random.get_state(legacy=False) if numpy_random else None


def _restore_numpy_random(_shell: Any, state: Any) -> None:
    import_module("numpy.random").set_state(state)


def _capture_numpy_printing(_shell: Any) -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    options = dict(numpy.get_printoptions())
    options.pop("override_repr", None)
    return options


def _restore_numpy_printing(_shell: Any, options: dict[str, Any]) -> None:
    import_module("numpy").set_printoptions(**options)


def _capture_pandas(_shell: Any) -> dict[str, Any] | None:
    """Return the options that differ from pandas' defaults."""
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return None
    registered = pandas._config.config._registered_options
    changed = {}
    for name, option in registered.items():
        value = pandas.get_option(name)
        if value is not option.defval and value != option.defval:
            changed[name] = value
    return changed or None


def _restore_pandas(_shell: Any, options: dict[str, Any]) -> None:
    pandas = import_module("pandas")
    for name, value in options.items():
        with suppress(Exception):
            pandas.set_option(name, value)


def _capture_matplotlib(_shell: Any) -> dict[str, Any] | None:
    """Return the rc parameters that differ from those matplotlib started with."""
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib is None:
        return None
    start = matplotlib.rcParamsOrig
    changed = {
        name: value
        for name, value in dict.items(matplotlib.rcParams)
        if not name.startswith("backend") and dict.get(start, name) != value
    }
    return changed or None


def _restore_matplotlib(_shell: Any, parameters: dict[str, Any]) -> None:
    import_module("matplotlib").rcParams.update(parameters)


def _capture_history(shell: Any) -> dict[str, Any]:
    history = shell.history_manager
    return {
        "raw": list(history.input_hist_raw),
        "parsed": list(history.input_hist_parsed),
        "count": shell.execution_count,
    }


def _restore_history(shell: Any, state: dict[str, Any]) -> None:
    history = shell.history_manager
    history.input_hist_raw[:] = state["raw"]
    history.input_hist_parsed[:] = state["parsed"]
    shell.execution_count = state["count"]
    for name in ("In", "_ih"):
        shell.user_ns[name] = history.input_hist_parsed


def _capture_sources(shell: Any) -> dict[str, Any]:
    """Return the cells' source, which tracebacks of the carried functions show."""
    names = getattr(shell.compile, "_filename_map", {})
    cells = {
        name: entry
        for name, entry in linecache.cache.items()
        if name in names or name.startswith("<ipython-input") or "ipykernel_" in name
    }
    return {"lines": cells, "names": dict(names)}


def _restore_sources(shell: Any, state: dict[str, Any]) -> None:
    linecache.cache.update(state["lines"])
    getattr(shell.compile, "_filename_map", {}).update(state["names"])


CARRIERS = (
    Carrier("sys.path", _capture_import_path, _restore_import_path, early=True),
    Carrier("os.environ", _capture_environment, _restore_environment, early=True),
    Carrier("working folder", _capture_folder, _restore_folder, early=True),
    Carrier("random", _capture_random, _restore_random),
    Carrier("warnings.filters", _capture_warnings, _restore_warnings),
    Carrier("numpy.random", _capture_numpy_random, _restore_numpy_random),
    Carrier("numpy print options", _capture_numpy_printing, _restore_numpy_printing),
    Carrier("pandas options", _capture_pandas, _restore_pandas),
    Carrier("matplotlib.rcParams", _capture_matplotlib, _restore_matplotlib),
    Carrier("In", _capture_history, _restore_history),
    Carrier("source of cells", _capture_sources, _restore_sources),
)
