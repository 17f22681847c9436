"""The algebra of grants, held against a reference that looks at every prefix of a path."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy import Access, Filesystem, PathStyle
from tests.policy import laws

POSIX, MACOS, WINDOWS = PathStyle.POSIX, PathStyle.MACOS, PathStyle.WINDOWS
RO, RW, NONE = Access.READONLY, Access.READWRITE, Access.NONE

# Few names, so that paths nest and collide often; some differ in case or Unicode form only.
NAMES = ("a", "A", "ab", "e\u0301", "\u00e9", "\u00df", "ss")
DRIVES = ("C:", "c:", r"\\Host\share", r"\\?\C:", "//host/SHARE")


def spellings(style):
    """Every path of few names, in turn with each of the ways in which one can be written."""
    windows = style is WINDOWS
    between = itertools.cycle(["\\", "/"] if windows else ["/", "//", "/./"])
    trailing = itertools.cycle(["", "/", ""])
    found = [style.everything]
    for root in DRIVES if windows else ("",):
        for depth in range(3 if windows else 4):
            for names in itertools.product(NAMES, repeat=depth):
                separator = next(between)
                path = separator.join([root, *names])
                found.append(path + (separator if path.endswith(":") else next(trailing)))
    return [path for path in found if path]


POOLS = {style: st.sampled_from(spellings(style)) for style in PathStyle}


def paths(style):
    return POOLS[style]


def grants(style):
    return st.lists(st.tuples(paths(style), st.sampled_from(list(Access))), max_size=6).map(tuple)


def filesystems(style):
    return st.builds(Filesystem, grants(style), st.just(style))


STYLES = st.sampled_from(list(PathStyle))
CHANGES = STYLES.flatmap(
    lambda s: st.tuples(filesystems(s), paths(s), st.lists(paths(s), max_size=5))
)
PAIRS = STYLES.flatmap(lambda s: st.tuples(filesystems(s), filesystems(s)))
TRIPLES = STYLES.flatmap(lambda s: st.tuples(*[filesystems(s)] * 3))


def reference(grants, style, path):
    """The access of a path by the definition: the deepest grant, the lesser of two on one path."""
    best, found = -1, NONE
    for granted, access in grants:
        if style.within(path, granted):
            depth = len(style.parts(granted))
            if depth > best:
                best, found = depth, access
            elif depth == best:
                found = min(found, access)
    return found


@laws
@given(STYLES.flatmap(lambda s: st.tuples(grants(s), st.just(s), st.lists(paths(s), max_size=8))))
def test_access_is_that_of_the_deepest_grant(case):
    written, style, asked = case
    files = Filesystem(written, style)
    for path in [*asked, *(path for path, _ in written)]:
        assert files.access(path) == reference(written, style, path)


@laws
@given(PAIRS, st.data())
def test_meet_and_join_are_pointwise(pair, data):
    a, b = pair
    for path in data.draw(st.lists(paths(a.style), max_size=6)):
        assert a.meet(b).access(path) == min(a.access(path), b.access(path))
        assert a.join(b).access(path) == max(a.access(path), b.access(path))


@laws
@given(TRIPLES)
def test_meet_and_join_are_a_lattice(triple):
    a, b, c = triple
    top, bottom = Filesystem.top(a.style), Filesystem.bottom(a.style)
    for op, other in ((Filesystem.meet, Filesystem.join), (Filesystem.join, Filesystem.meet)):
        assert op(a, a) == a
        assert op(a, b) == op(b, a)
        assert op(a, op(b, c)) == op(op(a, b), c)
        assert op(a, other(a, b)) == a
    assert a.meet(top) == a == a.join(bottom)
    assert a.meet(bottom) == bottom
    assert a.join(top) == top
    assert a.meet(b) <= a
    assert a.meet(b) <= b
    assert bottom <= a <= top


@laws
@given(TRIPLES)
def test_meet_is_monotone(triple):
    a, b, c = triple
    assert a.meet(b).meet(c) <= a.meet(c)


@laws
@given(PAIRS)
def test_order_agrees_with_meet(pair):
    a, b = pair
    assert (a <= b) == (a.meet(b) == a)


@laws
@given(PAIRS)
def test_equal_exactly_when_no_path_tells_them_apart(pair):
    a, b = pair
    differ = any(a.access(path) != b.access(path) for path, _ in (*a.grants, *b.grants))
    assert (a == b) == (not differ)
    if a == b:
        assert hash(a) == hash(b)


@laws
@given(STYLES.flatmap(filesystems))
def test_normal_form_is_stable_and_short(files):
    assert Filesystem(files.grants, files.style).grants == files.grants
    for index in range(len(files.grants)):
        without = Filesystem(files.grants[:index] + files.grants[index + 1 :], files.style)
        assert without != files


@laws
@given(
    STYLES.flatmap(lambda s: st.tuples(filesystems(s), paths(s), st.lists(paths(s), max_size=5)))
)
def test_allow_only_adds_and_revoke_only_takes(case):
    files, path, others = case
    for access in Access:
        allowed = files.allow(path, access)
        assert files <= allowed
        assert allowed.access(path) == max(access, files.access(path))
    revoked = files.revoke(path)
    assert revoked <= files
    for other in others:
        inside = files.style.within(other, path)
        assert revoked.access(other) == (NONE if inside else files.access(other))


def test_a_prefix_is_not_a_parent():
    files = Filesystem.of(readwrite=["/data"], style=POSIX)
    assert files.access("/data") == files.access("/data/x") == RW
    assert files.access("/database") == files.access("/dat") == files.access("/") == NONE


def test_nesting_works_either_way_round():
    files = Filesystem.of(
        readwrite=["/a", "/a/ro/rw"], readonly=["/a/ro"], denied=["/a/ro/rw/no"], style=POSIX
    )
    assert [files.access(path) for path in ("/a/x", "/a/ro/x", "/a/ro/rw/x", "/a/ro/rw/no/x")] == [
        RW,
        RO,
        RW,
        NONE,
    ]


def test_a_grant_that_repeats_the_one_above_is_dropped():
    files = Filesystem.of(readonly=["/a/", "/a/b", "/a/b/c"], denied=["/z"], style=POSIX)
    assert files.grants == (("/a", RO),)


def test_the_root_reaches_everything():
    files = Filesystem.of(readonly=["/"], denied=["/x"], style=POSIX)
    assert files.access("/") == files.access("/y/z") == RO
    assert files.access("/x/y") == NONE


def test_of_two_grants_on_one_path_the_lesser_counts():
    files = Filesystem.of(readonly=["/a"], readwrite=["/a/"], style=POSIX)
    assert files.access("/a") == RO


def test_windows_paths_that_are_one_path():
    files = Filesystem.of(readwrite=[r"C:\Users\Me\Data"], style=WINDOWS)
    for path in (r"c:\users\ME\data\x", "C:/Users/Me/Data/x", r"\\?\C:\USERS\me\data"):
        assert files.access(path) == RW
    for path in (r"D:\Users\Me\Data", r"C:\Users\Me\Database", "C:\\", r"\\C\Users\Me\Data"):
        assert files.access(path) == NONE
    share = Filesystem.of(readonly=[r"\\host\share\x"], style=WINDOWS)
    assert share.access(r"\\?\UNC\HOST\Share\X\y") == RO
    assert share.access(r"\\host\share2\x") == share.access(r"\\host\share") == NONE


def test_windows_folding_does_not_reach_further_than_the_file_system():
    files = Filesystem.of(readwrite=["C:\\straße", "C:\\\u0131", "C:\\É"], style=WINDOWS)
    assert files.access("C:\\STRASSE") == files.access("C:\\i") == files.access("C:\\I") == NONE
    assert files.access("C:\\é") == RW


def test_macos_names_that_are_one_name():
    files = Filesystem.of(readwrite=["/Users/Zoe\u0308"], style=MACOS)
    assert files.access("/users/zoë/x") == RW
    assert files.access("/users/zoe") == NONE


@pytest.mark.parametrize(
    ("path", "style"),
    [
        ("a", POSIX),
        ("", POSIX),
        ("./a", POSIX),
        ("/a/../b", POSIX),
        ("/a\0b", POSIX),
        ("/a", WINDOWS),
        ("C:a", WINDOWS),
        (r"\a", WINDOWS),
        (r"C:\a\..\b", WINDOWS),
        (r"\\.\C:\a", WINDOWS),
        (r"\\?\Volume{1}\a", WINDOWS),
        (r"\\?\GLOBALROOT\a", WINDOWS),
        (r"\\host", WINDOWS),
        (r"\\host\..\a", WINDOWS),
        (r"C:\a.", WINDOWS),
        ("C:\\a ", WINDOWS),
        (r"C:\a:stream", WINDOWS),
        (r"C:\a\NUL", WINDOWS),
        (r"C:\a\com1.txt", WINDOWS),
    ],
)
def test_paths_that_mean_something_else_are_refused(path, style):
    with pytest.raises(SandboxPolicyError) as error:
        Filesystem.of(readonly=[path], style=style)
    assert error.value.remedy


def test_windows_names_that_only_look_like_devices_are_names():
    files = Filesystem.of(readonly=[r"C:\console\nullable\com10"], style=WINDOWS)
    assert files.access(r"C:\console\nullable\com10\x") == RO
