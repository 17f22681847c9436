"""Single names on their way between a session and a throwaway sandbox.

The one that receives is told by the host whether it may unpickle; what the stream says of itself
does not count.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mxc_kernel.worker import plain
from mxc_kernel.worker.pickling import Record, Restorer, pickle_values
from mxc_kernel.worker.reasons import reason_for
from mxc_kernel.worker.snapshot import (
    Report,
    Sink,
    Source,
    read_block,
    read_record,
    write_block,
    write_record,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["export", "merge"]


def export(shell: Any, sink: Sink, names: Sequence[str], *, objects: bool) -> Report:
    """Write some of the user's names.

    Args:
        shell: IPython's shell.
        sink: where to.
        names: which.
        objects: pickle them; plain data only otherwise.
    """
    report = Report()
    values = {}
    for name in names:
        if name in shell.user_ns:
            values[name] = shell.user_ns[name]
        else:
            report.lost[name] = "not defined"
    if objects:
        records, lost = pickle_values(values, shell.user_ns)
        report.lost |= lost
    else:
        records = []
        for name, value in values.items():
            try:
                data, buffers = plain.pack(value)
            except Exception as error:  # noqa: BLE001 - a table's own code may fail in any way
                report.lost[name] = _why_not_plain(error)
            else:
                views = [memoryview(buffer).cast("B") for buffer in buffers]
                records.append(Record(name, [memoryview(data)], views))
    write_block(sink, json.dumps(len(records)).encode())
    for record in records:
        write_record(sink, record)
    report.names = len(records)
    return report


def merge(shell: Any, source: Source, names: Sequence[str], *, objects: bool) -> Report:
    """Define the names that :func:`export` wrote; all of them or, where one is missing, none.

    Args:
        shell: IPython's shell.
        source: where from.
        names: which are wanted. A stream may hold others, which nobody asked for.
        objects: whether what comes may be unpickled.

    Raises:
        EOFError: the stream is not whole.
        ValueError: it is not of this form.
    """
    records = _records(source)
    report = Report()
    restorer = Restorer(shell.user_ns)
    values = {}
    for record in records:
        if record.label not in names:
            continue
        try:
            if objects:
                value = restorer.restore(record.data, list(record.buffers))
            else:
                buffers = [bytearray(buffer) for buffer in record.buffers]
                value = plain.unpack(b"".join(record.data), buffers)
        except Exception as error:  # noqa: BLE001 - the bytes, or the user's own code, may do anything
            report.lost[record.label] = reason_for(error)
        else:
            values[record.label] = value
    for name in names:
        if name not in values:
            report.lost.setdefault(name, "did not arrive")
    if not report.lost:
        shell.user_ns.update(values)
        report.names = len(values)
    return report


def _records(source: Source) -> list[Record]:
    try:
        return [read_record(source) for _ in range(json.loads(bytes(read_block(source))))]
    except (TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"not what a sandbox exports: {error!r}") from None


def _why_not_plain(error: Exception) -> str:
    return (
        f"not plain data: {error}" if isinstance(error, plain.NotPlainError) else reason_for(error)
    )
