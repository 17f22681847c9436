"""The kernel's process: ``python -E -P -m mxc_kernel.kernel -f CONNECTION_FILE``.

The sandbox is launched before anything that is slow to import, so that the child and the host start
side by side.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys

from mxc_kernel.session import Session

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run one kernel until it is shut down.

    Args:
        arguments: the command line; that of the process if None. What is not understood here goes
            to the child's IPKernelApp, inside the sandbox.
    """
    parser = argparse.ArgumentParser(prog="mxc-kernel", allow_abbrev=False)
    parser.add_argument("-f", "--connection-file", required=True)
    parser.add_argument("--python", help="the sandboxed interpreter")
    options, rest = parser.parse_known_args(arguments)
    logging.basicConfig(format="mxc-kernel: %(levelname)s: %(message)s", level=logging.WARNING)
    # The frontend interrupts by message; a SIGINT for the whole terminal is not for the host.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    session = Session(notebook_dir=os.getcwd(), python=options.python, arguments=rest)
    session.start()
    try:
        _serve(session, options.connection_file)
    finally:
        session.close()


def _serve(session: Session, connection_file: str) -> None:
    import asyncio

    from mxc_kernel.jupyter.relay import Relay

    with open(connection_file, encoding="utf-8") as file:
        connection = json.load(file)

    async def serve() -> None:
        relay = Relay(session, connection)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, relay.stop)
        await relay.run()

    asyncio.run(serve())


if __name__ == "__main__":
    main(sys.argv[1:])
