"""Attacks on the Linux kernel and on the sandbox's own processes, through system calls and /proc.

Each is made in the sandbox and again with the hardening left out, where it must succeed.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from .conftest import MACHINE, Box

x86_only = pytest.mark.skipif(MACHINE != "x86_64", reason="other processors have no such calls")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make such a program")

NEW_MOUNTS, NEW_UTS, NEW_IPC = 0x0002_0000, 0x0400_0000, 0x0800_0000
NEW_USER, NEW_PID, NEW_NET = 0x1000_0000, 0x2000_0000, 0x4000_0000
NEW_CGROUP, NEW_TIME = 0x0200_0000, 0x80
BAD = 1 << 40  # an address that is not mapped, a descriptor that is not open


# --- the sandbox's init process ---------------------------------------------------------------


def test_the_memory_of_init_cannot_be_written(box: Box) -> None:
    attack = """
def write():
    with open('/proc/1/maps') as maps:
        start = next(int(line.split('-')[0], 16) for line in maps if ' rw-p ' in line)
    memory = os.open('/proc/1/mem', os.O_RDWR)
    old = os.pread(memory, 8, start)
    return os.pwrite(memory, old, start)
answer = tried(write)
"""
    assert box.both(attack) == ("EACCES", 8)


@pytest.mark.parametrize("name", ["environ", "maps", "fd/0", "root", "cwd", "mem", "map_files"])
def test_init_s_inside_cannot_be_seen(box: Box, name: str) -> None:
    attack = f"""
path = '/proc/1/{name}'
def look():
    if os.path.islink(path):
        os.readlink(path)
    elif os.path.isdir(path):
        os.listdir(path)
    else:
        open(path, 'rb').close()
    return 'seen'
answer = tried(look)
"""
    inside, control = box.both(attack)
    assert inside in ("EACCES", "EPERM")
    assert control == "seen"


def test_init_cannot_be_traced(box: Box) -> None:
    seize = 0x4206  # PTRACE_SEIZE does not stop it, so the sandbox can still end
    attack = f"answer = call({box.numbers('ptrace')}, {seize}, 1, 0, 0)"
    assert box.both(attack) == ("EPERM", 0)


def test_init_cannot_be_signalled(box: Box) -> None:
    assert box.both("answer = tried(os.kill, 1, 0)") == ("EPERM", None)


# --- namespaces and mounts --------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        NEW_USER,
        NEW_USER | NEW_MOUNTS,
        NEW_USER | NEW_NET,
        NEW_USER | NEW_PID,
        NEW_USER | NEW_UTS,
        NEW_USER | NEW_IPC,
        NEW_USER | NEW_CGROUP,
        NEW_USER | NEW_TIME,
    ],
    ids=hex,
)
def test_no_namespace_inside_the_sandbox(box: Box, flags: int) -> None:
    assert box.both(f"answer = call({box.numbers('unshare')}, {flags})") == ("EPERM", 0)


def test_no_namespace_by_clone(box: Box) -> None:
    attack = f"""
answer = call({box.numbers("clone")}, {NEW_USER | signal.SIGCHLD}, 0, 0, 0, 0)
if answer == 0:
    os._exit(0)
answer = 'made' if isinstance(answer, int) else answer
"""
    assert box.both(attack) == ("EPERM", "made")


def test_no_namespace_with_the_upper_half_of_the_flags_set(box: Box) -> None:
    """A filter that compared all 64 bits would let this pass."""
    inside = box.run(f"answer = call({box.numbers('unshare')}, {1 << 32 | NEW_USER})")
    assert inside == "EPERM"


def test_clone3_does_not_exist_and_threads_work_without_it(box: Box) -> None:
    attack = f"""
import threading
done = []
thread = threading.Thread(target=lambda: done.append(1))
thread.start(); thread.join()
answer = [call({box.numbers("clone3")}, 0, 0), done]
"""
    assert box.both(attack) == (["ENOSYS", [1]], ["EINVAL", [1]])


def test_another_process_s_namespaces_cannot_be_entered(box: Box) -> None:
    attack = f"""
