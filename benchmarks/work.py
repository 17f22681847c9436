"""The pieces of work that are measured, each checked for having been done in full."""

from __future__ import annotations

import base64
import hashlib
import re
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice

import psutil

from benchmarks.client import BenchmarkError, Exchange
from benchmarks.kernels import Kernel

__all__ = ["WORKS", "Values", "Work", "start"]

_CELLS = 100  # trivial cells, and half as many completions and inspections, per sample
_LINES = 100_000
_STDOUT = 100_000_000  # bytes
_PICTURE = 5_000_000  # bytes
_COMPLETIONS = {"os.path.is": "isdir", "json.du": "dumps", "str.ca": "casefold", "kep": "kept"}
_INSPECTIONS = ("os.path.join", "json.dumps", "str.casefold", "kept")

Values = Mapping[str, float]


@dataclass(frozen=True)
class Work:
    """One piece of work.

    Args:
        name: what selects it on the command line.
        measure: does it once, given a folder that may be granted, and returns what it measured:
            seconds or bytes by name.
        sandboxed: whether only a sandboxed kernel can do it.
        spare: whether it takes a kernel that keeps a second sandbox ready; no other work does.
    """

    name: str
    measure: Callable[[Kernel, str], Values]
    sandboxed: bool = False
    spare: bool = False


def start(kernel: Kernel) -> Values:
    """Return how long it took the kernel to start."""
    started = kernel.started
    return {"start-info": started.info, "start-idle": started.idle, "start-cell": started.cell}


def _memory(kernel: Kernel, _: str) -> Values:
    """Add up the memory that would be free without the kernel: pages of no other process."""
    sizes = []
    for process in kernel.processes():
        with suppress(psutil.NoSuchProcess):  # one that was just ending
            sizes.append(process.memory_full_info().uss)
    return {"memory": sum(sizes), "memory-host": sizes[0]}


def _trivial(kernel: Kernel, _: str) -> Values:
    return {"trivial": statistics.median(kernel.client.execute("pass").done for _ in range(_CELLS))}


