"""Hands the head of a trail to where its owner cannot reach it, as the operator says."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time

from mxc_kernel.policy import Audit

__all__ = ["Anchoring", "Failure"]

_PATIENCE = 10.0  # seconds that a command may take
_AT_THE_END = 2.0  # seconds that the end of a session waits for it

Failure = tuple[str, str]
"""Where an anchor could not be put, ``file`` or ``command``, and why."""


class Anchoring:
    """Writes anchors, and never waits for whoever takes them.

    Args:
        settings: where they go.
    """

    def __init__(self, settings: Audit) -> None:
        self._file = settings.anchor_file
        self._command = settings.anchor_command
        self._running: list[tuple[subprocess.Popen[bytes], float]] = []

    @property
    def wanted(self) -> bool:
        """Whether there is anywhere to put them."""
        return bool(self._file or self._command)

    def put(self, line: bytes) -> list[Failure]:
        """Put an anchor where it is to go; also say which command before it has failed."""
        failures = self.failures()
        if self._file:
            try:
                _append(self._file, line)
            except OSError as error:
                failures.append(("file", error.strerror or str(error)))
        if self._command:
            try:
                self._start(line)
            except OSError as error:
                failures.append(("command", error.strerror or str(error)))
        return failures

    def failures(self) -> list[Failure]:
        """Return how commands have failed since this was last asked."""
        failed, still = [], []
        for process, started in self._running:
            status = process.poll()
            if status is None and time.monotonic() - started < _PATIENCE:
                still.append((process, started))
            elif status is None:
                process.kill()
                process.wait()
                failed.append(("command", f"it took more than {_PATIENCE:g} s"))
            elif status:
                failed.append(("command", f"exit status {status}"))
        self._running = still
        return failed

    def close(self) -> list[Failure]:
        """Give commands a little time to end, and return how they failed."""
        until = time.monotonic() + _AT_THE_END
        for process, _ in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        return self.failures()

    def _start(self, line: bytes) -> None:
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Not the kernel's: its secrets are none of the command's business, and its PATH could
            # lead to another command.
            env={"PATH": os.defpath},
            cwd=os.sep,
            start_new_session=True,
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(line)  # a line fits into any pipe: this never waits
        self._running.append((process, time.monotonic()))


def _append(path: str, line: bytes) -> None:
    # Not blocking: a pipe that nobody reads is an error, not a wait.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    fd = os.open(path, flags, 0o600)
    try:
        if os.write(fd, line) != len(line):
            raise OSError(0, "it was written in part")
    finally:
        os.close(fd)
