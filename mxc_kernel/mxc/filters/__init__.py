"""The seccomp filters that a sandbox installs: ready-made programs, one pair for each processor.

They are built by libseccomp (:mod:`mxc_kernel.mxc.filters.build`) when the rules change, not at
each start: importing its binding and building take 60 ms, reading the result 0.1 ms, and a user's
machine needs no libseccomp. A test builds them anew and compares what they decide.
"""

from __future__ import annotations

import os

from mxc_kernel.errors import SandboxUnavailableError

__all__ = ["KINDS", "load", "path"]

KINDS = ("calls", "arguments")
"""Which calls there are, and what may be said in those. The stricter answer of the two counts."""


def path(machine: str, kind: str) -> str:
    """Return where a program is kept.

    Args:
        machine: the processor as ``uname -m`` calls it.
        kind: one of `KINDS`.
    """
    return os.path.join(os.path.dirname(os.path.realpath(__file__)), f"{machine}-{kind}.bpf")


def load(machine: str) -> tuple[bytes, ...]:
    """Return the programs for a processor, in the kernel's own format (``struct sock_filter``).

    Args:
        machine: the processor as ``uname -m`` calls it.

    Raises:
        SandboxUnavailableError: there are none for it.
    """
    programs = []
    for kind in KINDS:
        try:
            with open(path(machine, kind), "rb") as file:
                programs.append(file.read())
        except FileNotFoundError:
            raise SandboxUnavailableError(
                f"there is no system call filter for {machine} processors",
                remedy="Install mxc-kernel again; it supports x86_64 and aarch64.",
            ) from None
    return tuple(programs)
