"""The report's page: whatever stands in a report, the page holds text and its own markup alone."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.batch import CellReport, NotebookReport, RunReport, Status, render_page
from mxc_kernel.batch.report import Asked, Denial, ErrorText

TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "div", "b"),
    *("span", "table", "tr", "th", "td", "a", "details", "summary", "code", "pre", "ul", "li"),
    "strong",
}
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "href", "open"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "</pre></style><style>*{display:none}",
    "\u202eevil\u2066",
    "a\nb\tc\x1b[31m\x00",
    "&lt;b&gt;",
    "\udce9",
]


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.policy = ""
        self.style = ""
        self.text = ""
        self._in_style = False
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._in_style = tag == "style"
        found = dict(attrs)
        self.attributes |= set(found)
        if "href" in found:
            self.links.append(str(found["href"]))
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(found["content"])

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.style += data
        else:
            self.text += data


def report(text: str, status: Status = Status.DENIED) -> RunReport:
    cell = CellReport(
        index=0,
        status=status,
        error=ErrorText(name=text, value=text, traceback=f"{text}\n{text}"),
        denials=[Denial(what=text, rule=text, grant=text)],
        redacted={text: 2},
        truncated={"printed": 10, "shown": 5},
        outputs_refused=1,
        peak_memory=1 << 20,
    )
    notebook = NotebookReport(
        name=text,
        source=text,
        output=f"/out/{text}",
        status=status,
        reason=text,
        cells=[cell],
        cells_total=1,
        asked=[Asked(path=text, asked=text, granted=text)],
        worker=text,
        attempts=2,
        audit_session=text,
    )
    return RunReport(
        tool=text,
        started=text,
        output_dir=text,
        options={"parameters": {text: text}},
        notebooks=[notebook],
    )


@given(st.sampled_from(HOSTILE) | st.text(), st.sampled_from(list(Status)))
def test_no_text_becomes_markup(text: str, status: Status) -> None:
    page = Page(render_page(report(text, status), at="/out/report.html"))
    assert page.tags <= TAGS
    assert page.attributes <= ATTRIBUTES
    assert all(link.startswith("./") for link in page.links)
    assert len(page.links) == 1
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", page.text)


def test_the_policy_allows_the_pages_own_style_alone() -> None:
    page = Page(render_page(report("plain")))
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert page.policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert page.links == []


def test_everything_that_matters_is_told() -> None:
    page = Page(render_page(report("the words"), at="/out/report.html"))
    for words in ("denied", "5B of 10B", "1 displays", "Begun 2 times", "the words (2)", "1MiB"):
        assert words in page.text
    assert [unquote(link) for link in page.links] == ["./the words"]


def test_many_good_notebooks_stay_a_short_page() -> None:
    many = report("x", Status.OK)
    cell = CellReport(index=0, status=Status.OK)
    many.notebooks = [
        NotebookReport(name=f"{n}.ipynb", source="", status=Status.OK, cells=[cell] * 20)
        for n in range(10_000)
    ]
    assert len(render_page(many)) < 5_000_000