reader, writer = os.pipe()
pid = os.fork()
if not pid:
    call({box.numbers("unshare")}, {NEW_USER})
    os.write(writer, b'x')
    signal.pause()
os.read(reader, 1)
fd = os.open(f'/proc/{{pid}}/ns/user', os.O_RDONLY)
answer = call({box.numbers("setns")}, fd, 0)
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
"""
    inside, control = box.both(attack)
    assert (inside, control) == ("EPERM", 0)


def _mounting(box: Box, then: str) -> str:
    """Code that becomes root of a new user namespace, if it can, and then goes on."""
    return f"""
uid = os.getuid()
answer = call({box.numbers("unshare")}, {NEW_USER | NEW_MOUNTS | NEW_PID})
if answer == 0:
    open('/proc/self/uid_map', 'w').write(f'0 {{uid}} 1')
MOUNT, UMOUNT = {box.numbers("mount")}, {box.numbers("umount2")}
def mount(source, target, kind, flags, data=None):
    return call(MOUNT, source, target, kind, flags, data)
{then}
"""


def test_nothing_can_be_mounted(box: Box) -> None:
    attack = _mounting(box, "answer = mount(b'none', b'/tmp', b'tmpfs', 0)")
    assert box.both(attack) == ("EPERM", 0)


def test_nothing_can_be_bound_over_a_folder(box: Box) -> None:
    attack = _mounting(box, "answer = mount(b'/tmp', b'/etc', None, 4096)")
    assert box.both(attack) == ("EPERM", 0)


def test_no_second_procfs(box: Box) -> None:
    """It would show the host's processes, were it the host's; ours are all that there are."""
    then = """
os.makedirs('/tmp/proc')
pid = os.fork()
if not pid:
    result = mount(b'proc', b'/tmp/proc', b'proc', 0)
    os._exit(0 if result == 0 else 1)
answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
    assert box.both(_mounting(box, then)) == (1, 0)


def test_a_read_only_grant_cannot_be_remounted(box: Box) -> None:
    report = box.granted / "report.txt"
    then = f"""
MS_REMOUNT, MS_BIND = 32, 4096
answer = [
    mount(None, {str(box.granted)!r}.encode(), None, MS_REMOUNT | MS_BIND),
    tried(open, {str(report)!r}, 'w') is None,
]
"""
    assert box.run(_mounting(box, then)) == ["EPERM", False]
    assert report.read_text() == "figures"


def test_a_mask_cannot_be_taken_off(box: Box) -> None:
    secret = box.writable / "denied.txt"
    then = f"""
answer = [call(UMOUNT, {str(secret)!r}.encode(), 2), tried(open, {str(secret)!r}) != 'private']
"""
    assert box.run(_mounting(box, then))[0] == "EPERM"
    assert secret.read_text() == "private"


def test_the_root_cannot_be_changed(box: Box) -> None:
    then = f"answer = call({box.numbers('chroot')}, b'/tmp')"
    assert box.both(_mounting(box, then)) == ("EPERM", 0)


# --- calls that are not there ------------------------------------------------------------------

