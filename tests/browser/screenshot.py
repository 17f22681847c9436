"""Takes the picture of a blocked write: a real JupyterLab, a real browser, the real sandbox.

``python -m tests.browser.screenshot OUT.png``, with the extra ``browser`` installed, a Chromium on
the machine, and the kernel set up (``mxc-kernel setup``).
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.browser.lab import JupyterLab, Notebook, code_cell, new_page, start_browser

__all__ = ["made_up_home", "main"]

CEILING = """\
[filesystem]
readonly = ["${notebook_dir}"]
readwrite = ["${notebook_dir}/Downloads"]

[start]
readonly = ["${notebook_dir}"]
"""
CELLS = (
    {
        "cell_type": "markdown",
        "id": "cell-0",
        "metadata": {},
        "source": "The operator's ceiling: **Documents** may be read, **Downloads** written.",
    },
    code_cell('print(open("Documents/report.txt").read())', "cell-1"),
    code_cell('open("Documents/report.txt", "w").write("Total of the year: 1,000,000")', "cell-2"),
    code_cell(
        '%allow_rw Downloads\nopen("Downloads/summary.txt", "w").write("The total is 42.")',
        "cell-3",
    ),
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
        start_browser() as browser,
    ):
        lab.write_notebook("Report.ipynb", CELLS)
        notebook = Notebook(new_page(browser), lab.address("Report.ipynb"))
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


if __name__ == "__main__":
    main()
