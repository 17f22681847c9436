"""What `mxc-kernel doctor` says of the audit trail."""

from __future__ import annotations

from pathlib import Path

import pytest

from mxc_kernel.doctor.audit import check_audit
from mxc_kernel.doctor.check import Status
from mxc_kernel.policy import Audit, Settings

from .conftest import environ, trail_of, write_session


def test_a_trail_that_can_be_written_is_well(tmp_path: Path) -> None:
    check = check_audit(Settings(), environ(tmp_path))
    assert check.status is Status.OK
    assert not trail_of(tmp_path).exists()  # looking changes nothing
    write_session(tmp_path)
    settings = Settings(audit=Audit(anchor_command=("logger",)))
    assert "anchored outside" in check_audit(settings, environ(tmp_path)).detail


def test_one_that_cannot_be_written_fails_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    check = check_audit(Settings(), environ(tmp_path))
    assert check.status is Status.FAIL
    assert "XDG_STATE_HOME" in check.remedy


def test_a_key_that_is_none_fails(tmp_path: Path) -> None:
    settings = Settings(audit=Audit(key=str(tmp_path / "missing")))
    check = check_audit(settings, environ(tmp_path))
    assert check.status is Status.FAIL
    assert "does not exist" in check.detail


@pytest.mark.parametrize(
    ("free", "takes_files", "status"),
    [(0, True, Status.FAIL), (9, False, Status.FAIL), (9, True, Status.WARN)],
)
def test_a_full_disk_fails_before_a_cell_does(
    tmp_path: Path, free: int, takes_files: bool, status: Status
) -> None:
    check = check_audit(Settings(), environ(tmp_path), lambda _folder: (free, takes_files))
    assert check.status is status
    assert "Make room" in check.remedy
