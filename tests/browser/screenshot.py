"""Takes the picture of a blocked write: a real JupyterLab, a real browser, the real sandbox.

``python tests/browser/screenshot.py OUT.png``, with jupyterlab and playwright installed, a Chromium
on the machine, and the kernel set up (``mxc-kernel setup``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from playwright.sync_api import Locator, Page, sync_playwright

__all__ = ["JupyterLab", "Notebook", "browser_page", "made_up_home", "main"]

TIMEOUT = 60.0  # seconds; generous, a busy machine is not a failure
KERNEL = "mxc-python"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# CSS pixels of the page, device pixels for each (sharp, and 1200 wide), and CSS pixels below.
WIDTH, SCALE, MARGIN = 866, 1.5, 4

CEILING = """\
[filesystem]
readonly = ["${notebook_dir}"]
readwrite = ["${notebook_dir}/Downloads"]

[start]
readonly = ["${notebook_dir}"]
"""
CELLS = (
    ("markdown", "The operator's ceiling: **Documents** may be read, **Downloads** written."),
    ("code", 'print(open("Documents/report.txt").read())'),
    ("code", 'open("Documents/report.txt", "w").write("Total of the year: 1,000,000")'),
    ("code", '%allow_rw Downloads\nopen("Downloads/summary.txt", "w").write("The total is 42.")'),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the picture.

    Args:
        arguments: the command line; that of the process if None.
    """
    parser = argparse.ArgumentParser(description="Take a picture of a blocked write in JupyterLab.")
    parser.add_argument("out", type=Path, help="the PNG file to write")
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument(
        "--home", type=Path, help="the made-up home's path; must not exist, removed afterwards"
    )
    options = parser.parse_args(arguments)
    # Ended from outside, it still ends its server and browser and removes what it made.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with (
        made_up_home(options.home) as home,
        JupyterLab(home, home / ".config/mxc-kernel/ceiling.toml", theme=options.theme) as lab,
        browser_page() as page,
    ):
        lab.write_notebook("Report.ipynb", CELLS)
        notebook = Notebook(page, lab.address("Report.ipynb"))
        outcome = [notebook.run(number) for number in range(len(CELLS))]
        _check(outcome)
        options.out.write_bytes(notebook.picture(last=len(CELLS) - 1))
        notebook.shut_down()


def _check(outcome: Sequence[str]) -> None:
    """Refuse to take a picture of something else than what it is meant to show."""
    _, read, blocked, written = outcome
    assert "Total of the year: 42" in read, read
    assert "Blocked by the sandbox" in blocked, blocked
    assert "Read-only file system" in blocked, blocked
    assert "Error" not in written, written


@contextlib.contextmanager
def made_up_home(path: Path | None = None) -> Iterator[Path]:
    """Make a home folder with Documents, Downloads and a ceiling file; remove it afterwards.

    Args:
        path: where; a new folder if None.

    Raises:
        FileExistsError: the path is taken.
    """
    if path is None:
        # /tmp is private to each sandbox and cannot be granted; a folder in /var/tmp can.
        path = Path(tempfile.mkdtemp(prefix="mxc-kernel-home-", dir="/var/tmp"))
    else:
        path.mkdir()
    try:
        home = path.resolve()
        for folder in ("Documents", "Downloads", ".config/mxc-kernel"):
            (home / folder).mkdir(parents=True)
        (home / "Documents/report.txt").write_text("Total of the year: 42\n", encoding="utf-8")
        (home / ".config/mxc-kernel/ceiling.toml").write_text(CEILING, encoding="utf-8")
        # Whatever the umask is. Started as root, the kernel gives the sandbox a uid of its own:
        # only the sandbox may keep that from writing here.
        for each in (home, *home.rglob("*")):
            each.chmod(0o755 if each.is_dir() else 0o644)
        for open_to_all in ("Documents", "Documents/report.txt", "Downloads"):
            (home / open_to_all).chmod(0o777 if (home / open_to_all).is_dir() else 0o666)
        yield home
    finally:
        shutil.rmtree(path)


