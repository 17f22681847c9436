"""Reaching a policy magic, or what one would give, in any way but at the top of a cell.

Each way is first gone with a harmless magic: so it is known to lead to a magic at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import Result

from .stage import Stage


@pytest.fixture(scope="module", autouse=True)
def harmless_magic(stage: Stage) -> None:
    """A magic of the user's own that notes how it was called."""
    stage.run(
        """
called = []
def note(line, cell=None):
    called.append(line.strip())
get_ipython().register_magic_function(note, 'line', 'mark')
get_ipython().register_magic_function(note, 'cell', 'mark')
"""
    )


def writes(folder: Path) -> str:
    return f"open({str(folder / 'planted')!r}, 'w').close()"


@pytest.fixture(autouse=True)
def nothing_was_granted(stage: Stage) -> Iterator[None]:
    """After each attack, the folder that it wanted is still closed."""
    pid = stage.value("answer = os.getpid()")
    yield
    assert stage.run(writes(stage.extra)).status == "error"
    assert not (stage.extra / "planted").exists()
    assert stage.value("answer = os.getpid()") == pid


def attack(stage: Stage, code: str, called: Sequence[str] = ("it",)) -> Result:
    """Go a way with the harmless magic and then with the policy magic; return that result.

    Args:
        stage: where.
        code: the cell, with `MAGIC` where the magic's name and its argument stand.
        called: what the harmless magic is called with on this way.
    """
    stage.run("called.clear()")
    stage.run(code.replace("MAGIC", "mark it").replace("NAME", "mark").replace("ARGUMENT", "it"))
    assert stage.value("answer = called") == list(called)
    folder = str(stage.extra)
    code = code.replace("MAGIC", f"allow_rw {folder}").replace("NAME", "allow_rw")
    result = stage.run(code.replace("ARGUMENT", folder) + "\n" + writes(stage.extra))
    assert not (stage.extra / "planted").exists()
    return result


def test_at_the_top_of_a_cell_it_works(stage: Stage) -> None:
    """The control for all that follows; in a kernel of its own, which it changes."""
    kernel = stage.start()
    assert kernel.run(f"%allow_rw {stage.extra}\n{writes(stage.extra)}").status == "ok"
    assert (stage.extra / "planted").exists()
    (stage.extra / "planted").unlink()
    stage.end(kernel)


