"""Finds the ceiling files, reads those that can be trusted, and meets them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy.access import NATIVE, Access
from mxc_kernel.policy.audit import Audit
from mxc_kernel.policy.ceiling import DEFAULT_LIMITS, Ceiling, Layer, LayerName, Settings
from mxc_kernel.policy.filesystem import Filesystem
from mxc_kernel.policy.known import CEILING_NAME, PROJECT_CEILING, known_places, own_folder
from mxc_kernel.policy.model import LIMIT_NAMES, Limits, Policy
from mxc_kernel.policy.paths import canonical
from mxc_kernel.policy.places import Place, Places
from mxc_kernel.policy.redaction import Redaction
from mxc_kernel.policy.request import Request
from mxc_kernel.policy.starting import Start, asked, read_start
from mxc_kernel.policy.trust import read_trusted
from mxc_kernel.records import field_names, replace

__all__ = [
    "CEILING_VARIABLE",
    "combine",
    "load_ceiling",
    "load_layer",
    "stamp",
    "system_ceiling",
    "user_ceiling",
]

CEILING_VARIABLE = "MXC_KERNEL_CEILING"


def system_ceiling() -> str:
    """Return where the administrator's ceiling is looked for."""
    if sys.platform == "win32":
        data = os.environ.get("ProgramData", "C:\\ProgramData")  # noqa: SIM112 -- its name
        return os.path.join(data, "mxc-kernel", CEILING_NAME)
    return f"/etc/mxc-kernel/{CEILING_NAME}"


def user_ceiling(environ: Mapping[str, str] = os.environ) -> str:
    """Return where the user's ceiling is looked for.

    Args:
        environ: the kernel's environment; ``MXC_KERNEL_CEILING`` in it stands in for the usual
            path.

    Raises:
        SandboxPolicyError: the variable is not an absolute path, or there is no home folder.
    """
    path = environ.get(CEILING_VARIABLE, "")
    if not path:
        return os.path.join(own_folder("config", environ), CEILING_NAME)
    if not os.path.isabs(path):
        raise SandboxPolicyError(
            f"{CEILING_VARIABLE} is {path!r}, which is not an absolute path",
            remedy=f"Set {CEILING_VARIABLE} to the full path of a ceiling file, or unset it.",
        )
    return path


def load_ceiling(
    *,
    notebook_dir: str | None,
    environ: Mapping[str, str] = os.environ,
    system: str | None = None,
    user: str | None = None,
) -> Ceiling:
    """Read all ceiling files that apply to a notebook and meet them.

    A grant counts only where the system's and the user's file both make it, as far as they exist;
    where neither exists nothing is granted. The notebook's own file can only take away.

    Args:
        notebook_dir: the notebook's folder, an absolute path; None if there is no notebook.
        environ: the kernel's environment.
        system: the system's file, in place of the usual one.
        user: the user's file, in place of ``MXC_KERNEL_CEILING`` and the usual one.

    Raises:
        SandboxPolicyError: a file cannot be trusted or read, or grants what never can be granted.
            No cell may run then.
    """
    if notebook_dir is not None:
        notebook_dir = canonical(notebook_dir, base=None)
    places = known_places(environ)
    paths: dict[LayerName, str] = {
        "system": system or system_ceiling(),
        "user": user or user_ceiling(environ),
    }
    if notebook_dir is not None:
        paths["project"] = os.path.join(notebook_dir, PROJECT_CEILING)
    layers = []
    for name, path in paths.items():
        layer = load_layer(name, path, notebook_dir=notebook_dir, environ=environ, places=places)
        if layer is not None:
            layers.append(layer)
        elif name == "user" and user is None and environ.get(CEILING_VARIABLE):
            raise SandboxPolicyError(
                f"{CEILING_VARIABLE} names {path}, which does not exist",
                remedy="Create it (`mxc-kernel init` writes an example), or unset the variable.",
            )
    start = read_start(environ)
    further = _layers_of(start, notebook_dir, environ, places)
    ceiling = replace(combine(layers, places, further), looked_at=tuple(paths.values()))
    return replace(ceiling, start=asked(start.ask, ceiling, notebook_dir)) if start else ceiling