class JupyterLab:
    """A JupyterLab server of its own on a free port of 127.0.0.1; its kernels end with it.

    Args:
        folder: what it serves.
        ceiling: the ceiling file of its kernels.
        theme: "light" or "dark".
    """

    def __init__(self, folder: Path, ceiling: Path, *, theme: str = "light") -> None:
        self._folder = folder
        self._ceiling = ceiling
        self._theme = theme
        self._token = secrets.token_hex(16)
        self._state = Path(tempfile.mkdtemp(prefix="mxc-kernel-lab-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def __enter__(self) -> JupyterLab:
        try:
            self._write_settings()
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def address(self, notebook: str) -> str:
        """Return the address of a notebook, by itself and without the rest of the interface."""
        return f"{self._url}doc/tree/{notebook}?token={self._token}"

    def write_notebook(self, name: str, cells: Sequence[tuple[str, str]]) -> None:
        """Write a notebook of (cell type, source) that was never run."""
        notebook = {
            "cells": [
                {
                    "cell_type": kind,
                    "id": f"cell-{number}",
                    "metadata": {},
                    "source": source,
                    **({"outputs": [], "execution_count": None} if kind == "code" else {}),
                }
                for number, (kind, source) in enumerate(cells)
            ],
            "metadata": {
                "kernelspec": {
                    "name": KERNEL,
                    "display_name": "Python (MXC sandboxed)",
                    "language": "python",
                }
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self._folder / name).write_text(json.dumps(notebook), encoding="utf-8")

    def close(self) -> None:
        """Stop the server, which shuts its kernels down, and remove what it kept."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._state)

    def _start(self) -> None:
        with open(self._state / "log", "wb") as log:
            self._process = self._spawn(log)
        found = self._state / "runtime" / f"jpserver-{self._process.pid}.json"
        until = time.monotonic() + TIMEOUT
        while not self._url:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self._state / "log").read_text(errors="replace"))
            with contextlib.suppress(OSError, ValueError):  # not there yet, or half written
                self._url = json.loads(found.read_text(encoding="utf-8"))["url"]
            time.sleep(0.05)

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        places = {"CONFIG": "config", "DATA": "data", "RUNTIME": "runtime"}
        lab_places = {"SETTINGS": "settings", "WORKSPACES": "workspaces"}
        environment = {
            **os.environ,
            **{f"JUPYTER_{name}_DIR": str(self._state / it) for name, it in places.items()},
            **{f"JUPYTERLAB_{name}_DIR": str(self._state / it) for name, it in lab_places.items()},
            "JUPYTER_TOKEN": self._token,  # not in the command line, which everybody can read
            "MXC_KERNEL_CEILING": str(self._ceiling),
        }
        options = [
            "--no-browser",
            "--allow-root",
            "--expose-app-in-browser",
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.port=0",
            f"--ServerApp.root_dir={self._folder}",
        ]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "jupyterlab", *options],
            cwd=self._folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def _write_settings(self) -> None:
        settings = {
            "themes": {"theme": f"JupyterLab {self._theme.capitalize()}"},
            # It would ask whether to fetch news, in the middle of the picture.
            "notification": {"fetchNews": "false", "checkForUpdates": False},
        }
        folder = self._state / "settings/@jupyterlab/apputils-extension"
        folder.mkdir(parents=True)
        for name, value in settings.items():
            (folder / f"{name}.jupyterlab-settings").write_text(json.dumps(value), encoding="utf-8")


@contextlib.contextmanager
def browser_page() -> Iterator[Page]:
    """Open a page in the machine's own Chromium.

    Raises:
        FileNotFoundError: there is none.
    """
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        raise FileNotFoundError(f"no browser on the PATH: {', '.join(CHROMIUM)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        try:
            page = browser.new_page(
                viewport={"width": WIDTH, "height": 1000}, device_scale_factor=SCALE
            )
            page.set_default_timeout(TIMEOUT * 1000)
            yield page
        finally:
            browser.close()


class Notebook:
    """A notebook in the browser, used with the keyboard as a person would.

    Args:
        page: the browser's page.
        address: the notebook's address, token included.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        page.goto(address)
        self.panel = page.locator(".jp-NotebookPanel")
        self.panel.wait_for()
        self.until_idle()

    def cell(self, number: int) -> Locator:
        """Return a cell, counted from 0."""
        return self.panel.locator(f'.jp-Cell[data-windowed-list-index="{number}"]')

    def start(self, number: int) -> None:
        """Run a cell with Shift+Enter, without waiting for it."""
        cell = self.cell(number)
        if cell.locator(".jp-InputPrompt").count():
            cell.locator(".jp-InputPrompt").first.click()
        else:
            cell.click()
        self.page.keyboard.press("Shift+Enter")

    def run(self, number: int) -> str:
        """Run a cell and return the text of its outputs."""
        self.start(number)
        self.until_idle()
        return self.output(number)

    def output(self, number: int) -> str:
        """Return the text of a cell's outputs."""
        return "\n".join(self.cell(number).locator(".jp-OutputArea-output").all_inner_texts())

    def until_idle(self) -> None:
        """Wait until the kernel is idle and no cell is waiting for it."""
        self.page.wait_for_function(
            """() => {
                const panel = window.jupyterapp?.shell?.currentWidget;
                const kernel = panel?.sessionContext?.session?.kernel;
                return kernel?.status === 'idle'
                    && ![...document.querySelectorAll('.jp-InputPrompt')]
                        .some(prompt => prompt.textContent.includes('[*]'));
            }"""
        )

    def picture(self, last: int) -> bytes:
        """Return a picture of the toolbar and of the cells up to one, as PNG."""
        self.page.mouse.move(0, 0)  # no tooltip, nothing highlighted
        panel, cell = self.panel.bounding_box(), self.cell(last).bounding_box()
        assert panel is not None
        assert cell is not None
        height = cell["y"] + cell["height"] - panel["y"] + MARGIN
        return self.page.screenshot(
            clip={"x": panel["x"], "y": panel["y"], "width": panel["width"] - 1, "height": height}
        )

    def shut_down(self) -> None:
        """Shut its kernel down."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


if __name__ == "__main__":
    main()
