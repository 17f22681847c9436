"""The child's replies, as they may pass: of a known shape, redacted, safe to draw and to insert."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mxc_kernel.jupyter import shapes
from mxc_kernel.jupyter.bundles import Bundles
from mxc_kernel.jupyter.insertions import (
    asks_to_load,
    completion,
    indent,
    inert,
    is_inert,
    spelled_out,
)
from mxc_kernel.jupyter.messages import ChildMessage

__all__ = ["Replies", "Reply"]

_REMEMBERED = 1000  # cells with policy magics that history may bring back
_INSERTED = 1 << 20  # characters of loaded code
_PAGES = 16
_ENTRIES = 100_000  # of a history

_COMMENTED = (
    "[Policy magics in text that was inserted into a cell are commented out: only you put them "
    "into force. Remove the # if you want them.]"
)
_NOT_REPLACED = (
    "[Code asked to replace the text of its own cell. The new text was put into a cell of its own.]"
)
_NO_EDITOR = "[Code asked to open a file in an editor outside the sandbox. It was not opened.]"


@dataclass(slots=True)
class Reply:
    """A reply that may pass.

    Attributes:
        content: its content.
        metadata: its metadata.
        notes: what the user should be told about it.
        redacted: secrets masked in it, by name.
    """

    content: dict[str, Any]
    metadata: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    redacted: Counter[str] = field(default_factory=Counter)


class Replies:
    """Judges the replies of one session.

    Args:
        bundles: redacts and makes safe.
        drop: called with the reason for each message or part that does not pass.
    """

    def __init__(self, bundles: Bundles, drop: Callable[[str], None]) -> None:
        self._bundles = bundles
        self._drop = drop
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._finish: dict[str, Callable[[Reply, Mapping[str, Any]], None]] = {
            "complete_reply": self._complete,
            "debug_reply": self._debug,
            "execute_reply": self._execute,
            "history_reply": self._history,
            "inspect_reply": self._inspect,
            "is_complete_reply": self._is_complete,
        }

    def has_seen(self, code: str) -> None:
        """Note a cell that a frontend has sent: its policy magics are its user's own."""
        if not is_inert(code):
            self._known[_digest(code)] = None
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def read(self, message: ChildMessage, asked: Mapping[str, Any]) -> Reply | None:
        """Return what of a reply may pass; None, and counted, if it has another shape.

        Args:
            message: the child's reply.
            asked: content of the request that it answers.
        """
        kind = message.msg_type
        try:
            content = shapes.REPLIES[kind](message.content)
        except KeyError:
            self._drop("an unknown reply")
            return None
        except shapes.WrongShapeError as wrong:
            self._drop(f"{kind}: {wrong}")
            return None
        if message.buffers:
            self._drop("buffers of a reply")
        counts: Counter[str] = Counter()
        drawn = {key: content.pop(key) for key in _DRAWN.get(kind, ()) if key in content}
        error = self._bundles.error(content, counts) if "traceback" in content else {}
        content = {**self._bundles.json({**content, **error}, counts), **drawn}
        metadata = self._bundles.json(shapes.metadata(kind, message.metadata), counts)
        reply = Reply(content, metadata, redacted=counts)
        if kind in self._finish and (content.get("status") != "error" or kind == "execute_reply"):
            self._finish[kind](reply, asked)
        return reply

    # --- what is drawn --------------------------------------------------------------------------

    def _draw(self, reply: Reply, bundle: dict[str, Any]) -> dict[str, Any]:
        safe = self._bundles.safe(bundle["data"], bundle["metadata"], reply.redacted)
        return {**bundle, "data": safe.data, "metadata": safe.metadata}

    def _inspect(self, reply: Reply, asked: Mapping[str, Any]) -> None:  # noqa: ARG002
        reply.content = self._draw(reply, reply.content)

    def _debug(self, reply: Reply, asked: Mapping[str, Any]) -> None:  # noqa: ARG002
        """A variable that JupyterLab's debugger looks into is drawn like an output."""
        body = reply.content.get("body")
        if isinstance(body, dict) and isinstance(body.get("data"), dict):
            metadata = body.get("metadata")
            bundle = {**body, "metadata": metadata if isinstance(metadata, dict) else {}}
            reply.content["body"] = self._draw(reply, bundle)

    def _execute(self, reply: Reply, asked: Mapping[str, Any]) -> None:
        wanted = asked.get("user_expressions")
        wanted = wanted if isinstance(wanted, dict) else {}
        expressions = {}
        for name, value in reply.content.get("user_expressions", {}).items():
            if name not in wanted:
                self._drop("execute_reply: an expression nobody asked for")
            elif "data" in value:
                expressions[name] = self._draw(reply, value)
            else:
                error = self._bundles.error(value, reply.redacted)
                expressions[name] = {"status": "error", **error}
        if "user_expressions" in reply.content:
            reply.content["user_expressions"] = expressions
        payload: list[dict[str, Any]] = []
        for item in reply.content.get("payload", []):
            passed = self._payload(reply, item, asked, payload)
            if passed is not None:
                payload.append(passed)
        if "payload" in reply.content:
            reply.content["payload"] = payload

    def _payload(
        self,
        reply: Reply,
        item: dict[str, Any],
        asked: Mapping[str, Any],
        before: list[dict[str, Any]],
    ) -> dict[str, Any] | None:
        """Return an entry of a reply's payload as it may pass."""
        source = item.get("source")
        pages = sum(entry["source"] == "page" for entry in before)
        if source == "page" and isinstance(item.get("data"), dict) and pages < _PAGES:
            start = item.get("start")
            page = {"source": "page", "data": item["data"], "metadata": {}}
            page = self._draw(reply, page)
            del page["metadata"]
            return {**page, "start": start if type(start) is int and 0 <= start < 1 << 31 else 0}
        if source == "set_next_input" and isinstance(item.get("text"), str):
            if not any(entry["source"] == source for entry in before):
                return self._next_input(reply, item, asked)
        elif source == "ask_exit":
            return {"source": "ask_exit", "keepkernel": item.get("keepkernel") is True}
        elif source == "edit_magic":
            reply.notes.append(_NO_EDITOR)  # a path for an editor of the host, through its shell
        self._drop("execute_reply: a payload that may not pass")
        return None

    # --- what ends up in a cell -----------------------------------------------------------------

    def _next_input(
        self, reply: Reply, item: dict[str, Any], asked: Mapping[str, Any]
    ) -> dict[str, Any]:
        given = spelled_out(self._bundles.text(item["text"][:_INSERTED], reply.redacted))
        text = inert(given)
        if text != given:
            reply.notes.append(_COMMENTED)
        replace = item.get("replace") is True
        if replace and not asks_to_load(asked.get("code")):
            reply.notes.append(_NOT_REPLACED)
            replace = False
        return {"source": "set_next_input", "text": text, "replace": replace}

    def _complete(self, reply: Reply, asked: Mapping[str, Any]) -> None:
        reply.content = {"status": "ok", **completion(reply.content, asked, self._drop)}

    def _is_complete(self, reply: Reply, asked: Mapping[str, Any]) -> None:  # noqa: ARG002
        given = reply.content["indent"]
        reply.content["indent"] = indent(given)
        if reply.content["indent"] != given:
            self._drop("is_complete_reply: an indent of other than blanks")
        if reply.content["status"] != "incomplete":
            del reply.content["indent"]

    def _history(self, reply: Reply, asked: Mapping[str, Any]) -> None:  # noqa: ARG002
        entries = []
        for session, line, given in reply.content["history"][-_ENTRIES:]:
            source = given[0] if isinstance(given, list) else given
            shown = spelled_out(source)
            if shown != source or not self._is_known(source):
                shown = inert(shown)
            if shown != source:
                self._drop("history_reply: a text that may not stand in a cell")
            entries.append([session, line, [shown, given[1]] if isinstance(given, list) else shown])
        reply.content["history"] = entries

    def _is_known(self, code: str) -> bool:
        """Whether a cell with policy magics is one that a frontend has sent."""
        return not is_inert(code) and _digest(code) in self._known


_DRAWN = {
    "execute_reply": ("payload", "user_expressions"),
    "inspect_reply": ("data", "metadata"),
}
"""What is redacted by its MIME type, so not as plain JSON before."""


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()
