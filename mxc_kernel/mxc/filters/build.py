"""Builds the seccomp filters with libseccomp: ``python -m mxc_kernel.mxc.filters.build``.

Two programs, because libseccomp cannot say "all of ioctl but these requests" in a program that
refuses by default:

- ``calls`` lists every system call that there is in the sandbox. What is not listed does not exist
  (ENOSYS), among it what Linux gains in future. Programs take that for an older kernel and use
  another way, which is why ``clone3`` answers so too: its flags lie in memory that a filter cannot
  read, and glibc then uses ``clone``; ``openat2`` answers so for the same reason. ``REFUSED``
  answers EPERM instead: calls that every kernel has and that fail so for an ordinary user anyway;
  programs have a message for that and no other way.
- ``arguments`` refuses some uses of calls that are needed.

Both end a process that calls as a 32-bit or x32 program would (SIGSYS): those calls have other
numbers, the rules would not fit them, and nothing in the sandbox needs them.

Sources: the manual pages syscalls(2), seccomp_rule_add(3); Docker's default profile for what
programs use; CVE-2019-10063 and CVE-2023-1523 for the masks on ioctl.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mxc_kernel.mxc.filters import KINDS, path

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["ALLOWED", "MACHINES", "REFUSED", "build"]

MACHINES = ("x86_64", "aarch64")

_FILES = """
    access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat
    faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync
    fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd
    getdents getdents64 getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl
    lchown lgetxattr link linkat listxattr llistxattr lremovexattr lseek lsetxattr lstat mkdir
    mkdirat mknod mknodat newfstatat open openat pipe pipe2 pread64 preadv preadv2 pwrite64
    pwritev pwritev2 read readahead readlink readlinkat readv removexattr rename renameat renameat2
    rmdir sendfile setxattr splice stat statfs statx symlink symlinkat sync sync_file_range syncfs
    tee truncate umask unlink unlinkat utime utimensat utimes vmsplice write writev cachestat
"""
_MEMORY = """
    brk get_mempolicy madvise map_shadow_stack mbind membarrier memfd_create mincore mlock mlock2
    mlockall mmap mprotect mremap msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
    set_mempolicy
"""
_PROCESSES = """
    alarm arch_prctl capget capset clone execve execveat exit exit_group fork futex futex_requeue
    futex_wait futex_waitv futex_wake get_robust_list getcpu getegid geteuid getgid getgroups
    getitimer getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage
    getsid gettid getuid ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self pause personality pidfd_open pidfd_send_signal prctl prlimit64
    restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp
    set_robust_list set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority
    setregid setresgid setresuid setreuid setrlimit setsid setuid sigaltstack tgkill tkill unshare
    vfork wait4 waitid
"""
_WAITING = """
    clock_getres clock_gettime clock_nanosleep epoll_create epoll_create1 epoll_ctl epoll_pwait
    epoll_pwait2 epoll_wait eventfd eventfd2 gettimeofday io_cancel io_destroy io_getevents
    io_pgetevents io_setup io_submit nanosleep poll ppoll pselect6 select signalfd signalfd4 time
    timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
    timerfd_gettime timerfd_settime times
"""
_EXCHANGE = """
    accept accept4 bind connect getpeername getsockname getsockopt listen mq_getsetattr mq_notify
    mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd recvfrom recvmmsg
    recvmsg semctl semget semop semtimedop sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt
    shmget shutdown socket socketpair
"""
_MACHINE = "getrandom sysinfo uname"
_FORBIDDEN = """
    acct adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init finit_module
    init_module ioperm iopl kcmp kexec_file_load kexec_load migrate_pages mount move_pages
    open_by_handle_at perf_event_open pidfd_getfd pivot_root process_madvise process_mrelease
    process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot setdomainname
    sethostname setns settimeofday swapoff swapon syslog umount2 userfaultfd vhangup
