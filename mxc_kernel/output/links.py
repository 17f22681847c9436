"""Which links may be clicked in an output."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

__all__ = ["is_link"]

# A name with a dot in it that does not end in a number. Not localhost, no single label, no address
# in any of the ways browsers read one (127.1, 0x7f000001, [::1]), no user name, no backslash.
_WEB = re.compile(
    r"https?://((?:[\w-]{1,63}\.)+)([^\W\d][\w-]*)\.?(?::\d{1,5})?(?P<path>[/?#][^\x00-\x20\\]*)?",
    re.IGNORECASE,
)
_MAIL = re.compile(r"mailto:[^\x00-\x20]*", re.IGNORECASE)
_SERVER_PAGE = re.compile(r"[/\\]nbconvert[/\\]", re.IGNORECASE)
_MAX = 8192  # characters


def is_link(url: str) -> bool:
    """Whether a link leads away, and not to the Jupyter server that shows it.

    A click sends the user's cookie along. Jupyter's server turns any notebook in its folders into a
    page of its own origin (``/nbconvert/html/…``), whose scripts can then start a terminal: a cell
    that may write a notebook anywhere would be one click away from the host. Where the server is
    cannot be known here; most are at localhost, at an address or at a name without a dot, and
    nothing in a sandbox listens there. Elsewhere it is known by that path.

    Args:
        url: an attribute's value.
    """
    if len(url) > _MAX:
        return False
    if _MAIL.fullmatch(url):
        return True
    # Browsers do the same to host names: full-width letters become plain ones, U+3002 is a dot.
    match = _WEB.fullmatch(unicodedata.normalize("NFKC", url).replace("\u3002", "."))
    if match is None or match[2].lower() in ("localhost", "localdomain"):
        return False
    path = match["path"] or ""
    return not _SERVER_PAGE.search(unquote(unquote(path)))
