"""A secret is masked whole, however the text is cut, coloured or interleaved."""

from __future__ import annotations

import base64
import codecs
import html
import json
import os
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.output.compiled import BUILT_IN
from mxc_kernel.output.documents import redact_html, redact_json
from mxc_kernel.output.patterns import pattern_rule
from mxc_kernel.output.redaction import (
    HARD_SECONDS,
    HOLD_BOUND,
    SOFT_SECONDS,
    Rules,
    Stream,
    redact,
)
from mxc_kernel.output.secrets import HOST_SECRET, exact_secrets

DATA = Path(__file__).parents[1] / "data" / "redaction" / "examples.json"
SECRETS = ("hunter2!pass%word", 'Zażółć "gęślą" 9x', "prefix-AAAA-1", "prefix-AAAA-12345")


def _decoded(text: str) -> str:
    """The examples are stored reversed and in Base64, so that scanners of the repository rest."""
    return base64.b64decode(text).decode()[::-1]


EXAMPLES = [
    (entry["rule"], *(_decoded(entry[part]) for part in ("before", "secret", "after")))
    for entry in json.loads(DATA.read_text())
]
IDS = [f"{rule}-{index}" for index, (rule, *_) in enumerate(EXAMPLES)]
RULES = Rules(exact_secrets(HOST_SECRET, SECRETS))
each_example = pytest.mark.parametrize(("rule", "before", "secret", "after"), EXAMPLES, ids=IDS)


SPLITS = int(os.environ.get("MXC_KERNEL_SPLITS", "50"))
"""Random splits of each example: more than 10,000 in all, and 2,110,000 by ``make soak``."""


def _streamed(pieces: list[str], rules: Rules = RULES) -> str:
    stream = Stream(rules)
    shown = []
    for piece in pieces:
        shown.append(stream.feed(piece, 0.0))
        assert stream.held <= HOLD_BOUND
        assert (stream.deadline is not None) == (stream.held > 0)
    return "".join(shown) + stream.flush(0.0)


def _cut(text: str, places: list[int]) -> list[str]:
    marks = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(marks)]


def _leaked(secret: str, shown: str) -> list[str]:
    """Six characters in a row of the secret that are still there; labels do not count."""
    shown = re.sub(r"\[redacted: [\w-]+\]", "", shown)
    secret = re.sub("-----[A-Z ]+-----", "", secret)
    core = secret[12:] if len(secret) > 24 else secret[4:]
    return [core[i : i + 6] for i in range(len(core) - 5) if core[i : i + 6] in shown]


@each_example
def test_an_example_is_masked_and_named(rule, before, secret, after):
    text = f"start {before}{secret}{after}end\n"
    shown, counts = redact(text, RULES)
    assert shown == f"start {before}[redacted: {rule}]{after}end\n"
    assert counts == {rule: 1}


def test_every_built_in_rule_has_an_example():
    assert {rule.name for rule in BUILT_IN} == {rule for rule, *_ in EXAMPLES}


@each_example
def test_every_split_point_gives_the_same(rule, before, secret, after):
    text = f"{before}{secret}{after}"
    whole, _ = redact(text, RULES)
    for place in range(len(text) + 1):
        assert _streamed([text[:place], text[place:]]) == whole


@each_example
def test_character_by_character_gives_the_same(rule, before, secret, after):
    text = f"{before}{secret}{after}"
    assert _streamed(list(text)) == redact(text, RULES)[0]


@each_example
def test_colours_inside_do_not_hide_a_secret(rule, before, secret, after):
    middle = len(secret) // 2
    parts = (before, secret[:3], secret[3:middle], secret[middle:], after)
    text = "\x1b[31m" + "\x1b[0m\x1b[1;32m".join(parts) + "\x1b[0m"
    whole, counts = redact(text, RULES)
    assert counts == {rule: 1}
    assert not _leaked(secret, re.sub(r"\x1b\[[\d;]*m", "", whole))
    assert _streamed(list(text)) == whole


