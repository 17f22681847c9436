"""Which comm messages of a child pass, and as what. No kernel runs here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.jupyter.comms import Checked, Comms
from mxc_kernel.policy import HtmlLevel

WIDGET, CONTROL = "jupyter.widget", "jupyter.widget.control"
CONTROLS = "@jupyter-widgets/controls"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
NOW = "request now"


def state_of(name: str, module: str = CONTROLS, **state: Any) -> dict[str, Any]:
    names = {"_model_module": module, "_model_name": f"{name}Model", "_view_name": f"{name}View"}
    return {**names, "_model_module_version": "2.0.0", **state}


class Child:
    """Says things; every comm message goes through the check."""

    def __init__(self, level: HtmlLevel = HtmlLevel.SAFE) -> None:
        self.comms = Comms()
        self.level = level

    def say(
        self, msg_type: str, comm: Any, data: Any, buffers: list[bytes] | None = None, **more: Any
    ) -> Checked:
        content = {"comm_id": comm, "data": data, **more}
        return self.comms.check(msg_type, content, buffers or [], self.level, NOW)

    def open(self, comm: Any, state: Any, **more: Any) -> Checked:
        data = {"state": state, "buffer_paths": []}
        return self.say("comm_open", comm, data, **{"target_name": WIDGET, **more})

    def update(self, comm: Any, method: str = "update", **state: Any) -> Checked:
        data = {"method": method, "state": state, "buffer_paths": []}
        return self.say("comm_msg", comm, data)


@pytest.fixture
def child() -> Child:
    """A child with a slider, a text and an Output widget."""
    made = Child()
    assert made.open("slider1", state_of("IntSlider", value=1)).content
    assert made.open("text1", state_of("Text", value="")).content
    assert made.open("html1", state_of("HTML", value="")).content
    assert made.open("out1", state_of("Output", "@jupyter-widgets/output", msg_id="")).content
    return made


def test_a_widget_opens_and_changes(child: Child) -> None:
    opened = child.open("slider2", state_of("IntSlider", value=3))
    assert opened == Checked(
        {
            "comm_id": "slider2",
            "target_name": WIDGET,
            "data": {"state": state_of("IntSlider", value=3), "buffer_paths": []},
        },
        (),
        [],
    )
    assert child.comms.shows("slider2")
    changed = child.update("slider2", value=4)
    assert changed.content == {
        "comm_id": "slider2",
        "data": {"method": "update", "state": {"value": 4}, "buffer_paths": []},
    }
    assert child.update("slider2", "echo_update", value=4).content
    closed = child.say("comm_close", "slider2", {"x": 1})
    assert closed.content == {"comm_id": "slider2", "data": {}}
    assert not child.comms.shows("slider2")
    assert child.update("slider2", value=5) == Checked(None)


def test_a_later_change_is_judged_like_the_first_state(child: Child) -> None:
    changed = child.update("html1", value="<b>x</b><script>alert(1)</script>", _view_name="AnyView")
    assert changed.content is not None
    assert changed.content["data"]["state"] == {"value": "<b>x</b>"}
    assert "HTMLModel _view_name" in changed.notes[0]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (state_of("Any", "anywidget", _esm="export default 1"), "its own JavaScript"),
        (state_of("MPLCanvas", "jupyter-matplotlib"), "not one of ipywidgets' own"),
        ({}, "not one of ipywidgets' own"),
        (None, "not one of ipywidgets' own"),
        ([], "not one of ipywidgets' own"),
    ],
)
def test_other_widgets_are_refused_with_a_note(child: Child, state: Any, reason: str) -> None:
    opened = child.open("other1", state)
    assert opened.content is None
    assert reason in opened.notes[0]
    assert not child.comms.shows("other1")
    assert child.update("other1", value=1) == Checked(None)
    child.level = HtmlLevel.TRUSTED
    assert child.open("other1", state).content


@pytest.mark.parametrize("target", [CONTROL, "hv-extension-comm", "", None, ["jupyter.widget"]])
def test_other_targets_are_refused_with_a_note(child: Child, target: Any) -> None:
    opened = child.open("slider2", state_of("IntSlider"), target_name=target)
    assert opened.content is None
    assert "known harmless targets" in opened.notes[0]


def test_nothing_passes_that_no_rule_names(child: Child) -> None:
    # Where require.js is, a frontend loads the module that a comm_open names.
    opened = child.say(
        "comm_open",
        "slider2",
        {"state": state_of("IntSlider"), "buffer_paths": [], "made_up": 1},
        target_name=WIDGET,
        target_module="https://evil.example/x.js",
        made_up=1,
    )
    assert opened.content is not None
    assert opened.content.keys() == {"comm_id", "target_name", "data"}
    assert opened.content["data"].keys() == {"state", "buffer_paths"}


def test_an_id_stays_what_it_was(child: Child) -> None:
    assert child.open("slider1", state_of("HTML")) == Checked(None)
    child.say("comm_close", "slider1", {})
    assert child.open("slider1", state_of("HTML")) == Checked(None)
    assert child.open("slider1", state_of("IntSlider")).content


@pytest.mark.parametrize(
    "comm",
    ["constructor", "__proto__", "toString", "", "a" * 65 + "1", "a b1", "a1\n", 1, None, {}],
)
def test_odd_ids_are_refused(child: Child, comm: Any) -> None:
    assert child.open(comm, state_of("IntSlider")) == Checked(None)


@pytest.mark.parametrize("method", ["request_state", "update_states", "made_up", None, []])
def test_other_methods_are_refused(child: Child, method: Any) -> None:
    data = {"method": method, "state": {"value": 1}, "states": {}, "buffer_paths": []}
    assert child.say("comm_msg", "slider1", data) == Checked(None)


@pytest.mark.parametrize("data", [None, [], "update", {"method": "update", "state": [1]}])
def test_data_of_another_shape_is_refused(child: Child, data: Any) -> None:
    assert child.say("comm_msg", "slider1", data) == Checked(None)


def test_a_cell_cannot_take_the_keys(child: Child) -> None:
    def custom(content: Any) -> Checked:
        return child.say("comm_msg", "text1", {"method": "custom", "content": content})

    assert custom({"do": "blur", "x": 1}).content == {
        "comm_id": "text1",
        "data": {"method": "custom", "content": {"do": "blur"}},
    }
    assert custom({"do": "focus"}).content is None
    assert "the keys that you type" in custom({"do": "focus"}).notes[0]
    assert custom({"event": "click"}) == Checked(None)
    assert custom(None) == Checked(None)


def test_buffers_that_may_not_pass_are_taken_out(child: Child) -> None:
    data = {"state": state_of("Image", format="png"), "buffer_paths": [["format"], ["value"]]}
    opened = child.say("comm_open", "image1", data, [b"url", PNG, b"more"], target_name=WIDGET)
    assert opened.content is not None
    assert opened.content["data"]["buffer_paths"] == [["value"]]
    assert opened.buffers == [PNG]


# --- Output widgets -----------------------------------------------------------------------------


def test_an_output_widget_takes_the_request_being_worked_on_and_no_other(child: Child) -> None:
    assert child.update("out1", msg_id="another").content is None
    taken = child.update("out1", msg_id=NOW)
    assert taken.content is not None
    assert taken.content["data"]["state"] == {"msg_id": NOW}
    released = child.comms.release(NOW)
    assert [content["data"]["state"] for content in released] == [{"msg_id": ""}]
    assert child.comms.release(NOW) == []


def test_nothing_is_released_that_was_given_back(child: Child) -> None:
    child.update("out1", msg_id=NOW)
    assert child.update("out1", msg_id="").content
    assert child.comms.release(NOW) == []
    child.update("out1", msg_id=NOW)
    child.say("comm_close", "out1", {})
    assert child.comms.release(NOW) == []


def test_outputs_are_not_echoed(child: Child) -> None:
    outputs = [{"output_type": "stream", "name": "stdout", "text": "x"}]
    assert child.update("out1", outputs=outputs).content
    assert child.update("out1", "echo_update", outputs=outputs).content is None


# --- the frontend's comms -----------------------------------------------------------------------


def all_states(child: Child, states: Any, paths: Any = (), buffers: Any = ()) -> Checked:
    data = {"method": "update_states", "states": states, "buffer_paths": list(paths)}
    return child.say("comm_msg", "control1", data, list(buffers))


def entry(name: str, module: str = CONTROLS, **state: Any) -> dict[str, Any]:
    return {
        "model_name": f"{name}Model",
        "model_module": module,
        "model_module_version": "2.0.0",
        "state": state_of(name, module, **state),
    }


def test_a_reloaded_page_gets_the_states_of_what_lives(child: Child) -> None:
    assert all_states(child, {}) == Checked(None)  # no frontend has asked
    child.comms.seen_from_frontend("comm_open", {"comm_id": "control1", "target_name": CONTROL})
    child.open("image1", state_of("Image"))
    states = {
        "slider1": entry("IntSlider", value=5),
        "html1": entry("HTML", value="<b>x</b><script>1</script>"),
        "text1": entry("HTML", value="another model"),
        "image1": entry("Image", format="png"),
        "unknown1": entry("IntSlider", value=5),
        "constructor": entry("IntSlider", value=5),
    }
    states["slider1"]["model_module"] = "https://evil.example/x.js"
    paths = [["unknown1", "value"], ["image1", "value"], ["html1", "value"], [], 1]
    checked = all_states(child, states, paths, [b"a", PNG, b"<script>", b"c", b"d"])
    assert checked.content is not None
    data = checked.content["data"]
    assert data["states"] == {
        "slider1": entry("IntSlider", value=5),
        "html1": entry("HTML", value="<b>x</b>"),
        "image1": entry("Image", format="png"),
    }
    assert (data["buffer_paths"], checked.buffers) == ([["image1", "value"]], [PNG])


def test_a_page_reloaded_in_the_middle_still_takes_the_output(child: Child) -> None:
    child.comms.seen_from_frontend("comm_open", {"comm_id": "control1", "target_name": CONTROL})
    child.comms.check(
        "comm_msg",
        {"comm_id": "out1", "data": {"method": "update", "state": {"msg_id": "long cell"}}},
        [],
        HtmlLevel.SAFE,
        "long cell",
    )

    def taken(msg_id: str) -> Any:
        states = {"out1": entry("Output", "@jupyter-widgets/output", msg_id=msg_id)}
        content = all_states(child, states).content
        assert content is not None
        return content["data"]["states"]["out1"]["state"].get("msg_id")

    assert taken("long cell") == "long cell"
    assert taken(NOW) is None


def test_a_widget_that_a_frontend_made_is_known(child: Child) -> None:
    opened = {
        "comm_id": "button1",
        "target_name": WIDGET,
        "data": {"state": state_of("ControllerButton")},
    }
    child.comms.seen_from_frontend("comm_open", opened)
    assert child.update("button1", value=0.5).content
    child.comms.seen_from_frontend("comm_close", {"comm_id": "button1"})
    assert child.update("button1", value=0.5) == Checked(None)


def test_comms_of_others_cannot_be_used_or_closed(child: Child) -> None:
    opened = {"comm_id": "theirs1", "target_name": "some.extension", "data": {}}
    child.comms.seen_from_frontend("comm_open", opened)
    assert child.say("comm_msg", "theirs1", {"method": "update", "state": {}}) == Checked(None)
    assert child.say("comm_close", "theirs1", {}) == Checked(None)
    child.comms.seen_from_frontend("comm_open", {"comm_id": "control1", "target_name": CONTROL})
    assert child.open("control1", state_of("IntSlider")) == Checked(None)
    assert child.open("theirs1", state_of("IntSlider")) == Checked(None)


def test_what_a_frontend_has_is_known_at_the_end(child: Child) -> None:
    child.open("other1", state_of("Any", "anywidget"))
    child.comms.seen_from_frontend("comm_open", {"comm_id": "control1", "target_name": CONTROL})
    child.comms.seen_from_frontend("comm_open", {"comm_id": "theirs", "target_name": "extension"})
    child.comms.seen_from_frontend("comm_open", {"comm_id": "closed", "target_name": "extension"})
    child.comms.seen_from_frontend("comm_close", {"comm_id": "closed"})
    assert child.comms.alive() == ["control1", "html1", "out1", "slider1", "text1", "theirs"]


# --- levels -------------------------------------------------------------------------------------


def test_at_text_no_widget_passes() -> None:
    child = Child(HtmlLevel.TEXT)
    opened = child.open("slider1", state_of("IntSlider"))
    assert opened.content is None
    assert "only plain text" in opened.notes[0]
    assert "'safe'" in opened.notes[0]
    assert child.update("slider1", value=1) == Checked(None)
    assert not child.comms.shows("slider1")


def test_at_trusted_everything_passes_as_it_is() -> None:
    child = Child(HtmlLevel.TRUSTED)
    content = {"comm_id": "a", "target_name": "x", "data": {"_esm": "1"}, "target_module": "y"}
    assert child.comms.check("comm_open", content, [b"x"], child.level) == Checked(
        content, (), [b"x"]
    )


def test_what_was_opened_at_trusted_is_judged_once_the_level_is_narrowed() -> None:
    child = Child(HtmlLevel.TRUSTED)
    child.open("html1", state_of("HTML"))
    child.open("any1", state_of("Any", "anywidget"))
    child.level = HtmlLevel.SAFE
    changed = child.update("html1", value="<b>x</b><script>1</script>").content
    assert changed is not None
    assert changed["data"]["state"] == {"value": "<b>x</b>"}
    assert child.update("any1", value=1) == Checked(None)


def test_html_is_redacted_as_it_reads() -> None:
    child = Child()
    child.comms = Comms(html=lambda text: text.replace("sec<i>ret</i>", "[redacted]"))
    opened = child.open("html1", state_of("HTML", value="a sec<i>ret</i>"))
    assert opened.content is not None
    assert opened.content["data"]["state"]["value"] == "a [redacted]"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=10)
    | st.sampled_from(["slider1", "control1", "update", "value", CONTROL, WIDGET, CONTROLS]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=5)
            | st.sampled_from(
                ["comm_id", "data", "state", "states", "slider1", "method", "__proto__"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["comm_open", "comm_msg", "comm_close"]),
            st.dictionaries(
                st.sampled_from(["comm_id", "data", "target_name", "target_module", "x"]), JSON
            ),
            st.lists(st.binary(max_size=10), max_size=2),
        ),
        max_size=5,
    ),
    st.sampled_from([HtmlLevel.TEXT, HtmlLevel.SAFE, HtmlLevel.FRAME]),
)
def test_any_message_is_judged_without_an_error(messages: Any, level: HtmlLevel) -> None:
    child = Child()
    child.open("slider1", state_of("IntSlider"))
    child.comms.seen_from_frontend("comm_open", {"comm_id": "control1", "target_name": CONTROL})
    for msg_type, content, buffers in messages:
        child.comms.seen_from_frontend(msg_type, content)
        checked = child.comms.check(msg_type, content, buffers, level, NOW)
        if checked.content is not None:
            assert checked.content.keys() <= {"comm_id", "target_name", "data"}
            json.dumps(checked.content)
