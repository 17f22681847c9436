"""Libraries come from installed packages, and reading them leads nowhere else."""

from __future__ import annotations

import os
import sys
import threading
import zlib
from pathlib import Path

import pytest

from mxc_kernel import libraries
from mxc_kernel.libraries import Libraries, Place, places

PLOTLY = "plotly/package_data/plotly.min.js"
BOKEH = "bokeh/server/static/js/bokeh"


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "packages"
    for path, text in {
        PLOTLY: "the plotly",
        f"{BOKEH}.min.js": "the bokeh",
        f"{BOKEH}-widgets.min.js": "its widgets",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(libraries, "cache_folder", lambda: str(tmp_path / "cache"))
    return tmp_path / "cache"


def found(folder: Path, name: str, python: str = sys.executable) -> str | None:
    packed = Libraries(lambda: [Place(python, str(folder), ours=True)])(name)
    if packed is None:
        return None
    return zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(packed).decode()


def test_libraries_are_found_in_installed_packages(packages):
    assert found(packages, "plotly") == "<script>the plotly\n</script>"
    assert found(packages, "bokeh") == "<script>the bokeh\nits widgets\n</script>"
    assert found(packages, "vega") is None
    assert found(packages, "../plotly") is None
    assert found(packages / "no", "plotly") is None


def test_the_first_place_counts_and_what_was_found_is_kept(packages, tmp_path):
    other = tmp_path / "other"
    (other / PLOTLY).parent.mkdir(parents=True)
    (other / PLOTLY).write_text("another")
    here: list[Place] = []
    library = Libraries(lambda: here)
    assert library("plotly") is None
    here += [Place(sys.executable, str(other)), Place(sys.executable, str(packages))]
    first = library("plotly")
    assert first is not None
    here.clear()
    assert library("plotly") is first
    assert found(other, "plotly") == "<script>another\n</script>"


def test_no_link_is_followed_below_the_packages(packages, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "plotly.min.js").write_text("secret")
    (packages / PLOTLY).unlink()
    (packages / PLOTLY).symlink_to(secret / "plotly.min.js")
    assert found(packages, "plotly") is None
    (packages / PLOTLY).unlink()
    (packages / PLOTLY).parent.rmdir()
    (packages / PLOTLY).parent.symlink_to(secret)
    assert found(packages, "plotly") is None
    # The folder itself may be reached by one: the operator chose it.
    (tmp_path / "link").symlink_to(packages)
    assert found(tmp_path / "link", "bokeh")


def test_only_files_of_a_sensible_size_are_read(packages, monkeypatch):
    (packages / PLOTLY).unlink()
    os.mkfifo(packages / PLOTLY)
    assert found(packages, "plotly") is None  # and does not wait for someone to write
    monkeypatch.setattr(libraries, "_MAX", 9)
    assert found(packages, "bokeh") == "<script>the bokeh\n</script>"
    monkeypatch.setattr(libraries, "_MAX", 8)
    assert found(packages, "bokeh") is None


@pytest.fixture
def asked(packages, tmp_path) -> Path:
    """What the interpreter ``python`` was asked, a line each; it has vega's library."""
    (packages / "vl_convert").mkdir()
    (packages / "vl_convert/vl_convert.abi3.so").write_text("")
    asked = tmp_path / "asked"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {asked}\necho the vega\n')
    python.chmod(0o755)
    return asked


def test_vegas_can_be_asked_for_ahead(packages, tmp_path, cache, asked):
    library = Libraries(lambda: [Place(str(tmp_path / "python"), str(packages), ours=True)])
    for _ in range(2):
        library.prepare()
        for thread in threading.enumerate():
            if thread.name == "libraries":
                thread.join()
    assert len(asked.read_text().splitlines()) == 1
    assert library("vega") is not None
    assert len(asked.read_text().splitlines()) == 1


def test_vegas_is_asked_for_once(packages, tmp_path, cache, asked):
    python = tmp_path / "python"
    for _ in range(2):
        assert found(packages, "vega", str(python)) == "<script>the vega\n\n</script>"
    assert asked.read_text().count("-I -c import vl_convert") == 1
    assert [path.stat().st_mode & 0o777 for path in cache.glob("libraries/*")] == [0o600]
    # Another version of the package is asked again.
    (packages / "vl_convert/vl_convert.abi3.so").write_text("newer")
    assert found(packages, "vega", str(python))
    assert asked.read_text().count("-I -c import vl_convert") == 2


@pytest.mark.parametrize("script", ["exit 1", "true", "kill -9 $$", "head -c 99 /dev/zero"])
def test_an_interpreter_that_gives_nothing_is_no_library(packages, tmp_path, script, monkeypatch):
    monkeypatch.setattr(libraries, "_MAX", 50)
    (packages / "vl_convert").mkdir()
    (packages / "vl_convert/vl_convert.abi3.so").write_text("")
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    assert found(packages, "vega", str(python)) is None
    assert found(packages, "vega", str(tmp_path / "none")) is None


def test_the_hosts_own_packages_come_first():
    own = places(None)
    assert own
    assert all(place.ours and place.folder.startswith("/") for place in own)