@pytest.mark.timeout(120 + SPLITS // 10)
@each_example
def test_random_splits_do_not_leak(rule, before, secret, after):
    chance = random.Random(f"{rule}{before}")
    plain = f"{before}{secret}{after}"
    looks = (
        plain,
        _coloured(plain, chance),
        f"\r{plain}\r 50%|#### | {plain}\r\n",
        f"żółć🙂{plain}é",
    )
    wholes = [redact(text, RULES)[0] for text in looks]
    for number in range(SPLITS):
        text, whole = looks[number % len(looks)], wholes[number % len(looks)]
        if number % 2:
            pieces = _cut(
                text, [chance.randrange(len(text)) for _ in range(chance.randrange(1, 9))]
            )
        else:
            pieces = _cut_bytes(text, chance)
        shown = _streamed(pieces)
        assert shown == whole
        assert not _leaked(secret, re.sub(r"\x1b\[[\d;]*m", "", shown))


def _coloured(text: str, chance: random.Random) -> str:
    """Colour changes at random places, as highlighters of code make them."""
    places = {chance.randrange(len(text)) for _ in range(6)}
    colours = ("\x1b[0m", "\x1b[1;32m", "\x1b[38;5;208m", "\x1b[39;49;00m", "\x1b[K")
    return "".join(
        chance.choice(colours) + character if index in places else character
        for index, character in enumerate(text)
    )


def _cut_bytes(text: str, chance: random.Random) -> list[str]:
    """Cut where a pipe would, inside of characters too."""
    data = text.encode()
    decoder = codecs.getincrementaldecoder("utf-8")()
    places = sorted(chance.randrange(len(data)) for _ in range(chance.randrange(1, 9)))
    return [decoder.decode(data[a:b]) for a, b in pairwise([0, *places, len(data)])]


@each_example
def test_an_example_is_masked_in_displays(rule, before, secret, after):
    text = f"{before}{secret}{after}"
    spans = "".join(f"<span>{html.escape(text[i : i + 7])}</span>" for i in range(0, len(text), 7))
    for markup in (f"<pre>{html.escape(text)}</pre>", f"<pre>{spans}</pre>"):
        shown, counts = redact_html(markup, RULES)
        assert counts
        assert not _leaked(secret, html.unescape(re.sub("<[^>]*>", "", shown)))
    shown, counts = redact_json({"data": {"text/plain": [text, {text: 1}]}}, RULES)
    assert counts[rule] == 2
    assert not _leaked(secret, json.dumps(shown))


@settings(max_examples=400, deadline=None)
@given(
    order=st.lists(st.integers(0, len(EXAMPLES) - 1), min_size=1, max_size=4),
    places=st.lists(st.integers(0, 10_000), max_size=12),
    glue=st.sampled_from(["\n", " ", "\r", " é漢🙂 ", "\x1b[0m\n", "\u200b \n", "'\n", "\r\n"]),
)
def test_random_splits_of_several_secrets(order, places, glue):
    text = glue.join("".join(EXAMPLES[index][1:]) for index in order) + "\n"
    whole, _ = redact(text, RULES)
    assert _streamed(_cut(text, places)) == whole
    for index in order:
        assert not _leaked(EXAMPLES[index][2], whole)


_FRAGMENTS = [
    *("ghp_", "gh", "sk-", "eyJ", "Bearer ", "://", "-----BEGIN ", "-----END ", "PRIVATE KEY-----"),
    *("sig=", "AKIA", "\x1b[31m", "\x1b[", "\x1b]0;", "\x07", "\x1b\\", "\u200b", "\b", "\r", "\n"),
    *("@", ":", "prefix-AAAA-1", "prefix-", "hunter2!pass", "hunter2!pass%word", "a1B2" * 6, "é"),
    *(".", "-", "\ud800", "🙂", " ", "%", "x"),
]


@settings(max_examples=600, deadline=None)
@given(
    fragments=st.lists(st.sampled_from(_FRAGMENTS), max_size=20),
    places=st.lists(st.integers(0, 1000), max_size=8),
)
def test_any_mixture_streams_as_the_whole(fragments, places):
    text = "".join(fragments) + "\x07\n;\n"
    assert _streamed(_cut(text, places)) == redact(text, RULES)[0]


@settings(max_examples=150, deadline=None)
@given(
    pair=st.tuples(*[st.integers(0, len(EXAMPLES) - 1)] * 2),
    places=st.lists(st.tuples(st.integers(0, 5000), st.booleans()), max_size=10),
)
def test_two_streams_interleaved(pair, places):
    texts = ["".join(EXAMPLES[index][1:]) for index in pair]
    streams = [Stream(RULES), Stream(RULES)]
    shown = ["", ""]
    done = [0, 0]
    for place, which in [*places, (10**6, False), (10**6, True)]:
        end = max(done[which], place % (len(texts[which]) + 1) if place < 10**6 else 10**6)
        shown[which] += streams[which].feed(texts[which][done[which] : end], 0.0)
        done[which] = end
    for text, stream, output in zip(texts, streams, shown, strict=True):
        assert output + stream.flush(0.0) == redact(text, RULES)[0]


def test_utf8_boundaries_of_a_decoder():
    text = "żółć hunter2!pass%word 漢字 " + EXAMPLES[0][2] + " 🙂\n"
    data = text.encode()
    whole = redact(text, RULES)[0]
    assert HOST_SECRET in whole
    for place in range(len(data) + 1):
        decoder = codecs.getincrementaldecoder("utf-8")()
        assert _streamed([decoder.decode(data[:place]), decoder.decode(data[place:])]) == whole


def _by(rule: str) -> str:
    return next(secret for name, _, secret, _ in EXAMPLES if name == rule)


def test_a_prefix_is_released_after_a_blink():
    stream = Stream(RULES)
    assert stream.feed("name: gh", 10.0) == "name: "
    assert stream.deadline == pytest.approx(10.0 + SOFT_SECONDS)
    assert SOFT_SECONDS < 0.05
    assert stream.expire(10.01) == ""
    assert stream.expire(10.05) == "gh"
    assert stream.deadline is None
    assert stream.feed("p_" + "a1B2" * 9 + "\n", 11.0) == "[redacted: github-token]\n"


def test_an_unfinished_secret_is_masked_when_its_time_is_over():
    secret = _by("github-token")
    stream = Stream(RULES)
    assert stream.feed(secret[:20], 0.0) == ""
    assert stream.deadline == pytest.approx(HARD_SECONDS)
    assert stream.expire(0.3) == "[redacted: github-token]"
    assert stream.feed(secret[20:] + " x\n", 0.4) == " x\n"


def test_slow_dripping_shows_at_most_three_characters():
    secret = "hunter2!pass%word"
    stream = Stream(RULES)
    shown = ""
    for step, character in enumerate(secret):
        shown += stream.feed(character, step * 1.0)
        shown += stream.expire(step + 0.9)
    shown += stream.feed("\n", 100.0)
    assert shown == f"{secret[:3]}[redacted: {HOST_SECRET}]\n"


def test_a_complete_secret_that_may_go_on_is_masked_at_the_prompt():
    stream = Stream(RULES)
    assert stream.feed("prefix-AAAA-1", 0.0) == ""
    assert stream.flush(0.01) == f"[redacted: {HOST_SECRET}]"


@pytest.mark.parametrize(
    "prompt",
    ["Password: ", "In [3]: ", ">>> ", "Continue? [y/N] ", "on http://localhost:8888", "50%|█"],
)
def test_prompts_and_bars_are_not_held(prompt):
    stream = Stream(RULES)
    shown = stream.feed(prompt, 0.0) + stream.expire(SOFT_SECONDS + 0.001)
    assert shown == prompt


def test_a_carriage_return_bar_passes_at_once():
    stream = Stream(RULES)
    for percent in range(100):
        bar = f"\r{percent:3d}%|{'#' * percent} | {percent}/100 [00:01<00:02, 41.3it/s]"
        assert stream.feed(bar, 0.0) == bar


def test_a_private_key_without_an_end_stops_at_the_first_foreign_character():
    text = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKC\n" + "{ordinary} text\n"
    assert redact(text, RULES)[0] == "[redacted: private-key]{ordinary} text\n"


@pytest.mark.parametrize(
    "text",
    [
        'if line.startswith("-----BEGIN RSA PRIVATE KEY-----"):\n    return load(line)\n',
        "It begins with `-----BEGIN PRIVATE KEY-----` and ends\n",
        "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAg\n-----END CERTIFICATE-----\n",
    ],
)
def test_where_only_the_first_line_is_spoken_of_nothing_is_masked(text):
    assert redact(text, RULES) == (text, {})


def test_a_private_key_without_an_end_stops_after_16_kib():
    head = "-----BEGIN PRIVATE KEY-----"
    body = "\n" + ("A" * 63 + "\n") * 400
    shown, _ = redact(head + body, RULES)
    confirmed = 9  # characters of the body
    assert shown == "[redacted: private-key]" + body[confirmed + (16 << 10) :]
    assert _streamed(_cut(head + body, [5000, 10_000, 15_000, 17_000, 20_000])) == shown


def test_operator_patterns_grow_with_the_text():
    rules = Rules(operator=[pattern_rule("acme", "ACME-[0-9]{4,}")])
    text = "id ACME-1234567 ok\n"
    for place in range(len(text)):
        assert _streamed([text[:place], text[place:]], rules) == "id [redacted: acme] ok\n"
    assert redact("ACME-1234", rules)[0] == "[redacted: acme]"


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "abc(?:a+)+b",
            "abc(?:a|aa)*b",
            r"abc\w*\w*\d",
            r"abc(.+)\1",
            "abc.*(?=x)",
            "abc(?:.?){40}",
        ),
        *(
            "a|bcd",
            "[abc]d",
            "abc*(",
            "(?i)abcd",
            "ab.*",
            "(abc)",
            "",
            r"\d+",
            "abcd|",
            "abc(a)b(c)",
        ),
    ],
)
def test_patterns_that_cannot_be_searched_for_are_refused(pattern):
    with pytest.raises(SandboxPolicyError) as caught:
        pattern_rule("mine", pattern)
    assert caught.value.remedy


