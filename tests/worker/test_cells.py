"""What a cell in the child does, as a frontend sees it."""

from __future__ import annotations

import json
import os
import re

import pytest

from mxc_kernel.wire import Channel


def test_streams_are_kept_apart_and_in_order(child):
    cell = child.run("import sys\nprint('one')\nprint('two', file=sys.stderr)\nprint('three')")
    assert (cell.text("stdout"), cell.text("stderr")) == ("one\nthree\n", "two\n")


def test_a_result_and_a_display(child):
    cell = child.run("display({'a': 1})\n6 * 7")
    assert cell.result == "42"
    displayed = [content for kind, content in cell.messages if kind == "display_data"]
    assert displayed[0]["data"]["text/plain"] == "{'a': 1}"


def test_an_error_keeps_the_kernel(child):
    cell = child.run("1 / 0")
    assert (cell.reply["status"], cell.reply["ename"]) == ("error", "ZeroDivisionError")
    assert "error" in [kind for kind, _ in cell.messages]
    assert cell.metadata.get("mxc") is None
    assert child.ok("1") == "1"


def test_top_level_await(child):
    assert child.ok("import asyncio\nawait asyncio.sleep(0, 'done')") == "'done'"


def test_output_of_subprocesses_and_c_code_arrives_before_the_cell_ends(child):
    code = (
        "import os, subprocess, sys\n"
        "subprocess.run(['sh', '-c', 'echo out; echo err >&2'])\n"
        "os.write(1, 'naïve\\n'.encode())\n"
        "subprocess.run(['echo', 'through sys.stdout'], stdout=sys.stdout)\n"
    )
    for _ in range(20):
        cell = child.run(code)
        assert cell.text("stdout") == "out\nnaïve\nthrough sys.stdout\n"
        assert cell.text("stderr") == "err\n"


