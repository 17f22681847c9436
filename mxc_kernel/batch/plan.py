"""Which notebooks a run is about, and where their results go."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mxc_kernel.errors import MxcKernelError

__all__ = ["Job", "Plan", "make_plan"]


@dataclass(frozen=True)
class Job:
    """One notebook of a run.

    Attributes:
        source: the notebook, an absolute path.
        name: its path below the folder that all of the run's notebooks are in; the executed one
            has the same path below the output folder.
    """

    source: str
    name: str

    @property
    def folder(self) -> str:
        """The notebook's folder."""
        return os.path.dirname(self.source)


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        jobs: the notebooks, in the order of their names.
        output_dir: where the results go, an absolute path.
    """

    jobs: tuple[Job, ...]
    output_dir: str


def make_plan(paths: Iterable[str | os.PathLike[str]], output_dir: str | None) -> Plan:
    """Find the notebooks that are meant.

    Args:
        paths: notebooks, folders and patterns (``*``, ``?``, ``[...]``, ``**``).
        output_dir: where the results go; None for a folder beside the notebooks', which is named
            like it with ``-executed``.

    Raises:
        MxcKernelError: a path leads to nothing.
    """
    named = [os.path.abspath(each) for path in paths for each in _expanded(os.fspath(path))]
    if not named:
        raise MxcKernelError("No notebook is named.", remedy="Name notebooks or folders.")
    # The folder's own path, but the notebooks' links: where `~/work` leads is nobody's business.
    folders = [path if os.path.isdir(path) else os.path.dirname(path) for path in named]
    root = os.path.commonpath(folders)
    target = os.path.abspath(output_dir or f"{root.rstrip('/')}-executed")
    found = {at: source for path in named for at, source in _notebooks(path, target)}
    jobs = (Job(source, os.path.relpath(at, root)) for at, source in found.items())
    return Plan(tuple(sorted(jobs, key=lambda job: job.name.split("/"))), target)


def _expanded(path: str) -> list[str]:
    path = os.path.expanduser(path)
    if os.path.exists(path):
        return [path]
    found = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []
    if not found:
        raise MxcKernelError(f"There is no {path}.", remedy="Name notebooks that exist.")
    return found


def _notebooks(path: str, output_dir: str) -> Iterator[tuple[str, str]]:
    """Yield a file, or the notebooks in a folder and below it: where they are, and what to read.

    Hidden folders are left out (Jupyter's checkpoints, a repository's insides) and so is the output
    folder. A link that was named is followed. Those found in a folder may have been put there by a
    sandbox: to folders they are not followed, and to files it is told when it is their turn.
    """
    if not os.path.isdir(path):
        yield path, os.path.realpath(path)
        return
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.join(folder, name) != output_dir
        )
        for name in sorted(files):
            if name.endswith(".ipynb") and not name.startswith("."):
                yield (os.path.join(folder, name),) * 2
