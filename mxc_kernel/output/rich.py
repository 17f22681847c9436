"""Which MIME types of a bundle are shown, and how, per level ``text < safe < frame < trusted``.

- ``text``: plain text only.
- ``safe``: an allow-list; markup sanitised, pictures checked, SVG as an image, nothing that runs.
- ``frame``: HTML that needs scripts goes into frames of opaque origin, the rest as in ``safe``.
  Vega's and plotly's JSON bundles are not rendered yet.
- ``trusted``: everything as it comes. Script in it can do what the user can.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mxc_kernel.output.frame import frame, needs_frame
from mxc_kernel.output.sanitize import (
    TooDeepError,
    sanitize_html,
    sanitize_latex,
    sanitize_markdown,
    svg_image,
)
from mxc_kernel.output.terminal import clean, visible_bidi

__all__ = ["FRAME", "SAFE", "TEXT", "TRUSTED", "SafeBundle", "make_safe"]

TEXT, SAFE, FRAME, TRUSTED = range(4)
"""The levels, equal to the policy's."""

MAX_HTML = 16 << 20
"""Characters of markup that are sanitised (3 s at 5 MB/s); more is not shown."""

_MAX_NAME = 100
_MODEL_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_MAGIC = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n"
_SCRIPTED = re.compile(r"(?:java|ecma|live|j|x-java|x-ecma)script|vnd\.vega|plotly|bokeh|holoviews")


@dataclass(frozen=True, slots=True)
class SafeBundle:
    """What may be shown of a bundle.

    Attributes:
        data: MIME type to content; never empty if the bundle was not.
        metadata: what of the metadata only sizes pictures and expands trees.
        notes: one line for each thing left out: what, why, and the level that shows it.
    """

    data: dict[str, Any]
    metadata: dict[str, Any]
    notes: tuple[str, ...] = ()


class _RefusedError(ValueError):
    """A content that is not what its MIME type says. The message is the reason in the note."""


def make_safe(
    bundle: Mapping[str, Any], metadata: Mapping[str, Any] | None, level: int
) -> SafeBundle:
    """Return what of a MIME bundle may be shown at a level.

    Args:
        bundle: MIME type to content, any JSON.
        metadata: the bundle's metadata, any JSON.
        level: 0 text, 1 safe, 2 frame, 3 trusted.
    """
    given = metadata if isinstance(metadata, Mapping) else {}
    if level >= TRUSTED:
        return SafeBundle(dict(bundle), dict(given))
    data: dict[str, Any] = {}
    notes: list[str] = []
    for mime, content in bundle.items():
        render = _render(mime, level)
        if render is None:
            notes.append(_note(mime, *_why(mime, level)))
            continue
        try:
            shown, value = render(mime, content if mime.endswith("json") else _text(content))
        except _RefusedError as error:
            notes.append(_note(mime, str(error), "trusted"))
            continue
        if shown not in data or mime == shown:
            data[shown] = value
    if given.get("isolated") or any(
        isinstance(item, Mapping) and item.get("isolated") for item in given.values()
    ):
        notes.append(_note("isolated metadata", "would run in the page's own origin", "trusted"))
    if not data and bundle:
        data["text/plain"] = "\n".join(notes) or "[nothing to show]"
    return SafeBundle(data, _metadata(given, data), tuple(notes))


def _render(mime: str, level: int) -> Callable[[str, Any], tuple[str, Any]] | None:
    """Return how to show a MIME type, or ``None``: not at this level."""
    if mime == "text/plain":
        return _plain
    if level < SAFE:
        return None
    if mime == "text/html" and level >= FRAME:
        return _framed
    return _SAFE.get(mime)


def _plain(mime: str, text: str) -> tuple[str, Any]:
    return mime, clean(text)


def _html(mime: str, text: str) -> tuple[str, Any]:
    return mime, _sanitized(sanitize_html, text)


def _framed(mime: str, text: str) -> tuple[str, Any]:
    if len(text) <= MAX_HTML and needs_frame(text):
        return mime, frame(text)
    return _html(mime, text)


def _markdown(_mime: str, text: str) -> tuple[str, Any]:
    return "text/html", _sanitized(sanitize_markdown, text)


def _latex(mime: str, text: str) -> tuple[str, Any]:
    return mime, sanitize_latex(text)


def _svg(_mime: str, text: str) -> tuple[str, Any]:
    if len(text) > MAX_HTML:
        raise _RefusedError("it is too large")
    return "text/html", svg_image(text)


def _picture(mime: str, text: str) -> tuple[str, Any]:
    """Check that a picture is one: its Base64 becomes part of a URL in the page."""
    data = text.encode("ascii", "replace")
    if data.translate(None, _BASE64):
        raise _RefusedError("it is not such a picture")
    start = base64.b64decode(b"".join(data[:64].split())[:32].rstrip(b"=") + b"===", validate=False)
    if not start.startswith(_MAGIC[mime]):
        raise _RefusedError("it is not such a picture")
    return mime, text


def _json(mime: str, content: Any) -> tuple[str, Any]:
    return mime, content


def _widget(mime: str, content: Any) -> tuple[str, Any]:
    if not isinstance(content, dict) or not _MODEL_ID.fullmatch(str(content.get("model_id", ""))):
        raise _RefusedError("it names no widget")
    version = {
        key: content[key]
        for key in ("version_major", "version_minor")
        if type(content.get(key)) is int
    }
    return mime, {"model_id": str(content["model_id"]), **version}


_SAFE: dict[str, Callable[[str, Any], tuple[str, Any]]] = {
    "text/html": _html,
    "text/markdown": _markdown,
    "text/latex": _latex,
    "image/svg+xml": _svg,
    "application/json": _json,
    "application/vnd.jupyter.widget-view+json": _widget,
    **dict.fromkeys(_MAGIC, _picture),
}


def _sanitized(sanitize: Callable[[str], str], text: str) -> str:
    if len(text) > MAX_HTML:
        raise _RefusedError("it is too large to be sanitised")
    try:
        return sanitize(text)
    except TooDeepError:
        raise _RefusedError("it is nested too deeply") from None


def _text(content: Any) -> str:
    """Return a content as text; nbformat splits text into lists of lines."""
    if isinstance(content, list) and all(isinstance(line, str) for line in content):
        return "".join(content)
    if isinstance(content, str):
        return content
    raise _RefusedError("its content is not text")


def _why(mime: str, level: int) -> tuple[str, str]:
    """Return why a type is left out, and the level that shows it."""
    if level < SAFE and (mime in _SAFE):
        return "only plain text is shown at this level", "safe"
    if _SCRIPTED.search(mime):
        return "it can run script or load from elsewhere", "trusted"
    return "it is not on the list of known harmless types", "trusted"


def _note(what: str, why: str, level: str) -> str:
    name = visible_bidi(what if len(what) <= _MAX_NAME else what[:_MAX_NAME] + "…")
    return f"[not shown: {name}: {why}; output level '{level}' shows it]"


def _metadata(given: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that only sizes or expands what is shown."""
    result: dict[str, Any] = {}
    for mime in data:
        item = given.get(mime)
        if not isinstance(item, Mapping):
            continue
        if mime in _MAGIC:
            kept = {key: item[key] for key in ("width", "height") if _is_size(item.get(key))}
            if item.get("unconfined") is True:
                kept["unconfined"] = True
            if item.get("needs_background") in ("light", "dark"):
                kept["needs_background"] = item["needs_background"]
        elif mime == "application/json":
            kept = {"expanded": True} if item.get("expanded") is True else {}
        else:
            continue
        if kept:
            result[mime] = kept
    return result


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 < value <= 10_000
    )
