"""Drives the worker over plain pipes, without the sandbox."""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import MAGIC_NUMBER

import pytest

from mxc_kernel.mxc import bundle
from mxc_kernel.wire import METERED, Allowance, Channel, Debt, FrameReader, encode

PYTHON = os.environ.get("MXC_TEST_CHILD_PYTHON", sys.executable)  # to try another ipykernel
PATIENCE = 60.0  # seconds; how long any answer may take on a busy machine


@dataclass
class Cell:
    """What came back for one request."""

    reply: dict
    metadata: dict
    messages: list = field(default_factory=list)

    def text(self, name="stdout"):
        return "".join(
            content["text"]
            for kind, content in self.messages
            if kind == "stream" and content["name"] == name
        )

    @property
    def result(self):
        for kind, content in self.messages:
            if kind == "execute_result":
                return content["data"]["text/plain"]
        return None

    @property
    def denials(self):
        return self.metadata.get("mxc", {}).get("denials", [])


class Child:
    """One worker process and the host's end of its pipes."""

    def __init__(
        self, scratch, *, python=PYTHON, magic=MAGIC_NUMBER, env=None, magics=(), **settings
    ):
        home = os.path.join(scratch, "home")
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": home,
            "IPYTHONDIR": os.path.join(home, ".ipython"),
            "TMPDIR": os.path.join(scratch, "tmp"),
            "MPLCONFIGDIR": os.path.join(home, ".config", "matplotlib"),
        }
        self.process = subprocess.Popen(
            bundle.command(python),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=environment | (env or {}),
        )
        self._reader = FrameReader(self.process.stdout.fileno(), self._arrived)
        self._debt = Debt()
        self._allowance = Allowance()
        os.set_blocking(self.process.stdout.fileno(), False)
        self._waiting = []
        self._numbers = itertools.count()
        self.process.stdin.write(bundle.build(magic))
        nonce = os.urandom(16)
        self.send(Channel.HELLO, nonce, json.dumps({"scratch": str(scratch), **settings}).encode())
        channel, (echoed, facts) = self.frame()
        assert (channel, echoed) == (Channel.HELLO, nonce)
        self.facts = json.loads(facts)
        self.send(Channel.HELLO, b"magics", json.dumps(magics).encode())

    def send(self, channel, *parts):
        for fragment in encode(channel, parts):
            deadline = time.monotonic() + PATIENCE
            while not self._allowance.covers(channel):
                self._receive(deadline)
            self._allowance.spend(channel, fragment)
            view = memoryview(fragment)
            while view:
                view = view[self.process.stdin.write(view) :]

    def _arrived(self, channel, cost):
        self._debt.take(channel, cost)
        due = self._debt.due(channel) if channel in METERED else None
        if due is not None:
            self.send(Channel.CREDIT, *due)

    def _receive(self, deadline):
        """Read what comes, after waiting for something to come."""
        left = deadline - time.monotonic()
        assert left > 0, "no frame in time"
        select.select([self.process.stdout], [], [], left)
        for channel, parts in self._reader.frames():
            if channel is Channel.CREDIT:
                self._allowance.refill(parts)
            else:
                self._waiting.append((channel, parts))

    def frame(self, timeout=PATIENCE):
        """Return the next frame; fails when none comes in time."""
        deadline = time.monotonic() + timeout
        while not self._waiting:
            self._receive(deadline)
        return self._waiting.pop(0)

    def request(self, kind, content, *, channel=Channel.SHELL, metadata=None, **header_fields):
        """Send a Jupyter request and return its message id."""
        header = {
            "msg_id": f"m{next(self._numbers)}",
            "msg_type": kind,
            "session": "tests",
            "username": "tests",
            "date": "2025-01-01T00:00:00Z",
            "version": "5.3",
            **header_fields,
        }
        parts = (header, {}, metadata or {}, content)
        self.send(channel, *(json.dumps(part).encode() for part in parts))
        return header["msg_id"]

    def finish(self, msg_id, *, channel=Channel.SHELL, until=None):
        """Gather what comes up to the reply and idle, or up to what ``until`` says."""
        cell = Cell({}, {})
        idle = False
        while not (idle and cell.reply):
            arrived, parts = self.frame()
            header, parent, metadata, content = (json.loads(part) for part in parts[:4])
            if parent.get("msg_id") != msg_id:
                continue
            if arrived is channel:
                cell.reply, cell.metadata = content, metadata
            cell.messages.append((header["msg_type"], content))
            idle = idle or content.get("execution_state") == "idle"
            if until is not None and until(header["msg_type"], content):
                break
        return cell

    def ask(self, kind, content, *, channel=Channel.SHELL):
        return self.finish(self.request(kind, content, channel=channel), channel=channel)

    def start_cell(self, code, *, mxc=None, allow_stdin=False, **content):
        body = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": allow_stdin,
            "stop_on_error": True,
        }
        return self.request(
            "execute_request", body | content, metadata={} if mxc is None else {"mxc": mxc}
        )

    def run(self, code, **options):
        """Run a cell to its end."""
        return self.finish(self.start_cell(code, **options))

    def ok(self, code, **options):
        """Run a cell that must succeed; return its result's text."""
        cell = self.run(code, **options)
        assert cell.reply["status"] == "ok", "\n".join(cell.reply["traceback"])
        return cell.result

    def dump(self):
        """Return the state as chunks, and the report."""
        self.send(Channel.STATE, b"dump")
        chunks = []
        while True:
            channel, parts = self.frame()
            if channel is Channel.STATE:
                if parts[0] == b"dumped":
                    report = json.loads(parts[1])
                    assert "error" not in report
                    return chunks, report
                assert parts[0] == b"chunk"
                chunks.append(parts[1])

    def load(self, chunks):
        """Restore the state; return the report."""
        for chunk in chunks:
            self.send(Channel.STATE, b"chunk", chunk)
        self.send(Channel.STATE, b"load")
        while True:
            channel, parts = self.frame()
            if channel is Channel.STATE:
                assert parts[0] == b"loaded"
                report = json.loads(parts[1])
                assert "error" not in report
                return report

    def close(self):
        """End the child the way the host does; return its status and diagnostics."""
        if self.process.stderr.closed:
            return self.process.returncode, ""
        if not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.stdout.close()
        with self.process.stderr:
            try:
                status = self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
            return status, self.process.stderr.read().decode(errors="replace")


@pytest.fixture
def start(tmp_path):
    """Start children, each with a scratch folder of its own; all are gone at the end."""
    children = []

    def start_child(**options):
        scratch = tmp_path / f"scratch-{len(children)}"
        children.append(Child(str(options.pop("scratch", scratch)), **options))
        return children[-1]

    yield start_child
    for child in children:
        child.close()


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    """One child for the tests of a module that do not mind each other."""
    one = Child(str(tmp_path_factory.mktemp("shared") / "scratch"))
    yield one
    one.close()
