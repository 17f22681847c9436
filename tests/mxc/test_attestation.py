"""What the host checks of a sandbox before it gives it any code, each broken on purpose.

The sandboxes are set up by bubblewrap from here, as a launcher would that forgets one thing.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import select
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import mxc_kernel.worker.hardening
from mxc_kernel.errors import SandboxAttestationError
from mxc_kernel.mxc import attestation, binary, filters, identity, launcher, runtime
from mxc_kernel.policy import Filesystem, plan_mounts
from mxc_kernel.session import Session
from mxc_kernel.wire import Channel

from .conftest import AS_ROOT

BASELINE = ("/bin", "/sbin", "/lib", "/lib64", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64")
WORKER = """
import json, sys
orders = json.loads(sys.stdin.readline())
said = {"landlock": 0, "keyring": None}
if orders["hardening"]:
    scope = {"__name__": "hardening"}
    exec(orders["source"], scope)
    said = scope["harden"](orders["hardening"])
print(json.dumps(said), flush=True)
sys.stdin.read()
"""
KEYCTL = attestation._SYS_KEYCTL[os.uname().machine]
NAMESPACES = ("user", "pid", "ipc", "uts", "net")


def prepare() -> None:
    """What a right launcher does between fork and exec."""
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    join_session_keyring = 1
    attestation._libc.syscall(KEYCTL, join_session_keyring, None)


# One shell below the other, as deep as a sandbox's program is below its launcher.
NEST = 'test $0 = 0 && { read -r orders; echo "{}"; read -r more; }; '
NEST += 'test $0 = 0 || sh -c "$1" $(($0 - 1)) "$1"; :'


@dataclass
class Stand:
    """A sandbox that can be set up wrongly.

    Args:
        root: a folder of the host's with what is granted and what is not.
        user: whom it runs as; None for ourselves.
        python: its interpreter.
        started: what runs, to be ended.
    """

    root: Path
    user: identity.Identity | None
    python: runtime.Interpreter
    started: list[launcher.SandboxProcess] = field(default_factory=list)

    @property
    def agreed(self) -> attestation.Agreement:
        plan = plan_mounts(
            Filesystem.of(
                readonly=[str(self.root / "read")],
                readwrite=[str(self.root / "write")],
                denied=[str(self.root / "write" / "denied")],
            )
        )
        return attestation.Agreement(
            uid=self.user.uid if self.user else os.getuid(),
            leased=self.user is not None,
            mounts=plan,
            readonly=self.python.readonly,
        )

    def arguments(self) -> dict[str, list[str]]:
        """What a right launcher gives bubblewrap, by what it is for."""
        read, write = str(self.root / "read"), str(self.root / "write")
        paths = [path for path in (*BASELINE, *self.python.readonly) if os.path.exists(path)]
        return {
            **{name: [f"--unshare-{name}"] for name in NAMESPACES},
            "private": ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"],
            "program": [word for path in paths for word in ("--ro-bind", path, path)],
            "read": ["--ro-bind", read, read],
            "write": ["--bind", write, write],
            "denied": ["--tmpfs", f"{write}/denied"],
            "more": ["--die-with-parent", "--chdir", "/tmp"],
        }

    def start(
        self,
        arguments: Mapping[str, Sequence[str]] | None = None,
        *,
        hardening: Mapping[str, object] | None = None,
        hardened: bool = True,
        command: Sequence[str] | None = None,
        **options: Any,
    ) -> tuple[launcher.SandboxProcess, dict[str, object]]:
        """Start a sandbox, wait until it has hardened itself, and return what it says."""
        words = [word for some in (arguments or self.arguments()).values() for word in some]
        bwrap = os.path.join(binary.bwrap_directory(), "bwrap")
        python = [self.python.executable, "-P", "-s", "-c", WORKER]
        as_whom: dict[str, Any] = {}
        if self.user is not None:
            as_whom = {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}
        settings = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "bufsize": 0,
            "cwd": "/",
            "env": {"PATH": "/usr/bin:/bin"},
            "start_new_session": True,
            "preexec_fn": prepare,
            **as_whom,
            **options,
        }
        # The shell stands for the executable, which starts bubblewrap.
        line = command or ["/bin/sh", "-c", '"$@"; :', "sh", bwrap, *words, *python]
        process = launcher.SandboxProcess(subprocess.Popen(line, **settings))
        self.started.append(process)
        source = Path(mxc_kernel.worker.hardening.__file__).read_text("utf-8")
        orders = {"hardening": (hardening or self.hardening()) if hardened else None}
        sent = memoryview(json.dumps(orders | {"source": source}).encode() + b"\n")
        while sent:
            select.select([], [process.stdin], [], 60)
            sent = sent[os.write(process.stdin, sent) :]
        said = b""
        while not said.endswith(b"\n"):
            assert select.select([process.stdout], [], [], 60)[0], process.diagnostics
            some = os.read(process.stdout, 4096)
            process.read_diagnostics()
            assert some, process.diagnostics
            said += some
        return process, json.loads(said)

    def hardening(self) -> dict[str, object]:
        from binascii import b2a_base64

        programs = filters.load(os.uname().machine)
        plan = self.agreed.mounts
        return {
            "writable": plan.readwrite,
            "masked": plan.denied,
            "programs": [b2a_base64(program).decode() for program in programs],
        }

    def refused(self, line: str, *arguments: Any, **options: Any) -> None:
        process, said = self.start(*arguments, **options)
        with pytest.raises(SandboxAttestationError, match=line):
            attestation.attest(process, self.agreed, said)


@pytest.fixture
def stand(sandbox_folder: Path) -> Iterator[Stand]:
    for name in ("read", "write", "write/denied", "outside"):
        (sandbox_folder / name).mkdir()
        (sandbox_folder / name).chmod(0o777)
    held = identity.lease() if AS_ROOT else None
    user = held.identity if held else None
    made = Stand(sandbox_folder, user, runtime.default(user))
    yield made
    for process in made.started:
        process.close()
    if held:
        held.close()


def test_a_sandbox_as_it_should_be_passes(stand: Stand) -> None:
    """The control for all that follows."""
    process, said = stand.start()
    facts = dict(attestation.attest(process, stand.agreed, said))
    assert len(facts) == 12
    told = {what for what, how in facts.items() if how == attestation.TOLD}
    assert {what.split()[0] for what in told} == {"Landlock", "a"}
    assert attestation.landlock_version() == said["landlock"]


@pytest.mark.parametrize("name", ["ipc", "uts", "net"])
def test_a_namespace_of_the_host(stand: Stand, name: str) -> None:
    arguments = stand.arguments()
    del arguments[name]
    stand.refused(f"ns/{name}: it is the host's", arguments)


@pytest.mark.parametrize("name", ["user", "pid", "mnt", "ipc", "uts", "net"])
def test_each_namespace_is_looked_at(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No bubblewrap leaves out those of users and mounts, so this is a process without one."""
    process, said = stand.start(command=["/bin/sh", "-c", NEST, "3", NEST])
    proc = f"/proc/{process.workload()}"
    look = attestation._Look(proc, attestation._status(proc), [], stand.agreed, process, said)
    monkeypatch.setattr(attestation, "_NAMESPACES", (name,) if name != "net" else ())
    with pytest.raises(SandboxAttestationError, match=f"ns/{name}: it is the host's"):
        attestation._namespaces(look)
    process, said = stand.start()  # the control
    proc = f"/proc/{process.workload()}"
    assert attestation._namespaces(look._replace(proc=proc))


