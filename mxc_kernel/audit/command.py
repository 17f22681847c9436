"""``mxc-kernel audit``: shows trails, checks them, and says what their records mean."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from mxc_kernel.errors import MxcKernelError

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["add"]

Add = Callable[..., argparse.ArgumentParser]


def add(commands: Add) -> None:
    """Add the subcommands.

    Args:
        commands: adds one: given its name, what runs it and its help.
    """
    show = commands("show", _show, "show what ran, under which policy, and what came of it")
    show.add_argument("--session", default="", metavar="NAME", help="beginning or end of its name")
    show.add_argument("--notebook", metavar="PATH", help="only cells of this notebook")
    show.add_argument("--denials", action="store_true", help="only where something was blocked")
    show.add_argument("--since", metavar="WHEN", help='such as "2h", "7d" or 2026-11-28')
    show.add_argument("--json", action="store_true", help="one JSON object per line")
    check = commands("verify", _verify, "check that nothing was changed, removed or cut off")
    check.add_argument("--key", metavar="FILE", help="the key, if the trail was chained with one")
    check.add_argument("--anchors", metavar="FILE", help="anchors that were kept outside")
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    label = commands("label", _label, "print what the label of a path ends with in the trail")
    label.add_argument("path")
    for parser in (show, check, label):
        parser.add_argument("--folder", metavar="DIR", help="another audit folder than yours")
    commands("schema", _schema, "print the JSON Schema of the records")


def _folder(options: argparse.Namespace) -> str:
    from mxc_kernel.audit.folder import audit_folder

    folder: str = os.path.abspath(options.folder) if options.folder else audit_folder()
    if not os.path.isdir(f"{folder}/sessions"):
        raise MxcKernelError(
            f"There is no audit trail in {folder}.",
            remedy="Run a cell first, or name another folder with --folder.",
        )
    return folder


def _show(options: argparse.Namespace) -> int:
    from mxc_kernel.audit.reading import Wanted, cells
    from mxc_kernel.audit.view import table

    folder = _folder(options)
    notebook = None
    if options.notebook:
        path = _absolute(options.notebook)
        notebook = (path, _mark(folder, path))
    since = _since(options.since) if options.since else None
    wanted = Wanted(options.session, notebook, options.denials, since)
    try:
        found = cells(folder, wanted)
        if options.json:
            for cell in found:
                _say(json.dumps(cell.plain()))
        else:
            _print(table(found))
    except OSError as error:
        raise _unreadable(folder, error) from error
    return 0


def _since(text: str) -> float:
    """Return the time that "2h" (ago) or "2026-11-28" means, in seconds since the epoch.

    Raises:
        MxcKernelError: it is neither.
    """
    from mxc_kernel.policy import parse_duration

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        return time.time() - (parse_duration(text) or 0.0)
    except MxcKernelError:
        raise MxcKernelError(
            f"{text!r} is neither a time nor a duration.",
            remedy='Write "2h" or "7d" for that long ago, or a date such as 2026-11-28T16:00.',
        ) from None


def _verify(options: argparse.Namespace) -> int:
    from mxc_kernel.audit.chain import read_key
    from mxc_kernel.audit.verify import verify

    folder = _folder(options)
    key = read_key(os.path.abspath(options.key)) if options.key else None
    try:
        anchors: list[bytes] = []
        if options.anchors:
            with open(options.anchors, "rb") as file:
                anchors = file.read().splitlines()
        report = verify(folder, key, anchors)
    except OSError as error:
        raise _unreadable(folder, error) from error
    if options.json:
        _say(json.dumps(report.plain(), indent=2))
        return 0 if report.ok else 1
    for finding in report.findings:
        _say(f"{finding.level}: {finding.where}: {finding.what}")
    how = f"{report.keyed} of them with the key" if key else "without a key"
    if options.anchors:
        how += f", against {len(anchors)} lines of anchors"
    verdict = "nothing is missing or changed" if report.ok else "THE TRAIL IS BROKEN"
    _say(f"{report.sessions} sessions, {report.records} records, checked {how}: {verdict}.")
    return 0 if report.ok else 1


def _label(options: argparse.Namespace) -> int:
    folder = _folder(options)
    _say(_mark(folder, _absolute(options.path)))
    return 0


def _mark(folder: str, path: str) -> str:
    from mxc_kernel.audit.labels import mark

    try:
        found = mark(folder, path)
    except OSError as error:
        raise _unreadable(folder, error) from error
    if found is None:
        raise MxcKernelError(
            f"No label was made in {folder} yet.", remedy="Run a cell first, or name another."
        )
    return found


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _schema(_options: argparse.Namespace) -> int:
    from mxc_kernel.audit.schema import audit_schema

    _say(json.dumps(audit_schema(), indent=2))
    return 0


def _unreadable(folder: str, error: OSError) -> MxcKernelError:
    return MxcKernelError(
        f"{error.filename or folder} cannot be read: {error.strerror}",
        remedy="Run it as the trail's owner or as root.",
    )


def _print(made: Table) -> None:
    from rich.console import Console

    # A pipe gets whole lines, whatever width rich would guess for it.
    wide = None if sys.stdout.isatty() else 1000
    Console(width=wide, highlight=False, markup=False).print(made)


def _say(line: str) -> None:
    print(line, flush=True)
