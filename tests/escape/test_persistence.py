"""Staying: in files that something outside runs later, in processes, and in the next sandbox."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.kernel.conftest import Kernel

from .stage import CHANGE, PRELUDE, Stage

# --- files that are run later --------------------------------------------------------------------

AT_LOGIN = """
    .bashrc .bash_profile .bash_aliases .profile .zshrc .zshenv .xprofile .pam_environment
    .inputrc .config/fish/config.fish .config/autostart/x.desktop .config/systemd/user/x.service
    .config/environment.d/x.conf .local/share/applications/x.desktop
""".split()  # noqa: SIM905 - easier to read
BY_TOOLS = """
    .gitconfig .config/git/config .local/bin/git bin/git .local/lib/python3/site.py .npmrc
    .config/pip/pip.conf .condarc .cargo/config.toml .vimrc .config/nvim/init.lua .emacs
    .tmux.conf .pdbrc .hgrc .vscode/extensions/x.js .pyenv/shims/python .claude/settings.json
""".split()  # noqa: SIM905 - easier to read
SECRET = """
    .ssh/authorized_keys .ssh/config .ssh/id_ed25519 .gnupg/private.key .aws/credentials
    .kube/config .docker/config.json .netrc .git-credentials .pypirc .pgpass
    .config/gcloud/credentials.db .config/gh/hosts.yml .mozilla/firefox/cookies.sqlite
""".split()  # noqa: SIM905 - easier to read


def plant(home: Path, paths: list[str], content: str) -> None:
    for name in paths:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for top in {name.split("/")[0] for name in paths}:
        for each in (home / top, *(home / top).rglob("*")):
            each.chmod(0o777 if each.is_dir() else 0o666)


@pytest.fixture(scope="module")
def home(stage: Stage) -> Kernel:
    """A kernel that may write the whole home, which is full of what an attacker would look for."""
    plant(stage.home, AT_LOGIN + BY_TOOLS, "before")
    plant(stage.home, SECRET, "a secret")
    ceiling = stage.write_ceiling(
        f'[filesystem]\nreadwrite = ["{stage.home}"]\n[start]\nreadwrite = ["{stage.home}"]\n',
        "home.toml",
    )
    return stage.start(ceiling)


def test_an_ordinary_file_can_be_replaced_in_all_these_ways(stage: Stage, home: Kernel) -> None:
    """The control for all that follows."""
    path = stage.home / "work" / "deep" / "file"
    plant(stage.home, ["work/deep/file"], "before")
    home.run(CHANGE.format(path=str(path)))
    assert path.read_text() == "planted"
    for moved in stage.home.glob("work*"):
        shutil.rmtree(moved)


@pytest.mark.parametrize("name", AT_LOGIN + BY_TOOLS)
def test_what_runs_later_is_not_changed(stage: Stage, home: Kernel, name: str) -> None:
    path = stage.home / name
    home.run(CHANGE.format(path=str(path)))
    assert path.read_text() == "before"
    assert not path.is_symlink()


@pytest.mark.parametrize("name", SECRET)
def test_what_opens_doors_is_neither_read_nor_changed(
    stage: Stage, home: Kernel, name: str
) -> None:
    path = stage.home / name
    seen = home.run(f"print(tried(lambda: open({str(path)!r}).read()))").stream()
    assert "a secret" not in seen
    home.run(CHANGE.format(path=str(path)))
    assert path.read_text() == "a secret"


IN_PROJECTS = """
    .git/hooks/pre-commit .git/config .git/modules/x/hooks/post-checkout .hg/hgrc .envrc
    .venv/bin/python .venv/lib/python3/site-packages/x.pth venv/bin/activate sitecustomize.py
    usercustomize.py .vscode/tasks.json .idea/runConfigurations/x.xml .devcontainer/x.json
    .pre-commit-config.yaml .husky/pre-commit .githooks/pre-push .claude/settings.json .mcp.json
    .ipython/profile_default/startup/x.py .jupyter/jupyter_server_config.py .mxc-ceiling.toml
""".split()  # noqa: SIM905 - easier to read


@pytest.fixture(scope="module")
def project(stage: Stage) -> Path:
    """A project that is granted for writing, with all that tools run from one."""
    folder = stage.downloads / "project"
    folder.mkdir()
    folder.chmod(0o777)
    plant(folder, IN_PROJECTS, "before")
    return folder


@pytest.fixture(scope="module")
def worker(stage: Stage, project: Path) -> Kernel:
    assert project.exists()
    return stage.start()


@pytest.mark.parametrize("name", IN_PROJECTS)
def test_what_tools_run_from_a_project_is_not_changed(
    project: Path, worker: Kernel, name: str
) -> None:
    path = project / name
    worker.run(CHANGE.format(path=str(path)))
    assert path.read_text() == "before"


def test_an_ordinary_file_of_the_project_is(project: Path, worker: Kernel) -> None:
    plant(project, ["src/module.py"], "before")
    worker.run(CHANGE.format(path=str(project / "src" / "module.py")))
    assert (project / "src" / "module.py").read_text() == "planted"


def test_a_commit_runs_nothing_of_the_sandbox_s(stage: Stage) -> None:
    """With the real git, in a repository that the sandbox could write."""
    repository = stage.downloads / "repository"
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(repository)]
    if shutil.which("git") is None:
        pytest.fail("git is needed here")
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    for each in (repository, *repository.rglob("*")):
        each.chmod(0o777 if each.is_dir() else 0o666)
    marker = stage.outside / "hook-ran"
    kernel = stage.start()
    result = kernel.run(
        f"""
