"""The handshake: what a started sandbox must do before anything is sent to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator

import psutil
import pytest

from mxc_kernel.child import Child
from mxc_kernel.errors import (
    MxcKernelError,
    SandboxExecutionError,
    SandboxTimeoutError,
    SandboxUnavailableError,
)
from mxc_kernel.mxc import binary, bundle, cgroup, contract, identity, launcher, runtime
from mxc_kernel.policy import Filesystem, Network, plan_mounts


@pytest.fixture
def user() -> Iterator[identity.Identity | None]:
    """Whom the sandbox runs as: root leases a uid."""
    if os.geteuid() != 0:
        yield None
        return
    with identity.lease() as lease:
        yield lease.identity


def _start(
    user: identity.Identity | None, *command: str, group: cgroup.Group | None = None
) -> Child:
    python = runtime.default(user)
    workload = contract.Workload(
        "test",
        command or tuple(bundle.command(python.executable)),
        "/tmp",
        {"PATH": "/usr/bin:/bin", "HOME": "/tmp/scratch"},
        python.readonly,
    )
    request = json.dumps(contract.render(plan_mounts(Filesystem()), Network(), workload)).encode()
    with binary.open_verified() as executable:
        process = launcher.launch(executable, binary.bwrap_directory(), request, user, group)
    child = Child(process, bundle.build(python.magic))
    child.greet({"scratch": "/tmp/scratch"})
    return child


async def _handshake(child: Child, timeout: float) -> None:
    child.attach(asyncio.get_running_loop())
    try:
        await child.ready(timeout)
    finally:
        child.close()


def _outcome(child: Child, timeout: float = 30) -> MxcKernelError:
    """The error of the handshake; nothing of the sandbox is left."""
    processes = psutil.Process(child.process.pid).children(recursive=True)
    with pytest.raises(MxcKernelError) as caught:
        asyncio.run(_handshake(child, timeout))
    assert not psutil.wait_procs(processes, timeout=10)[1]
    return caught.value


def test_the_worker_answers(user: identity.Identity | None) -> None:
    child = _start(user)
    asyncio.run(_handshake(child, 30))
    assert child.facts["python"]


def test_no_answer_in_time_is_a_timeout(user: identity.Identity | None) -> None:
    assert isinstance(_outcome(_start(user, "sleep", "600"), 0.5), SandboxTimeoutError)


def test_an_end_without_an_answer_comes_with_its_last_words(
    user: identity.Identity | None,
) -> None:
    error = _outcome(_start(user, "sh", "-c", "echo the reason >&2; exit 7"))
    assert isinstance(error, SandboxExecutionError)
    assert "the reason" in error.message
    assert "7" in error.message


def test_a_wrong_answer_is_no_handshake(user: identity.Identity | None) -> None:
    error = _outcome(_start(user, "sh", "-c", "echo MXsomething else altogether; sleep 600"))
    assert isinstance(error, SandboxExecutionError)
    assert "protocol" in error.message


class _Shut(cgroup.Group):
    """A group that nobody can enter."""

    @contextlib.contextmanager
    def doors(self) -> Iterator[tuple[int, ...]]:
        with open(os.devnull, "rb") as door:
            yield (door.fileno(),)


def test_a_sandbox_that_cannot_enter_its_control_group_is_not_started(
    user: identity.Identity | None,
) -> None:
    with pytest.raises(SandboxUnavailableError):
        _start(user, group=_Shut({}, {}, {}))


def test_too_few_processes_to_start_are_named(user: identity.Identity | None) -> None:
    group = cgroup.create(None, 3)
    if "processes" in group.refusals:
        group.close()
        return
    error = _outcome(_start(user, group=group))
    assert "it reached its limit of 3 processes and threads" in error.message
    assert not any(os.path.exists(path) for path in group.paths)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user needs no other identity")
def test_root_never_starts_a_sandbox_as_root() -> None:
    with pytest.raises(MxcKernelError, match="never started as root"):
        _start(None)
