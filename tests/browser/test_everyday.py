"""What people look at every day still looks right: pictures of it, for a person to see.

They are written to ``build/pictures``; the tests only see to it that each shows what it should. In
the dark theme each is taken a second time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.lab import TIMEOUT, JupyterLab, Notebook, code_cell, new_page

pytestmark = pytest.mark.timeout(600)
PICTURES = Path(__file__).parents[2] / "build/pictures"

_TABLE = 'import pandas\ntable = pandas.DataFrame({"city": ["Oslo", "Rome"], "rain": [763, 799]})\n'
_WAVES = """\
import matplotlib.pyplot as plt
import numpy

x = numpy.linspace(0, 10, 200)
plt.figure(figsize=(5, 2))
plt.plot(x, numpy.sin(x))
plt.show()"""
_FIGURE = """\
from IPython.display import display

bars = {"type": "bar", "x": ["Oslo", "Rome"], "y": [763, 799]}
figure = {"data": [bars], "layout": {"height": 300, "title": {"text": "Rain"}}}
display({"application/vnd.plotly.v1+json": figure, "text/plain": "a figure"}, raw=True)"""
_WIDGETS = """\
import ipywidgets as widgets

slider = widgets.IntSlider(7, description="Slide")
button = widgets.Button(description="Press")
rich = widgets.HTML("<b>bold</b> and <i>italic</i>")
widgets.VBox([slider, button, widgets.IntProgress(6), widgets.Checkbox(True), rich])"""
_TQDM = """\
from tqdm.notebook import tqdm

for _ in tqdm(range(100), desc="Counting"):
    pass"""
_WARNING = """\
from IPython.display import Markdown, Math, display

display(Markdown("A **word** and `code`, $x^2$ and [a link](https://example.org)"))
display(Math(r"\\frac{a}{b} + \\sqrt{2}"))"""


@dataclass(frozen=True)
class Everyday:
    """A cell, and what must be seen of its output.

    Attributes:
        name: of the picture's file.
        code: the cell.
        text: a pattern of the output's text.
        shows: a selector of what the output must hold.
    """

    name: str
    code: str
    text: str = ""
    shows: str = ".jp-OutputArea-output"


EVERYDAY = (
    Everyday("pandas", _TABLE + "table", r"Oslo\s+763", "table.dataframe"),
    Everyday(
        "styler",
        _TABLE + 'table.style.background_gradient(cmap="Blues").format({"rain": "{} mm"})',
        "763 mm",
        "td[style*=background]",
    ),
    Everyday("matplotlib", _WAVES, shows='img[src^="data:image/png"]'),
    Everyday("markdown", _WARNING, "A word and code", "mjx-container"),
    Everyday("plotly", _FIGURE, shows="iframe[sandbox]"),
    Everyday("widgets", _WIDGETS, r"Slide[\s\S]*Press[\s\S]*bold and italic", ".noUi-handle"),
    Everyday("tqdm", _TQDM, r"Counting:\s+100%[\s\S]*100/100", ".progress-bar"),
    Everyday("traceback", "1 / 0", "ZeroDivisionError: division by zero"),
    Everyday("denial", 'open("/etc/motd", "w")', "Blocked by the sandbox"),
    Everyday("policy", "%policy", "frame"),
    Everyday("redacted", 'print("key", "AKIA" + "IOSFODNN7EXAMPLF")', r"\[redacted"),
    # The last, as the limit stays narrow.
    Everyday(
        "truncated",
        '%limits --output 400B\nfor n in range(300_000):\n    print(n, "x" * 20)',
        r"400 ?B[\s\S]*299999",
    ),
)


@pytest.fixture(scope="module")
def notebook(lab: JupyterLab, browser: Browser) -> Iterator[Notebook]:
    cells = [code_cell(each.code, each.name) for each in EVERYDAY]
    lab.write_notebook("frame/everyday.ipynb", cells)
    page = new_page(browser)
    yield Notebook(page, lab.address("frame/everyday.ipynb"))
    page.close()


@pytest.mark.parametrize("number", range(len(EVERYDAY)), ids=[each.name for each in EVERYDAY])
def test_it_looks_right(number: int, notebook: Notebook) -> None:
    each = EVERYDAY[number]
    notebook.run(number)
    cell = notebook.cell(number)
    cell.locator(each.shows).first.wait_for()
    if each.name == "plotly":
        drawn = notebook.page.frame_locator("iframe[sandbox]").frame_locator("iframe")
        drawn.locator(".plot-container .bars").first.wait_for()
    # A widget's text may come after the cell is done.
    until = time.monotonic() + TIMEOUT
    while not re.search(each.text, notebook.output(number)):
        assert time.monotonic() < until, notebook.output(number)
        notebook.page.wait_for_timeout(50)  # lets the driver work; a condition is awaited
    PICTURES.mkdir(parents=True, exist_ok=True)
    cell.screenshot(path=PICTURES / f"{each.name}.png")


def test_it_is_readable_in_a_dark_theme(notebook: Notebook) -> None:
    """The kernel's own words, and what others leave to the theme, are light on dark there."""
    notebook.change_theme("Dark")
    for number, each in enumerate(EVERYDAY):
        cell = notebook.cell(number)
        cell.screenshot(path=PICTURES / f"{each.name}-dark.png")
    for name in ("denial", "policy", "truncated"):
        number = next(at for at, each in enumerate(EVERYDAY) if each.name == name)
        words = notebook.cell(number).locator(".jp-RenderedHTMLCommon strong").first
        colour = words.evaluate("it => getComputedStyle(it).color")
        assert min(map(int, re.findall(r"\d+", colour)[:3])) > 180, colour