def test_the_host_s_processes(stand: Stand) -> None:
    arguments = stand.arguments()
    del arguments["pid"]
    stand.refused("ns/pid|cannot be found", arguments)


def test_the_open_network_is_a_matter_of_the_policy(stand: Stand) -> None:
    arguments = stand.arguments()
    del arguments["net"]
    process, said = stand.start(arguments)
    attestation.attest(process, stand.agreed._replace(network=True), said)


@pytest.mark.skipif(not AS_ROOT, reason="only root can start it as root")
def test_root_on_the_host(stand: Stand) -> None:
    stand.refused("Uid: 0|Groups|Gid", user=None, group=None, extra_groups=None)


def test_another_user(stand: Stand) -> None:
    process, said = stand.start()
    agreed = stand.agreed._replace(uid=stand.agreed.uid + 1)
    with pytest.raises(SandboxAttestationError, match="Uid: "):
        attestation.attest(process, agreed, said)


@pytest.mark.skipif(not AS_ROOT, reason="an ordinary user cannot take groups along")
def test_a_group_that_came_along(stand: Stand) -> None:
    stand.refused("Groups: ", extra_groups=[12345])


def test_a_capability(stand: Stand) -> None:
    arguments = stand.arguments() | {"cap": ["--cap-add", "CAP_NET_ADMIN"]}
    stand.refused(r"Cap(Inh|Prm|Eff|Bnd): 0*1000", arguments)


