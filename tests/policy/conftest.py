"""A home, a project and ceiling files that the loader can trust, in pytest's own folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mxc_kernel.policy import Ceiling, load_ceiling


class Layers:
    """Writes ceiling files and loads them as the only ones on the machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.project = root / "project"
        self.system = root / "system" / "ceiling.toml"
        self.user = root / "user" / "ceiling.toml"
        self.beside = self.project / ".mxc-ceiling.toml"
        self.environ = {"HOME": str(self.home)}
        for folder in (self.home, self.project, self.system.parent, self.user.parent):
            folder.mkdir()
            folder.chmod(0o755)

    def write(self, file: Path, text: str) -> Path:
        file.write_text(text)
        file.chmod(0o644)
        return file

    def load(self, **more: object) -> Ceiling:
        wanted = {
            "notebook_dir": str(self.project),
            "environ": self.environ,
            "system": str(self.system),
            "user": str(self.user),
        }
        return load_ceiling(**{**wanted, **more})


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    return Layers(Path(os.path.realpath(tmp_path)))
