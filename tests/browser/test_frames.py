"""Figures draw in frames of a real JupyterLab, and nothing in a frame reaches anything outside."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Frame, Page

from mxc_kernel.output.frame import frame
from tests.browser.lab import TIMEOUT, JupyterLab, Notebook, code_cell, new_page
from tests.browser.witness import OtherHost

pytestmark = pytest.mark.timeout(600)
# As plotly 7.1, altair 6.3 and bokeh 3.9 show them in a notebook, and a bare specification.
FIGURES = json.loads((Path(__file__).parents[1] / "data/figures.json").read_text("utf-8"))
DRAWN = {
    "plotly": ".main-svg .scatterlayer path",
    "vegalite": ".vega-embed .mark-rect path",
    "altair": ".vega-embed .mark-rect path",
    "bokeh": "[data-root-id] *",
}
PICTURES = Path(__file__).parents[2] / "build/pictures"  # for a person to look at
# Ways out of a frame, each of which a page without a policy could go.
LOADS = """
<img src="HOST/img"><style>@import url(HOST/import);</style>
<p style="background:url(HOST/style)">x</p>
<iframe src="HOST/iframe"></iframe><object data="HOST/object"></object><embed src="HOST/embed">
<video src="HOST/video" poster="HOST/poster"></video>
<svg><image href="HOST/image"/></svg>
<script>
  const attempt = way => { try { way(); } catch {} };
  attempt(() => fetch('HOST/fetch', {mode: 'no-cors'}).catch(() => {}));
  attempt(() => navigator.sendBeacon('HOST/beacon', 'x'));
  attempt(() => new WebSocket('HOST/socket'.replace('http', 'ws')));
  attempt(() => new EventSource('HOST/events'));
  attempt(() => new Worker('HOST/worker'));
  attempt(() => new Worker(URL.createObjectURL(new Blob([`fetch('HOST/blob')`]))));
  attempt(() => import('HOST/module').catch(() => {}));
  attempt(() => { new Image().src = 'HOST/created'; });
  // Written as markup these would be seen, and the whole page refused.
  const add = (name, given) => document.body.append(
      Object.assign(document.createElement(name), given));
  attempt(() => add('script', {src: 'HOST/script'}));
  attempt(() => add('link', {rel: 'stylesheet', href: 'HOST/link'}));
  attempt(() => add('link', {rel: 'prefetch', href: 'HOST/prefetch'}));
  attempt(() => add('link', {rel: 'dns-prefetch', href: 'HOST/resolved'}));
</script>
"""
LEAVES = """
<iframe srcdoc="<script>location='HOST/srcdoc'</script>"></iframe>
<form id=f action="HOST/form" method=post></form>
<script>
  attempt(() => open('HOST/popup'));
  attempt(() => { top.location = 'HOST/top'; });
  attempt(() => { parent.location = 'HOST/parent'; });
  attempt(() => parent.document.body.append('x'));
  attempt(() => document.cookie = 'a=b');
  attempt(() => localStorage.setItem('a', 'b'));
  attempt(() => f.submit());
  attempt(() => add('meta', {httpEquiv: 'refresh', content: '0;url=HOST/refresh'}));
  top.postMessage('it ran', '*');  // the page hears it, and nothing in it listens
  setTimeout(() => attempt(() => { location = 'HOST/location'; }));
</script>
"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = new_page(browser)
    yield page
    page.close()


def shows(*bundles: dict[str, Any]) -> str:
    lines = [f"display(json.loads({json.dumps(bundle)!r}), raw=True)" for bundle in bundles]
    return "\n".join(["import json", *lines])


def inner_frames(page: Page) -> list[Frame]:
    return [each for each in page.frames if each.parent_frame and each.parent_frame.parent_frame]


def until(page: Page, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        page.wait_for_timeout(50)  # lets the driver work; a condition is awaited


def finds(frame: Frame, selector: str) -> bool:
    try:
        return frame.locator(selector).count() > 0
    except Error:  # it is being written
        return False


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", sorted(FIGURES))
def test_a_figure_draws(lab: JupyterLab, page: Page, name: str, theme: str) -> None:
    path = f"frame/{name}-{theme}.ipynb"
    lab.write_notebook(path, [code_cell(shows(*FIGURES[name]), "figure")])
    notebook = Notebook(page, lab.address(path))
    notebook.change_theme(theme.capitalize())
    text = notebook.run(0)
    assert "not shown" not in text
    until(page, lambda: any(finds(each, DRAWN[name]) for each in inner_frames(page)))
    (drawn,) = inner_frames(page)
    until(page, lambda: finds(drawn, DRAWN[name]))
    # A white card whatever the theme, as wide as the output, and high enough not to scroll.
    look = drawn.evaluate(
        "() => [getComputedStyle(document.documentElement).backgroundColor, innerWidth, "
        "document.documentElement.scrollHeight <= innerHeight + 1]"
    )
    box = notebook.cell(0).locator("iframe").bounding_box()
    assert look[0] == "rgb(255, 255, 255)"
    assert box is not None
    assert abs(look[1] - box["width"]) < 2
    assert box["width"] > 500
    assert look[2]
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / f"frame-{name}-{theme}.png").write_bytes(notebook.picture(0))
    notebook.shut_down()


