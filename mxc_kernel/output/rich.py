"""Which MIME types of a bundle are shown, and how, per level ``text < safe < frame < trusted``.

- ``text``: plain text only.
- ``safe``: an allow-list; markup sanitised, pictures checked, SVG as an image, nothing that runs.
- ``frame``: HTML that needs scripts, and figures of plotly, vega and bokeh, go into frames of
  opaque origin, the rest as in ``safe``.
- ``trusted``: everything as it comes. Script in it can do what the user can.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mxc_kernel.output import figures
from mxc_kernel.output.figures import Library, no_library
from mxc_kernel.output.frame import needs_frame, still_image
from mxc_kernel.output.markdown import sanitize_markdown
from mxc_kernel.output.media import PICTURES, first_bytes
from mxc_kernel.output.sanitize import (
    TooDeepError,
    disarm,
    sanitize_html,
    svg_image,
)
from mxc_kernel.output.terminal import clean, visible_bidi

__all__ = ["FRAME", "SAFE", "TEXT", "TRUSTED", "SafeBundle", "make_safe", "note"]

TEXT, SAFE, FRAME, TRUSTED = range(4)
"""The levels, equal to the policy's."""

MAX_HTML = 16 << 20
"""Characters of markup that are sanitised (3 s at 5 MB/s); more is not shown."""

MAX_MARKDOWN = 100_000
"""Characters of markdown that are rendered (0.5 s, at worst 4 s)."""

_MAX_NAME = 100
_MODEL_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n"
_SCRIPTED = re.compile(r"(?:java|ecma|live|j|x-java|x-ecma)script|vnd\.vega|plotly|bokeh|holoviews")
_DRAWN = re.compile(r"application/vnd\.(?:vega(?:lite)?\.v|plotly\.v1\+json|bokehjs_exec)")
_EMPTIED = re.compile(r"<(?:iframe|canvas|object|embed)\b", re.IGNORECASE)
# Something to see: a letter outside of a tag, or a picture.
_VISIBLE = re.compile(r"(?:^|>)[^<]*[^<\s]|<(?:img|audio|video|progress|meter|hr|source)\b")


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
    """A content that is not shown. The message is the reason in the note.

    Args:
        reason: in words for the user.
        level: the lowest level that shows it.
    """

    def __init__(self, reason: str, level: str = "trusted") -> None:
        super().__init__(reason)
        self.level = level


def make_safe(
    bundle: Mapping[str, Any],
    metadata: Mapping[str, Any] | None,
    level: int,
    library: Library = no_library,
) -> SafeBundle:
    """Return what of a MIME bundle may be shown at a level.

    Args:
        bundle: MIME type to content, any JSON.
        metadata: the bundle's metadata, any JSON.
        level: 0 text, 1 safe, 2 frame, 3 trusted.
        library: where the libraries come from that draw figures at level 2.
    """
    given = metadata if isinstance(metadata, Mapping) else {}
    if level >= TRUSTED:
        return SafeBundle(dict(bundle), dict(given))
    data: dict[str, Any] = {}
    notes: list[str] = []
    covered = _draw(bundle, given, library, data, notes) if level == FRAME else frozenset()
    for mime, content in bundle.items():
        if mime in covered:
            continue
        render = _SHOWN_AS_TEXT.get(mime) if level < SAFE else _SAFE.get(mime)
        if render is None:
            notes.append(note(mime, *_why(mime, level)))
            continue
        try:
            shown, value = render(mime, content if mime.endswith("json") else _text(content))
        except _RefusedError as error:
            notes.append(note(mime, str(error), error.level))
            continue
        if shown not in data or mime == shown:
            data[shown] = value
        if level == SAFE and mime == "text/html" and _EMPTIED.search(_text(content)):
            notes.append(note("a part of text/html", "it needs scripts or frames", "frame"))
    if given.get("isolated") or any(
        isinstance(item, Mapping) and item.get("isolated") for item in given.values()
    ):
        notes.append(note("isolated metadata", "would run in the page's own origin"))
    if not data and bundle:
        data["text/plain"] = "\n".join(notes) or "[nothing to show]"
    return SafeBundle(data, _metadata(given, data), tuple(notes))


