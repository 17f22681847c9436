"""A real JupyterLab and a real browser: how everything here drives them.

JupyterLab and playwright come with the extra ``browser``, Chromium from the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from playwright.sync_api import Browser, Locator, Page, sync_playwright

__all__ = ["KERNEL", "STOCK", "JupyterLab", "Notebook", "code_cell", "new_page", "start_browser"]

TIMEOUT = 300.0  # seconds; generous, a busy machine is not a failure
KERNEL = "mxc-python"
STOCK = "python3"  # plain ipykernel, in the same environment
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# CSS pixels of the page, device pixels for each (sharp, and 1200 wide), and CSS pixels below.
WIDTH, SCALE, MARGIN = 866, 1.5, 4

# What the server was asked, a line of JSON each. Its own log leaves out what went well.
_SERVER_CONFIG = """\
import json


def record(handler):
    request = handler.request
    line = {{
        "method": request.method,
        "uri": request.uri,
        "referer": request.headers.get("Referer", ""),
        "status": handler.get_status(),
    }}
    with open({log!r}, "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\\n")


c.ServerApp.tornado_settings = {{"log_function": record}}
"""
_SETTINGS = {
    # It would ask whether to fetch news, in the middle of the picture.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # On a busy machine it would not wait for what the kernel offers.
    "completer-extension/manager": {"providerTimeout": 60_000},
    # Every output is in the page, also one that nobody has scrolled to.
    "notebook-extension/tracker": {"windowingMode": "none"},
}


class JupyterLab:
    """A JupyterLab server of its own on a free port of 127.0.0.1; its kernels end with it.

    Args:
        folder: what it serves.
        ceiling: the ceiling file of its kernels.
        theme: "light" or "dark".
    """

    def __init__(self, folder: Path, ceiling: Path, *, theme: str = "light") -> None:
        self.folder = folder
        self.url = ""
        self._ceiling = ceiling
        self._theme = theme
        self._token = secrets.token_hex(16)
        self._state = Path(tempfile.mkdtemp(prefix="mxc-kernel-lab-"))
        self._requests = self._state / "requests"
        self._process: subprocess.Popen[bytes] | None = None

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

    def address(self, path: str) -> str:
        """Return the address of a notebook, by itself and without the rest of the interface."""
        return f"{self.url}doc/tree/{path}?token={self._token}"

    def requests(self) -> list[dict[str, Any]]:
        """Return what the server was asked until now and has answered, in the order of answers."""
        if not self._requests.exists():
            return []
        lines = self._requests.read_text("utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def write_notebook(
        self, path: str, cells: Sequence[Mapping[str, Any]], *, kernel: str = KERNEL
    ) -> None:
        """Write a notebook that was never run.

        Args:
            path: where, below the served folder.
            cells: as of nbformat; ``code_cell`` makes one.
            kernel: name of its kernelspec.
        """
        spec = {"name": kernel, "display_name": kernel, "language": "python"}
        notebook = {
            "cells": list(cells),
            "metadata": {"kernelspec": spec},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.folder / path).write_text(json.dumps(notebook), encoding="utf-8")

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
        while not self.url:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self._state / "log").read_text(errors="replace"))
            with contextlib.suppress(OSError, ValueError):  # not there yet, or half written
                self.url = json.loads(found.read_text(encoding="utf-8"))["url"]
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
            f"--ServerApp.root_dir={self.folder}",
        ]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "jupyterlab", *options],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def _write_settings(self) -> None:
        config = self._state / "config"
        config.mkdir()
        (config / "jupyter_server_config.py").write_text(
            _SERVER_CONFIG.format(log=str(self._requests)), encoding="utf-8"
        )
        theme = {"theme": f"JupyterLab {self._theme.capitalize()}"}
        for name, value in {**_SETTINGS, "apputils-extension/themes": theme}.items():
            path = self._state / "settings/@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value), encoding="utf-8")


def code_cell(source: str, name: str) -> dict[str, Any]:
    """Return a code cell that was never run, after whose error the next one still runs.

    Args:
        source: its code.
        name: its id.
    """
    metadata = {"tags": ["raises-exception"]}
    empty = {"cell_type": "code", "outputs": [], "execution_count": None}
    return {**empty, "id": name, "metadata": metadata, "source": source}


@contextlib.contextmanager
def start_browser() -> Iterator[Browser]:
    """Start the machine's own Chromium, headless.

    Raises:
        FileNotFoundError: there is none.
    """
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        raise FileNotFoundError(f"no browser on the PATH: {', '.join(CHROMIUM)}")
    with sync_playwright() as playwright:
        # Playwright starts it with --no-sandbox, without which it refuses to run as root.
        browser = playwright.chromium.launch(executable_path=executable)
        try:
            yield browser
        finally:
            browser.close()


def new_page(browser: Browser, scale: float = SCALE) -> Page:
    """Open a page with cookies of its own.

    Args:
        browser: where.
        scale: device pixels for each CSS pixel; few are drawn faster.
    """
    page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, device_scale_factor=scale)
    page.set_default_timeout(TIMEOUT * 1000)
    return page


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

    def command(self, name: str, **arguments: str) -> None:
        """Run one of the Lab's own commands and wait until it is done."""
        self.page.evaluate(
            "([name, given]) => window.jupyterapp.commands.execute(name, given)", [name, arguments]
        )

    def change_theme(self, theme: str) -> None:
        """Change the page's theme to "Light" or "Dark", and wait until it is."""
        self.command("apputils:change-theme", theme=f"JupyterLab {theme}")
        self.page.wait_for_function(
            "theme => document.body.dataset.jpThemeLight === String(theme === 'Light')", arg=theme
        )

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

    def picture(self, last: int, first: int | None = None) -> bytes:
        """Return a picture of the cells up to one, as PNG.

        Args:
            last: number of the last cell.
            first: number of the first cell; None is the toolbar and all cells.
        """
        self.page.mouse.move(0, 0)  # no tooltip, nothing highlighted
        panel = self.panel.bounding_box()
        top = panel if first is None else self.cell(first).bounding_box()
        cell = self.cell(last).bounding_box()
        assert panel is not None
        assert top is not None
        assert cell is not None
        height = cell["y"] + cell["height"] - top["y"] + MARGIN
        return self.page.screenshot(
            clip={"x": panel["x"], "y": top["y"], "width": panel["width"] - 1, "height": height}
        )

    def shut_down(self) -> None:
        """Shut its kernel down."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
