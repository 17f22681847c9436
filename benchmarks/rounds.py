"""Runs the work on every contender, interleaved, on fresh kernels in each round."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.client import BenchmarkError
from benchmarks.kernels import Contender, Kernel
from benchmarks.work import Values, Work, start

__all__ = ["Folders", "Samples", "folders", "run"]

# By name of what was measured, then by contender; in the order of the rounds.
Samples = dict[str, dict[str, list[float]]]

# More than any work prints. All else is as it is for a user who wrote no ceiling.
_CEILING = """\
[filesystem]
readonly = ["{granted}"]

[limits]
output = "1GiB"
"""
_SPARE = """
[sandbox]
spare = true
"""


@dataclass(frozen=True)
class Folders:
    """Where a run keeps its files.

    Attributes:
        private: for connection files, sockets and logs; nobody else may enter it.
        granted: an empty folder that the ceiling allows and no session starts with.
        ceiling: the ceiling file.
        spare: another one, which also asks for a second sandbox.
    """

    private: str
    granted: str
    ceiling: str
    spare: str


@contextmanager
def folders() -> Iterator[Folders]:
    """Make the folders of a run, and remove them."""
    # Not below a folder that is closed to others: as root, the sandbox runs as another user.
    root = os.path.realpath(tempfile.mkdtemp(prefix="mxc-bench-", dir="/var/tmp"))
    try:
        os.chmod(root, 0o755)
        paths = Folders(
            *(
                os.path.join(root, name)
                for name in ("private", "granted", "ceiling.toml", "spare.toml")
            )
        )
        os.mkdir(paths.private, 0o700)
        os.mkdir(paths.granted)
        os.chmod(paths.granted, 0o755)
        ceiling = _CEILING.format(granted=paths.granted)
        for path, text in ((paths.ceiling, ceiling), (paths.spare, ceiling + _SPARE)):
            with open(path, "x", encoding="utf-8") as file:
                file.write(text)
            os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
        yield paths
    finally:
        shutil.rmtree(root)


def run(
    contenders: Sequence[Contender],
    works: Sequence[Work],
    count: int,
    paths: Folders,
    report: Callable[[str], None],
) -> Samples:
    """Measure.

    Args:
        contenders: the kernels to compare.
        works: what to do in each round, besides starting.
        count: rounds. In every other one the contenders take turns in the opposite order, so that
            none is always the one that goes first.
        paths: the run's folders.
        report: called with a word on what is next.

    Raises:
        BenchmarkError: a kernel did not do its work.
    """
    for contender in contenders:
        report(f"{contender.name}: warming up")
        with Kernel(contender, paths.private):
            pass
    samples: Samples = defaultdict(lambda: defaultdict(list))
    for number in range(count):
        order = contenders if number % 2 == 0 else contenders[::-1]
        with ExitStack() as stack:
            kernels = []
            for contender in order:
                report(f"round {number + 1} of {count}: start")
                kernel = stack.enter_context(Kernel(contender, paths.private))
                _add(samples, kernel, start(kernel))
                if contender.only_starts:
                    kernel.close()
                else:
                    kernels.append(kernel)
            for work in works:
                report(f"round {number + 1} of {count}: {work.name}")
                for kernel in kernels:
                    if kernel.contender.does(work):
                        _add(samples, kernel, _measured(work, kernel, paths.granted))
    return samples


def _measured(work: Work, kernel: Kernel, folder: str) -> Values:
    try:
        return work.measure(kernel, folder)
    except BenchmarkError as error:
        raise BenchmarkError(f"{work.name}, {kernel.contender.name}: {error}") from error


def _add(samples: Samples, kernel: Kernel, values: Values) -> None:
    for name, value in values.items():
        samples[name][kernel.contender.name].append(value)
