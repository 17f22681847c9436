"""What the child reports about a cell that the sandbox stopped."""
# ruff: noqa: SIM115 - these opens fail

from __future__ import annotations

import errno
import os
import socket
import sqlite3
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.worker.denials import Collector, evidence


def raised(function):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each case knows what it raises
        function()
    return caught.value


def one(function):
    found = evidence(raised(function))
    assert len(found) == 1
    return found[0]


def failing(number, *names):
    def fail():
        raise OSError(number, os.strerror(number), *names)

    return fail


@pytest.mark.parametrize("name", ["EROFS", "EACCES", "EPERM", "ENOENT", "ENXIO", "EXDEV"])
def test_each_error_of_the_file_system_gives_its_path(name):
    found = one(failing(getattr(errno, name), "/some/file"))
    assert (found["kind"], found["errno"], found["path"]) == ("filesystem", name, "/some/file")
    assert found["operation"] == ("write" if name in ("EROFS", "EXDEV") else "unknown")


@pytest.mark.parametrize("name", ["EISDIR", "ENOTDIR", "EEXIST", "EBUSY", "ENOTEMPTY"])
def test_other_errors_are_no_evidence(name):
    assert evidence(raised(failing(getattr(errno, name), "/some/file"))) == []


def test_an_error_without_a_path_is_no_evidence():
    assert evidence(raised(failing(errno.EACCES))) == []
    assert evidence(raised(failing(errno.EACCES, 3))) == []
    assert evidence(ValueError("/some/file")) == []


def test_both_paths_of_a_rename(tmp_path):
    found = evidence(raised(lambda: os.rename(tmp_path / "none", tmp_path / "other")))
    assert [entry["path"] for entry in found] == [str(tmp_path / "none"), str(tmp_path / "other")]
    assert {entry["operation"] for entry in found} == {"write"}


MISSING = "/nonexistent/file"


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (lambda: open(MISSING), "read"),
        (lambda: open(MISSING, "w"), "write"),
        (lambda: open(MISSING, mode="rb"), "read"),
        (lambda: open(MISSING, mode="r+"), "write"),
        (lambda: open(file=MISSING, mode="x"), "write"),
        (lambda: os.open(MISSING, os.O_RDONLY), "read"),
        (lambda: os.listdir(MISSING), "read"),
        (lambda: os.mkdir(MISSING), "write"),
        (lambda: os.makedirs("/proc/nonexistent/a/b"), "write"),
        (lambda: os.unlink(MISSING), "write"),
        (lambda: __import__("pathlib").Path(MISSING).read_text(), "read"),
        (lambda: __import__("pathlib").Path(MISSING).write_text(""), "write"),
        (lambda: __import__("pathlib").Path(MISSING).open("w"), "write"),
        (lambda: __import__("shutil").copy("/etc/hostname", MISSING), "write"),
    ],
)
def test_the_call_tells_what_was_tried(function, operation):
    assert evidence(raised(function))[0]["operation"] == operation


def test_a_variable_mode_is_looked_up():
    def save(path, how):
        open(path, how)

    assert one(lambda: save(MISSING, "a"))["operation"] == "write"
    assert one(lambda: save(MISSING, "r"))["operation"] == "read"


def test_code_without_source_is_unknown():
    code = compile(f"open({MISSING!r}, 'w')", "<nowhere>", "exec")
    assert one(lambda: exec(code))["operation"] == "unknown"


def test_a_relative_path_is_made_absolute_but_not_resolved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = one(lambda: open("sub/../other/file"))
    assert found["path"] == f"{tmp_path}/sub/../other/file"


def test_bytes_and_undecodable_paths():
    assert one(lambda: open(b"/nonexistent/\xff"))["path"] == "/nonexistent/\udcff"


def test_the_chain_is_followed_even_when_hidden():
    def wrapped():
        try:
            open(MISSING)
        except OSError as error:
            raise RuntimeError("no configuration") from error

    def hidden():
        try:
            open(MISSING)
        except OSError:
            raise RuntimeError("no configuration") from None

    def grouped():
        raise ExceptionGroup("several", [raised(wrapped), raised(lambda: open("/nonexistent/b"))])

    assert one(wrapped)["path"] == MISSING
    assert one(hidden)["path"] == MISSING
    paths = {entry["path"] for entry in evidence(raised(grouped))}
    assert paths == {MISSING, "/nonexistent/b"}


