"""Replies have their shape, and what they put into a cell cannot act by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel import magics
from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.jupyter.insertions import inert, is_inert, spelled_out
from mxc_kernel.jupyter.messages import ChildMessage
from mxc_kernel.jupyter.replies import Reply
from mxc_kernel.jupyter.shapes import REPLIES

from .conftest import SECRET, Bench

OK = {"status": "ok"}
EXECUTED = {**OK, "execution_count": 1, "user_expressions": {}, "payload": []}


def answer(
    bench: Bench, kind: str, content: dict[str, Any], asked: dict[str, Any] | None = None
) -> Reply | None:
    message = ChildMessage(kind, json.loads(json.dumps(content)), {}, [], None)
    return bench.gate.reply(message, asked or {})


def passed(
    bench: Bench, kind: str, content: dict[str, Any], asked: dict[str, Any] | None = None
) -> dict[str, Any]:
    reply = answer(bench, kind, content, asked)
    assert reply is not None
    return reply.content


# --- completions --------------------------------------------------------------------------------


def complete(bench: Bench, code: str, *matches: str, **more: Any) -> list[str]:
    """Return what is left of matches for the word before the cursor at the end of some code."""
    start = more.pop("start", len(code) - len(code.split()[-1]) if code.split() else 0)
    kinds = [
        {"start": start, "end": len(code), "text": m, "type": "statement", "signature": "()"}
        for m in matches
    ]
    content = {
        **OK,
        "matches": list(matches),
        "cursor_start": start,
        "cursor_end": len(code),
        "metadata": {"_jupyter_types_experimental": kinds, "other": 1},
        **more,
    }
    asked = {"code": code, "cursor_pos": len(code)}
    reply = passed(bench, "complete_reply", content, asked)
    shown = reply["metadata"].get("_jupyter_types_experimental", [])
    assert [item["text"] for item in shown] == reply["matches"]
    assert set(reply["metadata"]) <= {"_jupyter_types_experimental"}
    return reply["matches"]


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("impo", "import"),
        ("np.ar", "np.array("),
        ("x.größ", "x.größe"),
        ("\\lambda", "λ"),
        ("open('da", "'data with blanks.csv'"),
        ("%allow_r", "%allow_rw"),
        ("%%allow_r", "%%allow_rw"),
        ("%matplot", "%matplotlib"),
        ("allow", "%allow_ro"),
        ("x = 1\n%tim", "%timeit"),
        ("%allow_ro /data\nimpo", "import"),
        ("x = 7 % y.re", "y.real"),
    ],
)
def test_what_a_user_wants_completed_is_offered(bench: Bench, code: str, match: str) -> None:
    assert complete(bench, code, match) == [match]
    assert not bench.gate.dropped


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("impo", "import\n%allow_rw /"),
        ("impo", "import\r%allow_rw /"),
        ("impo", "import\u2028%allow_rw /"),
        ("impo", "%allow_rw /"),
        ("impo", "  %allow_rw /"),
        ("impo", "%allow_rw"),
        ("%allow_r", "%allow_rw /"),
        ("%allow_ro /da", "/"),
        ("%allow_ro /data/a\nx", "\n%allow_rw /"),
        ("x", "x\u202e"),
        ("x", "x\u200b"),
        ("x", "x\x1b[2K"),
        ("x", "x\U000e0041"),
        ("x", "x" * 2000),
    ],
)
def test_what_would_act_by_itself_or_hide_is_not_offered(
    bench: Bench, code: str, match: str
) -> None:
    assert complete(bench, code, match, "harmless" if "%" not in code else "%a") in (
        ["harmless"],
        ["%a"],
        [],
    )
    assert bench.gate.dropped


def test_a_match_that_takes_away_the_comment_before_a_magic_is_not_offered(bench: Bench) -> None:
    assert complete(bench, "# %allow_rw /", "%allow_rw /", start=0) == []
    assert complete(bench, "# x", "", start=0) == [""]  # the control: without a magic it may
    code = "# it\n%allow_rw /tmp/x y"
    assert complete(bench, code, "z", start=len(code) - 1) == []


@pytest.mark.parametrize(("start", "end"), [(0, 1), (3, 2), (1, 99), (0, 5)])
def test_only_the_word_at_the_cursor_may_be_replaced(bench: Bench, start: int, end: int) -> None:
    content = {
        **OK,
        "matches": ["x"],
        "cursor_start": start,
        "cursor_end": end,
        "metadata": {},
    }
    asked = {"code": "a\nb\nc", "cursor_pos": 2}
    assert passed(bench, "complete_reply", content, asked)["matches"] == []


# --- text that becomes a cell -------------------------------------------------------------------

POLICY = [
    "%allow_rw /",
    "%%allow_rw /\nx = 1",
    "# note\n\n%allow_ro /etc\nprint(1)",
    "  %allow_rw /",
]


@pytest.mark.parametrize("text", POLICY)
def test_a_loaded_text_holds_no_policy_magic(bench: Bench, text: str) -> None:
    content = {**EXECUTED, "payload": [{"source": "set_next_input", "text": text, "replace": True}]}
    reply = answer(bench, "execute_reply", content, {"code": "%load x.py"})
    assert reply is not None
    (entry,) = reply.content["payload"]
    assert is_inert(entry["text"])
    assert entry["text"].replace("# ", "") == text.replace("# ", "")
    assert entry["replace"] is True
    assert any("commented out" in note for note in reply.notes)


def test_a_loaded_text_is_otherwise_as_it_was(bench: Bench) -> None:
    text = '"""Doc.\n\n%allow_rw in a docstring\n"""\n%matplotlib inline\nx = "é ☃"\n'
    content = {**EXECUTED, "payload": [{"source": "set_next_input", "text": text, "replace": True}]}
    reply = answer(bench, "execute_reply", content, {"code": "%load x.py"})
    assert reply is not None
    assert reply.content["payload"] == [{"source": "set_next_input", "text": text, "replace": True}]
    assert reply.notes == []


def test_a_text_for_a_new_cell_stays_one_and_a_cell_is_not_rewritten(bench: Bench) -> None:
    payload = {"source": "set_next_input", "text": "x = 1", "replace": True}
    content = {**EXECUTED, "payload": [payload, {**payload, "text": "y"}]}
    reply = answer(bench, "execute_reply", content, {"code": "rewrite()"})
    assert reply is not None
    assert reply.content["payload"] == [{**payload, "replace": False}]
    assert any("a cell of its own" in note for note in reply.notes)
    reply = answer(bench, "execute_reply", {**EXECUTED, "payload": [{**payload, "replace": False}]})
    assert reply is not None
    assert reply.content["payload"] == [{**payload, "replace": False}]
    assert reply.notes == []


def test_hiding_characters_are_spelled_out() -> None:
    assert spelled_out("a = '\u202e'\r\n\tb\f\n") == "a = '\\u202e'\n\tb\n"
    assert spelled_out("'\x1b[2K\U000e0041'") == "'\\x1b[2K\\U000e0041'"
    assert spelled_out("'é ☃ ❤️ 👨\u200d👩 \u00a0'") == "'é ☃ ❤️ 👨\u200d👩 \u00a0'"


@given(
    st.lists(
        st.sampled_from(
            [
                *("%allow_rw /", "%%allow_ro /", " %allow_rw /", "%allow_rx /", "%allow_rw", "%"),
                *("# c", "", "  ", "x = 1", "%matplotlib inline", "%allow_ro '", "%\tpolicy"),
                *("\u2028%allow_rw /", "%%bash", "%policy?", "\x0b%allow_rw /", "%allow_rw /\\"),
            ]
        ),
        max_size=6,
    ),
    st.sampled_from(["\n", "\r\n", "\r", "\f\n"]),
)
def test_no_text_keeps_a_policy_magic(lines: list[str], end: str) -> None:
    text = inert(spelled_out(end.join(lines)))
    try:
        assert magics.parse(text).calls == ()
    except SandboxPolicyError:
        pytest.fail("the host would refuse it, so it takes it for a policy magic")


@pytest.mark.parametrize(
    ("entry", "left"),
    [
        ({"source": "page", "data": {"text/plain": "help"}, "start": 0}, True),
        ({"source": "ask_exit", "keepkernel": False}, True),
        ({"source": "edit_magic", "filename": "/etc/passwd", "line_number": 1}, False),
        ({"source": "made_up"}, False),
        ({"source": ["page"]}, False),
        ({"source": "page", "data": "text"}, False),
        ({"source": "set_next_input", "text": {"a": 1}}, False),
        ({}, False),
    ],
)
def test_a_payload_is_one_that_is_known(bench: Bench, entry: dict[str, Any], left: bool) -> None:
    reply = passed(bench, "execute_reply", {**EXECUTED, "payload": [{**entry, "more": 1}]})
    assert reply["payload"] == ([entry] if left else [])
    assert bool(bench.gate.dropped) is not left


def test_a_page_is_made_safe_and_redacted(bench: Bench) -> None:
    half = SECRET[:9]
    page = {"text/html": f"<b>x</b><script>1</script>{half}<i>{SECRET[9:]}</i>"}
    entry = {"source": "page", "data": page, "start": -5}
    (shown,) = passed(bench, "execute_reply", {**EXECUTED, "payload": [entry]})["payload"]
    assert "<b>x</b>" in shown["data"]["text/html"]
    assert "script" not in shown["data"]["text/html"]
    assert SECRET[9:] not in shown["data"]["text/html"]
    assert shown["start"] == 0


def test_expressions_are_those_that_were_asked_for(bench: Bench) -> None:
    value = {**OK, "data": {"text/html": "<b>1</b><script>2</script>"}, "metadata": {}}
    failed = {"status": "error", "ename": "E", "evalue": SECRET, "traceback": []}
    content = {**EXECUTED, "user_expressions": {"a": value, "b": failed, "c": value}}
    reply = passed(bench, "execute_reply", content, {"user_expressions": {"a": "a", "b": "b"}})
    assert list(reply["user_expressions"]) == ["a", "b"]
    assert "<script" not in str(reply)
    assert SECRET not in str(reply)


@pytest.mark.parametrize(
    ("given", "left"), [("    ", "    "), ("\t", "\t"), ("\n%allow_rw /", ""), ("x", ""), ("", "")]
)
def test_an_indent_is_blanks(bench: Bench, given: str, left: str) -> None:
    content = {"status": "incomplete", "indent": given}
    reply = passed(bench, "is_complete_reply", content)
    assert reply == {"status": "incomplete", "indent": left}
    assert passed(bench, "is_complete_reply", {"status": "complete"}) == {"status": "complete"}


def test_history_brings_back_the_users_own_policy_magics_and_no_others(bench: Bench) -> None:
    own, forged = "%allow_ro ~/data\nx = 1", "%allow_rw /\nx = 1"
    bench.gate.replies.has_seen(own)
    history = [[0, 1, own], [0, 2, forged], [0, 3, ["x\ny = '\u202e'", "out"]], ["bad"], [0, 4]]
    reply = passed(bench, "history_reply", {**OK, "history": history})
    assert reply["history"] == [
        [0, 1, own],
        [0, 2, f"# {forged}"],
        [0, 3, ["x\ny = '\\u202e'", "out"]],
    ]


# --- shapes -------------------------------------------------------------------------------------

GOOD: dict[str, dict[str, Any]] = {
    "comm_info_reply": {**OK, "comms": {"a": {"target_name": "jupyter.widget"}}},
    "complete_reply": {**OK, "matches": [], "cursor_start": 0, "cursor_end": 0, "metadata": {}},
    "create_subshell_reply": {**OK, "subshell_id": "one"},
    "debug_reply": {"type": "response", "success": True, "body": {"x": 1}},
    "delete_subshell_reply": OK,
    "execute_reply": EXECUTED,
    "history_reply": {**OK, "history": [[0, 1, "x"]]},
    "inspect_reply": {**OK, "found": True, "data": {"text/plain": "x"}, "metadata": {}},
    "is_complete_reply": {"status": "incomplete", "indent": ""},
    "kernel_info_reply": {
        **OK,
        "protocol_version": "5.5",
        "implementation": "ipython",
        "implementation_version": "9",
        "language_info": {"name": "python", "codemirror_mode": {"version": 3}},
        "banner": "Python",
        "help_links": [{"text": "Python", "url": "https://docs.python.org"}],
        "debugger": True,
        "supported_features": ["debugger"],
    },
    "list_subshell_reply": {**OK, "subshell_id": ["one"]},
    "usage_reply": {"hostname": "x", "pid": 1, "kernel_cpu": 0.5, "host_virtual_memory": {"a": 1}},
}


def test_every_reply_has_an_example() -> None:
    assert set(GOOD) == set(REPLIES)


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_reply_passes_as_it_is(bench: Bench, kind: str) -> None:
    asked = {"code": "x", "cursor_pos": 0}
    assert passed(bench, kind, GOOD[kind], asked) == GOOD[kind]
    assert not bench.gate.dropped


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.sampled_from(sorted(GOOD)), st.data())
def test_no_reply_of_another_shape_raises_or_brings_a_field_along(
    kind: str, data: st.DataObject
) -> None:
    bench = Bench()
    content = dict(GOOD[kind])
    for key in data.draw(st.lists(st.sampled_from([*content, "payload", "x"]), max_size=3)):
        content[key] = data.draw(json_values)
    reply = answer(bench, kind, content, {"code": "x", "cursor_pos": 0})
    if reply is None:
        assert bench.gate.dropped
    elif kind not in ("debug_reply", "usage_reply"):
        allowed = {"status", "ename", "evalue", "traceback", *GOOD[kind]}
        assert set(reply.content) <= allowed
        json.dumps(reply.content, allow_nan=False)


def test_an_error_is_an_answer_to_anything(bench: Bench) -> None:
    error = {"status": "error", "ename": "E", "evalue": "why", "traceback": ["one", "two"]}
    for kind in GOOD:
        if kind != "is_complete_reply":
            reply = passed(bench, kind, {**GOOD[kind], **error})
            assert {**reply, **error} == reply


def test_links_in_the_help_menu_lead_to_the_web(bench: Bench) -> None:
    links = [
        {"text": "a", "url": "https://example.org/"},
        {"text": "b", "url": "javascript:alert(1)"},
        {"text": "c", "url": "//example.org"},
        "d",
    ]
    content = {**GOOD["kernel_info_reply"], "help_links": links}
    assert passed(bench, "kernel_info_reply", content)["help_links"] == links[:1]


def test_what_the_debugger_draws_is_made_safe(bench: Bench) -> None:
    body = {"data": {"text/html": "<b>x</b><script>1</script>", "text/plain": "x"}, "metadata": {}}
    reply = passed(bench, "debug_reply", {"type": "response", "body": body})
    assert reply["body"]["data"]["text/plain"] == "x"
    assert "script" not in reply["body"]["data"]["text/html"]


def test_metadata_of_a_reply_is_what_is_known(bench: Bench) -> None:
    metadata = {
        "started": "2026-01-01T00:00:00Z",
        "dependencies_met": True,
        "engine": "x",
        "status": "ok",
        "mxc": {"truncated": {}},
        "more": 1,
    }
    message = ChildMessage("execute_reply", dict(EXECUTED), metadata, [b"x"], None)
    reply = bench.gate.reply(message, {})
    assert reply is not None
    assert set(reply.metadata) == {"started", "dependencies_met", "engine", "status"}
    assert bench.gate.dropped["buffers of a reply"] == 1
