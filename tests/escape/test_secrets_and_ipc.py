"""Attacks on what other processes of the same machine hold: secrets, sockets, shared memory."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .stage import Stage, outside

# --- environments and command lines --------------------------------------------------------------

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI-K7MDENG-bPxRfiCY",
    "JUPYTERHUB_API_TOKEN": "c0ffee00c0ffee00c0ffee00",
    "JPY_API_TOKEN": "deadbeefdeadbeefdeadbeef",
    "DATABASE_URL": "postgres://me:hunter2hunter2@db/main",
    "SSH_AUTH_SOCK": "/tmp/ssh-sockets-of-mine/agent.1",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1000/bus-of-mine",
    "DOCKER_HOST": "unix:///run/docker-of-mine.sock",
    "DISPLAY": ":99",
    "XAUTHORITY": "/home/me/.Xauthority-of-mine",
    "WAYLAND_DISPLAY": "wayland-of-mine",
    "LD_PRELOAD_OF_MINE": "/tmp/preload-of-mine.so",
    "PYTHONPATH": "/tmp/modules-of-mine",
}


def test_no_variable_of_the_host_s_environment_arrives(stage: Stage) -> None:
    """Not in the sandbox, and not on the way into it, where others could read it."""
    kernel = stage.start(env={**SECRETS, "LC_TIME": "C.UTF-8"})
    seen = kernel.run(
        "import glob\n"
        "def read(path):\n"
        "    try: return open(path, 'rb').read()\n"
        "    except OSError: return b''\n"
        "print(dict(os.environ), *map(read, glob.glob('/proc/[0-9]*/environ')),\n"
        "      *map(read, glob.glob('/proc/[0-9]*/cmdline')))"
    ).stream()
    tree = psutil.Process(kernel.pid).children(recursive=True)
    arguments = " ".join(word for process in tree for word in process.cmdline())
    assert "LC_TIME" in seen  # the control: what may pass does
    for name, value in SECRETS.items():
        assert value not in seen, name
        assert value not in arguments, name
    own = psutil.Process(kernel.pid).environ()
    assert own["AWS_SECRET_ACCESS_KEY"] == SECRETS["AWS_SECRET_ACCESS_KEY"]
    stage.end(kernel)


def test_no_other_process_is_seen(stage: Stage) -> None:
    """Nor a secret in its arguments."""
    secret = secrets.token_hex(16)
    with subprocess.Popen(
        [sys.executable, "-c", "input()", secret], stdin=subprocess.PIPE
    ) as process:
        seen = stage.value(
            "answer = {pid: open(f'/proc/{pid}/cmdline').read() for pid in os.listdir('/proc')"
            " if pid.isdecimal() and pid != '1'}"
        )
        # Numbers of another namespace: the first is the sandbox's init, then there are few.
        assert 0 < len(seen) < 20
        assert not any(secret in line for line in seen.values())
        assert secret in Path(f"/proc/{process.pid}/cmdline").read_text()
        process.communicate(b"\n")


@pytest.mark.parametrize("number", ["0", "signal.SIGKILL"])
def test_no_other_process_is_signalled(stage: Stage, number: str) -> None:
    """Not by the number that it has outside, nor all at once."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        answer = stage.value(f"answer = tried(os.kill, {process.pid}, {number})")
        # The number may be one of the sandbox's own, which are small.
        assert answer in ("ESRCH", "EPERM") or process.pid < 20
        assert process.poll() is None
        process.communicate(b"\n")
    code = (
        "p = subprocess.Popen(['sleep', '60']); os.kill(p.pid, signal.SIGKILL); answer = p.wait()"
    )
    assert stage.value(code) == -9


# --- Unix sockets --------------------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(0.3)
        yield server


CONNECT = """
s = socket.socket(socket.AF_UNIX)
answer = tried(s.connect, {address!r})
"""


@pytest.mark.parametrize(
    "name",
    ["/tmp/.X11-unix/X{}", "/tmp/dbus-{}", "/tmp/.ICE-unix/{}", "docker-{}", "{}"],
    ids=["x11", "dbus", "ice", "docker", "any"],
)
def test_no_abstract_socket_of_the_host(stage: Stage, listening: socket.socket, name: str) -> None:
    address = "\0" + name.format(secrets.randbelow(1 << 30) + 100)
    listening.bind(address)
    listening.listen()
    assert stage.value(CONNECT.format(address=address)) == "ECONNREFUSED"
    with pytest.raises(TimeoutError):
        listening.accept()
    outside(CONNECT.format(address=address))
    listening.accept()[0].close()


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_SEQPACKET"])
def test_no_abstract_socket_of_another_kind(stage: Stage, kind: str) -> None:
    """As journald and systemd's notifications have them."""
    address = f"\0mxc-test-{secrets.token_hex(8)}"
    send = f"""
s = socket.socket(socket.AF_UNIX, socket.{kind})
def send():
    s.connect({address!r})
    s.send(b'x')
answer = tried(send)
"""
    with socket.socket(socket.AF_UNIX, getattr(socket, kind)) as server:
        server.settimeout(0.3)
        server.bind(address)
        if kind == "SOCK_SEQPACKET":
            server.listen()
        assert stage.value(send) == "ECONNREFUSED"

        def receive() -> None:
            if kind == "SOCK_SEQPACKET":
                server.accept()[0].close()
            else:
                server.recv(9)

        with pytest.raises(TimeoutError):
            receive()
        outside(send)
        receive()


