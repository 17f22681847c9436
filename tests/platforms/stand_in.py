"""Stands in for ``wxc-exec.exe`` and ``mxc-exec-mac``: their process behaviour, bubblewrap's walls.

Run as they are: ``NAME --config REQUEST``. It is slow to start, refuses to run where it inherits
anything but three standard handles, takes a Windows command line apart by Windows' rules and finds
``C:\\`` where the tests say. As Windows' one, its workload has no process groups; as macOS' one,
no process namespace, so that what it starts can outlive it.

What is granted is enforced by a real bubblewrap, unless the test wants a sandbox that is open.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time

sys.path.insert(0, os.environ["STAND_IN_TESTS"])
from tests.platforms.windows_line import split_as_windows

SLOW_START = 0.3  # seconds
BASELINE = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc")
# Windows has no fork and no process groups; what the worker finds out at run time is taken away.
WITHOUT_GROUPS = "import os\nos.getpgrp = lambda: -1\n"


def main() -> int:
    inherited = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]
    if inherited != [0, 1, 2]:
        sys.stderr.write(f"inherited descriptors: {inherited}\n")
        return 1
    flag, path = sys.argv[1:]
    assert flag == "--config"
    with open(path, encoding="utf-8") as file:
        request = json.load(file)
    with open(os.environ["STAND_IN_LOG"], "a", encoding="utf-8") as log:
        log.write(json.dumps({"request": request, "environ": dict(os.environ)}) + "\n")
    time.sleep(SLOW_START)
    windows = request["containment"] == "processcontainer"
    line = request["process"]["commandLine"]
    if windows:
        command = split_as_windows(line)
        command[0] = here(command[0])
        assert command[-2] == "-c"
        command[-1] = f"{WITHOUT_GROUPS}exec({command[-1]!r})"
    else:
        assert line.startswith("exec ")
        command = shlex.split(line)[1:]
    environ = dict(entry.split("=", 1) for entry in request["process"]["env"])
    if windows:
        environ = {name: translated(value) for name, value in environ.items()}
    walls = [] if "STAND_IN_OPEN" in os.environ else bubblewrap(request, share_pids=not windows)
    cwd = here(request["process"]["cwd"])
    if walls:
        walls += ["--chdir", cwd, "--"]
    # Neither is interrupted with the host's terminal, nor reached by the host's signals to a group.
    return subprocess.call([*walls, *command], env=environ, cwd=cwd, start_new_session=windows)


def here(path: str) -> str:
    if path[:3] == "C:\\":
        return path[2:].replace("\\", "/")
    return path.removeprefix("/private")  # macOS' own links, which lead elsewhere here


def translated(value: str) -> str:
    return ":".join(map(here, value.split(";"))) if value[:3] == "C:\\" else value


def bubblewrap(request: dict, *, share_pids: bool) -> list[str]:
    files = {name: list(map(here, listed)) for name, listed in request["filesystem"].items()}
    options = ["/usr/bin/bwrap", "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"]
    if request["network"]["egress"]["default"] == "deny":
        options.append("--unshare-net")
    if not share_pids:
        options += ["--unshare-pid", "--die-with-parent"]
    for path in BASELINE:
        options += ["--ro-bind-try", path, path]
    options += ["--dev", "/dev", "--proc", "/proc"]
    mounts = [
        *((path, "--ro-bind") for path in files["readonlyPaths"]),
        *((path, "--bind") for path in files["readwritePaths"]),
        *((path, "--tmpfs") for path in files["deniedPaths"]),
    ]
    for path, option in sorted(mounts):
        options += [option, path] if option == "--tmpfs" else [option, path, path]
    # The folders above a grant are there, as on those systems, but nothing can be written to them.
    return [*options, "--remount-ro", "/"]


if __name__ == "__main__":
    sys.exit(main())
