"""Which host values count, and that none of their forms is shown."""

from __future__ import annotations

import base64
import html
import json
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxc_kernel.output.redaction import Rules, Stream, redact
from mxc_kernel.output.secrets import (
    HOST_SECRET,
    covered_variables,
    exact_secrets,
    host_secrets,
    ordinary_variables,
)

VALUE = 'p&ss "W0rd" /9+x\\y'


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GITHUB_TOKEN", "a1B2c3D4e5F6"),
        ("DB_PASSWORD", "Tr0ub4dor&3"),
        ("PGPASSWORD", "Summer24!"),
        ("MY_API_KEY", "0123456789abcdef01"),
        ("DATABASE_URL", "postgres://app:x9Kd82hsQ@db/app"),
        ("STORAGE_CONNECTION_STRING", "AccountName=a;AccountKey=zzz9Y8x7"),
        ("clientSecret", "q8~Zk2mVnB7x"),
        ("X_SECRET", "correct-horse-battery-staple"),
        ("SLACK_WEBHOOK_URL", "https://hooks.example.org/T0/B0/a8f3k2"),
        ("SERVICE_ACCOUNT_KEY", '{"type": "service_account", "private_key_id": "9f8e7d6c5b4a"}'),
    ],
)
def test_secret_values_are_covered(name, value):
    assert covered_variables({name: value}) == (name,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_PASSWORD", "postgres"),
        ("DB_PASSWORD", "changeme123"),
        ("ADMIN_PASSWORD", "admin-password"),
        ("X_SECRET", "short"),
        ("X_SECRET", "aaaaaaaaaaaaaaa"),
        ("X_TOKEN", "20261120"),
        ("SSH_AUTH_SOCK", "/tmp/ssh-abc/agent.123"),
        ("TOKEN_FILE", "/run/secrets/token-9f8e7d6c"),
        ("KEYBOARD_LAYOUT", "en-us-qwerty-9"),
        ("SERVICE_URL", "https://example.org/a/b/c"),
        ("GPG_KEY", "A035C8C19219BA821ECEA86B64E628F8D684696D"),
        ("PATH", "/usr/local/bin:/usr/bin"),
        ("AWS_ACCESS_KEY_ID", ""),
    ],
)
def test_ordinary_values_are_left_alone(name, value):
    assert covered_variables({name: value}) == ()
    assert host_secrets({name: value}) == {}


def test_only_the_secret_fields_of_a_key_file_are_looked_for():
    content = json.dumps(
        {"type": "service_account", "private_key_id": "9f8e7d6c5b4a", "client": "bob"}
    )
    rules = Rules(host_secrets({"GOOGLE_CREDENTIALS": content}))
    assert redact("service_account bob 9f8e7d6c5b4a", rules)[0].endswith(
        "bob [redacted: host-secret]"
    )


FORMS = {
    "raw": lambda value: value,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 behind one": lambda value: base64.b64encode(b"u" + value.encode() + b"v").decode(),
    "base64 behind two": lambda value: base64.b64encode(b"u:" + value.encode()).decode(),
    "urlsafe": lambda value: base64.urlsafe_b64encode(b"u:" + value.encode()).decode(),
    "hex": lambda value: value.encode().hex(),
    "HEX": lambda value: value.encode().hex().upper(),
    "base32": lambda value: base64.b32encode(value.encode()).decode(),
    "quote": quote,
    "quote_plus": quote_plus,
    "json": json.dumps,
    "json twice": lambda value: json.dumps(json.dumps(value)),
    "repr": repr,
    "html": html.escape,
    "reversed": lambda value: value[::-1],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [VALUE, "żółw-9X!ąęć", "plain8Ch", "long" + "aB3/" * 60])
def test_encoded_forms_are_masked_at_every_split(form, value):
    rules = Rules(exact_secrets(HOST_SECRET, [value]))
    text = f"<{FORMS[form](value)}>\n"
    whole, counts = redact(text, rules)
    assert counts.total() == 1
    # What is left at the edges holds bits of the neighbours too, at most two characters.
    assert len(whole.replace("[redacted: host-secret]", "")) <= 12
    for place in range(0, len(text), 1 + len(text) // 60):
        stream = Stream(rules)
        shown = stream.feed(text[:place], 0.0) + stream.feed(text[place:], 0.0) + stream.flush(0.0)
        assert shown == whole


def test_each_line_of_a_value_is_looked_for():
    rules = Rules(exact_secrets(HOST_SECRET, ["first-line-9x8y\nsecond-line-7z6w\nshort"]))
    assert redact("a second-line-7z6w b", rules)[0] == "a [redacted: host-secret] b"


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(st.text(min_size=8, max_size=80), min_size=1, max_size=3),
    places=st.lists(st.integers(0, 1000), max_size=6),
    around=st.text(max_size=10),
)
def test_any_secret_streams_as_the_whole(values, places, around):
    rules = Rules(exact_secrets(HOST_SECRET, values))
    text = around + "\n".join(values) + around + "\n"
    marks = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    stream = Stream(rules)
    shown = "".join(stream.feed(text[start:end], 0.0) for start, end in pairwise(marks))
    # A text that ends like the beginning of a secret is masked by a stream, not by the whole.
    shown += stream.feed("\x1b[0m" + "\ue123" * 100, 0.0) + stream.flush(0.0)
    assert shown == redact(text + "\x1b[0m" + "\ue123" * 100, rules)[0]


def test_ordinary_values_are_named_and_others_are_not():
    environ = {"DB_PASSWORD": "postgres", "X_TOKEN": "a1B2c3D4e5F6", "HOME": "/root", "Y_KEY": ""}
    assert ordinary_variables(environ) == ("DB_PASSWORD",)
    assert covered_variables(environ) == ("X_TOKEN",)
