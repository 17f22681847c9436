"""CSS for a ``style`` attribute: how things look, never where they are or what they load."""

# ruff: noqa: SIM905 - long word lists are easier to read and to keep sorted as text
from __future__ import annotations

import re

__all__ = ["PROPERTIES", "inline_styles", "safe_style"]

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
_SHIFTS = ("margin", "text-indent")
_SHIFTED = re.compile(r"[(-]")
_MAX = 4096  # characters

_STYLE_ELEMENT = re.compile(r"<style\b[^>]*>(.*?)</style\s*>", re.IGNORECASE | re.DOTALL)
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_ID = re.compile(r"""(<[a-zA-Z][a-zA-Z0-9]*\s[^<>]*?)\bid\s*=\s*(["'])([\w-]{1,128})\2""")


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
        if colon and name in PROPERTIES and _harmless(name, value):
            kept.append(f"{name}: {value}")
    return "; ".join(kept)


def _harmless(name: str, value: str) -> bool:
    if not _VALUE.fullmatch(value) or value.count("(") != value.count(")"):
        return False
    if not all(function.lower() in _FUNCTIONS for function in _FUNCTION.findall(value)):
        return False
    # A negative margin pulls the output over what lies beside it: a fake button, a hidden notice.
    return not (name.startswith(_SHIFTS) and _SHIFTED.search(value))


def inline_styles(html: str) -> str:
    """Return HTML with the id rules of its ``<style>`` elements moved into the elements.

    Args:
        html: markup that is sanitised afterwards; nothing here needs to be trusted.

    pandas' Styler colours cells by ``#T_x_row0_col1 { … }``. Style elements are removed from output
    (their selectors reach the whole page), and this is what keeps such a table in colour. Rules
    with other selectors are lost.
    """
    rules: dict[str, str] = {}
    for element in _STYLE_ELEMENT.finditer(html):
        for selectors, declarations in _RULE.findall(_COMMENT.sub("", element[1])):
            style = safe_style(declarations)
            for selector in selectors.split(",") if style else ():
                name = selector.strip()
                if name[:1] == "#" and re.fullmatch(r"[\w-]{1,128}", name[1:]):
                    before = rules.get(name[1:])
                    rules[name[1:]] = f"{before}; {style}" if before else style
    if not rules:
        return html

    def styled(match: re.Match[str]) -> str:
        style = rules.get(match[3])
        if style is None:
            return match[0]
        return f"{match[1]}style='{style.replace(chr(39), chr(34))}' {match[0][len(match[1]) :]}"

    return _ID.sub(styled, html)
