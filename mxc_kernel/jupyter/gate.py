"""The gate: what comes from the child is capped, redacted and made safe on its way to a frontend.

Knows Jupyter's message types; the rules it applies (:mod:`mxc_kernel.output`) know only text and
MIME types.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from mxc_kernel.jupyter.frontends import Frontends
from mxc_kernel.jupyter.messages import ChildMessage
from mxc_kernel.jupyter.requests import Request
from mxc_kernel.output.caps import Budget, MessageBudget
from mxc_kernel.output.documents import redact_html, redact_json
from mxc_kernel.output.redaction import Rules, Stream, redact
from mxc_kernel.output.rich import make_safe
from mxc_kernel.output.secrets import host_secrets
from mxc_kernel.session import Session

__all__ = ["Gate", "RequestOutput"]

# Pictures and tables, per request; a figure of JupyterLab's own limits is far below.
_RICH_BYTES = 256 << 20
_RICH_MESSAGES = 10_000
_PROMPT = 4096  # characters
_OURS = "mxc"  # metadata key of the host's own notes; a child that writes it is not heard
_DISPLAYS = frozenset({"display_data", "update_display_data", "execute_result"})


class RequestOutput:
    """What one request has printed and shown so far.

    Args:
        limit: bytes of text to show at most; None is no limit.
        rules: what to redact.
    """

    def __init__(self, limit: int | None, rules: Rules) -> None:
        self.text = Budget(limit)
        self.rich = MessageBudget(messages=_RICH_MESSAGES, size=_RICH_BYTES)
        self.streams = {name: Stream(rules) for name in ("stdout", "stderr")}
        self.redacted: Counter[str] = Counter()
        self.dropped: set[str] = set()
        self.timer: asyncio.TimerHandle | None = None


class Gate:
    """Caps and redacts what the child shows, and makes it safe.

    Args:
        session: whose policy says how much may be shown.
        frontends: where what passes goes.
        environ: the host's environment, whose secrets are never shown.
    """

    def __init__(self, session: Session, frontends: Frontends, environ: Mapping[str, str]) -> None:
        self._session = session
        self._frontends = frontends
        self._rules = Rules(host_secrets(environ))
        self._orphans = self.open_request()

    def open_request(self, limit: int | None = None) -> RequestOutput:
        """Return a fresh account for a request's output.

        Args:
            limit: bytes of text to show at most; None for the policy in force.
        """
        limit = self._session.output_limit if limit is None else limit
        return RequestOutput(limit, self._rules)

    # --- publications ---------------------------------------------------------------------------

    def publish(self, request: Request | None, message: ChildMessage) -> None:
        """Pass on a publication of the child, or what the rules leave of it."""
        output = request.output if request is not None else self._orphans
        message.metadata.pop(_OURS, None)
        if message.msg_type == "stream":
            self._stream(request, output, message.content)
            return
        self._release(request, output)
        if message.msg_type in _DISPLAYS:
            size = sum(map(len, message.buffers)) + _size(message.content)
            if not output.rich.admit(size):
                return
            message.content = self._display(request, output, message.content)
        else:
            message.content = self._json(output, message.content)
        self._frontends.publish(
            message.msg_type,
            message.content,
            request,
            metadata=message.metadata,
            buffers=message.buffers,
            date=message.date,
        )

    def finish(self, request: Request) -> dict[str, object]:
        """Show what is held back and the end of what was cut, when a request is done.

        Returns:
            facts for the reply's metadata: what was cut, refused or redacted; empty if nothing.
        """
        output = request.output
        self._release(request, output)
        facts: dict[str, object] = {}
        ending = output.text.finish()
        if ending is not None:
            self._print(request, "stderr", ending.notice)
            for name, text in ending.tail:
                shown, counts = redact(text, self._rules)
                output.redacted.update(counts)
                self._print(request, name, shown)
            if ending.notice:
                totals = ending.totals
                facts["truncated"] = {"printed": totals.printed, "shown": totals.shown}
        notice = output.rich.notice()
        if notice is not None:
            self._print(request, "stderr", notice)
            facts["outputs_refused"] = output.rich.refused
        for stream in output.streams.values():
            output.redacted.update(stream.counts)
        if output.redacted:
            facts["redacted"] = dict(output.redacted)
        return facts

    def _stream(
        self, request: Request | None, output: RequestOutput, content: Mapping[str, Any]
    ) -> None:
        name = "stderr" if content.get("name") == "stderr" else "stdout"
        text = content.get("text")
        taken = output.text.take(text if isinstance(text, str) else "", name)
        self._release(request, output, but=name)
        stream = output.streams[name]
        self._print(request, name, stream.feed(taken, time.monotonic()) if taken else "")
        if stream.deadline is not None and output.timer is None:
            self._schedule(request, output, stream.deadline)

    def _schedule(self, request: Request | None, output: RequestOutput, deadline: float) -> None:
        """Show what a stream holds back when its time is up, though nothing follows."""
        delay = max(0.0, deadline - time.monotonic())
        output.timer = asyncio.get_running_loop().call_later(
            delay, lambda: self._expire(request, output)
        )

    def _expire(self, request: Request | None, output: RequestOutput) -> None:
        output.timer = None
        for name, stream in output.streams.items():
            self._print(request, name, stream.expire(time.monotonic()))
            if stream.deadline is not None and output.timer is None:
                self._schedule(request, output, stream.deadline)

    def _release(
        self, request: Request | None, output: RequestOutput, but: str | None = None
    ) -> None:
        """Show what streams hold back, so that it stands before what comes next."""
        for name, stream in output.streams.items():
            if name != but and stream.held:
                self._print(request, name, stream.flush(time.monotonic()))

    def _print(self, request: Request | None, name: str, text: str) -> None:
        if text:
            self._frontends.publish("stream", {"name": name, "text": text}, request)

    # --- redaction ------------------------------------------------------------------------------

    def _display(
        self, request: Request | None, output: RequestOutput, content: dict[str, Any]
    ) -> dict[str, Any]:
        shown = self._bundle(output, content)
        # What would have been shown is said once in a cell, however often it is displayed.
        for note in shown["notes"]:
            if note not in output.dropped and note not in shown["data"].get("text/plain", ""):
                output.dropped.add(note)
                self._print(request, "stderr", note + "\n")
        return {**content, "data": shown["data"], "metadata": shown["metadata"]}

    def _bundle(self, output: RequestOutput, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return data, metadata and notes of a MIME bundle as it may be shown."""
        data, metadata = content.get("data"), content.get("metadata")
        metadata = dict(metadata) if isinstance(metadata, dict) else {}
        metadata.pop(_OURS, None)
        redacted = {
            mime: self._mime(output, mime, value)
            for mime, value in (data.items() if isinstance(data, dict) else ())
        }
        safe = make_safe(redacted, self._json(output, metadata), self._session.effective.html)
        return {"data": safe.data, "metadata": safe.metadata, "notes": safe.notes}

    def _mime(self, output: RequestOutput, mime: str, value: Any) -> Any:
        if mime.startswith("image/") and mime != "image/svg+xml":
            return value  # Base64 of a picture; no secret stands in it as text
        if isinstance(value, str) and mime in ("text/html", "image/svg+xml"):
            value, counts = redact_html(value, self._rules)
        else:
            value, counts = redact_json(value, self._rules)
        output.redacted.update(counts)
        return value

    def _json(self, output: RequestOutput, content: dict[str, Any]) -> dict[str, Any]:
        content, counts = redact_json(content, self._rules)
        output.redacted.update(counts)
        return content

    # --- replies --------------------------------------------------------------------------------

    def reply(
        self, message: ChildMessage, facts: Mapping[str, object] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the content and metadata of a reply as they may pass."""
        message.metadata.pop(_OURS, None)
        content, _ = redact_json(message.content, self._rules)
        self._make_safe(content)
        metadata, _ = redact_json(message.metadata, self._rules)
        if facts:
            metadata[_OURS] = dict(facts)
        return content, metadata

    def _make_safe(self, content: dict[str, Any]) -> None:
        """Make the MIME bundles in a reply safe: a help text, a page, the expressions asked for."""
        level = self._session.effective.html
        payload, expressions = content.get("payload"), content.get("user_expressions")
        bundles = [content] if isinstance(content.get("data"), dict) else []
        bundles += payload if isinstance(payload, list) else []
        bundles += list(expressions.values()) if isinstance(expressions, dict) else []
        for bundle in bundles:
            if isinstance(bundle, dict) and isinstance(bundle.get("data"), dict):
                safe = make_safe(bundle["data"], bundle.get("metadata"), level)
                bundle["data"] = safe.data
                if "metadata" in bundle:
                    bundle["metadata"] = safe.metadata

    def text(self, text: str) -> str:
        """Return a short text of the child, such as a prompt, as it may be shown."""
        return redact(text[:_PROMPT], self._rules)[0]


def _size(content: Mapping[str, Any]) -> int:
    data = content.get("data")
    if not isinstance(data, dict):
        return len(json.dumps(content))
    return sum(len(v) if isinstance(v, str) else len(json.dumps(v)) for v in data.values())
