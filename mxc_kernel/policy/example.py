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
# Of the processor, in all processes of a cell together.
cpu_time = "off"
# Of all processes, with what lies in the sandbox's own folders, which are memory.
memory = "4GiB"
# Threads count too.
processes = 256
# That one process may have open.
open_files = 4096
# The largest file that a cell may write.
file_size = "off"
# In the sandbox's own folders, such as /tmp: space, and number of files and folders.
scratch_space = "2GiB"
scratch_files = 200000
# What a session may add to each folder that it may write.
grant_space = "16GiB"
grant_files = 1000000
# Text that one cell may print, and pictures, tables and widgets that it may show.
output = "1MiB"
rich_output = "256MiB"
# "continue" to run on unseen where a cell passes one of these, or "stop".
output_exceeded = "continue"

[output]
# "text", "safe" (sanitised, no scripts), "frame" (scripts in closed frames) or "trusted".
html = "safe"

# [redaction]
# Hidden in output besides tokens, keys and the host's secrets: values of variables, what stands in
# files, other texts, and patterns. An exception is shown though a rule matches it.
# variables = ["ACME_LICENCE"]
# files = ["/etc/acme/passphrase"]
# literals = ["Project Bluebird"]
# patterns = [{ name = "acme-key", pattern = "ACME-[0-9A-F]{32}" }]
# exceptions = ["AKIAIOSFODNN7EXAMPLE"]

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
# spare = true  # a second sandbox stands ready: a fast %sandbox restart, for its memory
# uids = "60706-61183"

# [audit]
# Every cell is recorded before it runs; see docs/audit.md.
# code = true        # keep cells' code too, redacted; its hash is always kept
# paths = "raw"      # write paths out instead of labels
# fsync = true       # survive a loss of power, for some milliseconds of each cell
# rotate = "16MiB"
# retention = "90d"  # delete trails of ended sessions; kept for ever if left out
# anchor_file = "/mnt/elsewhere/mxc-audit.anchors"
# anchor_command = ["logger", "-t", "mxc-audit"]
# anchor_every = "1m"
# key = "/etc/mxc-kernel/audit.key"
# otel = "http://127.0.0.1:4318"
"""


def example_ceiling() -> str:
    """Return a commented ceiling file that grants a little; it can be used as it is."""
    return _EXAMPLE
