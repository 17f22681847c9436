"""Registering the kernel with Jupyter: the shipped kernelspec, and variants of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata

from mxc_kernel.errors import MxcKernelError, SandboxPolicyError, SandboxUnavailableError

__all__ = ["NAME", "Variant", "build", "install", "shipped"]

NAME = "mxc-python"
_DISTRIBUTION = "mxc-kernel"
# Jupyter's own rule but for the leading dot: it takes "..", and removes what stands there first.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_LOGOS = ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg")


@dataclass(frozen=True)
class Variant:
    """What a registered kernel may have different from the shipped one.

    Attributes:
        name: the folder's name and what ``jupyter`` calls the kernel.
        display_name: what JupyterLab's launcher shows; None keeps the shipped one.
        python: the interpreter for the sandboxed child; None lets the kernel choose at each start.
        ceiling: the ceiling file that stands in for the user's; None keeps the user's.
    """

    name: str = NAME
    display_name: str | None = None
    python: str | None = None
    ceiling: str | None = None


def shipped() -> str:
    """Return the folder of the kernelspec that came with the package.

    Raises:
        SandboxUnavailableError: the package was not installed by an installer that records files.
    """
    wanted = f"share/jupyter/kernels/{NAME}/kernel.json"
    try:
        files = metadata.files(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = os.path.realpath(str(file.locate()))
        if file.as_posix().endswith(wanted) and os.path.isfile(path):
            return os.path.dirname(path)
    raise SandboxUnavailableError(
        "The kernelspec that belongs to the package is missing.",
        remedy="Install the package again: pip install --force-reinstall --no-deps mxc-kernel",
    )


def build(variant: Variant, template: dict[str, object]) -> dict[str, object]:
    """Return the kernel.json of a variant.

    Args:
        variant: what to change.
        template: the shipped kernel.json.
    """
    argv = template["argv"]
    if not isinstance(argv, list):
        raise TypeError("argv of the shipped kernel.json is not a list")
    options = ["--python", _absolute(variant.python)] if variant.python else []
    at = argv.index("-f")
    spec = dict(template)
    # Jupyter replaces a bare "python" with the interpreter of whoever starts the kernel, which need
    # not have this package: a registered variant names its own.
    spec["argv"] = [sys.executable, *argv[1:at], *options, *argv[at:]]
    if variant.display_name is not None:
        spec["display_name"] = variant.display_name
    if variant.ceiling is not None:
        spec["env"] = {"MXC_KERNEL_CEILING": _absolute(variant.ceiling)}
    return spec


def install(variant: Variant, *, prefix: str | None = None) -> str:
    """Register a variant, in place of one of the same name.

    Args:
        variant: what to register.
        prefix: the installation prefix to register below; None registers for the current user.

    Returns:
        The kernelspec's folder.

    Raises:
        MxcKernelError: the name is not one that Jupyter takes, or the folder cannot be written.
        SandboxUnavailableError: the interpreter for the child cannot be used.
        SandboxPolicyError: the ceiling file is not valid or not trusted.
    """
    _check(variant)
    source = shipped()
    with open(os.path.join(source, "kernel.json"), encoding="utf-8") as file:
        spec = build(variant, json.load(file))

    from jupyter_client.kernelspec import KernelSpecManager

    with tempfile.TemporaryDirectory(prefix="mxc-kernel-") as private:
        # The copy takes over the folder's mode, and the temporary one is closed to others: a kernel
        # registered by root below a shared prefix would be invisible to everybody else.
        staged = os.path.join(private, "spec")
        os.mkdir(staged, 0o755)
        for logo in _LOGOS:
            shutil.copyfile(os.path.join(source, logo), os.path.join(staged, logo))
        with open(os.path.join(staged, "kernel.json"), "w", encoding="utf-8") as file:
            json.dump(spec, file, indent=2, ensure_ascii=False)
            file.write("\n")
        try:
            return str(
                KernelSpecManager().install_kernel_spec(
                    staged, variant.name, user=prefix is None, prefix=prefix
                )
            )
        except OSError as error:
            raise MxcKernelError(
                f"The kernel could not be registered: {error}",
                remedy="Choose a place that you can write: --user, or --prefix FOLDER.",
            ) from error


def _check(variant: Variant) -> None:
    """Find out now, not at the first start in a notebook, that a variant cannot work."""
    if not _NAME.fullmatch(variant.name):
        raise MxcKernelError(
            f"{variant.name!r} cannot be the name of a kernel.",
            remedy="Use letters, digits, '-', '_' and '.', with no '.' at the start.",
        )
    if variant.python is not None:
        from mxc_kernel.mxc import runtime

        runtime.describe(_absolute(variant.python))
    if variant.ceiling is not None:
        from mxc_kernel.policy import load_layer

        path = _absolute(variant.ceiling)
        # Any folder will do for ${notebook_dir}: each notebook has its own later.
        if load_layer("user", path, notebook_dir=os.getcwd()) is None:
            raise SandboxPolicyError(
                f"the ceiling file {path} does not exist",
                remedy=f"Write an example: mxc-kernel init --path {path}",
            )


def _absolute(path: str) -> str:
    # Not the real path: a virtual environment's interpreter is a link, and works only as one.
    return os.path.abspath(os.path.expanduser(path))