def test_new_privileges(stand: Stand) -> None:
    """No bubblewrap leaves them, so this is a process without one."""
    process, said = stand.start(command=["/bin/sh", "-c", NEST, "3", NEST])
    pid = process.workload()
    with open(f"/proc/{pid}/status") as file:
        if "NoNewPrivs:\t1" in file.read():
            pytest.fail("these tests run without new privileges themselves: nothing to compare")
    look = attestation._Look(
        f"/proc/{pid}", attestation._status(f"/proc/{pid}"), [], stand.agreed, process, said
    )
    with pytest.raises(SandboxAttestationError, match="NoNewPrivs: 0"):
        attestation._privileges(look)
    with pytest.raises(SandboxAttestationError):
        attestation.attest(process, stand.agreed, said)


def test_no_filter_of_system_calls(stand: Stand) -> None:
    stand.refused("Seccomp: 0", hardening=stand.hardening() | {"programs": []})


def test_only_one_of_the_filters(stand: Stand) -> None:
    hardening = stand.hardening()
    hardening["programs"] = hardening["programs"][:1]  # type: ignore[index]
    stand.refused("Seccomp: 2, Seccomp_filters: 1", hardening=hardening)


def test_no_hardening_at_all(stand: Stand) -> None:
    stand.refused("Seccomp: 0", hardened=False)


def test_no_landlock(stand: Stand) -> None:
    process, said = stand.start()
    for wrong in ({**said, "landlock": 0}, {"keyring": 1}):
        with pytest.raises(SandboxAttestationError, match="Landlock: "):
            attestation.attest(process, stand.agreed, wrong)


def test_a_kernel_without_landlock_is_named(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    process, said = stand.start()
    monkeypatch.setattr(attestation, "landlock_version", lambda: 0)
    facts = attestation.attest(process, stand.agreed, {**said, "landlock": 0})
    assert any(what.startswith("NO Landlock") for what, _ in facts)


def test_the_user_s_keyring(stand: Stand) -> None:
    assert attestation._session_keyring() > 0  # from now on this process has one to inherit
    stand.refused(
        "the session keyring is the user's",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)),
    )
    process, said = stand.start()
    del said["keyring"]
    with pytest.raises(SandboxAttestationError, match="keyring"):
        attestation.attest(process, stand.agreed, said)


# Mounts


def test_a_read_only_grant_that_can_be_written(stand: Stand) -> None:
    read = str(stand.root / "read")
    arguments = stand.arguments() | {"read": ["--bind", read, read]}
    stand.refused("/read is writable, and not granted for writing", arguments)


def test_a_baseline_that_can_be_written(stand: Stand) -> None:
    more = ["--bind", "/usr/share", "/usr/share"]
    stand.refused("/usr/share is writable", stand.arguments() | {"also": more})


