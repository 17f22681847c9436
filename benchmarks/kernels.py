"""The kernels that are compared, and how one is started, watched and ended."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from benchmarks.client import CHANNELS, BenchmarkError, Client

if TYPE_CHECKING:
    from benchmarks.work import Work

__all__ = ["Contender", "Kernel", "ipykernel", "ours"]

# Said to the kernel or its interpreter for other purposes; neither should start differently here.
_NOT_PASSED_ON = ("PYTHON", "JPY_", "JUPYTER_", "IPYTHON", "MXC_KERNEL_")


@dataclass(frozen=True)
class Contender:
    """One of the kernels compared.

    Args:
        name: as the tables call it.
        command: its command line, up to the connection file.
        environment: variables of its own.
        sandboxed: whether it knows the policy magics.
        only_starts: whether it takes part in the measurement of starts alone.
        spare: whether it keeps a second sandbox ready, and does only the work that takes one.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    sandboxed: bool = False
    only_starts: bool = False
    spare: bool = False

    def does(self, work: Work) -> bool:
        """Whether a piece of work is for this kernel."""
        return work.spare == self.spare and (self.sandboxed or not work.sandboxed)


def ours(host: str, child: str, ceiling: str, *, spare: bool = False) -> Contender:
    """Return this kernel.

    Args:
        host: interpreter of the trusted side.
        child: interpreter inside the sandbox.
        ceiling: path of the ceiling file.
        spare: whether that ceiling asks for a second sandbox.
    """
    from mxc_kernel import kernelspec

    with open(os.path.join(kernelspec.shipped(), "kernel.json"), encoding="utf-8") as file:
        arguments = json.load(file)["argv"][1:]
    command = [argument for argument in arguments if argument not in ("-f", "{connection_file}")]
    return Contender(
        "mxc-kernel with a spare" if spare else "mxc-kernel",
        (host, *command, "--python", child, "-f"),
        # The trail beside the ceiling: not in that of whoever measures.
        {"MXC_KERNEL_CEILING": ceiling, "XDG_STATE_HOME": os.path.dirname(ceiling)},
        sandboxed=True,
        spare=spare,
    )


def ipykernel(child: str, private: str, *, unfrozen: bool = False) -> Contender:
    """Return plain ipykernel, started as the kernelspec inside its wheel says.

    Args:
        child: the interpreter.
        private: folder for IPython's profile and history.
        unfrozen: with the option that `python -m ipykernel install` writes into a kernelspec; it
            lets debuggers into the standard library's frozen modules, and start-up takes longer.
    """
    option = ("-Xfrozen_modules=off",) if unfrozen else ()
    return Contender(
        " ".join(("ipykernel", *option)),
        (child, *option, "-m", "ipykernel_launcher", "-f"),
        {"IPYTHONDIR": private},
        only_starts=unfrozen,
    )


class Kernel:
    """A running kernel and the client that drives it; a context that ends both.

    Args:
        contender: which kernel.
        folder: a private folder for its connection file, its sockets and its log.

    Attributes:
        client: its client.
        started: seconds from the start of the process to the first kernel_info_reply, the first
            idle status and the end of the first cell.
    """

    def __init__(self, contender: Contender, folder: str) -> None:
        self.contender = contender
        self._base = os.path.join(folder, secrets.token_hex(4))
        self._cwd = folder
        connection = {
            "transport": "ipc",
            "ip": self._base,
            "key": secrets.token_hex(16),
            "signature_scheme": "hmac-sha256",
            **{f"{channel}_port": number for number, channel in enumerate(CHANNELS, 1)},
        }
        with open(f"{self._base}.json", "x", encoding="utf-8") as file:
            json.dump(connection, file)
        self.client = Client(connection, self._check)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.started = self._start()
        except BenchmarkError as error:
            self.close()
            raise BenchmarkError(f"start, {contender.name}: {error}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def restart(self) -> float:
        """Restart as a frontend does; return the seconds to the first idle status."""
        begin = time.perf_counter()
        self._end(restart=True)
        ended = time.perf_counter() - begin
        return ended + self._start().idle

    def close(self) -> None:
        """End the kernel, by force if it does not listen."""
        try:
            self._end(restart=False)
        finally:
            self.client.close()

    def processes(self) -> list[psutil.Process]:
        """Return the kernel's process, first, and all that it has started."""
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    def _start(self) -> Started:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)
        }
        environment |= {"JPY_PARENT_PID": str(os.getpid()), **self.contender.environment}
        with open(f"{self._base}.log", "ab") as log:
            begin = time.perf_counter()
            self._process = subprocess.Popen(
                [*self.contender.command, f"{self._base}.json"],
                cwd=self._cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            info, idle = self.client.wait_until_ready(begin)
        self.client.execute("pass")
        return Started(info, idle, time.perf_counter() - begin)

    def _end(self, *, restart: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.poll() is None:
                self.client.shut_down(restart=restart)
                process.wait(10)
        finally:
            process.kill()  # no harm in it where the process has ended: it is not reaped twice
            process.wait()

    def _check(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            with open(f"{self._base}.log", encoding="utf-8", errors="replace") as log:
                said = log.read()[-2000:].strip()
            raise BenchmarkError(
                f"{self.contender.name} ended with status {self._process.returncode}: {said}"
            )


@dataclass(frozen=True)
class Started:
    """Seconds from the start of a kernel's process.

    Attributes:
        info: to the first kernel_info_reply.
        idle: to the first idle status.
        cell: to the end of the first cell, sent after both.
    """

    info: float
    idle: float
    cell: float
