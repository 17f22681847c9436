"""Verifies the executable in a thread, while the rest of the host is still being imported."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from mxc_kernel.errors import MxcKernelError
from mxc_kernel.mxc import binary

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VerifiedAhead"]


class VerifiedAhead:
    """The executable of one kernel, verified once for all of its sandboxes.

    Hashing takes about 30 ms and needs no interpreter lock, so it costs nothing at a start if it
    begins before the imports. Only hashing: after each system call a thread would wait for that
    lock, up to 5 ms, while the imports hold it (measured: 70 ms for finding and copying).

    Whether the operator names another executable is known only after
    them; then that one is verified too, and the first is dropped.

    Args:
        environ: where an executable is looked for before the operator's settings are known.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._binary: binary.VerifiedBinary | None = None
        self._thread: threading.Thread | None = None
        # What goes wrong here is met again, and then told, when a sandbox is started.
        with contextlib.suppress(MxcKernelError):
            sealed = binary.open_sealed(None, environ)
            self._thread = threading.Thread(target=self._verify, args=(sealed,))
            self._thread.start()

    def get(self, configured: str | None) -> binary.VerifiedBinary:
        """Return the verified executable: the one that the operator names, if any is named.

        Args:
            configured: the path that the operator names.

        Raises:
            SandboxUnavailableError: no executable was found.
            SandboxUntrustedBinaryError: one was found that is not the pinned one.
        """
        self._join()
        if self._binary is not None and configured not in (None, self._binary.source):
            self._binary.close()
            self._binary = None
        if self._binary is None:
            self._binary = binary.open_verified(configured, self._environ)
        return self._binary

    def close(self) -> None:
        """Let go of the executable."""
        self._join()
        if self._binary is not None:
            self._binary.close()
            self._binary = None

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _verify(self, sealed: binary.SealedBinary) -> None:
        with contextlib.suppress(MxcKernelError):
            self._binary = sealed.verified()
