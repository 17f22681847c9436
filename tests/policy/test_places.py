"""Places with rules of their own."""

import os

import pytest
from hypothesis import given

from mxc_kernel.policy import Access, Filesystem, PathStyle, Place, Places
from mxc_kernel.policy.known import known_places
from tests.policy import laws
from tests.policy.test_ceiling import places
from tests.policy.test_model import filesystems, paths

RO, RW, NONE = Access.READONLY, Access.READWRITE, Access.NONE


@laws
@given(places, filesystems, paths)
def test_a_guard_only_takes_and_keeps_to_the_highest(places, files, path):
    guarded = places.guard(files)
    assert guarded <= files
    assert guarded.access(path) <= places.caps.access(path)
    for granted, access in guarded.grants:
        assert access <= places.highest(granted)


@laws
@given(places, paths)
def test_the_highest_is_that_of_the_strictest_place_around(places, path):
    style = places.style
    around = [
        place.highest
        for place in places.table
        if style.normal(place.path) == path or (place.whole and style.within(path, place.path))
    ]
    assert places.highest(path) == min([RW, *around])


def test_a_place_that_is_only_itself():
    places = Places((Place("/tmp", NONE, "it is shared", whole=False),), PathStyle.POSIX)
    files = places.guard(Filesystem.of(readwrite=["/tmp", "/srv"], style=PathStyle.POSIX))
    assert files.grants == (("/srv", RW),)
    files = places.guard(Filesystem.of(readwrite=["/tmp/x"], style=PathStyle.POSIX))
    assert files.access("/tmp/x/y") == RW


@pytest.mark.parametrize(
    "path",
    [
        "/p/.git/hooks",
        "/p/.git/hooks/pre-commit",
        "/p/.git/config",
        "/p/.vscode/tasks.json",
        "/p/v/lib/python3.11/site-packages/x.py",
        "/p/.envrc",
        "/p/sitecustomize.py",
        "/p/.venv",
    ],
)
def test_names_that_are_run_are_read_only_anywhere(path):
    places = Places(style=PathStyle.POSIX)
    assert places.highest(path) == RO
    assert places.why(path)
    files = Filesystem.of(readwrite=[path], style=PathStyle.POSIX)
    assert places.guard(files).grants == ((path, RO),)


@pytest.mark.parametrize(
    "path",
    ["/p/.git", "/p/.git/objects", "/p/.github/config", "/hooks", "/p/model.pth", "/p/.envrcs"],
)
def test_names_beside_them_are_not(path):
    places = Places(style=PathStyle.POSIX)
    assert places.highest(path) == RW
    assert places.why(path) is None


def test_case_does_not_get_around_a_name_where_the_system_ignores_it():
    assert Places(style=PathStyle.MACOS).highest("/p/.GIT/Hooks") == RO
    assert Places(style=PathStyle.WINDOWS).highest(r"C:\p\.Git\HOOKS\x") == RO
    assert Places(style=PathStyle.POSIX).highest("/p/.GIT/Hooks") == RW


def test_a_home_grant_leaves_out_what_runs_and_what_is_secret(tmp_path):
    home = os.path.realpath(tmp_path)
    places = known_places({"HOME": home})
    files = places.guard(Filesystem.of(readwrite=[home]))
    for name, access in {
        "notes.txt": RW,
        ".bashrc": RO,
        ".config/systemd/user/x.service": RO,
        ".local/bin/ls": RO,
        ".ssh/id_ed25519": NONE,
        ".jupyter/jupyter_server_config.py": NONE,
        ".local/share/jupyter/runtime/kernel-1.json": NONE,
        ".config/mxc-kernel/ceiling.toml": NONE,
        ".local/state/mxc-kernel/audit": NONE,
        ".local/share/other": RW,
    }.items():
        assert files.access(f"{home}/{name}") == access, name


def test_a_place_that_is_a_symlink_covers_what_it_leads_to(tmp_path):
    home = os.path.realpath(tmp_path)
    os.mkdir(f"{home}/dotfiles")
    with open(f"{home}/dotfiles/bashrc", "w"):
        os.symlink("dotfiles/bashrc", f"{home}/.bashrc")
    places = known_places({"HOME": home})
    assert places.highest(f"{home}/dotfiles/bashrc") == RO
    assert places.highest(f"{home}/dotfiles/other") == RW


def test_moved_configuration_is_known(tmp_path):
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "/srv/c", "ZDOTDIR": "/srv/z"}
    places = known_places(environ)
    assert places.highest("/srv/c/fish/config.fish") == RO
    assert places.highest("/srv/c/mxc-kernel/x") == places.highest("/srv/c/jupyter/x") == NONE
    assert places.highest("/srv/z/.zshrc") == RO
    assert places.highest("/srv/c/other") == places.highest("/srv/z/other") == RW


def test_the_kernels_own_python_is_never_writable(tmp_path):
    import sys

    prefix = os.path.realpath(sys.prefix)
    assert known_places({"HOME": str(tmp_path)}).highest(f"{prefix}/bin/python") == RO
