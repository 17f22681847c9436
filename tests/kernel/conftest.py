"""A real kernel in the real sandbox, driven as a frontend drives it."""

from __future__ import annotations

import os
import queue
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

TIMEOUT = 60  # seconds; generous, a busy machine is not a failure


@dataclass
class Result:
    """Everything that one request brought."""

    reply: dict[str, Any]
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def content(self) -> dict[str, Any]:
        return self.reply["content"]

    @property
    def status(self) -> str:
        return self.content["status"]

    def of_type(self, *types: str) -> list[dict[str, Any]]:
        return [m for m in self.messages if m["msg_type"] in types]

    def stream(self, name: str = "stdout") -> str:
        streams = self.of_type("stream")
        return "".join(m["content"]["text"] for m in streams if m["content"]["name"] == name)

    @property
    def shown(self) -> str:
        """The plain text of everything displayed."""
        shown = self.of_type("display_data", "execute_result")
        return "\n".join(m["content"]["data"].get("text/plain", "") for m in shown)

    @property
    def value(self) -> str | None:
        results = self.of_type("execute_result")
        return results[-1]["content"]["data"]["text/plain"] if results else None

    @property
    def error(self) -> str:
        """``ename: evalue`` of the error, or nothing."""
        errors = self.of_type("error")
        return "".join(f"{m['content']['ename']}: {m['content']['evalue']}" for m in errors)


def is_busy(message: dict[str, Any]) -> bool:
    """Whether a message says that its request is being worked on."""
    return message["content"].get("execution_state") == "busy"


class Kernel:
    """A running kernel and one client of it."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    @property
    def pid(self) -> int:
        return self.manager.provisioner.process.pid

    def send(self, code: str, **options: Any) -> str:
        return self.client.execute(code, **options)

    def wait(self, msg_id: str, timeout: float = TIMEOUT) -> Result:
        """Collect the messages of a request up to its reply and its idle."""
        messages = []
        end = time.monotonic() + timeout
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.01, end - time.monotonic()))
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            messages.append(message)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return Result(self.reply(msg_id, max(1.0, end - time.monotonic())), messages)

    def reply(self, msg_id: str, timeout: float = TIMEOUT) -> dict[str, Any]:
        end = time.monotonic() + timeout
        while True:
            reply = self.client.get_shell_msg(timeout=max(0.01, end - time.monotonic()))
            if reply["parent_header"].get("msg_id") == msg_id:
                return reply

    def reply_content(self) -> dict[str, Any]:
        """Return the content of the next reply on the shell channel."""
        return self.client.get_shell_msg(timeout=TIMEOUT)["content"]

    def run(self, code: str, timeout: float = TIMEOUT, **options: Any) -> Result:
        """Execute code and wait for all of it."""
        options.setdefault("allow_stdin", False)
        return self.wait(self.send(code, **options), timeout)

    def wait_for(
        self, msg_id: str | None, wanted: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """Wait for the iopub message of a request, or of any, that a condition picks."""
        while True:
            message = self.client.get_iopub_msg(timeout=TIMEOUT)
            parent = message["parent_header"].get("msg_id")
            if msg_id in (None, parent) and wanted(message):
                return message

    def wait_for_text(self, msg_id: str | None, text: str) -> None:
        """Wait until a running cell has printed a text, in however many pieces it comes."""
        printed = ""

        def complete(message: dict[str, Any]) -> bool:
            nonlocal printed
            if message["msg_type"] == "stream":
                printed += message["content"]["text"]
            return text in printed

        self.wait_for(msg_id, complete)

    def control(self, msg_type: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request on the control channel and return its reply."""
        message = self.client.session.msg(msg_type, content or {})
        self.client.control_channel.send(message)
        while True:
            reply = self.client.get_control_msg(timeout=TIMEOUT)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                return reply

    def interrupt(self) -> None:
        assert self.control("interrupt_request")["content"]["status"] == "ok"

    def stale_iopub(self) -> list[dict[str, Any]]:
        """Return what stands on iopub right now."""
        messages = []
        while True:
            try:
                messages.append(self.client.get_iopub_msg(timeout=0.2))
            except queue.Empty:
                return messages


