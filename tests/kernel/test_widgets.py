"""ipywidgets in the sandbox: what works, and what a hostile cell cannot do with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import TIMEOUT, Kernel, Result, Start
from .test_hostile_child import FORGE

VIEW = "application/vnd.jupyter.widget-view+json"
COMMS = ("comm_open", "comm_msg", "comm_close")
CONTROLS = "@jupyter-widgets/controls"


@pytest.fixture
def widgets(kernel: Kernel) -> Kernel:
    """A kernel in which ipywidgets is imported."""
    assert kernel.run("import ipywidgets as w; from IPython.display import display").status == "ok"
    return kernel


def states(result: Result | list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the state of each widget after the messages, by its id, as a frontend has it."""
    messages = result.messages if isinstance(result, Result) else result
    found: dict[str, dict[str, Any]] = {}
    for message in messages:
        content = message["content"]
        if message["msg_type"] in COMMS and "state" in content["data"]:
            found.setdefault(content["comm_id"], {}).update(content["data"]["state"])
    return found


def state(result: Result | list[dict[str, Any]], model: str) -> dict[str, Any]:
    """Return the state of the only widget of a model."""
    (found,) = [s for s in states(result).values() if s.get("_model_name") == model]
    return found


def views(result: Result) -> list[dict[str, Any]]:
    """Return the MIME bundles that the cell itself shows."""
    shown = result.of_type("display_data", "execute_result")
    ours = [m for m in shown if "note" in m["content"]["metadata"].get("mxc", {})]
    return [m["content"]["data"] for m in shown if m not in ours]


def notes(result: Result) -> str:
    """Return what the kernel itself says about a cell."""
    shown = [m["content"] for m in result.of_type("display_data")]
    ours = [c["data"]["text/plain"] for c in shown if "note" in c["metadata"].get("mxc", {})]
    return "\n".join(ours) + result.stream("stderr")


def tell(kernel: Kernel, comm: str, data: dict[str, Any], msg_type: str = "comm_msg") -> Any:
    """Send a comm message as a frontend does, and return everything it brings."""
    content = {"comm_id": comm, "data": data}
    if msg_type == "comm_open":
        content["target_name"] = "jupyter.widget.control"
    metadata = {"version": "1.0.0"} if msg_type == "comm_open" else {}
    message = kernel.client.session.msg(msg_type, content, metadata=metadata)
    kernel.client.shell_channel.send(message)
    brought: list[dict[str, Any]] = []
    while True:
        received = kernel.client.get_iopub_msg(timeout=TIMEOUT)
        if received["parent_header"].get("msg_id") == message["header"]["msg_id"]:
            brought.append(received)
            if received["content"].get("execution_state") == "idle":
                return brought


def id_of(result: Result, model: str) -> str:
    (found,) = [i for i, s in states(result).items() if s.get("_model_name") == model]
    return found


# --- what works ---------------------------------------------------------------------------------


def test_a_slider_talks_both_ways(widgets: Kernel) -> None:
    shown = widgets.run(
        "slider = w.IntSlider(value=3, description='$n$')\n"
        "slider.observe(lambda change: print('now', change['new']), 'value')\n"
        "slider"
    )
    assert notes(shown) == ""
    assert state(shown, "IntSliderModel")["value"] == 3
    slider = id_of(shown, "IntSliderModel")
    (view,) = views(shown)
    assert view[VIEW]["model_id"] == slider
    brought = tell(widgets, slider, {"method": "update", "state": {"value": 7}})
    printed = [m["content"]["text"] for m in brought if m["msg_type"] == "stream"]
    assert printed == ["now 7\n"]
    changed = widgets.run("slider.value = 9")
    assert states(changed)[slider] == {"value": 9}
    assert widgets.run("slider.close()").of_type("comm_close")