def test_a_large_flood_through_the_descriptor_is_whole(child):
    cell = child.run("import os\nos.system('seq 1 300000') and None")
    assert cell.text() == "".join(f"{number}\n" for number in range(1, 300001))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_processes_print_into_the_cell(child):
    cell = child.run(
        "import os\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    print('from the fork'); os._exit(0)\n"
        "os.waitpid(child, 0)\nprint('from the parent')"
    )
    assert "from the fork" in cell.text()
    assert "from the parent" in cell.text()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_multiprocessing_prints_and_returns(child):
    cell = child.run(
        "import multiprocessing\n"
        "import sys\ndef work(n):\n    sys.stdout.write(f'worker {n}\\n')\n    return n * n\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    squares = pool.map(work, range(4))\n"
        "    print('x' * 200_000)\n"
        "squares"
    )
    assert cell.result == "[0, 1, 4, 9]"
    assert sorted(re.findall(r"worker \d", cell.text())) == [f"worker {n}" for n in range(4)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_sends_more_than_a_datagram_holds(child):
    cell = child.run(
        "import os\nchild = os.fork()\n"
        "if child == 0:\n    print('y' * 3_000_000); os._exit(0)\n"
        "_ = os.waitpid(child, 0)"
    )
    # the message may come after the cell's end, as with any process of its own
    got = len(cell.text().strip())
    while got < 3_000_000:
        channel, parts = child.frame()
        if channel is Channel.IOPUB and json.loads(parts[0])["msg_type"] == "stream":
            got += len(json.loads(parts[3])["text"].strip())
    assert got == 3_000_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_another_thread_writes_can_print(child):
    """A lock that the other thread held at the fork would stay held in the forked process."""
    code = (
        "import os, sys, threading\n"
        "held, forked = threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    with sys.stdout._buffer_lock:\n"
        "        held.set(); forked.wait(1)\n"
        "thread = threading.Thread(target=hold); thread.start(); _ = held.wait()\n"
        "child = os.fork()\n"
        "if child == 0:\n    print('printed'); os._exit(0)\n"
        "forked.set(); thread.join(); _ = os.waitpid(child, 0)"
    )
    assert "printed" in child.run(code).text()


def test_a_forked_process_cannot_reach_the_transport(child):
    code = (
        "import os\nr, w = os.pipe()\nchild = os.fork()\n"
        "if child == 0:\n"
        "    high = [int(n) for n in os.listdir('/proc/self/fd') if int(n) >= 200]\n"
        "    os.write(w, repr(high).encode()); os._exit(0)\n"
        "os.waitpid(child, 0)\nos.close(w)\nprint(os.read(r, 100).decode()); os.close(r)\n"
        "print([n for n in os.listdir('/proc/self/fd') if int(n) >= 200] != [])"
    )
    assert child.run(code).text().split("\n")[:2] == ["[]", "True"]


def test_descriptors_are_as_a_program_expects(start):
    """Nothing inherited is open, 0 is empty, and a started program has 0, 1 and 2 only."""
    leaked = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        child = start()
    finally:
        os.close(leaked)
    assert child.ok("import os; os.read(0, 10)") == "b''"
    listing = "import os, sys, subprocess\nsubprocess.run([sys.executable, '-c', {code!r}])"
    code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"
    assert child.run(listing.format(code=code)).text().strip() == "[0, 1, 2]"


def test_input_goes_to_the_host_and_back(child):
    asked = child.start_cell("name = input('who? ')\nname", allow_stdin=True)
    while True:
        channel, parts = child.frame()
        if channel is Channel.STDIN:
            break
    header, parent, _, content = (json.loads(part) for part in parts[:4])
    assert header["msg_type"] == "input_request"
    assert parent["msg_id"] == asked
    assert content == {"prompt": "who? ", "password": False}
    child.request("input_reply", {"value": "me"}, channel=Channel.STDIN)
    assert child.finish(asked).result == "'me'"


def test_input_is_refused_where_nobody_answers(child):
    assert child.run("input()").reply["ename"] == "StdinNotImplementedError"


def test_completion_inspection_and_history(child):
    child.ok("some_long_name = 1")
    matches = child.ask("complete_request", {"code": "some_lo", "cursor_pos": 7}).reply["matches"]
    assert matches == ["some_long_name"]
    found = child.ask("inspect_request", {"code": "len", "cursor_pos": 3, "detail_level": 0})
    assert "Return the number of items" in found.reply["data"]["text/plain"]
    content = {"hist_access_type": "tail", "output": False, "raw": True, "n": 1}
    assert child.ask("history_request", content).reply["history"][0][2] == "some_long_name = 1"


def test_it_is_ipython_to_frontends(child):
    info = child.ask("kernel_info_request", {}).reply
    assert (info["implementation"], info["language_info"]["name"]) == ("ipython", "python")


def test_the_host_numbers_the_cells(child):
    cell = child.run("'numbered'", mxc={"execution_count": 500})
    assert cell.reply["execution_count"] == 500
    assert ("execute_input", {"code": "'numbered'", "execution_count": 500}) in cell.messages
    assert child.ok("In[500], Out[500]") == "(\"'numbered'\", 'numbered')"
    assert child.run("2").reply["execution_count"] == 502


def test_settings_are_in_force(start, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    child = start(cwd=str(work), execution_count=7)
    cell = child.run("import os; os.getcwd(), os.path.isdir(os.environ['HOME'])")
    assert cell.reply["execution_count"] == 7
    assert cell.result == f"('{work}', True)"


def test_a_folder_that_is_not_visible_leaves_the_scratch_folder(start, tmp_path):
    child = start(cwd=str(tmp_path / "missing"))
    assert child.ok("import os; os.path.basename(os.getcwd())") == "'scratch-0'"


def test_a_shutdown_runs_the_users_exit_functions(start, tmp_path):
    child = start()
    bye = tmp_path / "bye"
    child.ok(f"import atexit\n@atexit.register\ndef bye(): open({str(bye)!r}, 'w').close()")
    # The reply is the host's to give; ipykernel's own may or may not get out before the end.
    child.request("shutdown_request", {"restart": False}, channel=Channel.CONTROL)
    assert child.process.wait(60) == 0
    assert bye.exists()


@pytest.mark.parametrize("busy", ["", "while True: pass", "import time; time.sleep(600)"])
def test_the_end_of_the_pipe_ends_the_child_at_once(start, busy):
    child = start()
    if busy:
        child.finish(
            child.start_cell(f"print('begun', flush=True)\n{busy}"),
            until=lambda kind, content: kind == "stream",
        )
    status, diagnostics = child.close()
    assert (status, diagnostics) == (0, "")


def test_diagnostics_get_a_crash_but_not_the_cells_output(start):
    child = start()
    child.ok("import subprocess; subprocess.run(['sh', '-c', 'echo noise >&2'])")
    child.start_cell("import ctypes; ctypes.string_at(0)")
    child.process.wait(60)
    status, diagnostics = child.close()
    assert status != 0
    assert "Segmentation fault" in diagnostics
    assert "noise" not in diagnostics


def test_a_debugger_is_there_when_asked_for(start):
    child = start()
    info = child.ask("kernel_info_request", {}).reply
    assert info.get("debugger") or "debugger" in info["supported_features"]  # as 6.x, as 7.x
    assert child.ok("import sys; 'debugpy' in sys.modules") == "False"

    def debug(command, seq):
        content = {"type": "request", "command": command, "seq": seq, "arguments": {}}
        return child.ask("debug_request", content, channel=Channel.CONTROL).reply

    cold = debug("debugInfo", 1)["body"]
    assert cold["isStarted"] is False
    assert child.ok("'debugpy' in sys.modules") == "False"
    assert debug("initialize", 2)["success"] is True
    warm = debug("debugInfo", 3)["body"]
    assert {**warm, "isStarted": False} == cold


def test_subshells_run_while_a_cell_does(start):
    child = start()
    features = child.ask("kernel_info_request", {}).reply.get("supported_features", [])
    if "kernel subshells" not in features:
        assert child.facts["ipykernel"].startswith("6.")
        return
    made = child.ask("create_subshell_request", {}, channel=Channel.CONTROL).reply
    busy = child.start_cell("input('still here?')", allow_stdin=True)
    while child.frame()[0] is not Channel.STDIN:
        pass
    asked = child.request("execute_request", {"code": "'beside'"}, subshell_id=made["subshell_id"])
    assert child.finish(asked).result == "'beside'"
    child.request("input_reply", {"value": "yes"}, channel=Channel.STDIN)
    assert child.finish(busy).result == "'yes'"
