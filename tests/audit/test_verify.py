"""What `verify` finds: any single thing that is done to a trail, and nothing where nothing was."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxc_kernel.audit import anchors
from mxc_kernel.audit.chain import Chain, Head, read_key
from mxc_kernel.audit.trail import Trail
from mxc_kernel.audit.verify import verify
from mxc_kernel.errors import AuditError
from mxc_kernel.policy import Audit

from .conftest import Died, journal, trail_of, write_session

_EXAMPLES = settings(max_examples=150)


@pytest.fixture(scope="module")
def trail() -> Iterator[Path]:
    """Two ended sessions, one of them in several files, and one that is being written."""
    root = Path(tempfile.mkdtemp(prefix="mxc-kernel-trail-"))
    write_session(root, 3)
    write_session(root, 6, audit=Audit(rotate=4096))
    open_one = write_session(root, 2, end=False)
    yield root
    open_one.close()
    shutil.rmtree(root)


def copy(root: Path) -> Path:
    """A copy that may be harmed; nobody writes it, so its open session is a dead one."""
    target = Path(tempfile.mkdtemp(prefix="mxc-kernel-trail-"))
    shutil.copytree(root, target, dirs_exist_ok=True)
    return target


def chained(root: Path) -> list[Path]:
    """The files of which every byte counts."""
    top = trail_of(root)
    return [*sorted((top / "sessions").iterdir()), top / "index.jsonl"]


def sound(root: Path) -> bool:
    try:
        return verify(str(trail_of(root))).ok
    finally:
        shutil.rmtree(root)


def test_an_untouched_trail_passes(trail: Path) -> None:
    report = verify(str(trail_of(trail)))
    assert report.ok
    assert (report.sessions, len(report.findings)) == (3, 1)
    assert sound(copy(trail))


@_EXAMPLES
@given(cells=st.lists(st.integers(0, 4), min_size=1, max_size=3), rotate=st.sampled_from([1, 4096]))
def test_any_trail_as_it_was_written_passes(cells: list[int], rotate: int) -> None:
    root = Path(tempfile.mkdtemp(prefix="mxc-kernel-trail-"))
    for count in cells:
        write_session(root, count, audit=Audit(rotate=rotate))
    assert sound(root)


@_EXAMPLES
@given(data=st.data())
def test_any_changed_byte_is_found(trail: Path, data: st.DataObject) -> None:
    root = copy(trail)
    path = data.draw(st.sampled_from(chained(root)), label="file")
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1), label="place")
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != content[place]), label="byte")
    content[place] = byte
    path.write_bytes(content)
    assert not sound(root)


@_EXAMPLES
@given(data=st.data())
def test_any_line_that_is_taken_out_is_found(trail: Path, data: st.DataObject) -> None:
    root = copy(trail)
    path = data.draw(st.sampled_from(chained(root)), label="file")
    lines = path.read_bytes().splitlines(keepends=True)
    first = data.draw(st.integers(0, len(lines) - 1), label="first")
    last = data.draw(st.integers(first, len(lines) - 1), label="last")
    path.write_bytes(b"".join(lines[:first] + lines[last + 1 :]))
    assert not sound(root)


@_EXAMPLES
@given(data=st.data())
def test_any_two_lines_that_change_places_are_found(trail: Path, data: st.DataObject) -> None:
    root = copy(trail)
    path = data.draw(st.sampled_from([p for p in chained(root) if lines_of(p) > 1]), label="file")
    lines = path.read_bytes().splitlines(keepends=True)
    one = data.draw(st.integers(0, len(lines) - 2), label="one")
    other = data.draw(st.integers(one + 1, len(lines) - 1), label="other")
    lines[one], lines[other] = lines[other], lines[one]
    path.write_bytes(b"".join(lines))
    assert not sound(root)


@_EXAMPLES
@given(data=st.data())
def test_any_line_that_comes_twice_or_elsewhere_is_found(trail: Path, data: st.DataObject) -> None:
    root = copy(trail)
    source, target = (data.draw(st.sampled_from(chained(root))) for _ in range(2))
    line = data.draw(st.sampled_from(source.read_bytes().splitlines(keepends=True)))
    lines = target.read_bytes().splitlines(keepends=True)
    lines.insert(data.draw(st.integers(0, len(lines))), line)
    target.write_bytes(b"".join(lines))
    assert not sound(root)


@_EXAMPLES
@given(data=st.data())
def test_any_end_that_is_cut_off_is_found(trail: Path, data: st.DataObject) -> None:
    root = copy(trail)
    path = data.draw(st.sampled_from(chained(root)), label="file")
    size = path.stat().st_size
    os.truncate(path, data.draw(st.integers(0, size - 1), label="length"))
    assert not sound(root)


@pytest.mark.parametrize("number", range(12))
def test_any_file_that_is_deleted_or_renamed_is_found(trail: Path, number: int) -> None:
    for harm in (Path.unlink, lambda path: path.rename(path.with_name("x" + path.name))):
        root = copy(trail)
        top = trail_of(root)
        files = [*chained(root), top / "index.head", *(top / "live").iterdir()]
        if number >= len(files):
            shutil.rmtree(root)
            return
        harm(files[number])
        assert not sound(root), files[number].name


def test_a_head_that_is_changed_is_found(trail: Path) -> None:
    for head in ("index.head", "live"):
        for change in ({"length": 1}, {"digest": "0" * 64}):
            root = copy(trail)
            path = trail_of(root) / head
            path = path if path.is_file() else next(path.iterdir())
            before = Head.decode(path.read_bytes())
            assert before is not None
            path.write_bytes(before._replace(**change).encode())
            assert not sound(root), (head, change)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n")


# --- recomputed chains: what only an anchor or a key finds ----------------------------------------


def forge(root: Path, key: bytes | None = None) -> None:
    """Take the last cell out of the only session, and make all hashes anew."""
    top = trail_of(root)
    (path,) = (top / "sessions").iterdir()
    lines = path.read_bytes().splitlines()
    del lines[-3:-1]  # its pending and its finished record
    chain = Chain(key)
    rechained(path, lines, chain)
    head = ends(path, chain)
    entries = (top / "index.jsonl").read_bytes().splitlines()
    import orjson

    closed = orjson.loads(entries[-1]) | {"records": head.length, "head": head.digest}
    first = orjson.loads(entries[0])
    first["first"] = chain.digest(path.read_bytes().splitlines()[0])
    rechained(top / "index.jsonl", [orjson.dumps(first), orjson.dumps(closed)], chain)
    (top / "index.head").write_bytes(ends(top / "index.jsonl", chain).encode())


def rechained(path: Path, lines: list[bytes], chain: Chain) -> None:
    import orjson

    made: list[bytes] = []
    for number, line in enumerate(lines):
        fields = orjson.loads(line)
        before = chain.digest(made[-1]) if made else "0" * 64
        made.append(orjson.dumps(fields | {"n": number, "prev": before}))
    path.write_bytes(b"\n".join(made) + b"\n")


def ends(path: Path, chain: Chain) -> Head:
    lines = path.read_bytes().splitlines()
    return Head(len(lines), chain.digest(lines[-1]))


@pytest.fixture
def anchored(tmp_path: Path) -> list[bytes]:
    """A session, and its anchors as they were kept elsewhere, in the log of a system."""
    made = write_session(tmp_path, 2, end=False)
    trail = made.open()
    middle = anchors.anchor("2026-01-01T00:00:00.000000Z", trail.session, trail.head, trail.index)
    made.close()
    end = anchors.anchor("2026-01-01T00:01:00.000000Z", trail.session, trail.head, trail.index)
    return [b"Jan 1 host mxc-audit: " + middle, end, b"another line\n"]


def test_whoever_owns_an_unkeyed_trail_can_make_it_anew(tmp_path: Path) -> None:
    write_session(tmp_path)
    forge(tmp_path)
    assert verify(str(trail_of(tmp_path))).ok  # as docs/audit.md says


def test_an_anchor_finds_a_trail_that_was_made_anew(tmp_path: Path, anchored: list[bytes]) -> None:
    assert verify(str(trail_of(tmp_path)), anchors=anchored).ok  # the control
    forge(tmp_path)
    report = verify(str(trail_of(tmp_path)), anchors=anchored)
    assert not report.ok
    assert any("anchor" in finding.what for finding in report.findings)


def test_an_anchor_finds_a_trail_that_is_gone(tmp_path: Path, anchored: list[bytes]) -> None:
    shutil.rmtree(trail_of(tmp_path))
    write_session(tmp_path)
    assert verify(str(trail_of(tmp_path))).ok
    assert not verify(str(trail_of(tmp_path)), anchors=anchored).ok


KEY = b"0123456789abcdef0123456789abcdef"


def test_a_key_finds_a_trail_that_was_made_anew(tmp_path: Path) -> None:
    folder = journal(tmp_path).open()  # makes the folders; a session without the key
    folder.close()
    shutil.rmtree(trail_of(tmp_path) / "sessions")
    shutil.rmtree(trail_of(tmp_path) / "live")
    for name in ("sessions", "live"):
        (trail_of(tmp_path) / name).mkdir()
    for name in ("index.jsonl", "index.head"):
        (trail_of(tmp_path) / name).unlink()
    write_keyed(tmp_path)
    report = verify(str(trail_of(tmp_path)), KEY)
    assert report.ok, report.findings
    assert report.keyed == 1
    assert not verify(str(trail_of(tmp_path)), b"another key of sufficient length").ok
    forge(tmp_path)
    assert not verify(str(trail_of(tmp_path)), KEY).ok
    forge_plain(tmp_path)
    assert not verify(str(trail_of(tmp_path)), KEY).ok


def write_keyed(root: Path) -> None:
    first = {
        "kernel": "0.1.0",
        "pid": 1,
        "uid": 0,
        "host": "h",
        "notebook": None,
        "folder": "/",
        "run": None,
        "paths": "labels",
    }
    trail = Trail(str(trail_of(root)), Chain(KEY), first)
    for _ in range(4):
        trail.append("roads", {"counts": {"complete_request": 1}})
    trail.close()


def forge_plain(root: Path) -> None:
    """Make a keyed trail anew, as one that never had a key."""
    for path in chained(root):
        text = path.read_text().replace("hmac-sha256", "sha256")
        path.write_text(text)
    forge(root)


def test_what_has_a_key_is_not_called_sound_without_it(tmp_path: Path) -> None:
    journal(tmp_path).open().close()
    write_keyed(tmp_path)
    report = verify(str(trail_of(tmp_path)))
    assert not report.ok
    assert any("made with a key" in finding.what for finding in report.findings)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a key that root alone reads")
def test_only_a_key_that_root_alone_can_read_is_one(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(0o600)
    assert read_key(str(path)) == KEY
    path.chmod(0o640)
    with pytest.raises(AuditError, match="others than root"):
        read_key(str(path))
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(AuditError, match="bytes"):
        read_key(str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root's key is a key")
def test_a_key_of_the_users_own_is_none(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(0o600)
    with pytest.raises(AuditError, match="others than root"):
        read_key(str(path))


def test_a_key_that_cannot_be_read_stops_every_cell(tmp_path: Path) -> None:
    from mxc_kernel.audit.facts import Source

    from .conftest import under

    made = journal(tmp_path, Audit(key=str(tmp_path / "missing")))
    with pytest.raises(AuditError, match="does not exist"):
        made.begin(Source("x"), under())


def test_a_dead_session_that_was_cut_is_found_before_and_after_it_is_sealed(
    tmp_path: Path, died: Died
) -> None:
    name = died()
    path = trail_of(tmp_path) / "sessions" / f"{name}.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert not verify(str(trail_of(tmp_path))).ok
    write_session(tmp_path)
    assert not verify(str(trail_of(tmp_path))).ok
