"""What a frontend draws, redacted and made safe: MIME bundles, errors and short texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from mxc_kernel.output.caps import shortened
from mxc_kernel.output.documents import redact_html, redact_json
from mxc_kernel.output.figures import Library, no_library
from mxc_kernel.output.redaction import Rules, redact
from mxc_kernel.output.rich import SafeBundle, make_safe, note
from mxc_kernel.policy import HtmlLevel

__all__ = ["Bundles"]

_WIDGET = "application/vnd.jupyter.widget-view+json"
_NO_WIDGET = note("a widget", "it was left out when it was made, or is gone")
_ERROR = 256 << 10  # bytes of a traceback; the deepest of IPython's own are 200 KiB
_ERROR_LINE = 16 << 10  # bytes of an error's value
_ERROR_NAME = 200  # characters


class Bundles:
    """Redacts and makes safe, at the level that is in force.

    Args:
        rules: what to redact.
        level: returns that level.
        shows: whether a widget that may be shown lives under an id.
        library: where the libraries come from that draw figures.
    """

    def __init__(
        self,
        rules: Rules,
        level: Callable[[], HtmlLevel],
        shows: Callable[[object], bool],
        library: Library = no_library,
    ) -> None:
        self._rules = rules
        self._level = level
        self._shows = shows
        self._library = library

    def safe(
        self, data: Mapping[str, Any], metadata: Mapping[str, Any], counts: Counter[str]
    ) -> SafeBundle:
        """Return what may be shown of a MIME bundle.

        Args:
            data: MIME type to content.
            metadata: the bundle's metadata; what imitates the host's own is left out.
            counts: where to count what was redacted.
        """
        level = self._level()
        shown = {mime: self._mime(mime, value, counts) for mime, value in data.items()}
        view = shown.get(_WIDGET)
        gone = isinstance(view, dict) and not self._shows(view.get("model_id"))
        if gone and level < HtmlLevel.TRUSTED and len(shown) > 1:
            del shown[_WIDGET]  # it was refused, and the note about that has been shown
        elif gone and HtmlLevel.SAFE <= level < HtmlLevel.TRUSTED:
            return SafeBundle({"text/plain": _NO_WIDGET}, {}, (_NO_WIDGET,))
        about = {name: value for name, value in metadata.items() if name != "mxc"}
        return make_safe(shown, self.json(about, counts), level, self._library)

    def _mime(self, mime: str, value: Any, counts: Counter[str]) -> Any:
        if mime.startswith("image/") and mime != "image/svg+xml":
            return value  # Base64 of a picture; no secret stands in it as text
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "".join(value)  # as nbformat splits text; a secret may run over the lines
        if isinstance(value, str) and mime in ("text/html", "image/svg+xml", "text/markdown"):
            return self.html(value, counts)
        return self.json(value, counts)

    def json(self, content: Any, counts: Counter[str]) -> Any:
        """Return JSON without secrets."""
        content, found = redact_json(content, self._rules)
        counts.update(found)
        return content

    def html(self, html: str, counts: Counter[str]) -> str:
        """Return markup without secrets."""
        html, found = redact_html(html, self._rules)
        counts.update(found)
        return html

    def text(self, text: str, counts: Counter[str]) -> str:
        """Return a text without secrets and without escapes that no frontend needs."""
        text, found = redact(text, self._rules)
        counts.update(found)
        return text

    def error(self, content: Mapping[str, Any], counts: Counter[str]) -> dict[str, Any]:
        """Return the fields of an error, no longer than anyone reads.

        Args:
            content: ``ename``, ``evalue`` and ``traceback``.
            counts: where to count what was redacted.

        Redacted as one text: a frontend shows the lines of a traceback below each other.
        """
        traceback = self.text("\n".join(content["traceback"]), counts)
        return {
            "ename": self.text(content["ename"], counts)[:_ERROR_NAME],
            "evalue": shortened(self.text(content["evalue"], counts), _ERROR_LINE),
            "traceback": _regrouped(shortened(traceback, _ERROR), content["traceback"]),
        }


def _regrouped(text: str, entries: Sequence[str]) -> list[str]:
    """Split a text into the entries that it was joined from, if its lines are still as many.

    papermill, for one, looks for what went wrong in the last entry: one of IPython's has
    several lines.
    """
    lines = text.split("\n")
    heights = [entry.count("\n") + 1 for entry in entries]
    if sum(heights) != len(lines):
        return lines if text else []
    rest = iter(lines)
    return ["\n".join(islice(rest, height)) for height in heights]
