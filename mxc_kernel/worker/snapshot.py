"""Carries a session into another process: its names, its private files, its process's state.

The stream is a sequence of blocks, each eight bytes of length and the bytes::

    manifest (JSON) | settings (pickle of {carrier: pickle}) | private files | records...

and a record is one block of block lengths and the blocks themselves: the pickle, then each large
buffer, which goes from its own memory into the stream and from the stream into the memory it stays
in. Both ends run inside a sandbox; the host passes the bytes on and never looks at them.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from mxc_kernel.worker import private_files
from mxc_kernel.worker.pickling import Record, Restorer, pickle_values
from mxc_kernel.worker.process_state import CARRIERS
from mxc_kernel.worker.reasons import reason_for
from mxc_kernel.worker.sharing import shared_memory
from mxc_kernel.worker.trial import try_restore

if TYPE_CHECKING:
    from mxc_kernel.wire import Buffer

__all__ = [
    "Report",
    "Sink",
    "Source",
    "dump",
    "load",
    "read_block",
    "read_record",
    "write_block",
    "write_record",
]

FORMAT = 1
_TRIAL_SECONDS = 30.0
_TRIALS = 3
_STEP = 16 << 20  # bytes of memory taken at a time for what a stream says it has
_HIDDEN = re.compile(r"_{1,3}|_i{1,3}|_i?\d+|_(dh|ih|oh|exit_code)|In|Out|exit|quit|get_ipython")
_LAST_RESULTS = ("_", "__", "___")


class Sink(Protocol):
    """Takes the stream."""

    def write(self, data: Buffer) -> object:
        """Take all of ``data``; it is not kept."""


class Source(Protocol):
    """Gives the stream."""

    def readinto(self, target: memoryview) -> None:
        """Fill ``target``; raises EOFError when the stream ends before."""


@dataclass
class Report:
    """What came of a dump or a load.

    Attributes:
        names: how many of the user's names were carried.
        lost: what was not, by name, and why.
        notes: what was carried but is not quite the same, by name, and how.
    """

    names: int = 0
    lost: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def content(self, **more: object) -> dict[str, object]:
        """Return the report as the host reads it."""
        content: dict[str, object] = {
            "names": self.names,
            "lost": [{"name": name, "reason": why} for name, why in self.lost.items()],
            **more,
        }
        if self.notes:
            content["notes"] = [{"name": name, "note": text} for name, text in self.notes.items()]
        return content


def dump(shell: Any, sink: Sink, *, scratch: str = "") -> Report:
    """Write the session to ``sink``.

    Args:
        shell: IPython's shell.
        sink: where to.
        scratch: the private folder whose files go along, if any.
    """
    values = _values(shell)
    records, lost = _checked_records(values, shell.user_ns)
    report = Report(lost={_shown(label): reason for label, reason in lost.items()})
    report.names = sum(record.label.startswith("name:") for record in records)
    report.notes = shared_memory({_shown(record.label): values[record.label] for record in records})
    order = [name for name in _user_names(shell) if f"name:{name}" not in lost]
    write_block(
        sink, json.dumps({"format": FORMAT, "records": len(records), "order": order}).encode()
    )
    write_block(sink, pickle.dumps(_captured(shell, report)))
    report.lost |= private_files.dump(sink, scratch)
    for record in records:
        write_record(sink, record)
    return report


def load(shell: Any, source: Source, *, scratch: str = "") -> Report:
    """Restore what :func:`dump` wrote.

    Everything is read before anything of the user's runs, so that a slow restore does not hold up
    the pipe.

    Args:
        shell: IPython's shell.
        source: where from.
        scratch: the private folder that the files go to, if any.

    Raises:
        EOFError: the stream is not whole. Nothing was restored.
        ValueError: it is of another format.
    """
    manifest = json.loads(bytes(read_block(source)))
    if manifest.get("format") != FORMAT:
        raise ValueError("the state was written by another version of mxc-kernel")
    settings: dict[str, bytes] = pickle.loads(bytes(read_block(source)))  # noqa: S301 - our own, in a sandbox
    report = Report()
    report.lost |= private_files.load(source, scratch)
    records = [read_record(source) for _ in range(manifest["records"])]
    _apply(shell, settings, report, early=True)
    restored = _restore(records, shell, report)
    for name in manifest["order"]:
        if name in restored:
            shell.user_ns[name] = restored[name]
    report.names = len(restored)
    _apply(shell, settings, report, early=False)
    return report


# The labels: "name:x" for the user's x, "out:3" for Out[3], "last:_" for what _ shows.


def _shown(label: str) -> str:
    kind, _, key = label.partition(":")
    return f"Out[{key}]" if kind == "out" else key


def _user_names(shell: Any) -> list[str]:
    """Return the names that the user made, as ``%who`` tells them from IPython's own."""
    hidden, missing = shell.user_ns_hidden, object()
    return [
        name
        for name, value in shell.user_ns.items()
        if isinstance(name, str)
        and not _HIDDEN.fullmatch(name)
        and not (name.startswith("__") and name.endswith("__"))
        and hidden.get(name, missing) is not value
    ]


