"""Attacks through files: changing what is only to be read, and reaching what is not granted.

Where an attack plants something that the host would stumble over, the host is what is looked at.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .stage import PRELUDE, Stage, outside


def look(path: Path) -> dict[str, tuple[object, ...]]:
    """What stands below a folder: names, modes, times, extended attributes and contents."""
    found = {}
    for each in sorted([path, *path.rglob("*")]):
        status = each.lstat()
        content = each.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        extended = os.listxattr(each, follow_symlinks=False)
        found[str(each)] = (status.st_mode, status.st_mtime_ns, status.st_nlink, extended, content)
    return found


@pytest.fixture
def place(stage: Stage) -> Iterator[Path]:
    """A folder in Downloads and one of the same name in Documents, each with a file in it."""
    for above in (stage.downloads, stage.documents):
        folder = above / "place"
        folder.mkdir()
        (folder / "file").write_text("old")
        os.chmod(folder, 0o777)
        os.chmod(folder / "file", 0o666)
    yield stage.downloads / "place"
    for above in (stage.downloads, stage.documents):
        shutil.rmtree(above / "place")


# --- what is granted for reading only ------------------------------------------------------------

CHANGES = {
    "write": "open(file, 'r+').write('new')",
    "append": "open(file, 'a').write('new')",
    "truncate": "os.truncate(file, 0)",
    "remove": "os.unlink(file)",
    "rename": "os.rename(file, folder + '/other')",
    "replace": "open(folder + '/x', 'w').close(); os.replace(folder + '/x', file)",
    "create": "open(folder + '/new', 'x').close()",
    "make-a-folder": "os.mkdir(folder + '/new')",
    "make-a-link": "os.symlink('/etc/passwd', folder + '/new')",
    "make-a-hard-link": "os.link(file, folder + '/new')",
    "make-a-pipe": "os.mkfifo(folder + '/new')",
    "make-a-socket": "socket.socket(socket.AF_UNIX).bind(folder + '/new')",
    "write-through-a-descriptor-for-reading": (
        "fd = os.open(file, os.O_RDONLY); open(f'/proc/self/fd/{fd}', 'w').write('new')"
    ),
    "write-below-a-descriptor-of-the-folder": (
        "fd = os.open(folder, os.O_RDONLY); os.open('new', os.O_CREAT | os.O_WRONLY, dir_fd=fd)"
    ),
    "an-unnamed-file-given-a-name": (
        "fd = os.open(folder, os.O_TMPFILE | os.O_RDWR);"
        " os.link(f'/proc/self/fd/{fd}', 'new', dst_dir_fd=os.open(folder, os.O_RDONLY))"
    ),
    "shared-memory-map": (
        "import mmap; fd = os.open(file, os.O_RDWR); mmap.mmap(fd, 3)[:] = b'new'"
    ),
    "copy-inside-the-kernel": (
        "a = os.open('/etc/passwd', os.O_RDONLY); b = os.open(file, os.O_WRONLY);"
        " os.copy_file_range(a, b, 3)"
    ),
    "allocate": "fd = os.open(file, os.O_WRONLY); os.posix_fallocate(fd, 0, 100)",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_granted_for_reading_cannot_be_changed(
    stage: Stage, place: Path, change: str
) -> None:
    readonly = stage.documents / "place"
    attempt = """
def change():
    {change}
    return 'done'
folder = {folder!r}
file = folder + '/file'
answer = tried(change)
"""
    before = look(stage.documents)
    assert stage.value(attempt.format(change=change, folder=str(readonly))) in ("EROFS", "EACCES")
    assert look(stage.documents) == before
    before = look(place)
    assert stage.value(attempt.format(change=change, folder=str(place))) == "done"
    assert look(place) != before


OWNERS_CHANGES = {
    "mode": "os.chmod(file, 0o600)",
    "mode-through-a-descriptor": "os.fchmod(os.open(file, os.O_RDONLY), 0o600)",
    "times": "os.utime(file, (1, 1))",
    "an-extended-attribute": "os.setxattr(file, 'user.planted', b'x')",
}


@pytest.mark.parametrize("change", OWNERS_CHANGES.values(), ids=OWNERS_CHANGES)
def test_what_owners_may_change_of_their_files_is_read_only_too(
    stage: Stage, place: Path, change: str
) -> None:
    """The files belong to the very user that the sandbox runs as."""
    readonly = stage.documents / "place"
    uid = int(stage.value("answer = os.getuid()"))
    if os.geteuid() == 0:
        for folder in (readonly, place):
            os.chown(folder / "file", uid, uid)
    before = look(readonly)
    attempt = "file = {file!r}\nanswer = tried(lambda: [{change}, 'done'][1])"
    answer = stage.value(attempt.format(change=change, file=str(readonly / "file")))
    assert answer == "EROFS"
    assert look(readonly) == before
    before = look(place)
    assert stage.value(attempt.format(change=change, file=str(place / "file"))) == "done"
    assert look(place) != before


def test_a_grant_for_reading_is_not_moved_out_of_the_way(stage: Stage) -> None:
    answer = stage.value(
        f"""