WAYS = {
    "below-code": "pass\n%MAGIC",
    "below-another-magic": "%precision 3\n%MAGIC",
    "in-a-block": "if True:\n    %MAGIC",
    "in-a-function": "def f():\n    %MAGIC\nf()",
    "assigned": "x = %MAGIC",
    "run-line-magic": "get_ipython().run_line_magic('NAME', 'ARGUMENT')",
    "run-cell-magic": "get_ipython().run_cell_magic('NAME', 'ARGUMENT', 'pass')",
    "found-by-name": "get_ipython().find_line_magic('NAME')('ARGUMENT')",
    "from-the-magics-table": ("get_ipython().magics_manager.magics['line']['NAME']('ARGUMENT')"),
    "run-cell": "get_ipython().run_cell('%MAGIC')",
    "run-cell-of-a-cell-magic": "get_ipython().run_cell('%%NAME ARGUMENT\\npass')",
    "exec-of-transformed-code": "exec(get_ipython().transform_cell('%MAGIC'))",
    "eval": "eval(compile(get_ipython().transform_cell('%MAGIC'), 'x', 'exec'))",
    "run-code": "await get_ipython().run_cell_async('%MAGIC', transformed_cell="
    "get_ipython().transform_cell('%MAGIC'))",
    "under-time": "%time %MAGIC",
    "under-cell-time": "%%time\n%MAGIC",
    "under-capture": "%%capture\n%MAGIC",
    "under-prun": "%%prun -q\nget_ipython().run_line_magic('NAME', 'ARGUMENT')",
    "a-file-by-run": (
        "open('/tmp/a.ipy', 'w').write('%MAGIC\\n')\n"
        "get_ipython().run_line_magic('run', '/tmp/a.ipy')"
    ),
    "a-macro": "get_ipython().run_cell('m = get_ipython().user_ns'"
    ")\nfrom IPython.core.macro import Macro\nget_ipython().run_cell(Macro('%MAGIC\\n').value)",
    "an-alias-of-the-magic": (
        "get_ipython().run_line_magic('alias_magic', 'innocent NAME')\n"
        "get_ipython().run_line_magic('innocent', 'ARGUMENT')"
    ),
    "an-event": (
        "def hook():\n"
        "    get_ipython().events.unregister('post_execute', hook)\n"
        "    get_ipython().run_line_magic('NAME', 'ARGUMENT')\n"
        "get_ipython().events.register('post_execute', hook)"
    ),
    "a-thread": (
        "t = threading.Thread(target=get_ipython().run_line_magic, args=('NAME', 'ARGUMENT'))\n"
        "t.start(); t.join()"
    ),
    "a-task": (
        "import asyncio\nasync def f():\n    get_ipython().run_line_magic('NAME', 'ARGUMENT')\n"
        "await asyncio.gather(f(), return_exceptions=True)"
    ),
    "the-kernel-itself": (
        "await get_ipython().kernel.do_execute('%MAGIC', silent=True, store_history=False)"
    ),
    "with-a-forged-note-of-the-host": (
        "stubs = next(t.__self__ for t in get_ipython().input_transformers_cleanup"
        " if hasattr(t, '__self__') and hasattr(t.__self__, 'handled'))\n"
        "with stubs.handled(['MAGIC']):\n    get_ipython().run_line_magic('NAME', 'ARGUMENT')"
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_way_inside_the_sandbox_does_not_lead_to_the_host(stage: Stage, way: str) -> None:
    attack(stage, way)


LOOK_ALIKES = {
    "in-a-string": 's = """\n%MAGIC\n"""',
    "in-a-raw-string": "s = r'''\n%MAGIC\n'''",
    "in-an-f-string": 'x = 1\ns = f"""\n%MAGIC {x}\n"""',
    "in-a-comment": "# \\\n#%MAGIC",
    "behind-a-continued-line": "x = 1 + \\\n%MAGIC",
    "in-a-list": "x = [\n%MAGIC\n]",
    "full-width-percent": "\uff05MAGIC",
    "small-percent": "\ufe6aMAGIC",
    "arabic-percent": "\u066aMAGIC",
    "zero-width-space-before": "\u200b%MAGIC",
    "byte-order-mark-before": "\ufeff%MAGIC",
    "no-break-space-before": "\u00a0%MAGIC",
    "a-backslash-before": "\\%MAGIC",
    "a-semicolon-before": ";%MAGIC",
    "a-shell-escape": "!%MAGIC",
}


@pytest.mark.parametrize("text", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_what_only_looks_like_a_magic_is_none(stage: Stage, text: str) -> None:
    attack(stage, text, called=())


@pytest.mark.parametrize(("text", "called"), [("/MAGIC", "(it)"), (",MAGIC", '("it")')])
def test_ipython_s_short_ways_to_call_lead_to_its_magics_only(
    stage: Stage, text: str, called: str
) -> None:
    attack(stage, text, [called])


SPELLINGS = {
    "full-width-letter": "%allow_r\uff57",
    "cyrillic-letter": "%\u0430llow_rw",
    "capitals": "%ALLOW_RW",
    "zero-width-joiner": "%allow\u200d_rw",
    "soft-hyphen": "%allow\u00ad_rw",
    "combining-mark": "%allow_rw\u0301",
    "a-space": "% allow_rw",
    "three-signs": "%%%allow_rw",
    "an-escape": "%allow\\u005frw",
    "indented": "  %allow_rw",
    "a-tab-behind": "%allow_rw\t",
    "a-no-break-space-behind": "%allow_rw\u00a0",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_another_spelling_is_not_the_magic(stage: Stage, spelling: str) -> None:
    result = stage.run(f"{spelling} {stage.extra}\n{writes(stage.extra)}")
    assert result.status == "error"
    assert not (stage.extra / "planted").exists()


@pytest.mark.parametrize(
    "separator",
    ["\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"],
    ids=lambda text: f"{ord(text):#x}",
)
@pytest.mark.parametrize("before", ["# why", "x = 1"], ids=["comment", "code"])
def test_a_line_that_only_one_reader_sees_grants_nothing(
    stage: Stage, separator: str, before: str
) -> None:
    code = f"{before}{separator}%allow_rw {stage.extra}\n{writes(stage.extra)}"
    assert stage.run(code).status == "error"
    assert not (stage.extra / "planted").exists()


ARGUMENTS = {
    "a-variable": "%allow_rw $folder",
    "a-braced-variable": "%allow_rw {folder}",
    "a-command": "%allow_rw $(echo FOLDER)",
    "a-home-of-another": "%allow_rw ~root",
    "dots": "%allow_rw FOLDER/../../outside",
    "a-link-that-leads-out": "%allow_rw DOWNLOADS/way-out",
    "a-part-of-a-name": "%allow_rw FOLDERS",
    "the-root": "%allow_rw /",
    "proc": "%allow_rw /proc/self/root",
    "a-new-line-in-quotes": '%allow_rw "FOLDER\n"',
    "an-option-that-is-none": "%allow_rw --force FOLDER",
    "two-magics-in-a-line": "%allow_ro FOLDER; %allow_rw FOLDER",
    "a-nul": "%allow_rw FOLDER\0",
}


@pytest.mark.parametrize("call", ARGUMENTS.values(), ids=ARGUMENTS)
def test_an_argument_is_taken_as_it_stands_or_not_at_all(stage: Stage, call: str) -> None:
    way_out = stage.downloads / "way-out"
    way_out.symlink_to(stage.outside)
    stage.run(f"folder = {str(stage.extra)!r}")
    code = call.replace("FOLDER", str(stage.extra)).replace("DOWNLOADS", str(stage.downloads))
    result = stage.run(f"{code}\n{writes(stage.extra)}\n{writes(stage.outside)}")
    way_out.unlink()
    assert result.error.startswith("SandboxPolicyError"), result.error
    assert not (stage.extra / "planted").exists()
    assert not (stage.outside / "planted").exists()


# --- what cells leave behind for the next one ----------------------------------------------------


@pytest.mark.parametrize(("name", "status"), [("mark", "ok"), ("allow_rw", "error")])
def test_a_transformer_of_the_input_does_not_make_the_next_cell_a_grant(
    stage: Stage, name: str, status: str
) -> None:
    """The host reads what the frontend sent, not what the sandbox makes of it."""
    stage.run(
        "transformers = get_ipython().input_transformers_cleanup\n"
        "def plant(lines):\n"
        f"    planted = ['%{name} {stage.extra}\\n', *lines]\n"
        "    return planted if lines[0].startswith('1 + 1') else lines\n"
        "transformers.append(plant)\n"
        "called.clear()"
    )
    assert stage.run("1 + 1").status == status
    stage.run("transformers.remove(plant)")
    assert stage.value("answer = called") == ([str(stage.extra)] if status == "ok" else [])


def test_the_next_cell_s_text_is_not_filled_in_with_a_magic(stage: Stage) -> None:
    result = stage.run(f"get_ipython().set_next_input('%allow_rw {stage.extra}')")
    texts = [entry["text"] for entry in result.content["payload"]]
    assert texts == [f"# %allow_rw {stage.extra}"]
    plain = stage.run("get_ipython().set_next_input('x = 1')")
    assert [entry["text"] for entry in plain.content["payload"]] == ["x = 1"]


def test_a_completion_does_not_fill_in_a_magic(stage: Stage) -> None:
    stage.run(
        "def give(shell, event=None):\n"
        f"    return ['%allow_rw {stage.extra}', '\\n%allow_rw {stage.extra}', 'innocent']\n"
        "get_ipython().set_custom_completer(lambda self, text: give(self))\n"
        "get_ipython().Completer.use_jedi = False"
    )
    matches = stage.kernel.reply(stage.kernel.client.complete("inno", 4))["content"]["matches"]
    stage.run("get_ipython().Completer.custom_matchers.clear()")
    assert "innocent" in matches
    assert not any("allow_rw" in match for match in matches)


def test_history_does_not_bring_a_magic_that_nobody_typed(stage: Stage) -> None:
    stage.run(
        "history = get_ipython().history_manager\n"
        f"history.store_inputs(900_000, '%allow_rw {stage.extra}')\n"
        "history.store_inputs(900_001, 'x = \"harmless\"')"
    )
    client = stage.kernel.client
    reply = stage.kernel.reply(client.history(raw=True, hist_access_type="tail", n=50))
    sources = [entry[2] for entry in reply["content"]["history"]]
    assert 'x = "harmless"' in sources
    assert f"%allow_rw {stage.extra}" not in sources


# --- through messages other than a cell ----------------------------------------------------------


def test_not_by_user_expressions(stage: Stage) -> None:
    call = "get_ipython().run_line_magic({!r}, {!r})"
    stage.run("called.clear()")
    expressions = {
        "harmless": call.format("mark", "it"),
        "attack": call.format("allow_rw", str(stage.extra)),
    }
    result = stage.run("pass", user_expressions=expressions)
    said = result.content["user_expressions"]
    assert (said["harmless"]["status"], said["attack"]["status"]) == ("ok", "error")
    assert stage.value("answer = called") == ["it"]


def test_not_by_metadata_that_the_host_itself_would_set(stage: Stage) -> None:
    """The host tells the child which magics it has acted on; no frontend does."""
    client = stage.kernel.client
    content = {"code": f"pass\n%allow_rw {stage.extra}", "silent": False, "allow_stdin": False}
    message = client.session.msg("execute_request", {**content, "user_expressions": {}})
    message["metadata"] = {"mxc": {"handled": [f"allow_rw {stage.extra}"], "execution_count": 1}}
    client.shell_channel.send(message)
    assert stage.kernel.wait(message["header"]["msg_id"]).status == "error"


@pytest.mark.parametrize("msg_type", ["inspect", "is_complete", "complete"])
def test_not_by_asking_about_it(stage: Stage, msg_type: str) -> None:
    """A frontend sends these while someone types."""
    code = f"%allow_rw {stage.extra}"
    client = stage.kernel.client
    stage.kernel.reply(getattr(client, msg_type)(code))
    assert stage.run(writes(stage.extra)).status == "error"


def test_not_by_a_widget_s_callback(stage: Stage) -> None:
    """A click is a message to a comm: code of the sandbox runs, and no cell."""
    stage.run(
        "import ipywidgets\nshell, said = get_ipython(), []\nbutton = ipywidgets.Button()\n"
        "def clicked(_):\n"
        "    shell.run_line_magic('mark', 'it')\n"
        f"    try: shell.run_line_magic('allow_rw', {str(stage.extra)!r})\n"
        "    except Exception as error: said.append(type(error).__name__)\n"
        "button.on_click(clicked)\ncalled.clear()"
    )
    comm = stage.value("answer = button.model_id")
    send_comm(stage, {"comm_id": comm, "data": {"method": "custom", "content": {"event": "click"}}})
    assert stage.value("answer = [called, said]") == [["it"], ["UsageError"]]


def test_not_by_a_comm_message(stage: Stage) -> None:
    stage.run(
        "shell, said = get_ipython(), []\n"
        "def opened(comm, message):\n"
        "    for name, argument in message['content']['data']['calls']:\n"
        "        try: shell.run_line_magic(name, argument); said.append('ran')\n"
        "        except Exception as error: said.append(type(error).__name__)\n"
        "shell.kernel.comm_manager.register_target('attack', opened)"
    )
    calls = [["mark", "it"], ["allow_rw", str(stage.extra)]]
    data = {"comm_id": "one", "target_name": "attack", "data": {"calls": calls}}
    send_comm(stage, data, "comm_open")
    assert stage.value("answer = said") == ["ran", "UsageError"]


def send_comm(stage: Stage, content: dict[str, Any], kind: str = "comm_msg") -> None:
    client = stage.kernel.client
    message = client.session.msg(kind, content)
    client.shell_channel.send(message)
    idle = {"execution_state": "idle"}
    stage.kernel.wait_for(message["header"]["msg_id"], lambda m: m["content"] == idle)


def test_not_by_looking_at_a_variable_in_the_debugger(stage: Stage) -> None:
    """It calls the variable's own code, outside of any cell."""
    stage.run(
        "shell, said = get_ipython(), []\n"
        "class Trap:\n"
        "    def __init__(self, *call): self.call = call\n"
        "    def __repr__(self):\n"
        "        try: shell.run_line_magic(*self.call); said.append('ran')\n"
        "        except Exception as error: said.append(type(error).__name__)\n"
        "        return 'trap'\n"
        f"one, two = Trap('mark', 'it'), Trap('allow_rw', {str(stage.extra)!r})"
    )
    for name in ("one", "two"):
        request = {"type": "request", "seq": 1, "command": "richInspectVariables"}
        request["arguments"] = {"variableName": name}
        assert stage.kernel.control("debug_request", request)["content"]["success"] is True
    assert stage.value("answer = said") == ["ran", "UsageError"]


def test_not_by_a_cell_that_shows_nothing(stage: Stage) -> None:
    """Being silent makes no difference to what is at the top and what is code."""
    code = f"get_ipython().run_cell('%allow_rw {stage.extra}')\n{writes(stage.extra)}"
    assert stage.run(code, silent=True).status == "error"


# --- more than was asked for ---------------------------------------------------------------------


def test_a_ceiling_that_a_sandbox_could_write_is_none(stage: Stage) -> None:
    inside = stage.downloads / "ceiling.toml"
    inside.write_text(stage.ceiling.read_text())
    inside.chmod(0o644)
    kernel = stage.start(inside, prelude="")
    assert kernel.run("1").error.startswith("SandboxPolicyError")
    stage.end(kernel)
    inside.unlink()


def test_magics_that_fail_together_grant_nothing_together(stage: Stage) -> None:
    code = f"%allow_rw {stage.extra}\n%allow_rw {stage.outside}\n{writes(stage.extra)}"
    assert stage.run(code).error.startswith("SandboxPolicyError")


def test_a_throwaway_cell_s_grant_is_not_the_session_s(stage: Stage) -> None:
    target = stage.extra / "planted"
    result = stage.run(f"%%sandbox --rw {stage.extra}\n{writes(stage.extra)}")
    assert result.status == "ok", result.error
    assert target.exists()
    target.unlink()


def test_the_policy_that_is_shown_is_the_host_s_word(stage: Stage) -> None:
    """Code that redefines the magic in the sandbox changes what runs below code, no more."""
    stage.run(
        "old = get_ipython().magics_manager.magics['line']['policy']\n"
        "get_ipython().register_magic_function(lambda line: print('everything is granted'), 'line',"
        " 'policy')"
    )
    shown = stage.run("%policy")
    faked = stage.run("pass\n%policy")
    stage.run("get_ipython().register_magic_function(old, 'line', 'policy')")
    assert "everything" in faked.stream()
    assert str(stage.downloads) in shown.shown
    assert str(stage.extra) not in shown.shown
    assert json.dumps(shown.content).count("everything") == 0
