"""Output is capped and tells the truth about it."""

from __future__ import annotations

from pathlib import Path

from .conftest import Kernel, Result, Start


def _with_output(ceiling: Path, limit: str) -> Path:
    ceiling.write_text(ceiling.read_text() + f'\n[limits]\noutput = "{limit}"\n')
    return ceiling


def test_output_beyond_the_cap_is_cut_once_with_the_true_total(start: Start, ceiling: Path) -> None:
    kernel = start(_with_output(ceiling, "64KiB"))
    result = kernel.run(
        "for i in range(200_000): print('line', i)\nprint('the last line')\n'result'"
    )
    assert result.status == "ok"
    assert result.value == "'result'"
    printed = len("".join(f"line {i}\n" for i in range(200_000)) + "the last line\n")
    everything = result.stream("stdout") + result.stream("stderr")
    assert len(everything) < 70_000
    (notice,) = result.of_type("display_data")
    assert "[output cut here" in notice["content"]["data"]["text/plain"]
    assert notice["content"]["metadata"]["mxc"]["truncated"]["printed"] == printed
    assert result.stream("stdout").startswith("line 0\n")
    assert result.stream("stdout").endswith("the last line\n")
    assert result.reply["metadata"]["mxc"]["truncated"]["printed"] == printed


def test_output_within_the_cap_is_whole(start: Start, ceiling: Path) -> None:
    kernel = start(_with_output(ceiling, "4MiB"))
    result = kernel.run("for i in range(50_000): print('line', i)")
    assert result.stream() == "".join(f"line {i}\n" for i in range(50_000))
    assert "truncated" not in result.reply["metadata"]["mxc"]


def test_each_cell_has_its_own_cap(start: Start, ceiling: Path) -> None:
    kernel = start(_with_output(ceiling, "64KiB"))
    kernel.run("print('x' * 1_000_000)")
    assert kernel.run("print('short')").stream() == "short\n"


def test_pictures_over_the_cap_are_refused_and_counted(start: Start, ceiling: Path) -> None:
    ceiling.write_text(ceiling.read_text() + '\n[limits]\nrich_output = "64KiB"\noutputs = 5\n')
    kernel = start(ceiling)
    result = kernel.run("for i in range(20): display({'text/plain': str(i)}, raw=True)")
    assert result.shown.split("\n")[:5] == ["0", "1", "2", "3", "4"]
    assert result.reply["metadata"]["mxc"]["outputs_refused"] == 15
    assert "15 outputs" in result.shown
    big = kernel.run("display({'text/plain': 'x' * 100_000}, raw=True)\ndisplay('small')")
    assert big.reply["metadata"]["mxc"]["outputs_refused"] == 1
    assert "small" in big.shown


def test_a_cell_over_its_cap_is_stopped_where_the_ceiling_says_so(
    start: Start, ceiling: Path
) -> None:
    ceiling.write_text(
        ceiling.read_text() + '\n[limits]\noutput = "64KiB"\noutput_exceeded = "stop"\n'
    )
    kernel = start(ceiling)
    kernel.run("kept = 1")
    result = kernel.run("while True: print('x' * 1000)")
    assert "SandboxOutputError: the cell passed a limit of output" in result.error
    assert result.content["ename"] == "SandboxOutputError"
    assert result.reply["metadata"]["mxc"]["truncated"]["shown"] <= 64 << 10
    assert kernel.run("kept").value == "1"
    quiet = kernel.run("print('x' * 1000)")
    assert quiet.status == "ok"


def test_limits_of_output_can_be_lowered_by_a_magic(kernel: Kernel) -> None:
    refused = kernel.run("%limits --outputs 20000")
    assert "the ceiling holds 10000" in refused.error
    shown = kernel.run("%limits --outputs 3 --rich 1KiB --exceeded stop").shown
    assert "outputs of a cell" in shown
    result = kernel.run("for i in range(20): display(i)\nimport time; time.sleep(600)")
    assert "SandboxOutputError: the cell passed a limit of output" in result.error


def test_a_chatty_cell_is_paced_and_ends_with_its_last_state(kernel: Kernel) -> None:
    result = kernel.run(
        "h = display('0', display_id=True)\nfor i in range(20_000): h.update(str(i))\n'done'"
    )
    updates = result.of_type("update_display_data")
    assert updates[-1]["content"]["data"]["text/plain"] == "'19999'"
    assert len(updates) < 10_000
    assert result.value == "'done'"


def test_a_chatty_cell_can_be_interrupted(kernel: Kernel) -> None:
    msg_id = kernel.send(
        "h = display('0', display_id=True)\nwhile True:\n    h.update('x'); print('.', flush=True)"
    )
    kernel.wait_for(msg_id, lambda m: m["msg_type"] == "update_display_data")
    kernel.interrupt()
    assert kernel.wait(msg_id).error.startswith("KeyboardInterrupt")


def test_the_kernels_notes_come_back_after_a_clear(kernel: Kernel) -> None:
    result = kernel.run("%limits\nfrom IPython.display import clear_output\nclear_output()\n1")
    kinds = [m["msg_type"] for m in result.messages]
    after = result.messages[kinds.index("clear_output") + 1]
    assert "Limits in force" in after["content"]["data"]["text/plain"]
    assert after["content"]["metadata"] == {"mxc": {"note": "note"}}


