"""The ceiling file that `mxc-kernel init` writes."""

from __future__ import annotations

__all__ = ["example_ceiling"]

_EXAMPLE = """\
# The ceiling of mxc-kernel: the most that the sandbox of any notebook can be given.
#
# A session starts with what [start] lists and asks for more with %allow_ro and %allow_rw; nothing
# beyond this file is ever granted, whoever wrote the notebook. What is not listed is denied.
# Paths are absolute or begin with ~/ or ${notebook_dir}/; a folder stands for all that is in it,
# and the deepest entry decides. Nothing else is expanded.
#
# Only you (or root) may be able to write this file and the folders above it.

# "none": a session keeps to [start] and cannot ask for more.
requests = "magics"

[filesystem]
readonly = ["~/Documents"]
readwrite = ["${notebook_dir}"]
# denied = ["~/Documents/private"]

[network]
# "closed" is all that can be enforced so far.
mode = "closed"

[limits]
# "off", or a time such as "30s", "10m", "2h". Waiting for input() does not count.
cell_timeout = "off"
memory = "4GiB"
# Threads count too.
processes = 256
# What one cell may print and show.
output = "1MiB"

[output]
# "text", "safe" (sanitised, no scripts), "frame" (scripts in closed frames) or "trusted".
html = "safe"

[environment]
# Variables that the sandbox may see. Never secrets.
names = ["LANG", "LC_ALL", "TZ"]

[start]
# Held before the first magic; within the ceiling like everything else.
readonly = ["${notebook_dir}"]
readwrite = []

# [sandbox]
# python = "~/venvs/data/bin/python"
# start_timeout = "30s"
# uids = "60706-61183"
"""


def example_ceiling() -> str:
    """Return a commented ceiling file that grants a little; it can be used as it is."""
    return _EXAMPLE