answer = [tried(os.rename, {str(stage.documents)!r}, {str(stage.downloads / "moved")!r}),
          tried(os.rename, {str(stage.documents)!r}, {str(stage.home / "moved")!r}),
          tried(os.rmdir, {str(stage.documents)!r})]
"""
    )
    assert set(answer) <= {"EBUSY", "EXDEV", "EACCES", "EROFS"}
    assert (stage.documents / "report.txt").read_text() == "figures"
    assert not (stage.downloads / "moved").exists()


def test_a_reading_grant_inside_a_writing_one_stays_read_only(stage: Stage) -> None:
    """Neither directly, nor by moving it, or the folder above it, out of the way."""
    inner = stage.downloads / "project" / "inner"
    inner.mkdir(parents=True)
    for path in (inner.parent, inner):
        path.chmod(0o777)
    (inner / "file").write_text("old")
    (inner / "file").chmod(0o666)
    ceiling = stage.write_ceiling(
        f"""
[filesystem]
readonly = ["{inner}"]
readwrite = ["{stage.downloads}"]
[start]
readonly = ["{inner}"]
readwrite = ["{stage.downloads}"]
""",
        "inner.toml",
    )
    kernel = stage.start(ceiling)
    result = kernel.run(
        f"""
inner, above = {str(inner)!r}, {str(inner.parent)!r}
print(tried(open, inner + '/file', 'w'), tried(os.rename, inner, above + '/x'),
      tried(os.rename, above, above + '2'), tried(shutil.rmtree, inner),
      tried(open, above + '/beside', 'w') is not None)
"""
    )
    said = result.stream().split()
    assert set(said[:4]) <= {"EROFS", "EBUSY", "EACCES"}
    assert (inner / "file").read_text() == "old"
    assert (inner.parent / "beside").exists()
    stage.end(kernel)


# --- what is not granted -------------------------------------------------------------------------

WAYS = {
    "link": "os.symlink(target, way)",
    "relative-link": "os.symlink(os.path.relpath(target, os.path.dirname(way)), way)",
    "link-to-a-link": "os.symlink(target, way + '1'); os.symlink(way + '1', way)",
    "link-through-proc": "os.symlink('/proc/self/root' + target, way)",
    "link-through-the-working-folder": (
        "os.symlink('/proc/self/cwd/../../../../../../..' + target, way)"
    ),
    "hard-link": "os.link(target, way)",
    "copy": "shutil.copy(target, way)",
    "rename": "os.rename(target, way)",
    "send-file": (
        "out = os.open(way, os.O_CREAT | os.O_WRONLY);"
        " os.sendfile(out, os.open(target, os.O_RDONLY), 0, 99)"
    ),
}


@pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)
def test_no_way_to_a_file_that_is_not_granted(stage: Stage, make: str) -> None:
    attempt = """
target, way = {target!r}, {way!r}
def attack():
    {make}
    return open(way).read()
answer = tried(attack)
"""
    private, way = stage.outside / "private.txt", stage.downloads / "way"
    answer = stage.value(attempt.format(make=make, target=str(private), way=str(way)))
    for planted in (way, Path(f"{way}1")):
        planted.unlink(missing_ok=True)
    assert answer == "ENOENT"
    assert private.read_text() == "private"
    target, way = stage.downloads / "target", stage.downloads / "way"
    target.write_text("granted")
    target.chmod(0o666)
    answer = stage.value(attempt.format(make=make, target=str(target), way=str(way)))
    for planted in (way, Path(f"{way}1"), target):
        planted.unlink(missing_ok=True)
    assert answer == "granted"


@pytest.mark.parametrize("write", ["open(way + '/new', 'w')", "os.mkdir(way + '/new')"])
def test_no_writing_through_a_planted_link(stage: Stage, write: str) -> None:
    attempt = """
