"""Figures that a charting library draws: plotly's, vega's and bokeh's, as documents for a frame.

A figure's bundle is data, or a script that expects the library in the page. Here it becomes HTML
that draws by itself once the library stands before it. The library is the host's own copy: nothing
loads inside a frame.
"""

from __future__ import annotations

import html as entities
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mxc_kernel.output.frame import DEFAULT_HEIGHT, frame, is_frame

__all__ = ["Figure", "Library", "draw", "frame_html", "no_library"]

Library = Callable[[str], bytes | None]
"""Returns a packed library ("plotly", "vega" or "bokeh"), or ``None`` where it is not installed."""

PLOTLY = "application/vnd.plotly.v1+json"
_VEGA = re.compile(r"application/vnd\.(vega|vegalite)\.v[1-9]\d?(?:\+json|\.json)")
_BOKEH = re.compile(r"application/vnd\.bokehjs_(exec|load)\.v0\+json")
_PACKAGES = {"plotly": "plotly", "vega": "vl-convert-python", "bokeh": "bokeh"}
_BROUGHT = "<div><small>BokehJS comes with each figure.</small></div>"
_GRANTS_NOTHING = "nothing loads from elsewhere in a frame"

# How a document asks for a library, and what shows that it has it in itself.
_WANTED = {
    "plotly": (re.compile(r"cdn\.plot\.ly/|\bPlotly\.(?:newPlot|react)\("), "plotly.js v"),
    "vega": (re.compile(r"/npm/vega|\bvegaEmbed\("), "vega-embed.js bundle"),
    "bokeh": (re.compile(r"cdn\.(?:bokeh|pydata)\.org/|\broot\.Bokeh\b"), "Bokeh Contributors"),
}
_LOADED = re.compile(
    r"<(?:script|link)\b[^<>]{0,1000}?(?:src|href)\s?=\s?[\"']?(?:https?:)?//([\w.-]{1,253})(?::\d{1,5})?/([^\"'\s<>]*)",
    re.IGNORECASE,
)
_OURS = re.compile(
    r"cdn\.plot\.ly|cdn\.bokeh\.org|cdn\.pydata\.org|cdn\.jsdelivr\.net/npm/vega", re.IGNORECASE
)
_ROOTS = re.compile(r'"roots":\{([\w\s":,-]{1,4000})\}')
_REMOTE = re.compile(r'"(?:url|source)":\s?"(?:https?:)?//([\w.-]{1,253})')
_AXES = 60  # px; ticks, labels and the title of an axis
_TILES = re.compile(r"scattergeo|choropleth|(?:scatter|density|choropleth)map(?:box)?")


@dataclass(frozen=True, slots=True)
class Figure:
    """What becomes of a bundle with a figure in it.

    Attributes:
        html: markup with the figure in a frame; ``None`` where it cannot be drawn.
        covered: the bundle's MIME types that it stands for.
        notes: pairs of what is missing and why.
    """

    html: str | None
    covered: frozenset[str]
    notes: tuple[tuple[str, str], ...] = ()


def no_library(_name: str) -> bytes | None:
    """Return no library, whichever is asked for."""
    return None


def draw(
    bundle: Mapping[str, Any], metadata: Mapping[str, Any], library: Library, still: str = ""
) -> Figure | None:
    """Return the figure of a MIME bundle, or ``None`` if it has none.

    Args:
        bundle: MIME type to content, any JSON.
        metadata: the bundle's metadata, any JSON.
        library: where libraries come from.
        still: markup for where frames are not shown.
    """
    for mime, content in bundle.items():
        if mime == PLOTLY and isinstance(content, dict):
            return _drawn("plotly", mime, library, _plotly(content), still)
        vega = _VEGA.fullmatch(mime)
        if vega and isinstance(content, dict):
            given = metadata.get(mime)
            options = given.get("embed_options") if isinstance(given, Mapping) else None
            mode = "vega" if vega[1] == "vega" else "vega-lite"
            return _drawn("vega", mime, library, _vega(content, mode, options), still)
        bokeh = _BOKEH.fullmatch(mime)
        if bokeh:
            covered = frozenset({mime, "application/javascript"})
            if bokeh[1] == "load":
                return Figure(_BROUGHT, covered)
            document = _bokeh(bundle)
            return _drawn("bokeh", mime, library, document, still, covered)
    return None


def frame_html(html: str, library: Library, still: str = "") -> Figure:
    """Return HTML in a frame, with the libraries that it would load from another host.

    Args:
        html: untrusted markup that needs scripts.
        library: where libraries come from.
        still: markup for where frames are not shown.
    """
    covered = frozenset({"text/html"})
    if is_frame(html):
        return Figure(html, covered)
    wanted = [name for name, (use, own) in _WANTED.items() if use.search(html) and own not in html]
    scripts = [library(name) for name in wanted]
    for name, script in zip(wanted, scripts, strict=True):
        if script is None:
            return Figure(None, covered, (("text/html", _absent(name)),))
    missing = sorted(
        {
            host
            for host, path in _LOADED.findall(entities.unescape(html) if "&lt;" in html else html)
            if not _OURS.match(f"{host}/{path}")
        }
    )
    if missing:
        hosts = ", ".join(missing[:3]) + (" …" if missing[3:] else "")
        why = f"it loads from {hosts}, and {_GRANTS_NOTHING}"
        return Figure(None, covered, (("text/html", why),))
    height = _altair_height(html) if "vega" in wanted else None
    shown = frame(
        html, height=height, scripts=[script for script in scripts if script], still=still
    )
    return Figure(shown, covered, _remote_data("text/html", html))


