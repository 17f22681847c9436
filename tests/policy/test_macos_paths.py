"""Paths on macOS, where case, Unicode form and the system's own links do not matter."""

import pytest

from mxc_kernel.policy import Access, Filesystem, PathStyle

MACOS = PathStyle.MACOS
DATA = "/System/Volumes/Data"


@pytest.mark.parametrize(
    ("spelling", "place"),
    [
        ("/tmp/x", "/private/tmp/x"),
        ("/TMP/x", "/private/tmp/x"),
        ("/var/folders/a", "/private/var/folders/a"),
        ("/etc", "/private/etc"),
        ("/home/ada", f"{DATA}/home/ada"),
        (f"{DATA}/Users/ada", "/Users/ada"),
        (f"{DATA.lower()}/users/ada", "/users/ada"),
        (f"{DATA}/private/tmp/x", "/private/tmp/x"),
        (f"{DATA}/usr/local/bin", "/usr/local/bin"),
    ],
)
def test_the_systems_own_links_are_one_place(spelling, place):
    assert MACOS.normal(spelling) == place
    assert MACOS.normal(place) == place
    denied = Filesystem.of(readwrite=["/"], denied=[place], style=MACOS)
    assert denied.access(spelling) is Access.NONE


@pytest.mark.parametrize(
    "path", ["/Users/tmp", "/temp", DATA, f"{DATA}/usr/lib", f"{DATA}/Userspace", "/System/Volumes"]
)
def test_what_is_no_such_link_stays(path):
    assert MACOS.normal(path) == path


def test_linux_has_none_of_these_links():
    assert PathStyle.POSIX.normal("/tmp/x") == "/tmp/x"
    assert PathStyle.POSIX.normal(f"{DATA}/Users") == f"{DATA}/Users"


def test_case_and_unicode_form_do_not_matter_but_are_kept():
    files = Filesystem.of(readonly=["/Users/Zoe\u0301"], style=MACOS)
    assert files.access("/users/ZO\u00c9/notes") is Access.READONLY
    assert files.readonly == ("/Users/Zoe\u0301",)
    assert files.access("/Users/Zoe") is Access.NONE
