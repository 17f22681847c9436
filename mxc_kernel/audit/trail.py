"""The trail of one session: its records, in one file or a few, and its place in the index."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Mapping
from typing import Any

from mxc_kernel.audit import locking
from mxc_kernel.audit.chain import Chain, Head
from mxc_kernel.audit.folder import refusal
from mxc_kernel.audit.index import Index, now, part
from mxc_kernel.audit.lines import Lines, create
from mxc_kernel.errors import AuditError

__all__ = ["Trail"]

log = logging.getLogger(__name__)


class Trail:
    """Writes the records of one session.

    Args:
        folder: the audit folder, which `folder.make` has made.
        chain: how its records are linked.
        first: the first record's fields.
        fsync: whether a record has to be on the disk itself before `append` returns.
        rotate: bytes after which another file is begun.

    Attributes:
        session: its name: when it began, and eight random digits.
        rotate: as above.
        index: the index's head as of its entry there, or of its end.

    Raises:
        AuditError: it cannot be written.
    """

    def __init__(
        self,
        folder: str,
        chain: Chain,
        first: Mapping[str, Any],
        *,
        fsync: bool = False,
        rotate: int = 16 << 20,
    ) -> None:
        seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
        self.session = f"{stamp}{milliseconds:03d}Z-{secrets.token_hex(4)}"
        self.rotate = rotate
        self._folder = folder
        self._part = 1
        self._index = Index(folder, chain, fsync=fsync)

        def begin(index: Head) -> Lines:
            lines = self._created(chain)
            lines.fsync = fsync
            fields = {"chain": chain.name, "key": chain.fingerprint, **first}
            lines.append(
                self._fields("session", fields)
                | {"index": {"entries": index.length, "head": index.digest}}
            )
            return lines

        try:
            self._lines, self.index = self._index.open_session(self.session, begin)
        except OSError as error:
            raise refusal(error, folder) from error

    @property
    def head(self) -> Head:
        """The last record that was written."""
        return self._lines.head

    @property
    def fsync(self) -> bool:
        """Whether a record has to be on the disk itself before `append` returns."""
        return self._lines.fsync

    @fsync.setter
    def fsync(self, wanted: bool) -> None:
        self._lines.fsync = wanted

    def append(self, kind: str, fields: Mapping[str, Any]) -> int:
        """Write a record, whole or not at all.

        Args:
            kind: what it records.
            fields: its fields, plain data.

        Returns:
            its number in the session.

        Raises:
            AuditError: it could not be written.
        """
        try:
            if self._lines.size >= self.rotate:
                self._begin_part()
            return self._lines.append(self._fields(kind, fields)).length - 1
        except OSError as error:
            raise refusal(error, self._folder) from error
        except TypeError as error:  # a bug of ours: no record, no cell
            raise AuditError(
                f"a record of the audit trail cannot be written as JSON: {error}",
                remedy="Report this; the cell was not run.",
            ) from error

    def remove_older(self, age: float) -> None:
        """Delete the trails of ended sessions that were last written so many seconds ago.

        Where that fails it is logged: it is no reason not to run a cell.
        """
        try:
            self.index = self._index.remove(age) or self.index
        except OSError as error:
            log.warning("old audit trails could not be deleted: %s", error)

    def close(self) -> None:
        """End it, and tell the index its head; where that fails, the next session does it."""
        try:
            self.index = self._index.close_session(self.session, self._lines.head)
        except OSError as error:
            log.warning("the end of the audit trail could not be written to its index: %s", error)
        finally:
            self._lines.close()

    def _fields(self, kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"time": now(), "session": self.session, "kind": kind, **fields}

    def _created(self, chain: Chain) -> Lines:
        fd = create(f"{self._folder}/sessions/{part(self.session)}")
        try:
            head_fd = create(f"{self._folder}/live/{self.session}")
        except OSError:
            os.close(fd)
            raise
        locking.take(head_fd, wait=True)  # says that this session lives; `verify` may look just now
        return Lines(fd, head_fd, chain)

    def _begin_part(self) -> None:
        path = f"{self._folder}/sessions/{part(self.session, self._part + 1)}"
        self._lines.go_on_in(create(path))
        self._part += 1
