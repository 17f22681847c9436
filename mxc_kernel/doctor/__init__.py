"""``mxc-kernel doctor``: what works on this machine, what does not, and what to do about it.

Every check is a function of its own that takes what it looks at as arguments, so that each can be
tried on a broken setting. None of them changes anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from mxc_kernel.doctor import audit, jupyter, launch, others, system
from mxc_kernel.doctor.check import Check, Status, as_json, render

__all__ = ["Check", "Status", "as_json", "examine", "render"]


def examine() -> Iterator[Check]:
    """Yield the result of every check, in the order in which to mend what is broken."""
    settings = jupyter.settings()
    linux: tuple[Callable[[], Check], ...] = (
        system.check_bubblewrap,
        lambda: system.check_namespaces(settings),
        system.check_landlock,
    )
    elsewhere: tuple[Callable[[], Check], ...] = (
        others.check_system,
        lambda: others.check_quarantine(settings),
    )
    checks: tuple[Callable[[], Check], ...] = (
        system.check_python,
        lambda: system.check_executable(settings),
        *(linux if sys.platform == "linux" else elsewhere),
        lambda: system.check_identity(settings),
        lambda: system.check_interpreter(settings),
        jupyter.check_ceiling,
        jupyter.check_redaction,
        lambda: audit.check_audit(settings),
        jupyter.check_kernelspec,
        jupyter.check_operator,
    )
    broken = []
    for check in checks:
        result = check()
        if result.status is Status.FAIL:
            broken.append(result.name)
        yield result
    yield launch.check_launch(broken)