def _completion(kernel: Kernel, _: str) -> Values:
    kernel.client.execute("import json, os\nkept = 1")
    times = []
    for code, wanted in islice(cycle(_COMPLETIONS.items()), _CELLS // 2 + len(_COMPLETIONS)):
        exchange = kernel.client.request(
            "complete_request", {"code": code, "cursor_pos": len(code)}
        )
        if not any(match.endswith(wanted) for match in exchange.reply["matches"]):
            raise BenchmarkError(f"{code!r} was not completed: {exchange.reply}")
        times.append(exchange.replied)
    # The first of each kind makes jedi read another part of what it knows, from its cache or anew.
    cold = len(_COMPLETIONS)
    return {"completion-first": sum(times[:cold]), "completion": statistics.median(times[cold:])}


def _inspection(kernel: Kernel, _: str) -> Values:
    kernel.client.execute("import json, os\nkept = 1")
    times = []
    for code in islice(cycle(_INSPECTIONS), _CELLS // 2):
        exchange = kernel.client.request(
            "inspect_request", {"code": code, "cursor_pos": len(code), "detail_level": 0}
        )
        if not exchange.reply["found"]:
            raise BenchmarkError(f"{code!r} was not found: {exchange.reply}")
        times.append(exchange.replied)
    return {"inspection": statistics.median(times)}


def _lines(kernel: Kernel, _: str) -> Values:
    exchange = kernel.client.execute(f"for number in range({_LINES}): print('line', number)")
    _same("lines", exchange.text, "".join(f"line {number}\n" for number in range(_LINES)))
    return {"lines": exchange.done}


def _stdout(kernel: Kernel, _: str) -> Values:
    # Lines as a log has them; redaction must look at each, and no two neighbours are the same.
    kernel.client.execute(_LOG)
    exchange = kernel.client.execute("import sys\nsys.stdout.write(text)\nsys.stdout.flush()")
    kernel.client.execute("del text")
    _same("stdout", exchange.text, _log())
    return {"stdout": exchange.done}


# A cell's source, run on both sides: the text itself never travels before the clock runs.
_LOG = f"""
line = (
    "2024-05-01 12:00:{{:02d}},{{:03d}} INFO worker-{{:02d}} "
    "request {{:06d}} was answered after {{:7.2f}} ms"
).format
block = "".join(
    line(n % 60, n * 7 % 1000, n % 16, n * 7919 % 1000000, n * 31 % 99999 / 100).ljust(99) + "\\n"
    for n in range(10_000)
)
text = block * ({_STDOUT} // len(block))
del line, block
"""


@cache
def _log() -> str:
    names: dict[str, str] = {}
    exec(_LOG, names)
    return names["text"]


def _picture(kernel: Kernel, _: str) -> Values:
    kernel.client.execute(
        "import os\nfrom IPython.display import Image, display\n"
        f"data = b'\\x89PNG\\r\\n\\x1a\\n' + os.urandom({_PICTURE})\n"
        "picture = Image(data=data, format='png')"
    )
    exchange = kernel.client.execute("display(picture)")
    digest = kernel.client.execute("import hashlib\nprint(hashlib.sha256(data).hexdigest())").text
    data = base64.b64decode(exchange.shown("image/png"))
    _same("picture", hashlib.sha256(data).hexdigest(), digest.strip())
    return {"picture": exchange.done}


def _relaunch(kernel: Kernel, folder: str) -> Values:
    kernel.client.execute("kept = list(range(1000))")
    before = _children(kernel)
    exchange = kernel.client.execute(f"%allow_ro {folder}\nprint(sum(kept))")
    _same("relaunch", _printed_last(exchange), "499500\n")
    if before & _children(kernel):
        raise BenchmarkError("the grant did not lead to a new sandbox")
    return {"relaunch": exchange.done}


def _restart(kernel: Kernel, _: str) -> Values:
    return {"restart": kernel.restart()}


def _spare(kernel: Kernel, _: str) -> Values:
    spare = _wait_for_spare(kernel)
    restart = kernel.client.execute("%sandbox restart\nprint('done')")
    _same("restart", _printed_last(restart), "done\n")
    if not spare <= _children(kernel):
        raise BenchmarkError("the spare was not taken for a restart")
    spare = _wait_for_spare(kernel)
    throwaway = kernel.client.execute("%%sandbox\nprint('done')")
    _same("throwaway", _printed_last(throwaway), "done\n")
    if psutil.wait_procs(list(spare), timeout=10)[1]:
        raise BenchmarkError("the spare was not taken for a throwaway cell")
    return {"spare-restart": restart.done, "spare-throwaway": throwaway.done}


def _wait_for_spare(kernel: Kernel) -> set[psutil.Process]:
    """Wait until a spare is ready, and return its processes."""
    for _ in range(300):
        facts = kernel.client.execute("%sandbox").shown("text/plain")
        if "spare sandbox" in facts:
            pid = re.search(r"process +(\d+)", facts)
            assert pid is not None
            in_force = psutil.Process(int(pid[1]))
            return _children(kernel) - {in_force, *in_force.parents()}
        time.sleep(0.1)
    raise BenchmarkError("no spare sandbox came up")


def _children(kernel: Kernel) -> set[psutil.Process]:
    return set(kernel.processes()[1:])


def _printed_last(exchange: Exchange) -> str:
    streams = [m.content["text"] for m in exchange.published if m.kind == "stream"]
    return streams[-1] if streams else ""


def _same(work: str, got: str, wanted: str) -> None:
    """A kernel that lost or changed output has not done the work."""
    if got != wanted:
        raise BenchmarkError(
            f"{work}: {len(got):,} characters arrived in place of {len(wanted):,}, "
            f"or others; they end with {got[-200:]!r}"
        )


# In the order in which they are done: memory while the kernel has done nothing but a first cell,
# what leaves the most behind late, and what ends the session last.
WORKS = (
    Work("memory", _memory),
    Work("trivial", _trivial),
    Work("completion", _completion),
    Work("inspection", _inspection),
    Work("lines", _lines),
    Work("picture", _picture),
    Work("stdout", _stdout),
    Work("relaunch", _relaunch, sandboxed=True),
    Work("restart", _restart),
    Work("spare", _spare, sandboxed=True, spare=True),
)