def _draw(
    bundle: Mapping[str, Any],
    metadata: Mapping[str, Any],
    library: Library,
    data: dict[str, Any],
    notes: list[str],
) -> frozenset[str]:
    """Put a bundle's figure, or HTML that needs scripts, into a frame.

    Returns:
        the MIME types that need no more attention.
    """
    still = _still(bundle)
    figure = figures.draw(bundle, metadata, library, still)
    if figure is None:
        try:
            html = _text(bundle.get("text/html"))
        except _RefusedError:
            return frozenset()
        if not needs_frame(html) or len(html) > MAX_HTML:
            return frozenset()
        figure = figures.frame_html(html, library, still)
    if figure.html is not None:
        data["text/html"] = figure.html
    notes.extend(note(what, why) for what, why in figure.notes)
    return figure.covered


def _still(bundle: Mapping[str, Any]) -> str:
    """Return markup with a bundle's picture, for where frames are not shown."""
    for mime in PICTURES:
        try:
            _, picture = _picture(mime, _text(bundle.get(mime)))
        except _RefusedError:
            continue
        return still_image(mime, picture)
    return ""


def _plain(mime: str, text: str) -> tuple[str, Any]:
    return mime, clean(text)


def _html(mime: str, text: str) -> tuple[str, Any]:
    try:
        shown = _sanitized(sanitize_html, text, MAX_HTML)
    except _RefusedError:
        if len(text) <= MAX_HTML and needs_frame(text):
            raise _RefusedError("it needs scripts", "frame") from None
        raise
    if needs_frame(text) and not _VISIBLE.search(shown):
        raise _RefusedError("it needs scripts", "frame")
    return mime, shown


def _markdown(_mime: str, text: str) -> tuple[str, Any]:
    return "text/html", _sanitized(sanitize_markdown, text, MAX_MARKDOWN)


def _latex(mime: str, text: str) -> tuple[str, Any]:
    return mime, disarm(text)


def _svg(_mime: str, text: str) -> tuple[str, Any]:
    if len(text) > MAX_HTML:
        raise _RefusedError("it is too large")
    return "text/html", svg_image(text)


def _picture(mime: str, text: str) -> tuple[str, Any]:
    """Check that a picture is one: its Base64 becomes part of a URL in the page."""
    data = text.encode("ascii", "replace")
    if data.translate(None, _BASE64):
        raise _RefusedError("it is not such a picture")
    if not first_bytes(text).startswith(PICTURES[mime]):
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
    **dict.fromkeys(PICTURES, _picture),
    "text/plain": _plain,
}
_SHOWN_AS_TEXT = {"text/plain": _plain}


def _sanitized(sanitize: Callable[[str], str], text: str, most: int) -> str:
    if len(text) > most:
        raise _RefusedError("it is too large to be sanitised")
    try:
        return sanitize(text)
    except TooDeepError:
        raise _RefusedError("its elements are too deep or have too many attributes") from None


def _text(content: Any) -> str:
    """Return a content as text; nbformat splits text into lists of lines."""
    if isinstance(content, list) and all(isinstance(line, str) for line in content):
        return "".join(content)
    if isinstance(content, str):
        return content
    raise _RefusedError("its content is not text")


def _why(mime: str, level: int) -> tuple[str, str]:
    """Return why a type is left out, and the level that shows it."""
    if level < SAFE and mime in _SAFE:
        return "only plain text is shown at this level", "safe"
    if level < FRAME and _DRAWN.match(mime):
        return "its library would run script and load from elsewhere", "frame"
    if _SCRIPTED.search(mime):
        return "it can run script or load from elsewhere", "trusted"
    return "it is not on the list of known harmless types", "trusted"


def note(what: str, why: str, level: str = "trusted") -> str:
    """Return the line that says what was left out, why, and at which level it is shown.

    Args:
        what: its name, which the child may have chosen.
        why: the reason.
        level: the lowest level that shows it.
    """
    name = visible_bidi(what if len(what) <= _MAX_NAME else what[:_MAX_NAME] + "…")
    return f"[not shown: {name}: {why}; output level '{level}' shows it]"


def _metadata(given: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that only sizes or expands what is shown."""
    result: dict[str, Any] = {}
    for mime in data:
        item = given.get(mime)
        if not isinstance(item, Mapping):
            continue
        if mime in PICTURES:
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
