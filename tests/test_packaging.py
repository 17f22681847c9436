"""The files around the package: pinned versions and the Makefile."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_version_is_pinned_exactly_and_nothing_else_is_said():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)==[0-9][0-9a-z.]*", line) for line in lines]
    assert all(pins), [line for line, pin in zip(lines, pins, strict=True) if not pin]
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0].lower())
    extras = PROJECT["optional-dependencies"].values()
    asked = {*PROJECT["dependencies"], *(line for extra in extras for line in extra)}
    pinned = {canonical(pin[1]) for pin in pins if pin}
    assert {canonical(re.split(r"[<>=~ ]", line)[0]) for line in asked} <= pinned
    assert "mxc-kernel" not in pinned


def test_make_help_lists_every_target():
    make = shutil.which("make")
    assert make, "install make"
    text = (ROOT / "Makefile").read_text()
    (targets,) = re.findall(r"(?m)^\.PHONY: (.*)$", text)
    shown = subprocess.run(
        [make, "-C", str(ROOT), "--no-print-directory", "help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert [line.split()[1] for line in shown] == targets.split()
    assert all(len(line.split()) > 3 for line in shown)


def test_the_ceiling_in_readme_is_a_right_one(sandbox_folder: Path) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    ceiling = sandbox_folder / "ceiling.toml"
    ceiling.write_text(text.split("```toml\n")[1].split("```")[0])
    command = [sys.executable, "-E", "-P", "-m", "mxc_kernel", "ceiling", "check", str(ceiling)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ceiling.write_text(ceiling.read_text().replace('"10m"', '"10min"'))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
