"""MIME types that JupyterLab or an extension of it renders by a library of its own."""

# ruff: noqa: E501 - what an attack says is easier to read in one piece

import base64
import json

from tests.browser.attacks.attack import ALL, LIVE, SAVED, Attack, mime, shows

_FAR = "@HOST@/@MARK@"
_LITE = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
    "mark": "point",
    "encoding": {"x": {"field": "a", "type": "quantitative"}},
}
_VEGA = {
    "$schema": "https://vega.github.io/schema/vega/v5.json",
    "width": 9,
    "height": 9,
    "padding": 0,
    "autosize": "none",
}
ATTACKS = (
    *(
        Attack(
            f"vegalite-{version}",
            f"data from elsewhere in a chart ({kind})",
            mime(kind, {**_LITE, "data": {"url": f"{_FAR}/data.json"}}),
            ALL,
        )
        for version, kind in enumerate(
            (
                "application/vnd.vegalite.v5+json",
                "application/vnd.vegalite.v4+json",
                "application/vnd.vegalite.v3+json",
            )
        )
    ),
    Attack(
        "vega",
        "data from elsewhere in a chart",
        mime(
            "application/vnd.vega.v5+json",
            {**_VEGA, "data": [{"name": "t", "url": f"{_FAR}/data.json"}]},
        ),
        ALL,
    ),
    Attack(
        "vega-image",
        "a picture from elsewhere in a chart",
        mime(
            "application/vnd.vega.v5+json",
            {
                **_VEGA,
                "marks": [
                    {
                        "type": "image",
                        "encode": {
                            "enter": {
                                "url": {"value": f"{_FAR}/image"},
                                "width": {"value": 5},
                                "height": {"value": 5},
                            }
                        },
                    }
                ],
            },
        ),
        ALL,
    ),
    Attack(
        "vega-expression",
        "an expression that puts an address together",
        mime(
            "application/vnd.vega.v5+json",
            {
                **_VEGA,
                "signals": [{"name": "u", "init": f"'{_FAR}/' + replace('expression', 'x', 'x')"}],
                "data": [{"name": "t", "url": {"signal": "u"}}],
            },
        ),
        ALL,
    ),
    Attack(
        "vega-link",
        "a mark that opens an address when clicked",
        mime(
            "application/vnd.vega.v5+json",
            {
                **_VEGA,
                "marks": [
                    {
                        "type": "rect",
                        "encode": {
                            "enter": {
                                "href": {"value": f"{_FAR}/href"},
                                "width": {"value": 9},
                                "height": {"value": 9},
                            }
                        },
                    }
                ],
            },
        ),
    ),
    Attack(
        "vega-embed",
        "options of the renderer in the metadata",
        shows(
            {
                "application/vnd.vegalite.v5+json": {
                    **_LITE,
                    "data": {"values": []},
                    "usermeta": {
                        "embedOptions": {
                            "patch": f"{_FAR}/patch.json",
                            "config": f"{_FAR}/config.json",
                        }
                    },
                }
            },
            {"application/vnd.vegalite.v5+json": {"embed_options": {"patch": f"{_FAR}/meta.json"}}},
        ),
        ALL,
    ),
    Attack(
        "plotly",
        "a picture from elsewhere in a figure",
        mime(
            "application/vnd.plotly.v1+json",
            {
                "data": [],
                "layout": {
                    "images": [{"source": f"{_FAR}/plotly", "x": 0, "y": 1, "sizex": 1, "sizey": 1}]
                },
            },
        ),
        LIVE,
    ),
    Attack(
        "plotly-link",
        "a text in a figure that is a link",
        mime(
            "application/vnd.plotly.v1+json",
            {
                "data": [],
                "layout": {
                    "title": {"text": "<a href='javascript:1'>x</a><img src=x: onerror=\"@JS@\">"}
                },
            },
        ),
    ),
    Attack(
        "plotly-map",
        "a map whose tiles come from elsewhere",
        mime(
            "application/vnd.plotly.v1+json",
            {
                "data": [
                    {
                        "type": "choropleth",
                        "locations": ["FRA"],
                        "z": [1],
                        "geojson": f"{_FAR}/geo.json",
                    }
                ],
                "layout": {"geo": {}},
                "config": {"topojsonURL": f"{_FAR}/"},
            },
        ),
        ALL,
    ),
    Attack(
        "geojson",
        "a map as GeoJSON",
        mime(
            "application/geo+json",
            {
                "type": "Feature",
                "properties": {"popup": '<img src=x: onerror="@JS@">'},
                "geometry": {"type": "Point", "coordinates": [0, 0]},
            },
        ),
    ),
    Attack(
        "json",
        "JSON with nasty keys and values",
        mime(
            "application/json",
            {
                "__proto__": {"x": 1},
                "constructor": {"prototype": {"x": 1}},
                '<img src=x: onerror="@JS@">': '<img src=x: onerror="@JS@">',
                "link": f"javascript:1 {_FAR}",
            },
        ),
    ),
    Attack(
        "pdf",
        "a PDF that asks for an address",
        mime(
            "application/pdf",
            base64.b64encode(
                b"%PDF-1.4\n1 0 obj<</Type/Catalog/OpenAction<</S/URI/URI(http://127.0.0.1/)>>>>endobj\ntrailer<</Root 1 0 R>>"
            ).decode(),
        ),
    ),
    Attack(
        "picture",
        "Base64 of a picture that closes its attribute",
        mime("image/png", 'x" onerror="@JS@'),
    ),
    Attack(
        "picture-size",
        "sizes of a picture that close their attribute",
        shows(
            {"image/png": "iVBORw0KGgo=", "text/plain": "x"},
            {
                "image/png": {
                    "width": '1" onerror="@JS@',
                    "height": "1;background:url(@HOST@/@MARK@/size)",
                }
            },
        ),
    ),
    Attack(
        "unknown",
        "types that nothing knows",
        shows(
            {
                "application/vnd.pwned+json": {"x": 1},
                "application/x-pwned": "<script>@JS@</script>",
                "text/html ": "<script>@JS@</script>",
                "TEXT/HTML": "<script>@JS@</script>",
                "text/html;charset=utf-8": "<script>@JS@</script>",
                "text/plain": "x",
            }
        ),
    ),
    Attack(
        "stderr-type",
        "types of Jupyter's own",
        shows(
            {
                "application/vnd.jupyter.stderr": f'<img src="{_FAR}/stderr"><script>@JS@</script>',
                "application/vnd.jupyter.stdout": f'<img src="{_FAR}/stdout"><script>@JS@</script>',
                "application/vnd.jupyter.error": "<script>@JS@</script>",
            }
        ),
    ),
    Attack(
        "widget-state-type",
        "the state of widgets as an output",
        mime(
            "application/vnd.jupyter.widget-state+json",
            {
                "version_major": 2,
                "version_minor": 0,
                "state": {
                    "x": {
                        "model_name": "HTMLModel",
                        "model_module": "@jupyter-widgets/controls",
                        "model_module_version": "2.0.0",
                        "state": {"value": '<img src=x: onerror="@JS@">'},
                    }
                },
            },
        ),
    ),
    Attack(
        "lists",
        "HTML as a list of lines",
        mime("text/html", ["<img src=x: ", 'onerror="@JS@">']),
        SAVED - LIVE,
    ),
    Attack(
        "not-text",
        "HTML that is no text",
        mime("text/html", {"toString": '<img src=x: onerror="@JS@">'}),
    ),
)
assert json.dumps([attack.code for attack in ATTACKS])
