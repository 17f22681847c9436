"""The kernel's process: ``python -E -P -m mxc_kernel.kernel -f CONNECTION_FILE``.

The sandbox is launched before anything that is slow to import, so that the child and the host start
side by side.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

from mxc_kernel.mxc.ahead import VerifiedAhead

if TYPE_CHECKING:
    from mxc_kernel.session import Session

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run one kernel until it is shut down.

    Args:
        arguments: the command line; that of the process if None. What is not understood here goes
            to the child's IPKernelApp, inside the sandbox.
    """
    rest = list(sys.argv[1:] if arguments is None else arguments)
    connection_file = _take(rest, "-f", "--connection-file")
    python = _take(rest, "--python")
    if connection_file is None:
        raise SystemExit(
            "usage: python -m mxc_kernel.kernel -f CONNECTION_FILE [--python PATH] [...]"
        )
    # The frontend interrupts by message; a SIGINT for the whole terminal is not for the host.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # nothing that is loaded can be collected: looking for it slows the start
    executable = VerifiedAhead(os.environ)  # hashed while the rest is imported
    from mxc_kernel.session import Session

    session = Session(
        notebook_dir=os.getcwd(),
        python=python,
        arguments=rest,
        executable=executable,
        connection_file=os.path.realpath(connection_file),
    )
    session.start()
    try:
        _serve(session, connection_file)
    finally:
        session.close()


def _take(arguments: list[str], *names: str) -> str | None:
    """Take an option and its value out of a command line that a kernelspec has written.

    All else is the child's, so there is nothing to complain about; and argparse alone costs 15 ms
    to import, before the sandbox is launched.
    """
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names and (equals or i + 1 < len(arguments)):
            if not equals:
                value = arguments.pop(i + 1)
            del arguments[i]
            return value
    return None


def _import_asyncio() -> None:
    """Import asyncio without TLS, which it does without where Python has none: 12 ms.

    The host speaks it nowhere by asyncio. Whoever imports ``ssl`` later gets it.
    """
    if "ssl" not in sys.modules:
        sys.modules["ssl"] = None  # type: ignore[assignment]
        try:
            import asyncio  # noqa: F401
        finally:
            del sys.modules["ssl"]


def _serve(session: Session, connection_file: str) -> None:
    _import_asyncio()
    import asyncio
    import json
    import logging

    from mxc_kernel.jupyter.relay import Relay

    logging.basicConfig(format="mxc-kernel: %(levelname)s: %(message)s", level=logging.WARNING)
    with open(connection_file, encoding="utf-8") as file:
        connection = json.load(file)

    gc.freeze()
    gc.enable()

    async def serve() -> None:
        relay = Relay(session, connection)
        loop = asyncio.get_running_loop()
        if sys.platform != "win32":  # there it ends the process, and the job with the sandbox
            loop.add_signal_handler(signal.SIGTERM, relay.stop)
        await relay.run()

    if sys.platform == "win32":
        # The loop that Windows would choose cannot watch ZMQ's sockets; pipes have threads there.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(serve())
    else:
        asyncio.run(serve())


if __name__ == "__main__":
    main(sys.argv[1:])