@dataclass(frozen=True, slots=True)
class _Document:
    html: str
    height: int | None
    data: str = ""


def _drawn(
    name: str,
    mime: str,
    library: Library,
    document: _Document,
    still: str,
    covered: frozenset[str] = frozenset(),
) -> Figure:
    script = library(name)
    if script is None:
        # The bundle's own HTML draws with the same library, so it is no way out.
        return Figure(None, covered | {mime}, ((mime, _absent(name)),))
    shown = frame(document.html, height=document.height, scripts=[script], still=still)
    return Figure(shown, covered | {mime, "text/html"}, _remote_data(mime, document.data))


def _absent(name: str) -> str:
    package = _PACKAGES[name]
    return f"its library is not on this machine (install {package} beside the kernel's Python)"


def _remote_data(mime: str, text: str) -> tuple[tuple[str, str], ...]:
    found = _REMOTE.search(text)
    if found:
        return ((f"data of {mime}", f"it is at {found[1]}, and {_GRANTS_NOTHING}"),)
    return ()


# The documents


def _plotly(content: Mapping[str, Any]) -> _Document:
    layout = _mapping(content.get("layout"))
    pixels = _pixels(layout.get("height"), DEFAULT_HEIGHT)
    config = {
        "responsive": True,
        "displaylogo": False,  # a link, and a frame opens none
        "modeBarButtonsToRemove": ["toImage"],  # a download, likewise
        **_mapping(content.get("config")),
    }
    figure = _json(
        {
            "data": content.get("data"),
            "layout": layout,
            "config": config,
            "frames": content.get("frames"),
        }
    )
    html = (
        f'<div id="figure" style="width:100%;height:{pixels}px"></div>'
        f'<script>Plotly.newPlot("figure",{figure})</script>'
    )
    traces = content.get("data")
    types = {_mapping(each).get("type") for each in traces} if isinstance(traces, list) else set()
    tiles = any(isinstance(kind, str) and _TILES.fullmatch(kind) for kind in types)
    return _Document(html, pixels, '"url":"//cdn.plot.ly"' if tiles else figure)


def _vega(content: Mapping[str, Any], mode: str, options: object) -> _Document:
    settings = {"actions": False, **_mapping(options), "mode": mode}  # actions open windows
    html = (
        '<div id="figure" style="width:100%"></div><script>'
        f'vegaEmbed("#figure",{_json(content)},{_json(settings)})'
        ".catch(error=>{document.body.textContent=error})</script>"
    )
    return _Document(html, _vega_height(content) + _AXES, _json(content))


def _bokeh(bundle: Mapping[str, Any]) -> _Document:
    source = bundle.get("application/javascript")
    if isinstance(source, list):  # as nbformat splits text
        source = "".join(line for line in source if isinstance(line, str))
    if not isinstance(source, str):
        source = ""
    source = re.sub(r"<(?=/script|!--|script)", r"\\u003c", source, flags=re.IGNORECASE)
    heights = [int(number) for number in re.findall(r'"height":(\d{2,4})\b', source[: 1 << 20])]
    # The figures of a column stand below each other; a grid needs less, and has room to spare.
    height = sum(heights) if re.search('"name":"(?:Column|GridBox|GridPlot)"', source) else None
    # Bokeh shows the elements that its script draws in with a message of their own, before.
    body = "".join(
        f'<div id="{element}" data-root-id="{root}" style="display:contents"></div>'
        for roots in _ROOTS.findall(source)
        for root, element in re.findall(r'"([\w-]{1,64})":"([\w-]{1,64})"', roots)
    )
    return _Document(
        f"{body}<script>{source}</script>", height or (heights[0] if heights else None)
    )


def _vega_height(spec: Mapping[str, Any], depth: int = 0) -> int:
    """Return a guess at a chart's height in CSS pixels, axes not included."""
    if depth > 5:
        return DEFAULT_HEIGHT
    inner = [
        [_vega_height(each, depth + 1) for each in spec[name] if isinstance(each, Mapping)]
        for name in ("vconcat", "hconcat", "concat", "layer")
        if isinstance(spec.get(name), list)
    ]
    if inner and inner[0]:
        return sum(inner[0]) + _AXES * len(inner[0]) if "vconcat" in spec else max(inner[0])
    if isinstance(spec.get("spec"), Mapping):
        rows = _mapping(spec.get("repeat")).get("row")
        count = len(rows) if isinstance(rows, list) else 1
        return (_vega_height(spec["spec"], depth + 1) + _AXES) * count
    return _pixels(spec.get("height"), 300)


def _altair_height(html: str) -> int | None:
    """Return a guess at the height of a chart in altair's own HTML: a call with the chart."""
    at = html.find("})({")
    try:
        chart = json.JSONDecoder().raw_decode(html, at + 3)[0] if at >= 0 else None
    except (ValueError, RecursionError):
        return None
    return _vega_height(chart) + _AXES if isinstance(chart, dict) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _pixels(value: object, default: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return int(value) if 10 <= value <= 10_000 else default


def _json(value: object) -> str:
    """Return JSON that stands in a script: it can neither end it nor break a line in it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
