"""Conversations made of any bytes: what goes to a frontend keeps the rules, and nothing hangs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mxc_kernel.wire import Channel

from .frames import decode
from .play import play
from .rig import SECRET, BrokenRuleError, Rig, rig

CORPUS = Path(__file__).parent / "corpus"


@settings(max_examples=100)
@given(st.binary(max_size=400))
@example(b"")
def test_any_conversation_keeps_the_rules(data: bytes) -> None:
    play(data)


def test_the_corpus_keeps_the_rules() -> None:
    """Those that have found something, and those that reach furthest: `make fuzz` found them."""
    paths = sorted((CORPUS / "play").iterdir())
    assert paths
    for path in paths:
        try:
            play(path.read_bytes())
        except BrokenRuleError as error:
            raise AssertionError(f"{path.name}: {error}") from error


@given(st.binary(max_size=400))
def test_any_bytes_are_frames_or_a_refusal(data: bytes) -> None:
    decode(data)


def test_the_corpus_of_frames() -> None:
    paths = sorted((CORPUS / "frames").iterdir())
    assert paths
    for path in paths:
        decode(path.read_bytes())


# --- the controls: each rule is seen to be broken -----------------------------------------------


def _cell(stage: Rig) -> None:
    stage.ask(Channel.SHELL, "execute_request", {"code": "1", "allow_stdin": True})


def _send(stage: Rig, kind: str, content: object, **more: object) -> None:
    request = stage.relay._requests._requests["ask-0"]
    stage.wire.publish(kind, content, request, **more)  # type: ignore[arg-type]
    stage.check()


@pytest.mark.parametrize(
    ("kind", "content", "more"),
    [
        ("stream", {"name": "stdout", "text": SECRET}, {}),
        ("stream", {"name": "stdlog", "text": "x"}, {}),
        ("made_up", {}, {}),
        ("status", {"execution_state": "busy"}, {}),
        ("error", {"ename": 1, "evalue": "", "traceback": []}, {}),
        ("display_data", {"data": {}, "metadata": {}, "transient": {}, "x": 1}, {}),
        ("display_data", {"data": {"text/html": "<script>"}, "metadata": {}, "transient": {}}, {}),
        ("stream", b'{"name": NaN}', {}),
        ("stream", {"name": "stdout", "text": "x"}, {"buffers": [b"x"]}),
        ("stream", {"name": "stdout", "text": "x"}, {"metadata": {"mxc": 1}}),
        ("execute_input", {"code": "2", "execution_count": 1}, {}),
        ("shutdown_reply", {}, {}),
    ],
)
def test_the_checker_notices_a_publication(kind: str, content: object, more: object) -> None:
    with rig() as stage:
        _cell(stage)
        _send(stage, "stream", {"name": "stdout", "text": "this one may pass"})
        with pytest.raises(BrokenRuleError):
            _send(stage, kind, content, **more)  # type: ignore[arg-type]


def test_the_checker_notices_a_second_reply_and_a_missing_one() -> None:
    with rig() as stage:
        _cell(stage)
        request = stage.relay._requests._requests["ask-0"]
        stage.wire.answer(request, {"status": "aborted"})
        stage.check()
        request.open = True
        stage.wire.answer(request, {"status": "aborted"})
        with pytest.raises(BrokenRuleError, match="second"):
            stage.check()
    with rig() as stage:
        _cell(stage)
        stage.relay._cells._endings.fail = lambda *_args: None  # type: ignore[method-assign]
        with pytest.raises(BrokenRuleError, match="0 replies"):
            stage.finish()


def test_the_checker_notices_a_failure_of_the_host() -> None:
    with rig() as stage:
        _cell(stage)
        stage.relay._gate.publish = lambda *_args: 1 / 0  # type: ignore[assignment]
        parts = [{"msg_type": "stream"}, {"msg_id": "ask-0"}, {}, {"name": "stdout", "text": "x"}]
        with pytest.raises(BrokenRuleError, match="ZeroDivisionError"):
            stage.frame(Channel.IOPUB, [json.dumps(part).encode() for part in parts])
        stage.failures.clear()


def test_an_honest_conversation_goes_through() -> None:
    """The control of it all: output, a question and a reply reach the frontend."""
    with rig() as stage:
        _cell(stage)
        parent = json.dumps({"msg_id": "ask-0"}).encode()

        def say(channel: Channel, kind: str, content: object) -> None:
            header = json.dumps({"msg_type": kind}).encode()
            stage.frame(channel, [header, parent, b"{}", json.dumps(content).encode()])

        say(Channel.IOPUB, "execute_input", {"code": "1", "execution_count": 1})
        say(Channel.IOPUB, "stream", {"name": "stdout", "text": "printed"})
        say(Channel.STDIN, "input_request", {"prompt": "?", "password": False})
        say(Channel.SHELL, "execute_reply", {"status": "ok", "execution_count": 1, "payload": []})
        say(Channel.IOPUB, "status", {"execution_state": "idle"})
        asked = stage.asked["ask-0"]
        assert asked.printed["stdout"] == "printed"
        assert (asked.states, asked.replies) == (["busy", "idle"], 1)
