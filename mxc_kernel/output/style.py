"""CSS for a ``style`` attribute: how things look, never where they are or what they load."""

# ruff: noqa: SIM905 - long word lists are easier to read and to keep sorted as text
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from mxc_kernel.output.elements import replace_between, replace_elements

__all__ = ["PROPERTIES", "harmless_value", "inline_styles", "safe_style"]

PROPERTIES = frozenset(
    """
    background background-color border border-bottom border-bottom-color border-bottom-left-radius
    border-bottom-right-radius border-bottom-style border-bottom-width border-collapse border-color
    border-left border-left-color border-left-style border-left-width border-radius border-right
    border-right-color border-right-style border-right-width border-spacing border-style border-top
    border-top-color border-top-left-radius border-top-right-radius border-top-style
    border-top-width border-width caption-side clear color column-gap display empty-cells
    float font font-family font-size font-stretch font-style font-variant font-weight gap
    grid-template-columns height justify-content align-items align-content flex flex-basis
    flex-direction flex-flow flex-grow flex-shrink flex-wrap letter-spacing line-height
    list-style-type margin margin-bottom margin-left margin-right margin-top max-height max-width
    min-height min-width opacity overflow overflow-wrap overflow-x overflow-y padding padding-bottom
    padding-left padding-right padding-top row-gap table-layout text-align text-decoration
    text-decoration-color text-decoration-line text-decoration-style text-indent text-overflow
    text-transform vertical-align visibility white-space width word-break word-spacing
    word-wrap """.split()
)
"""Without position, z-index, transform, inset and their kin: an output may not cover the page."""

# Functions that compute a colour, a length or a gradient. url, image, image-set, cross-fade,
# element and src load; attr and env read the page; expression ran script in old browsers.
_FUNCTIONS = frozenset(
    """
    calc clamp hsl hsla hwb lab lch linear-gradient max min minmax oklab oklch radial-gradient
    repeat repeating-linear-gradient rgb rgba var """.split()
)
_FUNCTION = re.compile(r"([\w-]*)\(")
# No backslash (an escape can spell url), no quote-less at-rule, comment or brace.
_VALUE = re.compile(r"""[\w\s#%.,+*/()!-]*|(?:[\w\s,-]|"[\w\s,.-]*"|'[\w\s,.-]*')*""")
_SHIFTS = ("margin", "text-indent", "word-spacing", "letter-spacing")
_SHIFTED = re.compile(r"[(-]")
# A length of a hundred thousand pixels or more, but not the digits of a colour or of a fraction.
_HUGE = re.compile(r"(?<![#\w.])(?:\d{6}|[\d.]*\d[eE][+-]?\d)")
_MAX = 4096  # characters

# ``#id``, ``#id tag``, ``#id .class`` and ``#id tag.class``: what pandas' Styler writes.
_SELECTOR = re.compile(
    r"#(?P<id>[\w-]{1,128})(?P<below>\s+(?P<tag>[A-Za-z][A-Za-z0-9]*)?(?:\.(?P<name>[\w-]{1,64}))?)?"
)
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)((?:\s[^<>]*)?)>")
_ID = re.compile(r"""(?<=\s)id\s?=\s?["']?([\w-]{1,128})""")
_CLASSES = re.compile(r"""(?<=\s)class\s?=\s?["']([^"'<>]*)["']""")
_COMMENT = re.compile(r"/\*"), re.compile(r"\*/")
_MAX_RULES = 20  # for what is below an element; each is tried on each element
_MAX_ADDED = 2 << 20  # characters; one rule for a million cells must not fill the memory


@lru_cache(maxsize=1024)  # a table says the same in each of its cells
def safe_style(style: str) -> str:
    """Return the harmless declarations of a ``style`` attribute; empty if there are none.

    Args:
        style: the attribute's value.
    """
    if len(style) > _MAX or "/*" in style:
        return ""
    kept = []
    for declaration in style.split(";"):
        name, colon, value = declaration.partition(":")
        name, value = name.strip().lower(), value.strip()
        if colon and name in PROPERTIES and harmless_value(name, value):
            kept.append(f"{name}: {value}")
    return "; ".join(kept)