@pytest.mark.parametrize(
    "folder",
    ["{outside}", "{home}", "/tmp", "/var/tmp", "/dev/shm"],
    ids=["not-granted", "home", "tmp", "var-tmp", "shm"],
)
def test_no_socket_file_outside_of_the_grants(
    stage: Stage, listening: socket.socket, folder: str
) -> None:
    """ssh-agent's, docker's or an editor's, wherever it lies, and however open its mode is."""
    place = folder.format(outside=stage.outside, home=stage.home)
    path = Path(place) / f"agent-{secrets.token_hex(8)}.sock"
    listening.bind(str(path))
    path.chmod(0o777)
    listening.listen()
    try:
        assert stage.value(CONNECT.format(address=str(path))) == "ENOENT"
        link = stage.downloads / "agent"
        link.symlink_to(path)
        assert stage.value(CONNECT.format(address=str(link))) == "ENOENT"
        link.unlink()
        with pytest.raises(TimeoutError):
            listening.accept()
        outside(CONNECT.format(address=str(path)))
        listening.accept()[0].close()
    finally:
        path.unlink()


def test_a_socket_in_a_granted_folder_is_granted(stage: Stage, listening: socket.socket) -> None:
    """What docs/policy.md says that this does not do; a test, so that it stays true both ways."""
    path = stage.downloads / "agent.sock"
    listening.bind(str(path))
    path.chmod(0o777)
    listening.listen()
    assert stage.value(CONNECT.format(address=str(path))) is None
    listening.accept()[0].close()
    path.unlink()


@pytest.mark.parametrize("folder", ["/run", "/var/run", "/tmp/.X11-unix", "/dev", "/proc", "/sys"])
def test_no_ceiling_grants_where_the_system_s_sockets_are(stage: Stage, folder: str) -> None:
    wide = stage.ceiling.read_text().replace(f'["{stage.documents}"]', f'["{folder}"]')
    kernel = stage.start(stage.write_ceiling(wide, "sockets.toml"), prelude="")
    refused = kernel.run("print('ran')")
    assert refused.error.startswith("SandboxPolicyError")
    assert not refused.stream()
    stage.end(kernel)


# --- shared memory and the like ------------------------------------------------------------------

FIND_IPC = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def found(number):
    return 'found' if number >= 0 else errno.errorcode[ctypes.get_errno()]
"""


@pytest.mark.parametrize(
    ("make", "remove"),
    [
        pytest.param("shmget(key, {create_size})", "shmctl(number, 0, None)", id="memory"),
        pytest.param("msgget(key, {create})", "msgctl(number, 0, None)", id="messages"),
        pytest.param("semget(key, {create_one})", "semctl(number, 0, 0)", id="semaphores"),
    ],
)
def test_no_system_v_object_of_the_host(stage: Stage, make: str, remove: str) -> None:
    """Anybody may use them, by a number that is easily guessed."""
    key = secrets.randbelow(1 << 30) + 1
    form = f"{FIND_IPC}key = {key}\nnumber = libc.{make}\nanswer = found(number)\n"
    create = form.format(create_size="100, 0o1666", create="0o1666", create_one="1, 0o1666")
    find = form.format(create_size="0, 0", create="0", create_one="0, 0")
    assert outside(create + "print(answer)") == "found"
    try:
        assert stage.value(find) == "ENOENT"
        assert outside(find + "print(answer)") == "found"
    finally:
        outside(f"{find}libc.{remove}")


def test_no_shared_memory_or_message_queue_by_name(stage: Stage) -> None:
    name = f"mxc-test-{secrets.token_hex(8)}"
    path = Path("/dev/shm") / name
    path.write_text("private")
    path.chmod(0o666)
    queue = FIND_IPC + f"answer = found(libc.mq_open(b'/{name}', {{flags}}, 0o666, None))\n"
    assert outside(queue.format(flags="0o102") + "print(answer)") == "found"
    try:
        assert stage.value(f"answer = tried(open, {str(path)!r})") == "ENOENT"
        assert stage.value(queue.format(flags="2")) == "ENOENT"
        assert outside(queue.format(flags="2") + "print(answer)") == "found"
        made = f"open('/dev/shm/{name}-own', 'w').close(); answer = os.listdir('/dev/shm')"
        assert stage.value(made) == [f"{name}-own"]
        assert not Path(f"/dev/shm/{name}-own").exists()
    finally:
        path.unlink()
        outside(f"{FIND_IPC}libc.mq_unlink(b'/{name}')")


@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp"])
def test_no_temporary_file_of_the_host(stage: Stage, folder: str) -> None:
    path = Path(folder) / f"mxc-test-{secrets.token_hex(8)}"
    path.write_text("private")
    path.chmod(0o666)
    try:
        assert stage.value(f"answer = tried(open, {str(path)!r})") == "ENOENT"
        assert outside(f"print(open({str(path)!r}).read())") == "private"
    finally:
        path.unlink()


def test_no_key_of_the_user_s_keyrings_is_seen(stage: Stage) -> None:
    """Their names alone tell what the user has; the calls for them are refused elsewhere."""
    name = f"mxc-test-{secrets.token_hex(8)}"
    add = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
number = {{'x86_64': 248, 'aarch64': 217}}[os.uname().machine]
libc.syscall(number, b'user', {name!r}.encode(), b'private', 7, -2)
print({name!r} in open('/proc/keys').read())
"""
    if outside(add) != "True":
        pytest.fail("no key can be made here: nothing to compare")
    assert name not in stage.value("answer = open('/proc/keys').read()")


