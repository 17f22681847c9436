"""The child's main program: secure the pipe, greet the host, then run ipykernel."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

from mxc_kernel.worker import image

if TYPE_CHECKING:
    from mxc_kernel.worker.settings import Settings
    from mxc_kernel.worker.transport import Transport

__all__ = ["main"]


def main() -> None:
    """Run until the host closes the pipe or asks for a shutdown. Does not return at end of file."""
    gc.disable()  # nothing that is loaded can be collected: looking for it is 9 % of the start
    ahead = image.use()  # before the imports that it has
    from mxc_kernel.worker.transport import secure

    transport = secure()
    settings = _greet(transport)
    _prepare_folders(settings)

    from mxc_kernel.worker.kernel import run

    if ahead is not None:
        ahead.retire()
    run(transport, settings)


def _greet(transport: Transport) -> Settings:
    """Answer the host's HELLO before anything heavy is imported: it proves that we started."""
    import json

    from mxc_kernel.wire import Channel
    from mxc_kernel.worker.settings import Settings

    try:
        channel, parts = next(transport.frames())
    except EOFError:
        os._exit(0)
    if channel is not Channel.HELLO or len(parts) != 2:
        raise SystemExit("the host's first frame is not HELLO")
    settings = Settings.parse(parts[1])
    facts: dict[str, object] = {
        "pid": os.getpid(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "ipykernel": _ipykernel_version(),
    }
    if settings.hardening is not None:
        from mxc_kernel.worker.hardening import harden

        facts |= harden(settings.hardening)  # before the answer: the host then looks at us
    if settings.forbidden is not None:
        from mxc_kernel.worker.forbidden import tried

        facts["forbidden"] = tried(settings.forbidden)
    transport.send(Channel.HELLO, [parts[0], json.dumps(facts).encode()])
    return settings


def _ipykernel_version() -> str:
    """Return the version as its own file states it; importlib.metadata costs 20 ms to import."""
    import re
    from importlib.util import find_spec

    spec = find_spec("ipykernel")
    if spec is None or not spec.origin:
        return ""
    try:
        with open(os.path.join(os.path.dirname(spec.origin), "_version.py"), encoding="utf-8") as f:
            found = re.search(r"""__version__ = ["']([^"']+)""", f.read())
    except OSError:
        return ""
    return found[1] if found else ""


def _prepare_folders(settings: Settings) -> None:
    """Make the private folders that the environment names and go to the working folder."""
    if settings.scratch:
        os.makedirs(settings.scratch, mode=0o700, exist_ok=True)
    for name in ("HOME", "TMPDIR", "IPYTHONDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
        folder = os.environ.get(name)
        # Only below scratch: the others are the user's, and perhaps not there on purpose.
        if folder and settings.scratch and folder.startswith(settings.scratch):
            os.makedirs(folder, mode=0o700, exist_ok=True)
    for folder in (settings.cwd, settings.scratch):
        if folder:
            try:
                os.chdir(folder)
            except OSError:
                continue
            return
