"""What of a widget's state may be shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipywidgets.widgets import widget as python_widgets

from mxc_kernel.output.frame import is_frame, pack
from mxc_kernel.output.sanitize import sanitize_html
from mxc_kernel.output.traits import Around, Model
from mxc_kernel.output.widgets import _MODELS, State, find_model, safe_state

SAFE, FRAME = 1, 2
CONTROLS = "@jupyter-widgets/controls"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def model(name: str) -> Model:
    for module in (CONTROLS, "@jupyter-widgets/base", "@jupyter-widgets/output"):
        found = find_model({"_model_module": module, "_model_name": name})
        if found is not None:
            return found
    raise AssertionError(name)


def around(level: int = SAFE, **alive: str) -> Around:
    """What is around a state: widgets alive by id, and the request ``now`` being worked on."""
    models = {widget: model(name) for widget, name in alive.items()}
    return Around(level, models.get, ("now",), str, [])


def shown(name: str, context: Around | None = None, **state: Any) -> dict[str, Any]:
    return safe_state(model(name), state, [], [], context or around()).values


def of_binary(name: str, value: bytes, path: Any = None, **state: Any) -> State:
    paths = [["value"] if path is None else path]
    return safe_state(model(name), state, paths, [value], around())


# --- the table ----------------------------------------------------------------------------------


def classes() -> list[type]:
    """Every widget that ipywidgets registers."""
    found: list[type] = []

    def collect(entry: Any) -> None:
        for item in entry.values():
            if isinstance(item, dict):
                collect(item)
            else:
                found.append(item)

    collect(python_widgets._registry._registry)
    return sorted(set(found), key=lambda cls: cls._model_name.default_value)


WIDGETS = [cls for cls in classes() if cls.__name__ != "_Media"]  # has no view


@pytest.mark.parametrize("cls", WIDGETS, ids=lambda cls: cls.__module__ + "." + cls.__name__)
def test_the_table_knows_every_trait_of_every_widget(cls: Any) -> None:
    known = find_model(
        {
            "_model_module": cls._model_module.default_value,
            "_model_name": cls._model_name.default_value,
        }
    )
    assert known is not None
    assert cls.class_traits(sync=True).keys() <= known.rules.keys()
    names = ("_model_module", "_model_name", "_view_module", "_view_name", "_model_module_version")
    state = {name: getattr(cls, name).default_value for name in names}
    assert safe_state(known, state, [], [], around()).values == state


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("anywidget", "AnyModel"),
        ("jupyter-matplotlib", "MPLCanvasModel"),
        (CONTROLS, "AnyModel"),
        (CONTROLS, "LayoutModel"),
        ("@jupyter-widgets/base", "HTMLModel"),
        (CONTROLS, "constructor"),
        (CONTROLS, ["IntSliderModel"]),
        (None, None),
    ],
)
def test_other_models_are_not_known(module: Any, name: Any) -> None:
    assert find_model({"_model_module": module, "_model_name": name}) is None


# --- values -------------------------------------------------------------------------------------

# (model, trait, what passes as it is, what does not pass)
VALUES: list[tuple[str, str, Any, Any]] = [
    ("IntSliderModel", "value", 5, "<img src=x onerror=alert(1)>"),
    ("IntSliderModel", "value", 5, [5]),
    ("IntSliderModel", "value", 5, True),
    ("IntSliderModel", "disabled", True, "true"),
    ("IntSliderModel", "_view_name", "IntSliderView", "HTMLView"),
    ("IntSliderModel", "_view_module", CONTROLS, "anywidget"),
    ("IntSliderModel", "_model_name", "IntSliderModel", "HTMLModel"),
    ("IntSliderModel", "_model_module", CONTROLS, "https://evil.example/x.js"),
    ("IntSliderModel", "_model_module_version", "2.0.0", "2<img src=x onerror=alert(1)>"),
    ("IntSliderModel", "_view_module_version", "^2.0.0", "*, <img src=x>"),
    # d3-format throws on these, and what is thrown is shown as HTML
    ("IntSliderModel", "readout_format", "d", "<img src=x onerror=alert(1)>"),
    ("IntSliderModel", "readout_format", "*^8.1%", "\U0001f600<d"),
    ("FloatSliderModel", "readout_format", "$,.2f", "0" * 9 + "d"),
    ("FloatsInputModel", "format", ".1f", ".1f<b>"),
    ("IntSliderModel", "description_allow_html", False, True),
    ("ButtonModel", "button_style", "danger", "constructor"),
    ("ButtonModel", "icon", "spinner spin", "x<img"),
    ("ToggleButtonModel", "icon", "check", "check\u00a0<img>"),
    ("ToggleButtonsModel", "icons", ["check", ""], ["check jp-Dialog"]),
    ("TagsInputModel", "tag_style", "info", "constructor"),
    ("TagsInputModel", "value", ["a<b>", "c"], [{"toString": "x"}]),
    ("DropdownModel", "_options_labels", ["<b>", "two"], "one"),
    ("SelectMultipleModel", "index", [0, 2], ["0"]),
    ("ColorPickerModel", "value", "#ff0000", "url(http://evil.example/)#fff"),
    ("ColorsInputModel", "value", ["red"], ["red; background: url(x)"]),
    ("DatePickerModel", "value", {"year": 2025, "month": 1, "date": 2}, {"__proto__": 1}),
    ("DatePickerModel", "step", "any", "all"),
    ("ImageModel", "format", "png", "url"),
    ("ImageModel", "format", "jpeg", "svg+xml"),
    ("VideoModel", "format", "mp4", "url"),
    ("VideoModel", "format", "webm", "x-mpegurl"),
    ("AudioModel", "format", "wav", "url"),
    ("ImageModel", "width", "300px", "1 onerror=alert(1)"),
    ("LayoutModel", "width", "calc(100% - 2px)", "url(http://evil.example/)"),
    ("LayoutModel", "border_top", "1px solid red", "1px solid url(//evil.example)"),
    ("LayoutModel", "border_top", "1px solid red", ["url(http://evil.example/)"]),
    ("LayoutModel", "margin", "0 2px", "-1000px 0 0 0"),
    ("LayoutModel", "margin", "0 2px", "calc(0px - 1000px)"),
    ("LayoutModel", "left", None, "-300px"),
    ("LayoutModel", "top", None, "0"),
    ("LayoutModel", "display", "flex", "flex; position: fixed"),
    ("LayoutModel", "grid_template_areas", '"a b"\n"c d"', '"a" url(x)'),
    ("LayoutModel", "grid_area", "1 / 1 / 2 / 2", "\\75rl(x)"),
    ("LayoutModel", "object_fit", "contain", "image-set('x')"),
    ("ProgressStyleModel", "bar_color", "#00f", "url(http://evil.example/)"),
    ("ButtonStyleModel", "button_color", "lightgreen", "image(url(x))"),
    ("LabelStyleModel", "background", "linear-gradient(red, blue)", "URL(data:x)"),
    ("LabelStyleModel", "background", "red", "attr(title)"),
    ("TextStyleModel", "font_size", "12px", 12),
    ("OutputModel", "msg_id", "now", "another cell's"),
    ("OutputModel", "msg_id", "", ["now"]),
    ("BoxModel", "layout", "IPY_MODEL_layout1", "IPY_MODEL_slider1"),
    ("IntSliderModel", "layout", "IPY_MODEL_layout1", "IPY_MODEL_unknown1"),
    ("IntSliderModel", "style", "IPY_MODEL_style1", "IPY_MODEL_html1"),
    ("IntSliderModel", "style", "IPY_MODEL_style1", {"x": "IPY_MODEL_style1"}),
]
ALIVE = {
    "layout1": "LayoutModel",
    "style1": "SliderStyleModel",
    "slider1": "IntSliderModel",
    "slider2": "IntSliderModel",
    "text1": "TextModel",
    "label1": "LabelModel",
    "html1": "HTMLModel",
}


@pytest.mark.parametrize(("name", "trait", "good", "bad"), VALUES)
def test_a_value_passes_as_it_is_or_not_at_all(name: str, trait: str, good: Any, bad: Any) -> None:
    context = around(**ALIVE)
    assert shown(name, context, **{trait: good}) == {trait: good}
    assert context.notes == []
    assert shown(name, context, **{trait: bad}) == {}
    reference = isinstance(bad, str) and bad.startswith("IPY_MODEL_")
    assert [name in note and "trusted" in note for note in context.notes] == [True] * (
        not reference
    )


def test_what_no_rule_names_is_dropped() -> None:
    context = around()
    state = {"value": 1, "_esm": "export default 1", "__proto__": {"x": 1}, "constructor": {}}
    assert safe_state(model("IntSliderModel"), state, [], [], context).values == {"value": 1}
    assert context.notes == []


@pytest.mark.parametrize("name", ["HTMLModel", "HTMLMathModel"])
def test_html_is_sanitised(name: str) -> None:
    value = '<b>bold</b> <i style="color: red">red</i>'
    assert shown(name, value=value) == {"value": value}
    attack = '<img src="http://evil.example/?x" onerror="alert(1)"><script>alert(1)</script>'
    assert shown(name, value=f"<b>ok</b>{attack}<style>*{{}}</style>") == {
        "value": "<b>ok</b><img>"
    }
    context = around()
    assert shown(name, context, value="<div>" * 1000) == {}
    assert "nested too deeply" in context.notes[0]


@pytest.mark.parametrize(("name", "trait"), [("LabelModel", "value"), ("TextModel", "description")])
def test_formulas_are_tamed_where_the_page_typesets_them(name: str, trait: str) -> None:
    assert shown(name, **{trait: "$x^2$ a<b"}) == {trait: "$x^2$ a<b"}
    tamed = shown(name, **{trait: r"$\href{javascript:alert(1)}{x}$"})[trait]
    assert r"\href" not in tamed
    assert "href" in tamed


def test_text_that_is_shown_as_text_is_not_touched() -> None:
    text = r"a<b> \href{x} &amp;"
    assert shown("TextModel", value=text, placeholder=text)["value"] == text


def test_only_ipywidgets_own_class_is_set() -> None:
    assert shown("VBoxModel", _dom_classes=["widget-interact"]) == {
        "_dom_classes": ["widget-interact"]
    }
    classes = ["jp-Dialog", "lm-mod-hidden", {}, "a b"]
    assert shown("VBoxModel", _dom_classes=classes) == {"_dom_classes": []}


def test_children_that_are_not_shown_are_left_out() -> None:
    children = ["slider1", "unknown1", "layout1", "html1"]
    state = {"children": [f"IPY_MODEL_{child}" for child in children] + [{"x": 1}, None]}
    assert shown("VBoxModel", around(**ALIVE), **state) == {
        "children": ["IPY_MODEL_slider1", "IPY_MODEL_html1"]
    }


# --- binary values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("ImageModel", PNG),
        ("ImageModel", b""),
        ("AudioModel", b"RIFF1234WAVE"),
        ("VideoModel", b"\0\0\0\x18ftypmp42"),
    ],
)
def test_pictures_and_sounds_pass_when_they_are_such(name: str, good: bytes) -> None:
    assert of_binary(name, good) == State({}, [["value"]], [good])
    for bad in (
        b"http://evil.example/?secret",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"#EXTM3U\nhttp://evil.example/",
        b"<!DOCTYPE html>",
    ):
        assert of_binary(name, bad) == State({}, [], [])


@pytest.mark.parametrize(
    "path",
    [
        ["format"],
        ["__proto__", "value"],
        ["constructor", "prototype", "value"],
        ["value", "value"],
        ["value", 0],
        "value",
        [],
        None,
        {"0": "value"},
    ],
)
def test_binary_values_go_nowhere_else(path: Any) -> None:
    assert of_binary("ImageModel", PNG, path if path is not None else [None]) == State({}, [], [])


def test_binary_values_cannot_stand_for_text_nor_text_for_them() -> None:
    assert of_binary("HTMLModel", b"<script>alert(1)</script>") == State({}, [], [])
    assert shown("ImageModel", value="http://evil.example/") == {}


def test_buffers_stay_with_their_paths() -> None:
    state = safe_state(model("ImageModel"), {}, [["format"], ["value"]], [b"url", PNG], around())
    assert (state.paths, state.buffers) == ([["value"]], [PNG])


# --- links --------------------------------------------------------------------------------------


def link(kind: str, source: list[Any], target: list[Any]) -> tuple[dict[str, Any], list[str]]:
    context = around(**ALIVE)
    ends = {
        "source": [f"IPY_MODEL_{source[0]}", source[1]],
        "target": [f"IPY_MODEL_{target[0]}", target[1]],
    }
    return shown(kind, context, **ends), context.notes


@pytest.mark.parametrize("kind", ["LinkModel", "DirectionalLinkModel"])
def test_sliders_can_be_linked(kind: str) -> None:
    assert link(kind, ["slider1", "value"], ["slider2", "max"])[0].keys() == {"source", "target"}


def test_a_number_can_be_shown_in_a_label_in_one_direction() -> None:
    assert link("DirectionalLinkModel", ["slider1", "value"], ["label1", "value"])[0]
    assert not link("LinkModel", ["slider1", "value"], ["label1", "value"])[0]


@pytest.mark.parametrize("kind", ["LinkModel", "DirectionalLinkModel"])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        (["text1", "value"], ["html1", "value"]),
        (["text1", "value"], ["label1", "value"]),
        (["text1", "placeholder"], ["html1", "value"]),
        (["label1", "value"], ["slider1", "value"]),
        (["html1", "value"], ["slider1", "value"]),
        (["text1", "value"], ["slider1", "readout_format"]),
        (["text1", "value"], ["text1", "_view_module"]),
        (["text1", "value"], ["text1", "__proto__"]),
        (["text1", "unknown"], ["html1", "value"]),
        (["text1", "value"], ["unknown1", "value"]),
        (["layout1", "width"], ["layout1", "width"]),
    ],
)
def test_a_link_cannot_copy_past_the_rules(kind: str, source: Any, target: Any) -> None:
    values, _ = link(kind, source, target)
    assert values == {}


def test_one_end_of_a_link_is_not_changed_alone() -> None:
    context = around(**ALIVE)
    assert shown("LinkModel", context, target=["IPY_MODEL_html1", "value"]) == {}
    assert "copy past the rules" in context.notes[0]


# --- Output widgets -----------------------------------------------------------------------------


def test_outputs_in_a_state_are_judged_like_displays() -> None:
    view = "application/vnd.jupyter.widget-view+json"
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["a\x1b[31m\n", "b\x1b]0;title\x07"]},
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["\x1b]52;c;x\x07t"]},
        {
            "output_type": "display_data",
            "data": {"text/html": "<b>ok</b><script>1</script>", "application/javascript": "1"},
            "metadata": {"isolated": True, "mxc": {"note": "blocked"}},
            "transient": {"display_id": "x"},
        },
        {
            "output_type": "execute_result",
            "execution_count": 3,
            "data": {"text/plain": "1", view: {"model_id": "slider1"}},
            "metadata": {},
        },
        {"output_type": "display_data", "data": {"text/plain": "2", view: {"model_id": "gone1"}}},
        {"output_type": "made_up", "data": {"text/html": "<b>"}},
        {"output_type": "display_data", "data": "text/html"},
        "text",
    ]
    context = around(**ALIVE)
    assert shown("OutputModel", context, outputs=outputs)["outputs"] == [
        {"output_type": "stream", "name": "stdout", "text": "a\x1b[31m\nb"},
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]},
        {"output_type": "display_data", "data": {"text/html": "<b>ok</b>"}, "metadata": {}},
        {
            "output_type": "execute_result",
            "data": {"text/plain": "1", view: {"model_id": "slider1"}},
            "metadata": {},
            "execution_count": 3,
        },
        {"output_type": "display_data", "data": {"text/plain": "2"}, "metadata": {}},
    ]
    assert any("application/javascript" in note for note in context.notes)


def test_a_figure_in_a_state_is_drawn_and_comes_back_as_it_is() -> None:
    plotly = "application/vnd.plotly.v1+json"
    data = {plotly: {"data": [{"y": [1, 2]}]}, "text/plain": "Figure"}
    output = {"output_type": "display_data", "metadata": {}, "data": data}

    def outputs(given: dict[str, Any], level: int) -> tuple[list[Any], list[str]]:
        context = around(level)
        context.library = lambda name: pack(name)
        return shown("OutputModel", context, outputs=[given])["outputs"], context.notes

    (drawn,), notes = outputs(output, FRAME)
    assert is_frame(drawn["data"]["text/html"])
    assert notes == []
    assert outputs(drawn, FRAME) == ([drawn], [])
    (left,), notes = outputs(drawn, SAFE)
    assert left["data"] == {"text/plain": "Figure"}
    assert any("output level 'frame' shows it" in note for note in notes)


# --- anything -----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.sampled_from(["<script>", "url(x)", "IPY_MODEL_html1", "value", "display_data", "-1px"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5)
            | st.sampled_from(
                ["__proto__", "output_type", "data", "text/html", "metadata", "year"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
TRAITS = sorted({trait for known in _MODELS.values() for trait in known.rules})


@given(
    st.sampled_from(sorted(_MODELS.values(), key=lambda known: known.name)),
    st.dictionaries(st.sampled_from(TRAITS), JSON, max_size=6),
    st.lists(JSON, max_size=3),
    st.lists(st.binary(max_size=20), max_size=3),
    st.sampled_from([SAFE, FRAME]),
)
def test_any_state_is_judged_without_an_error(
    known: Model, state: dict[str, Any], paths: list[Any], buffers: list[bytes], level: int
) -> None:
    context = around(level, **ALIVE)
    judged = safe_state(known, state, paths, buffers, context)
    assert judged.values.keys() <= known.rules.keys() & state.keys()
    assert len(judged.paths) == len(judged.buffers)
    assert all(path == ["value"] for path in judged.paths)
    json.dumps(judged.values)
    if known.kinds.get("value") == "html" and judged.values.get("value"):
        assert sanitize_html(judged.values["value"]) == judged.values["value"]
    again = safe_state(known, judged.values, judged.paths, judged.buffers, context)
    if level == SAFE:
        assert again.values.keys() == judged.values.keys()
