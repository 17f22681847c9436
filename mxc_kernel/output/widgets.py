"""Which widgets may be shown, and what of their state: ipywidgets' own models, trait by trait.

The table is derived from ipywidgets 8.1.9 (every synchronised trait of every registered class) and
from how the views of @jupyter-widgets/controls 5.0.13 put a trait into the page. A model or a trait
that is not in it does not pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mxc_kernel.output.media import PICTURES, begins_media
from mxc_kernel.output.rich import note
from mxc_kernel.output.traits import (
    REFERENCE,
    RULES,
    VERSION,
    Around,
    Model,
    RefusedError,
    constant,
    css,
    one_of,
)

__all__ = ["State", "find_model", "safe_state"]

_BASE, _CONTROLS, _OUTPUT = (f"@jupyter-widgets/{part}" for part in ("base", "controls", "output"))

_DOM = "_dom_classes:classes layout:layout tabbable:flag tooltip:text "
_LABELLED = _DOM + "description:math description_allow_html:described disabled:flag style:style "
_BOX = _DOM + "box_style:look children:views "
_PAGES = _BOX + "selected_index:number titles:texts "
_TYPED = _LABELLED + "continuous_update:flag placeholder:text value:text "
_ENTERED = _LABELLED + "continuous_update:flag max:number min:number step:number value:number "
_SLIDER = (
    _LABELLED + "behavior:word continuous_update:flag max:number min:number orientation:word "
    "readout:flag readout_format:format step:number "
)
_PROGRESS = _LABELLED + "bar_style:look max:number min:number orientation:word value:number "
_CHOICE = _LABELLED + "_options_labels:texts "
_ALONG = "behavior:word continuous_update:flag orientation:word readout:flag "
_TAGS = _LABELLED + "allow_duplicates:flag placeholder:text "
_NUMBERS = _TAGS + (
    "allowed_tags:numbers format:format max:number min:number tag_style:look value:numbers "
)
_MEDIA = _DOM + "autoplay:flag controls:flag format:word loop:flag value:binary "
_DATE = _LABELLED + "max:date min:date step:step value:date"
_LINK = "source:end target:end"

# Model (without "Model"): its view (without "View"), and its traits with their kinds.
_TABLE: dict[str, tuple[str, str]] = {
    "Accordion": ("Accordion", _PAGES),
    "Audio": ("Audio", _MEDIA),
    "BoundedFloatText": ("FloatText", _ENTERED),
    "BoundedIntText": ("IntText", _ENTERED),
    "Box": ("Box", _BOX),
    "Button": ("Button", _LABELLED + "button_style:look icon:icon"),
    "Checkbox": ("Checkbox", _LABELLED + "indent:flag value:flag"),
    "ColorPicker": ("ColorPicker", _LABELLED + "concise:flag value:color"),
    "ColorsInput": ("ColorsInput", _TAGS + "allowed_tags:colors value:colors"),
    "Combobox": ("Combobox", _TYPED + "ensure_option:flag options:texts"),
    "Controller": (
        "Controller",
        _DOM + "axes:views buttons:views connected:flag index:number mapping:text name:text "
        "timestamp:number",
    ),
    "ControllerAxis": ("ControllerAxis", _DOM + "value:number"),
    "ControllerButton": ("ControllerButton", _DOM + "pressed:flag value:number"),
    "DatePicker": ("DatePicker", _DATE),
    "Datetime": ("Datetime", _DATE),
    "DirectionalLink": ("", _LINK),
    "Dropdown": ("Dropdown", _CHOICE + "index:number"),
    "FileUpload": (
        "FileUpload",
        _LABELLED + "accept:text button_style:look error:text icon:icon multiple:flag value:files",
    ),
    "FloatLogSlider": ("FloatLogSlider", _SLIDER + "base:number value:number"),
    "FloatProgress": ("Progress", _PROGRESS),
    "FloatRangeSlider": ("FloatRangeSlider", _SLIDER + "value:numbers"),
    "FloatSlider": ("FloatSlider", _SLIDER + "value:number"),
    "FloatText": ("FloatText", _ENTERED),
    "FloatsInput": ("FloatsInput", _NUMBERS),
    "GridBox": ("GridBox", _BOX),
    "HBox": ("HBox", _BOX),
    "HTML": ("HTML", _LABELLED + "placeholder:text value:html"),
    "HTMLMath": ("HTMLMath", _LABELLED + "placeholder:text value:html"),
    "Image": ("Image", _DOM + "format:word height:size value:binary width:size"),
    "IntProgress": ("Progress", _PROGRESS),
    "IntRangeSlider": ("IntRangeSlider", _SLIDER + "value:numbers"),
    "IntSlider": ("IntSlider", _SLIDER + "value:number"),
    "IntText": ("IntText", _ENTERED),
    "IntsInput": ("IntsInput", _NUMBERS),
    "Label": ("Label", _LABELLED + "placeholder:text value:math"),
    "Link": ("", _LINK),
    "NaiveDatetime": ("Datetime", _DATE),
    "Password": ("Password", _TYPED),
    "Play": (
        "Play",
        _LABELLED + "interval:number max:number min:number playing:flag repeat:flag "
        "show_repeat:flag step:number value:number",
    ),
    "RadioButtons": ("RadioButtons", _CHOICE + "index:number orientation:word"),
    "Select": ("Select", _CHOICE + "index:number rows:number"),
    "SelectMultiple": ("SelectMultiple", _CHOICE + "index:numbers rows:number"),
    "SelectionRangeSlider": ("SelectionRangeSlider", _CHOICE + _ALONG + "index:numbers"),
    "SelectionSlider": ("SelectionSlider", _CHOICE + _ALONG + "index:number"),
    "Stack": ("Stack", _PAGES),
    "Tab": ("Tab", _PAGES),
    "TagsInput": ("TagsInput", _TAGS + "allowed_tags:texts tag_style:look value:texts"),
    "Text": ("Text", _TYPED),
    "Textarea": ("Textarea", _TYPED + "rows:number"),
    "Time": ("Time", _DATE),
    "ToggleButton": ("ToggleButton", _LABELLED + "button_style:look icon:icon value:flag"),
    "ToggleButtons": (
        "ToggleButtons",
        _CHOICE + "button_style:look icons:icons index:number tooltips:texts",
    ),
    "VBox": ("VBox", _BOX),
    "Valid": ("Valid", _LABELLED + "readout:text value:flag"),
    "Video": ("Video", _MEDIA + "height:size width:size"),
}
_FONT = "font_family font_size font_style font_variant font_weight text_color text_decoration "
_TINTED = "background description_width font_size text_color "
_STYLES = {
    "Button": _FONT + "button_color",
    "Checkbox": "background description_width",
    "Description": "description_width",
    "HTML": _TINTED,
    "HTMLMath": _TINTED,
    "Label": _FONT + "background description_width",
    "Progress": "bar_color description_width",
    "Slider": "description_width handle_color",
    "Text": _TINTED,
    "ToggleButton": _FONT + "description_width",
    "ToggleButtons": "button_width description_width font_weight",
}
# The property that a style's trait is set as, where it has another name (static styleProperties).
_PROPERTY = {
    "bar_color": "background-color",
    "button_color": "background-color",
    "button_width": "width",
    "description_width": "width",
    "handle_color": "background-color",
    "text_color": "color",
}
_LAYOUT = """
    align_content align_items align_self border_bottom border_left border_right border_top bottom
    display flex flex_flow grid_area grid_auto_columns grid_auto_flow grid_auto_rows grid_column
    grid_gap grid_row grid_template_areas grid_template_columns grid_template_rows height
    justify_content justify_items left margin max_height max_width min_height min_width object_fit
    object_position order overflow padding right top visibility width """

_PICTURES = tuple(start for starts in PICTURES.values() for start in starts)
# Formats that name what else to load (SVG, playlists) are not among them, neither by name nor by
# their first bytes; with "url" the browser would load an address.
_BINARY: dict[str, Callable[[bytes], bool]] = {
    "Audio": begins_media,
    "Image": lambda start: start.startswith(_PICTURES),
    "Video": begins_media,
}
_FORMATS = {
    "Audio": frozenset({"aac", "flac", "m4a", "mp3", "mp4", "mpeg", "ogg", "wav", "webm"}),
    "Image": frozenset({"gif", "jpeg", "jpg", "png", "webp"}),
    "Video": frozenset({"m4v", "mp4", "ogg", "webm"}),
}
# Between which kinds a link may copy in the browser, where no rule is asked: to the same kind, and
# in one direction from what the user cannot type text into.
_LINKED = {
    kind: frozenset({kind}) for kind in ("color", "flag", "html", "math", "number", "text", "texts")
}
_COPIED = _LINKED | dict.fromkeys(
    ("flag", "number"), frozenset({"flag", "html", "math", "number", "text"})
)


@dataclass(frozen=True, slots=True)
class State:
    """What may pass of a model's state.

    Attributes:
        values: traits and their values.
        paths: where the buffers belong, each ``[trait]``.
        buffers: the binary values, in the order of the paths.
    """

    values: dict[str, Any]
    paths: list[list[str]]
    buffers: list[bytes]


def find_model(state: Mapping[str, Any]) -> Model | None:
    """Return the model that a full state says it is of, or ``None``: not one of ipywidgets'.

    Args:
        state: the state, or another object with ``_model_module`` and ``_model_name``.
    """
    name, module = state.get("_model_name"), state.get("_model_module")
    if not isinstance(name, str) or not isinstance(module, str):
        return None
    return _MODELS.get((module, name))


def safe_state(
    model: Model,
    state: Mapping[str, Any],
    paths: Sequence[Any],
    buffers: Sequence[bytes],
    around: Around,
) -> State:
    """Return what of a state, or of a change of it, may pass.

    Args:
        model: the model it is of.
        state: traits and their values, any JSON.
        paths: where in the state the buffers belong, any JSON.
        buffers: the binary values.
        around: what the rules need; its notes get what is left out.
    """
    values: dict[str, Any] = {}
    for trait, value in state.items():
        rule = model.rules.get(trait)
        if rule is None:
            continue  # nothing in the frontend reads it
        try:
            values[trait] = value if value is None else rule(value, around)
        except RefusedError as error:
            if reason := str(error):
                around.notes.append(note(f"{model.name} {trait}", reason))
    if model.role == "link" and ("source" in values or "target" in values):
        _check_link(model, values, around)
    if not paths:
        return State(values, [], [])
    kept = [
        (path, buffer)
        for path, buffer in zip(paths, buffers, strict=False)
        if path == ["value"] and _begins_well(model, buffer, around)
    ]
    return State(values, [path for path, _ in kept], [buffer for _, buffer in kept])


def _check_link(model: Model, values: dict[str, Any], around: Around) -> None:
    """Take the ends away unless both are there: what one end was may have changed meanwhile."""
    source, target = (_kind(values.get(end), around) for end in ("source", "target"))
    one_way = model.name == "DirectionalLinkModel"
    if source is None or target not in (_COPIED if one_way else _LINKED).get(source, ()):
        around.notes.append(note(model.name, "it would copy past the rules for what is shown"))
        values.pop("source", None)
        values.pop("target", None)


def _kind(end: Any, around: Around) -> str | None:
    if end is None:
        return None
    model = around.model(end[0][len(REFERENCE) :])
    return model.kinds.get(end[1]) if model is not None else None


def _begins_well(model: Model, buffer: bytes, around: Around) -> bool:
    if model.binary is None:
        return False
    if not buffer or model.binary(bytes(buffer[:24])):
        return True
    around.notes.append(note(f"{model.name} value", "it is not a known format"))
    return False


def _model(name: str, module: str, view: str | None, role: str, kinds: dict[str, str]) -> Model:
    """Return a model whose traits have rules by name, or for a CSS property (``css:``)."""
    rules = {
        trait: css(kind[4:]) if kind.startswith("css:") else RULES[kind]
        for trait, kind in kinds.items()
    }
    if name in _FORMATS:
        rules["format"] = one_of(_FORMATS[name])
    rules |= {
        "_model_module": constant(module),
        "_model_module_version": VERSION,
        "_model_name": constant(f"{name}Model"),
        "_view_count": RULES["number"],
        "_view_module": constant(_BASE if role == "style" else module),
        "_view_module_version": VERSION,
        "_view_name": constant(view and f"{view}View"),
    }
    return Model(f"{name}Model", role, rules, kinds, _BINARY.get(name))


def _css_kind(trait: str) -> str:
    return "css:" + trait.replace("_", "-")


def _models() -> Iterator[tuple[str, Model]]:
    for name, (view, traits) in _TABLE.items():
        kinds = dict(trait.split(":") for trait in traits.split())
        yield _CONTROLS, _model(name, _CONTROLS, view or None, "view" if view else "link", kinds)
    for name, traits in _STYLES.items():
        kinds = {
            trait: "css:" + _PROPERTY.get(trait, trait.replace("_", "-"))
            for trait in traits.split()
        }
        yield _CONTROLS, _model(f"{name}Style", _CONTROLS, "Style", "style", kinds)
    kinds = {trait: _css_kind(trait) for trait in _LAYOUT.split()}
    yield _BASE, _model("Layout", _BASE, "Layout", "layout", kinds)
    kinds = dict(trait.split(":") for trait in f"{_DOM} msg_id:capture outputs:outputs".split())
    yield _OUTPUT, _model("Output", _OUTPUT, "Output", "view", kinds)


_MODELS = {(module, model.name): model for module, model in _models()}