def test_no_terminal_of_the_host(stage: Stage) -> None:
    master, slave = os.openpty()
    try:
        name = os.ttyname(slave)
        os.chmod(name, 0o666)
        assert stage.value(f"answer = tried(os.open, {name!r}, os.O_WRONLY)") == "ENOENT"
        assert stage.value("answer = os.listdir('/dev/pts')") == ["ptmx"]
        outside(f"print('x', file=open({name!r}, 'w'))")
        assert os.read(master, 1) == b"x"
    finally:
        os.close(master)
        os.close(slave)


# --- descriptors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder", "socket"])
def test_no_descriptor_that_the_kernel_was_started_with(stage: Stage, kind: str) -> None:
    """As a server leaks that forgets close-on-exec (CVE-2019-5736, CVE-2024-21626)."""
    private = stage.outside / "private.txt"
    with contextlib.ExitStack() as stack:
        if kind == "socket":
            left, right = socket.socketpair()
            stack.enter_context(left)
            stack.enter_context(right)
            fd = os.dup(left.fileno())
        else:
            fd = os.open(private if kind == "file" else stage.outside, os.O_RDONLY)
        stack.callback(os.close, fd)
        kernel = stage.start(pass_fds=(fd,))
        assert os.path.exists(f"/proc/{kernel.pid}/fd/{fd}")  # the control: the host has it
        result = kernel.run(
            "def describe(fd):\n"
            "    try: return os.readlink(f'/proc/self/fd/{fd}'), os.fstat(int(fd)).st_ino\n"
            "    except OSError: return None\n"
            "print([describe(fd) for fd in os.listdir('/proc/self/fd')])\n"
            f"print(tried(os.open, {private.name!r}, os.O_RDONLY, dir_fd={fd}))"
        )
        seen, opened = result.stream().strip().splitlines()
        assert str(os.fstat(fd).st_ino) not in [
            word.strip("()[], ") for word in seen.split() if word.strip("()[], ").isdecimal()
        ]
        assert opened in ("EBADF", "ENOTDIR", "ENOENT")
        stage.end(kernel)


def test_the_pipes_lead_nowhere_but_to_the_host(stage: Stage) -> None:
    """Opening them anew through /proc gives no other direction, and no descriptor of the host's."""
    answer = stage.value(
        """
import fcntl
kinds = {}
for fd in os.listdir('/proc/self/fd'):
    try:
        if int(fd) >= 200 and os.readlink(f'/proc/self/fd/{fd}').startswith('pipe'):
            kinds[int(fd)] = fcntl.fcntl(int(fd), fcntl.F_GETFL) & os.O_ACCMODE
    except OSError:
        pass
answer = sorted(kinds.values())
"""
    )
    assert answer == [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY]


# --- two kernels of one user ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(stage: Stage) -> Iterator[object]:
    """A second kernel of the same user's under the same ceiling, beside the stage's own."""
    assert stage.run("pass").status == "ok"
    kernel = stage.start()
    yield kernel
    stage.end(kernel)


def workload(pid: int) -> int:
    """The pid outside of a kernel's sandboxed Python."""
    return max(p.pid for p in psutil.Process(pid).children(recursive=True))