import os
os.chdir({str(repository)!r})
hook = '#!/bin/sh\\ntouch {marker}\\n'
def plant(path, text):
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with open(path, 'w') as file: file.write(text)
    os.chmod(path, 0o755)
print([tried(plant, path, text) for path, text in (
    ('.git/hooks/pre-commit', hook), ('.git/hooks/post-commit', hook),
    ('.git/config', '[core]\\nhooksPath = {repository}/own\\nfsmonitor = {repository}/own/x'),
    ('.git/config.worktree', '[core]\\nhooksPath = {repository}/own'),
)])
print(tried(os.rename, '.git', 'git-away'))
plant('own/pre-commit', hook); plant('own/x', hook); plant('file', 'content')
"""
    )
    assert result.status == "ok", result.error
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_COUNT": "1"}
    environ |= {"GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    subprocess.run([*git, "add", "file"], check=True, env=environ)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True, env=environ)
    assert not marker.exists()
    hook = repository / ".git" / "hooks" / "post-commit"  # the control: a hook of the user's runs
    hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
    hook.chmod(0o755)
    subprocess.run([*git, "commit", "-q", "-m", "y", "--allow-empty"], check=True, env=environ)
    assert marker.exists()
    marker.unlink()
    stage.end(kernel)
    shutil.rmtree(repository)


# --- processes -----------------------------------------------------------------------------------

LINGER = """
import os, signal, subprocess, sys
code = {code!r}
def daemon():
    if os.fork(): return
    os.setsid()
    if os.fork(): os._exit(0)
    for number in range(1, 32):
        try: signal.signal(number, signal.SIG_IGN)
        except OSError: pass
    os.chdir('/')
    os.execv(sys.executable, [sys.executable, '-c', code])
daemon()
while not os.path.exists({path!r}): pass
"""


@pytest.mark.parametrize("ending", ["%revoke {path}", "%sandbox restart", "restart", "shutdown"])
def test_no_process_outlives_its_sandbox(stage: Stage, ending: str) -> None:
    """A daemon that has left its session and ignores every signal, and is still writing."""
    target = stage.extra / "written"
    code = f"while True: open({str(target)!r}, 'a').write('x')"
    kernel = stage.start()
    linger = LINGER.format(code=code, path=str(target))
    assert kernel.run(f"%allow_rw {stage.extra}\n{linger}").status == "ok"
    tree = psutil.Process(kernel.pid).children(recursive=True)
    assert len(tree) >= 5  # the control: it is there, and it writes
    if ending == "restart":
        kernel.manager.restart_kernel(now=False)
        kernel.client.wait_for_ready(timeout=60)
    elif ending == "shutdown":
        stage.end(kernel)
    else:
        kernel.run(ending.format(path=stage.extra))
    gone, alive = psutil.wait_procs(tree, timeout=10)
    assert gone
    assert not alive
    size = target.stat().st_size
    if ending != "shutdown":
        kernel.run("import time; time.sleep(0.3)")
        stage.end(kernel)
    assert target.stat().st_size == size > 0
    target.unlink()


def test_code_for_the_end_runs_inside_and_not_for_long(stage: Stage) -> None:
    """What a kernel registers for its exit has a moment, and no more rights than before."""
    allowed, forbidden = stage.downloads / "at-exit", stage.extra / "at-exit"
    kernel = stage.start()
    kernel.run(
        "import atexit\n"
        "def at_exit():\n"
        f"    for path in ({str(allowed)!r}, {str(forbidden)!r}):\n"
        "        tried(lambda: open(path, 'w').write('x'))\n"
        "    while True: pass\n"
        "atexit.register(at_exit)"
    )
    tree = psutil.Process(kernel.pid).children(recursive=True)
    kernel.client.shutdown()
    gone, alive = psutil.wait_procs(tree, timeout=20)
    assert gone
    assert not alive
    assert allowed.exists()  # the control: it ran
    assert not forbidden.exists()
    allowed.unlink()
    stage.end(kernel)


# --- the next sandbox ----------------------------------------------------------------------------

TAINT = """
import builtins, sys, json
class Hook:
    def find_spec(self, name, path=None, target=None):
        seen.append(name)
