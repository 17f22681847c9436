"""The command: ``python -P -m benchmarks [--quick] [--only WORK] …``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console

from benchmarks import kernels, report, rounds
from benchmarks.client import BenchmarkError
from benchmarks.work import WORKS
from mxc_kernel.errors import MxcKernelError
from mxc_kernel.mxc import runtime

_SAMPLES, _QUICK = 15, 5
_NAMES = ("start", *(work.name for work in WORKS))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write the samples; return the exit status."""
    options = _options(arguments)
    count = options.samples or (_QUICK if options.quick else _SAMPLES)
    names = [name for name in _NAMES if name in options.only] or list(_NAMES)
    console = Console(stderr=True)
    try:
        child = options.python or runtime.default().executable
        about = report.facts(child)
        with rounds.folders() as paths, console.status("starting") as status:
            samples = rounds.run(
                _contenders(child, paths, names),
                [work for work in WORKS if work.name in names],
                count,
                paths,
                status.update,
            )
    except (BenchmarkError, MxcKernelError) as error:
        console.print(f"benchmarks: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    rows = report.results(samples, names)
    output = options.output or _output()
    report.save(output, {**about, "rounds": count}, rows, samples)
    caption = _caption(about, count)
    if options.markdown:
        print(report.markdown(rows, caption))
    else:
        # As wide as it needs to be where the output goes to a file.
        width = None if sys.stdout.isatty() else 120
        Console(width=width).print(report.table(rows, caption))
    console.print(f"All samples: {os.path.relpath(output)}", highlight=False)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks", description="Measure the kernel against plain ipykernel."
    )
    parser.add_argument("--samples", type=_positive, help=f"rounds ({_SAMPLES})", metavar="N")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK} rounds")
    parser.add_argument(
        "--only",
        action="append",
        choices=_NAMES,
        default=[],
        help=f"only this work, may be repeated: {', '.join(_NAMES)}",
        metavar="WORK",
    )
    parser.add_argument("--markdown", action="store_true", help="print the table for a page")
    parser.add_argument("--output", help="where the samples go (benchmarks/results/)")
    parser.add_argument("--python", help="interpreter of both kernels (the sandbox's default)")
    return parser.parse_args(arguments)


def _contenders(child: str, paths: rounds.Folders, names: Sequence[str]) -> list[kernels.Contender]:
    contenders = [
        kernels.ours(sys.executable, child, paths.ceiling),
        kernels.ipykernel(child, paths.private),
    ]
    if "start" in names:
        contenders.append(kernels.ipykernel(child, paths.private, unfrozen=True))
    if "spare" in names:
        contenders.append(kernels.ours(sys.executable, child, paths.spare, spare=True))
    return contenders


def _caption(about: dict[str, object], count: int) -> str:
    child, host, machine = about["child"], about["host"], about["machine"]
    assert isinstance(child, dict)
    assert isinstance(host, dict)
    assert isinstance(machine, dict)
    return (
        f"Medians of {count} interleaved rounds on {machine['processor']}, {machine['cores']} "
        f"cores, load {machine['load'][0]:.1f} before. "
        f"Both kernels run the same Python {child['python']} with ipykernel {child['ipykernel']} "
        f"and IPython {child['ipython']}; ipykernel is started as its wheel's kernelspec says "
        f"(frozen modules on), but for the row that says otherwise. "
        f"mxc-kernel {host['mxc-kernel']}, its host on Python {host['python']}."
    )


def _output() -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "results", f"{now}.json")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    # Ends kernels and removes folders on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
