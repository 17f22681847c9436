"""The JavaScript of charting libraries, from the packages that are installed on this machine.

At the output level ``frame`` a figure is drawn by its library, and nothing loads inside a frame, so
the host puts its own copy in. It is found in the host's packages or in those of the interpreter
that the operator chose; never where the child says. What is found runs in the frame only, where
the child's own script runs as well. So it need not be more trusted than that, but reading it must
not lead anywhere else: no symbolic link below the packages' folder is followed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mxc_kernel.errors import MxcKernelError
from mxc_kernel.mxc.folders import cache_folder
from mxc_kernel.mxc.identity import lease
from mxc_kernel.output.frame import pack

if TYPE_CHECKING:
    from mxc_kernel.mxc.runtime import Interpreter

__all__ = ["Libraries", "Place", "places"]

log = logging.getLogger(__name__)

_FILES = {
    "plotly": ("plotly/package_data/plotly.min.js",),
    "bokeh": tuple(
        f"bokeh/server/static/js/bokeh{part}.min.js" for part in ("", "-gl", "-widgets", "-tables")
    ),
}
# vl-convert has the libraries inside of its executable code, and gives them out when asked.
_VEGA = "vl_convert/vl_convert.abi3.so"
_VEGA_QUESTION = "import vl_convert; print(vl_convert.javascript_bundle())"
_ASKING = 60  # seconds; 2.6 s of CPU were measured
_MAX = 16 << 20  # bytes of one file; plotly's has 4.8 MB


@dataclass(frozen=True)
class Place:
    """Where packages are installed.

    Args:
        python: the interpreter that they belong to, an absolute path.
        folder: such as its ``site-packages``.
        ours: it is the host's own interpreter.
    """

    python: str
    folder: str
    ours: bool = False


def places(interpreter: Interpreter | None) -> tuple[Place, ...]:
    """Return where to look: among the host's own packages, then among the child's.

    Args:
        interpreter: the child's, which it cannot write to.
    """
    ours = tuple(Place(sys.executable, path, ours=True) for path in sys.path if path[:1] == "/")
    theirs = (Place(interpreter.executable, interpreter.modules),) if interpreter else ()
    return (*ours, *theirs)


class Libraries:
    """Finds libraries, and keeps what it found in memory.

    Args:
        places: where to look, the first first; asked again while a library is not found.
    """

    def __init__(self, places: Callable[[], Sequence[Place]]) -> None:
        self._places = places
        self._packed: dict[str, bytes] = {}

    def __call__(self, name: str) -> bytes | None:
        """Return a library as :func:`mxc_kernel.output.frame.pack` has it, or ``None``.

        Args:
            name: "plotly", "bokeh" or "vega". Finding vega's for the first time on a machine takes
                about 3 s, as it has to be asked for; the answer is kept on disk.
        """
        if name not in self._packed:
            for place in self._places():
                source = _vega(place) if name == "vega" else _files(place, name)
                if source is not None:
                    self._packed[name] = pack(source)
                    break
        return self._packed.get(name)

    def prepare(self) -> None:
        """Find in the background what else a display would wait 3 s for, once on a machine."""
        threading.Thread(target=self._prepare, name="libraries", daemon=True).start()

    def _prepare(self) -> None:
        for place in self._places():
            key = _vega_key(place)
            if key is not None:
                if not os.path.exists(os.path.join(_cache(), key)):
                    _vega(place)
                return


def _files(place: Place, name: str) -> str | None:
    parts = [_read(place.folder, path) for path in _FILES.get(name, ())]
    found = [part.decode("utf-8", "replace") for part in parts if part is not None]
    # A file may be missing from an older version; the first is the library itself.
    return "\n".join(found) if parts and parts[0] is not None else None


def _vega(place: Place) -> str | None:
    key = _vega_key(place)
    if key is None:
        return None
    kept = _read(_cache(), key)
    answer = kept or _ask(place, _VEGA_QUESTION)
    if answer is None:
        return None
    if kept is None:
        _keep(_cache(), key, answer)
    return answer.decode("utf-8", "replace")


def _vega_key(place: Place) -> str | None:
    """Return the name of the file that keeps the answer of the package in a place, if it is there.

    It changes with the package.
    """
    descriptor = _open(place.folder, _VEGA)
    if descriptor is None:
        return None
    status = os.fstat(descriptor)
    os.close(descriptor)
    known = f"{place.folder} {status.st_mtime_ns} {status.st_size} {status.st_ino}"
    return hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest() + ".js"


def _cache() -> str:
    return os.path.join(cache_folder(), "libraries")


def _ask(place: Place, question: str) -> bytes | None:
    """Ask an interpreter, as it was asked for its version: root asks as somebody else."""
    with ExitStack() as stack:
        try:
            other = os.geteuid() == 0 and not place.ours
            identity = stack.enter_context(lease()).identity if other else None
            answer = subprocess.run(
                [place.python, "-I", "-c", question],
                user=identity.uid if identity else None,
                group=identity.gid if identity else None,
                extra_groups=[] if identity else None,
                capture_output=True,
                check=True,
                cwd="/",
                env={"PATH": "/usr/bin:/bin"},
                stdin=subprocess.DEVNULL,
                timeout=_ASKING,
            ).stdout
        except (OSError, subprocess.SubprocessError, MxcKernelError) as error:
            log.warning("%s did not give out its charting library: %s", place.python, error)
            return None
    return answer if 0 < len(answer) <= _MAX else None


def _keep(folder: str, name: str, content: bytes) -> None:
    temporary = os.path.join(folder, f"{name}.{os.getpid()}-{threading.get_ident()}")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(content)
        os.replace(temporary, os.path.join(folder, name))
    except OSError:
        return  # without a cache it is asked for each time


def _read(folder: str, path: str) -> bytes | None:
    descriptor = _open(folder, path)
    if descriptor is None:
        return None
    with open(descriptor, "rb") as file:
        content = file.read(_MAX + 1)
    return content if len(content) <= _MAX else None


def _open(folder: str, path: str) -> int | None:
    """Open a regular file below a folder, following no link on the way down from it."""
    opened: list[int] = []
    try:
        opened.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        *folders, name = path.split("/")
        for each in folders:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            opened.append(os.open(each, flags, dir_fd=opened[-1]))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        found = os.open(name, flags, dir_fd=opened[-1])
    except OSError:
        return None
    finally:
        for descriptor in opened:
            os.close(descriptor)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        return None
    return found
