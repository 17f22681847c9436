"""JupyterLab's debugger, against a cell in the sandbox."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .conftest import Kernel, Start

CODE = "def add(a, b):\n    total = a + b\n    return total\nadd(2, 3)"


def _debug(kernel: Kernel, command: str, **arguments: Any) -> dict[str, Any]:
    message = {"type": "request", "seq": 1, "command": command, "arguments": arguments}
    return kernel.control("debug_request", message)["content"]


def test_a_breakpoint_stops_the_cell_and_its_clock(start: Start, ceiling: Path) -> None:
    ceiling.write_text(ceiling.read_text() + '\n[limits]\ncell_timeout = "2s"\n')
    kernel = start(ceiling)
    assert _debug(kernel, "initialize", adapterID="")["success"]
    assert _debug(kernel, "attach")["success"]
    source = _debug(kernel, "dumpCell", code=CODE)["body"]["sourcePath"]
    breakpoints = _debug(
        kernel, "setBreakpoints", breakpoints=[{"line": 2}], source={"path": source}
    )
    assert breakpoints["body"]["breakpoints"][0]["verified"]
    assert _debug(kernel, "configurationDone")["success"]
    msg_id = kernel.send(CODE)
    stopped = kernel.wait_for(
        None, lambda m: m["msg_type"] == "debug_event" and m["content"]["event"] == "stopped"
    )
    time.sleep(3)  # longer than a cell may run: the thing under test
    thread = stopped["content"]["body"]["threadId"]
    frames = _debug(kernel, "stackTrace", threadId=thread)["body"]["stackFrames"]
    scopes = _debug(kernel, "scopes", frameId=frames[0]["id"])["body"]["scopes"]
    variables = _debug(kernel, "variables", variablesReference=scopes[0]["variablesReference"])[
        "body"
    ]["variables"]
    assert {"a": "2", "b": "3"}.items() <= {v["name"]: v["value"] for v in variables}.items()
    assert _debug(kernel, "continue", threadId=thread)["success"]
    result = kernel.wait(msg_id)
    assert result.status == "ok", result.error
    assert result.value == "5"