def _values(shell: Any) -> dict[str, Any]:
    """Return everything to pickle, by label.

    Definitions come first: a value that fails to restore then takes no class or function with it
    that other values need.
    """
    names = {f"name:{name}": shell.user_ns[name] for name in _user_names(shell)}
    values = dict(sorted(names.items(), key=lambda item: _rank(item[1])))
    outputs = shell.history_manager.output_hist
    values.update({f"out:{number}": value for number, value in outputs.items()})
    for name in _LAST_RESULTS:
        if (value := shell.user_ns.get(name, "")) is not None and not isinstance(value, str):
            values[f"last:{name}"] = value
    return values


def _rank(value: object) -> int:
    kinds = (ModuleType, type, FunctionType)
    return next((rank for rank, kind in enumerate(kinds) if isinstance(value, kind)), len(kinds))


def _checked_records(
    values: dict[str, Any], namespace: dict[str, Any]
) -> tuple[list[Record], dict[str, str]]:
    """Pickle the values and leave out what a trial could not restore."""
    records, lost = pickle_values(values, namespace)
    for _ in range(_TRIALS):
        failed = try_restore(records, timeout=_TRIAL_SECONDS)
        if not failed:
            break
        lost |= failed
        kept = {label: value for label, value in values.items() if label not in lost}
        records, more = pickle_values(kept, namespace)
        lost |= more
    return records, lost


def _captured(shell: Any, report: Report) -> dict[str, bytes]:
    captured = {}
    for carrier in CARRIERS:
        try:
            value = carrier.capture(shell)
            if value is not None:
                captured[carrier.name] = pickle.dumps(value)
        except Exception as error:  # noqa: BLE001 - one odd setting must not stop the rest
            report.lost[carrier.name] = reason_for(error)
    return captured


def _apply(shell: Any, settings: dict[str, bytes], report: Report, *, early: bool) -> None:
    for carrier in CARRIERS:
        if carrier.early is early and carrier.name in settings:
            try:
                carrier.restore(shell, pickle.loads(settings[carrier.name]))  # noqa: S301
            except Exception as error:  # noqa: BLE001
                report.lost[carrier.name] = reason_for(error)


def _restore(records: list[Record], shell: Any, report: Report) -> dict[str, Any]:
    """Restore the records, outputs into the history; return the names' values."""
    restorer = Restorer(shell.user_ns)
    restored: dict[str, Any] = {}
    while records:
        record = records.pop(0)
        kind, _, key = record.label.partition(":")
        try:
            value = restorer.restore(record.data, list(record.buffers))
        except Exception as error:  # noqa: BLE001 - the user's own code; the others go on
            report.lost[_shown(record.label)] = reason_for(error)
            continue
        if kind == "name":
            restored[key] = value
        elif kind == "out":
            shell.history_manager.output_hist[int(key)] = value
            shell.user_ns[f"_{key}"] = value
        else:
            shell.user_ns[key] = value
            setattr(shell.displayhook, key, value)
    return restored


def write_block(sink: Sink, data: Buffer) -> None:
    """Write a block: its length and its bytes."""
    sink.write(struct.pack(">Q", memoryview(data).nbytes))
    sink.write(data)


def write_record(sink: Sink, record: Record) -> None:
    """Write a record; its buffers go from where they lie."""
    sizes = [buffer.nbytes for buffer in record.buffers]
    size = sum(piece.nbytes for piece in record.data)
    write_block(sink, json.dumps([record.label, size, sizes]).encode())
    for piece in (*record.data, *record.buffers):
        sink.write(piece)


def _read_exactly(source: Source, size: int) -> memoryview:
    """Read into memory that grows as the bytes arrive: a forged size costs nobody anything."""
    target = bytearray()
    while len(target) < size:
        start = len(target)
        target.extend(bytes(min(_STEP, size - start)))
        with memoryview(target) as view:
            source.readinto(view[start:])
    return memoryview(target)


def read_block(source: Source) -> memoryview:
    """Read a block; raises EOFError if it is not whole."""
    (size,) = struct.unpack(">Q", _read_exactly(source, 8))
    return _read_exactly(source, size)


def read_record(source: Source) -> Record:
    """Read a record, each buffer into memory of its own."""
    label, size, sizes = json.loads(bytes(read_block(source)))
    data = [_read_exactly(source, size)]
    return Record(label, data, [_read_exactly(source, length) for length in sizes])
