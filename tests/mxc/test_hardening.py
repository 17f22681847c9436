"""The filters of system calls as data, and that ordinary work goes on under the hardening."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from binascii import b2a_base64
from pathlib import Path

import pyseccomp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.errors import SandboxUnavailableError
from mxc_kernel.mxc import filters
from mxc_kernel.mxc.filters import build

ALLOW, KILL = 0x7FFF_0000, 0x8000_0000
REFUSE, MISSING = 0x0005_0000 | errno.EPERM, 0x0005_0000 | errno.ENOSYS
ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
FOREIGN = {"i386": 0x4000_0003, "arm": 0x4000_0028, "riscv64": 0xC000_00F3}


def decide(program: bytes, number: int, architecture: int, arguments: tuple[int, ...] = ()) -> int:
    """Run a program of classic BPF as the kernel does (Documentation/networking/filter.rst)."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<iIQ6Q", number, architecture, 0, *words)
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x20:  # load a word
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == 0x54:  # and
            accumulator &= value
        elif operation == 0x05:  # jump
            at += value
        elif operation in (0x15, 0x25, 0x35, 0x45):
            met = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[operation]
            at += if_true if met else if_false
        else:
            assert operation == 0x06, hex(operation)  # return
            return value


def number(name: str, machine: str) -> int:
    return pyseccomp.resolve_syscall(getattr(pyseccomp.Arch, machine.upper()), name)


machines = pytest.mark.parametrize("machine", build.MACHINES)
calls = st.integers(0, 600) | st.integers(-(2**31), 2**31 - 1)
words = st.integers(0, 2**64 - 1) | st.sampled_from(
    [*build._NEW_NAMESPACES.values(), 0x5412, 0x541C, 0x5423, 0xFFFF_FFFF, *range(50), 1 << 32]
)


@pytest.fixture(scope="module")
def built() -> dict[tuple[str, str], bytes]:
    """All programs, built from the rules as they are now."""
    pairs = [(machine, kind) for machine in build.MACHINES for kind in filters.KINDS]
    return {pair: build.build(*pair) for pair in pairs}


@machines
def test_the_programs_kept_decide_every_call_as_the_rules_say(
    machine: str, built: dict[tuple[str, str], bytes]
) -> None:
    """Not byte by byte: another libseccomp orders them otherwise."""
    for kind, kept in zip(filters.KINDS, filters.load(machine), strict=True):
        fresh = built[machine, kind]
        for call in [*range(-1, 1100), 0x4000_0000, 0x4000_0027]:
            for architecture in (*ARCHITECTURES.values(), *FOREIGN.values()):
                same = decide(kept, call, architecture) == decide(fresh, call, architecture)
                assert same, (kind, call, hex(architecture))


@machines
@given(call=calls, arguments=st.tuples(words, words, words))
def test_and_whatever_the_arguments_are(
    machine: str,
    built: dict[tuple[str, str], bytes],
    call: int,
    arguments: tuple[int, ...],
) -> None:
    named = [number(name, machine) for name in ("clone", "unshare", "ioctl", "socket")]
    for kind, kept in zip(filters.KINDS, filters.load(machine), strict=True):
        for chosen in (call, *named):
            wanted = decide(built[machine, kind], chosen, ARCHITECTURES[machine], arguments)
            assert decide(kept, chosen, ARCHITECTURES[machine], arguments) == wanted


@machines
def test_each_call_that_libseccomp_knows_has_its_answer(machine: str) -> None:
    program, _ = filters.load(machine)
    answers: dict[int, set[str]] = {}
    for call in range(600):
        try:
            name = pyseccomp.resolve_syscall(
                getattr(pyseccomp.Arch, machine.upper()), call
            ).decode()
        except ValueError:
            assert decide(program, call, ARCHITECTURES[machine]) == MISSING
            continue
        answers.setdefault(decide(program, call, ARCHITECTURES[machine]), set()).add(name)
    assert set(answers) == {ALLOW, REFUSE, MISSING}
    assert answers[ALLOW] <= build.ALLOWED
    assert answers[REFUSE] <= build.REFUSED
    assert not answers[MISSING] & (build.ALLOWED | build.REFUSED)
    assert {"clone3", "io_uring_setup", "keyctl", "add_key", "request_key"} <= answers[MISSING]
    assert {"mount", "ptrace", "bpf", "setns", "userfaultfd"} <= answers[REFUSE]


def test_no_call_is_on_both_lists() -> None:
    assert not build.ALLOWED & build.REFUSED


@machines
@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_calls_of_another_kind_end_the_process(machine: str, foreign: int) -> None:
    for program in filters.load(machine):
        assert decide(program, 1, foreign) == KILL
    other = next(code for name, code in ARCHITECTURES.items() if name != machine)
    assert decide(filters.load(machine)[0], 1, other) == KILL


@given(number=st.integers(0, 600))
def test_x32_calls_end_the_process(number: int) -> None:
    for program in filters.load("x86_64"):
        assert decide(program, 0x4000_0000 | number, ARCHITECTURES["x86_64"]) == KILL


