"""The audit trail of real kernels: what is on the disk when, whatever happens to them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mxc_kernel.audit.verify import Report, verify

from .conftest import TIMEOUT, Folders, Kernel, Start

SECRET = "correct-horse-7351-battery"


class State:
    """A state folder and the trails in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.audit = root / "mxc-kernel" / "audit"

    @property
    def env(self) -> dict[str, str]:
        return {"XDG_STATE_HOME": str(self.root)}

    def text(self) -> str:
        return "".join(path.read_text() for path in sorted((self.audit / "sessions").iterdir()))

    def records(self, *kinds: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.text().splitlines()]
        return [record for record in found if not kinds or record["kind"] in kinds]

    def verify(self) -> Report:
        return verify(str(self.audit))


@pytest.fixture
def state(sandbox_folder: Path) -> State:
    """A state folder that the sandbox could reach, if it were granted."""
    return State(sandbox_folder / "state")


@pytest.fixture
def kernel(start: Start, ceiling: Path, state: State) -> Kernel:
    return start(ceiling, env=state.env)


def shut_down(kernel: Kernel) -> None:
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel()


def test_the_pending_record_is_there_before_the_code_runs(kernel: Kernel, state: State) -> None:
    msg_id = kernel.send("print('begun')\ninput()", allow_stdin=True)
    kernel.client.get_stdin_msg(timeout=TIMEOUT)  # the code runs, and will not end
    pending = state.records("pending", "finished")
    assert [record["kind"] for record in pending] == ["pending"]
    assert pending[0]["cell"]["request"] == msg_id
    kernel.client.input("an answer")
    kernel.wait(msg_id)
    last = state.records("finished")[-1]
    assert (last["status"], last["inputs"]) == ("ok", 1)


def test_a_record_says_what_the_reply_says(kernel: Kernel, state: State) -> None:
    reply = kernel.run("print('x' * 3_000_000)").reply["metadata"]["mxc"]
    last = state.records("finished")[-1]
    assert last["output"]["text"]["sent"] == reply["truncated"]["shown"]
    assert last["output"]["text"]["dropped"] > 0
    assert reply["usage"] == {name: last[name] for name in ("duration", "cpu", "memory_peak")}
    assert reply["audit"]["session"] == last["session"]
    assert reply["audit"]["record"] == last["pending"]
    assert reply["audit"]["cell"] == last["cell"]["number"]


