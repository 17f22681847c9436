"""What the value of a widget's trait may be: one rule for each kind of value.

ipywidgets puts most traits into the page as text. The others make these rules necessary (read in
@jupyter-widgets/base 6.0.12, controls 5.0.13, jupyterlab-manager 5.0.16):

- ``HTML.value`` is assigned to ``innerHTML``; labels and descriptions are typeset by MathJax.
- Layouts and styles are set with ``style.setProperty``: ``url()`` loads, ``left`` and negative
  margins cover other outputs.
- A picture of format ``url`` is loaded from that address.
- What a view throws is shown, at a click, through ``innerHTML``, and the message of an error names
  what caused it: a number format, a class with a space, a module's version. Such values must be
  ones that nothing throws about.
- With ``description_allow_html`` the description is sanitised *before* its formulas are put back,
  into attributes too: ``$" onclick="…$ <a title="&#64;@0@@">`` becomes an element with a handler.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from mxc_kernel.output.captured import safe_output
from mxc_kernel.output.figures import Library, no_library
from mxc_kernel.output.rich import MAX_HTML
from mxc_kernel.output.sanitize import TooDeepError, disarm, sanitize_html
from mxc_kernel.output.style import PROPERTIES, harmless_value

__all__ = [
    "MODEL_ID",
    "REFERENCE",
    "RULES",
    "VERSION",
    "Around",
    "Model",
    "RefusedError",
    "Rule",
    "constant",
    "css",
    "one_of",
]

MODEL_ID = re.compile(r"(?=[A-Za-z_-]*[0-9])[0-9A-Za-z_-]{1,64}")
"""With a digit: a frontend looks some ids up in plain objects, which have a ``constructor``."""

REFERENCE = "IPY_MODEL_"
_MAX_ITEMS = 100_000
_LOOKS = frozenset({"", "primary", "success", "info", "warning", "danger"})
# Classes of the page's own (a dialog, a hidden tab) could cover it; interact() sets this one.
_CLASSES = frozenset({"widget-interact"})
# d3-format's own grammar, with bounded numbers; anything else makes it throw.
_FORMAT = re.compile(
    r"(?:[ -~]?[<>=^])?[+\-( ]?[$#]?0?\d{0,3},?(?:\.\d{1,2})?~?[a-z%]?", re.ASCII | re.IGNORECASE
)
_WORD = re.compile(r"[a-z-]{0,32}", re.ASCII)
_ICON = re.compile(r"[a-z0-9-]{0,64}", re.ASCII | re.IGNORECASE)
_SIZE = re.compile(r"(?:[0-9]{1,5}(?:\.[0-9]{1,9})?(?:px|%|em)?)?", re.ASCII)
_VERSION = re.compile(r"[\^~]?[0-9]{1,4}(?:\.[0-9]{1,4}){0,2}|\*|", re.ASCII)
_DATE = frozenset({"year", "month", "date", "hours", "minutes", "seconds", "milliseconds"})
_FILE_TEXTS = frozenset({"name", "type"})
_FILE_NUMBERS = frozenset({"size", "last_modified"})
# Layout's properties that a style attribute in HTML may not have. They place what is inside a
# widget, or the widget among its siblings.
_PLACING = frozenset(
    """
    align-self grid-area grid-auto-columns grid-auto-flow grid-auto-rows grid-column grid-gap
    grid-row grid-template-areas grid-template-rows justify-items object-fit object-position order
    """.split()  # noqa: SIM905 - easier to read and to keep sorted as text
)


class RefusedError(ValueError):
    """A value that may not pass. The message is the reason in the note; empty: no note."""


Rule: TypeAlias = "Callable[[Any, Around], Any]"
"""Returns a value (never ``None``, which always passes) as it may pass.

