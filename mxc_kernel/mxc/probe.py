"""Is the policy in force? Asked of the sandbox itself, where the host cannot look into it.

Before any code of the user's, the worker tries three things that no policy allows: to read a file
of the host's, to write beside it, and to connect to a port of the host's. What became of the write
and of the connection the host sees for itself; that the file could not be read only the worker can
tell, so it says what it read: the words in the file, which cannot be guessed, would give it away.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mxc_kernel.errors import SandboxAttestationError

if TYPE_CHECKING:
    from mxc_kernel.mxc.attestation import Fact
    from mxc_kernel.mxc.portable import RunFolder

__all__ = ["TOLD", "TRIED", "Probe"]

TRIED = "tried by the sandbox, and looked at by the host from outside"
TOLD = "self-reported by the sandbox"


class Probe:
    """What one sandbox is asked to try.

    Args:
        folder: the sandbox's own; the file to read lies in it, beside what it may see.

    Attributes:
        orders: what the worker is told to try.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._secret = secrets.token_hex(16)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4)
        self._listener.setblocking(False)
        self._written = os.path.join(folder.path, "written")
        self.orders: dict[str, object] = {
            "read": folder.keep("unreadable", self._secret.encode()),
            "write": self._written,
            "connect": ["127.0.0.1", self._listener.getsockname()[1]],
        }

    def judge(self, said: Mapping[str, object]) -> tuple[Fact, ...]:
        """Judge what came of it; once.

        Args:
            said: what the worker says of itself. Its word counts only against it.

        Returns:
            What holds, for people.

        Raises:
            SandboxAttestationError: the sandbox is open, or the worker did not try.
        """
        try:
            connected = self._was_connected()
        finally:
            self._listener.close()
        tried = said.get("forbidden")
        if not isinstance(tried, Mapping) or set(tried) != set(self.orders):
            raise _open("it did not try what it was told to")
        if os.path.lexists(self._written) or tried["write"] is not None:
            raise _open("a file was written in a folder that it was not granted")
        if tried["read"] is not None:
            raise _open("a file was read that it was not granted")
        if connected or tried["connect"] is not None:
            raise _open("a port of this machine could be reached, and the network is closed")
        return (
            ("a write beside its folder was blocked", TRIED),
            ("a connection to this machine was blocked", TRIED),
            ("a file beside its folder could not be read", TOLD),
        )

    def _was_connected(self) -> bool:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return False
        connection.close()
        return True


def _open(line: str) -> SandboxAttestationError:
    return SandboxAttestationError(
        f"the sandbox is not what the policy says, so it was ended: {line}",
        remedy="Do not run untrusted code here. Run `mxc-kernel doctor`, and report this.",
    )
