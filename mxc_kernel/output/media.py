"""Pictures, sound and film that travel inside an output: that they are what they say they are.

A browser that plays playlists (``#EXTM3U``) by itself fetches what they list, and may judge by the
content, not by the type that the URL names. So a film is judged by its first bytes too. Debian's
Chromium 156 loaded none from a data URL; other browsers were not tried. Nor did a picture in SVG
load anything there, by ``image``, ``use``, style, script or foreign object.
"""

from __future__ import annotations

import base64
import re

__all__ = ["IMAGE_URL", "MEDIA_TYPE", "PICTURES", "begins_media", "first_bytes", "is_media"]

PICTURES = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}
"""The first bytes of each type of picture (the formats' own specifications)."""

IMAGE_URL = re.compile(
    r"data:image/(?:png|jpe?g|gif|webp);base64,[A-Za-z0-9+/=\s]*|data:image/svg\+xml[;,][^\x00]*",
    re.IGNORECASE,
)
"""Pictures that travel inside the output. As an image, SVG neither runs script nor loads."""

MEDIA_TYPE = re.compile(
    r"(?:audio|video)/(?:x-)?(?:wave?|mpeg|mp3|mp4|m4a|m4v|aac|ogg|opus|flac|webm|quicktime)"
    r"(?:\s*;\s*codecs=[\"']?[\w.,\s-]{0,100}[\"']?)?",
    re.IGNORECASE,
)
"""Sound and film that are whole in themselves; no playlists."""

_MEDIA_URL = re.compile(r"data:([\w/+.-]+)(?:;[\w=.-]+)*;base64,([A-Za-z0-9+/=\s]*)", re.IGNORECASE)
# RIFF: wav. Ogg. ID3 and frame syncs: mp3, aac. flac. EBML: webm. mp4 has "ftyp" behind its length.
_MEDIA = (b"RIFF", b"OggS", b"ID3", b"fLaC", b"\x1aE\xdf\xa3")
_SYNC = (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"\xff\xf9")


def is_media(url: str) -> bool:
    """Whether a data URL is sound or film that loads nothing else.

    Args:
        url: an attribute's value.
    """
    match = _MEDIA_URL.fullmatch(url)
    if match is None or not MEDIA_TYPE.fullmatch(match[1]):
        return False
    return begins_media(first_bytes(match[2]))


def begins_media(start: bytes) -> bool:
    """Whether a file that begins like this is sound or film that loads nothing else.

    Args:
        start: its first bytes, 8 or more.
    """
    return start.startswith((*_MEDIA, *_SYNC)) or start[4:8] == b"ftyp"


def first_bytes(encoded: str) -> bytes:
    """Return the first bytes, 24 at most, of Base64 text; what is no Base64 is passed over.

    Args:
        encoded: the text.
    """
    letters = "".join(encoded[:64].split())[:32].rstrip("=")
    return base64.b64decode(letters[: len(letters) // 4 * 4])