INSERTED = "%allow_rw /\nimport os\n"


def test_a_loaded_file_replaces_its_cell_and_keeps_no_policy_magic(kernel: Kernel) -> None:
    kernel.run(f"open('loaded.py', 'w').write({INSERTED!r})")
    (payload,) = kernel.run("%load loaded.py").content["payload"]
    assert payload["replace"] is True
    assert payload["text"] == "# %load loaded.py\n# %allow_rw /\nimport os\n"


def test_code_puts_text_into_a_new_cell_at_most(kernel: Kernel) -> None:
    result = kernel.run(f"get_ipython().set_next_input({INSERTED!r}, replace=True)")
    assert result.content["payload"] == [
        {"source": "set_next_input", "text": f"# {INSERTED}", "replace": False}
    ]
    assert "commented out" in result.shown
    assert "a cell of its own" in result.shown


def test_a_flood_can_be_interrupted(kernel: Kernel) -> None:
    msg_id = kernel.send("while True: print('x' * 1000)")
    kernel.wait_for_text(msg_id, "x")
    kernel.interrupt()
    assert kernel.wait(msg_id).error.startswith("KeyboardInterrupt")
    assert kernel.run("1 + 1").value == "2"


SECRET = "correct-horse-7351-battery"


def test_a_secret_of_the_hosts_environment_is_never_shown(start: Start, ceiling: Path) -> None:
    kernel = start(ceiling, env={"SERVICE_PASSWORD": SECRET})
    head, tail = SECRET[:9], SECRET[9:]
    result = kernel.run(
        f"import sys, time\n"
        f"s = {head!r} + {tail!r}\n"
        "print('before', s, 'after')\n"
        "sys.stdout.write(s[:12]); sys.stdout.flush(); sys.stdout.write(s[12:] + '\\n')\n"
        "print(s.encode().hex(), file=sys.stderr)\n"
        "display({'text/plain': s, 'text/html': f'<b>{s}</b>'}, raw=True)\n"
        "raise ValueError(s)"
    )
    everything = str([m["content"] for m in result.messages if "code" not in m["content"]])
    everything += str(result.content)
    assert SECRET not in everything
    assert SECRET.encode().hex() not in everything
    assert "before [redacted: host-secret] after\n" in result.stream()
    assert result.reply["metadata"]["mxc"]["redacted"]["host-secret"] >= 4


def test_text_that_is_no_secret_is_shown_as_it_is(kernel: Kernel) -> None:
    text = f"{SECRET} https://example.org/?q=1#top \\x1b 100% <b>ü</b>"
    assert kernel.run(f"print({text!r})").stream() == text + "\n"


def test_a_prompt_at_the_end_of_output_does_not_wait_for_the_next(kernel: Kernel) -> None:
    msg_id = kernel.send("import time\nprint('gh', end='', flush=True)\ntime.sleep(600)")
    kernel.wait_for_text(msg_id, "gh")  # the beginning of ghp_, a GitHub token's prefix
    kernel.interrupt()
    kernel.wait(msg_id)


ATTACK = (
    "from IPython.display import HTML, Javascript, display\n"
    "display(HTML('<b>bold</b><script>alert(1)</script>'))\n"
    "display(HTML('<img src=http://example.org/x onerror=a>'))\n"
    "display(Javascript('alert(2)'))\n"
    "h = display(HTML('<i>first</i>'), display_id=True)\n"
    "h.update(HTML('<i onclick=x>second</i>'))\n"
    "HTML('<iframe srcdoc=\"<script>alert(3)</script>\"></iframe>done')"
)


def _html(result: Result) -> str:
    kinds = ("display_data", "update_display_data", "execute_result")
    contents = [m["content"] for m in result.of_type(*kinds)]
    shown = [c["data"] for c in contents if "note" not in c["metadata"].get("mxc", {})]
    return "".join(data.get("text/html", "") + str(sorted(data)) for data in shown)


def test_script_and_remote_pictures_do_not_reach_the_frontend(kernel: Kernel) -> None:
    result = kernel.run(ATTACK)
    html = _html(result)
    for harmless in ("<b>bold</b>", "<i>first</i>", "<i>second</i>", "done"):
        assert harmless in html
    for bad in ("script", "example.org", "onerror", "onclick", "iframe"):
        assert bad not in html
    assert "not shown: application/javascript" in result.shown + result.stream("stderr")


def test_an_operator_can_trust_output_or_allow_text_alone(start: Start, ceiling: Path) -> None:
    plain = ceiling.read_text()
    ceiling.write_text(plain + '\n[output]\nhtml = "trusted"\n')
    assert "<script>alert(1)</script>" in _html(start(ceiling).run(ATTACK))
    ceiling.write_text(plain + '\n[output]\nhtml = "text"\n')
    assert "text/html" not in _html(start(ceiling).run(ATTACK))


def test_the_kernels_own_views_are_shown_at_every_level(start: Start, ceiling: Path) -> None:
    ceiling.write_text(ceiling.read_text() + '\n[output]\nhtml = "text"\n')
    view = start(ceiling).run("%policy").of_type("display_data")[0]["content"]["data"]
    assert "text/plain" in view
