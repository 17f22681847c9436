"""What the audit costs a trivial cell: ``python -P -m benchmarks.audit [--cells N]``.

Both records of a cell are written as the kernel writes them, beside a real sandbox whose figures
are read from /proc; the cell itself is left out. The rest of a cell takes several milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from mxc_kernel.audit.facts import Outcome, Source
from mxc_kernel.jupyter.account import RequestOutput
from mxc_kernel.output.operators import operators_rules
from mxc_kernel.output.redaction import redact
from mxc_kernel.policy import Redaction
from mxc_kernel.session import Session

_CODE = "total = sum(row.value for row in rows if row.key != 'api_key')\n"
_SETTINGS = {
    "as it is": "",
    "code = true": "code = true",
    'paths = "raw"': 'paths = "raw"',
    "fsync = true": "fsync = true",
}


def measure(cells: int) -> Iterator[Sequence[object]]:
    """Yield the rows of a table."""
    yield "[audit]", "median", "99 of 100", "bytes"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.environ["XDG_STATE_HOME"] = f"{folder}/state"
        ceiling = f"{folder}/ceiling.toml"
        os.environ["MXC_KERNEL_CEILING"] = ceiling
        for name, line in _SETTINGS.items():
            with open(ceiling, "w", encoding="utf-8") as file:
                file.write(f"[audit]\n{line}\n")
            os.chmod(ceiling, 0o600)
            taken, size = asyncio.run(
                _session(folder, min(cells, 200) if "fsync" in line else cells)
            )
            taken.sort()
            yield name, _ms(statistics.median(taken)), _ms(taken[len(taken) * 99 // 100]), size


async def _session(folder: str, cells: int) -> tuple[list[float], int]:
    session = Session(notebook_dir=folder)
    rules = operators_rules(os.environ, Redaction())
    session.journal.redact_with(lambda text: redact(text, rules)[0])
    session.start()
    session.attach(asyncio.get_running_loop())
    try:
        await session.prepare(session.request)
        taken = [_cell(session) for _ in range(cells)]
        trail = session.journal.open()
        size = os.stat(f"{folder}/state/mxc-kernel/audit/sessions/{trail.session}.jsonl").st_size
        return taken[10:], size // cells
    finally:
        session.close()


def _cell(session: Session) -> float:
    output = RequestOutput(session.limits)
    began = time.perf_counter()
    begun = session.journal.begin(Source(_CODE, "cell-1", "request-1"), session.under())
    half = time.perf_counter() - began
    began = time.perf_counter()
    usage = begun.usage()
    figures = output.figures()
    session.journal.finish(
        begun, Outcome("ok", None, "code", usage, figures, {}, Counter(), None, 0)
    )
    return half + time.perf_counter() - began


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=2000, help="how many for each row")
    options = parser.parse_args(arguments)
    for number, row in enumerate(measure(options.cells)):
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
        if number == 0:
            print("|" + "--:|" * len(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
