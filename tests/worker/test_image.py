"""The file that a child takes its first modules from, and what happens where it does not fit."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mxc_kernel.mxc import bundle, provision, runtime
from mxc_kernel.worker.image import NAME

FROM_IMAGE = "type(__import__(%r).__spec__.loader).__name__ == '_Loader'"
FINDERS = "sorted({type(finder).__name__ for finder in __import__('sys').meta_path} & {'Image'})"


class Environment:
    """A virtual environment with what sandboxes run on here, and a package ``comm`` of its own."""

    def __init__(self, home: Path) -> None:
        base = runtime.default()
        subprocess.run([base.executable, "-m", "venv", "--without-pip", home], check=True)
        self.image = home / NAME
        self.python = str(home / "bin" / "python")
        self.magic = base.magic
        site = next(home.glob("lib/python3*/site-packages"))
        (site / "ours.pth").write_text(f"{base.modules}\n")
        self.comm = site / "comm" / "__init__.py"
        self.comm.parent.mkdir()
        for file in (Path(base.modules) / "comm").glob("*.py"):
            (site / "comm" / file.name).write_bytes(file.read_bytes())
        subprocess.run([self.python, "-m", "compileall", "-q", self.comm.parent], check=True)

    def write(self) -> bytes:
        """Write the image as the command that sets up does, but as ourselves."""
        done = subprocess.run(
            bundle.command(self.python, "mxc_kernel.worker.image"),
            input=bundle.build(self.magic),
            capture_output=True,
            timeout=60,
            check=True,
        )
        self.image.write_bytes(done.stdout)
        return done.stdout


@pytest.fixture
def environment(sandbox_folder: Path) -> Environment:
    """An environment without an image."""
    return Environment(sandbox_folder / "venv")


@pytest.fixture
def started(start, environment):
    """Start a child in that environment."""
    return lambda: start(python=environment.python, magic=environment.magic)


def test_modules_come_from_the_image_and_know_their_source(started, environment):
    assert started().ok(FROM_IMAGE % "comm") == "False"  # the positive control
    environment.write()
    child = started()
    assert child.ok(FROM_IMAGE % "comm") == "True"
    assert child.ok(FROM_IMAGE % "IPython") == "True"
    child.ok("import comm, importlib, inspect")
    assert child.ok("inspect.getsource(comm) == open(comm.__file__).read()") == "True"
    assert child.ok("comm.__file__").endswith("site-packages/comm/__init__.py'")
    assert child.ok("importlib.reload(comm) is comm") == "True"


def test_a_cell_imports_as_ever(started, environment):
    environment.write()
    child = started()
    assert child.ok(FINDERS) == "[]"


def test_what_was_changed_since_is_read_from_its_source(started, environment):
    environment.write()
    environment.comm.write_text(environment.comm.read_text() + "\nCHANGED = 'since'\n")
    child = started()
    assert child.ok("import comm; comm.CHANGED") == "'since'"
    assert child.ok(FROM_IMAGE % "IPython") == "True"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"\0" * 100,
        lambda data: data[:5],
        lambda data: data[:1000],
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(data[8:40], b"\1" * 32),
        lambda data: data[:-100_000] + b"\0" * 100_000,
        lambda data: (4).to_bytes(8, "big") + b"N" * 100,
    ],
)
def test_a_spoilt_image_costs_no_more_than_time(started, environment, spoil):
    environment.image.write_bytes(spoil(environment.write()))
    assert started().ok("6 * 7") == "42"


def test_setup_writes_it_for_everyone_to_read(environment):
    old = os.umask(0o077)
    try:
        assert provision.write_image(runtime.describe(environment.python)) == str(environment.image)
    finally:
        os.umask(old)
    status = environment.image.stat()
    assert status.st_mode & 0o777 == 0o644
    assert status.st_uid == os.geteuid()
    assert environment.image.read_bytes() == environment.write()
    assert [path.name for path in environment.image.parent.glob(f"{NAME}*")] == [NAME]


def test_there_is_none_for_an_interpreter_that_is_nobodys_environment(environment):
    (environment.image.parent / "pyvenv.cfg").unlink()
    interpreter = replace(runtime.default(), executable=environment.python)
    assert provision.write_image(interpreter) is None
    assert not environment.image.exists()
