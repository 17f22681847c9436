"""HTML and LaTeX that may stand in the page itself: nothing runs, nothing remote loads.

JupyterLab trusts what a kernel sends: script in an output runs with the user's cookie, and a remote
picture carries data out of a closed network through the user's browser. So markup is parsed and
rebuilt from an allow-list (nh3), and each value that could load or cover something is checked.

Links that lead away stay, because a link loads only when it is clicked. One thing that happens
without a click cannot be stopped from inside an output: on a page served over plain http, browsers
may look up the host names of links in advance. A server can switch that off with the header
``X-DNS-Prefetch-Control: off``.
"""

# ruff: noqa: SIM905 - long word lists are easier to read and to keep sorted as text
from __future__ import annotations

import base64
import re
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

from mxc_kernel.output.elements import replace_elements
from mxc_kernel.output.links import is_link
from mxc_kernel.output.media import IMAGE_URL, MEDIA_TYPE, is_media
from mxc_kernel.output.style import inline_styles, safe_style

if TYPE_CHECKING:
    import nh3

__all__ = [
    "ATTRIBUTES",
    "MAX_NESTING",
    "TAGS",
    "TooDeepError",
    "disarm",
    "sanitize_html",
    "svg_image",
]

TAGS = frozenset(
    """
    a abbr article aside audio b bdi bdo blockquote br caption center cite code col colgroup dd del
    details dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd
    li main mark meter nav ol p pre progress q rp rt ruby s samp section small source span strike
    strong sub summary sup table tbody td tfoot th thead time tr tt u ul var video """.split()
)
"""Elements that may stand in an output.

No form controls: they belong to the page's keyboard. No ``wbr``: MathJax reads past it, so it would
hide the name of a macro from :func:`disarm`.
"""

ATTRIBUTES: dict[str, frozenset[str]] = {
    "*": frozenset({"style", "class", "title", "lang", "dir", "align", "valign"}),
    "a": frozenset({"href"}),
    "audio": frozenset({"src", "controls", "loop", "muted"}),
    "col": frozenset({"span", "width"}),
    "colgroup": frozenset({"span", "width"}),
    "del": frozenset({"datetime"}),
    "details": frozenset({"open"}),
    "font": frozenset({"color", "face", "size"}),
    "img": frozenset({"src", "alt", "width", "height"}),
    "ins": frozenset({"datetime"}),
    "li": frozenset({"value"}),
    "meter": frozenset({"value", "min", "max", "low", "high", "optimum"}),
    "ol": frozenset({"start", "type", "reversed"}),
    "progress": frozenset({"value", "max"}),
    "source": frozenset({"src", "type"}),
    "table": frozenset({"border", "width", "cellpadding", "cellspacing", "rules", "frame"}),
    "td": frozenset({"colspan", "rowspan", "width", "height", "bgcolor", "nowrap"}),
    "th": frozenset(
        {"colspan", "rowspan", "width", "height", "bgcolor", "nowrap", "scope", "abbr"}
    ),
    "time": frozenset({"datetime"}),
    "tr": frozenset({"bgcolor"}),
    "video": frozenset({"src", "controls", "loop", "muted", "width", "height"}),
}
"""No id or name (they shadow what the page looks up), no data attributes (Lab runs commands)."""

# Classes that pandas, Pygments and friends set. Any other might be one of the page's own (a
# dialog).
_CLASS = re.compile(
    r"dataframe|tex2jax_ignore|mathjax_ignore|data|blank|index_name|(?:row|col)_heading|(?:row|col|level)[_\d]\w*|highlight|output_\w+"
    r"|pd-\w+|sk-[\w-]+|xr-[\w-]+|[a-z][a-z0-9]?"
)
_DROP_WITH_CONTENT = frozenset(
    """
    applet button embed frame frameset iframe math noembed noframes noscript object option script
    select style svg template textarea title xmp
    """.split()
)
MAX_NESTING = 200
"""Levels of elements; the parser's time grows with their square (20,000 levels took it 7 s)."""
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())
_CLOSED_BY_NEXT = frozenset("p li td th tr dt dd thead tbody tfoot option rt rp".split())
MAX_ATTRIBUTES = 500
"""Of one element; the parser compares each with all before it (20,000 took it 0.9 s)."""
_ATTRIBUTE = re.compile(
    r"""[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:"[^"]*+"?|'[^']*+'?|[^\s>"'][^\s>]*+)?)?"""
)
_TAG = re.compile(rf"<(/?)([A-Za-z][^\s/>]*+)((?:[\s/]++|{_ATTRIBUTE.pattern})*+)>?")
_SURROGATES = re.compile("[\ud800-\udfff]")