def test_the_rules_in_use_can_be_exchanged():
    rules = Rules()
    stream = Stream(rules)
    assert stream.feed("ACME-12345678\n", 0.0) == "ACME-12345678\n"
    rules.take_over(Rules(operator=[pattern_rule("acme", "ACME-[0-9]{4,}")]))
    assert stream.feed("ACME-12345678\n", 0.0) == "[redacted: acme]\n"


@pytest.mark.parametrize(
    "text", ["1sig=" + "A" * 42, "glpat-" + "a1" * 12 + ".", "1sig=" + "%41" * 42]
)
def test_a_text_of_nothing_but_anchors_takes_time_in_proportion(text):
    # By the square of its length this would take minutes.
    shown, counts = redact(text * 20_000, RULES)
    assert len(shown) < 1000
    assert counts.total() <= 2


def test_exceptions_are_shown():
    secret = _by("aws-access-key")
    rules = Rules(exceptions=[secret])
    other = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    text = f"{secret} {other}\n"
    for place in range(len(text)):
        shown = _streamed([text[:place], text[place:]], rules)
        assert shown == f"{secret} [redacted: aws-access-key]\n"
    assert redact(secret, RULES)[0] == "[redacted: aws-access-key]"


def test_long_random_stream_equals_the_whole():
    chance = random.Random(7)
    text = "".join("".join(chance.choice(EXAMPLES)[1:]) + " filler \n" * 9 for _ in range(300))
    whole, counts = redact(text, RULES)
    assert counts.total() == 300
    stream = Stream(RULES)
    pieces = []
    while text:
        size = chance.choice((1, 2, 7, 80, 400))
        pieces.append(stream.feed(text[:size], 0.0))
        text = text[size:]
    assert "".join(pieces) + stream.flush(0.0) == whole
    assert stream.counts == counts


def test_the_documentation_lists_every_rule_and_what_it_is_found_by():
    found: dict[str, dict[str, None]] = {}
    for rule in BUILT_IN:
        found.setdefault(rule.name, {}).update((anchor.strip(), None) for anchor in rule.anchors)
    rows = []
    for name, anchors in sorted(found.items()):
        few = " ".join(f"`{anchor}`" for anchor in list(anchors)[:5])
        rows.append(f"| {name} | {few}{' …' if len(anchors) > 5 else ''} |")
    page = (Path(__file__).parents[2] / "docs" / "redaction.md").read_text(encoding="utf-8")
    assert page.partition("|---|---|\n")[2].splitlines() == rows