# The call, its arguments, what the kernel itself answers to them (None: it does what was asked),
# and what the sandbox does. Many arguments are wrong on purpose: an answer about them shows that
# the call was reached.
CALLS = [
    ("add_key", f"{BAD}, {BAD}, 0, 0, -3", {"EFAULT"}, "ENOSYS"),
    ("bpf", "99, 0, 0", {"EINVAL"}, "EPERM"),
    ("fsopen", f"{BAD}, 0", {"EFAULT", "EPERM"}, "ENOSYS"),
    ("fspick", f"-1, {BAD}, 0", {"EFAULT", "EPERM"}, "ENOSYS"),
    ("fanotify_init", "0x200, 0", None, "EPERM"),
    ("io_uring_enter", "-1, 0, 0, 0, 0, 0", {"EBADF"}, "ENOSYS"),
    ("io_uring_register", "-1, 0, 0, 0", {"EBADF", "EINVAL"}, "ENOSYS"),
    ("io_uring_setup", f"1, {BAD}", {"EFAULT"}, "ENOSYS"),
    ("kcmp", "os.getpid(), os.getpid(), 0, 0, 0", {0}, "EPERM"),
    ("keyctl", "0, -3, 0", None, "ENOSYS"),
    ("memfd_secret", "-1", {"EINVAL"}, "ENOSYS"),
    ("mount_setattr", f"-1, {BAD}, 0, 0, 0", {"EINVAL"}, "ENOSYS"),
    ("move_mount", f"-1, {BAD}, -1, {BAD}, 0", {"EFAULT", "EBADF", "EPERM"}, "ENOSYS"),
    ("move_pages", "0, 0, 0, 0, 0, 0", {0}, "EPERM"),
    ("name_to_handle_at", f"-1, {BAD}, {BAD}, {BAD}, 0", {"EFAULT"}, "ENOSYS"),
    ("open_tree", f"-1, {BAD}, 0", {"EFAULT"}, "ENOSYS"),
    ("perf_event_open", f"{BAD}, 0, -1, -1, 0", {"EFAULT"}, "EPERM"),
    ("pidfd_getfd", "-1, 0, 0", {"EBADF"}, "EPERM"),
    ("process_madvise", "-1, 0, 0, 0, 0", {"EBADF"}, "EPERM"),
    ("process_mrelease", "-1, 0", {"EBADF"}, "EPERM"),
    ("process_vm_readv", "os.getpid(), 0, 0, 0, 0, 0", {0}, "EPERM"),
    ("ptrace", "0, 0, 0, 0", {0}, "EPERM"),
    ("quotactl", f"-1, {BAD}, 0, 0", {"EINVAL", "EFAULT", "ENOENT", "ENOTBLK"}, "EPERM"),
    ("remap_file_pages", "0, 0, 0, 0, 0", {"EINVAL"}, "ENOSYS"),
    ("request_key", f"{BAD}, {BAD}, 0, -3", {"EFAULT"}, "ENOSYS"),
    ("setns", "-1, 0", {"EBADF"}, "EPERM"),
    ("userfaultfd", "-1", {"EINVAL", "EPERM"}, "EPERM"),
]
X86_CALLS = [
    ("modify_ldt", "0, 0, 0", {0}, "ENOSYS"),
    ("sysfs", "3", None, "ENOSYS"),
    ("ustat", f"0, {BAD}", {"EINVAL", "EFAULT"}, "ENOSYS"),
]


@pytest.mark.parametrize(
    ("name", "arguments", "kernel_says", "refusal"), CALLS, ids=[call[0] for call in CALLS]
)
def test_a_call_is_refused(
    box: Box, name: str, arguments: str, kernel_says: set[object] | None, refusal: str
) -> None:
    _refused(box, name, arguments, kernel_says, refusal)


@x86_only
@pytest.mark.parametrize(
    ("name", "arguments", "kernel_says", "refusal"), X86_CALLS, ids=[call[0] for call in X86_CALLS]
)
def test_an_obsolete_call_is_refused(
    box: Box, name: str, arguments: str, kernel_says: set[object] | None, refusal: str
) -> None:
    _refused(box, name, arguments, kernel_says, refusal)


def _refused(
    box: Box, name: str, arguments: str, kernel_says: set[object] | None, refusal: str
) -> None:
    inside, control = box.both(f"answer = call({box.numbers(name)}, {arguments})")
    assert inside == refusal
    assert control in kernel_says if kernel_says is not None else isinstance(control, int)


