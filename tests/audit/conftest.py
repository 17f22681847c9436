"""Trails made by the real writer, without a kernel."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mxc_kernel.audit.facts import Outcome, Sandbox, Source, Under
from mxc_kernel.audit.journal import Journal
from mxc_kernel.mxc.usage import Usage
from mxc_kernel.policy import Access, Audit, Ceiling, Filesystem, Policy, Request

HASH = "5" * 64


def environ(root: Path, **more: str) -> dict[str, str]:
    """The environment of a kernel whose state lies below a folder."""
    return {"HOME": str(root), "XDG_STATE_HOME": str(root / "state"), **more}


def trail_of(root: Path) -> Path:
    return root / "state" / "mxc-kernel" / "audit"


def journal(root: Path, audit: Audit | None = None, **env: str) -> Journal:
    """A journal that knows no kernel; what it redacts is the word ``secret``."""
    made = Journal(environ(root, **env), str(root / "work"), lambda: audit or Audit())
    made.redact_with(lambda text: text.replace("secret", "[redacted]"))
    return made


def under(*grants: str, throwaway: bool = False, launched: object = None) -> Under:
    """What a cell runs under: a sandbox with some readable folders."""
    files = Filesystem(tuple((path, Access.READONLY) for path in grants))
    policy = Policy(filesystem=files)
    request = Request(filesystem=files)
    sandbox = Sandbox(
        launched or SimpleNamespace(),
        policy,
        "1.0.1",
        HASH,
        "bubblewrap",
        (("no terminal", "seen by the host in /proc"),),
        lambda: Usage(1.0, 1 << 20),
    )
    return Under(Ceiling(policy), request, policy, sandbox, throwaway)


def outcome(**more: Any) -> Outcome:
    """How a cell ended: well, if nothing else is said."""
    figures = {
        "text": {"sent": 0, "dropped": 0},
        "rich": {"sent": 0, "dropped": 0, "messages": 0, "refused": 0},
    }
    usage = {"duration": 0.1, "cpu": 0.0, "memory_peak": 1}
    plain: dict[str, Any] = {
        "status": "ok",
        "error": None,
        "by": "code",
        "usage": usage,
        "output": figures,
        "redactions": {},
        "dropped": {},
        "evidence": None,
        "inputs": 0,
    }
    return Outcome(**{**plain, **more})


def write_session(root: Path, cells: int = 2, *, end: bool = True, **options: Any) -> Journal:
    """Write a session of some cells."""
    made = journal(root, **options)
    where = under("/data")
    for number in range(cells):
        made.finish(made.begin(Source(f"x = {number}"), where), outcome())
    if end:
        made.close()
    return made


Died = Callable[..., str]


@pytest.fixture
def died(tmp_path: Path) -> Died:
    """Write a session in a process of its own that ends without a word; returns its name."""
    import subprocess

    def run(root: Path = tmp_path, cells: int = 2, *, pending: bool = False) -> str:
        code = (
            "import os, sys\n"
            "from pathlib import Path\n"
            "from tests.audit.conftest import write_session, under\n"
            "from mxc_kernel.audit.facts import Source\n"
            f"made = write_session(Path({str(root)!r}), {cells}, end=False)\n"
            f"if {pending}: made.begin(Source('forever()'), under('/data'))\n"
            "print(made.session, flush=True)\n"
            "os.kill(os.getpid(), 9)\n"
        )
        repository = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=repository,
            env={**os.environ},
            capture_output=True,
            text=True,
        )
        assert done.returncode == -9, done.stderr
        return done.stdout.strip()

    return run