def test_a_figure_in_an_output_widget_draws(lab: JupyterLab, page: Page) -> None:
    """What a cell shows in one, what is put into one, and both when the page is opened again."""
    plotly = FIGURES["plotly"][0]
    cells = [
        code_cell(f"import ipywidgets\nout = ipywidgets.Output()\n{shows()}", "make"),
        code_cell("out", "shown"),
        code_cell(f"with out:\n    {shows(plotly).splitlines()[-1]}", "captured"),
        code_cell(
            "from IPython.display import display\n"
            f"out.append_display_data(type('Figure', (), {{'_repr_mimebundle_': "
            f"lambda *_a, **_k: json.loads({json.dumps(plotly)!r})}})())",
            "appended",
        ),
    ]
    lab.write_notebook("frame/output-widget.ipynb", cells)
    notebook = Notebook(page, lab.address("frame/output-widget.ipynb"))
    for number in range(len(cells)):
        assert "not shown" not in notebook.run(number)

    def drawn() -> int:
        return sum(finds(each, DRAWN["plotly"]) for each in inner_frames(page))

    until(page, lambda: drawn() == 2)
    notebook.command("docmanager:save")
    notebook = Notebook(page, lab.address("frame/output-widget.ipynb"))
    until(page, lambda: drawn() == 2)
    assert "not shown" not in notebook.output(1)
    notebook.shut_down()


def test_nothing_in_a_frame_reaches_outside(lab: JupyterLab, page: Page, other: OtherHost) -> None:
    html = (LOADS + LEAVES).replace("HOST", other.url)
    lab.write_notebook("frame/ways-out.ipynb", [code_cell(shows({"text/html": html}), "attack")])
    notebook = Notebook(page, lab.address("frame/ways-out.ipynb"))
    page.evaluate(
        "() => { window.told = []; addEventListener('message', it => window.told.push(it.data)) }"
    )
    address, seen = page.url, len(other.seen)
    notebook.run(0)
    until(page, lambda: page.evaluate("() => window.told.includes('it ran')"))
    # What the frame tried is done when a later request of the page itself has arrived.
    page.evaluate(
        "url => new Promise(done => setTimeout(done, 1000)).then(() => fetch(url, "
        "{mode: 'no-cors'}))",
        f"{other.url}/the-page-itself",
    )
    until(page, lambda: any("the-page-itself" in line for line in other.seen[seen:]))
    assert [line for line in other.seen[seen:] if "the-page-itself" not in line] == []
    assert page.url == address
    assert len(page.context.pages) == 1
    notebook.shut_down()


def test_the_same_page_without_a_frame_does(page: Page, other: OtherHost) -> None:
    """The positive control: nothing but the frame and its policy held it back."""
    body, seen = LOADS.replace("HOST", other.url), len(other.seen)
    page.goto(f"{other.url}/page.css")  # a real page: browsers keep others from local hosts
    page.set_content(body, wait_until="commit")
    ways = {*re.findall(r"HOST/(\w+)", LOADS)} - {"resolved"}  # a name server would see that one
    assert len(ways) > 15
    until(page, lambda: all(any(f"/{way}" in line for line in other.seen[seen:]) for way in ways))


def test_a_frame_cannot_navigate_itself_away(page: Page, other: OtherHost) -> None:
    going = f"<script>location = '{other.url}/going'</script>"
    page.set_content(frame(going))
    until(page, lambda: inner_frames(page) or len(page.frames) > 1)
    page.evaluate("url => fetch(url, {mode: 'no-cors'})", f"{other.url}/still-here")
    until(page, lambda: any("still-here" in line for line in other.seen))
    assert not any("going" in line for line in other.seen)
    page.set_content(f'<iframe sandbox="allow-scripts" srcdoc="{going}"></iframe>')
    until(page, lambda: any("going" in line for line in other.seen))


def test_an_untrusted_notebook_says_what_is_missing(lab: JupyterLab, page: Page) -> None:
    still = {"image/png": base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()}
    cells = [
        code_cell(shows(*FIGURES["plotly"]), "figure"),
        code_cell(shows({**FIGURES["plotly"][0], **still}), "still"),
    ]
    lab.write_notebook("frame/trusted.ipynb", cells)
    notebook = Notebook(page, lab.address("frame/trusted.ipynb"))
    for number in range(2):
        notebook.run(number)
        assert notebook.cell(number).locator("iframe").count() == 1
        assert "Run the cell again" not in notebook.output(number)
    notebook.command("docmanager:save")
    stored = json.loads((lab.folder / "frame/trusted.ipynb").read_text("utf-8"))
    stored["metadata"]["copied"] = True  # so the server has not signed it
    (lab.folder / "frame/untrusted.ipynb").write_text(json.dumps(stored), encoding="utf-8")
    notebook = Notebook(page, lab.address("frame/untrusted.ipynb"))
    until(page, lambda: "Run the cell again" in notebook.output(0))
    assert notebook.cell(0).locator("iframe").count() == 0
    assert notebook.cell(1).locator('img[src^="data:image/png"]').count() == 1
    notebook.shut_down()