@pytest.mark.parametrize(
    "attempt",
    [
        "tried(os.kill, {pid}, signal.SIGKILL)",
        "tried(os.pidfd_open, {pid})",
        "tried(open, '/proc/{pid}/mem', 'r+b')",
        "tried(os.listdir, '/proc/{pid}/fd')",
        "tried(os.listdir, '/proc/{pid}/root')",
        "tried(os.sched_setaffinity, {pid}, [0])",
        "tried(os.setpriority, os.PRIO_PROCESS, {pid}, 19)",
    ],
    ids=["kill", "pidfd", "memory", "descriptors", "root", "affinity", "priority"],
)
def test_one_kernel_s_sandbox_does_not_reach_the_other_s_processes(
    stage: Stage, other: object, attempt: str
) -> None:
    pid = workload(other.pid)  # type: ignore[attr-defined]
    if pid < 100:
        pytest.fail("a number that the sandbox has too: nothing to compare")
    assert stage.value(f"answer = {attempt.format(pid=pid)}") in ("ESRCH", "ENOENT")
    assert other.run("'alive'").value == "'alive'"  # type: ignore[attr-defined]
    outside(f"print({attempt.format(pid=pid)!r}.startswith('tried'))")
    own = attempt.replace("{pid}", str(stage.value("answer = os.getpid()")))
    if "KILL" not in attempt:
        assert "E" not in repr(stage.value(f"answer = type({own}).__name__"))


def test_one_kernel_s_private_files_are_not_the_other_s(stage: Stage, other: object) -> None:
    """The same paths, and another folder behind each."""
    places = "['/tmp/note', '/dev/shm/note', os.path.expanduser('~/note')]"
    stage.run(f"for place in {places}: open(place, 'w').write('mine')")
    seen = other.run(f"print([os.path.exists(p) for p in {places}])")  # type: ignore[attr-defined]
    assert seen.stream().strip() == "[False, False, False]"
    assert stage.value(f"answer = [os.path.exists(p) for p in {places}]") == [True] * 3


@pytest.mark.parametrize(
    ("serve", "connect"),
    [
        (
            "server = socket.create_server(('127.0.0.1', 34567))",
            "socket.create_connection(('127.0.0.1', 34567), 5)",
        ),
        (
            "server = socket.socket(socket.AF_UNIX); server.bind('\\0mine'); server.listen()",
            "socket.socket(socket.AF_UNIX).connect('\\0mine')",
        ),
    ],
    ids=["loopback", "abstract"],
)
def test_one_kernel_does_not_reach_what_the_other_serves(
    stage: Stage, other: object, serve: str, connect: str
) -> None:
    stage.run(serve)
    seen = other.run(f"print(tried(lambda: {connect}))")  # type: ignore[attr-defined]
    assert seen.stream().strip() == "ECONNREFUSED"
    assert stage.value(f"answer = str(tried(lambda: {connect}))") != "ECONNREFUSED"
    stage.run("server.close()")


def test_one_kernel_s_grant_is_not_the_other_s(stage: Stage, other: object) -> None:
    target = stage.extra / "made"
    write = f"open({str(target)!r}, 'w').close()"
    assert stage.run(f"%%allow_rw {stage.extra}\n{write}").status == "ok"
    target.unlink()
    result = stage.run(f"%%allow_rw {stage.extra}\ntime.sleep(0)\nopen('/tmp/up', 'w').close()")
    assert result.status == "ok"
    assert other.run(write).status == "error"  # type: ignore[attr-defined]
    assert not target.exists()


def test_a_link_that_one_plants_does_not_lead_the_other_out(stage: Stage, other: object) -> None:
    """In a folder that is granted to both for writing."""
    way = stage.downloads / "way"
    stage.run(f"os.symlink({str(stage.extra)!r}, {str(way)!r})")
    (stage.extra / "secret.txt").write_text("private")
    read = f"print(tried(lambda: open({str(way)!r} + '/secret.txt').read()))"
    seen = other.run(read)  # type: ignore[attr-defined]
    assert seen.stream().strip() == "ENOENT"
    seen = other.run(f"%%allow_ro {way}\n{read}")  # type: ignore[attr-defined]
    assert "private" not in seen.stream() or not seen.error
    way.unlink()
    (stage.extra / "secret.txt").unlink()


def test_two_kernels_started_as_root_are_two_users(stage: Stage, other: object) -> None:
    mine = stage.value("answer = os.getuid()")
    theirs = int(other.run("print(os.getuid())").stream())  # type: ignore[attr-defined]
    assert (mine != theirs) is (os.geteuid() == 0)
    assert 0 not in (mine, theirs)
