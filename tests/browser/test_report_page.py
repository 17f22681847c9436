"""The page about a run, in a real browser: it is drawn as designed, and nothing in it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from mxc_kernel.batch import CellReport, NotebookReport, RunReport, Status, render_page
from mxc_kernel.batch.report import Asked, Denial, ErrorText

PICTURES = Path(__file__).resolve().parents[2] / "build/pictures"
HOSTILE = "<img src=x onerror=document.title='ran'><script>document.title='ran'</script>"


def a_report() -> RunReport:
    def cells(*statuses: Status) -> list[CellReport]:
        return [
            CellReport(index=index, status=status, seconds=0.4 * (index + 1), peak_memory=64 << 20)
            for index, status in enumerate(statuses)
        ]

    ok = NotebookReport(
        name="sales/monthly.ipynb",
        source="/n/sales/monthly.ipynb",
        output="/n/executed/sales/monthly.ipynb",
        status=Status.OK,
        seconds=4.2,
        cells=cells(Status.OK, Status.OK, Status.OK),
        cells_total=3,
        peak_memory=64 << 20,
        asked=[Asked(path="data", asked="read-only", granted="read-only")],
        audit_session="2026-01-01T12-00-00-4711",
    )
    denied = NotebookReport(
        name="agent/cleanup.ipynb",
        source="/n/agent/cleanup.ipynb",
        output="/n/executed/agent/cleanup.ipynb",
        status=Status.DENIED,
        seconds=2.9,
        cells=cells(Status.OK, Status.DENIED),
        cells_total=5,
        peak_memory=71 << 20,
    )
    denied.cells[1].error = ErrorText(
        name="OSError",
        value="[Errno 30] Read-only file system",
        traceback=f"OSError: [Errno 30] Read-only file system: '/srv/data/all.csv'\n{HOSTILE}",
    )
    denied.cells[1].denials = [
        Denial(
            what="writing /srv/data/all.csv",
            rule="It is read-only in this session. The ceiling permits it for the folder; put this "
            "at the top of a cell:",
            grant="%allow_rw /srv/data",
        )
    ]
    denied.cells[0].redacted = {"AWS_SECRET_ACCESS_KEY": 1}
    late = NotebookReport(
        name=f"{HOSTILE}.ipynb",
        source="/n/x.ipynb",
        output=f"/n/executed/{HOSTILE}.ipynb",
        status=Status.NOTEBOOK_TIMEOUT,
        seconds=600,
        cells=cells(Status.OK, Status.TRUNCATED, Status.NOTEBOOK_TIMEOUT),
        cells_total=9,
        attempts=2,
    )
    late.cells[1].truncated = {"printed": 5 << 30, "shown": 1 << 20}
    return RunReport(
        tool="mxc-kernel",
        started="2026-01-01T12:00:00+00:00",
        seconds=607.1,
        output_dir="/n/executed",
        options={"timeout": 600, "parameters": {"year": 2025}, "requests": True},
        notebooks=[denied, late, ok],
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_looks_right_and_runs_nothing(browser: Browser, tmp_path: Path, scheme: str) -> None:
    file = tmp_path / "report.html"
    file.write_bytes(render_page(a_report(), at="/n/executed/report.html"))
    PICTURES.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1200, "height": 900})
    try:
        page = context.new_page()
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        page.screenshot(path=PICTURES / f"report-{scheme}.png", full_page=True)
        assert said == []
        assert asked == [file.as_uri()]
        assert page.title() == "3 notebooks: notebook timeout"
        # The style sheet is in force: the policy's hash is that of the page's own style.
        tile = page.locator(".tile").first
        assert tile.evaluate("e => getComputedStyle(e).borderTopLeftRadius") == "10px"
        light = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert light == {"light": "rgb(246, 247, 249)", "dark": "rgb(20, 24, 29)"}[scheme]
        wide = page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        assert wide
        # A script put in afterwards is refused too: the policy holds, and not the escaping alone.
        page.evaluate(
            "() => { const s = document.createElement('script'); s.textContent = "
            "'document.title = \"ran\"'; document.body.append(s) }"
        )
        assert page.title() == "3 notebooks: notebook timeout"
        assert any("Content Security Policy" in text for text in said)
    finally:
        context.close()
