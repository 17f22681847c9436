r"""Windows' many spellings of one path: pure functions, so that they are tested on any system."""

import ntpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy import Access, Filesystem, PathStyle
from mxc_kernel.policy.paths import refuse_short_names, symlinks
from tests.policy import laws

WINDOWS = PathStyle.WINDOWS


@pytest.mark.parametrize(
    ("spelling", "normal"),
    [
        (r"c:\Users\Ada", r"C:\Users\Ada"),
        ("C:/Users//Ada/", r"C:\Users\Ada"),
        (r"\\?\C:\Users\Ada", r"C:\Users\Ada"),
        (r"\\?\c:/Users\.\Ada", r"C:\Users\Ada"),
        (r"\\host\share\x", r"\\host\share\x"),
        ("//host/share/x", r"\\host\share\x"),
        (r"\\?\UNC\host\share\x", r"\\host\share\x"),
        ("D:\\", "D:\\"),
    ],
)
def test_one_path_has_one_form(spelling, normal):
    assert WINDOWS.normal(spelling) == normal
    assert WINDOWS.normal(normal) == normal


@pytest.mark.parametrize(
    ("path", "word"),
    [
        *(
            (rf"C:\a\{name}", "plain file name")
            for name in ("con", "NUL.txt", "COM1", "lpt¹", "aux")
        ),
        *((rf"C:\{name}\x", "plain file name") for name in ("a.", "a ", "a..", "CONIN$", "a?b")),
        (r"C:\a\notes.txt:hidden", "plain file name"),
        (r"C:\a\notes.txt::$DATA", "plain file name"),
        (r"\\.\C:\a", "device"),
        (r"\\.\pipe\docker_engine", "device"),
        (r"\\?\GLOBALROOT\Device\HarddiskVolume1\a", "device or a volume"),
        (r"\\?\Volume{00000000-0000-0000-0000-000000000000}\a", "device or a volume"),
        (r"\\localhost\C$\Users", "another spelling of a drive"),
        (r"\\127.0.0.1\admin$", "another spelling of a drive"),
        (r"C:\a\..\b", "'..'"),
        (r"C:a", "not absolute"),
        (r"\Users", "not absolute"),
        (r"Users\Ada", "not absolute"),
        ("/home/ada", "not absolute"),
        ("C:\\a\0b", "NUL"),
    ],
)
def test_what_names_no_plain_file_or_names_one_in_disguise(path, word):
    with pytest.raises(SandboxPolicyError) as error:
        WINDOWS.parts(path)
    assert word in error.value.message
    # The control: the same folder, plainly written.
    assert WINDOWS.parts(r"C:\a\con fused\aux1.txt")


def test_case_does_not_matter_but_is_kept():
    files = Filesystem.of(
        readwrite=[r"C:\Users\Ada"], denied=[r"c:\USERS\ada\Secret"], style=WINDOWS
    )
    assert files.access(r"C:\users\ADA\secret\x") is Access.NONE
    assert files.access(r"C:\users\ADA\other") is Access.READWRITE
    assert r"C:\Users\Ada" in files.readwrite
    assert files.access(r"C:\Users\Adam") is Access.NONE


def test_letters_that_only_look_alike_are_other_files():
    """NTFS upper-cases letter by letter; `ß` and `ss`, and a dotless i are different names."""
    for one, other in (("straße", "strasse"), ("ı", "i"), ("\u212a", "k")):  # noqa: RUF001
        files = Filesystem.of(readonly=[f"C:\\{one}"], style=WINDOWS)
        assert files.access(f"C:\\{one}") is Access.READONLY
        assert files.access(f"C:\\{other}") is Access.NONE


@pytest.mark.parametrize("name", ["PROGRA~1", "progra~2", "A~1.TXT", "ABCDEF~123.c", "x~1"])
def test_a_short_name_of_what_is_not_there_is_refused(name):
    with pytest.raises(SandboxPolicyError, match="short form"):
        refuse_short_names(rf"C:\{name}\x", WINDOWS)


@pytest.mark.parametrize(
    "name", ["Program Files", "~", "a~b", "backup~", "longername~1", "x~1.html"]
)
def test_other_names_with_a_tilde_are_only_names(name):
    refuse_short_names(rf"C:\{name}\x", WINDOWS)
    refuse_short_names("/srv/PROGRA~1", PathStyle.POSIX)  # and elsewhere they all are


def links(table):
    def readlink(path):
        try:
            return table[ntpath.normcase(path)]
        except KeyError:
            raise OSError(4390, "not a reparse point") from None  # ERROR_NOT_A_REPARSE_POINT

    return readlink


def test_junctions_and_links_are_found_wherever_they_lead():
    table = {
        r"c:\work": r"\\?\D:\real",  # a junction's target, as os.readlink tells it
        r"d:\real\data": r"..\other",
        r"d:\other\up": r"\elsewhere",  # on the drive of the link
        r"d:\elsewhere\far": r"\\?\UNC\host\share\x",
        r"\\host\share\x\back": "C:/work",
    }
    found = symlinks(r"C:\work\data\up\far\back\end", WINDOWS, links(table))
    assert found == (
        r"C:\work",
        r"D:\real\data",
        r"D:\other\up",
        r"D:\elsewhere\far",
        r"\\host\share\x\back",
        r"C:\work",
    )
    assert symlinks(r"C:\plain\x", WINDOWS, links(table)) == ()


def test_a_circle_of_junctions_ends():
    found = symlinks(r"C:\a\x", WINDOWS, links({r"c:\a": r"C:\b", r"c:\b": r"C:\a"}))
    assert set(found) == {r"C:\a", r"C:\b"}


NAMES = st.text(st.sampled_from("abAB~1.:$ \\/?*\0ß"), min_size=1, max_size=6)
WRITTEN = st.builds(
    lambda root, names, sep: root + sep + sep.join(names),
    st.sampled_from(["C:", "c:", r"\\?\C:", r"\\h\s", "//h/S", r"\\?\UNC\h\s"]),
    st.lists(NAMES, max_size=4),
    st.sampled_from(["\\", "/"]),
)


@laws
@given(WRITTEN)
def test_a_path_is_refused_or_has_one_stable_form(path):
    try:
        parts = WINDOWS.parts(path)
    except SandboxPolicyError:
        return
    normal = WINDOWS.join(parts)
    assert WINDOWS.parts(normal) == parts
    assert not set("\0:?*") & set(normal[2:])
    assert not any(name != name.rstrip(". ") for name in parts[1:])
    # Python's own idea of Windows agrees on which path that is.
    plain = path.replace("\\\\?\\UNC", "\\").replace("\\\\?\\", "")

    def agreed(text):
        return ntpath.normcase(ntpath.normpath(text)).rstrip("\\")

    assert agreed(plain) == agreed(normal)
