from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mxc_kernel.errors import SandboxPolicyError, SandboxUnavailableError
from mxc_kernel.mxc import identity
from mxc_kernel.mxc.identity import Identity

from .conftest import AS_ROOT

# Three that nobody uses, far from the default range: kernels and other tests may be running.
FIRST = random.randrange(20_000, 50_000, 10)
UIDS = range(FIRST, FIRST + 3)
HOLDER = """
import sys
from mxc_kernel.mxc import identity
held = identity.lease(range(*map(int, sys.argv[2:])), locks=sys.argv[1])
print(held.identity.uid, flush=True)
sys.stdin.read()
"""
needs_root = pytest.mark.skipif(not AS_ROOT, reason="ordinary users get no lease: tested below")


@pytest.fixture
def locks(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "uids")


def hold(locks: str, uids: range = UIDS) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", HOLDER, locks, str(uids.start), str(uids.stop)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.skipif(AS_ROOT, reason="root gets a lease: tested below")
def test_an_ordinary_user_gets_no_lease():
    with pytest.raises(SandboxUnavailableError, match="started as root") as refused:
        identity.lease()
    assert "runs as you" in refused.value.remedy


def test_the_default_range_has_no_account_and_fits_into_a_container():
    assert min(identity.DEFAULT_RANGE) > 60577  # homed's and nspawn's are below
    assert max(identity.DEFAULT_RANGE) < 61184  # dynamic services' are above
    assert 65534 not in identity.DEFAULT_RANGE
    assert not any(map(identity._is_account, identity.DEFAULT_RANGE))
    assert identity._is_account(0)


@needs_root
class TestLease:
    def test_the_lowest_free_uid_with_the_gid_of_the_same_number(self, locks):
        with identity.lease(UIDS, locks=locks) as held:
            assert held.identity == Identity(FIRST, FIRST)

    def test_one_holder_at_a_time(self, locks):
        with identity.lease(UIDS, locks=locks) as first:
            with identity.lease(UIDS, locks=locks) as second:
                assert second.identity != first.identity
            with identity.lease(UIDS, locks=locks) as third:
                assert third.identity == second.identity
        with identity.lease(UIDS, locks=locks) as fourth:
            assert fourth.identity == first.identity

    def test_across_processes_and_none_when_all_are_taken(self, locks):
        holders = [hold(locks) for _ in UIDS]
        try:
            held = sorted(int(holder.stdout.readline()) for holder in holders)
            assert held == list(UIDS)
            with pytest.raises(SandboxUnavailableError, match=f"{FIRST}-{FIRST + 2} is in use"):
                identity.lease(UIDS, locks=locks)
        finally:
            for holder in holders:
                end(holder)

    def test_a_killed_holder_gives_its_uid_back(self, locks):
        one = range(FIRST, FIRST + 1)
        holder = hold(locks, one)
        try:
            assert holder.stdout.readline() == f"{FIRST}\n"
            with pytest.raises(SandboxUnavailableError):
                identity.lease(one, locks=locks)
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
            with identity.lease(one, locks=locks) as held:
                assert held.identity.uid == FIRST
        finally:
            end(holder)

    def test_a_program_started_by_the_holder_does_not_keep_the_uid(self, locks):
        held = identity.lease(UIDS, locks=locks)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        with subprocess.Popen(["/bin/cat"], close_fds=False, **pipes) as child:
            child.stdin.write(b"x")
            assert child.stdout.read(1) == b"x"  # it is cat by now, no longer a copy of us
            held.close()
            with identity.lease(UIDS, locks=locks) as again:
                assert again.identity.uid == FIRST
            child.stdin.close()

    @pytest.mark.parametrize("ids", [(FIRST, 7), (7, FIRST)])
    def test_not_one_that_a_process_still_runs_under(self, locks, ids):
        uid, gid = ids
        with subprocess.Popen(
            ["/bin/cat"], stdin=subprocess.PIPE, user=uid, group=gid, extra_groups=[]
        ) as child:
            with identity.lease(UIDS, locks=locks) as held:
                assert held.identity.uid == FIRST + 1
            child.stdin.close()
        with identity.lease(UIDS, locks=locks) as held:
            assert held.identity.uid == FIRST

    def test_not_an_account_nor_nobody_nor_one_that_does_not_exist(self, locks, monkeypatch):
        with identity.lease(range(65533, 65537), locks=locks) as held:
            assert held.identity.uid == 65533
            with identity.lease(range(65533, 65537), locks=locks) as second:
                assert second.identity.uid == 65536
        monkeypatch.setattr(identity, "_is_account", lambda uid: uid == FIRST)
        monkeypatch.setattr(identity, "_is_mapped", lambda uid: uid != FIRST + 1)
        with identity.lease(UIDS, locks=locks) as held:
            assert held.identity.uid == FIRST + 2

    @pytest.mark.parametrize("uids", [range(0), range(5), range(999, 1005), [2**32 - 1]])
    def test_a_range_that_touches_the_system_s_accounts(self, locks, uids):
        with pytest.raises(SandboxUnavailableError, match="must lie between"):
            identity.lease(uids, locks=locks)

    def test_the_folder_of_locks_is_root_s_alone(self, locks):
        identity.lease(UIDS, locks=locks).close()
        assert stat.S_IMODE(os.stat(locks).st_mode) == 0o700
        os.chmod(locks, 0o777)
        with pytest.raises(SandboxUnavailableError, match="open to others"):
            identity.lease(UIDS, locks=locks)
        os.chmod(locks, 0o700)
        os.chown(locks, FIRST, FIRST)
        with pytest.raises(SandboxUnavailableError, match="open to others"):
            identity.lease(UIDS, locks=locks)

    def test_links_in_place_of_the_folder_or_a_lock_are_refused(self, locks, tmp_path):
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        Path(locks).parent.mkdir()
        os.symlink(tmp_path / "elsewhere", locks)
        with pytest.raises(SandboxUnavailableError, match="cannot be used"):
            identity.lease(UIDS, locks=locks)
        os.unlink(locks)
        os.mkdir(locks, 0o700)
        os.symlink(tmp_path / "made", os.path.join(locks, str(FIRST)))
        with pytest.raises(SandboxUnavailableError, match="cannot be used"):
            identity.lease(UIDS, locks=locks)
        assert not (tmp_path / "made").exists()