def load_layer(
    name: LayerName,
    path: str,
    *,
    notebook_dir: str | None,
    environ: Mapping[str, str] = os.environ,
    places: Places | None = None,
) -> Layer | None:
    """Read one ceiling file.

    Args:
        name: which layer it is read as.
        path: the file, an absolute path.
        notebook_dir: what ``${notebook_dir}`` stands for, canonical.
        environ: the kernel's environment.
        places: what has rules of its own; None finds out.

    Returns:
        The layer, or None if there is no such file.

    Raises:
        SandboxPolicyError: see `load_ceiling`.
    """
    trusted = read_trusted(path)
    if trusted is None:
        return None
    # A start without a ceiling is spared the parser.
    from mxc_kernel.policy.reading import read_layer

    content, source = trusted
    return read_layer(
        name,
        content,
        source,
        notebook_dir=notebook_dir,
        environ=environ,
        places=known_places(environ) if places is None else places,
    )


def _layers_of(
    start: Start | None, notebook_dir: str | None, environ: Mapping[str, str], places: Places
) -> list[Layer]:
    """Read the layers that whoever starts the kernel adds."""
    if start is None or not start.layers:
        return []
    from mxc_kernel.policy.reading import read_layer

    return [
        read_layer(
            layer.name,
            layer.text.encode(),
            layer.source,
            notebook_dir=notebook_dir,
            environ=environ,
            places=places,
        )
        for layer in start.layers
    ]


def combine(layers: Sequence[Layer], places: Places, further: Sequence[Layer] = ()) -> Ceiling:
    """Meet the layers of a ceiling.

    Args:
        layers: the layers there are, in any order.
        places: what has rules of its own.
        further: layers that can only take away. They do not stand in for this machine's own: where
            it has none nothing is granted, and what its sessions start with is not theirs to say.
    """
    granting = [layer for layer in layers if layer.name != "project"]
    policy = Policy.top(places.style) if granting else Policy()
    for layer in granting:
        policy = policy.meet(layer.policy)
    policy = replace(policy, limits=_with_defaults(policy.limits, granting))
    start = Filesystem((), places.style)
    for layer in granting:
        start = start.join(layer.start)
    redaction = Redaction.top() if granting else Redaction()
    for layer in (*layers, *further):
        policy = policy.meet(layer.policy)
        redaction = redaction.meet(layer.redaction)
    files = [
        Place(layer.source, Access.READONLY, "it is a ceiling", by_name=Access.NONE)
        for layer in layers
    ]
    settings = _settings(granting)
    files += [
        Place(path, Access.NONE, "it belongs to the audit trail")
        for path in (settings.audit.anchor_file, settings.audit.key)
        if path is not None
    ]
    owners = [*granting, *(layer for layer in further if layer.name != "project")]
    places = places.opening(_named_by_all(owners, places)).with_places(files)
    everything = (*layers, *further)
    return Ceiling(
        policy=policy,
        start=Request(filesystem=places.guard(start.meet(policy.filesystem))),
        layers=everything,
        requests="none" if any(layer.requests == "none" for layer in everything) else "magics",
        settings=settings,
        places=places,
        redaction=redaction,
    )


def stamp(paths: Iterable[str]) -> tuple[tuple[int, ...] | None, ...]:
    """Return what changes when one of these files is written, replaced, created or removed.

    Cheap enough for every cell; compare it with the one taken just before the files were read.

    Args:
        paths: a ceiling's `looked_at`.
    """
    stamps: list[tuple[int, ...] | None] = []
    for path in paths:
        try:
            status = os.lstat(path)
        except OSError:
            stamps.append(None)
            continue
        stamps.append((status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns))
    return tuple(stamps)


def _with_defaults(limits: Limits, layers: Sequence[Layer]) -> Limits:
    """Fill in the limits that no layer states; a project's file cannot lift a default."""
    stated = {key for layer in layers for key in layer.stated}
    return replace(
        limits,
        **{name: getattr(DEFAULT_LIMITS, name) for name in LIMIT_NAMES if name not in stated},
    )


def _settings(layers: Sequence[Layer]) -> Settings:
    """Take each setting from the system's file, else the user's, else the default."""
    chosen: dict[str, Any] = {}
    audit: dict[str, Any] = {}
    for layer in sorted(layers, key=lambda layer: layer.name != "system"):
        for name in field_names(Settings):
            if name in layer.stated:
                chosen.setdefault(name, getattr(layer.settings, name))
        for name in field_names(Audit):
            if f"audit.{name}" in layer.stated:
                audit.setdefault(name, getattr(layer.settings.audit, name))
    return replace(Settings(audit=Audit(**audit)), **chosen)


def _named_by_all(layers: Sequence[Layer], places: Places) -> list[str]:
    """Return the secret paths that every layer lists, or lists something secret above them."""
    return [
        path
        for layer in layers
        for path in layer.listed
        if all(
            any(NATIVE.within(path, above) and places.is_secret(above) for above in other.listed)
            for other in layers
        )
    ]
