"""No result is written where one of the sandboxes of the run may write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mxc_kernel.batch.client import SandboxedKernelManager, start_plain
from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy import NATIVE, Access, Ceiling, load_ceiling

if TYPE_CHECKING:
    from mxc_kernel.batch.plan import Plan
    from mxc_kernel.batch.runner import Options

__all__ = ["check", "writable_at"]


def check(plan: Plan, options: Options, output_dir: str, files: Iterable[str]) -> None:
    """Refuse to write where any of a run's notebooks could be granted to write.

    Checked against what their ceilings hold, and not against what is granted at the moment: a
    notebook may ask for the rest while it runs.

    Args:
        plan: the run.
        options: decide about the ceilings.
        output_dir: the output folder, without symbolic links.
        files: further files that will be written, absolute paths.

    Raises:
        SandboxPolicyError: names the place, and the notebook whose sandbox could write there.
    """
    wanted = [(output_dir, "--output-dir"), *((os.path.realpath(file), "") for file in files)]
    manager = SandboxedKernelManager(
        ceiling=options.ceiling or "", start=start_plain(layers=options.all_layers)
    )
    try:
        environ = {**os.environ, **manager.variables}
        for folder in dict.fromkeys(job.folder for job in plan.jobs):
            try:
                ceiling = load_ceiling(notebook_dir=folder, environ=environ)
            except SandboxPolicyError:
                continue  # no cell runs under it, and the report will say so
            for path, option in wanted:
                if (grant := writable_at(ceiling, path)) is not None:
                    raise SandboxPolicyError(
                        f"nothing is written to {path}: the notebooks in {folder} may be granted "
                        f"to write {grant}",
                        remedy=f"Choose another place{option and ' with ' + option}, "
                        "or a narrower ceiling with --ceiling.",
                    )
    finally:
        manager.drop()


def writable_at(ceiling: Ceiling, path: str) -> str | None:
    """Return what a sandbox under a ceiling could write so as to meddle with a path, or None.

    That is the path, a folder above it, which could be renamed away, or something inside it.

    Args:
        ceiling: the most that the sandbox can be granted.
        path: canonical.
    """
    above = path
    while True:
        if ceiling.holds(above) is Access.READWRITE:
            return above
        if above == (above := os.path.dirname(above)):
            break
    for grant, _ in (*ceiling.policy.filesystem.grants, *ceiling.start.filesystem.grants):
        if NATIVE.within(grant, path) and ceiling.holds(grant) is Access.READWRITE:
            return grant
    return None
