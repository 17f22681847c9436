"""Secrets in JSON and HTML, which text rules alone would miss."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.output.documents import MAX_DEPTH, redact_html, redact_json
from mxc_kernel.output.redaction import Rules

TOKEN = "gh" + "p_" + "a1B2" * 9
SECRET = 'S3cr<et&"7'
RULES = Rules({"host-secret": [SECRET]})


def test_leaves_and_keys_of_json():
    content = {"a": ["x", {TOKEN: 1}], "b": f"see {TOKEN}", "n": None, "f": 1.5}
    shown, counts = redact_json(content, RULES)
    label = "[redacted: github-token]"
    assert shown == {"a": ["x", {label: 1}], "b": f"see {label}", "n": None, "f": 1.5}
    assert counts == {"github-token": 2}
    assert TOKEN in content["b"]


def test_two_masked_keys_stay_two():
    shown, _ = redact_json({TOKEN: 1, TOKEN + "x": 2}, RULES)
    assert sorted(shown.values()) == [1, 2]


def test_a_key_labels_its_value():
    shown, counts = redact_json({"aws_secret_access_key": "a1B2" * 10, "other": "a1B2" * 10}, RULES)
    assert shown == {"aws_secret_access_key": "[redacted: aws-secret-key]", "other": "a1B2" * 10}
    assert counts == {"aws-secret-key": 1}


@given(st.lists(st.sampled_from([TOKEN, "text", "aws_secret_access_key", "\x1b[1m", "\ud800"])))
def test_names_that_were_met_before_change_nothing(names):
    content = [{name: "a1B2" * 10, f"{name}x": {name: name}} for name in names]
    fresh = [redact_json(item, Rules({"host-secret": [SECRET]}))[0] for item in content]
    assert redact_json(content, RULES)[0] == fresh


def test_deep_json_is_replaced_not_followed():
    content: object = TOKEN
    for _ in range(MAX_DEPTH + 50):
        content = [content]
    shown, _ = redact_json(content, RULES)
    assert "a1B2" not in json.dumps(shown)
    assert "nested too deeply" in json.dumps(shown)


@pytest.mark.parametrize(
    "html",
    [
        f"<p>{TOKEN}</p>",
        f"<p>{TOKEN[:9]}<b>{TOKEN[9:20]}</b>{TOKEN[20:]}</p>",
        f"<p>{TOKEN[:9]}&#{ord(TOKEN[9])};{TOKEN[10:]}</p>",
        f"<p>{TOKEN[:9]}&shy;{TOKEN[9:]}</p>",
        f"<p>{TOKEN[:9]}<!-- x -->{TOKEN[9:]}</p>",
        f'<a title="{TOKEN}">x</a>',
        f"<script>x = '{TOKEN}'</script>",
        f"<td>{TOKEN}</td><td>&lt;</td>",
        f"a < b {TOKEN}",
    ],
)
def test_html_is_read_as_a_reader_sees_it(html):
    shown, counts = redact_html(html, RULES)
    assert counts == {"github-token": 1}
    assert "a1B2a1" not in shown
    assert shown.count("<") == html.count("<")


def test_an_exact_secret_that_html_escapes():
    shown, counts = redact_html("<p>S3cr&lt;et&amp;&quot;7 &amp; co</p>", RULES)
    assert shown == "<p>[redacted: host-secret] &amp; co</p>"
    assert counts == {"host-secret": 1}


def test_the_rest_of_a_page_is_untouched():
    html = "<table><tr><td>1 &amp; 2</td><td>x &lt; y</td></tr></table>"
    shown, _ = redact_html(html + f"<p>{TOKEN}</p>", RULES)
    assert shown == html + "<p>[redacted: github-token]</p>"


@given(st.text(alphabet="<>&;/!-\"' abgt#1" + TOKEN[:6], max_size=200))
def test_no_markup_raises(html):
    redact_html(html, RULES)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
def test_harmless_json_keeps_its_shape(content):
    shown, counts = redact_json(content, RULES)
    assert counts == {}
    assert type(shown) is type(content)