Raises:
    RefusedError: it may not.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One kind of widget model.

    Attributes:
        name: its class in the frontend.
        role: ``view`` can be shown; ``layout``, ``style`` and ``link`` belong to others.
        rules: what each trait may be.
        kinds: the name of each trait's rule.
        binary: whether its binary value may begin like some bytes; None: it has no such value.
    """

    name: str
    role: str
    rules: Mapping[str, Rule]
    kinds: Mapping[str, str]
    binary: Callable[[bytes], bool] | None = None


@dataclass(slots=True)
class Around:
    """What a rule needs to know beyond the value.

    Attributes:
        level: 1 safe or 2 frame; at the others no rule is asked.
        model: returns the allowed model that lives under an id.
        captures: what ``Output.msg_id`` may be.
        html: redacts HTML before it is sanitised.
        notes: gets one line for each thing that is left out.
        library: where the libraries come from that draw figures at level 2.
    """

    level: int
    model: Callable[[str], Model | None]
    captures: Collection[str | None]
    html: Callable[[str], str]
    notes: list[str]
    library: Library = no_library

    def has(self, model_id: object, role: str) -> bool:
        """Whether an allowed model of a role lives under an id."""
        model = self.model(model_id) if isinstance(model_id, str) else None
        return model is not None and model.role == role


def _text(value: Any, _around: Around) -> str:
    if not isinstance(value, str) or len(value) > MAX_HTML:
        raise RefusedError("it is not a text, or too long")
    return value


def _math(value: Any, around: Around) -> str:
    return disarm(_text(value, around))


def _html(value: Any, around: Around) -> str:
    text = around.html(_text(value, around))
    if "<" not in text and "&" not in text and text.isascii() and "\\" not in text:
        return text  # as most texts beside a progress bar
    try:
        return sanitize_html(text)
    except TooDeepError:
        raise RefusedError("it is nested too deeply") from None


def _number(value: Any, _around: Around) -> int | float:
    if type(value) is int or type(value) is float:
        return value
    raise RefusedError("it is not a number")


def _flag(value: Any, _around: Around) -> bool:
    if value is True or value is False:
        return value
    raise RefusedError("it is not true or false")


def _listed(rule: Rule) -> Rule:
    def check(value: Any, around: Around) -> list[Any]:
        if not isinstance(value, list) or len(value) > _MAX_ITEMS:
            raise RefusedError("it is not a list, or too long")
        return [item if item is None else rule(item, around) for item in value]

    return check


def _matching(pattern: re.Pattern[str]) -> Rule:
    def check(value: Any, _around: Around) -> str:
        if isinstance(value, str) and pattern.fullmatch(value):
            return value
        raise RefusedError("it is not such a value")

    return check


def css(name: str) -> Rule:
    """Return the rule for the value of a CSS property.

    Args:
        name: the property.
    """
    allowed = name in PROPERTIES or name in _PLACING

    def check(value: Any, _around: Around) -> str:
        if not isinstance(value, str) or len(value) > 4096:
            raise RefusedError("it is not a text, or too long")
        if value and not (allowed and harmless_value(name, value)):
            raise RefusedError("it could cover the page or load from elsewhere")
        return value

    return check


def constant(wanted: str | None) -> Rule:
    """Return the rule for a trait that has one possible value."""

    def check(value: Any, _around: Around) -> str:
        if value != wanted or wanted is None:
            raise RefusedError("it is not the widget's own")
        return wanted

    return check


def one_of(words: Collection[str]) -> Rule:
    """Return the rule for a trait that is one of some words."""

    def check(value: Any, _around: Around) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise RefusedError("it is not such a value")

    return check


def _binary(_value: Any, _around: Around) -> Any:
    raise RefusedError("it is not binary")


def _plain_description(value: Any, _around: Around) -> bool:
    if value is False:
        return value
    raise RefusedError("descriptions are shown as text")


def _icon(value: Any, _around: Around) -> str:
    """Each word becomes the class ``fa-…``."""
    if isinstance(value, str) and all(_ICON.fullmatch(word) for word in value.split()):
        return value
    raise RefusedError("it is not an icon")


def _classes(value: Any, _around: Around) -> list[str]:
    if not isinstance(value, list):
        raise RefusedError("it is not a list")
    return [name for name in value if isinstance(name, str) and name in _CLASSES]


def _date(value: Any, around: Around) -> dict[str, Any]:
    if not isinstance(value, dict) or not value.keys() <= _DATE:
        raise RefusedError("it is not a date or time")
    return {key: _number(part, around) for key, part in value.items()}


def _step(value: Any, around: Around) -> Any:
    return value if value == "any" else _number(value, around)


def _files(value: Any, around: Around) -> list[dict[str, Any]]:
    """Uploaded files, as the kernel holds them; their content has no way back."""
    if not isinstance(value, list):
        raise RefusedError("it is not a list")
    return [
        {
            key: (_text if key in _FILE_TEXTS else _number)(part, around)
            for key, part in file.items()
            if key in _FILE_TEXTS or key in _FILE_NUMBERS
        }
        for file in value
        if isinstance(file, dict)
    ]


def _reference(role: str) -> Rule:
    """A model of a role that lives. One not opened yet could become anything until it is used."""

    def check(value: Any, around: Around) -> str:
        if not isinstance(value, str) or not value.startswith(REFERENCE):
            raise RefusedError("it is not a widget")
        if not around.has(value[len(REFERENCE) :], role):
            raise RefusedError  # said when that widget was refused
        return value

    return check


_shown_widget = _reference("view")


def _views(value: Any, around: Around) -> list[str]:
    """Return the references that can be shown: without one, no other would be drawn either."""
    if not isinstance(value, list):
        raise RefusedError("it is not a list")
    shown = []
    for item in value:
        try:
            shown.append(_shown_widget(item, around))
        except RefusedError:
            continue
    return shown


def _end(value: Any, around: Around) -> list[str]:
    """One end of a link: a widget and the name of its trait."""
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], str):
        raise RefusedError("it is not the trait of a widget")
    return [_shown_widget(value[0], around), value[1]]


def _capture(value: Any, around: Around) -> str:
    """Capturing takes what a request shows, the kernel's own notes too, out of its cell."""
    if isinstance(value, str) and (not value or value in around.captures):
        return value
    raise RefusedError("it would take the output of another cell")


def _outputs(value: Any, around: Around) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise RefusedError("it is not a list, or too long")
    shown = []
    for item in value:
        output, notes = safe_output(
            item, around.level, lambda model: around.has(model, "view"), around.library
        )
        around.notes.extend(notes)
        if output is not None:
            shown.append(output)
    return shown


VERSION = _matching(_VERSION)
"""The rule for a module's version."""

RULES: dict[str, Rule] = {
    "binary": _binary,
    "capture": _capture,
    "classes": _classes,
    "color": css("color"),
    "colors": _listed(css("color")),
    "date": _date,
    "described": _plain_description,
    "end": _end,
    "files": _files,
    "flag": _flag,
    "format": _matching(_FORMAT),
    "html": _html,
    "icon": _icon,
    "icons": _listed(_matching(_ICON)),
    "layout": _reference("layout"),
    "look": one_of(_LOOKS),
    "math": _math,
    "number": _number,
    "numbers": _listed(_number),
    "outputs": _outputs,
    "size": _matching(_SIZE),
    "step": _step,
    "style": _reference("style"),
    "text": _text,
    "texts": _listed(_text),
    "views": _views,
    "word": _matching(_WORD),
}
"""Rules by the name that the table of models uses."""
