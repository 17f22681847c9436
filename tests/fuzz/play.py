"""Makes a conversation of any bytes: what frontends ask, what a hostile child says, and when.

Every byte string means something, so that a fuzzer can change any of its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mxc_kernel.jupyter.shapes import PUBLICATIONS, REPLIES
from mxc_kernel.wire import Channel, WireError

from .rig import SECRET, Rig, rig

__all__ = ["play"]

_STEPS = 40
_HTML = (
    "<b>x</b><script>alert(1)</script><img src=x onerror=alert(1)><iframe src=http://x></iframe>"
)
_TEXTS = (
    *("", "x", "stdout", "stderr", "ok", "error", "aborted", "busy", "idle", "text/plain", "%"),
    *("\n",),
    *("text/html", "image/png", "image/svg+xml", "application/javascript", "text/markdown"),
    *("application/vnd.vegalite.v5+json", "application/json", "jupyter.widget", "update", "state"),
    *("application/vnd.jupyter.widget-view+json", "model_id", "display_id", "id", "method"),
    *("value",),
    *("_model_name", "_model_module", "_model_module_version", "HTMLModel", "buffer_paths"),
    *("@jupyter-widgets/controls", "2.0.0", "msg_id", "outputs", "IPY_MODEL_id", "custom"),
    *("content",),
    *("set_next_input", "page", "edit_magic", "ask_exit", "source", "text", "start", "replace"),
    *("%allow_rw /", "%%sandbox\nx", "\x1b[31m", "\u202e", "\ud800", "a" * 5000, SECRET),
    *(SECRET[:9], SECRET[9:], _HTML, "<svg onload=alert(1)>", "javascript:alert(1)"),
    *("[x](javascript:alert(1))",),
    *("-----BEGIN PRIVATE KEY-----\n", "isolated", "mxc", "note", "status", "data", "metadata"),
    *("denials", "path", "operation", "stopped", "continued", "evalue", "ename", "traceback"),
)  # fmt: skip
_NUMBERS = (0, 1, -1, 2, 7, 255, 2**31, 2**53, 2**63, 2**64, 10**400, 1.5, -0.0, 1e308)
_CODES = (
    *("1", "pri", "input()", "%load x", "%policy", "%checkpoint", "%limits output=1K", "x = '%'"),
    *("%allow_r", "# %allow_rw /", "%%sandbox\n1", "%sandbox restart", "%restore"),
)
_COMM = {"comm_id": "id", "data": {"method": "update", "state": {"value": "x"}, "buffer_paths": []}}
_OPEN = {
    "comm_id": "id",
    "target_name": "jupyter.widget",
    "data": {
        "state": {
            "_model_name": "HTMLModel",
            "_model_module": "@jupyter-widgets/controls",
            "_model_module_version": "2.0.0",
            "_view_name": "HTMLView",
            "_view_module": "@jupyter-widgets/controls",
            "_view_module_version": "2.0.0",
            "value": "x",
        },
        "buffer_paths": [],
    },
}
_SHOWN = {"data": {"text/plain": "x", "text/html": "<b>x</b>"}, "metadata": {}}
_ERROR = {"ename": "E", "evalue": "why", "traceback": ["one", "two"]}
_GOOD: dict[str, dict[str, Any]] = {
    "stream": {"name": "stdout", "text": "x"},
    "status": {"execution_state": "busy"},
    "execute_input": {"code": "1", "execution_count": 1},
    "shutdown_reply": {"status": "ok", "restart": False},
    "clear_output": {"wait": True},
    "comm_close": {"comm_id": "id", "data": {}},
    "comm_msg": _COMM,
    "comm_open": _OPEN,
    "debug_event": {"type": "event", "event": "stopped", "body": {}},
    "display_data": {**_SHOWN, "transient": {"display_id": "id"}},
    "error": _ERROR,
    "execute_result": {**_SHOWN, "execution_count": 1},
    "update_display_data": {**_SHOWN, "transient": {"display_id": "id"}},
    "input_request": {"prompt": "?", "password": False},
    "comm_info_reply": {"status": "ok", "comms": {"id": {"target_name": "t"}}},
    "complete_reply": {"status": "ok", "matches": ["print"], "cursor_start": 0, "cursor_end": 3,
                       "metadata": {}},
    "create_subshell_reply": {"status": "ok", "subshell_id": "s"},
    "debug_reply": {"success": True, "body": {"data": {"text/html": "x"}, "metadata": {}}},
    "delete_subshell_reply": {"status": "ok"},
    "execute_reply": {"status": "ok", "execution_count": 1, "user_expressions": {"a": _SHOWN},
                      "payload": [{"source": "set_next_input", "text": "x", "replace": False},
                                  {"source": "page", "data": {"text/plain": "x"}, "start": 0}]},
    "history_reply": {"status": "ok", "history": [[1, 1, "x"], [1, 2, ["x", "y"]]]},
    "inspect_reply": {"status": "ok", "found": True, **_SHOWN},
    "is_complete_reply": {"status": "incomplete", "indent": "  "},
    "kernel_info_reply": {"status": "ok", "protocol_version": "5.3", "implementation": "i",
                          "implementation_version": "1", "language_info": {"name": "python"},
                          "banner": "b", "help_links": [{"text": "t", "url": "https://x"}]},
    "list_subshell_reply": {"status": "ok", "subshell_id": ["s"]},
    "usage_reply": {"kernel_cpu": 1.0, "host_virtual_memory": {"total": 1}},
}  # fmt: skip
_TYPES = tuple(sorted(_GOOD))
assert set(_TYPES) >= {*PUBLICATIONS, *REPLIES}, "an example of each type is needed here"

_REQUESTS: tuple[tuple[Channel, str, dict[str, Any]], ...] = (
    (Channel.SHELL, "complete_request", {"code": "pri", "cursor_pos": 3}),
    (Channel.SHELL, "inspect_request", {"code": "pri", "cursor_pos": 3, "detail_level": 0}),
    (Channel.SHELL, "is_complete_request", {"code": "for"}),
    (Channel.SHELL, "history_request", {"hist_access_type": "tail", "n": 1}),
    (Channel.SHELL, "kernel_info_request", {}),
    (Channel.SHELL, "comm_info_request", {}),
    (Channel.SHELL, "comm_open", _OPEN),
    (Channel.SHELL, "comm_msg", _COMM),
    (Channel.SHELL, "comm_close", {"comm_id": "id", "data": {}}),
    (Channel.CONTROL, "interrupt_request", {}),
    (Channel.CONTROL, "usage_request", {}),
    (Channel.CONTROL, "debug_request", {"type": "request", "seq": 1, "command": "attach"}),
    (Channel.CONTROL, "create_subshell_request", {}),
    (Channel.CONTROL, "delete_subshell_request", {"subshell_id": "s"}),
    (Channel.CONTROL, "list_subshell_request", {}),
    (Channel.STDIN, "input_reply", {"value": "x"}),
)


class _Bytes:
    """Choices, one byte each; zeros when the bytes are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._data)

    def number(self) -> int:
        value = self._data[self._at] if self.left else 0
        self._at += 1
        return value

    def one_of(self, choices: Any) -> Any:
        return choices[self.number() % len(choices)]

    def raw(self, most: int) -> bytes:
        count = self.number() % (most + 1)
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def value(self, depth: int = 0) -> Any:
        """Any JSON value, and some that are none."""
        kind = self.number() % 12
        if kind < 4:
            return self.text()
        if kind == 4:
            return self.one_of(_NUMBERS)
        if kind == 5:
            return self.one_of((None, True, False, [], {}, float("nan"), float("inf")))
        if kind == 6:
            return self.raw(40).decode("utf-8", "replace")
        if kind == 7 or depth > 4:
            return self.one_of(tuple(_GOOD.values()))
        if kind < 10:
            return [self.value(depth + 1) for _ in range(self.number() % 4)]
        return {self.text(): self.value(depth + 1) for _ in range(self.number() % 5)}

    def text(self) -> str:
        text: str = self.one_of(_TEXTS)
        return text + self.one_of(_TEXTS) if self.number() % 8 == 0 else text

    def changed(self, given: Any) -> Any:
        """A value with something else in some place of it."""
        how = self.number() % 4
        if how == 0 or not isinstance(given, dict | list) or not given:
            return self.value()
        if isinstance(given, list):
            place = self.number() % len(given)
            return [*given[:place], self.changed(given[place]), *given[place + 1 :]]
        key = self.text() if how == 1 else self.one_of(sorted(given))
        return {**given, key: self.changed(given.get(key))}


