"""What the kernel says itself: the same content as text and as HTML, and nothing smuggled in."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import nh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel import denials
from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.magics import SandboxFacts
from mxc_kernel.policy import (
    Ceiling,
    Filesystem,
    HtmlLevel,
    Layer,
    Limits,
    Network,
    NetworkMode,
    Policy,
)
from mxc_kernel.policy.model import NO_CAP
from mxc_kernel.views import (
    Code,
    Lines,
    Paragraph,
    Table,
    View,
    ceiling_view,
    declared_view,
    grants_view,
    limits_view,
    notice,
    policy_view,
    refusal_view,
    sandbox_view,
    size_text,
    throwaway_view,
    verbatim_view,
    visible,
)

POLICY = Policy(
    filesystem=Filesystem.of(readonly=["/data/in"], readwrite=["/data/out"]),
    network=Network(NetworkMode.HOSTS, frozenset({"example.org"})),
    limits=Limits(90, 1 << 30, 7, output=1 << 20),
    html=HtmlLevel.SAFE,
)
FACTS = SandboxFacts(
    executable="/opt/<x>/lxc-exec",
    version="1.0.1",
    sha256="5bd6" * 16,
    backend="bubblewrap",
    pid=4711,
    uptime=62.0,
    memory=3 << 20,
    spare=None,
    user="uid 60706",
    enforced=(("files", "mounts"), ("memory", "the host")),
)
CEILING = Ceiling(POLICY, layers=(Layer("user", "/etc/ceiling.toml", POLICY),))

# The tags that JupyterLab's and nh3's sanitisers both keep by default.
PLAIN_TAGS = {"div", "p", "strong", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"}


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words = ""
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.words += " "

    def handle_endtag(self, tag: str) -> None:
        self.tags.append("/" + tag)
        self.words += " "

    def handle_data(self, data: str) -> None:
        self.words += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


def words(text: str) -> str:
    return "".join(text.split())


EVIDENCE = {
    "denials": [
        {"kind": "filesystem", "errno": "EROFS", "path": "/data/in/x", "operation": "write"},
        {"kind": "network", "host": "elsewhere.org", "errno": ""},
    ]
}


def denied() -> View:
    view = denials.explain(EVIDENCE, ceiling=CEILING, effective=POLICY)
    assert view is not None
    return view


def views() -> dict[str, View]:
    return {
        "ceiling": ceiling_view(CEILING, POLICY),
        "narrowed": ceiling_view(CEILING, replace(POLICY, html=HtmlLevel.TEXT)),
        "empty ceiling": ceiling_view(Ceiling(Policy()), Policy()),
        "policy": policy_view(POLICY, CEILING),
        "empty policy": policy_view(Policy(), Ceiling(Policy())),
        "limits": limits_view(POLICY),
        "grants": grants_view("Granted", ["/data/in", "/data/out/x"], POLICY),
        "this cell": grants_view("G", ["/data/in"], POLICY, when="in this cell", note="Twice."),
        "declared": declared_view([("/data/<in>", "read-only", "not granted")], note="Once."),
        "ignored": declared_view([("/data/in", "read-only", "not granted")], ignored=True),
        "throwaway": throwaway_view(POLICY, ["a", "b"], ["c"], objects=True),
        "sandbox": sandbox_view(FACTS, changed=True),
        "denied": denied(),
        "denials": denials.overview([EVIDENCE], ceiling=CEILING, effective=Policy()),
        "refusal": refusal_view(SandboxPolicyError("no\nbecause", remedy="ask")),
        "json": verbatim_view("JSON", '{\n  "a": "<b>"\n}'),
        "notice": notice(
            "A <title>",
            Paragraph(("see ", Code("<x>"))),
            Lines(("a & b",)),
            Table(("h", "i"), (("c", ("see ", Code("<d>"))),)),
        ),
    }


@pytest.mark.parametrize("name", views())
def test_text_and_html_say_the_same(name: str) -> None:
    view = views()[name]
    assert words(read(view.html).words) == words(view.text)
    assert view.bundle() == {"text/plain": view.text, "text/html": view.html}


@pytest.mark.parametrize("name", views())
def test_html_is_plain_balanced_and_survives_a_sanitiser(name: str) -> None:
    html = views()[name].html
    reader = read(html)
    assert {tag.lstrip("/") for tag in reader.tags} <= PLAIN_TAGS
    assert {key for key, _ in reader.attributes} <= {"style"}
    assert not any(
        "url" in (value or "") or "http" in (value or "") for _, value in reader.attributes
    )
    stack: list[str] = []
    for tag in reader.tags:
        if tag.startswith("/"):
            assert stack.pop() == tag[1:]
        else:
            stack.append(tag)
    assert stack == []
    assert read(nh3.clean(html)).tags == reader.tags  # drops the styles, keeps what they dress
    assert words(read(nh3.clean(html)).words) == words(reader.words)
    allowed = {tag: {"style"} for tag in PLAIN_TAGS}
    assert nh3.clean(html, attributes=allowed) == html.replace("&#x27;", "'").replace("&quot;", '"')


@pytest.mark.parametrize("name", views())
def test_colours_come_from_the_theme_with_a_fallback(name: str) -> None:
    for _, style in read(views()[name].html).attributes:
        assert style is not None
        for value in re.findall(r"(?:^|[;-])color:([^;]+)|solid ([^;]+)", style):
            assert any(part.startswith("var(--jp-") or part == "inherit" for part in value if part)
        for variable in re.findall(r"var\([^)]*\)", style):
            assert "," in variable


@given(st.text())
def test_no_text_can_add_markup_lines_or_turn_the_reading_direction(text: str) -> None:
    view = notice(text, Paragraph(("p", Code(text))), Table(("h",), ((Code(text),), (text,))))
    empty = notice("", Paragraph(("p", Code(""))), Table(("h",), ((Code(""),), ("",))))
    assert read(view.html).tags == read(empty.html).tags
    assert len(view.text.split("\n")) == len(empty.text.split("\n"))
    assert all(char.isprintable() for char in view.text.replace("\n", ""))
    assert all(char.isprintable() for char in view.html)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日", "plain ü 日"),
        ("a\u202eb", r"a\u202eb"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u200b\ufeff", r"\u200b\ufeff"),
        ("\ud800", r"\ud800"),
        ("a\u2028b\xa0c", r"a\u2028b\xa0c"),
    ],
)
def test_what_does_not_show_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_policy_names_every_rule() -> None:
    text = policy_view(POLICY, CEILING).text
    for part in ("/data/in", "read-only", "/data/out", "read and write", "only example.org", "90s"):
        assert part in text
    for part in ("1GiB", "7", "1MiB", "safe", "LANG"):
        assert part in text


def test_why_nothing_can_be_granted_is_said() -> None:
    none, some = Policy(), Policy(filesystem=Filesystem.of(readonly=["/data/in"]))

    def shown(policy: Policy, *layers: Layer) -> str:
        ceiling = Ceiling(policy, layers=layers)
        text = policy_view(none, ceiling).text
        assert text.splitlines()[-1] == ceiling_view(ceiling, none).text.splitlines()[-1]
        return text

    project = Layer("project", "/work/.mxc-ceiling.toml", some)
    output_only, files = Layer("user", "/etc/output.toml", none), Layer("system", "/etc/x", some)
    assert "No ceiling is set up" in shown(none)
    assert "No ceiling is set up" in shown(none, project)
    text = shown(none, files, output_only)
    assert "none is listed under [filesystem] in /etc/output.toml" in text
    assert "/etc/x" not in text
    assert "No ceiling is set up" not in text
    assert "no path in common" in shown(none, files, replace(files, name="user"))
    assert "[filesystem]" not in policy_view(none, Ceiling(some, layers=(files,))).text


def test_a_file_and_its_key_are_set_as_code() -> None:
    for name in ("denied", "denials"):
        codes = re.findall("<code[^>]*>(.*?)</code>", views()[name].html)
        assert {"[filesystem] readwrite", "[network]", "/etc/ceiling.toml"} <= set(codes)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (62, "1 min 2 s"), (7325, "2 h 2 min"), (None, "unknown")]
)
def test_how_long_a_sandbox_runs(seconds: float | None, shown: str) -> None:
    view = sandbox_view(replace(FACTS, uptime=seconds))
    assert re.search(rf"running for +{shown}$", view.text, re.MULTILINE)


def test_a_refusal_shows_message_and_remedy() -> None:
    text = refusal_view(SandboxPolicyError("first\nsecond", remedy="third")).text
    assert text.split("\n") == ["first", "second", "third"]


def test_sizes() -> None:
    assert [size_text(size) for size in (None, NO_CAP, 1 << 30, 1536)] == [
        "off",
        "off",
        "1GiB",
        "1.5KiB",
    ]