def test_a_button_is_pressed(widgets: Kernel) -> None:
    shown = widgets.run(
        "button = w.Button(description='Go', icon='check', button_style='success')\n"
        "button.on_click(lambda b: print('pressed'))\nbutton"
    )
    assert notes(shown) == ""
    assert state(shown, "ButtonModel")["icon"] == "check"
    click = {"method": "custom", "content": {"event": "click"}}
    brought = tell(widgets, id_of(shown, "ButtonModel"), click)
    assert [m["content"]["text"] for m in brought if m["msg_type"] == "stream"] == ["pressed\n"]


def test_interact_shows_its_result_in_an_output_widget(widgets: Kernel) -> None:
    shown = widgets.run("@w.interact(x=(0, 10), word=['a', 'b'])\ndef f(x, word): print(x, word)")
    assert notes(shown) == ""
    box = state(shown, "VBoxModel")
    assert box["_dom_classes"] == ["widget-interact"]
    opened = states(shown)
    names = [opened[child[len("IPY_MODEL_") :]]["_model_name"] for child in box["children"]]
    assert names == ["IntSliderModel", "DropdownModel", "OutputModel"]
    taken = [
        m["content"]["data"]["state"]["msg_id"]
        for m in shown.of_type("comm_msg")
        if "msg_id" in m["content"]["data"]["state"]
    ]
    assert taken == [shown.reply["parent_header"]["msg_id"], ""]
    brought = tell(
        widgets, id_of(shown, "IntSliderModel"), {"method": "update", "state": {"value": 2}}
    )
    taken = [m["content"]["data"]["state"] for m in brought if m["msg_type"] == "comm_msg"]
    assert {"msg_id": brought[0]["parent_header"]["msg_id"]} in taken


def test_a_progress_bar_of_tqdm_arrives_whole(widgets: Kernel) -> None:
    shown = widgets.run(
        "from tqdm.notebook import tqdm\n"
        "for i in tqdm(range(300), desc='steps', mininterval=0): pass"
    )
    assert notes(shown) == ""
    assert state(shown, "FloatProgressModel")["value"] == 300
    assert state(shown, "FloatProgressModel")["bar_style"] == "success"
    texts = [s["value"] for s in states(shown).values() if s["_model_name"] == "HTMLModel"]
    assert texts[0].split() == ["steps:", "100%"]
    assert texts[1].strip().startswith("300/300")
    assert "&lt;00:00" in texts[1]


def test_layouts_styles_links_and_pictures_pass(widgets: Kernel) -> None:
    shown = widgets.run(
        "a = w.IntSlider(layout=w.Layout(width='50%', border='1px solid red'))\n"
        "a.style.handle_color = 'lightblue'\n"
        "b = w.IntSlider()\n"
        "w.jslink((a, 'value'), (b, 'value'))\n"
        "picture = w.Image(value=b'\\x89PNG\\r\\n\\x1a\\n' + bytes(20), format='png', width=300)\n"
        "w.Tab([w.HBox([a, b]), picture], titles=['one', 'two'])"
    )
    assert notes(shown) == ""
    assert any(s.get("border_top") == "1px solid red" for s in states(shown).values())
    assert any(s.get("handle_color") == "lightblue" for s in states(shown).values())
    assert state(shown, "LinkModel")["source"][1] == "value"
    (picture,) = [m for m in shown.of_type("comm_open") if m["buffers"]]
    assert picture["content"]["data"]["buffer_paths"] == [["value"]]
    assert bytes(picture["buffers"][0]).startswith(b"\x89PNG")


def test_a_reloaded_page_gets_its_widgets_back(widgets: Kernel) -> None:
    shown = widgets.run("h = w.HTML('<b>x</b><script>alert(1)</script>'); s = w.IntSlider(5); h")
    assert tell(widgets, "control-1", {}, "comm_open")
    brought = tell(widgets, "control-1", {"method": "request_states"})
    (reply,) = [m["content"]["data"] for m in brought if m["msg_type"] == "comm_msg"]
    assert reply["method"] == "update_states"
    assert reply["states"].keys() == states(shown).keys()
    assert reply["states"][id_of(shown, "HTMLModel")]["state"]["value"] == "<b>x</b>"
    assert reply["states"][id_of(shown, "IntSliderModel")]["state"]["value"] == 5


