"""The kernelspec that ships, what a wheel holds, and the variants that `install` registers."""

from __future__ import annotations

import json
import os
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from mxc_kernel import kernelspec
from mxc_kernel.errors import MxcKernelError, SandboxPolicyError, SandboxUnavailableError
from mxc_kernel.kernelspec import Variant, build, install, shipped
from mxc_kernel.policy import example_ceiling

ROOT = Path(__file__).parent.parent
SHIPPED = json.loads((ROOT / "kernelspec" / "kernel.json").read_text())
FILES = {"kernel.json", "logo-32x32.png", "logo-64x64.png", "logo-svg.svg"}


def found_in(prefix: Path, name: str) -> tuple[Path, dict[str, object]]:
    """Look a kernel up as Jupyter does."""
    manager = KernelSpecManager(kernel_dirs=[str(prefix / "share" / "jupyter" / "kernels")])
    spec = manager.get_kernel_spec(name)
    return Path(spec.resource_dir), spec.to_dict()


def test_the_shipped_kernelspec_has_every_field():
    assert SHIPPED == {
        "argv": ["python", "-E", "-P", "-m", "mxc_kernel.kernel", "-f", "{connection_file}"],
        "display_name": "Python (MXC sandboxed)",
        "language": "python",
        "interrupt_mode": "message",
        "kernel_protocol_version": "5.5",
        "metadata": {"debugger": True},
    }


@pytest.mark.parametrize("size", [32, 64])
def test_a_logo_has_the_size_in_its_name(size):
    data = (ROOT / "kernelspec" / f"logo-{size}x{size}.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == (size, size)


def test_the_svg_logo_is_plain_artwork():
    names = {
        element.tag.partition("}")[2]
        for element in ElementTree.parse(ROOT / "kernelspec" / "logo-svg.svg").iter()
    }
    assert names == {"svg", "rect", "path"}


def test_a_wheel_holds_the_kernelspec_and_the_command(tmp_path):
    subprocess.run(
        [
            *(sys.executable, "-P", "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("mxc_kernel-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (spec,) = (name for name in names if name.endswith("/kernel.json"))
        assert json.loads(archive.read(spec)) == SHIPPED
    folder = "/data/share/jupyter/kernels/mxc-python/"
    assert {name.partition(folder)[2] for name in names if folder in name} == FILES
    assert {"mxc_kernel_start.py", "mxc_kernel/__main__.py", "mxc_kernel/py.typed"} <= set(names)


def test_the_shipped_kernelspec_is_found_where_the_package_is_installed():
    folder = Path(shipped())
    assert {path.name for path in folder.iterdir()} == FILES
    assert json.loads((folder / "kernel.json").read_text()) == SHIPPED


def test_a_missing_kernelspec_says_how_to_get_it_back(monkeypatch):
    monkeypatch.setattr(kernelspec, "_DISTRIBUTION", "no-such-distribution")
    with pytest.raises(SandboxUnavailableError, match="pip install --force-reinstall"):
        shipped()


def test_install_registers_a_kernel_that_jupyter_finds(tmp_path):
    returned = install(Variant(), prefix=str(tmp_path))
    folder, spec = found_in(tmp_path, "mxc-python")
    assert Path(returned).samefile(folder)
    assert {path.name for path in folder.iterdir()} == FILES
    assert spec["argv"] == [sys.executable, *SHIPPED["argv"][1:]]
    assert {key: spec[key] for key in SHIPPED if key != "argv"} == {
        key: value for key, value in SHIPPED.items() if key != "argv"
    }


def test_a_registered_kernel_can_be_read_by_others(tmp_path):
    old = os.umask(0o022)
    try:
        folder = Path(install(Variant(), prefix=str(tmp_path)))
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in folder.iterdir())


def test_install_for_the_user_goes_to_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    assert Path(install(Variant(name="mine"))) == tmp_path / "kernels" / "mine"


def test_a_variant_names_its_interpreter_ceiling_and_title():
    variant = Variant("lab", "Lab (sandboxed)", "/opt/lab/bin/python", "/etc/lab.toml")
    spec = build(variant, SHIPPED)
    assert spec["argv"] == [
        *(sys.executable, "-E", "-P", "-m", "mxc_kernel.kernel"),
        *("--python", "/opt/lab/bin/python", "-f", "{connection_file}"),
    ]
    assert spec["display_name"] == "Lab (sandboxed)"
    assert spec["env"] == {"MXC_KERNEL_CEILING": "/etc/lab.toml"}
    assert SHIPPED["argv"][0] == "python"


def test_an_interpreter_in_a_virtual_environment_stays_a_link(tmp_path):
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    assert build(Variant(python=str(link)), SHIPPED)["argv"][6] == str(link)


def test_installing_again_replaces_the_variant(tmp_path):
    install(Variant(display_name="one"), prefix=str(tmp_path))
    install(Variant(display_name="two"), prefix=str(tmp_path))
    assert found_in(tmp_path, "mxc-python")[1]["display_name"] == "two"


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a b", "a/b", "a\n"])
def test_a_bad_name_is_refused(tmp_path, name):
    with pytest.raises(MxcKernelError, match="letters, digits"):
        install(Variant(name=name), prefix=str(tmp_path / "prefix"))
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_says_where_to_go(tmp_path):
    (tmp_path / "share").write_text("a file where a folder must be")
    with pytest.raises(MxcKernelError, match="--prefix FOLDER"):
        install(Variant(), prefix=str(tmp_path))


def test_an_unusable_interpreter_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(MxcKernelError):
        install(Variant(python=str(tmp_path / "nothing")), prefix=str(tmp_path / "prefix"))
    assert not (tmp_path / "prefix").exists()


def test_the_example_is_a_ceiling_that_can_be_registered(tmp_path):
    ceiling = tmp_path / "ceiling.toml"
    with pytest.raises(SandboxPolicyError, match="does not exist"):
        install(Variant(ceiling=str(ceiling)), prefix=str(tmp_path / "prefix"))
    ceiling.write_text(example_ceiling())
    ceiling.chmod(0o600)
    install(Variant(ceiling=str(ceiling)), prefix=str(tmp_path / "prefix"))
    spec = found_in(tmp_path / "prefix", "mxc-python")[1]
    assert spec["env"] == {"MXC_KERNEL_CEILING": str(ceiling)}


def test_a_broken_ceiling_is_refused_before_anything_is_written(tmp_path):
    ceiling = tmp_path / "ceiling.toml"
    ceiling.write_text("[filesystem]\nreadonly = 'not a list'\n")
    with pytest.raises(SandboxPolicyError):
        install(Variant(ceiling=str(ceiling)), prefix=str(tmp_path / "prefix"))
    assert not (tmp_path / "prefix").exists()