@pytest.mark.parametrize(
    "name",
    """
    acct adjtimex clock_settime delete_module finit_module init_module kexec_load mount
    open_by_handle_at pivot_root quotactl reboot setdomainname sethostname settimeofday swapoff
    swapon syslog umount2 vhangup
    """.split(),  # noqa: SIM905  # easier to read
)
def test_a_call_for_administrators_never_reaches_the_kernel(box: Box, name: str) -> None:
    """Linux answers EPERM as well, from deeper inside; with a filter it is asked nothing."""
    assert box.run(f"answer = call({box.numbers(name)}, 0, 0, 0, 0, 0)") == "EPERM"


@pytest.mark.parametrize("number", [468, 500, 600, 1023, 5000])
def test_a_call_of_a_future_kernel_does_not_exist(box: Box, number: int) -> None:
    assert box.run(f"answer = call({number}, 0, 0, 0, 0, 0, 0)") == "ENOSYS"


def test_another_process_s_memory_cannot_be_written_by_a_call(box: Box) -> None:
    attack = f"""
target = ctypes.create_string_buffer(b'old')
reader, writer = os.pipe()
pid = os.fork()
if not pid:
    os.read(reader, 1)
    os._exit(target.value == b'new')
new = ctypes.create_string_buffer(b'new')
class Vector(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]
here, there = Vector(ctypes.addressof(new), 4), Vector(ctypes.addressof(target), 4)
here, there = ctypes.byref(here), ctypes.byref(there)
made = call({box.numbers("process_vm_writev")}, pid, here, 1, there, 1, 0)
os.write(writer, b'x')
answer = [made, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
"""
    assert box.both(attack) == (["EPERM", 0], [4, 1])


def test_the_layout_of_memory_stays_random(box: Box) -> None:
    attack = f"""
ADDR_NO_RANDOMIZE, ASK = 0x0040000, 0xFFFFFFFF
number = {box.numbers("personality")}
answer = [call(number, ASK), call(number, ADDR_NO_RANDOMIZE), call(number, ASK)]
"""
    assert box.both(attack) == ([0, "EPERM", 0], [0, 0, 0x40000])


# --- other kinds of system calls ---------------------------------------------------------------

MACHINE_CODE = """
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex('b814000000cd80c3'))  # mov eax, 20 (getpid); int 0x80; ret
function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
answer = ended(lambda: os._exit(0 if function() == os.getpid() else 1))[0]
"""


@x86_only
def test_a_32_bit_call_ends_the_process(box: Box) -> None:
    inside, control = box.both(MACHINE_CODE)
    assert inside == -signal.SIGSYS
    assert control == 0


@x86_only
def test_an_x32_call_ends_the_process(box: Box) -> None:
    attack = "answer = ended(lambda: call(0x40000000 + 39))[0]"
    assert box.both(attack) == (-signal.SIGSYS, 0)


# --- sockets and terminals ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "kind", "protocol"),
    [
        pytest.param(17, 3, 0, id="packet"),
        pytest.param(40, 1, 0, id="vsock"),
        pytest.param(38, 5, 0, id="crypto"),
        pytest.param(16, 3, 12, id="netlink-netfilter"),
        pytest.param(16, 3, 9, id="netlink-audit"),
        pytest.param(16, 3, 15, id="netlink-uevents"),
        pytest.param(16, 3, 21, id="netlink-crypto"),
        pytest.param(44, 3, 0, id="xdp"),
        pytest.param(29, 3, 1, id="can"),
        pytest.param(31, 3, 1, id="bluetooth"),
        pytest.param(1 << 32 | 40, 1, 0, id="upper-half"),
    ],
)
def test_a_kind_of_socket_is_refused(box: Box, family: int, kind: int, protocol: int) -> None:
    attack = f"answer = call({box.numbers('socket')}, {family}, {kind}, {protocol})"
    assert box.run(attack) == ("EPROTONOSUPPORT" if family == 16 else "EAFNOSUPPORT")


