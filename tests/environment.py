"""Runs one cell and the doctor where this is started, and says as JSON what a user would see.

The tests start it in a mount namespace in which something is broken:
``python -P -m tests.environment CODE``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from typing import Any

import psutil
from jupyter_client.manager import KernelManager

_TIMEOUT = 90  # seconds

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if "KERNELS_TMPDIR" in os.environ:  # not ours, which has to have room
            os.environ["TMPDIR"] = os.environ["KERNELS_TMPDIR"]
        found = {"cell": _cell(sys.argv[1], folder), "doctor": _doctor()}
    found["left"] = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    print(json.dumps(found))


def _cell(code: str, folder: str) -> dict[str, Any]:
    manager = KernelManager(
        kernel_name="mxc-python", transport="ipc", connection_file=f"{folder}/c.json"
    )
    manager.start_kernel(cwd=folder)
    client = manager.client()
    client.start_channels()
    shown: list[str] = []

    def collect(message: Any) -> None:
        content = message["content"]
        shown.extend(content.get("traceback", ()))
        shown.append(content.get("text", "") + str(content.get("data", {}).get("text/plain", "")))

    try:
        client.wait_for_ready(timeout=_TIMEOUT)
        reply = client.execute_interactive(
            code, allow_stdin=False, output_hook=collect, timeout=_TIMEOUT
        )["content"]
        error = f"{reply.get('ename', '')}: {reply.get('evalue', '')}"
        shown_text = _COLOURS.sub("", "\n".join(shown))
        return {"status": reply["status"], "error": error, "shown": shown_text}
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def _doctor() -> dict[str, Any]:
    command = [sys.executable, "-E", "-P", "-m", "mxc_kernel", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    report = json.loads(done.stdout)
    return {
        "status": done.returncode,
        "words": done.stderr,
        "checks": {check["name"]: check for check in report["checks"]},
    }


if __name__ == "__main__":
    main()