def test_a_folder_that_was_not_granted(stand: Stand) -> None:
    outside = str(stand.root / "outside")
    more = ["--ro-bind", outside, outside]
    stand.refused("/outside is visible, and not granted", stand.arguments() | {"also": more})


def test_a_folder_below_a_denied_one(stand: Stand) -> None:
    denied = str(stand.root / "write" / "denied")
    arguments = stand.arguments() | {"denied": ["--bind", denied, denied]}
    stand.refused("/denied is visible, and not granted", arguments)


def test_a_denied_folder_that_is_not_hidden(stand: Stand) -> None:
    arguments = stand.arguments()
    del arguments["denied"]
    stand.refused("/denied is not mounted", arguments)


def test_a_grant_that_is_not_there(stand: Stand) -> None:
    arguments = stand.arguments()
    del arguments["read"]
    stand.refused("/read is not mounted", arguments)


def test_another_folder_in_place_of_a_granted_one(stand: Stand) -> None:
    read, outside = str(stand.root / "read"), str(stand.root / "outside")
    arguments = stand.arguments() | {"read": ["--ro-bind", outside, read]}
    stand.refused("/read shows another place of the host: .*/outside", arguments)


def test_a_granted_folder_that_has_become_a_link(stand: Stand) -> None:
    """Another sandbox can put one there after the check; bubblewrap mounts what it leads to."""
    read, outside = stand.root / "read", stand.root / "outside"
    process, said = stand.start()
    assert attestation.attest(process, stand.agreed, said)
    agreed = stand.agreed
    read.rename(stand.root / "kept")
    read.symlink_to(outside)
    process, said = stand.start()
    with pytest.raises(SandboxAttestationError, match="/read shows another place of the host"):
        attestation.attest(process, agreed, said)


def test_a_denied_file_is_hidden(stand: Stand) -> None:
    file = stand.root / "write" / "denied.txt"
    file.write_text("private")
    plan = plan_mounts(
        Filesystem.of(
            readonly=[str(stand.root / "read")],
            readwrite=[str(stand.root / "write")],
            denied=[str(stand.root / "write" / "denied"), str(file)],
        )
    )
    agreed = stand.agreed._replace(mounts=plan)
    hide = ["--ro-bind", "/dev/null", str(file)]
    process, said = stand.start(stand.arguments() | {"also": hide})
    assert attestation.attest(process, agreed, said)
    process, said = stand.start()
    with pytest.raises(SandboxAttestationError, match=r"/denied\.txt is not mounted"):
        attestation.attest(process, agreed, said)


def test_the_host_s_temporary_files(stand: Stand) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shared:
        os.chmod(shared, 0o777)
        more = ["--bind", shared, "/tmp"]
        stand.refused("/tmp shows another place", stand.arguments() | {"also": more})


def test_the_host_s_processes_in_proc(stand: Stand) -> None:
    arguments = stand.arguments()
    private = ["--dev", "/dev", "--ro-bind", "/proc", "/proc", "--tmpfs", "/tmp"]
    process, _ = stand.start(arguments | {"private": private}, hardened=False)
    look_at = attestation.mounted.read(f"/proc/{process.workload()}/mountinfo")
    host = attestation.mounted.read("/proc/self/mountinfo")
    problem = attestation.mounted.compare(
        host, look_at, stand.agreed.mounts, readonly=stand.agreed.readonly
    )
    assert problem == "/proc is visible, and not granted"


def test_a_file_system_that_nobody_asked_for(stand: Stand) -> None:
    more = ["--tmpfs", "/mnt"]
    stand.refused("/mnt is a tmpfs that was not asked for", stand.arguments() | {"also": more})


# Descriptors, terminal, dumps


