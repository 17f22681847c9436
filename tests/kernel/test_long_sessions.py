"""A session of very many cells: what the host remembers of them is bounded in number."""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil
import pytest

from tests.kernel.conftest import Kernel

CELLS = int(os.environ.get("MXC_KERNEL_CELLS", "500"))  # `make soak` runs ten thousand
# 11 MB were measured over the first 1,500 cells, which the host still remembers in part and the
# allocator keeps the room of, and 1 MB for each 1,000 after 2,500.
MOST = 24_000_000  # bytes


def _host_memory(kernel: Kernel) -> int:
    """Bytes that belong to the host process alone."""
    return int(psutil.Process(kernel.pid).memory_full_info().uss)


@pytest.mark.timeout(120 + CELLS)
def test_the_hosts_memory_is_bounded_however_many_cells_are_run(
    kernel: Kernel, figures: Callable[[str], None]
) -> None:
    def run(count: int) -> int:
        for _ in range(count):
            result = kernel.run("print('x' * 1000)\n1")
            assert result.value == "1"
        return _host_memory(kernel)

    begin = run(50)
    grown = run(CELLS) - begin
    assert grown < MOST, f"{grown / CELLS:.0f} bytes a cell"
    figures(f"{CELLS} cells in one session: host memory {grown:+,} bytes")
    assert kernel.run("len(In)").value == str(50 + CELLS + 2)
