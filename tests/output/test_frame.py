"""What goes into a frame: nested, compressed, with the host's own copy of a library, or a note."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.output.figures import draw
from mxc_kernel.output.frame import (
    DEFAULT_HEIGHT,
    POLICY,
    frame,
    is_frame,
    needs_frame,
    pack,
    still_image,
)
from mxc_kernel.output.rich import FRAME, SAFE, make_safe

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()
PLOTLY = "application/vnd.plotly.v1+json"
VEGALITE = "application/vnd.vegalite.v5+json"
BOKEH = "application/vnd.bokehjs_exec.v0+json"
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def library(name: str) -> bytes:
    return pack(f"window.{name}='the library'")


class Outline(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script":
            self.scripts.append(data)

    def first(self, tag: str) -> dict[str, str | None]:
        return next(attributes for name, attributes in self.elements if name == tag)


def opened(markup: str) -> tuple[Outline, Outline, str]:
    """Return the outer and the inner document, and what the inner one draws."""
    outer = Outline(Outline(markup).first("iframe")["srcdoc"] or "")
    inner = Outline(outer.first("iframe")["srcdoc"] or "")
    packed = re.search(r"'([A-Za-z0-9+/=]{20,})'", inner.scripts[0])
    assert packed is not None
    # zlib reads what the browser's DecompressionStream reads: one stream, nothing behind its end.
    unpacker = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    text = unpacker.decompress(base64.b64decode(packed[1])) + unpacker.flush()
    assert unpacker.eof
    assert not unpacker.unused_data
    return outer, inner, text.decode()


def test_html_that_needs_scripts_goes_into_nested_frames():
    html = '<div id="p" style="height:300px"></div><script>draw("</iframe>\'")</script>'
    bundle = make_safe({"text/html": html}, {}, FRAME)
    page = Outline(bundle.data["text/html"])
    assert [tag for tag, _ in page.elements][:1] == ["iframe"]
    attributes = page.first("iframe")
    assert set(attributes) == {"sandbox", "srcdoc", "style"}
    assert attributes["sandbox"] == "allow-scripts"
    assert "height:320px" in (attributes["style"] or "")
    outer, inner, text = opened(bundle.data["text/html"])
    assert "frame-src 'none'" in str([a for _, a in outer.elements if "content" in a])
    assert not outer.scripts
    assert outer.first("iframe")["sandbox"] == "allow-scripts"
    assert {"http-equiv": "Content-Security-Policy", "content": POLICY} in [
        attributes for _, attributes in inner.elements
    ]
    assert text.endswith(html)
    assert text.startswith("<!DOCTYPE html><meta charset='utf-8'><meta http-equiv=\"Content-Secu")
    assert POLICY in text


@pytest.mark.parametrize(
    "html", ["<b>x</b>", "<a href=javascript:x>x</a>", "<style>a{}</style><p>x</p>", "a on b = c"]
)
def test_html_that_needs_none_is_sanitised_at_the_frame_level_too(html):
    assert not needs_frame(html)
    shown = make_safe({"text/html": html}, {}, FRAME, library)
    assert shown == make_safe({"text/html": html}, {}, SAFE)
    assert "<iframe" not in shown.data["text/html"]


@given(st.text(max_size=200), st.integers(1, 99999))
def test_nothing_gets_out_of_the_attribute(html, height):
    markup = frame(html, height=height)
    assert [tag for tag, _ in Outline(markup).elements] == ["iframe", "div", "small"]
    assert opened(markup)[2].endswith(html)


@given(st.text(max_size=200), st.integers(1, 99999), st.sampled_from(["image/png", "image/gif"]))
def test_a_frame_that_comes_back_passes_as_it_is(html, height, mime):
    """An Output widget holds what was drawn, and hands it back for a page that is opened again."""
    for still in ("", still_image(mime, PNG)):
        markup = frame(html, height=height, scripts=[library("x")], still=still)
        assert is_frame(markup)
        shown = make_safe({"text/html": markup}, {}, FRAME, library)
        assert (shown.data, shown.notes) == ({"text/html": markup}, ())


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        ('sandbox="allow-scripts"', 'sandbox="allow-scripts allow-same-origin"'),
        (' sandbox="allow-scripts"', ""),
        ("<iframe ", '<iframe onload="x" '),
        ("sandbox=&quot;allow-scripts", "sandbox=&quot;allow-scripts allow-same-origin"),
        ("; frame-src &#x27;none&#x27;", ""),
        ("default-src &#x27;none&#x27;", "default-src *"),
        ("default-src &amp;#x27;none&amp;#x27;", "default-src *"),
        ("height:470px", "height:2100px"),
        ("height:470px", "height:\u0664\u0664\u0664px"),
        ("height:470px", "height:470px;position:fixed"),
        ("border:0", "border:0;position:fixed"),
        ("(&amp;#x27;", "(top[&amp;#x27;"),
        ("data:image/png", "data:image/svg+xml"),
        ("data:image/png;base64,", "https://example.org/"),
        ('alt="figure"', 'alt="figure" onerror="x"'),
        ("</iframe>", "<script>1</script></iframe>"),
    ],
)
def test_what_only_looks_like_a_frame_is_put_into_one(part, instead):
    markup = frame("<b>x</b>", height=450, still=still_image("image/png", PNG))
    assert is_frame(markup)
    assert part in markup
    for forged in (markup.replace(part, instead, 1), f"{markup}{instead}", f"{instead}{markup}"):
        assert not is_frame(forged) or forged == markup
        shown = make_safe({"text/html": forged}, {}, FRAME, library).data["text/html"]
        assert is_frame(shown)
        assert forged == markup or opened(shown)[2].endswith(forged)


@given(JSON, JSON, JSON)
def test_data_cannot_end_the_script_it_stands_in(data, layout, config):
    content = {"data": data, "layout": layout, "config": config, "x": "</script>"}
    for mime in (PLOTLY, VEGALITE):
        drawn = draw({mime: {**content, "y": data}}, {mime: {"embed_options": config}}, library)
        assert drawn is not None
        own = opened(drawn.html or "")[2].partition("<body>")[2]
        assert re.fullmatch(
            r'<div id="figure" style="[^"]*"></div><script>[^<]*</script>', own, re.DOTALL
        )
        assert own.isascii()


def test_a_figure_is_drawn_from_its_data():
    title = "a </script><!-- \u2028 b"
    content = {"data": [{"x": [1]}], "layout": {"title": title, "height": 300}, "frames": None}
    bundle = {PLOTLY: content, "text/html": "<script>Plotly.newPlot()</script>", "text/plain": "f"}
    shown = make_safe(bundle, {}, FRAME, library)
    assert set(shown.data) == {"text/html", "text/plain"}
    assert shown.notes == ()
    _, _, text = opened(shown.data["text/html"])
    assert "window.plotly='the library'" in text
    call = re.search(r'newPlot\("figure",(.*)\)</script>', text)
    assert call is not None
    figure = json.loads(call[1])
    assert figure["data"] == [{"x": [1]}]
    assert figure["layout"]["title"] == title
    assert figure["config"]["responsive"] is True
    assert "height:320px" in (Outline(shown.data["text/html"]).first("iframe")["style"] or "")


@pytest.mark.parametrize("mime", [VEGALITE, "application/vnd.vega.v6+json"])
def test_a_chart_is_drawn_from_its_specification(mime):
    options = {"theme": "dark", "mode": "</script>"}
    shown = make_safe({mime: {"mark": "bar"}}, {mime: {"embed_options": options}}, FRAME, library)
    _, _, text = opened(shown.data["text/html"])
    call = re.search(r'vegaEmbed\("#figure",(\{.*?\}),(\{.*?\})\)\.catch', text)
    assert call is not None
    assert json.loads(call[1]) == {"mark": "bar"}
    mode = "vega-lite" if "lite" in mime else "vega"
    assert json.loads(call[2]) == {"actions": False, "theme": "dark", "mode": mode}


def test_bokeh_brings_the_elements_that_it_draws_in():
    script = (
        'const items = [{"docid":"d","roots":{"p1008":"ab-12"},"root_ids":["p1008"]}];'
        'const docs = {"height":250}; "</script><b>";'
    )
    bundle = {"application/javascript": script, BOKEH: ""}
    shown = make_safe(bundle, {BOKEH: {"id": "p1008"}}, FRAME, library)
    assert set(shown.data) == {"text/html"}
    _, _, text = opened(shown.data["text/html"])
    assert '<div id="ab-12" data-root-id="p1008"' in text
    assert "\\u003c/script><b>" in text
    assert "height:270px" in shown.data["text/html"]


@pytest.mark.parametrize(
    ("html", "name"),
    [
        ('<script src="https://cdn.plot.ly/plotly-3.min.js"></script><script>1</script>', "plotly"),
        ("<div></div><script>Plotly.newPlot('x')</script>", "plotly"),
        ("<script>paths={'v':'https://cdn.jsdelivr.net/npm/vega@6'};vegaEmbed(a)</script>", "vega"),
        ("<script src=https://cdn.bokeh.org/bokeh/release/bokeh-3.js></script>", "bokeh"),
    ],
)
def test_html_that_asks_for_a_library_gets_the_hosts_own(html, name):
    shown = make_safe({"text/html": html}, {}, FRAME, library)
    _, _, text = opened(shown.data["text/html"])
    assert f"window.{name}='the library'" in text
    assert text.index("the library") < text.index(html)
    # Without it nothing would be drawn, and nothing else in the bundle tells so.
    absent = make_safe({"text/html": html, "text/plain": "x"}, {}, FRAME, lambda _name: None)
    assert absent.data == {"text/plain": "x"}
    assert "not on this machine" in absent.notes[0]


def test_a_library_that_the_document_has_is_not_added():
    html = "<script>/*! plotly.js v3.0 */ Plotly.newPlot('x')</script>"
    assert (
        "the library"
        not in opened(make_safe({"text/html": html}, {}, FRAME, library).data["text/html"])[2]
    )


@pytest.mark.parametrize("mime", [PLOTLY, VEGALITE, BOKEH])
def test_a_missing_library_is_said_and_the_rest_of_the_bundle_shown(mime):
    bundle = {mime: {"data": []}, "image/png": PNG, "text/plain": "figure"}
    shown = make_safe(bundle, {}, FRAME, lambda _name: None)
    assert shown.data == {"image/png": PNG, "text/plain": "figure"}
    assert "not on this machine" in shown.notes[0]
    alone = make_safe({mime: {"data": []}}, {}, FRAME, lambda _name: None)
    assert alone.data == {"text/plain": alone.notes[0]}


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://code.jquery.com/jquery.js"></script><div></div>',
        "<script>x</script><link rel=stylesheet href=//cdn.example/x.css>",
        "<script type=module src='http://cdn.example:8080/x.js'></script>",
        # As folium has it: a document in an attribute.
        '<iframe srcdoc="&lt;script src=&quot;https://cdn.example/leaflet.js&quot;&gt;"></iframe>',
    ],
)
def test_what_loads_from_elsewhere_is_named_not_drawn(html):
    shown = make_safe({"text/html": html, "text/plain": "map"}, {}, FRAME, library)
    assert shown.data == {"text/plain": "map"}
    assert re.search("code.jquery.com|cdn.example", shown.notes[0])


@pytest.mark.parametrize(
    "content",
    [
        {"data": {"url": "https://data.example/cars.json"}},
        {"layout": {"images": [{"source": "http://data.example/x.png"}]}},
        {"data": [{"type": "scattergeo"}]},
    ],
)
def test_data_from_elsewhere_is_noted(content):
    mime = VEGALITE if "url" in str(content) else PLOTLY
    shown = make_safe({mime: content}, {}, FRAME, library)
    assert "<iframe" in shown.data["text/html"]
    assert re.search("data.example|cdn.plot.ly", shown.notes[0])
    local = {"data": [{"type": "scatter"}], "layout": {"template": {"scattergeo": [{}]}}}
    assert make_safe({mime: local}, {}, FRAME, library).notes == ()


def test_a_picture_stands_where_frames_are_not_shown():
    shown = make_safe({PLOTLY: {"data": []}, "image/png": PNG}, {}, FRAME, library)
    page = Outline(shown.data["text/html"])
    assert page.elements[1] == ("img", {"alt": "figure", "src": f"data:image/png;base64,{PNG}"})
    forged = make_safe({PLOTLY: {}, "image/png": '"onerror=x'}, {}, FRAME, library)
    assert "onerror" not in forged.data["text/html"]


@pytest.mark.parametrize(
    ("content", "height"),
    [
        ({"mark": "bar"}, 380),
        ({"height": 100, "mark": "bar"}, 180),
        ({"vconcat": [{"height": 100}, {"height": 200}]}, 500),
        ({"hconcat": [{"height": 100}, {"height": 200}]}, 280),
        ({"repeat": {"row": ["a", "b"]}, "spec": {"height": 100}}, 400),
        ({"height": 1e9}, 380),
        ({"height": True}, 380),
        ({"height": {"step": 20}}, 380),
    ],
)
def test_heights_of_charts(content, height):
    shown = make_safe({VEGALITE: content}, {}, FRAME, library)
    assert f"height:{height}px" in shown.data["text/html"]


def test_the_height_of_altairs_own_html():
    chart = '<div id=vis></div><script>(function(spec){vegaEmbed("#vis",spec)})(%s, {});</script>'
    for spec, height in (
        ('{"config": {"view": {"continuousHeight": 300}}, "mark": "bar"}', 380),
        ('{"vconcat": [{"height": 100}, {"height": 200}]}', 500),
        ("{", DEFAULT_HEIGHT + 20),
        ('{"layer": ' * 100_000, DEFAULT_HEIGHT + 20),
    ):
        shown = make_safe({"text/html": chart % spec}, {}, FRAME, library)
        assert f"height:{height}px" in shown.data["text/html"]


def test_heights_of_documents():
    long = "<script>" + "a" * 200_000 + "height:50</script>"
    for html, height in (
        ("<script>1</script>", DEFAULT_HEIGHT),
        ('<script>1</script><canvas height="77">', 77),
        (f'{long}<div style="height:525px"></div>', 525),
        (f'{long}<div style="height:100%"></div>', DEFAULT_HEIGHT),
        ("<canvas height=9999>", 2000),
        ("<canvas height=10>", 50),
    ):
        assert f"height:{height + 20}px" in frame(html)


def test_a_librarys_own_markup_cannot_end_its_script():
    source = "a='</script>';b='<!--<script>'"
    text = opened(frame("", scripts=[pack(source)]))[2]
    assert "a='\\x3c/script>';b='\\x3c!--\\x3cscript>'" in text


def test_a_large_library_makes_a_small_frame():
    script = pack("function draw(figure) { return figure.data.length; }\n" * 20_000)
    assert len(frame("<b>", scripts=[script])) < 50_000
