"""What passes the gate, how much of it, and what it says about the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.jupyter.shapes import PUBLICATIONS
from mxc_kernel.policy import Exceeded, HtmlLevel
from mxc_kernel.views import notice

from .conftest import SECRET, Bench, limited

GITHUB = "gh" + "p_" + "a1B2" * 9
DISPLAY = {"data": {"text/plain": "x"}, "metadata": {}, "transient": {}}
GOOD: dict[str, dict[str, Any]] = {
    "clear_output": {"wait": False},
    "comm_close": {"comm_id": "a" * 32, "data": {}},
    "comm_msg": {"comm_id": "a" * 32, "data": {"method": "update", "state": {"value": 1}}},
    "comm_open": {
        "comm_id": "a" * 32,
        "target_name": "made.up",
        "target_module": None,
        "data": {"state": {}},
    },
    "debug_event": {"type": "event", "event": "stopped", "body": {"threadId": 1}},
    "display_data": DISPLAY,
    "error": {"ename": "E", "evalue": "why", "traceback": ["one", "two"]},
    "execute_result": {**DISPLAY, "execution_count": 1},
    "update_display_data": {**DISPLAY, "transient": {"display_id": "one"}},
}


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GOOD)
def test_a_publication_of_each_type_passes_as_it_is(kind: str) -> None:
    bench = Bench(html=HtmlLevel.TRUSTED)
    request = bench.request()
    more = {"field": 1, "nobody": "knows"} if kind != "debug_event" else {}
    bench.say(request, kind, {**GOOD[kind], **more}, {"version": "2.1", "mxc": {"note": "x"}})
    (sent,) = bench.frontends.sent
    assert (sent.kind, sent.content) == (kind, GOOD[kind])
    assert sent.metadata == ({"version": "2.1"} if kind == "comm_open" else {})
    assert not bench.gate.dropped


def test_every_publication_has_an_example() -> None:
    assert set(GOOD) == set(PUBLICATIONS)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("stream", {"name": "stdout", "text": 1}),
        ("stream", {"name": "stdout", "text": None}),
        ("stream", {"name": "stdlog", "text": "x"}),
        ("stream", {"name": ["stdout"], "text": "x"}),
        ("stream", {}),
        ("display_data", {**DISPLAY, "data": "x"}),
        ("display_data", {**DISPLAY, "data": ["x"]}),
        ("display_data", {**DISPLAY, "metadata": 1}),
        ("display_data", {**DISPLAY, "transient": {"display_id": 1}}),
        ("display_data", {**DISPLAY, "transient": {"display_id": "x" * 1000}}),
        ("update_display_data", DISPLAY),
        ("execute_result", {**DISPLAY, "execution_count": "1"}),
        ("execute_result", {**DISPLAY, "execution_count": 10**400}),
        ("execute_result", {**DISPLAY, "execution_count": True}),
        ("error", {**GOOD["error"], "ename": {"a": 1}}),
        ("error", {**GOOD["error"], "traceback": "text"}),
        ("error", {**GOOD["error"], "traceback": [1]}),
        ("comm_open", {**GOOD["comm_open"], "comm_id": 1}),
        ("comm_open", {**GOOD["comm_open"], "target_name": "a\nb"}),
        ("comm_msg", {**GOOD["comm_msg"], "data": [1]}),
        ("debug_event", {"event": 1}),
    ],
)
def test_another_shape_is_dropped_and_counted(
    bench: Bench, kind: str, content: dict[str, Any]
) -> None:
    bench.say(bench.request(), kind, content)
    assert bench.frontends.sent == []
    assert sum(bench.gate.dropped.values()) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.sampled_from(sorted({*GOOD, "stream"})), st.data())
def test_any_content_is_dropped_or_passes_in_its_shape(kind: str, data: st.DataObject) -> None:
    bench = Bench()
    good = GOOD.get(kind, {"name": "stdout", "text": "x"})
    content = dict(good)
    for key in data.draw(st.lists(st.sampled_from([*content, "x"]), max_size=3)):
        content[key] = data.draw(json_values)
    request = bench.request()
    bench.say(request, kind, content, data.draw(st.dictionaries(st.text(max_size=5), json_values)))
    bench.end(request)
    for sent in bench.frontends.sent:
        if sent.kind == kind and kind != "debug_event":
            assert set(sent.content) <= set(good)
            json.dumps(sent.content, allow_nan=False)
    assert len(bench.gate.dropped) <= 1


def test_reasons_are_few_whatever_the_child_sends(bench: Bench) -> None:
    request = bench.request()
    for number in range(100):
        content = {**GOOD["comm_open"], "comm_id": f"id {number}", "target_name": f"t{number}"}
        bench.say(request, "comm_open", content)
        bench.say(request, "stream", {"name": f"s{number}", "text": "x"})
    bench.end(request)
    assert len(bench.gate.dropped) <= 2
    assert sum(bench.gate.dropped.values()) == 200


def test_a_result_has_the_hosts_count(bench: Bench) -> None:
    request = bench.request()
    bench.gate.begin_cell(request, bench.limits, 7)
    bench.say(request, "execute_result", {**DISPLAY, "execution_count": 99})
    assert bench.frontends.sent[0].content["execution_count"] == 7


@pytest.mark.parametrize("level", HtmlLevel)
def test_libraries_are_looked_for_once_and_where_figures_are_drawn(level: HtmlLevel) -> None:
    bench = Bench(html=level)
    for count in (1, 2):
        bench.gate.begin_cell(bench.request(), bench.limits, count)
    assert bench.libraries.prepared == (level is HtmlLevel.FRAME)


def test_binary_parts_pass_with_comm_messages_only(bench: Bench) -> None:
    bench.say(bench.request(), "display_data", DISPLAY, buffers=[b"x"])
    assert bench.frontends.sent[0].buffers == []
    assert sum(bench.gate.dropped.values()) == 1


def test_an_error_is_redacted_over_its_lines_and_not_too_long(bench: Bench) -> None:
    key = ["-----BEGIN " + "PRIVATE KEY-----", *["QUJD" * 16] * 3, "-----END " + "PRIVATE KEY-----"]
    many = [f"line {number}" for number in range(100_000)]
    content = {"ename": "E", "evalue": f"{SECRET} {'x' * 100_000}", "traceback": [*key, *many]}
    bench.say(bench.request(), "error", content)
    (sent,) = bench.frontends.sent
    assert "QUJD" not in str(sent.content)
    assert SECRET not in str(sent.content)
    assert sent.content["traceback"][-1] == "line 99999"
    assert "cut here" in str(sent.content["traceback"])
    assert len(str(sent.content)) < 500_000


# --- limits -------------------------------------------------------------------------------------


def _notes(bench: Bench) -> list[dict[str, Any]]:
    return [
        sent.content
        for sent in bench.frontends.sent
        if sent.kind == "display_data" and "mxc" in sent.content["metadata"]
    ]


def test_text_over_the_limit_keeps_head_and_tail_and_says_so_once() -> None:
    bench = limited(output=1000)
    request = bench.request()
    for number in range(1000):
        bench.write(request, f"line {number}\n")
    facts = bench.end(request)
    assert bench.stream().startswith("line 0\n")
    assert bench.stream().endswith("line 999\n")
    (note,) = _notes(bench)
    printed = sum(len(f"line {number}\n") for number in range(1000))
    assert facts["truncated"]["printed"] == printed
    assert note["metadata"]["mxc"] == {"note": "blocked", "truncated": facts["truncated"]}
    assert "not kept" in note["data"]["text/plain"]


@given(st.integers(0, 60), st.integers(0, 30), st.integers(0, 120))
def test_a_secret_on_the_border_of_head_and_tail_is_not_shown_in_part(
    before: int, after: int, room: int
) -> None:
    text = "-" * before + f" {GITHUB}\n" + "-" * after
    bench = limited(output=len(text) + room)
    request = bench.request()
    for part in (text[: len(text) // 2], text[len(text) // 2 :]):
        bench.write(request, part)
    facts = bench.end(request)
    assert "truncated" not in facts
    assert bench.stream() == "-" * before + " [redacted: github-token]\n" + "-" * after


def test_pictures_over_the_limits_are_refused_and_said_once() -> None:
    bench = limited(rich_output=5000, single_output=2000, outputs=50)
    request = bench.request()
    bench.show(request, "x" * 3000)
    bench.show(request, "small")
    assert bench.shown == ["small"]
    for _ in range(10):
        bench.show(request, "x" * 1000)
    facts = bench.end(request)
    assert 2 <= len([text for text in bench.shown if len(text) == 1000]) <= 4
    (note,) = _notes(bench)
    assert note["metadata"]["mxc"]["outputs_refused"] == facts["outputs_refused"] >= 6


def test_streams_that_take_turns_count_as_outputs() -> None:
    bench = limited(outputs=20)
    request = bench.request()
    for number in range(1000):
        bench.write(request, f"{number}\n", "stdout" if number % 2 else "stderr")
    bench.end(request)
    assert len(bench.frontends.sent) < 20 + 200 + 10
    assert "999\n" in bench.shown


def test_the_session_has_a_limit_of_its_own() -> None:
    bench = limited(session_output=5000)
    facts = {}
    for _ in range(10):
        request = bench.request()
        bench.write(request, "x" * 1000 + "\n")
        bench.show(request, "y" * 900)
        bench.say(request, "error", GOOD["error"])
        facts = bench.end(request)
    assert len(bench.stream()) <= 6000
    assert facts["truncated"]["shown"] == 0
    assert facts["outputs_refused"] == 2
    assert [sent.kind for sent in bench.frontends.sent].count("error") == 10


@pytest.mark.parametrize("exceeded", list(Exceeded))
@pytest.mark.parametrize("how", ["text", "picture"])
def test_a_cell_over_a_limit_is_stopped_where_the_policy_says_so(
    exceeded: Exceeded, how: str
) -> None:
    bench = limited(output=1000, rich_output=1000, output_exceeded=exceeded)
    stopped = []
    bench.gate.stop_with(stopped.append)
    request = bench.request()
    bench.write(request, "x" * 900 + "\n")
    bench.show(request, "x" * 500)
    assert stopped == []
    for _ in range(3):
        if how == "text":
            bench.write(request, "x" * 900 + "\n")
        else:
            bench.show(request, "x" * 900)
    bench.clock.pass_time(1)
    assert stopped == ([request] if exceeded is Exceeded.STOP else [])


def test_output_after_a_cells_end_is_bounded_too(bench: Bench) -> None:
    request = bench.request()
    bench.write(request, "in the cell\n")
    bench.end(request)
    bench.write(request, "late\n")
    assert bench.shown[-1] == "late\n"
    for number in range(3000):
        bench.write(request, f"{number} " + "x" * 1000 + "\n")
        bench.clock.pass_time(0.01)
    bench.clock.pass_time(1)
    assert len(bench.stream()) < (1 << 20) + 2000
    assert len(_notes(bench)) == 1
    assert "after its cell had ended" in bench.shown[-1]


def test_output_without_a_parent_is_bounded_too(bench: Bench) -> None:
    for _ in range(3000):
        bench.write(None, "x" * 1000 + "\n")
        bench.clock.pass_time(0.01)
    bench.clock.pass_time(1)
    assert 1 << 19 < len(bench.stream()) < (1 << 20) + 2000
    assert len(_notes(bench)) == 1


# --- the host's own words -----------------------------------------------------------------------


def test_what_the_host_says_comes_back_after_a_clear(bench: Bench) -> None:
    request = bench.request()
    bench.gate.note(request, notice("granted"))
    bench.gate.begin_cell(request, bench.limits, 1)
    bench.say(request, "display_data", {**DISPLAY, "data": {"application/x-made-up": {}}})
    bench.say(request, "clear_output", {"wait": False})
    bench.write(request, "after\n")
    bench.say(request, "clear_output", {"wait": True})
    bench.write(request, "end\n")
    facts = bench.end(request)
    after = bench.shown[bench.shown.index("clear_output") + 1 :]
    notes = ["granted", *facts.get("not_shown", [])]
    assert after == [*notes, "after\n", "clear_output", *notes, "end\n", "status"]


def test_notes_at_the_end_are_not_what_a_waiting_clear_makes_room_for() -> None:
    bench = limited(output=100)
    request = bench.request()
    bench.write(request, "x" * 1000)
    bench.say(request, "clear_output", {"wait": True})
    bench.gate.finish(request)
    bench.gate.note(request, notice("blocked"))
    bench.gate.idle(request)
    kinds = bench.shown
    assert kinds.index("blocked") < kinds.index("clear_output")


def test_a_widget_that_takes_a_cells_output_does_not_take_the_hosts_words() -> None:
    bench = limited(output=100)
    request = bench.request()
    state = {
        "_model_name": "OutputModel",
        "_model_module": "@jupyter-widgets/output",
        "_model_module_version": "1.0.0",
        "_view_name": "OutputView",
        "_view_module": "@jupyter-widgets/output",
        "_view_module_version": "1.0.0",
        "msg_id": "",
        "outputs": [],
    }
    comm = {"comm_id": "a1" * 16}
    opened = {**comm, "target_name": "jupyter.widget", "data": {"state": state}}
    bench.say(request, "comm_open", opened, {"version": "2.1.0"})
    taken = {"method": "update", "state": {"msg_id": request.msg_id}, "buffer_paths": []}
    bench.say(request, "comm_msg", {**comm, "data": taken})
    bench.write(request, "x" * 1000)
    bench.end(request)
    kinds = [sent.kind for sent in bench.frontends.sent]
    last = [s.content["data"]["state"] for s in bench.frontends.sent if s.kind == "comm_msg"]
    assert last == [{"msg_id": request.msg_id}, {"msg_id": ""}]
    note = next(i for i, s in enumerate(bench.frontends.sent) if s.content in _notes(bench))
    assert kinds.index("comm_msg") < len(kinds) - 1 - kinds[::-1].index("comm_msg") < note


@pytest.mark.parametrize("more", [{}, {"text/plain": "a box"}])
def test_of_a_widget_that_was_refused_only_its_text_is_shown(
    bench: Bench, more: dict[str, str]
) -> None:
    request = bench.request()
    state = {
        "_model_name": "LabelModel",
        "_model_module": "@jupyter-widgets/controls",
        "_model_module_version": "2.0.0",
        "_view_name": "LabelView",
        "_view_module": "@jupyter-widgets/controls",
        "_view_module_version": "2.0.0",
        "value": "x",
    }
    for comm, module in (("a1" * 16, "@jupyter-widgets/controls"), ("b2" * 16, "pwned")):
        opened = {"target_name": "jupyter.widget", "data": {"state": dict(state)}}
        opened["data"]["state"]["_model_module"] = module  # type: ignore[index]
        bench.say(request, "comm_open", {"comm_id": comm, **opened}, {"version": "2.1.0"})
        view = {"model_id": comm, "version_major": 2, "version_minor": 0}
        data = {"application/vnd.jupyter.widget-view+json": view, **more}
        bench.say(request, "display_data", {**DISPLAY, "data": data})
    bench.end(request)
    shown = [s.content["data"] for s in bench.frontends.sent if s.kind == "display_data"]
    views = [data for data in shown if "application/vnd.jupyter.widget-view+json" in data]
    assert len(views) == 1
    assert (more in shown) == bool(more)
    left_out = "[not shown: a widget: it was left out"
    assert any(left_out in data.get("text/plain", "") for data in shown) != bool(more)


def test_a_child_cannot_imitate_the_hosts_words(bench: Bench) -> None:
    request = bench.request()
    fake = {"mxc": {"note": "blocked"}}
    bench.say(request, "display_data", {**DISPLAY, "metadata": fake}, fake)
    assert _notes(bench) == []
    bench.gate.note(request, notice("real"))
    assert len(_notes(bench)) == 1


# --- questions ----------------------------------------------------------------------------------


def test_a_question_is_a_short_text_without_secrets(bench: Bench) -> None:
    request = bench.request()
    content = {"prompt": f"{SECRET}? \x1b]0;title\x07", "password": 1, "more": 1}
    assert bench.gate.question(request, content) == {
        "prompt": "[redacted: host-secret]? ",
        "password": False,
    }
    long = bench.gate.question(request, {"prompt": "x" * 10_000, "password": True})
    assert long is not None
    assert len(long["prompt"]) == 4096
    assert long["password"] is True
    assert bench.gate.question(request, {"prompt": {}}) is None
