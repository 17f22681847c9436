"""Attacks on Jupyter itself: what lets its reader act as the user, and what it runs or trusts.

The ceiling here grants the whole home, so that nothing but the rules on places is in the way.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import zipfile
from pathlib import Path

import pytest

from tests.kernel.conftest import Kernel

from .stage import CHANGE, PRELUDE, Stage, outside


@pytest.fixture(scope="module")
def home(stage: Stage) -> Kernel:
    """A kernel that may write the whole home."""
    ceiling = stage.write_ceiling(
        f'[filesystem]\nreadwrite = ["{stage.home}"]\n[start]\nreadwrite = ["{stage.home}"]\n',
        "home.toml",
    )
    for path, content in FILES.items():
        file = stage.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    for top in {path.split("/")[0] for path in FILES}:
        for each in (stage.home / top, *(stage.home / top).rglob("*")):
            each.chmod(0o777 if each.is_dir() else 0o666)
    return stage.start(ceiling)


FILES = {
    ".local/share/jupyter/runtime/kernel-1.json": '{"key": "secret-of-a-kernel"}',
    ".local/share/jupyter/runtime/jpserver-1.json": '{"token": "secret-of-a-server"}',
    ".local/share/jupyter/runtime/jupyter_cookie_secret": "secret-of-the-cookies",
    ".local/share/jupyter/notebook_secret": "secret-of-signatures",
    ".local/share/jupyter/nbsignatures.db": "secret-of-trusted-notebooks",
    ".local/share/jupyter/kernels/python3/kernel.json": '{"argv": ["secret-of-kernelspecs"]}',
    ".local/share/jupyter/labextensions/x/package.json": "secret-of-extensions",
    ".local/share/jupyter/nbextensions/x.js": "secret-of-extensions",
    ".jupyter/jupyter_server_config.json": '{"password": "secret-of-a-password"}',
    ".jupyter/jupyter_server_config.py": "secret = 'secret-of-settings'",
    ".jupyter/custom/custom.js": "secret-of-scripts",
    ".jupyter/lab/user-settings/x.json": "secret-of-the-lab",
    ".jupyter/migrated": "secret-of-migrations",
    ".config/jupyter/jupyter_config.py": "secret = 'secret-of-other-settings'",
}
RUN_AT_START = {
    ".ipython/profile_default/startup/00-first.py": "pass",
    ".ipython/profile_default/ipython_config.py": "c = 1",
    ".config/matplotlib/matplotlibrc": "backend: agg",
}
FILES.update(RUN_AT_START)


def test_an_ordinary_file_of_the_home_is_read_and_written(stage: Stage, home: Kernel) -> None:
    """The control for all of them."""
    path = stage.home / "work" / "deep" / "down" / "notes.txt"
    path.parent.mkdir(parents=True)
    path.write_text("notes")
    for each in (stage.home / "work", *(stage.home / "work").rglob("*")):
        each.chmod(0o777 if each.is_dir() else 0o666)
    assert home.run(f"open({str(path)!r}).read()").value == "'notes'"
    home.run(CHANGE.format(path=str(path)))
    assert path.read_text() == "planted"
    shutil.rmtree(stage.home / "work")
    for moved in stage.home.glob("work*"):
        shutil.rmtree(moved)


@pytest.mark.parametrize("path", [path for path in FILES if path not in RUN_AT_START])
def test_what_is_jupyter_s_is_neither_read_nor_written(
    stage: Stage, home: Kernel, path: str
) -> None:
    """Connection files, cookies, tokens, kernelspecs, extensions and settings."""
    file = stage.home / path
    before = file.read_text()
    seen = home.run(f"print(tried(lambda: open({str(file)!r}).read()))").stream()
    assert "secret" not in seen
    home.run(CHANGE.format(path=str(file)))
    assert file.read_text() == before


@pytest.mark.parametrize("path", RUN_AT_START)
def test_what_a_kernel_runs_at_start_is_not_written(stage: Stage, home: Kernel, path: str) -> None:
    file = stage.home / path
    before = file.read_text()
    assert home.run(f"open({str(file)!r}).read()").value == repr(before)
    home.run(CHANGE.format(path=str(file)))
    assert file.read_text() == before


@pytest.mark.parametrize("path", ["kernels/mine/kernel.json", "runtime/kernel-9.json"])
def test_nothing_new_is_planted_among_jupyter_s(stage: Stage, home: Kernel, path: str) -> None:
    """A kernelspec of that name would be offered, and run outside of any sandbox."""
    file = stage.home / ".local/share/jupyter" / path
    result = home.run(f"os.makedirs({str(file.parent)!r}, exist_ok=True); open({str(file)!r}, 'w')")
    assert result.status == "error"
    assert not file.exists()


@pytest.mark.parametrize(
    "variable", ["JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_PATH"]
)
def test_nor_where_the_user_has_moved_it(stage: Stage, variable: str) -> None:
    moved = stage.downloads / "jupyter"
    moved.mkdir()
    moved.chmod(0o777)
    (moved / "secret.json").write_text("secret")
    kernel = stage.start(env={variable: str(moved)})
    seen = kernel.run(
        f"print(tried(lambda: open({str(moved / 'secret.json')!r}).read()),"
        f" tried(open, {str(moved / 'planted')!r}, 'w'))"
    )
    assert "secret" not in seen.stream()
    assert sorted(os.listdir(moved)) == ["secret.json"]
    refused = kernel.run(f"%allow_ro {moved}")
    assert refused.error.startswith("SandboxPolicyError")
    stage.end(kernel)
    kernel = stage.start()  # the control: without the variable it is a folder like any other
    assert kernel.run(f"open({str(moved / 'secret.json')!r}).read()").value == "'secret'"
    stage.end(kernel)
    shutil.rmtree(moved)


def test_nor_through_a_link_that_the_user_has_put_there(stage: Stage) -> None:
    """`~/.local/share/jupyter` on another disk: what the link leads to is protected too."""
    real = stage.downloads / "elsewhere"
    real.mkdir()
    real.chmod(0o777)
    (real / "jupyter_cookie_secret").write_text("secret")
    link = stage.home / ".local" / "share" / "jupyter"
    link.parent.mkdir(parents=True, exist_ok=True)
    kept = link.with_name("kept")
    if link.exists():
        link.rename(kept)
    link.symlink_to(real)
    kernel = stage.start()
    read = f"print(tried(lambda: open({str(real / 'jupyter_cookie_secret')!r}).read()))"
    assert "secret" not in kernel.run(read).stream().replace("cookie_secret", "")
    stage.end(kernel)
    link.unlink()
    if kept.exists():
        kept.rename(link)
    shutil.rmtree(real)


# --- this kernel's own connection ----------------------------------------------------------------


SEARCH = """
head, tail, needle = {head!r}.encode(), {tail!r}.encode(), b'needle-' + str(os.getpid()).encode()
def searched(data):
    'Whether the needle is there, and how often the two halves stand together.'
    together, at = 0, data.find(head)
    while at >= 0:
        end = at + len(head)
        together += data[end:end + len(tail)] == tail
        at = data.find(head, end)
    return needle in data, together
