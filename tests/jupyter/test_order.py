"""What a child says reaches a frontend whole, in order, soon, and without a secret."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import SECRET, Bench, limited, short

GITHUB = "gh" + "p_" + "a1B2" * 9
SECRETS = (SECRET, GITHUB, "AK" + "IA" + "Z2J4K6Q8R1T3V5X7")
STREAMS = ("stdout", "stderr")


def test_messages_pass_at_once_and_in_order(bench: Bench) -> None:
    request = bench.request()
    bench.write(request, "one\n")
    bench.show(request, "two")
    bench.write(request, "three\n", "stderr")
    bench.say(request, "clear_output", {"wait": False})
    assert bench.shown == ["one\n", "two", "three\n", "clear_output"]
    assert bench.end(request) == {}
    assert bench.shown[-1] == "status"


def test_what_follows_a_held_back_end_waits_behind_it_and_no_longer_than_the_timer(
    bench: Bench,
) -> None:
    request = bench.request()
    bench.write(request, "begin gh")
    bench.write(request, "error\n", "stderr")
    bench.show(request, "picture")
    assert bench.shown == []
    bench.clock.pass_time(0.05)
    assert bench.shown == ["begin gh", "error\n", "picture"]
    assert bench.frontends.sent[-1].when - 1000.0 <= 0.05


def test_the_rest_of_a_held_back_text_stands_behind_what_came_in_between(bench: Bench) -> None:
    request = bench.request()
    bench.write(request, "key: " + GITHUB[:20])
    bench.write(request, "log line\n", "stderr")
    bench.show(request, "picture")
    bench.write(request, GITHUB[20:] + " and more\n")
    assert bench.shown == [
        "key: [redacted: github-token]",
        "log line\n",
        "picture",
        " and more\n",
    ]


def test_two_streams_that_hold_back_keep_their_order(bench: Bench) -> None:
    request = bench.request()
    bench.write(request, "a " + SECRET[:12])
    bench.write(request, "b " + GITHUB[:12], "stderr")
    bench.write(request, SECRET[12:] + " c\n")
    bench.write(request, GITHUB[12:] + " d\n", "stderr")
    bench.end(request)
    assert "".join(bench.shown[:-1]) == (
        "a [redacted: host-secret]b [redacted: github-token] c\n d\n"
    )


@pytest.mark.parametrize("ending", ["end", "prompt", "time"])
def test_an_unfinished_secret_is_masked_when_its_time_is_up(bench: Bench, ending: str) -> None:
    request = bench.request()
    bench.write(request, "token " + SECRET[:20])
    bench.show(request, "after")
    assert bench.shown == []
    if ending == "end":
        bench.end(request)
    elif ending == "prompt":
        assert bench.gate.question(request, {"prompt": "? ", "password": False})
    else:
        bench.clock.pass_time(0.25)
    assert SECRET[:8] not in bench.stream()
    if ending == "time":
        # Only what is undecided waits so long.
        assert bench.shown[:3] == ["token ", "[redacted: host-secret]", "after"]
    else:
        assert bench.shown[:2] == ["token [redacted: host-secret]", "after"]


def test_text_whose_end_is_held_back_is_one_message_with_it(bench: Bench) -> None:
    request = bench.request()
    bench.write(request, "Hello world")  # the last letter may begin a token
    bench.end(request)
    assert bench.shown[0] == "Hello world"


def test_text_that_goes_on_and_on_is_not_late(bench: Bench) -> None:
    request = bench.request()
    for number in range(10):
        bench.write(request, f"\r{number} gh")
        bench.clock.pass_time(0.01)
    assert "4 " in bench.stream()


def test_without_secrets_to_look_for_the_same_text_is_shown() -> None:
    """The control: it is the rules that hold back and mask."""
    bench = Bench(environ={})
    request = bench.request()
    bench.write(request, "token " + SECRET[:16])
    assert bench.shown == ["token " + SECRET[:16]]


def test_a_queue_that_grows_too_long_is_let_go(bench: Bench) -> None:
    request = bench.request()
    bench.write(request, SECRET[:20])
    for number in range(1500):
        bench.show(request, str(number))
    assert "1000" in bench.shown
    assert bench.shown[0] == "[redacted: host-secret]"
    bench.end(request)
    assert [text for text in bench.shown if text.isdigit()] == [str(n) for n in range(1500)]


# --- any split, anything in between -------------------------------------------------------------

fillers = st.sampled_from(
    ["", "x", "ordinary words\n", "gh", "eyJ", "\x1b[31mred\x1b[0m", "\r 40%", "é ", "AKIA", "corr"]
)
others = st.sampled_from(["stream", "display", "update", "clear", "wait", "comm", "pause", "long"])


@st.composite
def sessions(draw: st.DrawFn) -> list[tuple[str, str, str]]:
    """Pieces of texts with secrets in them, for both streams, with other messages in between."""
    pieces: dict[str, list[str]] = {}
    for name in STREAMS:
        text = "".join(
            part
            for _ in range(draw(st.integers(0, 3)))
            for part in (draw(fillers), " ", draw(st.sampled_from((*SECRETS, ""))), "\n")
        )
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
        pieces[name] = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    steps: list[tuple[str, str, str]] = []
    while left := [name for name in STREAMS if pieces[name]]:
        name = draw(st.sampled_from(left))
        steps.append(("text", name, pieces[name].pop(0)))
        if draw(st.integers(0, 3)) == 0:
            steps.append(("other", draw(others), str(len(steps))))
    return steps


@settings(max_examples=300)
@given(sessions(), st.booleans())
def test_no_split_and_nothing_in_between_shows_a_secret_or_loses_anything(
    steps: list[tuple[str, str, str]], chatty: bool
) -> None:
    bench = limited(output_rate=1 if chatty else 10**6)
    request = bench.request()
    printed = dict.fromkeys(STREAMS, "")
    expected: list[str] = []
    cleared = False
    came: dict[str, float] = {}
    for kind, what, text in steps:
        if kind == "text":
            bench.write(request, text, what)
            printed[what] += text
            continue
        cleared = cleared or what in ("clear", "wait")
        came[f"#d{text}"] = bench.clock.time()
        expected += _other(bench, request, what, text)
    bench.end(request)
    _check_no_secret(bench)
    shown = [text for text in bench.shown if text.startswith("#")]
    if not cleared:
        assert [text for text in expected if text.startswith("#d")] == [
            text for text in shown if text.startswith("#d")
        ]
        for name in STREAMS:
            ordinary = printed[name]
            for secret in SECRETS:
                ordinary = ordinary.replace(secret, "")
            assert bench.stream(name).count("ordinary words") == ordinary.count("ordinary words")
    if not chatty:
        late = [s.when - came[short(s)] for s in bench.frontends.sent if short(s) in came]
        assert max(late, default=0) <= 0.25 + 1e-6
    updates = [text for text in expected if text.startswith("#u")]
    assert [text for text in shown if text.startswith("#u")][-1:] == updates[-1:]
    kinds = [sent.kind for sent in bench.frontends.sent]
    assert kinds[-1] == "status"
    assert kinds.count("clear_output") <= sum(s[1] in ("clear", "wait") for s in steps)


def _other(bench: Bench, request: Any, what: str, text: str) -> list[str]:
    if what == "display":
        bench.show(request, f"#d{text}")
        return [f"#d{text}"]
    if what == "update":
        content = {"data": {"text/plain": f"#u{text}"}, "transient": {"display_id": "one"}}
        bench.say(request, "update_display_data", content)
        return [f"#u{text}"]
    if what in ("clear", "wait"):
        bench.say(request, "clear_output", {"wait": what == "wait"})
    elif what == "pause":
        bench.clock.pass_time(0.03)
    elif what == "long":
        bench.clock.pass_time(0.3)
    elif what == "comm":
        bench.say(request, "comm_msg", {"comm_id": "c" * 32, "data": {"method": "update"}})
    return []


def _check_no_secret(bench: Bench) -> None:
    for name in STREAMS:
        text = bench.stream(name)
        for color in ("\x1b[31m", "\x1b[0m"):
            text = text.replace(color, "")
        for secret in SECRETS:
            assert secret not in text
            assert secret[:16] not in text


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(STREAMS), st.text(st.sampled_from("ab \n"), max_size=5))))
def test_ordinary_text_is_whole_whatever_the_rate(texts: list[tuple[str, str]]) -> None:
    bench = limited(output_rate=1)
    request = bench.request()
    for name, text in texts:
        bench.write(request, text, name)
    bench.end(request)
    for name in STREAMS:
        assert bench.stream(name) == "".join(text for to, text in texts if to == name)
    order = "".join(s.content["text"] for s in bench.frontends.sent if s.kind == "stream")
    assert order == "".join(text for _, text in texts)


# --- chatty cells -------------------------------------------------------------------------------


def _updates(bench: Bench, request: Any, count: int) -> None:
    for number in range(count):
        content = {"data": {"text/plain": str(number)}, "transient": {"display_id": "bar"}}
        bench.say(request, "update_display_data", content)
        if number % 100 == 0:
            bench.clock.pass_time(0.001)


def test_of_many_updates_of_a_display_the_last_wins(bench: Bench) -> None:
    request = bench.request()
    _updates(bench, request, 20_000)
    bench.end(request)
    shown = bench.shown[:-1]
    assert shown[-1] == "19999"
    assert len(shown) <= 0.2 * 200 + 10
    assert [int(text) for text in shown] == sorted(map(int, shown))


def test_updates_over_the_cells_limit_still_end_with_the_last() -> None:
    bench = limited(rich_output=2000)
    request = bench.request()
    for number in range(2000):
        content = {"data": {"text/plain": str(number)}, "transient": {"display_id": "bar"}}
        bench.say(request, "update_display_data", content)
        bench.clock.pass_time(0.05)
    bench.end(request)
    assert "1999" in bench.shown
    assert len(bench.shown) < 100


def test_many_small_writes_are_joined(bench: Bench) -> None:
    request = bench.request()
    for number in range(10_000):
        bench.write(request, f"{number}\n")
        if number % 100 == 0:
            bench.clock.pass_time(0.001)
    bench.end(request)
    assert bench.stream() == "".join(f"{number}\n" for number in range(10_000))
    assert len(bench.frontends.sent) <= 0.1 * 200 + 10


def test_states_of_a_widget_are_joined_and_keep_their_place_behind_its_other_messages() -> None:
    bench = limited(output_rate=1)
    bench.html = bench.gate._session.effective.html = 3  # trusted: any comm passes
    request = bench.request()
    bench.write(request, "x")
    comm = {"comm_id": "a" * 32}

    def update(**state: Any) -> None:
        bench.say(request, "comm_msg", {**comm, "data": {"method": "update", "state": state}})

    update(value=1, label="begun")
    update(value=2)
    bench.say(request, "comm_msg", {**comm, "data": {"method": "custom", "content": {}}})
    update(value=3)
    update(value=4)
    bench.end(request)
    data = [s.content["data"] for s in bench.frontends.sent if s.kind == "comm_msg"]
    assert data == [
        {"method": "update", "state": {"value": 2, "label": "begun"}},
        {"method": "custom", "content": {}},
        {"method": "update", "state": {"value": 4}},
    ]


def test_a_progress_text_that_clears_itself_shows_its_last_state(bench: Bench) -> None:
    request = bench.request()
    for number in range(5000):
        bench.say(request, "clear_output", {"wait": True})
        bench.write(request, f"step {number}\n")
    bench.end(request)
    assert bench.shown[-2:] == ["step 4999\n", "status"]
    assert bench.shown[-3] == "clear_output"
    assert len(bench.shown) < 100


def test_a_clear_that_waits_for_something_to_show_goes_out_at_the_end(bench: Bench) -> None:
    request = bench.request()
    bench.write(request, "kept\n")
    bench.say(request, "clear_output", {"wait": True})
    assert bench.shown == ["kept\n"]
    bench.end(request)
    assert bench.shown == ["kept\n", "clear_output", "status"]


def test_a_prompt_does_not_wait_for_a_chatty_cell(bench: Bench) -> None:
    request = bench.request()
    for number in range(1000):
        bench.write(request, f"{number} ", "stdout" if number % 2 else "stderr")
    assert len(bench.shown) < 20
    assert bench.gate.question(request, {"prompt": "? "}) == {"prompt": "? ", "password": False}
    assert "999 " in bench.shown
