"""The head is shown live, the tail at the end, and the totals are true."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.output.caps import (
    Budget,
    MessageBudget,
    byte_length,
    readable_size,
    shortened,
)
from mxc_kernel.output.redaction import Rules, redact

LINES = [f"line {number}\n" for number in range(1000)]


def test_a_short_output_passes_whole_and_without_a_notice():
    budget = Budget(10_000)
    assert "".join(budget.take(line) for line in LINES[:20]) == "".join(LINES[:20])
    assert budget.finish() is None
    assert not budget.cut


def test_head_and_tail_of_a_long_output():
    budget = Budget(1000, tail=300)
    head = "".join(budget.take(line) for line in LINES)
    ending = budget.finish()
    assert ending is not None
    assert head.startswith("line 0\nline 1\n")
    assert head.endswith("\n")
    assert ending.text.endswith("line 998\nline 999\n")
    assert ending.tail[0][1].startswith("line ")
    assert ending.totals.printed == sum(map(len, LINES))
    assert ending.totals.lines == 1000
    assert ending.totals.shown == len(head) + sum(len(text) for _, text in ending.tail) <= 1000
    assert "8.7 KiB" in ending.notice
    assert "1,000 lines" in ending.notice
    assert budget.finish() is None or budget.finish().totals == ending.totals


def test_what_fits_the_limit_is_shown_without_a_notice_though_the_end_came_late():
    budget = Budget(100, tail=40)
    assert budget.take("x" * 90) == "x" * 60
    ending = budget.finish()
    assert ending is not None
    assert ending.text == "x" * 30
    assert ending.totals.hidden == 0


def test_streams_keep_their_order_in_the_tail():
    budget = Budget(40, tail=30)
    for number in range(50):
        budget.take(f"o{number}\n", "stdout")
        budget.take(f"e{number}\n", "stderr")
    ending = budget.finish()
    assert ending is not None
    assert ending.tail[-2:] == (("stdout", "o49\n"), ("stderr", "e49\n"))


def test_no_limit_shows_all():
    budget = Budget(None)
    assert sum(len(budget.take("x" * 1000)) for _ in range(100)) == 100_000
    assert budget.finish() is None


def test_a_limit_of_nothing_shows_nothing_but_the_notice():
    budget = Budget(0)
    assert budget.take("secret\n") == ""
    ending = budget.finish()
    assert ending is not None
    assert ending.tail == ()
    assert "7 B in 1 line" in ending.notice


def test_memory_stays_flat():
    budget = Budget(1 << 20)
    tracemalloc.start()
    try:
        for _ in range(2000):
            budget.take("y" * 50_000 + "\n")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    ending = budget.finish()
    assert ending is not None
    assert ending.totals.printed == 2000 * 50_001
    assert peak < 2 << 20


@pytest.mark.parametrize("gap", [1, 7, 100])
def test_a_secret_cut_by_the_tail_does_not_show_its_rest(gap):
    token = "gh" + "p_" + "a1B2" * 9
    begin, end = (f"-----{word} PRIVATE KEY-----\n" for word in ("BEGIN", "END"))
    key = begin + "A1b2C3d4\n" * 20 + end
    for text in (token, token + " end", key + "end\n"):
        budget = Budget(20, tail=len(text) - gap)
        shown = budget.take("x" * 500 + text)
        ending = budget.finish()
        assert ending is not None
        shown = redact(shown + ending.text, Rules())[0]
        assert "a1B2a" not in shown
        assert "A1b2C" not in shown


@given(
    texts=st.lists(
        st.tuples(st.text(max_size=60), st.sampled_from(["stdout", "stderr"])), max_size=30
    ),
    limit=st.integers(0, 300),
    tail=st.integers(0, 100),
)
def test_the_totals_are_true_and_the_limit_holds(texts, limit, tail):
    budget = Budget(limit, tail=min(tail, limit))
    head = "".join(budget.take(text, stream) for text, stream in texts)
    ending = budget.finish()
    printed = "".join(text for text, _ in texts)
    totals = budget.totals
    assert totals.printed == byte_length(printed)
    assert totals.lines == printed.count("\n")
    assert totals.writes == len(texts)
    assert printed.startswith(head)
    shown = head + ("".join(text for _, text in ending.tail) if ending else "")
    assert byte_length(shown) == totals.shown <= limit
    if totals.hidden:
        assert ending is not None
        assert ending.notice
    else:
        assert sorted(shown) == sorted(printed)
    for stream in ("stdout", "stderr"):
        whole = "".join(text for text, name in texts if name == stream)
        pieces = "".join(text for name, text in (ending.tail if ending else ()) if name == stream)
        assert whole.endswith(pieces)


def test_messages_are_counted_and_a_large_one_is_refused_alone():
    budget = MessageBudget(messages=3, size=1000, single=500)
    assert [budget.admit(size) for size in (100, 600, 100, 500, 100)] == [
        True,
        False,
        True,
        True,
        False,
    ]
    assert "2 outputs of 700 B not shown" in (budget.notice() or "")
    assert MessageBudget().notice() is None


def test_messages_that_change_what_is_there_count_in_bytes_alone():
    budget = MessageBudget(messages=1, size=100)
    assert budget.admit(10)
    assert budget.full
    assert not budget.admit(10)
    assert [budget.admit(30, counts=False) for _ in range(4)] == [True, True, True, False]
    assert budget.refused == 2


def test_a_tail_of_many_turns_is_short():
    budget = Budget(40_000)
    for number in range(50_000):
        budget.take("x\n", "stdout" if number % 2 else "stderr")
    ending = budget.finish()
    assert ending is not None
    assert len(ending.tail) <= 200
    assert ending.totals.printed == 100_000
    assert ending.totals.hidden > 0


def test_nothing_is_kept_where_nobody_will_ask():
    budget = Budget(10, tail=5)
    budget.take("x" * 8)
    assert not budget.over
    budget.stop_keeping()
    tracemalloc.start()
    try:
        for number in range(20_000):
            budget.take("y" * 50, "stdout" if number % 2 else "stderr")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert budget.over
    assert budget.totals.printed == 8 + 20_000 * 50


@given(st.text(max_size=300), st.integers(2, 200))
def test_a_shortened_text_keeps_both_its_ends(text, size):
    short = shortened(text, size)
    if byte_length(text) <= size:
        assert short == text
        return
    head, _, tail = short.partition("\n[cut here: ")
    assert text.startswith(head)
    assert text.endswith(tail.partition(" are not shown]\n")[2])
    assert byte_length(short) <= size + 50


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (10 << 30, "10.0 GiB")],
)
def test_sizes_for_people(count, words):
    assert readable_size(count) == words
