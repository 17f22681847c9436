"""The doctor's last check: a kernel is started as Jupyter starts it, and tries to get out."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING

from mxc_kernel.doctor.check import Check, Status, failed
from mxc_kernel.errors import MxcKernelError, SandboxExecutionError

if TYPE_CHECKING:
    from jupyter_client.blocking.client import BlockingKernelClient

__all__ = ["check_launch"]

_NAME = "a real launch"
_START_TIMEOUT = 90.0  # seconds until the kernel answers; the kernel gives up on its own before
_CELL_TIMEOUT = 30.0  # seconds for one trivial cell
_WORDS = 2000  # characters of the kernel's own stderr that are shown

# The same write twice: where it must work, so that the second one's failure means something.
_PROBE = """\
def tried(path):
    try:
        with open(path, 'w') as file:
            file.write('x')
    except OSError as error:
        return type(error).__name__
    return 'written'
print(1 + 1, tried('probe'), tried({outside!r}))
"""


def check_launch(broken: Sequence[str] = (), spec: Mapping[str, object] | None = None) -> Check:
    """Start a kernel, run a cell in its sandbox, and see that a write outside is blocked.

    Args:
        broken: the names of checks that failed; then nothing is started.
        spec: the kernel.json to start; None for the shipped one.
    """
    if broken:
        return Check(
            _NAME, Status.FAIL, f"not tried: {', '.join(broken)} failed", "Mend that first."
        )
    try:
        with tempfile.TemporaryDirectory(prefix="mxc-kernel-doctor-") as folder:
            return _try(folder, spec or _shipped_spec())
    except MxcKernelError as error:
        return failed(_NAME, error)
    except OSError as error:
        return Check(
            _NAME,
            Status.FAIL,
            f"not tried: the folder for temporary files cannot be used: {error}",
            "Make room there, or set TMPDIR to a folder that you can write.",
        )


def _try(folder: str, spec: Mapping[str, object]) -> Check:
    # Open to everybody for the moment of the test: the sandbox has to block the write, not the
    # file mode. The name is random, and the parent cannot be listed.
    os.chmod(folder, 0o711)  # noqa: S103
    target = os.path.join(folder, "outside")
    os.mkdir(target)
    os.chmod(target, 0o777)  # noqa: S103
    escaped = os.path.join(target, "probe")
    answer = _run(folder, _PROBE.format(outside=escaped), spec)
    return _judge(answer, escaped=os.path.lexists(escaped))


def _judge(answer: str, *, escaped: bool) -> Check:
    words = answer.split()
    if escaped or words[2:] == ["written"]:
        return Check(
            _NAME,
            Status.FAIL,
            "a cell wrote to a folder that was not granted: the sandbox does not hold",
            "Do not run untrusted code here, and report this.",
        )
    if words[:2] != ["2", "written"] or len(words) != 3:
        return Check(
            _NAME,
            Status.FAIL,
            f"the test cell answered {answer!r}",
            "Look at the kernel's log, and report this.",
        )
    return Check(
        _NAME, Status.OK, "1+1 is 2, the scratch can be written, a write outside was blocked"
    )


def _shipped_spec() -> dict[str, object]:
    from mxc_kernel.kernelspec import Variant, build, shipped

    with open(os.path.join(shipped(), "kernel.json"), encoding="utf-8") as file:
        return build(Variant(), json.load(file))


def _run(folder: str, source: str, spec: Mapping[str, object]) -> str:
    """Run one cell in a new kernel and return what it printed.

    Raises:
        SandboxExecutionError: the kernel did not start, or the cell failed.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    private = os.path.join(folder, "private")
    os.makedirs(os.path.join(private, "kernels", "doctor"), 0o700)
    with open(os.path.join(private, "kernels", "doctor", "kernel.json"), "w") as file:
        json.dump(spec, file)
    manager = KernelManager(
        kernel_name="doctor",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[os.path.join(private, "kernels")]),
        transport="ipc",
        connection_file=os.path.join(private, "kernel.json"),
    )
    with open(os.path.join(private, "log"), "w+b") as log:
        try:
            manager.start_kernel(cwd=private, stdin=None, stdout=log, stderr=log)
            client = manager.blocking_client()
            client.start_channels()
            try:
                client.wait_for_ready(timeout=_START_TIMEOUT)
                return _execute(client, source)
            finally:
                client.stop_channels()
        except (OSError, RuntimeError, TimeoutError) as error:
            raise SandboxExecutionError(
                f"the kernel did not answer: {error}{_last_words(log)}",
                remedy="Follow the message above; MXC_KERNEL_CEILING may name a broken file.",
            ) from error
        finally:
            if manager.has_kernel:
                manager.shutdown_kernel()
            manager.cleanup_resources()


def _execute(client: BlockingKernelClient, source: str) -> str:
    printed: list[str] = []
    problems: list[str] = []

    def collect(message: dict[str, dict[str, str]]) -> None:
        content = message["content"]
        if "text" in content:
            printed.append(content["text"])
        if "evalue" in content:
            problems.append(content["evalue"])

    reply = client.execute_interactive(
        source, store_history=False, allow_stdin=False, output_hook=collect, timeout=_CELL_TIMEOUT
    )
    if reply["content"]["status"] != "ok":
        raise SandboxExecutionError(
            "the test cell failed: " + (" ".join(problems) or str(reply["content"])),
            remedy="Follow the message above.",
        )
    return "".join(printed).strip()


def _last_words(log: IO[bytes]) -> str:
    log.seek(0)
    text = re.sub(r"[^\n\x20-\x7e]", "", log.read().decode("utf-8", "replace")).strip()
    return f"; it said:\n{text[-_WORDS:]}" if text else ""