@machines
@given(upper=st.integers(0, 2**32 - 1), flags=st.integers(0, 2**32 - 1))
def test_new_namespaces_are_refused_whatever_else_is_set(
    machine: str, upper: int, flags: int
) -> None:
    _, program = filters.load(machine)
    new = sum(build._NEW_NAMESPACES.values())
    for name, mask in (("clone", new), ("unshare", new | build._NEW_TIME)):
        answer = decide(
            program, number(name, machine), ARCHITECTURES[machine], (upper << 32 | flags,)
        )
        assert (answer == ALLOW) == (not flags & mask)


@machines
@given(upper=st.integers(0, 2**32 - 1), request_code=words)
def test_terminal_requests_are_refused_whatever_the_upper_half_is(
    machine: str, upper: int, request_code: int
) -> None:
    _, program = filters.load(machine)
    lower = request_code & 0xFFFF_FFFF
    answer = decide(
        program, number("ioctl", machine), ARCHITECTURES[machine], (0, upper << 32 | lower)
    )
    assert (answer == ALLOW) == (lower not in build._TERMINAL_REQUESTS.values())


@machines
@given(family=words, protocol=words)
def test_only_four_families_of_sockets(machine: str, family: int, protocol: int) -> None:
    _, program = filters.load(machine)
    arguments = (family, 1, protocol)
    answer = decide(program, number("socket", machine), ARCHITECTURES[machine], arguments)
    netlink = family != build._AF_NETLINK or protocol == build._NETLINK_ROUTE
    assert (answer == ALLOW) == (family in build._FAMILIES and netlink)


def test_a_processor_without_filters_is_refused() -> None:
    with pytest.raises(SandboxUnavailableError, match="riscv64"):
        filters.load("riscv64")


def test_they_are_small_enough_for_the_kernel() -> None:
    for machine in build.MACHINES:
        for program in filters.load(machine):
            assert len(program) % 8 == 0
            assert len(program) // 8 < 4096  # BPF_MAXINSNS


def test_the_package_ships_them() -> None:
    folder = Path(filters.__file__).parent
    assert {path.name for path in folder.glob("*.bpf")} == {
        os.path.basename(filters.path(machine, kind))
        for machine in build.MACHINES
        for kind in filters.KINDS
    }


# The child's part, in a process without a sandbox.

SCRIPT = """
import json, os, sys, threading
from mxc_kernel.worker import hardening
orders = json.loads(sys.argv[1])
try:
    {before}
    print(sorted(hardening.harden(orders)))
except Exception as error:
    print(type(error).__name__)
{after}
"""


def harden(before: str = "pass", after: str = "", **orders: object) -> list[str]:
    programs = [b2a_base64(program).decode() for program in filters.load(os.uname().machine)]
    given = {"writable": [], "masked": [], "programs": programs} | orders
    script = SCRIPT.format(before=before, after=after)
    command = [sys.executable, "-P", "-c", script, json.dumps(given)]
    return subprocess.check_output(command, text=True, env={}).splitlines()


def test_it_says_what_the_host_cannot_see() -> None:
    assert harden() == ["['keyring', 'landlock']"]


def test_it_refuses_to_come_too_late() -> None:
    """Landlock holds for the thread that asks for it, and those that it starts."""
    assert harden("threading.Thread(target=threading.Event().wait, daemon=True).start()") == [
        "RuntimeError"
    ]


@pytest.mark.parametrize("program", ["", "AAAA", "AAAAAAAAAAA="])
def test_it_fails_where_a_filter_is_none(program: str) -> None:
    assert harden(programs=[program]) == ["OSError"]


def test_it_fails_where_a_grant_is_missing(tmp_path: Path) -> None:
    assert harden(writable=[str(tmp_path / "missing")]) == ["FileNotFoundError"]
    assert harden(writable=[str(tmp_path)]) == ["['keyring', 'landlock']"]


def test_it_lowers_resource_limits_and_raises_none() -> None:
    shown = "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    assert harden(after=shown, resources={"NOFILE": 50})[1] == "50 50"
    lower = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 45))"
    assert harden(lower, shown, resources={"NOFILE": 50})[1] == "40 45"


def test_a_folder_of_the_host_s_is_never_taken_for_a_mask(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o755)
    harden(masked=[str(tmp_path / "folder"), "/tmp", "/dev/shm"])
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


def test_a_grant_is_a_folder_or_a_file(open_place: Path) -> None:
    (open_place / "folder").mkdir()
    for name in ("file", "other"):
        (open_place / name).write_text("old")
    after = f"""
for name in ("folder/new", "file", "other", "new"):
    try:
        with open(os.path.join({str(open_place)!r}, name), "w") as file:
            file.write("new")
        print("written")
    except OSError as error:
        print(error.strerror)
"""
    grants = [str(open_place / "folder"), str(open_place / "file")]
    said = harden(after=after, writable=grants)
    assert said[1:] == ["written", "written", "Permission denied", "Permission denied"]