way = {way!r}
os.symlink({target!r}, way)
answer = tried(lambda: {write})
os.unlink(way)
"""
    way = str(stage.downloads / "way")
    answer = stage.value(attempt.format(way=way, target=str(stage.outside), write=write))
    assert answer == "ENOENT"
    assert sorted(os.listdir(stage.outside)) == ["private.txt"]
    code = attempt.format(way=way, target=str(stage.downloads), write=write)
    stage.run(code)
    new = stage.downloads / "new"
    assert new.exists()
    new.rmdir() if new.is_dir() else new.unlink()


def test_the_folders_above_a_grant_are_not_the_hosts(stage: Stage) -> None:
    """`..` of a granted folder leads to a folder of the sandbox's own, with the grants in it."""
    answer = stage.value(
        f"""
fd = os.open({str(stage.downloads)!r}, os.O_RDONLY)
up = os.open('..', os.O_RDONLY, dir_fd=fd)
further = os.open('..', os.O_RDONLY, dir_fd=up)
answer = [sorted(os.listdir(up)), os.listdir(further), tried(open, 'new', 'w', opener=
          lambda path, flags: os.open(path, flags, dir_fd=up))]
"""
    )
    assert answer == [["Documents", "Downloads"], ["home"], "EACCES"]
    assert {"Documents", "Downloads", "Extra"} <= set(os.listdir(stage.home))
    assert not (stage.home / "new").exists()


@pytest.mark.parametrize(
    "path", ["/root", "/home", "/sys", "/run", "/boot", "/srv", "/var/log", "/etc/shadow"]
)
def test_the_rest_of_the_machine_is_not_there(stage: Stage, path: str) -> None:
    if not os.path.exists(path):
        pytest.fail(f"{path} does not exist here: nothing to compare")
    look_inside = f"answer = tried(lambda: open({path!r}).read() if os.path.isfile({path!r}) "
    look_inside += f"else os.listdir({path!r}))"
    answer = stage.value(look_inside)
    assert answer in ("ENOENT", "EACCES", "EPERM") or answer == []


@pytest.mark.parametrize(
    "device", ["kmsg", "mem", "port", "kvm", "fuse", "net/tun", "loop0", "input", "snd", "vda"]
)
def test_no_device_of_the_host(stage: Stage, device: str) -> None:
    assert stage.value(f"answer = tried(os.stat, '/dev/{device}')") == "ENOENT"
    assert stage.value("answer = stat.S_ISCHR(os.stat('/dev/null').st_mode)") is True


def test_no_device_can_be_made(stage: Stage) -> None:
    """A node of the memory or a disk, in a grant that the host has mounted with devices."""
    node = stage.downloads / "node"
    make = "tried(os.mknod, {path!r}, {kind} | 0o666, os.makedev(1, 1))"
    attack = make.format(path=str(node), kind="stat.S_IFCHR")
    assert stage.value(f"answer = {attack}") in ("EPERM", "EACCES")
    assert not node.exists()
    allowed = make.format(path=str(node), kind="stat.S_IFIFO")
    assert stage.value(f"answer = {allowed}") is None
    node.unlink()


# --- denied inside of a grant --------------------------------------------------------------------


