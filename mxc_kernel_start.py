"""The command ``mxc-kernel``: start over in an isolated interpreter before anything is imported.

A module of its own beside the package, because the interpreter that a console script starts looks
in ``PYTHONPATH`` first: a folder ``mxc_kernel`` there (an old clone, or one that a notebook wrote)
would be imported as the package, and the package could no longer do anything about it. Only ``os``
and ``sys``, which every interpreter has loaded by now, are imported before the second start.

Against a ``sitecustomize.py``, or a stand-in for this very module, in ``PYTHONPATH`` there is no
defence here: whoever can set that for the user's commands runs code as the user already.
"""

from __future__ import annotations

import os
import sys

_STARTED_OVER = "_MXC_KERNEL_STARTED_OVER"  # set for exactly one exec, so that it cannot loop


def main() -> int:
    """Run the command line of ``sys.argv`` isolated (``-E -P``, or ``-I``).

    Returns:
        The exit status. Does not return where the interpreter has to be replaced.
    """
    started_over = os.environ.pop(_STARTED_OVER, None) is not None
    if sys.flags.safe_path and sys.flags.ignore_environment:
        from mxc_kernel.cli import main as run

        return run(sys.argv[1:])
    if started_over or not sys.executable:
        sys.stderr.write(
            f"mxc-kernel: {sys.executable or 'this interpreter'} does not honour -E and -P.\n"
            "Start it as: python -E -P -m mxc_kernel\n"
        )
        return 1
    return _start_over([sys.executable, "-E", "-P", "-m", "mxc_kernel", *sys.argv[1:]])


def _start_over(command: list[str]) -> int:
    environ = {**os.environ, _STARTED_OVER: "1"}
    if sys.platform != "win32":
        os.execve(command[0], command, environ)
    import subprocess  # Windows has no exec that keeps the console; wait for the second process

    return subprocess.run(command, env=environ, check=False).returncode