class _Play:
    def __init__(self, stage: Rig, data: bytes) -> None:
        self.rig = stage
        self.bytes = _Bytes(data)
        self.acts: tuple[Callable[[], None], ...] = (
            *(self.say, self.say, self.say, self.say, self.say, self.print, self.print, self.run),
            *(self.ask, self.ask, self.answer, self.end, self.wait, self.garble, self.state),
            self.run,
        )

    def perform(self) -> None:
        for _ in range(_STEPS):
            if not self.bytes.left:
                break
            self.bytes.one_of(self.acts)()
        self.rig.finish()

    # --- frontends ------------------------------------------------------------------------------

    def run(self) -> None:
        flags = self.bytes.number()
        content = {
            "code": self.bytes.one_of(_CODES),
            "silent": flags & 7 == 7,
            "allow_stdin": bool(flags & 8),
            "stop_on_error": bool(flags & 16),
            "user_expressions": {"a": "1"},
        }
        subshell = {"subshell_id": "s"} if flags & 96 == 96 else {}
        channel = Channel.CONTROL if flags & 128 and flags & 3 == 3 else Channel.SHELL
        self.rig.ask(channel, "execute_request", content, **subshell)

    def ask(self) -> None:
        channel, msg_type, content = self.bytes.one_of(_REQUESTS)
        if "code" in content:
            code = self.bytes.one_of(_CODES)
            content = {**content, "code": code, "cursor_pos": len(code)}
        self.rig.ask(channel, msg_type, content)

    def wait(self) -> None:
        self.rig.pass_time(self.bytes.one_of((0.01, 0.06, 0.3, 3.0, 30.0)))

    # --- the child ------------------------------------------------------------------------------

    def parent(self) -> dict[str, Any]:
        """The header of a request, of none, or of one that was never made."""
        known = [*self.rig.asked]
        number = self.bytes.number()
        if number > 250 or not known:
            return self.bytes.one_of(({}, {"msg_id": "nobody"}, {"msg_id": 1}))
        # The newest are the likeliest to be open.
        return {"msg_id": known[-1 - number % min(len(known), 6)], "session": "forged"}

    def message(self, channel: Channel, msg_type: str, content: Any, parent: Any) -> None:
        header = {"msg_id": "c", "msg_type": msg_type, "date": "2026-01-01T00:00:00Z"}
        metadata: Any = {}
        buffers: list[bytes] = []
        rare = self.bytes.number()
        if rare < 16:
            metadata = self.bytes.value()
        elif rare < 24:
            buffers = [self.bytes.raw(20) for _ in range(self.bytes.number() % 3)]
        elif rare < 28:
            header = self.bytes.changed(header)
        elif rare < 32:
            metadata = {"mxc": {"denials": self.bytes.value(), "truncated": self.bytes.value()}}
        parts = [_dumped(value) for value in (header, parent, metadata, content)]
        if rare == 255:
            place = self.bytes.number() % 4
            parts[place] = self.bytes.one_of((b"", b"{", b"[" * 5000, b"\xff", self.bytes.raw(60)))
        self.frame(channel, [*parts, *buffers])

    def frame(self, channel: Channel, parts: list[bytes]) -> None:
        try:
            self.rig.frame(channel, parts)
        except WireError:
            return  # too large: only a child that writes frames by hand could try, see garble()

    def say(self) -> None:
        msg_type = self.bytes.one_of(_TYPES)
        content: Any = _GOOD[msg_type]
        for _ in range(self.bytes.number() % 4):
            content = self.bytes.changed(content)
        channel = Channel.IOPUB
        if msg_type.endswith("_reply") or msg_type == "input_request":
            channel = self.bytes.one_of((Channel.SHELL, Channel.CONTROL, Channel.STDIN))
        if self.bytes.number() == 255:
            channel = self.bytes.one_of(tuple(Channel))
        self.message(channel, msg_type, content, self.parent())

    def print(self) -> None:
        text = self.bytes.text() + self.bytes.raw(30).decode("utf-8", "replace") + self.bytes.text()
        content = {"name": self.bytes.one_of(("stdout", "stderr")), "text": text}
        self.message(Channel.IOPUB, "stream", content, self.parent())

    def answer(self) -> None:
        """The proper reply to a request, perhaps with something else in it."""
        parent = self.parent()
        asked = self.rig.asked.get(str(parent.get("msg_id")))
        if asked is None:
            return
        msg_type = asked.msg_type.removesuffix("_request") + "_reply"
        content: Any = _GOOD.get(msg_type, {})
        for _ in range(self.bytes.number() % 4):
            content = self.bytes.changed(content)
        self.message(Channel[asked.channel.upper()], msg_type, content, parent)

    def end(self) -> None:
        """A cell from its beginning to its end, so that the next one can begin."""
        parent = self.parent()
        failed = self.bytes.number() % 3 == 0
        content = {"status": "error", "execution_count": 1, **_ERROR}
        if not failed:
            content = _GOOD["execute_reply"]
        self.message(Channel.IOPUB, "execute_input", _GOOD["execute_input"], parent)
        self.message(Channel.SHELL, "execute_reply", content, parent)
        self.message(Channel.IOPUB, "status", {"execution_state": "idle"}, parent)

    def state(self) -> None:
        word = self.bytes.one_of((b"chunk", b"dumped", b"loaded", b"x"))
        told = [_dumped(self.bytes.value()) for _ in range(self.bytes.number() % 3)]
        self.frame(Channel.STATE, [word, *told])

    def garble(self) -> None:
        """Bytes of which no worker would write any."""
        kind = self.bytes.number()
        if kind < 200:
            self.frame(
                self.bytes.one_of(tuple(Channel)),
                [self.bytes.raw(40) for _ in range(self.bytes.number() % 8)],
            )
        else:
            self.rig.write(self.bytes.raw(80))


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def play(data: bytes) -> None:
    """Play the conversation that some bytes stand for.

    Raises:
        BrokenRuleError: something went out, or happened, that must not.
    """
    with rig() as stage:
        _Play(stage, data).perform()