def harmless_value(name: str, value: str) -> bool:
    """Whether a property's value loads nothing and does not shift the element over others.

    Args:
        name: the property, in lower case.
        value: its value.
    """
    if not _VALUE.fullmatch(value) or value.count("(") != value.count(")") or _HUGE.search(value):
        return False
    if not all(function.lower() in _FUNCTIONS for function in _FUNCTION.findall(value)):
        return False
    # A negative margin pulls the output over what lies beside it: a fake button, a hidden notice.
    return not (name.startswith(_SHIFTS) and _SHIFTED.search(value))


@dataclass
class _Sheet:
    """Rules by the id they name, for the element itself and for elements below it."""

    own: dict[str, str] = field(default_factory=dict)
    below: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)  # tag, class, style

    def read(self, css: str) -> None:
        """Take in the rules of a style element; those with other selectors are lost."""
        for selectors, style in _rules(css):
            for selector in map(_SELECTOR.fullmatch, map(str.strip, selectors.split(","))):
                if selector is None:
                    continue
                name = selector["id"]
                if selector["below"]:
                    entry = (selector["tag"] or "").lower(), selector["name"] or "", style
                    self.below.setdefault(name, []).append(entry)
                elif len(self.own.get(name, "")) < _MAX:
                    before = self.own.get(name)
                    self.own[name] = f"{before}; {style}" if before else style


def inline_styles(html: str) -> str:
    """Return HTML with the id rules of its ``<style>`` elements moved into the elements.

    Args:
        html: markup that is sanitised afterwards; nothing here needs to be trusted.

    pandas' Styler colours cells by ``#T_x_row0_col1 { … }``, headings by ``#T_x th { … }``. Style
    elements are removed from output (their selectors reach the whole page), and this is what keeps
    such a table in colour. Rules with other selectors, such as for hovering, are lost.
    """
    sheet = _Sheet()

    def read(_whole: str, css: str) -> str:
        sheet.read(css)
        return ""

    html = replace_elements(html, "style", read)
    if not sheet.own and not sheet.below:
        return html
    inside = ""  # the id of the table around, if there are rules for what is in it
    added = 0

    def styled(match: re.Match[str]) -> str:
        nonlocal inside, added
        closing, tag, attributes = match.groups()
        tag = tag.lower()
        if closing:
            inside = "" if tag == "table" else inside
            return match[0]
        found = _ID.search(attributes)
        name = found[1] if found else ""
        style = "; ".join(_styles(sheet, inside, tag, name, attributes))
        inside = name if tag == "table" and name in sheet.below else inside
        added += len(style)
        if not style or added > _MAX_ADDED:
            return match[0]
        return f"<{tag} style='{style.replace(chr(39), chr(34))}'{attributes}>"

    return _TAG.sub(styled, html)


def _styles(sheet: _Sheet, inside: str, tag: str, name: str, attributes: str) -> Iterator[str]:
    """Yield what applies to an element, the most specific last."""
    classes: list[str] | None = None
    for wanted, required, style in sheet.below.get(inside, ())[:_MAX_RULES]:
        if wanted in ("", tag):
            if required and classes is None:
                found = _CLASSES.search(attributes)
                classes = found[1].split() if found else []
            if not required or required in (classes or ()):
                yield style
    if name in sheet.own:
        yield sheet.own[name]


def _rules(css: str) -> Iterator[tuple[str, str]]:
    """Yield selectors and harmless declarations of each rule; rules inside of rules are lost."""
    for rule in replace_between(css, *_COMMENT, lambda _whole, _text: "").split("}"):
        selectors, brace, declarations = rule.partition("{")
        style = safe_style(declarations) if brace and "{" not in declarations else ""
        if style:
            yield selectors, style