def test_what_python_needs_of_sockets_is_there(box: Box) -> None:
    """The control for the above, and two refused ones that exist without the filter."""
    code = """
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
    socket.socket(family).close()
server = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(server.getsockname())
server.accept()[0].send(b'x')
names = [name for _, name in socket.if_nameindex()]
extra = [tried(socket.socket, 16, 3, 15), tried(socket.socket, 40, 1)]
answer = [client.recv(1).decode(), names, ['open' if not isinstance(e, str) else e for e in extra]]
left, right = socket.socketpair()
"""
    inside, control = box.both(code)
    assert inside == ["x", ["lo"], ["EPROTONOSUPPORT", "EAFNOSUPPORT"]]
    assert control == ["x", ["lo"], ["open", "open"]]


TERMINAL = """
import fcntl, termios
os.setsid()
master, slave = os.openpty()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
termios.tcgetattr(slave)
answer = []
"""


@pytest.mark.parametrize("request_code", [0x5412, 1 << 32 | 0x5412], ids=["plain", "upper-half"])
def test_nothing_is_typed_into_a_terminal(box: Box, request_code: int) -> None:
    attack = TERMINAL + f"answer = call({box.numbers('ioctl')}, slave, {request_code}, b'x')"
    inside, control = box.both(attack)
    assert inside == "EPERM"
    assert control in (0, "EIO")  # EIO where the system forbids it to all


@pytest.mark.parametrize("request_code", [0x541C, 0x5423], ids=["TIOCLINUX", "TIOCSETD"])
def test_a_terminal_s_odd_requests_are_refused(box: Box, request_code: int) -> None:
    attack = TERMINAL + f"answer = call({box.numbers('ioctl')}, slave, {request_code}, {BAD})"
    inside, control = box.both(attack)
    assert inside == "EPERM"
    assert control in ("EFAULT", "ENOTTY")


def test_a_terminal_of_one_s_own_works(box: Box) -> None:
    code = TERMINAL + "os.write(master, b'x\\n'); answer = os.read(slave, 2).decode()"
    assert box.run(code) == "x\n"


# --- programs and dumps ------------------------------------------------------------------------


@root_only
def test_a_setuid_program_gives_nothing(box: Box) -> None:
    program = box.granted / "who"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o755 | stat.S_ISUID)
    try:
        run = f"answer = int(subprocess.check_output([{str(program)!r}, '-u']))"
        assert box.run(run) == box.user.uid  # type: ignore[union-attr]
        outside = subprocess.check_output([program, "-u"], user=box.user.uid)  # type: ignore[union-attr]
        assert int(outside) == 0
    finally:
        program.unlink()


def test_a_crash_leaves_no_dump(box: Box) -> None:
    """A handler in core_pattern would run outside, as root, on the memory of hostile code."""
    crash = """
import resource
limit = resource.getrlimit(resource.RLIMIT_CORE)
try:
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))
except (OSError, ValueError):
    limit = [*limit, 'kept']
answer = [*limit, *ended(lambda: os.kill(os.getpid(), signal.SIGSEGV))]
"""
    assert box.run(crash) == [1, 1, "kept", -signal.SIGSEGV, False]


def test_new_privileges_are_out_of_reach_for_good(box: Box) -> None:
    attack = f"""
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 38, 47, 2
number = {box.numbers("prctl")}
answer = [call(number, PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0),
          call(number, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0),
          tried(os.setuid, 0)]
"""
    assert box.run(attack) == ["EINVAL", "EPERM", "EINVAL"]


def test_programs_and_threads_inherit_it_all(box: Box) -> None:
    attack = f"""
import threading
code = '''
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
made = libc.unshare({NEW_USER})
try:
    open("/proc/1/mem", "r+b")
    opened = True
except OSError:
    opened = False
print(made, opened)
'''
def thread():
    answer.append(call({box.numbers("unshare")}, {NEW_NET}))
answer = [subprocess.check_output([sys.executable, '-c', code], text=True).split()]
one = threading.Thread(target=thread)
one.start(); one.join()
"""
    inside, control = box.both(attack)
    assert inside == [["-1", "False"], "EPERM"]
    assert control[0] == ["0", "False"]  # in its new namespace it has left init's behind


# --- files -------------------------------------------------------------------------------------