def test_widgets_are_closed_with_their_sandbox(widgets: Kernel) -> None:
    opened = widgets.run("a = w.IntSlider()").of_type("comm_open")
    ids = {message["content"]["comm_id"] for message in opened}
    assert len(ids) == 3
    widgets.send("import os; os._exit(1)")

    def all_closed(message: dict[str, Any]) -> bool:
        if message["msg_type"] == "comm_close":
            ids.remove(message["content"]["comm_id"])
        return not ids

    widgets.wait_for(None, all_closed)


# --- what does not ------------------------------------------------------------------------------


def test_html_is_sanitised_at_first_and_later(widgets: Kernel) -> None:
    attack = "<b>x</b><img src=//evil.example/?secret onerror=alert(1)>"
    shown = widgets.run(f"h = w.HTML({attack!r}); h")
    assert state(shown, "HTMLModel")["value"] == "<b>x</b><img>"
    html = id_of(shown, "HTMLModel")
    assert states(widgets.run(f"h.value = 2 * {attack!r}"))[html] == {"value": "<b>x</b><img>" * 2}


FOREIGN = """
import traitlets
class Foreign(w.DOMWidget):
    _model_name = traitlets.Unicode('AnyModel').tag(sync=True)
    _model_module = traitlets.Unicode('anywidget').tag(sync=True)
    _model_module_version = traitlets.Unicode('~0.9.0').tag(sync=True)
    _view_name = traitlets.Unicode('AnyView').tag(sync=True)
    _view_module = traitlets.Unicode('anywidget').tag(sync=True)
    _view_module_version = traitlets.Unicode('~0.9.0').tag(sync=True)
    _esm = traitlets.Unicode('export default {render() { alert(1) }}').tag(sync=True)
foreign = Foreign()
"""


def test_a_widget_with_its_own_code_is_refused_with_a_note(widgets: Kernel) -> None:
    shown = widgets.run(FOREIGN + "display(foreign)\nforeign._esm = 'later'\nforeign")
    assert not any("_esm" in s for s in states(shown).values())
    assert "AnyModel" not in str(shown.of_type(*COMMS))
    assert [set(data) for data in views(shown)] == [{"text/plain"}] * 2
    assert "Foreign(" in views(shown)[0]["text/plain"]
    assert notes(shown).count("AnyModel of anywidget") == 1
    assert "output level 'trusted' shows it" in notes(shown)


def test_in_a_box_the_other_widgets_are_still_shown(widgets: Kernel) -> None:
    shown = widgets.run(FOREIGN + "w.VBox([w.Label('a'), foreign, w.Label('b')])")
    assert len(state(shown, "VBoxModel")["children"]) == 2
    assert VIEW in views(shown)[0]


def with_level(ceiling: Path, level: str) -> Path:
    ceiling.write_text(ceiling.read_text() + f'\n[output]\nhtml = "{level}"\n')
    return ceiling


def test_at_trusted_it_passes(start: Start, ceiling: Path) -> None:
    kernel = start(with_level(ceiling, "trusted"))
    shown = kernel.run("import ipywidgets as w\n" + FOREIGN + "foreign")
    assert "alert(1)" in state(shown, "AnyModel")["_esm"]
    assert VIEW in views(shown)[0]
    assert notes(shown) == ""


def test_at_text_the_text_form_is_shown(start: Start, ceiling: Path) -> None:
    kernel = start(with_level(ceiling, "text"))
    shown = kernel.run("import ipywidgets as w\ns = w.IntSlider(3)\ns.value = 4\ns")
    assert not shown.of_type(*COMMS)
    assert [set(data) for data in views(shown)] == [{"text/plain"}]
    assert shown.value is not None
    assert shown.value.startswith("IntSlider(value=4")
    assert "output level 'safe' shows it" in notes(shown)