seen = []
sys.meta_path.insert(0, Hook())
builtins.open_before, builtins.tainted = open, True
json.dumps.__kwdefaults__['indent'] = 7
sys.settrace(lambda *a: None); threading.settrace(lambda *a: None)
get_ipython().events.register('pre_run_cell', lambda *a: print('tainted'))
get_ipython().kernel.do_tainted = 1
open('/tmp/tainted', 'w').close(); open('/dev/shm/tainted', 'w').close()
os.makedirs(os.path.expanduser('~/.ipython/profile_default/startup'), exist_ok=True)
open(os.path.expanduser('~/.ipython/profile_default/startup/x.py'), 'w').write('tainted = 1')
os.makedirs(os.path.expanduser('~/.local/lib'), exist_ok=True)
open(os.path.expanduser('~/usercustomize.py'), 'w').write('import builtins; builtins.tainted = 1')
get_ipython().history_manager.store_inputs(99, 'tainted = 1')
"""
LOOK = """
import builtins, json, os, sys  # the names may be lost on the way: tainted code packs them
print(hasattr(builtins, 'tainted'), hasattr(get_ipython().kernel, 'do_tainted'),
      os.path.exists('/tmp/tainted'), os.path.exists('/dev/shm/tainted'),
      any(type(f).__name__ == 'Hook' for f in sys.meta_path), sys.gettrace() is not None,
      json.dumps.__kwdefaults__['indent'])
"""


@pytest.mark.parametrize("ending", ["restart", "%sandbox restart"])
def test_a_new_sandbox_has_nothing_of_the_old_one_s_tricks(stage: Stage, ending: str) -> None:
    kernel = stage.start()
    tainted = kernel.run(TAINT + LOOK)
    assert tainted.stream().strip().endswith("True True True True True True 7"), tainted.error
    if ending == "restart":
        kernel.manager.restart_kernel(now=False)
        kernel.client.wait_for_ready(timeout=60)
        kernel.run(PRELUDE)
    else:
        assert kernel.run(ending).status == "ok"
    clean = kernel.run(LOOK)
    assert clean.stream().strip() == "False False False False False False None", clean.error
    stage.end(kernel)


def test_a_throwaway_cell_leaves_nothing_behind_in_the_session(stage: Stage) -> None:
    stage.run(f"%%sandbox\nimport os, threading\n{TAINT}")
    assert stage.run(LOOK).stream().strip() == "False False False False False False None"
    result = stage.run(f"%%sandbox\nimport os, threading\n{TAINT}{LOOK}")
    assert "True True True True" in result.stream(), result.error


def test_a_snapshot_does_not_bring_a_grant_back(stage: Stage) -> None:
    """Names are restored; what was granted when they were taken is not."""
    target = stage.extra / "restored"
    kernel = stage.start()
    kernel.run(f"%allow_rw {stage.extra}\nx = {str(target)!r}")
    kernel.run("%checkpoint")
    kernel.run(f"%revoke {stage.extra}")
    result = kernel.run("%restore\nopen(x, 'w')")
    assert result.status == "error"
    assert not target.exists()
    assert kernel.run(f"%allow_rw {stage.extra}\nopen(x, 'w').close()").status == "ok"
    assert target.exists()
    target.unlink()
    stage.end(kernel)


def test_an_open_descriptor_does_not_survive_the_end_of_its_grant(stage: Stage) -> None:
    target = stage.extra / "held"
    kernel = stage.start()
    kernel.run(
        f"%allow_rw {stage.extra}\nimport mmap\nf = open({str(target)!r}, 'w+b')\n"
        "f.write(b'old'); f.flush()\nm = mmap.mmap(f.fileno(), 3)\nfd = os.dup(f.fileno())"
    )
    assert target.read_bytes() == b"old"
    kernel.run(f"%revoke {stage.extra}\npass")
    for write in ("f.write(b'new'); f.flush()", "m[:] = b'new'", "os.pwrite(fd, b'new', 0)"):
        kernel.run(write)
    assert target.read_bytes() == b"old"
    target.unlink()
    stage.end(kernel)


def test_the_next_kernel_of_the_user_finds_nothing_of_the_last_one(stage: Stage) -> None:
    """Neither in scratch nor in its history."""
    kernel = stage.start()
    kernel.run(f"{TAINT}\nmine = os.path.expanduser('~/mine'); open(mine, 'w').close()")
    stage.end(kernel)
    kernel = stage.start()
    assert kernel.run(LOOK).stream().strip() == "False False False False False False None"
    assert kernel.run("print(os.path.exists(os.path.expanduser('~/mine')))").stream() == "False\n"
    history = kernel.reply(kernel.client.history(raw=True, hist_access_type="tail", n=100))
    assert not any("tainted" in str(entry) for entry in history["content"]["history"][:1])
    stage.end(kernel)
