"""What whoever starts a kernel asks for, or gives up, on behalf of its notebook.

A runner of notebooks names a file of its own in ``MXC_KERNEL_START``. It can add layers to the
ceiling, which narrow like any other, and it can ask for paths and limits before the first cell. It
grants nothing: what it asks for is met with the ceiling, as a magic's request is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy.access import Access
from mxc_kernel.records import record, replace

if TYPE_CHECKING:
    from mxc_kernel.policy.ceiling import Ceiling
    from mxc_kernel.policy.model import Limits
    from mxc_kernel.policy.request import Request

__all__ = ["START_VARIABLE", "Ask", "LayerText", "Start", "asked", "read_start"]

START_VARIABLE = "MXC_KERNEL_START"


@record
class LayerText:
    """A further layer of the ceiling, as text.

    Args:
        name: which kind it is read as; what one of "project" leaves out it does not narrow.
        text: a ceiling file's text (TOML).
        source: what messages call it.
    """

    name: Literal["system", "user", "project"]
    text: str
    source: str


@record
class Ask:
    """What is asked for before the first cell; the paths may be relative to the notebook's folder.

    Args:
        readonly: paths to read.
        readwrite: paths to read and write.
        limits: limits, by the names and in the form of a ceiling's ``[limits]``.
    """

    readonly: tuple[str, ...] = ()
    readwrite: tuple[str, ...] = ()
    limits: Mapping[str, Any] | None = None


@record
class Start:
    """What a start file says.

    Args:
        layers: further layers of the ceiling.
        ask: what is asked for.
    """

    layers: tuple[LayerText, ...] = ()
    ask: Ask = Ask()

    def plain(self) -> dict[str, Any]:
        """Return what stands in the file, as JSON-able data."""
        ask = {"readonly": self.ask.readonly, "readwrite": self.ask.readwrite}
        return {
            "layers": [
                {"name": layer.name, "text": layer.text, "source": layer.source}
                for layer in self.layers
            ],
            "ask": {**ask, "limits": dict(self.ask.limits or {})},
        }


def read_start(environ: Mapping[str, str]) -> Start | None:
    """Read the start file that the kernel's environment names; None where it names none.

    Raises:
        SandboxPolicyError: it is not there, not trusted or not what it should be.
    """
    path = environ.get(START_VARIABLE)
    if not path:
        return None
    import json

    from mxc_kernel.policy.trust import read_trusted

    try:
        trusted = read_trusted(path)
        if trusted is None:
            raise ValueError("it does not exist")  # noqa: TRY301 -- one way to tell them all
        data = json.loads(trusted[0])
        ask = data["ask"]
        return Start(
            tuple(LayerText(**layer) for layer in data["layers"]),
            Ask(tuple(ask["readonly"]), tuple(ask["readwrite"]), dict(ask["limits"])),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SandboxPolicyError(
            f"{START_VARIABLE} names {path}, which cannot be used: {error}",
            remedy=f"Unset {START_VARIABLE}; only a runner of notebooks sets it.",
        ) from None


def asked(ask: Ask, ceiling: Ceiling, notebook_dir: str | None) -> Request:
    """Return what a session holds before its first cell, with what is asked for it.

    Args:
        ask: what is asked for.
        ceiling: clamps it, and may take no requests at all.
        notebook_dir: where relative paths start, canonical.

    Raises:
        SandboxPolicyError: a path or a limit cannot be read.
    """
    request = ceiling.start
    if ceiling.requests == "none" or ask == Ask():
        return request
    for words, access in ((ask.readonly, Access.READONLY), (ask.readwrite, Access.READWRITE)):
        for word in words:
            from mxc_kernel.policy.paths import canonical

            path = canonical(word, base=notebook_dir)
            # What may not be named stays as it is inside a larger grant.
            request = request.allow(path, min(access, ceiling.places.by_name(path)))
    files = ceiling.places.guard(request.filesystem.meet(ceiling.policy.filesystem))
    return replace(request, filesystem=files, limits=_limits(ask))


def _limits(ask: Ask) -> Limits:
    from mxc_kernel.policy.reading import read_limits

    return read_limits(dict(ask.limits or {}), "the notebook's metadata.mxc.policy")