@pytest.mark.parametrize("kind", ["file", "folder", "memory", "pipe", "socket"])
def test_a_descriptor_that_came_along(stand: Stand, kind: str) -> None:
    (stand.root / "outside" / "file").write_text("private")
    opened: list[Any] = []
    if kind in ("file", "folder"):
        path = stand.root / "outside" / ("file" if kind == "file" else "")
        fd = os.open(path, os.O_RDONLY)
    elif kind == "memory":
        fd = os.memfd_create("leaked")
    elif kind == "pipe":
        fd, other = os.pipe()
        opened.append(os.fdopen(other, "wb"))
    else:
        left, right = socket.socketpair()
        opened += [left, right]
        fd = os.dup(left.fileno())
    try:
        stand.refused(r"fd/\d+: ", pass_fds=(fd,))
    finally:
        os.close(fd)
        for each in opened:
            each.close()


def test_a_terminal(stand: Stand) -> None:
    master, slave = os.openpty()

    def take_terminal() -> None:
        prepare()
        os.close(os.open(name, os.O_RDWR))  # a session's first terminal becomes its own

    name = os.ttyname(slave)
    if AS_ROOT:
        os.chown(name, stand.agreed.uid, -1)
    try:
        stand.refused("stat: tty_nr is [1-9]", preexec_fn=take_terminal)
    finally:
        os.close(master)
        os.close(slave)


def test_core_dumps(stand: Stand) -> None:
    def allow() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    assert hard, "these tests run with core dumps forbidden for good: nothing to compare"
    stand.refused("limits: Max core file size 0", preexec_fn=allow)


def test_a_resource_limit_that_was_not_lowered(stand: Stand) -> None:
    agreed = stand.agreed._replace(resources={"NOFILE": 100, "DATA": 1 << 30})
    process, said = stand.start(hardening=stand.hardening() | {"resources": agreed.resources})
    attestation.attest(process, agreed, said)
    process, said = stand.start(hardening=stand.hardening() | {"resources": {"NOFILE": 100}})
    with pytest.raises(SandboxAttestationError, match="limits: Max data size unlimited"):
        attestation.attest(process, agreed, said)
    process, said = stand.start(hardening=stand.hardening() | {"resources": {"DATA": 1 << 30}})
    with pytest.raises(SandboxAttestationError, match="limits: Max open files"):
        attestation.attest(process, agreed, said)


def test_a_process_that_is_gone(stand: Stand) -> None:
    process, said = stand.start()
    process.kill()
    with pytest.raises(SandboxAttestationError, match=r"cannot be (found|read)"):
        attestation.attest(process, stand.agreed, said)


# In a session


def test_a_session_gives_nothing_to_a_sandbox_before_it_was_looked_at(
    sandbox_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsent: list[int] = []
    environ = {**os.environ, "XDG_CONFIG_HOME": str(sandbox_folder)}  # no ceiling of a developer's
    environ.pop("MXC_KERNEL_CEILING", None)

    async def prepare() -> None:
        session = Session(notebook_dir=str(sandbox_folder), environ=environ)
        attest = attestation.attest

        def watched(*arguments: Any) -> tuple[attestation.Fact, ...]:
            unsent.append(child._outgoing.size)
            return attest(*arguments)

        try:
            with monkeypatch.context() as patch:
                patch.setattr(attestation, "attest", watched)
                session.start()
                child = session._child
                assert child is not None
                child.send(Channel.SHELL, [b"code of the user's" * 10])
                session.attach(asyncio.get_running_loop())
                await session.prepare(session.request)
            assert child.attested
            assert child._outgoing.size == 0
        finally:
            session.close()

    with monkeypatch.context() as patch:
        patch.setattr(filters, "KINDS", filters.KINDS[:1])
        with pytest.raises(SandboxAttestationError, match="Seccomp_filters: 1") as refused:
            asyncio.run(prepare())
    assert "mxc-kernel doctor" in refused.value.remedy
    asyncio.run(prepare())  # the control
    assert len(unsent) == 2
    assert all(size >= 180 for size in unsent)
