"""Which files make a ceiling, and what each of them may say."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy import (
    DEFAULT_LIMITS,
    Access,
    Exceeded,
    HtmlLevel,
    Network,
    NetworkMode,
    Policy,
    Settings,
    load_layer,
    stamp,
    system_ceiling,
    user_ceiling,
)
from mxc_kernel.policy.known import own_folder

RO, RW, NONE = Access.READONLY, Access.READWRITE, Access.NONE


def refused(layers, *words, **more):
    with pytest.raises(SandboxPolicyError) as error:
        layers.load(**more)
    assert error.value.remedy
    assert "\n" not in error.value.remedy
    for word in words:
        assert word in str(error.value)


def test_without_any_file_nothing_is_granted(layers):
    ceiling = layers.load()
    assert not ceiling.policy.filesystem
    assert ceiling.policy == Policy(limits=DEFAULT_LIMITS)
    assert ceiling.layers == ()
    assert ceiling.explain("/srv").decided_by == "default"


def test_a_project_file_alone_grants_nothing(layers):
    layers.write(layers.beside, '[filesystem]\nreadwrite = ["${notebook_dir}"]\n')
    assert not layers.load().policy.filesystem
    layers.write(layers.user, '[filesystem]\nreadwrite = ["${notebook_dir}"]\n')
    assert layers.load().policy.filesystem.access(str(layers.project)) == RW


@pytest.mark.parametrize("name", ["system", "user"])
def test_one_file_is_the_ceiling(layers, name):
    layers.write(
        getattr(layers, name), '[filesystem]\nreadonly = ["/srv"]\nreadwrite = ["/srv/x"]\n'
    )
    files = layers.load().policy.filesystem
    assert (files.access("/srv/y"), files.access("/srv/x/y"), files.access("/opt")) == (
        RO,
        RW,
        NONE,
    )


def test_two_files_are_met(layers):
    layers.write(layers.system, '[filesystem]\nreadonly = ["/srv"]\nreadwrite = ["/opt"]\n')
    layers.write(layers.user, '[filesystem]\nreadwrite = ["/srv/x"]\nreadonly = ["/mnt"]\n')
    assert layers.load().policy.filesystem.grants == (("/srv/x", RO),)


def test_what_a_file_leaves_out_is_denied(layers):
    layers.write(
        layers.user,
        '[filesystem]\nreadonly = ["/srv"]\n[network]\nmode = "open"\n[output]\nhtml = "trusted"\n',
    )
    assert layers.load().policy.network.mode is NetworkMode.OPEN
    layers.write(layers.system, '[limits]\nmemory = "1GiB"\n')
    policy = layers.load().policy
    assert not policy.filesystem
    assert policy.network == Network()
    assert policy.html is HtmlLevel.SAFE


def test_what_a_project_leaves_out_is_not_narrowed(layers):
    layers.write(
        layers.user,
        '[filesystem]\nreadwrite = ["/srv"]\n[network]\nmode = "open"\n[output]\nhtml = "trusted"\n'
        '[environment]\nnames = ["A", "B"]\n',
    )
    alone = layers.load().policy
    layers.write(layers.beside, "[limits]\nprocesses = 3\n")
    policy = layers.load().policy
    assert policy.limits.processes == 3
    assert policy.with_filesystem(alone.filesystem).filesystem == alone.filesystem
    assert (policy.network, policy.html, policy.environment) == (
        alone.network,
        alone.html,
        frozenset({"A", "B"}),
    )
    layers.write(
        layers.beside,
        '[network]\n[output]\nhtml = "text"\n[environment]\nnames = ["B", "C"]\n'
        '[filesystem]\nreadonly = ["/srv/x", "/opt"]\n',
    )
    policy = layers.load().policy
    assert policy <= alone
    assert policy.filesystem.grants == (("/srv/x", RO),)
    assert (policy.network, policy.html) == (Network(), HtmlLevel.TEXT)
    assert policy.environment == {"B"}


def test_a_project_may_only_deny(layers):
    layers.write(layers.user, '[filesystem]\nreadwrite = ["/srv"]\n')
    layers.write(layers.beside, '[filesystem]\ndenied = ["/srv/private"]\n')
    files = layers.load().policy.filesystem
    assert (files.access("/srv/x"), files.access("/srv/private/x")) == (RW, NONE)
    layers.write(layers.beside, "[filesystem]\nreadonly = []\n")
    assert not layers.load().policy.filesystem


@pytest.mark.parametrize("section", ["start", "sandbox"])
def test_a_project_may_not_ask_or_set(layers, section):
    layers.write(layers.user, f"[{section}]\n")
    layers.load()
    layers.write(layers.beside, f"[{section}]\n")
    refused(layers, section, "only narrow", str(layers.beside))


def test_defaults_stand_for_limits_that_nobody_states(layers):
    layers.write(layers.user, '[limits]\nmemory = "64GiB"\nprocesses = "off"\n')
    limits = layers.load().policy.limits
    assert limits.memory == 64 << 30
    assert limits.processes is None
    assert limits == replace(DEFAULT_LIMITS, memory=64 << 30, processes=None)
    layers.write(layers.system, '[limits]\nmemory = "1GiB"\ncell_timeout = "30s"\n')
    limits = layers.load().policy.limits
    assert (limits.memory, limits.cell_timeout, limits.processes) == (1 << 30, 30.0, None)


def test_limits_of_output_are_met_key_by_key(layers):
    layers.write(layers.user, '[limits]\nrich_output = "1MiB"\noutputs = 50\noutput_rate = 900\n')
    layers.write(
        layers.beside,
        '[limits]\nsingle_output = "1KiB"\noutputs = 70\noutput_exceeded = "stop"\n'
        'session_output = "1MiB"\n',
    )
    assert layers.load().policy.limits == replace(
        DEFAULT_LIMITS,
        rich_output=1 << 20,
        single_output=1 << 10,
        outputs=50,
        output_rate=900,
        session_output=1 << 20,
        output_exceeded=Exceeded.STOP,
    )


def test_a_project_cannot_lift_a_default(layers):
    layers.write(layers.user, "")
    layers.write(layers.beside, '[limits]\noutput = "1TiB"\nmemory = "off"\nprocesses = "off"\n')
    assert layers.load().policy.limits == DEFAULT_LIMITS


def test_settings_are_the_systems_then_the_users(layers):
    assert layers.load().settings == Settings()
    layers.write(layers.user, '[sandbox]\nuids = "70000-70009"\npython = "~/venv/bin/python"\n')
    layers.write(layers.system, '[sandbox]\npython = "/opt/py/bin/python"\nstart_timeout = "5s"\n')
    settings = layers.load().settings
    assert settings == Settings(uids=(70000, 70009), python="/opt/py/bin/python", start_timeout=5.0)


def test_an_interpreters_symlink_is_kept(layers):
    (layers.home / "py").symlink_to("/usr/bin/python3")
    layers.write(layers.user, '[sandbox]\npython = "~/py"\n')
    assert layers.load().settings.python == str(layers.home / "py")


def test_the_start_is_clamped(layers):
    layers.write(
        layers.user,
        '[filesystem]\nreadonly = ["/srv"]\n[start]\nreadwrite = ["/srv/x"]\nreadonly = ["/opt"]\n',
    )
    ceiling = layers.load()
    assert ceiling.start.filesystem.grants == (("/srv/x", RO),)
    ceiling.check(ceiling.start)


def test_any_file_can_refuse_requests(layers):
    layers.write(layers.user, '[filesystem]\nreadonly = ["/srv"]\n')
    assert layers.load().requests == "magics"
    layers.write(layers.beside, 'requests = "none"\n')
    ceiling = layers.load()
    assert ceiling.requests == "none"
    with pytest.raises(SandboxPolicyError):
        ceiling.check(ceiling.start.allow("/srv", RO))


def test_home_and_notebook_folder_are_expanded_and_nothing_else(layers):
    layers.write(
        layers.user, '[filesystem]\nreadonly = ["~/d"]\nreadwrite = ["${notebook_dir}/o"]\n'
    )
    files = layers.load().policy.filesystem
    assert files.grants == ((f"{layers.home}/d", RO), (f"{layers.project}/o", RW))
    for text in ("$HOME/d", "${HOME}/d", "/srv/$X", "${notebook_dir}x", "d", "./d", "../d", ""):
        layers.write(layers.user, f'[filesystem]\nreadonly = ["{text}"]\n')
        refused(layers, "filesystem.readonly.0", str(layers.user))
    layers.write(layers.user, '[filesystem]\nreadonly = ["${notebook_dir}"]\n')
    refused(layers, "notebook's folder", notebook_dir=None)


def test_paths_are_canonical(layers):
    (layers.home / "real").mkdir()
    (layers.home / "link").symlink_to("real")
    layers.write(layers.user, '[filesystem]\nreadonly = ["~/x/../link/y"]\n')
    assert layers.load().policy.filesystem.grants == ((f"{layers.home}/real/y", RO),)


def test_the_variable_stands_in_for_the_users_file_only(layers):
    layers.write(layers.system, '[filesystem]\nreadonly = ["/srv"]\n')
    other = layers.write(layers.root / "other.toml", '[filesystem]\nreadwrite = ["/srv", "/opt"]\n')
    usual = layers.home / ".config" / "mxc-kernel"
    usual.mkdir(parents=True, mode=0o755)
    layers.write(usual / "ceiling.toml", '[filesystem]\nreadonly = ["/srv/x"]\n')
    assert layers.load(user=None).policy.filesystem.grants == (("/srv/x", RO),)
    environ = layers.environ | {"MXC_KERNEL_CEILING": str(other)}
    assert layers.load(user=None, environ=environ).policy.filesystem.grants == (("/srv", RO),)
    for wrong in ("other.toml", str(layers.root / "missing.toml")):
        environ = layers.environ | {"MXC_KERNEL_CEILING": wrong}
        refused(layers, "MXC_KERNEL_CEILING", wrong, user=None, environ=environ)


def test_the_usual_places(layers):
    assert system_ceiling() == "/etc/mxc-kernel/ceiling.toml"
    assert user_ceiling(layers.environ) == f"{layers.home}/.config/mxc-kernel/ceiling.toml"
    moved = layers.environ | {"XDG_CONFIG_HOME": "/srv/c"}
    assert user_ceiling(moved) == "/srv/c/mxc-kernel/ceiling.toml"


@pytest.mark.parametrize("kind", ["config", "data", "state", "cache"])
def test_our_folders_are_where_platformdirs_has_them(kind):
    import platformdirs

    assert own_folder(kind, os.environ) == getattr(platformdirs, f"user_{kind}_dir")("mxc-kernel")


@pytest.mark.parametrize("name", ["system", "user", "beside"])
def test_a_file_that_others_may_write_stops_everything(layers, name):
    layers.write(layers.user, "")
    file = layers.write(getattr(layers, name), "")
    layers.load()
    file.chmod(0o666)
    refused(layers, "others may write", str(file))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/proc",
        "/proc/1",
        "/dev",
        "/dev/shm/x",
        "/sys",
        "/tmp",
        "/var/tmp",
        "/run",
        "/run/user",
        "/etc/mxc-kernel",
        "~/.jupyter",
        "~/.local/share/jupyter/runtime",
        "~/.config/mxc-kernel",
    ],
)
def test_what_can_never_be_granted(layers, path):
    for key in ("readonly", "readwrite"):
        layers.write(layers.user, f'[filesystem]\n{key} = ["{path}"]\n')
        refused(layers, "cannot be granted", str(layers.user))
    layers.write(layers.user, f'[filesystem]\ndenied = ["{path}"]\n')
    layers.load()


def test_the_kernels_own_code_can_never_be_granted(layers):
    import mxc_kernel

    code = os.path.realpath(os.path.dirname(mxc_kernel.__file__))
    for path in (code, f"{code}/policy"):
        layers.write(layers.user, f'[filesystem]\nreadonly = ["{path}"]\n')
        refused(layers, "cannot be granted", "guards the sandbox")


@pytest.mark.parametrize(
    "path", ["/etc", "/usr/local", "/home", "~/.bashrc", "~/p/.git/hooks", "~/p/.vscode/x"]
)
def test_what_can_only_be_read(layers, path):
    layers.write(layers.user, f'[filesystem]\nreadwrite = ["{path}"]\n')
    refused(layers, "cannot be granted read and write", "readonly")
    layers.write(layers.user, f'[filesystem]\nreadonly = ["{path}"]\n')
    layers.load()


def test_folders_in_tmp_and_what_is_beside_protected_places_can_be_granted(layers):
    wanted = '["/tmp/x", "~/p", "~/p/.git", "~/.bashrc.txt", "/srv/proc"]'
    layers.write(layers.user, f"[filesystem]\nreadwrite = {wanted}\n")
    assert len(layers.load().policy.filesystem.readwrite) == 4  # .git is within ~/p


def test_moved_jupyter_folders_are_known(layers):
    layers.write(layers.user, '[filesystem]\nreadonly = ["/srv/jupyter/x"]\n')
    layers.load()
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_PATH"):
        refused(layers, "Jupyter", environ=layers.environ | {name: "/srv/jupyter"})


def test_a_ceiling_may_not_grant_itself(layers):
    layers.write(layers.user, f'[filesystem]\nreadonly = ["{layers.root}"]\n')
    layers.load()
    layers.write(layers.user, f'[filesystem]\nreadwrite = ["{layers.root}"]\n')
    refused(layers, "lies inside", str(layers.user))
    text = f'[filesystem]\nreadwrite = ["{layers.root}"]\ndenied = ["{layers.user.parent}"]\n'
    layers.write(layers.user, text)
    layers.load()


def test_a_symlink_that_a_sandbox_could_turn_is_not_followed(layers):
    (layers.project / "link").symlink_to(layers.home)
    layers.write(layers.user, '[filesystem]\nreadonly = ["${notebook_dir}/link/x"]\n')
    layers.load()
    text = '[filesystem]\nreadonly = ["${notebook_dir}/link/x"]\nreadwrite = ["${notebook_dir}"]\n'
    layers.write(layers.user, text)
    refused(layers, "symlink", str(layers.project / "link"))


def test_credentials_are_opened_by_naming_them_in_every_file(layers):
    ssh = str(layers.home / ".ssh")
    layers.write(layers.user, '[filesystem]\nreadonly = ["~"]\n')
    ceiling = layers.load()
    assert ceiling.holds(str(layers.home / "x")) == RO
    assert ceiling.holds(ssh) == NONE
    with pytest.raises(SandboxPolicyError, match="credentials"):
        ceiling.check(ceiling.start.allow(ssh, RO))
    layers.write(layers.user, '[filesystem]\nreadonly = ["~", "~/.ssh/config"]\n')
    ceiling = layers.load()
    assert (ceiling.holds(f"{ssh}/config"), ceiling.holds(f"{ssh}/id")) == (RO, NONE)
    ceiling.check(ceiling.start.allow(f"{ssh}/config", RO))
    layers.write(layers.system, '[filesystem]\nreadonly = ["~"]\n')
    assert layers.load().holds(f"{ssh}/config") == NONE
    layers.write(layers.system, '[filesystem]\nreadonly = ["~", "~/.ssh"]\n')
    assert layers.load().holds(f"{ssh}/config") == RO


def test_explain_names_the_layer_that_decides(layers):
    layers.write(layers.system, '[filesystem]\nreadwrite = ["/srv"]\n')
    layers.write(layers.user, '[filesystem]\nreadwrite = ["/srv"]\nreadonly = ["/srv/x"]\n')
    layers.write(layers.beside, '[filesystem]\ndenied = ["/srv/x/y"]\n')
    ceiling = layers.load()
    for path, name, access in (
        ("/srv/x/y/z", "project", NONE),
        ("/srv/x/z", "user", RO),
        ("/opt", "system", NONE),
        ("/srv/.git/hooks", "protected", RO),
    ):
        why = ceiling.explain(path)
        assert (why.decided_by, why.access) == (name, access)
        assert [layer for layer, _, _ in why.layers] == ["system", "user", "project"]
        assert why.reason.endswith(".")


def test_a_stamp_changes_with_the_files(layers):
    ceiling = layers.load()
    assert ceiling.looked_at == (str(layers.system), str(layers.user), str(layers.beside))
    stamps = [stamp(ceiling.looked_at)]
    assert stamp(ceiling.looked_at) == stamps[0]
    layers.write(layers.beside, "")
    stamps.append(stamp(ceiling.looked_at))
    layers.write(layers.beside, "# more\n")
    stamps.append(stamp(ceiling.looked_at))
    layers.beside.unlink()
    assert stamp(ceiling.looked_at) == stamps[0]
    assert len(set(stamps)) == 3


def test_one_layer_can_be_read_alone(layers):
    assert load_layer("user", str(layers.user), notebook_dir=None) is None
    layers.write(layers.user, '[limits]\nmemory = "1GiB"\n')
    assert load_layer("user", str(layers.user), notebook_dir=None).stated == {"memory"}


def test_neither_import_nor_a_correct_ceiling_needs_pydantic(layers):
    layers.write(layers.user, '[filesystem]\nreadonly = ["/srv"]\n[limits]\nprocesses = 5\n')
    code = (
        "import sys; from mxc_kernel.policy import load_ceiling\n"
        "load_ceiling(notebook_dir=None, environ={'HOME': sys.argv[1]}, system='/nowhere', "
        "user=sys.argv[2])\n"
        "print([name for name in ('pydantic', 'platformdirs', 'ipykernel') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, layers.home, layers.user],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "[]\n"


def test_the_worked_example_of_the_documentation(layers):
    layers.write(
        layers.system,
        '[filesystem]\nreadonly = ["/data"]\nreadwrite = ["~/notebooks"]\n'
        '[limits]\nmemory = "8GiB"\n',
    )
    layers.write(
        layers.user,
        '[filesystem]\nreadonly = ["/data/sales"]\nreadwrite = ["~/notebooks", "~/tmp"]\n'
        '[start]\nreadonly = ["/data/sales"]\n',
    )
    ceiling = layers.load()
    books = f"{layers.home}/notebooks"
    for path, access in {
        "/data/sales/q1.csv": RO,
        "/data/hr": NONE,
        f"{layers.home}/tmp": NONE,
        f"{books}/a.csv": RW,
        f"{books}/.git/hooks": RO,
    }.items():
        assert ceiling.explain(path).access == access
    assert ceiling.clamp(ceiling.start).filesystem.grants == (("/data/sales", RO),)
    ceiling.check(ceiling.start.allow(books, RW))
    with pytest.raises(SandboxPolicyError, match="holds read-only"):
        ceiling.check(ceiling.start.allow("/data/sales", RW))
