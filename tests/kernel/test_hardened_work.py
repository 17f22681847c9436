"""What people do in cells goes on working under the hardening, in the real kernel."""

from __future__ import annotations

import zipfile

import pytest

from .conftest import Folders, Kernel


def test_sandbox_shows_what_was_attested_and_by_whom(kernel: Kernel) -> None:
    shown = kernel.run("%sandbox").shown
    for line in ("no capabilities", "system calls filtered", "seen by the host", "self-reported"):
        assert line in shown


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(kernel: Kernel, method: str) -> None:
    code = f"""
import multiprocessing, operator
from concurrent.futures import ProcessPoolExecutor
context = multiprocessing.get_context({method!r})
with context.Pool(2) as pool:
    squares = pool.starmap(operator.mul, [(n, n) for n in range(5)])
with ProcessPoolExecutor(2, mp_context=context) as pool:
    lengths = list(pool.map(len, ['a', 'bb']))
queue, lock, shared = context.Queue(), context.Lock(), context.Value('i', 7)
queue.put(1)
with lock, context.Manager() as manager:
    print(squares, lengths, queue.get(), shared.value, list(manager.list([3])))
"""
    result = kernel.run(code)
    assert result.stream().strip() == "[0, 1, 4, 9, 16] [1, 2] 1 7 [3]", result.error


def test_shared_memory_threads_and_event_loops(kernel: Kernel) -> None:
    code = """
import asyncio, mmap, tempfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.shared_memory import SharedMemory
block = SharedMemory(create=True, size=64); block.buf[0] = 5
same = SharedMemory(name=block.name)
print(same.buf[0])
same.close(); block.close(); block.unlink()
with ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(abs, range(-3, 0))))
with tempfile.TemporaryFile() as file:
    file.write(b'abc'); file.flush()
    print(mmap.mmap(file.fileno(), 3).read(3))
process = await asyncio.create_subprocess_exec('cat', stdin=-1, stdout=-1)
print((await process.communicate(b'through'))[0])
"""
    result = kernel.run(code)
    assert result.stream().split("\n")[:4] == ["5", "6", "b'abc'", "b'through'"], result.error


def test_programs_and_shells(kernel: Kernel) -> None:
    result = kernel.run(
        "import subprocess\n"
        "print(subprocess.check_output(['sh', '-c', 'echo a | tr a b; uname -s'], text=True))\n"
        "!echo from a shell; ls -d /proc/self"
    )
    text = result.stream()
    assert "b\nLinux" in text, result.error
    assert "from a shell" in text


def test_numpy_with_its_threads(kernel: Kernel) -> None:
    code = """
import numpy as np
ones = np.ones((400, 400))
print((ones @ ones)[0, 0], np.linalg.inv(np.eye(3)).sum())
"""
    result = kernel.run(code)
    assert result.stream().split() == ["400.0", "3.0"], result.error


def test_a_terminal_of_its_own(kernel: Kernel) -> None:
    code = """
import os, pty
pid, fd = pty.fork()
if not pid:
    os.execvp('tty', ['tty'])
print(os.read(fd, 99))
"""
    result = kernel.run(code)
    assert "/dev/pts/" in result.stream(), result.error


def test_a_write_outside_of_the_grants_is_an_error_and_not_lost(kernel: Kernel) -> None:
    assert kernel.run("open('/lost', 'w')").error.startswith("PermissionError")
    assert kernel.run("open('/tmp/kept', 'w').write('kept')").value == "4"
    assert kernel.run("open('/tmp/kept').read()").value == "'kept'"


def test_pip(kernel: Kernel, folders: Folders) -> None:
    """From a granted folder of wheels, into the session: programs, locks, renames, links."""
    info = "mxc_sample-1.0.dist-info"
    with zipfile.ZipFile(folders.documents / "mxc_sample-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("mxc_sample.py", "answer = 42\n")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: mxc-sample\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    code = f"%pip install --no-index --find-links {folders.documents} mxc-sample"
    assert "Successfully installed mxc-sample-1.0" in kernel.run(code).stream()
    assert kernel.run("import mxc_sample; mxc_sample.answer").value == "42"