found, hits = False, 0
for line in open('/proc/self/maps'):
    span, rights = line.split()[:2]
    start, end = (int(number, 16) for number in span.split('-'))
    if rights.startswith('rw') and end - start < 64 << 20:
        with open('/proc/self/mem', 'rb', buffering=0) as memory:
            memory.seek(start)
            data = tried(memory.read, end - start)
        if isinstance(data, bytes):
            some, together = searched(data)
            found, hits = found or some, hits + together
print(found, hits)
"""


def test_the_key_of_this_kernel_s_messages_is_not_in_the_sandbox(stage: Stage) -> None:
    """Not in its environment, its arguments or its memory, and no magic tells it."""
    key = json.loads(Path(stage.kernel.manager.connection_file).read_text())["key"]
    told = stage.run(
        "from ipykernel.connect import get_connection_file\n"
        "print(get_ipython().kernel.session.key, get_ipython().config)\n"
        "print(tried(lambda: open(get_connection_file()).read()))\n"
        "print(open('/proc/self/environ').read(), open('/proc/self/cmdline').read())\n"
        "get_ipython().run_line_magic('connect_info', '')"
    )
    assert key not in str(told.messages)
    half = len(key) // 2
    code = SEARCH.format(head=key[:half], tail=key[half:])
    assert stage.run(code).stream().strip() == "True 0"


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_the_ports_of_this_kernel_are_not_reached(stage: Stage, transport: str) -> None:
    kernel = stage.start(transport=transport)
    told = json.loads(Path(kernel.manager.connection_file).read_text())
    for name in ("shell_port", "iopub_port", "control_port", "stdin_port", "hb_port"):
        if transport == "tcp":
            connect = f"socket.create_connection(({told['ip']!r}, {told[name]}), 5)"
        else:
            connect = f"socket.socket(socket.AF_UNIX).connect('{told['ip']}-{told[name]}')"
        seen = kernel.run(f"print(tried(lambda: {connect}))")
        assert seen.stream().strip() in ("ECONNREFUSED", "ENOENT")
        outside(f"{connect}")  # the control: it would raise
    stage.end(kernel)


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_a_folder_with_this_kernel_s_connection_file_is_not_granted(
    stage: Stage, transport: str
) -> None:
    """With the key in it, code in the sandbox could send cells with grants at the top."""
    folder = stage.downloads / "beside"
    folder.mkdir()
    folder.chmod(0o777)
    connection = folder / "connection.json"
    read = f"print(open({str(connection)!r}).read())"
    kernel = stage.start(connection_file=connection, transport=transport, prelude="")
    connection.chmod(0o666)
    refused = kernel.run(read)
    assert refused.error.startswith("SandboxPolicyError")
    assert "connection file lies in it" in refused.error
    assert json.loads(connection.read_text())["key"] not in str(refused.messages)
    # Without that grant it works, and with the file elsewhere so does the grant.
    narrowed = kernel.run(f"%ceiling --deny {folder}\n'alive'")
    assert narrowed.value == "'alive'", narrowed.error
    assert kernel.run(read).error.startswith("FileNotFoundError")
    stage.end(kernel)
    connection.write_text("nobody's key")
    assert "nobody's key" in stage.run(read).stream()
    shutil.rmtree(folder)


def test_tokens_of_the_server_are_not_in_the_environment(stage: Stage) -> None:
    names = ["JPY_API_TOKEN", "JUPYTERHUB_API_TOKEN", "JUPYTER_TOKEN", "JPY_PARENT_PID"]
    names += ["JPY_SESSION_NAME"]
    kernel = stage.start(env=dict.fromkeys(names[:3], "of-the-hub") | {"JPY_SESSION_NAME": "x"})
    seen = kernel.run(f"print([name for name in {names} if name in os.environ])")
    assert seen.stream().strip() == "['JPY_SESSION_NAME']"
    stage.end(kernel)


# --- what a frontend does with what it is told ---------------------------------------------------


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,<script>", "file:///etc/passwd", "//evil", "x"]
)
def test_the_help_menu_leads_to_the_web_only(stage: Stage, url: str) -> None:
    stage.run(
        f"get_ipython().kernel.help_links = [{{'text': 'evil', 'url': {url!r}}},"
        " {'text': 'good', 'url': 'https://example.com/'}]"
    )
    info = stage.kernel.reply(stage.kernel.client.kernel_info())["content"]
    assert [link["text"] for link in info["help_links"]] == ["good"]


def test_no_file_is_opened_in_the_frontend_s_editor(stage: Stage) -> None:
    """The payload of `%edit` is a path that a terminal frontend gives to a shell."""
    result = stage.run(
        "payload = get_ipython().payload_manager\n"
        "payload.write_payload({'source': 'edit_magic', 'filename': '/tmp/x; touch /tmp/y',"
        " 'line_number': 1})\n"
        "payload.write_payload({'source': 'made_up', 'data': 1})\n"
        "payload.write_payload({'source': 'page', 'data': {'text/plain': 'a page'}, 'start': 0})"
    )
    assert [item["source"] for item in result.content["payload"]] == ["page"]


def test_only_widgets_of_the_known_libraries_reach_a_frontend(stage: Stage) -> None:
    """A comm's target module would be loaded by the page (as would anywidget's `_esm`)."""
    result = stage.run(
        "from comm import create_comm\n"
        "create_comm(target_name='jupyter.widget', target_module='evil', data={'state': {"
        "'_model_module': 'evil', '_model_name': 'X', '_esm': 'alert(1)'}})\n"
        "import ipywidgets; ipywidgets.IntSlider()"
    )
    opened = str(result.of_type("comm_open"))
    assert "IntSlider" in opened
    assert "evil" not in opened
    assert "_esm" not in opened


# --- the notebook --------------------------------------------------------------------------------


def test_the_open_notebook_is_not_changed_from_inside(stage: Stage) -> None:
    """By default: the notebook's folder is granted for reading."""
    notebook = stage.documents / "open.ipynb"
    notebook.write_text('{"cells": []}')
    notebook.chmod(0o666)
    result = stage.run(
        f"print(tried(open, {str(notebook)!r}, 'w'), tried(os.unlink, {str(notebook)!r}),"
        f" tried(os.rename, '/tmp', {str(notebook)!r}))"
    )
    assert set(result.stream().split()) <= {"EROFS", "EXDEV", "EACCES", "EBUSY"}
    assert notebook.read_text() == '{"cells": []}'
    copy = stage.downloads / "open.ipynb"
    assert stage.run(f"open({str(copy)!r}, 'w').write('planted')").status == "ok"
    assert copy.read_text() == "planted"
    copy.unlink()
    notebook.unlink()


