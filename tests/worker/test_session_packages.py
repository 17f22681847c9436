"""``%pip``: a private environment over the interpreter's own, kept over a relaunch."""
# ruff: noqa: E501

from __future__ import annotations

import os
import zipfile

import pytest


@pytest.fixture
def wheels(tmp_path):
    """A granted folder with one small wheel in it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "mxc_sample-1.0.dist-info"
    files = {
        "mxc_sample/__init__.py": "answer = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: mxc-sample\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nmxc-sample = mxc_sample:main\n",
        f"{info}/RECORD": f"mxc_sample/__init__.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/entry_points.txt,,\n{info}/RECORD,,\n",
    }  # fmt: skip
    with zipfile.ZipFile(folder / "mxc_sample-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return folder


def test_a_wheel_is_installed_imported_at_once_and_carried(start, wheels):
    first = start()
    assert first.run("import mxc_sample").reply["ename"] == "ModuleNotFoundError"
    cell = first.run(f"%pip install --no-index --find-links {wheels} mxc-sample")
    assert "Successfully installed mxc-sample-1.0" in cell.text(), cell
    assert cell.metadata.get("mxc") is None
    assert first.ok("import mxc_sample; mxc_sample.answer") == "42"
    where = first.ok("mxc_sample.__file__")
    assert "scratch-0/packages/lib" in where
    assert "mxc-sample" in first.run("!pip list 2>/dev/null").text()
    assert first.run("!python -c 'import mxc_sample; print(mxc_sample.answer)'").text() == "42\r\n"
    chunks, report = first.dump()
    assert report["lost"] == []
    second = start()
    assert second.load(chunks)["lost"] == []
    assert second.ok("mxc_sample.answer") == "42"
    assert "scratch-1/packages/lib" in second.ok(
        "import importlib; importlib.reload(mxc_sample).__file__"
    )


def test_the_interpreters_packages_are_seen_and_left_alone(start):
    child = start()
    assert "ipykernel" in child.run("%pip list").text()
    cell = child.run("%pip uninstall -y traitlets")
    assert "outside environment" in cell.text()
    assert child.ok("import traitlets.config") is None


def test_a_closed_network_is_said_and_reported(start, wheels):
    child = start(env={"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull})
    cell = child.run("%pip install mxc-sample")
    assert "cannot be reached from this sandbox" in cell.text("stderr")
    assert "--find-links" in cell.text("stderr")
    assert cell.denials == [{"kind": "network", "host": "the package index", "errno": ""}]
    missing = child.run(f"%pip install --no-index --find-links {wheels} no-such-package")
    assert "No matching distribution" in missing.text()
    assert missing.metadata.get("mxc") is None


def test_an_interpreter_without_pip_says_so(start):
    child = start()
    assert "ipykernel" in child.run("%pip list").text()
    child.ok(
        "import mxc_kernel.worker.packages as packages; packages.find_spec = lambda name: None"
    )
    assert "pip is not installed" in child.run("%pip list").text("stderr")


def test_files_already_there_and_files_too_large(start, monkeypatch):
    first, second = start(), start()
    first.ok("open('a', 'w').write('first'); open('b', 'w').write('first')")
    second.ok("open('a', 'w').write('second')")
    chunks, _ = first.dump()
    assert second.load(chunks)["lost"] == []
    assert second.ok("open('a').read(), open('b').read()") == "('second', 'first')"
    first.ok("import os; os.mknod('huge'); os.truncate('huge', 300 << 20)")
    _, report = first.dump()
    assert [entry["name"].rpartition("/")[2] for entry in report["lost"]] == ["huge"]
