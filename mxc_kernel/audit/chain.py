"""The links of a chain: each line holds the digest of the line before it."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from typing import NamedTuple

from mxc_kernel.errors import AuditError

__all__ = ["HEAD_BYTES", "START", "Chain", "Head", "read_key"]

START = "0" * 64
"""What the first line of a chain holds in place of a digest."""

_HEAD = re.compile(rb"([0-9]{12}) ([0-9a-f]{64})\n")
HEAD_BYTES = 12 + 1 + 64 + 1
_KEY_BYTES = (16, 4096)


class Head(NamedTuple):
    """The end of a chain.

    Attributes:
        length: how many lines it has.
        digest: the digest of the last one; `START` where there is none.
    """

    length: int = 0
    digest: str = START

    def encode(self) -> bytes:
        """Return it in a form that always has the same length, so that it is written in place."""
        return b"%012d %s\n" % (self.length, self.digest.encode())

    @classmethod
    def decode(cls, raw: bytes) -> Head | None:
        """Read what `encode` wrote; None for anything else."""
        match = _HEAD.fullmatch(raw)
        return cls(int(match[1]), match[2].decode()) if match else None


class Chain:
    """How lines are linked.

    Args:
        key: with it nobody who does not have it can make a chain that holds.

    Attributes:
        name: ``sha256`` or ``hmac-sha256``.
        fingerprint: tells keys apart and gives nothing away; None without one.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._mac = hmac.new(key, digestmod="sha256") if key is not None else None
        self.name = "sha256" if key is None else "hmac-sha256"
        self.fingerprint = None if key is None else self.digest(b"mxc-kernel audit key")[:16]

    def digest(self, line: bytes) -> str:
        """Return the digest of a line without its newline, as 64 hexadecimal digits."""
        if self._mac is None:
            return hashlib.sha256(line).hexdigest()
        mac = self._mac.copy()
        mac.update(line)
        return mac.hexdigest()


def read_key(path: str) -> bytes:
    """Read the key of a chain.

    A key that the trail's owner can read proves nothing against them, so only one of root's counts.

    Raises:
        AuditError: it cannot be read, others than root could have read or written it, or it is too
            short to be a key.
    """
    from mxc_kernel.errors import SandboxPolicyError
    from mxc_kernel.policy.trust import read_trusted

    wanted = "Write it as root: `head -c 32 /dev/urandom | base64 > FILE; chmod 600 FILE`."
    try:
        found = read_trusted(path)
        if found is None:
            raise AuditError(f"the audit key {path} does not exist", remedy=wanted)
        content, place = found
        status = os.stat(place)
    except SandboxPolicyError as error:
        raise AuditError(f"the audit key cannot be used: {error.message}", remedy=wanted) from None
    if status.st_uid != 0 or status.st_mode & 0o077:
        raise AuditError(f"others than root may read the audit key {path}", remedy=wanted)
    key = content.strip()
    if not _KEY_BYTES[0] <= len(key) <= _KEY_BYTES[1]:
        low, high = _KEY_BYTES
        raise AuditError(f"the audit key {path} has not {low} to {high} bytes", remedy=wanted)
    return key
