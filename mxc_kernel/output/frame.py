"""Interactive HTML in nested frames of opaque origin.

The frame's script cannot reach the page: no cookie, no storage, no parent, no navigation of the top
window, no popups, no network request. The inner frame runs the script; the outer one stands around
it because a content-security policy cannot stop its own document from navigating away, but the
policy of the document around it can.

It protects the page, not what is inside: WebRTC got out whatever policy was tried. Not for the
secrets of a closed network.
"""

from __future__ import annotations

import html as entities
import re

__all__ = ["POLICY", "frame", "needs_frame"]

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; media-src data:"
)
"""What the inner document may do. Offline plotly draws under it; its WebGL types do not."""

_OUTER = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; media-src data:; frame-src 'none'; form-action 'none'; "
    "base-uri 'none'"
)
_SCRIPTED = re.compile(r"<(?:script|iframe|canvas|object|embed)\b|\son\w+\s*=", re.IGNORECASE)
_HEIGHT = re.compile(r"""\bheight["']?\s*[:=]\s*["']?(\d{2,4})(?![\d%])""")
_DEFAULT_HEIGHT = 450  # px; plotly's and bokeh's own default figure
_MARGIN = 20  # px; the body's margins, so that no scroll bar appears
_MAX_HEIGHT = 2000  # px; an output must not push the notebook out of reach


def needs_frame(html: str) -> bool:
    """Whether HTML loses what it is for when its scripts are taken away.

    Args:
        html: untrusted markup.
    """
    return bool(_SCRIPTED.search(html))


def frame(html: str, height: int | None = None) -> str:
    """Return markup that shows a document in nested frames of opaque origin.

    Args:
        html: the untrusted document or fragment; it is only ever an attribute's text here.
        height: of the picture in CSS pixels; by default the first height named in the document.

    JupyterLab strips the frames in an untrusted notebook; the line below them stays.
    """
    if height is None:
        found = _HEIGHT.search(html)
        height = int(found[1]) if found else _DEFAULT_HEIGHT
    size = min(height, _MAX_HEIGHT) + _MARGIN
    inner = _document(POLICY, f"<body>{html}")
    outer = _document(
        _OUTER,
        "<style>html,body{margin:0;height:100%;overflow:hidden}</style>"
        f"<body>{_iframe(inner, '100%')}",
    )
    return (
        f"{_iframe(outer, f'{size}px')}"
        "<div><small>Interactive output in an isolated frame. If it is missing, run the cell again."
        "</small></div>"
    )


def _document(policy: str, content: str) -> str:
    return (
        "<!DOCTYPE html><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">{content}'
    )


def _iframe(document: str, height: str) -> str:
    # A nested frame can never do more than the one around it, so the outer one names allow-scripts
    # too.
    return (
        f'<iframe sandbox="allow-scripts" srcdoc="{entities.escape(document)}" '
        f'style="width:100%;height:{height};border:0"></iframe>'
    )