def test_no_way_to_what_is_denied_inside_a_grant(stage: Stage) -> None:
    folder = stage.downloads / "mixed"
    hidden = folder / "hidden"
    hidden.mkdir(parents=True)
    for path in (folder, hidden):
        path.chmod(0o777)
    (hidden / "key").write_text("private")
    ceiling = stage.write_ceiling(
        f"""
[filesystem]
readwrite = ["{folder}"]
denied = ["{hidden}"]
[start]
readwrite = ["{folder}"]
""",
        "denied.toml",
    )
    kernel = stage.start(ceiling)
    result = kernel.run(
        f"""
folder, hidden = {str(folder)!r}, {str(hidden)!r}
os.symlink('hidden', folder + '/link')
print(tried(lambda: open(hidden + '/key').read()),
      tried(lambda: open(folder + '/link/key').read()),
      tried(lambda: open(folder + '/./x/../hidden/key').read()),
      tried(lambda: open(f'/proc/self/fd/{{os.open(folder, os.O_RDONLY)}}/hidden/key').read()),
      tried(os.rename, hidden, folder + '/moved'),
      tried(os.rename, folder, folder + '2'),
      tried(open, hidden + '/planted', 'w'),
      tried(os.link, hidden + '/key', folder + '/way'),
      os.listdir(hidden))
"""
    )
    assert "private" not in result.stream()
    assert result.stream().split()[-1] == "[]"
    assert sorted(os.listdir(hidden)) == ["key"]
    assert not (folder / "moved").exists()
    (hidden / "key").rename(folder / "key")  # the control: what is not denied is seen
    assert kernel.run(f"open({str(folder / 'key')!r}).read()").value == "'private'"
    stage.end(kernel)


# --- races between the check and the mount -------------------------------------------------------

SWAP = """
folder, private = {folder!r}, {private!r}
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    try:
        os.rename(folder, folder + '-kept')
        os.symlink(private, folder)
        os.unlink(folder)
        os.rename(folder + '-kept', folder)
    except OSError:
        pass
"""


@pytest.fixture
def contested(stage: Stage) -> Iterator[Path]:
    """A folder to be granted to one kernel, which another one may rename."""
    folder = stage.extra / "contested"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "private.txt").write_text("granted")
    yield folder
    for path in (folder, stage.extra / "contested-kept"):
        if path.is_symlink():
            path.unlink()
        shutil.rmtree(path, ignore_errors=True)


def test_a_folder_that_becomes_a_link_after_the_check_is_not_mounted(
    stage: Stage, contested: Path
) -> None:
    """The race won for certain: the link is put there after the last look and before the launch.

    bubblewrap follows it. What it has mounted is seen before any code runs.
    """
    script = f"""
import asyncio, os, sys
from mxc_kernel import starter
from mxc_kernel.errors import MxcKernelError
from mxc_kernel.policy import Access, Filesystem
from mxc_kernel.session import Session
from dataclasses import replace
contested, outside, swap = {str(contested)!r}, {str(stage.outside)!r}, {{swap}}
launch = starter.launcher.launch
def swapping(*arguments):
    if swap:
        os.rename(contested, contested + '-kept')
        os.symlink(outside, contested)
    return launch(*arguments)
async def main():
    session = Session(notebook_dir={str(stage.documents)!r})
    session.attach(asyncio.get_running_loop())
    await session.prepare(session.request)
    starter.launcher.launch = swapping
    files = session.request.filesystem.allow(contested, Access.READONLY)
    try:
        await session.prepare(replace(session.request, filesystem=files))
        print('mounted')
    except MxcKernelError as error:
        print(type(error).__name__, error.message)
    finally:
        session.close()
asyncio.run(main())
"""
    environ = {**os.environ, "HOME": str(stage.home), "MXC_KERNEL_CEILING": str(stage.ceiling)}
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "PYTHONPATH"):
        environ.pop(name, None)
    assert outside(script.replace("{swap}", "False"), env=environ) == "mounted"
    said = outside(script.replace("{swap}", "True"), env=environ)
    assert said.startswith("SandboxAttestationError"), said
    assert "contested shows another place of the host" in said


def test_a_folder_that_another_sandbox_swaps_for_a_link_all_the_time(
    stage: Stage, contested: Path
) -> None:
    """One sandbox swaps, another is granted the folder: it gets the folder or a refusal."""
    attacker, victim = stage.start(), stage.kernel
    assert attacker.run(f"%allow_rw {stage.extra}").status == "ok"
    code = SWAP.format(folder=str(contested), private=str(stage.outside), seconds=600)
    swapping = attacker.send(code)
    seen = []
    for _ in range(12):
        result = victim.run(
            f"%%allow_ro {contested}\nopen({str(contested)!r} + '/private.txt').read()"
        )
        seen.append(result.value or result.error.partition(":")[0])
    attacker.interrupt()
    assert attacker.wait(swapping).error.startswith("KeyboardInterrupt")
    assert set(seen) <= {
        "'granted'",
        "SandboxPolicyError",
        "SandboxExecutionError",
        "SandboxAttestationError",
        "FileNotFoundError",
    }
    stage.end(attacker)
    kept = stage.extra / "contested-kept"
    if kept.exists():
        contested.unlink(missing_ok=True)
        kept.rename(contested)
    code = f"%%allow_ro {contested}\nopen({str(contested)!r} + '/private.txt').read()"
    assert victim.run(code).value == "'granted'"