@pytest.mark.parametrize("name", ["numpy.py", "json.py", "ipykernel/__init__.py", "site.py"])
def test_a_module_beside_the_notebook_does_not_undo_the_hardening(stage: Stage, name: str) -> None:
    """That folder is on the path of its own code only, once nothing is left to give up."""
    folder = stage.downloads / "modules"
    path = folder / name
    path.parent.mkdir(parents=True)
    path.write_text("import os\nprint('shadowed', os.getpid())\n")
    kernel = stage.start(cwd=folder, prelude="")
    status = kernel.run("print(open('/proc/self/status').read())").stream()
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    assert kernel.run(PRELUDE).status == "ok"
    stage.end(kernel)
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["wheel", "zip", "egg-link"])
def test_an_archive_on_the_path_is_not_imported_by_the_host(stage: Stage, kind: str) -> None:
    marker = stage.outside / "imported"
    folder = stage.downloads / "archives"
    folder.mkdir()
    folder.chmod(0o777)
    trap = f"open({str(marker)!r}, 'w').close()\n"
    archive = folder / f"x.{kind}"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("zmq.py", "orjson.py", "mxc_kernel/__init__.py", "sitecustomize.py"):
            file.writestr(name, trap)
    kernel = stage.start(cwd=folder, env={"PYTHONPATH": str(archive), "PYTHONHOME": ""})
    assert kernel.run("1 + 1").value == "2"
    assert not marker.exists()
    stage.end(kernel)
    outside("import zmq", env={**os.environ, "PYTHONPATH": str(archive)})
    assert marker.exists()
    marker.unlink()
    shutil.rmtree(folder)


def test_a_port_in_the_sandbox_is_not_proxied_to_a_frontend(stage: Stage) -> None:
    """jupyter-server-proxy would serve it as a page of the server's own."""
    port = stage.value("s = socket.create_server(('', 0)); answer = s.getsockname()[1]")
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port), 5):
        pass
    stage.run("s.close()")