"""

ALLOWED = frozenset(" ".join((_FILES, _MEMORY, _PROCESSES, _WAITING, _EXCHANGE, _MACHINE)).split())
"""The system calls of a sandbox: what a process does to itself, its files and its peers."""

REFUSED = frozenset(_FORBIDDEN.split())
"""Calls that every kernel has and that fail with EPERM where they are forbidden."""

# linux/sched.h. A new user namespace brings the capabilities that most kernel exploits of the last
# years began with; without it the others fail anyway.
_NEW_NAMESPACES = {
    "mount": 0x0002_0000,
    "cgroup": 0x0200_0000,
    "uts": 0x0400_0000,
    "ipc": 0x0800_0000,
    "user": 0x1000_0000,
    "pid": 0x2000_0000,
    "net": 0x4000_0000,
}
_NEW_TIME = 0x80  # for unshare only; in clone these bits are a signal
# Typing into a terminal, pasting into one, and loading line disciplines into the kernel.
_TERMINAL_REQUESTS = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C, "TIOCSETD": 0x5423}
_IOCTL_BITS = 0xFFFF_FFFF  # the kernel ignores the upper half of the request; a filter must too
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_FAMILIES = (_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK)
_NETLINK_ROUTE = 0  # what getifaddrs asks
_ASK_PERSONALITY = 0xFFFF_FFFF
# A program left in a grant with this bit would give the rights of the user to any other account
# that runs it outside. Not the group's bit: folders that groups share have it, and copying one
# sets it.
_SET_UID = 0o4000
_MODES = {
    "chmod": 1,
    "creat": 1,
    "fchmod": 1,
    "fchmodat": 2,
    "fchmodat2": 2,
    "mknod": 1,
    "mknodat": 2,
}
_CREATE, _TEMPORARY = 0o100, 0o2000_0000  # O_CREAT and the bit of O_TMPFILE that is its own
_OPENS = {"open": 1, "openat": 2}  # where the flags stand; the mode is next

_Rule = tuple[int, str, tuple[Any, ...]]  # what to answer, to which call, with which arguments


def build(machine: str, kind: str) -> bytes:
    """Build a program.

    Args:
        machine: one of `MACHINES`; not necessarily this one.
        kind: one of `mxc_kernel.mxc.filters.KINDS`.

    Raises:
        RuntimeError: libseccomp is not installed.
        OSError: it refused a rule.
    """
    import pyseccomp as library

    unlisted = library.ERRNO(errno.ENOSYS) if kind == "calls" else library.ALLOW
    program = library.SyscallFilter(unlisted)
    architecture = getattr(library.Arch, machine.upper())
    if architecture != library.system_arch():
        program.add_arch(architecture)
        program.remove_arch(library.Arch.NATIVE)
    program.set_attr(library.Attr.ACT_BADARCH, library.KILL_PROCESS)
    program.set_attr(library.Attr.CTL_OPTIMIZE, 2)  # a tree instead of one comparison after another
    rules = _calls(library) if kind == "calls" else _arguments(library)
    for action, call, conditions in rules:
        if library.resolve_syscall(architecture, call) >= 0:  # each processor lacks some
            program.add_rule(action, call, *conditions)
    with tempfile.TemporaryFile() as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


def _calls(library: ModuleType) -> Iterator[_Rule]:
    for call in sorted(ALLOWED):
        yield library.ALLOW, call, ()
    for call in sorted(REFUSED):
        yield library.ERRNO(errno.EPERM), call, ()


def _arguments(library: ModuleType) -> Iterator[_Rule]:
    forbidden = library.ERRNO(errno.EPERM)
    for flag in _NEW_NAMESPACES.values():
        for call in ("clone", "unshare"):
            yield forbidden, call, (library.Arg(0, library.MASKED_EQ, flag, flag),)
    yield forbidden, "unshare", (library.Arg(0, library.MASKED_EQ, _NEW_TIME, _NEW_TIME),)
    for request in _TERMINAL_REQUESTS.values():
        yield forbidden, "ioctl", (library.Arg(1, library.MASKED_EQ, _IOCTL_BITS, request),)
    yield forbidden, "personality", (library.Arg(0, library.NE, _ASK_PERSONALITY),)
    owners_rights = library.MASKED_EQ, _SET_UID, _SET_UID
    for call, mode in _MODES.items():
        yield forbidden, call, (library.Arg(mode, *owners_rights),)
    for call, flags in _OPENS.items():
        for creates in (_CREATE, _TEMPORARY):
            making = library.Arg(flags, library.MASKED_EQ, creates, creates)
            yield forbidden, call, (making, library.Arg(flags + 1, *owners_rights))
    # The kernel looks at 32 bits, the filter compares 64: what has others set is refused.
    unknown = library.ERRNO(errno.EAFNOSUPPORT)
    for family in set(range(max(_FAMILIES))).difference(_FAMILIES):
        yield unknown, "socket", (library.Arg(0, library.EQ, family),)
    yield unknown, "socket", (library.Arg(0, library.GT, max(_FAMILIES)),)
    yield (
        library.ERRNO(errno.EPROTONOSUPPORT),
        "socket",
        (library.Arg(0, library.EQ, _AF_NETLINK), library.Arg(2, library.NE, _NETLINK_ROUTE)),
    )
    yield unknown, "socketpair", (library.Arg(0, library.NE, _AF_UNIX),)


def main() -> None:
    """Write all programs to where they are kept."""
    for machine in MACHINES:
        for kind in KINDS:
            with open(path(machine, kind), "wb") as file:
                file.write(build(machine, kind))


if __name__ == "__main__":
    main()
