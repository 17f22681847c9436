"""What a JupyterLab user expects of any Python kernel."""

from __future__ import annotations

import queue
import re

import pytest

from .conftest import TIMEOUT, Kernel


def test_state_stays_from_cell_to_cell(kernel: Kernel) -> None:
    assert kernel.run("x = 20").status == "ok"
    result = kernel.run("x * 2 + 2")
    assert result.value == "42"
    assert result.content["execution_count"] == 2


def test_a_cell_is_answered_in_the_protocols_order(kernel: Kernel) -> None:
    result = kernel.run("print('hello')\n'value'")
    kinds = [m["msg_type"] for m in result.messages]
    assert kinds == ["status", "execute_input", "stream", "execute_result", "status"]
    states = [m["content"]["execution_state"] for m in result.of_type("status")]
    assert states == ["busy", "idle"]


def test_stdout_and_stderr_stay_apart(kernel: Kernel) -> None:
    result = kernel.run("import sys; print('out'); print('err', file=sys.stderr)")
    assert result.stream("stdout") == "out\n"
    assert result.stream("stderr") == "err\n"


def test_output_of_subprocesses_and_of_c_code_reaches_the_cell(kernel: Kernel) -> None:
    result = kernel.run(
        "import os, subprocess\n"
        "subprocess.run(['echo', 'from a subprocess'])\n"
        "os.write(1, b'from a descriptor\\n')\n"
        "!echo from a shell"
    )
    for text in ("from a subprocess", "from a descriptor", "from a shell"):
        assert text in result.stream()


def test_output_is_streamed_while_the_cell_runs(kernel: Kernel) -> None:
    msg_id = kernel.send(
        "import threading\nprint('first', flush=True)\nthreading.Event().wait(600)"
    )
    kernel.wait_for_text(msg_id, "first")  # long before the cell's end
    kernel.interrupt()
    assert kernel.wait(msg_id).status == "error"


def test_an_error_has_its_traceback_and_aborts_what_is_queued(kernel: Kernel) -> None:
    first = kernel.send("def f():\n    return 1 / 0\nf()")
    second = kernel.send("print('never')")
    result = kernel.wait(first)
    assert result.error == "ZeroDivisionError: division by zero"
    traceback = "\n".join(result.of_type("error")[0]["content"]["traceback"])
    assert "return 1 / 0" in re.sub(r"\x1b\[[\d;]*m", "", traceback)
    aborted = kernel.wait(second)
    assert aborted.status == "aborted"
    assert aborted.stream() == ""
    assert kernel.run("print('goes on')").stream() == "goes on\n"


def test_cells_queued_behind_an_error_run_if_the_frontend_wants(kernel: Kernel) -> None:
    first = kernel.send("1 / 0", stop_on_error=False)
    second = kernel.send("print('still runs')")
    assert kernel.wait(first).status == "error"
    assert kernel.wait(second).stream() == "still runs\n"


def test_input_asks_the_user(kernel: Kernel) -> None:
    msg_id = kernel.send("name = input('Who? '); print('Hello', name)", allow_stdin=True)
    request = kernel.client.get_stdin_msg(timeout=TIMEOUT)
    assert request["content"] == {"prompt": "Who? ", "password": False}
    assert request["parent_header"]["msg_id"] == msg_id
    kernel.client.input("Ada")
    assert kernel.wait(msg_id).stream() == "Hello Ada\n"


def test_input_is_an_error_where_nobody_can_be_asked(kernel: Kernel) -> None:
    result = kernel.run("input('Who? ')", allow_stdin=False)
    assert result.error.startswith("StdinNotImplementedError")
    with pytest.raises(queue.Empty):
        kernel.client.get_stdin_msg(timeout=0.2)


def test_completion_inspection_and_is_complete(kernel: Kernel) -> None:
    kernel.run("import pathlib\nanswer_of_everything = 42")
    kernel.client.complete("answer_of", 9)
    assert "answer_of_everything" in kernel.reply_content()["matches"]
    kernel.client.inspect("pathlib.Path", 12)
    reply = kernel.reply_content()
    assert reply["found"]
    assert "PurePath" in reply["data"]["text/plain"]
    kernel.client.is_complete("for i in range(3):")
    assert kernel.reply_content()["status"] == "incomplete"


def test_help_and_magics_of_ipython_work(kernel: Kernel) -> None:
    payload = kernel.run("len?").content["payload"]
    assert "Return the number of items" in payload[0]["data"]["text/plain"]
    assert "loop" in kernel.run("%timeit -n1 -r1 pass").stream()


def test_pictures_and_tables(kernel: Kernel) -> None:
    result = kernel.run(
        "%matplotlib inline\n"
        "import pandas as pd, matplotlib.pyplot as plt\n"
        "plt.plot([1, 3, 2]); plt.show()\n"
        "pd.DataFrame({'a': [1, 2]})"
    )
    assert result.status == "ok", result.error
    (picture,) = result.of_type("display_data")
    assert picture["content"]["data"]["image/png"].startswith("iVBOR")
    (table,) = result.of_type("execute_result")
    assert "<table" in table["content"]["data"]["text/html"]


def test_a_thread_prints_after_its_cell_has_ended(kernel: Kernel) -> None:
    started = kernel.run(
        "import threading\n"
        "go = threading.Event()\n"
        "def late():\n    go.wait(); print('from the thread', flush=True)\n"
        "threading.Thread(target=late).start()"
    )
    assert started.status == "ok", started.error
    kernel.send("go.set()")
    kernel.wait_for_text(None, "from the thread")


def test_the_kernel_says_what_it_is(kernel: Kernel) -> None:
    kernel.client.kernel_info()
    info = kernel.reply_content()
    assert info["implementation"] == "ipython"
    assert info["language_info"]["name"] == "python"


def test_restart_forgets_the_state(kernel: Kernel) -> None:
    kernel.run("x = 1")
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=TIMEOUT)
    assert kernel.run("x").error.startswith("NameError")
    assert kernel.run("1 + 1").value == "2"


def test_every_comm_message_is_announced_as_busy_and_idle(kernel: Kernel) -> None:
    """A slider waits for the idle before it sends its next value."""
    kernel.run(
        "values = []\n"
        "def opened(comm, message):\n"
        "    comm.on_msg(lambda m: values.append(m['content']['data']['value']))\n"
        "get_ipython().kernel.comm_manager.register_target('slider', opened)"
    )

    def send(msg_type: str, content: dict[str, object]) -> list[str]:
        message = kernel.client.session.msg(msg_type, {"comm_id": "one", **content})
        kernel.client.shell_channel.send(message)
        msg_id = message["header"]["msg_id"]
        states = []
        while "idle" not in states:
            status = kernel.wait_for(msg_id, lambda m: m["msg_type"] == "status")
            states.append(status["content"]["execution_state"])
        return states

    assert send("comm_open", {"target_name": "slider", "data": {}}) == ["busy", "idle"]
    for value in (7, 50):
        assert send("comm_msg", {"data": {"value": value}}) == ["busy", "idle"]
    assert kernel.run("values").value == "[7, 50]"


def test_widgets_work_both_ways(kernel: Kernel) -> None:
    result = kernel.run("import ipywidgets\ns = ipywidgets.IntSlider(value=3)\ns")
    view = result.of_type("execute_result")[0]["content"]["data"]
    model = view["application/vnd.jupyter.widget-view+json"]["model_id"]
    update = {"comm_id": model, "data": {"method": "update", "state": {"value": 42}}}
    kernel.client.shell_channel.send(kernel.client.session.msg("comm_msg", update))
    assert kernel.run("s.value").value == "42"
