"""Messages as they are written for frontends."""

from __future__ import annotations

import json

from mxc_kernel.jupyter.messages import Signer, parse_object


def test_what_is_written_is_json_whatever_was_read() -> None:
    content = parse_object(b'{"a": [1e999, 1.5, {"b": -1e999}], "c": "\\ud800"}')
    frames = Signer(b"key", "hmac-sha256").write("x", content, metadata=content)
    for part in frames[-2:]:
        read = json.loads(bytes(part), parse_constant=lambda name: 1 / 0)
        assert read == {"a": [None, 1.5, {"b": None}], "c": "\ud800"}
