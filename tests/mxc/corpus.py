"""Requests for each backend, for the golden files and for the real executables to judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mxc_kernel.mxc.backends import BACKENDS
from mxc_kernel.mxc.contract import Workload, render
from mxc_kernel.policy import Filesystem, MountPlan, Network, NetworkMode, PathStyle

Request = dict[str, Any]

ROOTS = {"bubblewrap": "/srv/", "processcontainer": "C:\\work\\", "seatbelt": "/Users/ada/work/"}
_PYTHONS = {
    "bubblewrap": "/opt/python/bin/python3",
    "processcontainer": r"C:\Program Files\Python313\python.exe",
    "seatbelt": "/opt/homebrew/opt/python@3.13/bin/python3.13",
}
_HOMES = {
    "bubblewrap": ("/opt/python",),
    "processcontainer": (r"C:\Program Files\Python313",),
    "seatbelt": ("/opt/homebrew",),
}
_SCRATCH = {
    "bubblewrap": "/tmp/scratch",
    "processcontainer": r"C:\Users\ada\AppData\Local\mxc-kernel\run\k1\scratch",
    "seatbelt": "/private/var/folders/zz/T/mxc-kernel-k1/scratch",
}
# wxc-exec.exe refuses an environment without these (seen under Wine).
_NEEDED = {
    "processcontainer": {
        "SYSTEMROOT": r"C:\Windows",
        "LOCALAPPDATA": _SCRATCH["processcontainer"],
    }
}
COMMAND = ("-P", "-s", "-c", "print('it\\'s', \"quoted\\\\\")\nprint('100 % ^ & | $HOME')\n")


def plan(files: Filesystem) -> MountPlan:
    """A plan for paths that are all there."""
    return MountPlan(files, readonly=files.readonly, readwrite=files.readwrite, denied=files.denied)


def workload(backend: str) -> Workload:
    """What runs: a Python of that system, with a folder of its own where it needs one."""
    private = backend != "bubblewrap"
    return Workload(
        name="mxc-python-1",
        command=(_PYTHONS[backend], *COMMAND),
        cwd=_SCRATCH[backend] if private else "/tmp",
        environment={
            "LANG": "C.UTF-8",
            "HOME": _SCRATCH[backend],
            "ODD": "a=b \"c\" 'd' %e% ä",
            **_NEEDED.get(backend, {}),
        },
        readonly=_HOMES[backend],
        readwrite=(_SCRATCH[backend],) if private else (),
    )


def _files(backend: str, **names: list[str]) -> Filesystem:
    style = BACKENDS[backend].style
    separator = "\\" if style is PathStyle.WINDOWS else "/"
    root = ROOTS[backend]
    lists = {
        level: [root + name.replace("/", separator) for name in listed]
        for level, listed in names.items()
    }
    return Filesystem.of(**lists, style=style)


def _make(
    backend: str, mode: NetworkMode = NetworkMode.CLOSED, /, dacl: bool = False, **names: list[str]
) -> Callable[[], Request]:
    own = replace(workload(backend), dacl_mutation=dacl)
    return lambda: render(plan(_files(backend, **names)), Network(mode), own, backend)


CORPUS: dict[str, Callable[[], Request]] = {
    f"{backend}-{name}": made
    for backend in BACKENDS
    for name, made in {
        "nothing": _make(backend),
        "each-level": _make(
            backend, readonly=["data"], readwrite=["out"], denied=["data/private", "out/.git"]
        ),
        "odd-names": _make(
            backend, readonly=["it's", "a b", "ä ☃", "$HOME", "%TEMP%", "a;b"], readwrite=["(x)"]
        ),
        "writable-in-readonly": _make(backend, readonly=["data"], readwrite=["data/out"]),
    }.items()
} | {
    "bubblewrap-deepest-wins": _make(
        "bubblewrap", readwrite=["a", "a/b/c/d"], readonly=["a/b"], denied=["a/b/c"]
    ),
    "processcontainer-open": _make("processcontainer", NetworkMode.OPEN, readonly=["data"]),
    "processcontainer-dacl": _make("processcontainer", dacl=True, readwrite=["out"]),
    "seatbelt-readonly-in-writable": _make("seatbelt", readwrite=["a"], readonly=["a/b"]),
}
