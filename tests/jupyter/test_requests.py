"""What is forgotten of requests is gone, without a collector of cycles."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from mxc_kernel.jupyter import requests
from mxc_kernel.jupyter.account import RequestOutput
from mxc_kernel.jupyter.clock import CellClock
from mxc_kernel.jupyter.outbox import Outbox
from mxc_kernel.jupyter.requests import Request, RequestTable
from mxc_kernel.views import notice

from .conftest import Bench

REMEMBERED = 10
KINDS = (Outbox, Request, RequestOutput)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Only what nothing refers to is freed: a full collection may be thousands of cells away."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _alive() -> dict[type, int]:
    found = [type(thing) for thing in gc.get_objects()]
    return {kind: found.count(kind) for kind in KINDS}


def _run(bench: Bench, table: RequestTable, cells: int) -> None:
    for _ in range(cells):
        request = bench.request()
        table.add(request)
        bench.gate.note(request, notice("of its magics"))
        bench.gate.begin_cell(request, bench.limits, 1)
        bench.write(request, "text\n")
        bench.show(request, "shown")
        bench.end(request)
        request.announced, request.open = True, False
        assert request.finished
        assert bench.shown[-4:] == ["of its magics", "text\n", "shown", "status"]
        bench.frontends.sent.clear()
        bench.clock.pass_time(1)  # a timer that is over holds nothing


def test_a_forgotten_request_takes_its_output_along(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, uncollected: None
) -> None:
    monkeypatch.setattr(requests, "_REMEMBERED", REMEMBERED)
    table = RequestTable()
    before = _alive()
    _run(bench, table, REMEMBERED)
    full = _alive()
    assert {kind: full[kind] - before[kind] for kind in KINDS} == dict.fromkeys(KINDS, REMEMBERED)
    _run(bench, table, 5 * REMEMBERED)
    assert _alive() == full


def test_a_cancelled_clock_lets_go_of_its_cell(uncollected: None) -> None:
    class Cell:
        clock: CellClock

        def expire(self) -> None:
            raise AssertionError

    async def run() -> weakref.ref[Cell]:
        cell = Cell()
        cell.clock = CellClock(60.0, cell.expire)
        cell.clock.cancel()
        return weakref.ref(cell)

    assert asyncio.run(run())() is None
