"""pytest plugin for test suites that others wrote: what our sandbox needs of their surroundings."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from typing import Any


def _opened(make: Callable[..., str]) -> Callable[..., str]:
    """Let the sandbox's own uid into temporary folders, where the kernel is started as root."""

    @functools.wraps(make)
    def mkdtemp(*args: Any, **kwargs: Any) -> str:
        folder = make(*args, **kwargs)
        os.chmod(folder, 0o777)
        return folder

    return mkdtemp


def _elsewhere(make: Callable[..., tuple[int, str]]) -> Callable[..., tuple[int, str]]:
    """Keep connection files out of the temporary folder, which the sandbox may use.

    jupyter_client makes them there; a grant that holds its kernel's own connection file is refused.
    """

    @functools.wraps(make)
    def mkstemp(*args: Any, **kwargs: Any) -> tuple[int, str]:
        if args == (".json",) and not kwargs:
            kwargs["dir"] = os.path.dirname(tempfile.gettempdir())
        return make(*args, **kwargs)

    return mkstemp


tempfile.mkdtemp = _opened(tempfile.mkdtemp)
tempfile.mkstemp = _elsewhere(tempfile.mkstemp)


def pytest_addoption(parser: Any) -> None:
    """Know the option that ipykernel's tests ask for; pytest-cov would define it."""
    parser.addoption("--cov", help="ignored")
