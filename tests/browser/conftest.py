"""One browser and one other host for everything here; each table is played once.

A JupyterLab for each file: it remembers what was open beside the notebook, and the attacks open a
sidebar that makes every later page narrower.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.attacks import ATTACKS
from tests.browser.lab import KERNEL, STOCK, JupyterLab, start_browser
from tests.browser.stage import Played, Stage
from tests.browser.witness import OtherHost

# Folders of the server: a project's own file narrows the ceiling, which allows frames.
LEVELS = ("control", "safe", "frame")


@pytest.fixture(scope="session", autouse=True)
def _terminable() -> Iterator[None]:
    """Ended from outside, the run still ends its server and browser and removes what it made."""

    def end(*_signal: object) -> None:
        pytest.exit("terminated", returncode=128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def lab() -> Iterator[JupyterLab]:
    """A JupyterLab that serves a folder for each level; "control" is for plain ipykernel."""
    folder = Path(tempfile.mkdtemp(prefix="mxc-kernel-browser-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        for level in LEVELS:
            (folder / level).mkdir()
            (folder / level).chmod(0o755)
        (folder / "safe/.mxc-ceiling.toml").write_text('[output]\nhtml = "safe"\n')
        ceiling = folder / "ceiling.toml"
        ceiling.write_text('[output]\nhtml = "frame"\n', encoding="utf-8")
        with JupyterLab(folder, ceiling) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with start_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def other() -> Iterator[OtherHost]:
    """Any other host."""
    with OtherHost() as other:
        yield other


@pytest.fixture(scope="module")
def played(lab: JupyterLab, browser: Browser, other: OtherHost) -> Callable[[str], Played]:
    """What came of the whole table at a level: "control" is plain ipykernel."""

    done: dict[str, Played | BaseException] = {}

    def play(level: str) -> Played:
        if level not in done:
            kernel = STOCK if level == "control" else KERNEL
            stage = Stage(lab, other, browser, level, kernel)
            try:
                done[level] = stage.play(ATTACKS, expected=level == "control")
            except Exception as error:  # noqa: BLE001 - every row fails by it, and at once
                done[level] = error
        outcome = done[level]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return play