def test_proc_leads_nowhere_else(box: Box) -> None:
    private = box.granted.parent / "outside" / "private.txt"
    attack = f"""
private, granted = {str(private)!r}, {str(box.granted / "report.txt")!r}
ways = ['/proc/self/root', '/proc/self/cwd/../../../../..', '/proc/self/task/%d/root' % os.getpid()]
ways += [f'/proc/self/fd/{{fd}}/../../../../..' for fd in os.listdir('/proc/self/fd')]
answer = [[way for way in ways if os.path.exists(way + private)],
          os.path.exists('/proc/self/root' + granted)]
"""
    assert box.run(attack) == [[], True]
    assert private.exists()


def test_the_machine_s_settings_cannot_be_written(box: Box) -> None:
    attack = """
paths = ['/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/sys/vm/overcommit_memory',
         '/proc/sys/kernel/hostname', '/proc/sys/fs/binfmt_misc/register', '/proc/kcore']
answer = {path: tried(os.open, path, os.O_WRONLY) for path in paths if os.path.exists(path)}
"""
    answers = box.run(attack)
    assert answers
    assert set(answers.values()) <= {"EACCES", "EPERM", "EROFS"}


@pytest.mark.parametrize("place", ["/new", "/dev/new", "/var/new", "{root}/new", "{denied}/new"])
@pytest.mark.parametrize("make", ["os.mkdir(path)", "os.mkfifo(path)", "open(path, 'w').close()"])
def test_a_write_that_would_be_lost_fails(box: Box, place: str, make: str) -> None:
    path = place.format(root=box.granted.parent, denied=box.denied)
    attack = f"""
path = {path!r}
def attempt():
    {make}
    return os.path.lexists(path)
answer = tried(attempt)
"""
    assert box.both(attack) == ("EACCES", True)
    assert not os.path.lexists(path)


def test_a_denied_file_is_not_read(box: Box) -> None:
    path = box.writable / "denied.txt"
    assert box.run(f"answer = tried(open, {str(path)!r})") in ("EACCES", "EPERM", "ENXIO")
    assert path.read_text() == "private"


def test_what_may_be_written_can_be(box: Box) -> None:
    code = f"""
import tempfile
def write(path):
    with open(path, 'w') as file:
        return file.write('1')
places = ['/tmp/new', '/dev/shm/new', {str(box.writable / "new")!r}, '/dev/null',
          '/proc/self/comm', '/proc/self/oom_score_adj', f'/proc/self/task/{{os.getpid()}}/comm']
answer = [tried(write, place) for place in places]
os.mkdir({str(box.writable / "a")!r}); os.mkdir({str(box.writable / "b")!r})
os.rename({str(box.writable / "new")!r}, {str(box.writable / "a" / "moved")!r})
os.link({str(box.writable / "a" / "moved")!r}, {str(box.writable / "b" / "linked")!r})
os.truncate({str(box.writable / "b" / "linked")!r}, 0)
os.unlink({str(box.writable / "a" / "moved")!r})
child = subprocess.run([sys.executable, '-c', 'open("/proc/self/oom_score_adj", "w").write("1")'])
answer.append(child.returncode)
fd = os.memfd_create('x'); os.ftruncate(fd, 10)
answer.append(tried(write, f'/proc/self/fd/{{fd}}'))
os.symlink('/bin/true', '/tmp/run'); answer.append(subprocess.run(['/tmp/run']).returncode)
"""
    try:
        assert box.run(code) == [1] * 7 + [0, 1, 0]
        assert (box.writable / "b" / "linked").read_bytes() == b""
    finally:
        for name in ("a", "b"):
            shutil.rmtree(box.writable / name, ignore_errors=True)


def test_the_folder_of_a_grant_is_the_host_s(box: Box) -> None:
    """The control for lost writes: this one is not lost."""
    path = box.writable / "kept"
    assert box.run(f"answer = tried(os.mkdir, {str(path)!r})") is None
    assert Path(path).is_dir()
    path.rmdir()