@needs_root
class TestReachable:
    user = Identity(FIRST, FIRST)

    def test_an_open_path(self, open_place):
        identity.check_reachable(self.user, [(str(open_place), False)])
        with pytest.raises(SandboxPolicyError, match="cannot be written"):
            identity.check_reachable(self.user, [(str(open_place), True)])
        os.chown(open_place, FIRST, FIRST)
        identity.check_reachable(self.user, [(str(open_place), True)])

    @pytest.mark.parametrize("mode", [0o700, 0o750, 0o754])
    def test_the_folder_that_is_closed_is_named(self, open_place, mode):
        path = open_place / "closed folder" / "below" / "file"
        path.parent.mkdir(parents=True, mode=0o755)
        path.write_text("x")
        path.chmod(0o644)
        path.parent.parent.chmod(mode)
        path.parent.chmod(0o755)
        with pytest.raises(SandboxPolicyError, match=f"enter {path.parent.parent}"):
            identity.check_reachable(self.user, [(str(path), False)])
        assert stat.S_IMODE(path.parent.parent.stat().st_mode) == mode  # nobody's mode is changed
        path.parent.parent.chmod(0o711)
        identity.check_reachable(self.user, [(str(path), False)])
        path.chmod(0o600)
        with pytest.raises(SandboxPolicyError, match=f"read {path}"):
            identity.check_reachable(self.user, [(str(path), False)])

    def test_root_s_supplementary_groups_do_not_count(self, open_place):
        folder = open_place / "group's"
        folder.mkdir(mode=0o750)
        os.chown(folder, 0, 0)
        with pytest.raises(SandboxPolicyError, match="may not read"):
            identity.check_reachable(self.user, [(str(folder), False)])

    def test_many_paths_in_one_question(self, open_place):
        hidden, odd = open_place / "hidden", open_place / "-e $(x) '\n\""
        hidden.mkdir(mode=0o700)
        odd.mkdir(mode=0o755)
        odd.chmod(0o755)
        wanted = [(str(odd), False), (str(hidden / "x"), False), (str(open_place / "no"), False)]
        assert identity.unreachable(self.user, wanted) == [
            identity.Closed(str(hidden / "x"), str(hidden), "enter"),
            identity.Closed(str(open_place / "no"), str(open_place / "no"), "exist"),
        ]

    def test_no_paths_no_question(self):
        assert identity.unreachable(self.user, []) == []


@pytest.mark.skipif(AS_ROOT, reason="root can ask: tested above")
def test_an_ordinary_user_cannot_ask_for_another(open_place):
    with pytest.raises(SandboxUnavailableError, match="could not be found out"):
        identity.unreachable(Identity(FIRST, FIRST), [(str(open_place), False)])
