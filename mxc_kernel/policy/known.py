"""The places of this system and this user: what `Places` is filled with."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy.access import NATIVE, Access, PathStyle
from mxc_kernel.policy.places import Place, Places

__all__ = ["CEILING_NAME", "PROJECT_CEILING", "home_folder", "known_places", "own_folder"]

CEILING_NAME = "ceiling.toml"
PROJECT_CEILING = ".mxc-ceiling.toml"
_OWN = "mxc-kernel"

# Absolute paths: never granted, with all that is in them.
_KERNEL_VIEWS = "/proc /sys /dev"
_SOCKETS = "/run /var/run /tmp/.X11-unix /tmp/.ICE-unix"
# Programs and settings of the whole system.
_SYSTEM = (
    "/etc /usr /bin /sbin /lib /lib32 /lib64 /libx32 /boot /var/spool/cron /System /Library "
    "/Applications"
)

# Below the home folder, at most read-only.
_RUN_AT_LOGIN = (
    ".bashrc .bashrc.d .bash_profile .bash_login .bash_logout .bash_aliases .profile .zshrc "
    ".zshenv .zprofile .zlogin .zlogout .kshrc .mkshrc .cshrc .tcshrc .login .logout .inputrc "
    ".xprofile .xinitrc .xsession .xsessionrc .pam_environment .config/fish .config/autostart "
    ".config/systemd .config/environment.d .config/powershell .local/share/systemd "
    ".local/share/applications Library/LaunchAgents Documents/PowerShell "
    "Documents/WindowsPowerShell"
)
_RUN_BY_TOOLS = (
    ".gitconfig .config/git .hgrc .local/bin .local/lib bin .pip .config/pip .npmrc .yarnrc "
    ".cargo .rustup .condarc .conda .pyenv .nvm .vimrc .vim .config/nvim .emacs .emacs.d "
    ".config/emacs .vscode .vscode-server .cursor .config/Code .config/code-server .claude "
    ".codex .gemini .tmux.conf .screenrc .direnvrc .config/direnv .pdbrc .config/matplotlib "
    ".ipython"
)
# Below the home folder, hidden unless a ceiling names them.
_SECRETS = (
    ".ssh .gnupg .aws .azure .kube .docker .netrc .git-credentials .pypirc .pgpass .my.cnf "
    ".config/gcloud .config/gh .config/rclone .password-store .local/share/keyrings .mozilla "
    ".config/google-chrome .config/chromium Library/Keychains"
)
# Below the home folder, never granted: Jupyter's settings, data, connection files and cookie
# secret.
_JUPYTER = (
    ".jupyter .config/jupyter .local/share/jupyter Library/Jupyter AppData/Roaming/jupyter "
    "AppData/Local/jupyter"
)


def home_folder(environ: Mapping[str, str]) -> str:
    """Return the user's home folder, as shells see it.

    Raises:
        SandboxPolicyError: there is none, or it is not an absolute path.
    """
    home = environ.get("USERPROFILE" if sys.platform == "win32" else "HOME") or _account_home()
    if not home or not os.path.isabs(home):
        raise SandboxPolicyError(
            f"the home folder {home!r} is not an absolute path",
            remedy="Set HOME to the full path of your home folder.",
        )
    return home


def own_folder(kind: str, environ: Mapping[str, str]) -> str:
    """Return the kernel's own folder of a kind, where platformdirs would put it.

    Written out because importing platformdirs takes several milliseconds of each start.

    Args:
        kind: "config", "data", "state" or "cache".
        environ: the environment that may move it.

    Raises:
        SandboxPolicyError: there is no home folder.
    """
    home = home_folder(environ)
    if sys.platform == "win32":
        local = environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
        folder = os.path.join(local, _OWN, _OWN)
        return os.path.join(folder, "Cache") if kind == "cache" else folder
    if sys.platform == "darwin":
        below = "Caches" if kind == "cache" else "Application Support"
        return os.path.join(home, "Library", below, _OWN)
    default = {
        "config": ".config",
        "data": ".local/share",
        "state": ".local/state",
        "cache": ".cache",
    }[kind]
    moved = environ.get(f"XDG_{kind.upper()}_HOME", "").strip()
    return os.path.join(moved or os.path.join(home, default), _OWN)


def known_places(environ: Mapping[str, str]) -> Places:
    """Return the places of this system and of the user in whose environment the kernel runs.

    Reads no folder: one `lstat` for each known name.

    Args:
        environ: the kernel's own environment.

    Raises:
        SandboxPolicyError: there is no home folder.
    """
    homes = dict.fromkeys((home_folder(environ), _account_home() or home_folder(environ)))
    places = [*_system_places(), *_jupyter_places(environ), *_kernel_places(environ)]
    for home in homes:
        places.extend(_home_places(home, environ))
    return Places(tuple(dict.fromkeys(places)), NATIVE)


def _system_places() -> Iterator[Place]:
    if NATIVE is PathStyle.WINDOWS:
        for variable in ("SystemRoot", "ProgramFiles", "ProgramFiles(x86)", "ProgramData"):
            if folder := os.environ.get(variable):
                yield from _place(folder, Access.READONLY, "it belongs to the system")
        return
    yield Place("/", Access.NONE, "a grant of it is a grant of everything", whole=False)
    for path in _KERNEL_VIEWS.split():
        why = "the sandbox has its own, and the host's is a way out"
        yield from _place(path, Access.NONE, why)
    for path in _SOCKETS.split():
        yield from _place(path, Access.NONE, "it holds sockets through which a program can get out")
    for path in _SYSTEM.split():
        yield from _place(path, Access.READONLY, "it belongs to the system")
    for path in ("/tmp", "/var/tmp"):  # noqa: S108 -- named in order to be refused
        why = "it is shared by all programs, the sandbox has its own; a folder in it may be granted"
        yield Place(_real(path), Access.NONE, why, whole=False)
    for path in ("/home", "/Users", "/var"):
        why = "it holds what belongs to others; a folder in it may be granted"
        yield Place(_real(path), Access.READONLY, why, whole=False)


def _jupyter_places(environ: Mapping[str, str]) -> Iterator[Place]:
    variables = (
        "JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR JUPYTER_PATH JUPYTER_CONFIG_PATH"
    )
    for name in variables.split():
        for path in filter(os.path.isabs, environ.get(name, "").split(os.pathsep)):
            yield from _place(path, Access.NONE, "it belongs to Jupyter")
    if os.path.isabs(path := environ.get("IPYTHONDIR", "")):
        yield from _place(path, Access.READONLY, "IPython runs what it finds there")


def _kernel_places(environ: Mapping[str, str]) -> Iterator[Place]:
    code = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    why = "it is the code that guards the sandbox"
    # Inside a larger grant it may be read, as any installed package may; hiding it would put an
    # empty folder there.
    yield from _place(code, Access.READONLY, why, by_name=Access.NONE)
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix}:
        if len(NATIVE.parts(prefix)) > 1:
            yield from _place(prefix, Access.READONLY, "the kernel's own Python lives there")
    for kind in ("config", "data", "state", "cache"):
        yield from _place(own_folder(kind, environ), Access.NONE, "it belongs to the kernel")
    if NATIVE is not PathStyle.WINDOWS:
        yield from _place(
            f"/etc/{_OWN}", Access.READONLY, "it holds a ceiling", by_name=Access.NONE
        )
        why = "sandboxes' own Python lives there"
        yield from _place(f"/var/lib/{_OWN}", Access.READONLY, why)


def _home_places(home: str, environ: Mapping[str, str]) -> Iterator[Place]:
    home = _real(home)
    rules = (
        (_RUN_AT_LOGIN, Access.READONLY, "it runs at login or when a shell starts", False),
        (_RUN_BY_TOOLS, Access.READONLY, "programs run it, or it decides what they run", False),
        (
            _SECRETS,
            Access.NONE,
            "it holds credentials; only a ceiling that names it opens it",
            True,
        ),
        (_JUPYTER, Access.NONE, "it belongs to Jupyter", False),
    )
    moved = {
        ".config/": environ.get("XDG_CONFIG_HOME", ""),
        ".local/share/": environ.get("XDG_DATA_HOME", ""),
    }
    for names, highest, why, secret in rules:
        for name in names.split():
            yield from _place(os.path.join(home, name), highest, why, secret=secret)
            for start, folder in moved.items():
                if os.path.isabs(folder) and name.startswith(start):
                    path = os.path.join(folder, name.removeprefix(start))
                    yield from _place(path, highest, why, secret=secret)
    if os.path.isabs(folder := environ.get("ZDOTDIR", "")) and _real(folder) != home:
        for name in (".zshrc", ".zshenv", ".zprofile", ".zlogin", ".zlogout"):
            yield from _place(os.path.join(folder, name), Access.READONLY, rules[0][2])


def _place(
    path: str,
    highest: Access,
    why: str,
    *,
    by_name: Access = Access.READWRITE,
    secret: bool = False,
) -> Iterator[Place]:
    """Make a place of a path, and one of what it leads to where it is a symlink."""
    spelled = NATIVE.normal(os.path.normpath(path))
    yield Place(spelled, highest, why, by_name=by_name, secret=secret)
    # Most of these do not exist; resolving only what does saves most of the time (6 ms before).
    if os.path.lexists(spelled) and (real := _real(spelled)) != spelled:
        yield Place(real, highest, why, by_name=by_name, secret=secret)


def _real(path: str) -> str:
    return NATIVE.normal(os.path.realpath(path))


def _account_home() -> str | None:
    if sys.platform == "win32":
        return None
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:  # a container's uid without an account
        return None