Start = Callable[..., Kernel]


@dataclass(frozen=True)
class Folders:
    """Made-up folders of a user, reachable by the sandbox's own uid too."""

    root: Path
    documents: Path
    downloads: Path
    outside: Path


def make_folders(root: Path) -> Folders:
    """Documents to read, Downloads to write, and a folder that no ceiling names."""
    made = Folders(root, root / "Documents", root / "Downloads", root / "outside")
    for folder in (made.documents, made.downloads, made.outside):
        folder.mkdir()
        folder.chmod(0o777)
    (made.documents / "report.txt").write_text("figures\n")
    (made.outside / "private.txt").write_text("private\n")
    return made


def start_kernel(
    kernelspec: str,
    scratch: Path,
    ceiling: Path | None = None,
    *,
    cwd: Path | None = None,
    arguments: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    connection_file: Path | None = None,
    transport: str = "ipc",
    **options: Any,
) -> Kernel:
    """Start a kernel and do not wait for it.

    Args:
        kernelspec: its name.
        scratch: a folder of the test's own, for the connection file and as the default folder.
        ceiling: the ceiling file; None for none.
        cwd: the notebook's folder.
        arguments: for the child's command line.
        env: what its environment has beside ours.
        connection_file: where that is to be.
        transport: "ipc" or "tcp".
        options: what is passed on to Popen.
    """
    environment = {**os.environ, **(env or {})}
    environment.pop("MXC_KERNEL_CEILING", None)
    if not env or "XDG_CONFIG_HOME" not in env:
        environment["XDG_CONFIG_HOME"] = str(scratch / "config")  # no ceiling of the developer's
    if ceiling is not None:
        environment["MXC_KERNEL_CEILING"] = str(ceiling)
    manager = KernelManager(kernel_name=kernelspec, transport=transport)
    manager.connection_file = str(connection_file or scratch / f"{uuid.uuid4().hex[:8]}.json")
    manager.start_kernel(
        cwd=str(cwd or scratch), env=environment, extra_arguments=list(arguments), **options
    )
    client = manager.client()
    client.start_channels()
    return Kernel(manager, client)


def end_kernel(kernel: Kernel) -> None:
    """End a kernel, and give back what its client holds."""
    kernel.client.stop_channels()
    if kernel.manager.has_kernel:
        kernel.manager.shutdown_kernel()


@pytest.fixture
def folders(sandbox_folder: Path) -> Folders:
    """Documents to read, Downloads to write, and a folder that no ceiling names."""
    return make_folders(sandbox_folder)


@pytest.fixture
def ceiling(folders: Folders) -> Path:
    """A ceiling that allows Documents to be read and Downloads to be written."""
    path = folders.root / "ceiling.toml"
    path.write_text(
        f"""
[filesystem]
readonly = ["{folders.documents}"]
readwrite = ["{folders.downloads}"]

[start]
readonly = ["{folders.documents}"]
""",
        encoding="utf-8",
    )
    path.chmod(0o644)
    return path


@pytest.fixture
def start(tmp_path: Path, installed_kernelspec: str) -> Iterator[Start]:
    """Start kernels with a ceiling; all of them end with the test."""
    started: list[Kernel] = []

    def start_one(ceiling: Path | None = None, **options: Any) -> Kernel:
        kernel = start_kernel(installed_kernelspec, tmp_path, ceiling, **options)
        started.append(kernel)
        kernel.client.wait_for_ready(timeout=TIMEOUT)
        return kernel

    yield start_one
    for kernel in started:
        end_kernel(kernel)


@pytest.fixture
def kernel(start: Start, ceiling: Path) -> Kernel:
    """A kernel under the usual ceiling."""
    return start(ceiling)
