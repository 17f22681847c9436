"""Heads of a trail that were kept outside of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import orjson

from mxc_kernel.audit.chain import Head

__all__ = ["INDEX", "anchor", "read"]

INDEX = "index"


def anchor(time: str, session: str, records: Head, index: Head) -> bytes:
    """Return an anchor as a line.

    Args:
        time: when it was made.
        session: the trail that is written.
        records: its end.
        index: the index's end.
    """
    return orjson.dumps(
        {
            "v": 1,
            "time": time,
            "session": session,
            "records": records.length,
            "head": records.digest,
            "index": {"entries": index.length, "head": index.digest},
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def read(lines: Iterable[bytes]) -> dict[str, dict[int, str]]:
    """Return what anchors say: for each chain, digests by the number of lines.

    Text around an anchor, such as a time stamp of syslog, is passed over.

    Args:
        lines: what was kept.
    """
    found: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for line in lines:
        start = line.find(b'{"v":1,"time":')
        if start < 0:
            continue
        try:
            said = orjson.loads(line[start:].strip())
            found[str(said["session"])][int(said["records"])] = str(said["head"])
            found[INDEX][int(said["index"]["entries"])] = str(said["index"]["head"])
        except (ValueError, TypeError, KeyError):
            continue
    return dict(found)
