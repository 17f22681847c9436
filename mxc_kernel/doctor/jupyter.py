"""Checks of the configuration: the ceiling, and what Jupyter offers to its users."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping

from mxc_kernel.doctor.check import Check, Status, failed
from mxc_kernel.errors import MxcKernelError
from mxc_kernel.policy import Settings, load_ceiling


def settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Return what the operator configured; the defaults where the files cannot be read.

    :func:`check_ceiling` is what reports that.
    """
    try:
        return load_ceiling(notebook_dir=os.getcwd(), environ=environ).settings
    except MxcKernelError:
        return Settings()


def check_ceiling(environ: Mapping[str, str] = os.environ) -> Check:
    """Which ceiling files are there, are they valid and trusted, and do they grant anything?

    They are read as for a notebook in the current folder, which ``${notebook_dir}`` stands for.
    """
    name = "ceiling"
    try:
        ceiling = load_ceiling(notebook_dir=os.getcwd(), environ=environ)
    except MxcKernelError as error:
        return failed(name, error)
    layers = ", ".join(f"{layer.source} ({layer.name})" for layer in ceiling.layers)
    granted = len(ceiling.policy.filesystem.grants)
    if not granted:
        return Check(
            name,
            Status.WARN,
            f"{layers or 'no file'}: no folder can be granted to a cell",
            "List folders in that file." if layers else "Run `mxc-kernel init`, then list folders.",
        )
    return Check(name, Status.OK, f"{layers}: {granted} path{'s' * (granted != 1)} can be granted")


def check_redaction(environ: Mapping[str, str] = os.environ) -> Check:
    """Whose values, of the variables of the kernel's environment, are never shown? Names only."""
    from mxc_kernel.output.secrets import covered_variables, ordinary_variables

    name = "redaction"
    covered, ordinary = covered_variables(environ), ordinary_variables(environ)
    detail = f"hidden in output: {', '.join(covered) or 'no variable of this environment'}"
    if not ordinary:
        return Check(name, Status.OK, detail)
    return Check(
        name,
        Status.OK,
        f"{detail}; too short or too common to be hidden: {', '.join(ordinary)}",
        "If one of them is a secret, change it to a longer one, without words.",
    )


def check_kernelspec(
    specs: Callable[[], Mapping[str, Mapping[str, object]]] | None = None,
) -> Check:
    """Does Jupyter find the kernel, and does what it would start exist?"""
    from mxc_kernel import kernelspec

    name = "kernelspec"
    ours = {
        kernel: argv
        for kernel, spec in (specs or _all_specs)().items()
        if "mxc_kernel.kernel" in (argv := [str(word) for word in _list(spec.get("argv"))])
    }
    if not ours:
        return Check(
            name, Status.FAIL, "Jupyter finds none of this package", "Run `mxc-kernel install`."
        )
    for kernel, argv in ours.items():
        if argv[0] != "python" and not os.access(argv[0], os.X_OK):
            return Check(
                name,
                Status.FAIL,
                f"{kernel} names {argv[0]}, which cannot be run",
                f"Run `mxc-kernel install --name {kernel}`.",
            )
    listed = ", ".join(
        f"{kernel} (Python of whoever starts it)"
        if argv[0] == "python"
        else f"{kernel} ({argv[0]})"
        for kernel, argv in sorted(ours.items())
    )
    missing = "" if kernelspec.NAME in ours else f"; none is called {kernelspec.NAME}"
    return Check(name, Status.OK, listed + missing)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _all_specs() -> dict[str, dict[str, object]]:
    from jupyter_client.kernelspec import KernelSpecManager

    return {name: entry["spec"] for name, entry in KernelSpecManager().get_all_specs().items()}


def check_operator(folders: Iterable[str] | None = None) -> Check:
    """Can a user of this Jupyter simply pick a kernel that has no sandbox?

    Configuration is read as text, never executed: the answer is a hint, not a guarantee.
    """
    name = "other kernels"
    if folders is None:
        from jupyter_core.paths import jupyter_config_path

        folders = jupyter_config_path()
    if {"allowed_kernelspecs", "ensure_native_kernel"} <= _mentioned(folders):
        return Check(name, Status.OK, "Jupyter's configuration restricts which can be picked")
    return Check(
        name,
        Status.WARN,
        "a user of this Jupyter can pick a kernel without a sandbox, such as python3",
        "If others use it: set KernelSpecManager.allowed_kernelspecs = {'mxc-python'} and"
        " ensure_native_kernel = False in jupyter_server_config.py, and switch terminals off.",
    )


def _mentioned(folders: Iterable[str]) -> set[str]:
    """Return which settings of KernelSpecManager the configuration files there name."""
    found: set[str] = set()
    for folder in folders:
        for base in ("jupyter_config", "jupyter_server_config"):
            for suffix in (".py", ".json"):
                try:
                    with open(os.path.join(folder, base + suffix), encoding="utf-8") as file:
                        text = re.sub(r"(?m)^\s*#.*$", "", file.read())
                except (OSError, UnicodeDecodeError):
                    continue
                found.update(re.findall(r"\b(allowed_kernelspecs|ensure_native_kernel)\b", text))
    return found
