"""The errors the kernel raises on purpose; each says what to do about it."""

from __future__ import annotations

__all__ = [
    "AuditError",
    "MxcKernelError",
    "SandboxAttestationError",
    "SandboxBackendUnsupportedError",
    "SandboxExecutionError",
    "SandboxLimitError",
    "SandboxOutputError",
    "SandboxPolicyError",
    "SandboxTimeoutError",
    "SandboxUnavailableError",
    "SandboxUntrustedBinaryError",
]


class MxcKernelError(Exception):
    """Base of every deliberate error.

    Args:
        message: what went wrong, in words for the person at the notebook.
        remedy: one line that says what to do about it.
    """

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class SandboxUnavailableError(MxcKernelError):
    """The executable or one of its prerequisites is missing. No cell runs."""


class SandboxUntrustedBinaryError(MxcKernelError):
    """An executable was found but its hash, owner or mode is wrong. It is never executed."""


class SandboxBackendUnsupportedError(MxcKernelError):
    """The policy needs something that this backend cannot enforce. It is never weakened instead."""


class SandboxPolicyError(MxcKernelError):
    """A request beyond the ceiling, a bad ceiling file or a bad magic. The session goes on."""


class SandboxExecutionError(MxcKernelError):
    """The child died, did not start or broke the protocol. Not an error of the user's own code."""


class SandboxAttestationError(SandboxExecutionError):
    """The sandbox that was started is not what the policy says. It has been killed; no cell ran."""


class SandboxTimeoutError(MxcKernelError):
    """A cell or a start-up passed its time limit."""


class SandboxLimitError(MxcKernelError):
    """A cell or its sandbox passed a limit on memory, processor time, processes or files."""


class SandboxOutputError(MxcKernelError):
    """A cell passed a limit of output under a ceiling that has it stopped for that."""


class AuditError(MxcKernelError):
    """The audit record could not be written. The cell does not run."""
