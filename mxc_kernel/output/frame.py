"""Interactive HTML in nested frames of opaque origin.

The frame's script cannot reach the page: no cookie, no storage, no parent, no navigation of the top
window, no popups, no network request. The inner frame runs the script; the outer one stands around
it because a content-security policy cannot stop its own document from navigating away, but the
policy of the document around it can.

It protects the page, not what is inside: WebRTC got out whatever policy was tried. Not for the
secrets of a closed network.

The document travels compressed, since a charting library is megabytes and each figure needs its
own: plotly's 4.8 MB take 2.0 MB of the notebook instead of 5.6 MB.
"""

from __future__ import annotations

import base64
import html as entities
import re
import zlib
from collections.abc import Sequence

from mxc_kernel.output.elements import replace_elements

__all__ = ["DEFAULT_HEIGHT", "POLICY", "frame", "is_frame", "needs_frame", "pack", "still_image"]

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; media-src data:; form-action 'none'; base-uri 'none'"
)
"""What a document in the frame may do.

Inline script may do all that script can; eval adds nothing to it, and vega's expressions and
plotly's WebGL types need it.
"""

_OUTER = f"{POLICY}; frame-src 'none'"
_SCRIPTED = re.compile(
    r"<(?:script|iframe|canvas|object|embed)\b|<[^<>]{1,2000}\son\w{1,40}\s?=", re.IGNORECASE
)
_HEIGHT = re.compile(r"""\bheight["']?\s?[:=]\s?["']?(\d{2,4})(?![\d%])""")
DEFAULT_HEIGHT = 450
"""In CSS pixels; plotly's own default figure, and a little more than vega's."""
_MARGIN = 20  # px; the body's padding, so that no scroll bar appears
_LIBRARY = 100_000  # characters; a script as long as this is no figure's own
_MAX_HEIGHT = 2000  # px; an output must not push the notebook out of reach

_ENDING = re.compile(r"<(?=/script|!--|script)", re.IGNORECASE)
# A white card in a dark page too: most figures draw black on nothing.
_STYLE = (
    "<style>html{height:100%;background:#fff;color:#000;color-scheme:light;font-family:sans-serif}"
    "body{margin:0;padding:8px;height:100%;box-sizing:border-box}"
    # A menu to save a picture and to open an editor, neither of which a frame may do.
    ".vega-embed>details{display:none!important}</style>"
)
# What libraries load from other hosts is refused in here. Loaders that wait for it are told that it
# is there, since it is: it came with the document.
_SHIM = (
    "<script>Object.defineProperty(HTMLScriptElement.prototype,'src',{configurable:true,set(){"
    "setTimeout(()=>this.dispatchEvent(new Event('load')))}})</script>"
)
_UNPACK = (
    "<script>(async packed=>{{const bytes=Uint8Array.from(atob(packed),c=>c.charCodeAt(0));"
    "const text=await new Response(new Blob([bytes]).stream()"
    ".pipeThrough(new DecompressionStream('deflate-raw'))).text();"
    "document.open();document.write(text);document.close()}})('{packed}')"
    ".catch(error=>{{document.body.textContent='This browser cannot show it: '+error}})</script>"
)
_STILL = '<img alt="figure" src="data:image/(?:gif|jpeg|png|webp);base64,[A-Za-z0-9+/=]*">'
_MISSING = (
    "<div><small>Interactive output is shown after its cell was run. "
    "Run the cell again to see it.</small></div>"
)


def needs_frame(html: str) -> bool:
    """Whether HTML loses what it is for when its scripts are taken away.

    Args:
        html: untrusted markup.
    """
    return bool(_SCRIPTED.search(html))


def pack(text: str) -> bytes:
    """Return a text compressed, so that it can stand before others in a document.

    Args:
        text: a library's JavaScript.
    """
    # Only strings, patterns and comments of a script hold these, and there it means the same.
    text = _ENDING.sub(r"\\x3c", text)
    return _compress(f"<script>{text}\n</script>", zlib.Z_FULL_FLUSH)


def frame(
    html: str, *, height: int | None = None, scripts: Sequence[bytes] = (), still: str = ""
) -> str:
    """Return markup that shows a document in nested frames of opaque origin.

    Args:
        html: the untrusted document or fragment.
        height: of the picture in CSS pixels; by default the first height named in the document.
        scripts: packed libraries that it needs.
        still: markup for where frames are not shown: JupyterLab strips them in an untrusted
            notebook, which leaves what stands inside of them.
    """
    if height is None:
        height = _height(html)
    size = max(50, min(height, _MAX_HEIGHT)) + _MARGIN
    head = _compress(_document(POLICY, _STYLE), zlib.Z_FULL_FLUSH)
    body = _compress(f"{_SHIM if scripts else ''}<body>{html}", zlib.Z_FINISH)
    packed = base64.b64encode(b"".join((head, *scripts, body))).decode()
    return _nested(packed, f"{size}px", still or _MISSING)


def is_frame(html: str) -> bool:
    """Whether markup is what :func:`frame` returns, for whatever document.

    An Output widget hands back what it shows when the page is opened again. Which document it is
    need not be known: script in a frame can do no more than that of any other.

    Args:
        html: untrusted markup.
    """
    return html.startswith(_BEGINNING) and _FRAME.fullmatch(html) is not None


def still_image(mime: str, data: str) -> str:
    """Return markup that shows a picture where frames are not shown.

    Args:
        mime: of a picture.
        data: it in Base64, checked to be nothing else.
    """
    return f'<img alt="figure" src="data:{mime};base64,{"".join(data.split())}">'


def _nested(packed: str, height: str, instead: str) -> str:
    inner = _document(POLICY, f"<body>{_UNPACK.format(packed=packed)}")
    outer = _document(
        _OUTER,
        "<style>html,body{margin:0;height:100%;overflow:hidden}</style>"
        f"<body>{_iframe(inner, '100%', '')}",
    )
    return _iframe(outer, height, instead)


def _height(html: str) -> int:
    """Return the first height that a document names, its libraries aside."""
    rest = replace_elements(html, "script", lambda all_, own: all_ if len(own) < _LIBRARY else "")
    found = _HEIGHT.search(rest)
    return int(found[1]) if found else DEFAULT_HEIGHT


def _compress(text: str, flush: int) -> bytes:
    """Return one stretch of a raw deflate stream; such stretches may follow each other."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(text.encode("utf-8", "replace")) + compressor.flush(flush)


def _document(policy: str, content: str) -> str:
    return (
        "<!DOCTYPE html><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">{content}'
    )


def _iframe(document: str, height: str, instead: str) -> str:
    # A nested frame can never do more than the one around it, so the outer one names allow-scripts
    # too.
    return (
        f'<iframe sandbox="allow-scripts" srcdoc="{entities.escape(document)}" '
        f'style="width:100%;height:{height};border:0">{instead}</iframe>'
    )


_BEGINNING = _iframe("", "", "").partition("srcdoc")[0]
_FRAME = re.compile(
    re.escape(_nested("PACKED", "HEIGHT", "INSTEAD"))
    .replace("PACKED", "[A-Za-z0-9+/]*={0,2}")
    .replace("HEIGHT", "(?:[0-9]{2,3}|1[0-9]{3}|20[012][0-9])px")
    .replace("INSTEAD", f"(?:{re.escape(_MISSING)}|{_STILL})")
)
