"""HTML, markdown and LaTeX that may stand in the page itself: nothing runs, nothing remote loads.

JupyterLab trusts what a kernel sends: script in an output runs with the user's cookie, and a remote
picture carries data out of a closed network through the user's browser. So markup is parsed and
rebuilt from an allow-list (nh3), and each value that could load or cover something is checked.

Links stay, because a link loads only when it is clicked. One thing that happens without a click
cannot be stopped from inside an output: on a page served over plain http, browsers may look up the
host names of links in advance. A server can switch that off with the header
``X-DNS-Prefetch-Control: off``.
"""

# ruff: noqa: SIM905 - long word lists are easier to read and to keep sorted as text
from __future__ import annotations

import base64
import html as entities
import re
from functools import cache
from typing import TYPE_CHECKING

from mxc_kernel.output.style import inline_styles, safe_style

if TYPE_CHECKING:
    import nh3
    from markdown_it import MarkdownIt

__all__ = [
    "ATTRIBUTES",
    "IMAGE_URL",
    "TAGS",
    "TooDeepError",
    "sanitize_html",
    "sanitize_latex",
    "sanitize_markdown",
    "svg_image",
]

TAGS = frozenset(
    """
    a abbr article aside audio b bdi bdo blockquote br caption center cite code col colgroup dd del
    details dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd
    li main mark meter nav ol p pre progress q rp rt ruby s samp section small source span strike
    strong sub summary sup table tbody td tfoot th thead time tr tt u ul var video wbr """.split()
)
"""Elements that may stand in an output. No form controls: they belong to the page's keyboard."""

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

IMAGE_URL = re.compile(
    r"data:image/(?:png|jpe?g|gif|webp);base64,[A-Za-z0-9+/=\s]*|data:image/svg\+xml[;,][^\x00]*",
    re.IGNORECASE,
)
"""Pictures that travel inside the output. As an image, SVG neither runs script nor loads."""

_MEDIA_URL = re.compile(
    r"data:(?:audio|video)/[\w.+-]+(?:;[\w=.-]+)*;base64,[A-Za-z0-9+/=\s]*", re.I
)
_LINK = re.compile(r"(?:https?://|mailto:)[^\x00-\x20]*", re.IGNORECASE)
# Classes that pandas, Pygments and friends set. Any other might be one of the page's own (a
# dialog).
_CLASS = re.compile(
    r"dataframe|data|blank|index_name|(?:row|col)_heading|(?:row|col|level)[_\d]\w*|highlight|output_\w+"
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
_TAG = re.compile(r"""<(/?)([A-Za-z][^\s/>]*)(?:[^>"']|"[^"]*"|'[^']*')*>?""")
_INLINE_SVG = re.compile(r"<svg\b[^>]*>.*?</svg\s*>", re.IGNORECASE | re.DOTALL)
_SURROGATES = re.compile("[\ud800-\udfff]")

# MathJax also typesets HTML. These macros make links, set styles and classes, or load.
_MACROS = re.compile(
    r"\\(?=(?:href|url|style|class|cssId|data|require|includegraphics|bbox|html\w*|texttip|mmlToken"
    r"|toggle|enclose|unicode)\b)"
)


class TooDeepError(ValueError):
    """The markup is nested so deeply that parsing it would stall the kernel."""


def sanitize_html(html: str) -> str:
    """Return the part of an HTML fragment that may stand in the page.

    Args:
        html: untrusted markup.

    Raises:
        TooDeepError: elements are nested more than 200 deep.
    """
    html = _SURROGATES.sub("\ufffd", html)
    if "<svg" in html or "<SVG" in html:
        html = _INLINE_SVG.sub(lambda match: svg_image(match[0]), html)
    if "<style" in html or "<STYLE" in html:
        html = inline_styles(html)
    if _nesting(html) > MAX_NESTING:
        raise TooDeepError
    return _tame_math(_cleaner().clean(html))


def sanitize_markdown(source: str) -> str:
    """Return HTML for markdown; JupyterLab's own renderer would pass raw HTML in it unsanitised.

    Args:
        source: untrusted markdown (CommonMark with tables and strikethrough); ``$…$`` math stays.

    Raises:
        TooDeepError: elements are nested more than 200 deep.
    """
    formulas: list[str] = []

    def keep(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]  # code
        formulas.append(match[1])
        return f"\ue000{len(formulas) - 1}\ue001"

    source = source.replace("\ue000", "").replace("\ue001", "")
    rendered = sanitize_html(_markdown().render(_FORMULA.sub(keep, source)))
    return re.sub(
        "\ue000([0-9]+)\ue001",
        lambda match: _tame_math(entities.escape(formulas[int(match[1])])),
        rendered,
    )


# Emphasis marks inside a formula must not be read as markdown, and code is not searched for
# formulas.
_FORMULA = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|(\$\$.+?\$\$|\\\[.+?\\\]|(?<![\w$\\])\$(?=\S)[^$\n]+?(?<=\S)\$(?!\d))",
    re.DOTALL,
)


def sanitize_latex(source: str) -> str:
    """Return LaTeX in which no macro links, styles or loads.

    Args:
        source: untrusted LaTeX; the text of a disarmed macro stays readable.
    """
    return _tame_math(source)


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


def _tame_math(text: str) -> str:
    return _MACROS.sub("\\\\\u200b", text) if "\\" in text else text


def _nesting(html: str) -> int:
    """Return how deep elements are nested: an estimate, rather too high than too low."""
    stack: list[str] = []
    deepest = 0
    for closing, name in _TAG.findall(html):
        name = name.lower()
        if name in _VOID or name in _CLOSED_BY_NEXT:
            continue
        if not closing:
            stack.append(name)
            deepest = max(deepest, len(stack))
        elif stack and stack[-1] == name:
            stack.pop()
    return deepest


def _attribute(tag: str, name: str, value: str) -> str | None:
    """Return what may stay of an attribute's value, or ``None``."""
    if name == "style":
        return safe_style(value) or None
    if name == "class":
        return " ".join(word for word in value.split() if _CLASS.fullmatch(word)) or None
    if name == "href":
        value = value.strip()
        return value if _LINK.fullmatch(value) else None
    if name == "src":
        allowed = IMAGE_URL if tag == "img" else _MEDIA_URL
        return value if allowed.fullmatch(value.strip()) else None
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


@cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
