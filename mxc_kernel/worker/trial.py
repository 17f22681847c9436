"""Tries a restore in a forked process before anything is given up.

Some values pickle but do not unpickle, or only while the original is still there. A fork with an
empty ``__main__`` finds them while the names are still at hand and can be left out by name.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import sys
import time
import types
from typing import TYPE_CHECKING

from mxc_kernel.worker.pickling import Record, Restorer
from mxc_kernel.worker.reasons import reason_for

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["try_restore"]


def try_restore(records: Sequence[Record], *, timeout: float) -> dict[str, str]:
    """Return the labels that do not restore, and why.

    The trial sees a copy of this process, threads not included: a lock that one of them held stays
    held there, so a trial may hang. Then the record it hung at is named and the trial is over.
    Where there may be no further process there is no trial: a restore names what it cannot do, too.

    Args:
        records: what would be sent.
        timeout: seconds for the whole trial.
    """
    if not hasattr(os, "fork"):
        return {}
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        child = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        return {}
    if child == 0:
        os.close(reading)
        _run(records, writing)
    os.close(writing)
    try:
        report, finished = _collect(reading, time.monotonic() + timeout)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return _judge(records, report, finished=finished, timeout=timeout)


def _run(records: Sequence[Record], writing: int) -> None:
    """Restore everything, telling the parent of each record; never returns."""
    status = 1
    try:
        gc.disable()  # finalizers of copies could delete what the originals still use
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        null = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
        sys.stdout = sys.stderr = null
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        _forget_classes()
        restorer = Restorer(main.__dict__)
        kept = []
        for index, record in enumerate(records):
            os.write(writing, json.dumps([index, None]).encode() + b"\n")
            try:
                kept.append(restorer.restore(record.data, list(record.buffers)))
            except Exception as error:  # noqa: BLE001
                os.write(writing, json.dumps([index, reason_for(error)]).encode() + b"\n")
        os.write(writing, json.dumps([len(records), None]).encode() + b"\n")
        status = 0
    finally:
        os._exit(status)


def _forget_classes() -> None:
    """Make cloudpickle build classes anew, as it must in a fresh process."""
    from cloudpickle import cloudpickle  # type: ignore[import-untyped]

    for name in ("_DYNAMIC_CLASS_TRACKER_BY_CLASS", "_DYNAMIC_CLASS_TRACKER_BY_ID"):
        tracker = getattr(cloudpickle, name, None)
        if tracker is not None:
            tracker.clear()


def _collect(reading: int, deadline: float) -> tuple[bytes, bool]:
    report = bytearray()
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([reading], [], [], left)
        if not ready:
            break
        data = os.read(reading, 1 << 16)
        if not data:
            return bytes(report), True
        report += data
    return bytes(report), False


def _judge(
    records: Sequence[Record], report: bytes, *, finished: bool, timeout: float
) -> dict[str, str]:
    lost: dict[str, str] = {}
    last = -1
    for line in report.splitlines():
        last, reason = json.loads(line)
        if reason is not None:
            lost[records[last].label] = reason
    if 0 <= last < len(records):
        hung = f"did not restore within {timeout:g} s"
        ended = "ended the process that tried to restore it"
        lost.setdefault(records[last].label, ended if finished else hung)
    return lost