def test_a_grant_does_not_follow_a_folder_that_is_put_in_its_place(
    stage: Stage, contested: Path
) -> None:
    """A mount is of the folder that was there; one renamed over it is not granted by it."""
    kernel = stage.start()
    assert kernel.run(f"%allow_ro {contested}\nname = {str(contested)!r}").status == "ok"
    contested.rename(stage.extra / "contested-kept")
    contested.symlink_to(stage.outside)
    read = "open(name + '/private.txt').read()"
    assert kernel.run(read).value == "'granted'"
    contested.unlink()
    stage.end(kernel)


# --- traps for the host --------------------------------------------------------------------------

TRAPS = {
    "a-pipe-as-project-ceiling": "os.mkfifo('.mxc-ceiling.toml')",
    "a-link-as-project-ceiling": "os.symlink('/etc/passwd', '.mxc-ceiling.toml')",
    "a-folder-as-project-ceiling": "os.mkdir('.mxc-ceiling.toml')",
    "a-huge-project-ceiling": (
        "fd = os.open('.mxc-ceiling.toml', os.O_CREAT | os.O_WRONLY); os.ftruncate(fd, 1 << 40)"
    ),
    "a-wide-project-ceiling": (
        "open('.mxc-ceiling.toml', 'w').write('[filesystem]\\nreadwrite = [\"/\"]\\n')"
    ),
    "a-deeply-nested-project-ceiling": (
        "open('.mxc-ceiling.toml', 'w').write('a = ' + '[' * 100_000)"
    ),
    "a-pipe-as-git": "os.mkfifo('.git')",
    "links-in-a-circle": "os.symlink('b', 'a'); os.symlink('a', 'b')",
    "pipes-among-protected-names": (
        "os.mkfifo('.envrc'); os.mkdir('.git'); os.mkfifo('.git/config')"
    ),
    "a-link-among-protected-names": "os.symlink('/etc', '.venv'); os.symlink('/root', '.vscode')",
    "ten-thousand-names": "[open(f'n{i}', 'w').close() for i in range(10_000)]",
    "odd-names": (
        "[os.mkdir(n) for n in ('a\\nb', 'a\"b', '\\x1b]0;x\\x07', '-rf', '$(touch x)', b'\\xff')]"
    ),
    "a-deep-folder": (
        "[(os.mkdir('d' * 200), os.chdir('d' * 200)) for _ in range(40)]; os.chdir(here)"
    ),
}


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)
def test_the_host_does_not_stumble_over_what_is_planted(stage: Stage, trap: str) -> None:
    """It looks into the notebook's folder before each cell and at each launch."""
    notebook = stage.downloads / "notebook"
    notebook.mkdir()
    notebook.chmod(0o777)
    trapped = stage.start(cwd=notebook)
    result = trapped.run(
        f"here = {str(notebook)!r}\nos.chdir(here)\n{trap}\nprint('planted')", timeout=100
    )
    assert "planted" in result.stream(), result.error
    attempt = f"open({str(stage.outside / 'private.txt')!r}).read()"
    result = trapped.run(attempt)
    assert result.status == "error"
    # Where a ceiling cannot be read no cell runs, and that is said; else a relaunch goes well.
    again = trapped.run("%sandbox restart\n'alive'")
    if result.error.startswith("SandboxPolicyError"):
        assert ".mxc-ceiling.toml" in result.error
        planted = notebook / ".mxc-ceiling.toml"
        planted.rmdir() if planted.is_dir() else planted.unlink()
        again = trapped.run("%sandbox restart\n'alive'")
    assert again.value == "'alive'", again.error
    stage.end(trapped)
    subprocess.run(["rm", "-rf", str(notebook)], check=True)


