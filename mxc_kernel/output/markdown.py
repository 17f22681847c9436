"""Markdown that may stand in the page itself, as sanitised HTML with its formulas kept."""

from __future__ import annotations

import html as entities
import re
from functools import cache
from typing import TYPE_CHECKING

from mxc_kernel.output.sanitize import disarm, sanitize_html

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

__all__ = ["sanitize_markdown"]

# Code is not searched for formulas. Display formulas are only begun here: where they end is looked
# for once, not anew from each beginning.
_TOKEN = re.compile(
    r"(?P<code>```.*?(?:```|\Z)|`[^`\n]*`)|(?P<display>\$\$|\\\[)"
    r"|(?P<inline>(?<![\w$\\])\$(?=\S)[^$\n]{1,2000}(?<=\S)\$(?!\d))",
    re.DOTALL,
)
_ENDS = {"$$": "$$", "\\[": "\\]"}
# Private characters that stand for a formula while markdown is rendered.
_OPEN, _CLOSE = "\ue000", "\ue001"


def sanitize_markdown(source: str) -> str:
    """Return HTML for markdown; JupyterLab's own renderer would pass raw HTML in it unsanitised.

    Args:
        source: untrusted markdown (CommonMark with tables and strikethrough); ``$…$`` math stays.

    Raises:
        TooDeepError: elements are nested more than 200 deep.
    """
    text, formulas = _without_formulas(source.replace(_OPEN, "").replace(_CLOSE, ""))
    rendered = sanitize_html(_markdown().render(text))
    return re.sub(
        f"{_OPEN}([0-9]+){_CLOSE}",
        lambda match: disarm(entities.escape(formulas[int(match[1])])),
        rendered,
    )


def _without_formulas(source: str) -> tuple[str, list[str]]:
    """Return markdown with its formulas taken out: emphasis marks in them are not markdown's."""
    formulas: list[str] = []
    pieces: list[str] = []
    unended: set[str] = set()
    position = done = 0
    while match := _TOKEN.search(source, position):
        position = match.end()
        if match["code"] is not None:
            continue
        if match["display"] is not None:
            end = _ENDS[match["display"]]
            found = -1 if end in unended else source.find(end, match.end() + 1)
            if found < 0:
                unended.add(end)
                continue
            position = found + 2
        pieces += (source[done : match.start()], f"{_OPEN}{len(formulas)}{_CLOSE}")
        formulas.append(source[match.start() : position])
        done = position
    return "".join((*pieces, source[done:])), formulas


@cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