def test_outputs_of_an_output_widget_are_made_safe(widgets: Kernel) -> None:
    shown = widgets.run(
        "from IPython.display import HTML, Javascript\n"
        "out = w.Output()\n"
        "out.append_display_data(HTML('<b>x</b><script>alert(1)</script>'))\n"
        "out.append_display_data(Javascript('alert(1)'))\nout"
    )
    first, second = state(shown, "OutputModel")["outputs"]
    assert first["data"]["text/html"] == "<b>x</b>"
    assert "application/javascript" not in second["data"]


HOSTILE = (
    FORGE
    + """
def comm(msg_type, comm_id, data, *buffers, **more):
    header = {'msg_id': 'forged', 'msg_type': msg_type}
    metadata = {'version': '2.1.0'} if msg_type == 'comm_open' else {}
    content = {'comm_id': comm_id, 'data': data, **more}
    parts = [json.dumps(o).encode() for o in (header, parent(), metadata, content)]
    os.write(OUT, frame(IOPUB, *parts, *buffers))
def opened(comm_id, name, buffers=(), paths=(), module='@jupyter-widgets/controls', **state):
    names = {'_model_name': name + 'Model', '_view_name': name + 'View', '_model_module': module}
    data = {'state': {**names, **state}, 'buffer_paths': list(paths)}
    comm('comm_open', comm_id, data, *buffers, target_name='jupyter.widget')
def updated(comm_id, *buffers, paths=(), **state):
    data = {'method': 'update', 'state': state, 'buffer_paths': list(paths)}
    comm('comm_msg', comm_id, data, *buffers)
TARGET = 'jupyter.widget'
TEXT = {'_model_name': 'TextModel', '_model_module': '@jupyter-widgets/controls'}
SCRIPT = {'output_type': 'display_data', 'data': {'text/html': '<script>evil()</script>'}}
"""
)


@pytest.fixture
def hostile(kernel: Kernel) -> Kernel:
    assert kernel.run(HOSTILE).status == "ok"
    return kernel


def test_a_widget_written_by_hand_opens(hostile: Kernel) -> None:
    """The control for all that follows: the forgery itself works."""
    result = hostile.run("opened('w1', 'Text', value='by hand'); updated('w1', value='changed')")
    assert state(result, "TextModel")["value"] == "changed"


ATTACKS = [
    "comm('comm_open', ID, {'evil': 1}, target_name='some.extension')",
    "comm('comm_open', ID, {'state': {'evil': 1}}, target_name='jupyter.widget.control')",
    "opened(ID, 'Any', module='https://evil.example/x.js')",
    "opened(ID, 'HTML', value='<img src=x onerror=evil()>')",
    "opened(ID, 'HTML', [b'<script>evil()</script>'], [['value']])",
    "opened(ID, 'Image', [b'https://evil.example/?x'], [['value']], format='url')",
    "opened(ID, 'Image', [b'evil'], [['__proto__', 'x']])",
    "opened(ID, 'IntSlider', readout_format='<img src=x onerror=evil()>')",
    "opened(ID, 'IntSlider', _view_name='evil', _view_module_version='<b>evil')",
    "opened(ID, 'Text', description='x', description_allow_html='evil')",
    "opened(ID, 'Layout', module='@jupyter-widgets/base', width='url(//evil.example)')",
    "opened(ID, 'VBox', _dom_classes=['evil'], children=['IPY_MODEL_evil1'])",
    "opened(ID, 'Output', module='@jupyter-widgets/output', msg_id='evil')",
    "opened(ID, 'Output', module='@jupyter-widgets/output', outputs=[SCRIPT])",
    "opened(ID, 'Text'); updated(ID, _model_name='evil', evil='evil')",
    "opened(ID, 'HTML'); updated(ID, value='<img src=evil>')",
    "opened(ID, 'Text'); comm('comm_msg', ID, {'method': 'custom', 'content': 'evil'})",
    "comm('comm_msg', 'unknown1', {'method': 'update', 'state': {'value': 'evil'}})",
    "comm('comm_msg', 'unknown1', {'method': 'update_states', 'states': {'evil': {}}})",
    "comm('comm_close', 'unknown1', {'evil': 1})",
    "comm('comm_open', ID, {'state': TEXT, 'evil': 1}, target_name=TARGET)",
    "comm('comm_open', ID, {'state': TEXT}, target_name=TARGET, target_module='evil')",
]