def test_what_a_cell_used_is_recorded(kernel: Kernel, state: State) -> None:
    kernel.run(
        "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    )
    kernel.run("kept = bytearray(b'x') * 100_000_000")
    busy, large = state.records("finished")[-2:]
    assert busy["cpu"] >= 0.4
    assert busy["duration"] >= busy["cpu"] / 2
    assert large["memory_peak"] >= 100_000_000 > busy["memory_peak"]


def test_policies_are_recorded_by_hashes_that_can_be_worked_out(
    kernel: Kernel, state: State, folders: Folders
) -> None:
    kernel.run("pass")
    kernel.run(f"%allow_rw {folders.downloads}\npass")
    from mxc_kernel.audit.policies import digest

    policies = {r["sha256"]: r["policy"] for r in state.records("policy")}
    assert all(digest(policy) == sha256 for sha256, policy in policies.items())
    first, second = state.records("pending")
    assert first["policy"]["effective"] != second["policy"]["effective"]
    assert sorted(access for _, access in second["grants"]) == ["readonly", "readwrite"]
    assert second["relaunches"] == 1
    assert second["state"]["gone"] is False
    assert [r["reason"] for r in state.records("sandbox")] == ["start", "policy"]
    assert all(r["attested"] for r in state.records("sandbox"))
    assert second["ceiling"]["layers"] == ["user"]
    assert "Downloads" not in state.text()


def test_what_was_refused_denied_or_failed_is_recorded(
    kernel: Kernel, state: State, folders: Folders
) -> None:
    refused = kernel.run(f"%allow_rw {folders.outside}\nprint('never')")
    assert refused.status == "error"
    kernel.run(f"open({str(folders.outside / 'private.txt')!r})")
    kernel.run("1 / 0")
    kernel.run("%%sandbox\nprint('elsewhere')")
    (one,) = state.records("refused")
    assert one["error"] == {"kind": "SandboxPolicyError", "by": "host"}
    denied, failed, elsewhere = state.records("finished")
    assert [d["errno"] for d in denied["denials"]] == ["ENOENT"]
    assert failed["error"] == {"kind": "ZeroDivisionError", "by": "code"}
    assert elsewhere["status"] == "ok"
    assert [p["sandbox"]["throwaway"] for p in state.records("pending")] == [False, False, True]


def test_a_death_and_what_it_cost_are_recorded(kernel: Kernel, state: State) -> None:
    kernel.run("x = 1")
    kernel.run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    kernel.run("pass")
    dead = state.records("finished")[1]
    assert dead["error"] == {"kind": "SandboxExecutionError", "by": "host"}
    assert state.records("sandbox")[-1]["reason"] == "death"
    assert state.records("pending")[-1]["relaunches"] == 1
    assert any(r["state"] and r["state"]["gone"] for r in state.records("pending", "finished"))


def test_other_roads_into_the_sandbox_are_counted(kernel: Kernel, state: State) -> None:
    kernel.run("answer = 42", user_expressions={"a": "answer + 1"})
    for cursor in (3, 4, 5):
        kernel.client.complete("answe", cursor)
        kernel.reply_content()
    kernel.client.inspect("answer", 3)
    kernel.reply_content()
    kernel.run("pass")
    counted: dict[str, int] = {}
    for record in state.records("roads"):
        for kind, count in record["counts"].items():
            counted[kind] = counted.get(kind, 0) + count
    assert counted["complete_request"] == 3
    assert counted["inspect_request"] == 1
    assert state.records("pending")[0]["cell"]["expressions"] == 1


def test_no_secret_and_no_environment_is_in_the_trail(
    start: Start, ceiling: Path, state: State
) -> None:
    ceiling.write_text(ceiling.read_text() + "\n[audit]\ncode = true\npaths = 'raw'\n")
    kernel = start(ceiling, env={**state.env, "SERVICE_PASSWORD": SECRET, "COLOUR": "octarine"})
    kernel.run(f"open('/nowhere/{SECRET}')")
    kernel.run(f"raise type('E', (Exception,), {{'__qualname__': '{SECRET}'}})('{SECRET}')")
    shut_down(kernel)
    text = state.text()
    assert "open('/nowhere/[redacted" in text
    assert SECRET not in text
    assert "octarine" not in text


def test_audit_shows_this_sessions_cells(kernel: Kernel, folders: Folders) -> None:
    kernel.run("x = 1")
    kernel.run(f"open({str(folders.outside / 'private.txt')!r})")
    session = kernel.run("pass").reply["metadata"]["mxc"]["audit"]["session"]
    shown = kernel.run("%audit").shown
    assert session in shown
    assert shown.count("  ok  ") == 2
    assert "error: FileNotFoundError" in shown
    shown = kernel.run("%audit --denials --last 1").shown
    assert "  ok  " not in shown
    assert "FileNotFoundError" in shown
    assert kernel.run("%audit --last none").error.startswith("SandboxPolicyError")


def test_redactions_are_counted_by_rule(start: Start, ceiling: Path, state: State) -> None:
    kernel = start(ceiling, env={**state.env, "SERVICE_PASSWORD": SECRET})
    reply = kernel.run(f"print({SECRET!r})").reply["metadata"]["mxc"]
    assert state.records("finished")[-1]["redactions"] == reply["redacted"]
    assert sum(reply["redacted"].values()) == 1


class Endpoint:
    """A collector that answers, or one that takes connections and says nothing."""

    def __init__(self, *, answers: bool) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._answers = answers
        self.address = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.asked: queue.Queue[bytes] = queue.Queue()
        self._held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.asked.put(connection.recv(4096).split(b"\r\n")[0])
                if self._answers:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    connection.close()
                else:
                    self._held.append(connection)

    def close(self) -> None:
        for each in (self._server, *self._held):
            each.close()


@pytest.mark.parametrize("answers", [True, False])
def test_telemetry_is_exported_and_never_waited_for(
    start: Start, ceiling: Path, state: State, answers: bool
) -> None:
    endpoint = Endpoint(answers=answers)
    ceiling.write_text(ceiling.read_text() + f"\n[audit]\notel = {endpoint.address!r}\n")
    kernel = start(ceiling, env={**state.env, "OTEL_BSP_SCHEDULE_DELAY": "100"})
    assert kernel.run("x = 1").status == "ok"
    assert endpoint.asked.get(timeout=TIMEOUT).startswith(b"POST /v1/traces")
    for number in range(20):
        assert kernel.run(f"x = {number}").status == "ok"
    shut_down(kernel)
    endpoint.close()
    assert len(state.records("finished")) == 21
    assert state.verify().ok


# --- no trail, no cell ----------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(kernel: Kernel, state: State) -> Iterator[Callable[[], None]]:
    """Let the trail's disk be full; what is given makes room."""
    filler = state.root / "filler"
    # The disk may be full before there is a filler, or as it is closed.
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    yield lambda: filler.unlink(missing_ok=True)


@contextlib.contextmanager
def no_larger_files(kernel: Kernel, state: State) -> Iterator[Callable[[], None]]:
    """Let no file of the kernel's grow; an ordinary user can do that."""
    (trail,) = (state.audit / "sessions").iterdir()
    before = resource.prlimit(kernel.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(kernel.pid, resource.RLIMIT_FSIZE, (trail.stat().st_size, before[1]))
    yield lambda: resource.prlimit(kernel.pid, resource.RLIMIT_FSIZE, before) and None


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


FULL = {"file size": no_larger_files}
if os.geteuid() == 0:
    FULL["disk"] = small_disk


@pytest.mark.parametrize("full", FULL)
def test_where_the_disk_is_full_no_cell_runs(
    start: Start, ceiling: Path, state: State, folders: Folders, full: str
) -> None:
    mark = folders.downloads / "mark"
    with contextlib.ExitStack() as stack:
        if full == "disk":
            stack.enter_context(mounted(state.root, "size=1m,mode=0755"))
        kernel = start(ceiling, env=state.env)
        kernel.run(f"%allow_rw {folders.downloads}\nopen({str(mark)!r}, 'w').close()")
        assert mark.exists()  # the control
        mark.unlink()
        with FULL[full](kernel, state) as make_room:
            for _ in range(8):  # a record or two may fit into the block that is there
                result = kernel.run(f"open({str(mark)!r}, 'w').close()")
                if result.status == "error":
                    break
                mark.unlink()
            assert result.error.startswith("AuditError: the audit trail cannot be written")
            assert "Make room" in "".join(result.content["traceback"])
            assert not mark.exists()
            make_room()
        assert kernel.run(f"open({str(mark)!r}, 'w').close()").status == "ok"
        assert mark.exists()
        shut_down(kernel)
        report = state.verify()
        assert report.ok, report.findings


def test_where_the_folder_is_read_only_no_cell_runs(
    start: Start, ceiling: Path, state: State, folders: Folders
) -> None:
    mark = folders.downloads / "mark"
    write = f"%allow_rw {folders.downloads}\nopen({str(mark)!r}, 'w').close()"
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:
            stack.enter_context(mounted(state.root, "ro"))
        else:
            state.root.mkdir(mode=0o500)
        kernel = start(ceiling, env=state.env)
        result = kernel.run(write)
        assert result.error.startswith("AuditError"), result.error
        assert not mark.exists()
        if os.geteuid() == 0:
            subprocess.run(["mount", "-o", "remount,rw", str(state.root)], check=True)
        else:
            state.root.chmod(0o700)
        assert kernel.run(write).status == "ok"
        assert mark.exists()
        shut_down(kernel)


# --- whatever happens to the kernel ---------------------------------------------------------------


def test_a_kernel_that_is_killed_leaves_an_unfinished_cell(
    start: Start, ceiling: Path, state: State
) -> None:
    kernel = start(ceiling, env=state.env)
    kernel.run("x = 1")
    kernel.send("input()", allow_stdin=True)
    kernel.client.get_stdin_msg(timeout=TIMEOUT)
    os.kill(kernel.pid, signal.SIGKILL)
    kernel.manager.provisioner.process.wait()
    kinds = [record["kind"] for record in state.records()]
    assert kinds[-1] == "pending"
    report = state.verify()
    assert report.ok
    assert [finding.what for finding in report.findings] == ["its kernel died"]
    shut_down(start(ceiling, env=state.env))
    report = state.verify()
    assert report.ok, report.findings
    assert report.sessions == 2


def test_two_kernels_at_once(start: Start, ceiling: Path, state: State) -> None:
    one, two = start(ceiling, env=state.env), start(ceiling, env=state.env)
    sent = [(kernel, kernel.send(f"x = {n}")) for n in range(10) for kernel in (one, two)]
    for kernel, msg_id in sent:
        assert kernel.wait(msg_id).status == "ok"
    shut_down(one)
    shut_down(two)
    report = state.verify()
    assert report.ok
    assert not report.findings
    assert len(state.records("finished")) == 20


# --- out of the sandbox's reach -------------------------------------------------------------------


def test_no_grant_reaches_the_trail(
    start: Start, folders: Folders, state: State, sandbox_folder: Path
) -> None:
    state.root.mkdir()
    if os.geteuid() == 0:
        state.root.chmod(0o777)  # the sandbox's own uid could write it
    ceiling = sandbox_folder / "wide.toml"
    ceiling.write_text(f'[filesystem]\nreadwrite = ["{state.root}"]\n')
    ceiling.chmod(0o644)
    kernel = start(ceiling, env=state.env)
    result = kernel.run(
        f"%allow_rw {state.root}\n"
        "import os, pathlib\n"
        f"root = pathlib.Path({str(state.root)!r})\n"
        "(root / 'control').write_text('x')\n"
        "def tried(what):\n"
        "    try:\n"
        "        return repr(what())\n"
        "    except OSError as error:\n"
        "        return type(error).__name__\n"
        "print(tried(lambda: os.listdir(root / 'mxc-kernel')))\n"
        "print(tried(lambda: os.rename(root / 'mxc-kernel', root / 'x')))\n"
        "print(tried(lambda: (root / 'mxc-kernel' / 'audit').mkdir(parents=True)))\n"
        "print(tried(lambda: (root / 'mxc-kernel' / 'index').write_text('x')))\n"
    )
    assert result.status == "ok", result.error
    assert (state.root / "control").read_text() == "x"
    assert "audit" not in result.stream()
    assert state.verify().ok
    assert {path.name for path in (state.root / "mxc-kernel").iterdir()} == {"audit"}
    by_name = kernel.run(f"%allow_ro {state.audit}\nprint('never')")
    assert by_name.error.startswith("SandboxPolicyError")
    assert by_name.stream() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's sandbox has the user's own uid")
def test_the_leased_uid_cannot_read_roots_trail(kernel: Kernel, state: State) -> None:
    kernel.run("pass")
    uid = int(kernel.run("import os; os.getuid()").value or 0)
    assert uid != 0
    for path in (state.audit, *state.audit.rglob("*")):
        command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "ls", str(path)]
        done = subprocess.run(command, capture_output=True)
        assert done.returncode != 0, path
    control = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "ls", "/"]
    assert subprocess.run(control, capture_output=True).returncode == 0