# MathJax also typesets HTML. These macros make links, set styles and classes, or load.
_MACROS = re.compile(
    r"\\(?=(?:href|url|style|class|cssId|data|require|includegraphics|bbox|html\w*|texttip|mathtip"
    r"|mmlToken|toggle|enclose|unicode|csname)(?![A-Za-z]))"
)


class TooDeepError(ValueError):
    """Elements are nested so deeply, or so wide, that parsing them would stall the kernel."""


def sanitize_html(html: str) -> str:
    """Return the part of an HTML fragment that may stand in the page.

    Args:
        html: untrusted markup.

    Raises:
        TooDeepError: elements are nested more than 200 deep, or one has more than 500 attributes.
    """
    html = _SURROGATES.sub("\ufffd", html)
    html = replace_elements(html, "svg", lambda svg, _content: svg_image(svg))
    html = inline_styles(html)
    if _nesting(html) > MAX_NESTING:
        raise TooDeepError
    return disarm(_cleaner().clean(html))


def disarm(text: str) -> str:
    r"""Return LaTeX, or text with LaTeX in it, in which no macro links, styles or loads.

    Args:
        text: untrusted LaTeX; the name of a disarmed macro stays readable.

    A macro is found by its name wherever it stands: ``\let\x\href`` names it as well.
    """
    return _MACROS.sub("\\\u200b", text) if "\\" in text else text


def svg_image(svg: str, size: str = "") -> str:
    """Return an ``<img>`` that shows an SVG document without letting it run or load anything.

    Args:
        svg: the document.
        size: further attributes of the image, from trusted code.
    """
    if "xmlns" not in svg[: svg.find(">") + 1]:  # inline SVG needs none, a document does
        svg = re.sub(r"<svg\b", '<svg xmlns="http://www.w3.org/2000/svg"', svg, count=1, flags=re.I)
    data = base64.b64encode(svg.encode("utf-8", "replace")).decode()
    return f'<img alt="SVG picture" src="data:image/svg+xml;base64,{data}"{size}>'


def _nesting(html: str) -> int:
    """Return how deep elements are nested: an estimate, rather too high than too low.

    Raises:
        TooDeepError: an element has too many attributes.
    """
    stack: list[str] = []
    deepest = 0
    for closing, name, attributes in _TAG.findall(html):
        if len(attributes) > MAX_ATTRIBUTES * 2 and _has_many(attributes):
            raise TooDeepError
        name = name.lower()
        if name in _VOID or name in _CLOSED_BY_NEXT:
            continue
        if not closing:
            stack.append(name)
            deepest = max(deepest, len(stack))
        elif stack and stack[-1] == name:
            stack.pop()
    return deepest


def _has_many(attributes: str) -> bool:
    return next(islice(_ATTRIBUTE.finditer(attributes), MAX_ATTRIBUTES, None), None) is not None


def _attribute(tag: str, name: str, value: str) -> str | None:
    """Return what may stay of an attribute's value, or ``None``."""
    if name == "style":
        return safe_style(value) or None
    if name == "class":
        return " ".join(word for word in value.split() if _CLASS.fullmatch(word)) or None
    if name == "href":
        return value.strip() if is_link(value.strip()) else None
    if name == "src":
        allowed = IMAGE_URL.fullmatch(value.strip()) if tag == "img" else is_media(value.strip())
        return value.strip() if allowed else None
    if name == "type" and tag == "source":
        return value if MEDIA_TYPE.fullmatch(value.strip()) else None
    if name in ("width", "height"):
        return value if re.fullmatch(r"[0-9]{1,5}(?:\.[0-9]+)?(?:px|%)?", value.strip()) else None
    return value


@cache
def _cleaner() -> nh3.Cleaner:
    import nh3

    return nh3.Cleaner(
        tags=set(TAGS),
        clean_content_tags=set(_DROP_WITH_CONTENT),
        attributes={tag: set(names) for tag, names in ATTRIBUTES.items()},
        attribute_filter=_attribute,
        url_schemes={"http", "https", "mailto", "data"},
        url_relative="deny",
        generic_attribute_prefixes=set(),
        set_tag_attribute_values={"a": {"target": "_blank"}},
        link_rel="noopener noreferrer",
        strip_comments=True,
    )