# --- code of the host's own ----------------------------------------------------------------------

# What an interpreter, a library or Jupyter has imported or read from the folder it was started in:
# sys.path's first entry, CVE-2022-21699 (IPython's profile), CVE-2022-39286 (jupyter_core's
# configuration), the files of `site`.
SHADOWS = """
    asyncio.py json.py os.py zmq.py zmq/__init__.py orjson.py pydantic.py regex.py site.py
    sitecustomize.py usercustomize.py mxc_kernel.py mxc_kernel/__init__.py mxc_kernel_start.py
    encodings/__init__.py jupyter_client.py ipykernel.py IPython.py traitlets.py logging.py
    jupyter_config.py jupyter_server_config.py ipython_config.py
    profile_default/startup/00-first.py profile_default/ipython_config.py
""".split()  # noqa: SIM905 - easier to read


@pytest.fixture
def hostile_folder(stage: Stage) -> Iterator[tuple[Path, Path]]:
    """A notebook's folder where every module is a trap, and the file that a sprung one leaves."""
    folder, marker = stage.root / "hostile", stage.outside / "sprung"
    trap = f"open({str(marker)!r}, 'a').write(__file__ + '\\n')\n"
    for name in SHADOWS:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(trap)
    (folder / "mxc.pth").write_text(f"import sys; {trap}")
    (folder / "pyvenv.cfg").write_text(f"home = {folder}\n")
    yield folder, marker
    shutil.rmtree(folder)
    marker.unlink(missing_ok=True)


def test_the_host_imports_nothing_from_the_notebooks_folder(
    stage: Stage, hostile_folder: tuple[Path, Path]
) -> None:
    folder, marker = hostile_folder
    kernel = stage.start(cwd=folder, env={"PYTHONPATH": ".", "PYTHONSTARTUP": "site.py"})
    assert kernel.run("%allow_rw ~/Downloads\n1 + 1").value == "2"
    assert kernel.run("%ceiling").status == "ok"
    kernel.client.complete("%allow_rw ", 10)
    stage.end(kernel)
    assert not marker.exists()
    subprocess.run([sys.executable, "-c", "import zmq"], cwd=folder, check=False)
    assert marker.read_text()  # the control: a Python that is not told otherwise springs the trap


@pytest.mark.parametrize("command", ["doctor", "ceiling check {ceiling}"])
def test_the_command_line_imports_nothing_from_the_folder_it_is_called_in(
    stage: Stage, hostile_folder: tuple[Path, Path], command: str
) -> None:
    folder, marker = hostile_folder
    words = command.format(ceiling=stage.ceiling).split()
    program = Path(sys.executable).with_name("mxc-kernel")
    environ = {**os.environ, "HOME": str(stage.home), "MXC_KERNEL_CEILING": str(stage.ceiling)}
    said = subprocess.run(
        [program, *words], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert said.stdout
    assert not marker.exists()


# --- programs left behind ------------------------------------------------------------------------


def test_no_program_is_left_that_runs_as_its_owner(stage: Stage) -> None:
    """A setuid program in a grant would give its user's rights to any other account."""
    program = stage.downloads / "program"
    attempt = """
path = {path!r}
shutil.copyfile('/usr/bin/id', path)
answer = [tried(os.chmod, path, 0o4755), tried(os.chmod, path, 0o755),
          tried(os.fchmod, os.open(path, os.O_RDONLY), 0o6755),
          tried(os.open, path + '2', os.O_CREAT | os.O_WRONLY, 0o4755) != 'EPERM',
          tried(os.mknod, path + '3', stat.S_IFREG | 0o4755),
          subprocess.run(['chmod', 'u+s', path], stderr=subprocess.DEVNULL).returncode,
          bool(os.stat(path).st_mode & 0o111)]
"""
    answer = stage.value(attempt.format(path=str(program)))
    left = [p for p in stage.downloads.glob("program*") if p.stat().st_mode & stat.S_ISUID]
    assert left == [], answer
    assert program.stat().st_mode & 0o111 == 0o111  # an ordinary program can be made
    for path in stage.downloads.glob("program*"):
        path.unlink()
    control = stage.scratch / "program"
    outside(PRELUDE + attempt.format(path=str(control)))
    assert control.stat().st_mode & stat.S_ISUID
