"""The writer: what is on the disk when, and what happens where it cannot be."""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
from pathlib import Path
from typing import Any

import pytest

from mxc_kernel.audit.facts import Source
from mxc_kernel.audit.schema import entry_problem, record_problem
from mxc_kernel.audit.verify import verify
from mxc_kernel.errors import AuditError
from mxc_kernel.policy import Audit

from .conftest import Died, journal, outcome, trail_of, under, write_session


def records(root: Path, session: str | None) -> list[dict[str, Any]]:
    folder = trail_of(root) / "sessions"
    paths = sorted(folder.glob(f"{session}*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def test_a_pending_record_is_on_the_disk_when_begin_returns(tmp_path: Path) -> None:
    made = journal(tmp_path)
    made.begin(Source("print(1)", cell="abc-1", execution_count=7), under("/data"))
    last = records(tmp_path, made.session)[-1]
    assert last["kind"] == "pending"
    assert last["cell"]["id"] == "abc-1"
    assert last["code"]["length"] == 8
    assert "text" not in last["code"]
    made.close()


def test_every_record_and_entry_is_as_the_published_schema_says(tmp_path: Path) -> None:
    made = write_session(tmp_path, end=False)
    made.refused(Source("%allow_rw /"), "SandboxPolicyError")
    made.carried(3, 1, 0)
    evidence = {"denials": [{"kind": "filesystem", "path": "/etc/x", "errno": "ENOENT"}]}
    begun = made.begin(Source("x"), under("/other", throwaway=True))
    made.finish(begun, outcome(status="error", error="OSError", evidence=evidence))
    made.close()
    kinds = set()
    for path in (trail_of(tmp_path) / "sessions").iterdir():
        for line in path.read_bytes().splitlines():
            assert record_problem(line) is None, line
            kinds.add(json.loads(line)["kind"])
    assert kinds == {
        "session",
        "policy",
        "ceiling",
        "sandbox",
        "pending",
        "finished",
        "refused",
        "end",
    }
    for line in (trail_of(tmp_path) / "index.jsonl").read_bytes().splitlines():
        assert entry_problem(line) is None


def test_all_of_it_is_private(tmp_path: Path) -> None:
    write_session(tmp_path, end=False)
    top = trail_of(tmp_path)
    for path in (top.parent, top, *top.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_folder_that_is_open_to_others_is_closed(tmp_path: Path) -> None:
    trail_of(tmp_path).mkdir(parents=True)
    trail_of(tmp_path).chmod(0o777)
    write_session(tmp_path)
    assert stat.S_IMODE(trail_of(tmp_path).stat().st_mode) == 0o700


@pytest.mark.parametrize("plant", ["link", "file"])
def test_what_somebody_planted_in_place_of_the_folder_is_not_used(
    tmp_path: Path, plant: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    trail_of(tmp_path).parent.mkdir(parents=True)
    if plant == "link":
        trail_of(tmp_path).symlink_to(elsewhere)
    else:
        trail_of(tmp_path).write_text("")
    with pytest.raises(AuditError) as refused:
        journal(tmp_path).begin(Source("x"), under())
    assert "XDG_STATE_HOME" in refused.value.remedy
    assert not list(elsewhere.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_elses_is_not_used(tmp_path: Path) -> None:
    trail_of(tmp_path).mkdir(parents=True)
    os.chown(trail_of(tmp_path), 12345, 12345)
    with pytest.raises(AuditError):
        journal(tmp_path).begin(Source("x"), under())
    os.chown(trail_of(tmp_path), 0, 0)
    journal(tmp_path).begin(Source("x"), under())  # the control


class _Limit:
    """A limit on the size of files: writes fail half way, as on a full disk."""

    def __init__(self, size: int) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._size = size

    def __enter__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._size, self._before[1]))

    def __exit__(self, *_error: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


def test_a_record_that_does_not_fit_is_not_there_at_all(tmp_path: Path) -> None:
    made = write_session(tmp_path, end=False)
    path = trail_of(tmp_path) / "sessions" / f"{made.session}.jsonl"
    before = path.read_bytes()
    with _Limit(len(before) + 100), pytest.raises(AuditError) as refused:
        made.begin(Source("x"), under("/data"))
    assert os.strerror(errno.EFBIG) in refused.value.message
    assert str(trail_of(tmp_path)) in refused.value.remedy
    assert path.read_bytes() == before
    made.begin(Source("x"), under("/data"))  # there is room again
    made.close()
    assert verify(str(trail_of(tmp_path))).ok


def test_an_end_that_could_not_be_written_is_written_before_anything_else(tmp_path: Path) -> None:
    made = write_session(tmp_path, end=False)
    begun = made.begin(Source("x"), under("/data"))
    path = trail_of(tmp_path) / "sessions" / f"{made.session}.jsonl"
    with _Limit(path.stat().st_size):
        with pytest.raises(AuditError, match="has run"):
            made.finish(begun, outcome())
        with pytest.raises(AuditError, match="no cell runs without it"):
            made.begin(Source("y"), under("/data"))
    made.begin(Source("z"), under("/data"))
    kinds = [(r["kind"], r.get("pending")) for r in records(tmp_path, made.session)]
    assert ("finished", begun.record) in kinds[-4:-1]
    assert kinds[-1][0] == "pending"
    made.close()
    assert verify(str(trail_of(tmp_path))).ok


def test_a_session_that_cannot_begin_leaves_nothing_behind(tmp_path: Path) -> None:
    write_session(tmp_path)
    index = (trail_of(tmp_path) / "index.jsonl").stat().st_size
    with _Limit(index + 10), pytest.raises(AuditError):
        journal(tmp_path).begin(Source("x"), under())
    assert len(list((trail_of(tmp_path) / "sessions").iterdir())) == 1
    report = verify(str(trail_of(tmp_path)))
    assert report.ok, report.findings
    write_session(tmp_path)
    assert verify(str(trail_of(tmp_path))).sessions == 2


def test_a_session_goes_on_in_another_file_when_one_is_full(tmp_path: Path) -> None:
    made = write_session(tmp_path, 20, audit=Audit(rotate=4096))
    parts = sorted(p.name for p in (trail_of(tmp_path) / "sessions").iterdir())
    assert len(parts) > 3
    assert parts[0] == f"{made.session}.10.jsonl" or f"{made.session}.jsonl" in parts
    report = verify(str(trail_of(tmp_path)))
    assert report.ok
    assert report.records == len(records(tmp_path, made.session))


def test_code_is_kept_only_if_the_operator_says_so_and_then_redacted(tmp_path: Path) -> None:
    made = journal(tmp_path, Audit(code=True))
    made.begin(Source("key = 'secret'"), under())
    made.close()
    kept = [r for r in records(tmp_path, made.session) if r["kind"] == "pending"]
    assert kept[0]["code"]["text"] == "key = '[redacted]'"


def test_paths_are_labels_unless_the_operator_wants_them(tmp_path: Path) -> None:
    evidence = {"denials": [{"kind": "filesystem", "path": "/home/ada/secret.txt"}]}
    texts = []
    for audit in (Audit(), Audit(paths="raw")):
        made = journal(tmp_path, audit)
        begun = made.begin(Source("x"), under("/srv/customers"))
        made.finish(begun, outcome(evidence=evidence))
        made.close()
        texts.append((trail_of(tmp_path) / "sessions" / f"{made.session}.jsonl").read_text())
    labels, raw = texts
    assert "customers" not in labels
    assert "ada" not in labels
    assert "/srv/customers" in raw
    assert "/home/ada/[redacted].txt" in raw


def test_labels_are_the_same_after_a_folder_that_could_not_be_used(tmp_path: Path) -> None:
    trail_of(tmp_path).parent.mkdir(parents=True)
    trail_of(tmp_path).write_text("in the way")
    made, where = journal(tmp_path), under("/srv/customers")
    with pytest.raises(AuditError):
        made.begin(Source("x"), where)
    trail_of(tmp_path).unlink()
    grants = []
    for each in (made, journal(tmp_path)):
        each.begin(Source("x"), where)
        each.close()
        grants += [r["grants"] for r in records(tmp_path, each.session) if r["kind"] == "pending"]
    assert grants[0] == grants[1] != []


def test_nothing_is_written_behind_the_end(tmp_path: Path) -> None:
    made = write_session(tmp_path)
    with pytest.raises(AuditError, match="has ended"):
        made.begin(Source("x"), under())
    assert verify(str(trail_of(tmp_path))).ok


def test_what_the_child_says_is_bounded_and_redacted(tmp_path: Path) -> None:
    made = journal(tmp_path)
    begun = made.begin(Source("x"), under())
    evidence = {
        "denials": [
            {"kind": "network", "host": "secret" * 1000, "errno": "\ud800"},
            "nonsense",
            {"path": 7, "kind": ["x"], "operation": {"a": 1}},
            *[{"path": "/a"}] * 100,
        ]
    }
    made.finish(begun, outcome(status="error", error="E" * 10_000, evidence=evidence))
    made.close()
    assert verify(str(trail_of(tmp_path))).ok
    (last,) = (r for r in records(tmp_path, made.session) if r["kind"] == "finished")
    assert len(last["error"]["kind"]) == 200
    assert len(last["denials"]) <= 16
    assert "secret" not in json.dumps(last)


def test_ids_of_frontends_are_kept_only_if_they_are_ids(tmp_path: Path) -> None:
    made = journal(tmp_path, MXC_KERNEL_RUN="run-1")
    made.begin(Source("x", cell="vscode:/home/ada/n.ipynb"), under())
    made.close()
    written = records(tmp_path, made.session)
    assert written[0]["run"] == "run-1"
    assert next(r for r in written if r["kind"] == "pending")["cell"]["id"] is None


def test_a_session_whose_kernel_died_is_sealed_by_the_next_one(tmp_path: Path, died: Died) -> None:
    name = died(pending=True)
    before = verify(str(trail_of(tmp_path)))
    assert before.ok, before.findings
    assert [f.what for f in before.findings] == ["its kernel died"]
    write_session(tmp_path)
    after = verify(str(trail_of(tmp_path)))
    assert after.ok, after.findings
    assert [(f.where, f.what) for f in after.findings] == [
        (name, "its kernel died; the next one has sealed it")
    ]
    assert not list((trail_of(tmp_path) / "live").iterdir())


def test_a_half_written_last_line_is_put_aside_and_reported(tmp_path: Path, died: Died) -> None:
    name = died()
    path = trail_of(tmp_path) / "sessions" / f"{name}.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"v":1,"n":9,"ti')
    assert verify(str(trail_of(tmp_path))).ok
    write_session(tmp_path)
    report = verify(str(trail_of(tmp_path)))
    assert report.ok, report.findings
    assert any("16 bytes was put aside" in f.what for f in report.findings)
    assert path.read_bytes() == whole
    (aside,) = (trail_of(tmp_path) / "aside").iterdir()
    assert aside.read_bytes() == b'{"v":1,"n":9,"ti'


def test_records_lost_by_a_loss_of_power_are_told_for_ever(tmp_path: Path, died: Died) -> None:
    name = died()
    path = trail_of(tmp_path) / "sessions" / f"{name}.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert not verify(str(trail_of(tmp_path))).ok
    write_session(tmp_path)
    report = verify(str(trail_of(tmp_path)))
    assert not report.ok
    assert any("1 line missing" in f.what for f in report.findings), report.findings


def test_a_half_written_entry_of_the_index_does_not_stop_the_next_session(tmp_path: Path) -> None:
    write_session(tmp_path)
    index = trail_of(tmp_path) / "index.jsonl"
    index.write_bytes(index.read_bytes() + b'{"v":1,')
    write_session(tmp_path)
    report = verify(str(trail_of(tmp_path)))
    assert report.sessions == 2
    assert [f.where for f in report.findings] == ["index"]


def test_two_kernels_at_once_share_the_index(tmp_path: Path) -> None:
    one, two = journal(tmp_path), journal(tmp_path)
    for made in (one, two, one, two):
        made.finish(made.begin(Source("x"), under()), outcome())
    report = verify(str(trail_of(tmp_path)))
    assert report.ok, report.findings
    assert sorted(f.what for f in report.findings) == ["it is being written"] * 2
    one.close()
    two.close()
    report = verify(str(trail_of(tmp_path)))
    assert report.ok
    assert not report.findings
