"""A made-up home folder for one notebook, and what the host sees of what happens to it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["World", "made_up_world"]

CEILING = """\
[filesystem]
readonly = ["${notebook_dir}"]
readwrite = ["${notebook_dir}/Downloads", "${notebook_dir}/scratch"]

[start]
readonly = ["${notebook_dir}"]
readwrite = ["${notebook_dir}/scratch"]
"""
WHEEL = {
    "demo_greeting.py": "def hello():\n    return 'hello from a wheel'\n",
    "demo_greeting-1.0.dist-info/METADATA": (
        "Metadata-Version: 2.1\nName: demo-greeting\nVersion: 1.0\n"
    ),
    "demo_greeting-1.0.dist-info/WHEEL": (
        "Wheel-Version: 1.0\nGenerator: demo\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    ),
}
SETTLED = 10.0  # seconds in which processes that start or end have to be there or gone
LARGEST = 1 << 20  # bytes that are read of a file


class World:
    """A made-up home folder, and what can be seen from the host of what happens to it.

    Args:
        root: an empty folder that everyone may enter.

    Attributes:
        folder: where the notebook lies, as its kernel is told.
        secrets: values that no cell may get hold of, by name.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.folder = self.home / "work"
        self.secrets = {name: secrets.token_hex(16) for name in ("SSH key", "AWS key", "API token")}
        self._ceiling = self.home / ".config/mxc-kernel/ceiling.toml"
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)
        self._fill()

    def _fill(self) -> None:
        port = self._server.getsockname()[1]
        self._write("work/Documents/report.txt", "Total of the year: 42\n")
        self._write("work/Documents/sales.csv", "month,sold\nJanuary,12\nFebruary,14\nMarch,16\n")
        self._write("work/Documents/server.json", json.dumps({"host": "127.0.0.1", "port": port}))
        # Readable for everyone, unlike real ones: only the sandbox keeps a cell away from them.
        self._write(".ssh/id_ed25519", f"a made-up key: {self.secrets['SSH key']}\n")
        self._write(".aws/credentials", f"a made-up key: {self.secrets['AWS key']}\n")
        self._write(".config/mxc-kernel/ceiling.toml", CEILING)
        self._write("work/wheels/README.txt", "Packages to install without a network.\n")
        _build_wheel(self.folder / "wheels" / "demo_greeting-1.0-py3-none-any.whl")
        for name in ("Downloads", "scratch"):
            folder = self.folder / name
            folder.mkdir()
            # Started as root, the kernel gives the sandbox a uid of its own, which must be able to
            # write here once the sandbox lets it.
            folder.chmod(0o777)
        (self.root / "jupyter").mkdir(mode=0o700)

    def _write(self, name: str, text: str) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
        # Whatever the umask is: the sandbox's uid has to get here.
        for folder in path.parents:
            if folder.is_relative_to(self.root):
                folder.chmod(0o755)

    def close(self) -> None:
        """Stop listening."""
        self._server.close()

    @property
    def connection_file(self) -> str:
        """Where Jupyter may put the kernel's connection file and, next to it, its sockets."""
        return str(self.root / "jupyter" / "kernel.json")

    @property
    def environment(self) -> dict[str, str]:
        """The kernel's environment on the host."""
        return {
            **os.environ,
            "MXC_KERNEL_CEILING": str(self._ceiling),
            "DEMO_API_TOKEN": self.secrets["API token"],
        }

    def files(self) -> dict[str, str]:
        """Return what is in the home folder by path: a file's text, or where a link leads."""
        found = {}
        for folder, folders, names in os.walk(self.home):
            for name in (*folders, *names):
                path = Path(folder, name)
                found[os.path.relpath(path, self.home).removeprefix("work/")] = _content(path)
        return found

    def was_called(self) -> bool:
        """Tell whether anybody has connected to the host's server since the last time."""
        try:
            self._server.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def processes(self, *words: str) -> int:
        """Count the host's processes whose command line names this world and all of the words."""
        wanted = [os.fsencode(word) for word in (str(self.root), *words)]
        found = 0
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    line = Path(entry.path, "cmdline").read_bytes()
                    found += all(word in line for word in wanted)
        return found

    def await_processes(self, wanted: int, *words: str) -> int:
        """Wait until so many processes are there, and count them in any case.

        One that has just been forked still has its parent's command line, and one that was killed
        may be on its way out.
        """
        until = time.monotonic() + SETTLED
        while (found := self.processes(*words)) != wanted and time.monotonic() < until:
            time.sleep(0.02)
        return found


@contextlib.contextmanager
def made_up_world() -> Iterator[World]:
    """Make a world in a folder of its own, and remove it again."""
    # /tmp is private to each sandbox and cannot be granted; a folder in /var/tmp can.
    prefix = f"mxc-kernel-demo-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir="/var/tmp") as folder:
        root = Path(os.path.realpath(folder))
        root.chmod(0o755)
        with contextlib.closing(World(root)) as world:
            yield world


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    if path.is_dir():
        return "a folder"
    try:
        # A cell may have put anything there: a link is not followed, a pipe not waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(LARGEST).decode("utf-8", "replace")
    except OSError as error:
        return f"not readable: {error.strerror}"


def _build_wheel(path: Path) -> None:
    record = "demo_greeting-1.0.dist-info/RECORD"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in WHEEL.items():
            wheel.writestr(name, text)
        wheel.writestr(record, "".join(f"{name},,\n" for name in (*WHEEL, record)))
    path.chmod(0o644)