def test_a_chain_without_end_ends():
    first, second = OSError(errno.ENOENT, "", "/a"), ValueError()
    first.__context__, second.__context__ = second, first
    assert len(evidence(first)) == 1
    long = OSError(errno.ENOENT, "", "/0")
    for number in range(1, 10_000):
        above = OSError(errno.ENOENT, "", f"/{number}")
        above.__context__ = long
        long = above
    assert len(evidence(long)) == 32


def refused_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]  # bound for a moment, nobody listens


@pytest.mark.parametrize(
    "connect",
    [
        lambda port: socket.create_connection(("127.0.0.1", port)),
        lambda port: socket.socket().connect(("127.0.0.1", port)),
        lambda port: urllib.request.urlopen(f"http://127.0.0.1:{port}/"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_refused_connection_names_the_host(connect):
    port = refused_port()
    found = one(lambda: connect(port))
    assert found == {"kind": "network", "host": "127.0.0.1", "errno": "ECONNREFUSED"}


def test_requests_wrapping_is_seen_through():
    requests = pytest.importorskip("requests")
    found = evidence(raised(lambda: requests.get(f"http://127.0.0.1:{refused_port()}/")))
    assert found == [{"kind": "network", "host": "127.0.0.1", "errno": "ECONNREFUSED"}]


def test_a_name_that_does_not_resolve():
    def resolve(host, port):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    found = one(lambda: resolve("example.org", 443))
    assert found == {"kind": "network", "host": "example.org", "errno": "EAI_AGAIN"}
    assert one(lambda: resolve(b"example.org", 443))["host"] == "example.org"


@pytest.mark.parametrize("name", ["ENETUNREACH", "EHOSTUNREACH", "ENETDOWN"])
def test_each_error_of_the_network(name):
    assert one(failing(getattr(errno, name)))["errno"] == name


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_sqlite_that_cannot_open_its_file():
    found = one(lambda: sqlite3.connect("/nonexistent/base.db"))
    assert (found["path"], found["operation"]) == ("/nonexistent/base.db", "write")


def test_sqlite_on_a_read_only_file(tmp_path):
    path = tmp_path / "base.db"
    sqlite3.connect(path).close()
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        found = one(lambda: connection.execute("create table t (x)"))
    finally:
        connection.close()
    assert (found["errno"], found["path"]) == ("EROFS", str(path))


class Shell:
    """As much of IPython's shell as the collector needs."""

    def __init__(self):
        self.events = self

    def register(self, event, function):
        assert event == "post_run_cell"
        self.finish = function


class Result:
    error_before_exec = None

    def __init__(self, error):
        self.error_in_exec = error


def collected(*paths):
    shell = Shell()
    collector = Collector(shell)
    collector.begin()
    errors = [OSError(errno.EACCES, "", path) for path in paths]
    for error in errors:
        shell.finish(Result(error))
    return collector.take()


def test_evidence_is_bounded_in_number_and_length():
    assert collected() is None
    assert collected("/a")["truncated"] is False
    many = collected(*(f"/{number}" for number in range(17)))
    assert (len(many["denials"]), many["truncated"]) == (16, True)
    long = collected("/" + "x" * 4096, "/b")
    assert ([entry["path"] for entry in long["denials"]], long["truncated"]) == (["/b"], True)


@given(st.text(), st.text())
def test_whatever_the_error_says_is_reported_without_a_second_error(path, other):
    found = evidence(OSError(errno.EACCES, "denied", path, None, other))
    assert all(isinstance(text, str) for entry in found for text in entry.values())
    for entry in found:
        assert os.path.isabs(entry["path"])


def test_it_comes_with_the_cell_s_reply(child):
    cell = child.run(f"open({MISSING!r}, 'w')")
    assert cell.metadata["mxc"] == {
        "denials": [
            {"kind": "filesystem", "errno": "ENOENT", "path": MISSING, "operation": "write"}
        ],
        "truncated": False,
    }
    assert child.run("1").metadata.get("mxc") is None
    assert child.run("1 / 0").metadata.get("mxc") is None


def test_a_caught_error_is_not_reported(child):
    cell = child.run(f"try: open({MISSING!r})\nexcept OSError: pass")
    assert cell.metadata.get("mxc") is None


def test_the_paths_libraries_write_to(child):
    cell = child.run(f"import numpy as np; np.save({MISSING!r}, [1])")
    assert cell.denials[0]["path"] == MISSING + ".npy"
    assert cell.denials[0]["operation"] == "write"
    cell = child.run("import pandas as pd; pd.DataFrame().to_csv('/nonexistent.d/x.csv')")
    assert cell.reply["status"] == "error"