@pytest.mark.parametrize("level", ["safe", "trusted"])
def test_what_a_hostile_comm_message_says_reaches_the_frontend_at_trusted_only(
    start: Start, ceiling: Path, level: str
) -> None:
    kernel = start(with_level(ceiling, level))
    kernel.run(HOSTILE)
    for number, attack in enumerate(ATTACKS):
        # Of an id that was used for something else, nothing would be heard.
        result = kernel.run(f"ID = 'w-{number}'\n{attack}\n'done'")
        assert result.value == "'done'", attack
        arrived = [
            message
            for message in result.of_type(*COMMS)
            if "evil" in str(message["content"])
            or any(b"evil" in bytes(buffer) for buffer in message["buffers"])
        ]
        assert bool(arrived) == (level == "trusted"), attack
    assert kernel.run("'alive'").value == "'alive'"


def test_text_cannot_flow_into_html_in_the_browser(hostile: Kernel) -> None:
    ends = "source=['IPY_MODEL_t1', 'value'], target=['IPY_MODEL_{}', 'value']"
    result = hostile.run(
        "opened('t1', 'Text', value='<img src=x onerror=alert(1)>')\n"
        "opened('t2', 'Text', value='')\nopened('h1', 'HTML', value='')\n"
        f"opened('l1', 'Link', {ends.format('t2')})\n"
        f"opened('l2', 'Link', {ends.format('h1')})\n"
        f"opened('l3', 'DirectionalLink', {ends.format('h1')})\n"
        f"updated('l1', {ends.format('h1')})"
    )
    found = states(result)
    assert found["l1"]["target"] == ["IPY_MODEL_t2", "value"]
    assert "target" not in found["l2"]
    assert "target" not in found["l3"]
    assert "copy past the rules" in notes(result)


def test_the_kernels_words_at_the_end_of_a_cell_are_not_taken(start: Start, ceiling: Path) -> None:
    ceiling.write_text(ceiling.read_text() + '\n[limits]\noutput = "64KiB"\n')
    result = start(ceiling).run(
        "import ipywidgets as w\n"
        "hidden = w.Output()\n"
        "hidden.msg_id = get_ipython().kernel.get_parent()['header']['msg_id']\n"
        "print('x' * 100_000)"
    )
    request = result.reply["parent_header"]["msg_id"]
    order: list[str] = []
    for message in result.messages:
        content = message["content"]
        if message["msg_type"] == "comm_msg" and "msg_id" in content["data"]["state"]:
            order.append(content["data"]["state"]["msg_id"])
        elif "cut here" in str(content):
            order.append("notice")
    assert order[0] == request
    assert order[order.index("") :] == ["", "notice"]


def test_secrets_are_redacted_in_widgets(start: Start, ceiling: Path) -> None:
    secret = "correct-horse-7351-battery"
    kernel = start(ceiling, env={"SERVICE_PASSWORD": secret})
    head, tail = secret[:9], secret[9:]
    shown = kernel.run(
        f"import ipywidgets as w\ns = {head!r} + {tail!r}\nt = w.Text(s)\n"
        f"h = w.HTML({head!r} + '<b>' + {tail!r} + '</b>')\nt.value = 'again ' + s"
    )
    assert "[redacted: " in state(shown, "TextModel")["value"]
    assert "[redacted: " in state(shown, "HTMLModel")["value"]
    assert tail not in str([m["content"] for m in shown.of_type(*COMMS)])
