"""Finding elements in markup in linear time.

A pattern such as ``<svg>.*?</svg>`` looks through the rest of the text once for every opening tag
without an end: 100 KB of ``<svg>`` held the kernel's host process for 26 s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

__all__ = ["replace_between", "replace_elements"]


def replace_elements(html: str, name: str, replace: Callable[[str, str], str]) -> str:
    """Return markup with each ``<name …>…</name>`` replaced; one that never ends stays.

    Args:
        html: untrusted markup.
        name: of the element, in lower case.
        replace: gets the whole element and its content, returns what stands there instead.
    """
    if f"<{name}" not in html and f"<{name.upper()}" not in html:
        return html
    return replace_between(html, *_tags(name), replace)


def replace_between(
    text: str, start: re.Pattern[str], end: re.Pattern[str], replace: Callable[[str, str], str]
) -> str:
    """Return a text with each stretch from a start to the next end replaced.

    Args:
        text: any text.
        start: what a stretch begins with; matching it takes bounded time.
        end: what it ends with, likewise.
        replace: gets the whole stretch and what lies between, returns what stands there instead.
    """
    pieces: list[str] = []
    position = 0
    while first := start.search(text, position):
        last = end.search(text, first.end())
        if last is None:  # nor is there one for any later start
            break
        whole, between = text[first.start() : last.end()], text[first.end() : last.start()]
        pieces += (text[position : first.start()], replace(whole, between))
        position = last.end()
    return "".join((*pieces, text[position:]))


@cache
def _tags(name: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    # No "<" inside a tag: else a run of tags without ">" is searched to its end from each of them.
    return (
        re.compile(rf"<{name}(?=[\s/>])[^<>]*>", re.IGNORECASE),
        re.compile(rf"</{name}\s{{0,9}}>", re.IGNORECASE),
    )
