r"""Redaction of structured content: JSON by its leaves and keys, HTML by what a reader sees.

A serialised document hides secrets from text rules: ``ghp_<b>…</b>`` reads as one word on the page,
and ``\u0067hp_…`` is the same string to JSON.
"""

from __future__ import annotations

import html as entities
import re
from collections import Counter
from typing import Any

from mxc_kernel.output.matching import Span
from mxc_kernel.output.redaction import Rules, find, redact
from mxc_kernel.output.terminal import INVISIBLE

__all__ = ["MAX_DEPTH", "redact_html", "redact_json"]

MAX_DEPTH = 100
"""Levels of nesting that are looked through; what lies deeper is replaced as a whole."""

_TOO_DEEP = "[redacted: nested too deeply]"
_REST = r"""(?:[^<>"']|"[^"]*"|'[^']*')*>?"""
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_TAG = re.compile(rf"{_COMMENT.pattern}|<[/!?A-Za-z]{_REST}", re.DOTALL)
_ENTITY = re.compile(r"&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,7}|[A-Za-z][A-Za-z0-9]{1,31});?")
# Between these a reader sees a gap; every other element's text runs on.
_BREAKS = re.compile(
    r"</?(?:address|article|aside|blockquote|br|caption|dd|details|div|dl|dt|figure|footer|h[1-6]|head"
    r"|header|hr|li|main|nav|ol|p|pre|script|section|style|summary|t[dhr]|table|tbody|tfoot|thead"
    r"|title|ul)\b",
    re.IGNORECASE,
)
_BREAK_TAG = re.compile(_BREAKS.pattern + _REST, re.IGNORECASE)
_UNSEEN = re.compile(f"[{re.escape(INVISIBLE)}\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f]")


def redact_json(content: Any, rules: Rules) -> tuple[Any, Counter[str]]:
    """Return JSON content without secrets in its strings and keys, and their counts by name.

    Args:
        content: what ``json.loads`` returns; it is not changed.
        rules: what to look for.

    A key is taken into account for its value: ``{"aws_secret_access_key": "…"}``.
    """
    counts: Counter[str] = Counter()
    return _leaf(content, rules, counts, MAX_DEPTH), counts


def _leaf(value: Any, rules: Rules, counts: Counter[str], depth: int) -> Any:
    if isinstance(value, str):
        return _counted(value, rules, counts)
    if not depth and isinstance(value, dict | list | tuple):
        return _TOO_DEEP
    if isinstance(value, list | tuple):
        return [_leaf(item, rules, counts, depth - 1) for item in value]
    if isinstance(value, dict):
        result: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str) or (key not in result and rules.is_clean(key)):
                result[key] = _leaf(item, rules, counts, depth - 1)
                continue
            shown = _counted(key, rules, counts)
            while shown in result:
                shown += "'"
            if isinstance(item, str):
                result[shown] = _labelled(key, item, rules, counts)
            else:
                result[shown] = _leaf(item, rules, counts, depth - 1)
        return result
    return value


def _labelled(key: str, value: str, rules: Rules, counts: Counter[str]) -> str:
    """Return a value, redacted with its key before it if the key alone looks like a label."""
    try:
        label = rules.scan(key)
    except UnicodeEncodeError:
        label = []
    if label:
        before = f"{key}: "
        start = len(before)
        spans = [span for span in find(before + value, rules) if span.end > start]
        if any(span.start <= start for span in spans):
            name = spans[0].matcher.name
            counts[name] += 1
            return f"[redacted: {name}]"
    return _counted(value, rules, counts)


def _counted(text: str, rules: Rules, counts: Counter[str]) -> str:
    shown, found = redact(text, rules)
    if found:
        counts.update(found)
    return shown


def redact_html(html: str, rules: Rules) -> tuple[str, Counter[str]]:
    """Return HTML without secrets in its markup or in what a reader sees, and their counts.

    Args:
        html: any markup, sanitised or not.
        rules: what to look for.
    """
    counts: Counter[str] = Counter()
    html = _counted(html, rules, counts)
    if "<" not in html and "&" not in html:
        return html, counts
    # Most pages have nothing to hide; the map of their characters would cost ten times as much.
    seen = _TAG.sub("", _BREAK_TAG.sub("\n", _COMMENT.sub("", html)))
    if find(_UNSEEN.sub("", entities.unescape(seen)), rules):
        html = _redact_seen(html, rules, counts)
    return html, counts


def _gap(tag: re.Match[str]) -> str:
    return "\n" if _BREAKS.match(tag[0]) else ""


def _redact_seen(html: str, rules: Rules, counts: Counter[str]) -> str:
    """Redact with a map from each character that is seen to where it stands in the markup."""
    seen: list[str] = []
    places: list[tuple[int, int]] = []
    position = 0
    for tag in _TAG.finditer(html):
        _see(html, position, tag.start(), seen, places)
        if gap := _gap(tag):
            seen.append(gap)
            places.append((tag.start(), tag.start()))
        position = tag.end()
    _see(html, position, len(html), seen, places)
    pieces: list[str] = []
    done = 0
    for span in _merged(find("".join(seen), rules)):
        pieces.append(html[done : places[span.start][0]] + f"[redacted: {span.matcher.name}]")
        counts[span.matcher.name] += 1
        # Tags inside the secret stay, so that the markup stays balanced.
        done = places[span.start][0]
        for first, last in places[span.start : span.end]:
            pieces.append(html[done:first])
            done = max(done, last)
    pieces.append(html[done:])
    return "".join(pieces)


def _see(html: str, start: int, stop: int, seen: list[str], places: list[tuple[int, int]]) -> None:
    """Add the characters of a run of text, entities decoded, those without width left out."""
    while start < stop:
        entity = _ENTITY.match(html, start, stop) if html[start] == "&" else None
        end = entity.end() if entity else start + 1
        shown = _UNSEEN.sub("", entities.unescape(html[start:end]))
        seen.extend(shown)
        places.extend([(start, end)] * len(shown))
        start = end


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        if merged and span.start <= merged[-1].end:
            end = max(span.end, merged[-1].end)
            merged[-1] = merged[-1]._replace(end=end)
        else:
            merged.append(span)
    return merged
