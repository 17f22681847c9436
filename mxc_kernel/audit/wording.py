"""Puts facts as records have them: bounded, redacted, with labels in place of paths."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from mxc_kernel import __version__
from mxc_kernel.audit.facts import Sandbox, Source
from mxc_kernel.audit.labels import Labels
from mxc_kernel.policy import Audit

__all__ = ["RUN_VARIABLE", "Wording", "counts", "executable", "plain"]

RUN_VARIABLE = "MXC_KERNEL_RUN"
"""A batch run names itself by it; the session's first record repeats it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")  # ids of frontends: nobody's free text
_CODE = 1 << 20  # characters of code that are kept
_TEXT = 200  # characters of a word of the child's
_PATH = 4096  # characters
_DENIALS = 16
_KINDS = 40  # reasons, rules and roads in one record; there are fewer


class Wording:
    """The words of one session's records.

    Args:
        settings: returns how the operator wants the trail kept.

    Attributes:
        redact: masks secrets in a text; until it is set, no text of the child's is kept.
        labels: stand for paths.
    """

    def __init__(self, settings: Callable[[], Audit]) -> None:
        self.redact: Callable[[str], str] = lambda _text: ""
        self.labels = Labels(b"", {})
        self._settings = settings

    def session(self, environ: Mapping[str, str], notebook_dir: str) -> dict[str, Any]:
        """Return what the first record says of the session.

        Args:
            environ: the kernel's environment.
            notebook_dir: the notebook's folder.
        """
        name = environ.get("JPY_SESSION_NAME")  # relative or absolute, as the server has it
        notebook = os.path.normpath(os.path.join(notebook_dir, name)) if name else None
        return {
            "kernel": __version__,
            "pid": os.getpid(),
            "uid": os.getuid() if hasattr(os, "getuid") else None,
            "host": os.uname().nodename if hasattr(os, "uname") else None,
            "notebook": self.path(notebook) if notebook is not None else None,
            "folder": self.path(notebook_dir),
            "run": _id(environ.get(RUN_VARIABLE)),
            "paths": self._settings().paths,
        }

    def cell(self, source: Source, number: int) -> dict[str, Any]:
        """Return what a record says of a cell as it came."""
        code: dict[str, Any] = {
            "sha256": hashlib.sha256(source.code.encode("utf-8", "surrogatepass")).hexdigest(),
            "length": len(source.code),
        }
        if self._settings().code:
            code["text"] = plain(self.redact(source.code))[:_CODE]
        return {
            "cell": {
                "number": number,
                "id": _id(source.cell),
                "request": _id(source.request),
                "execution_count": source.execution_count,
                "silent": source.silent,
                "subshell": _id(source.subshell),
                "expressions": source.expressions,
            },
            "code": code,
        }

    def path(self, path: str) -> str:
        """Return what stands for a path."""
        if self._settings().paths == "raw":
            return plain(self.redact(path)) or self.labels(path)
        return self.labels(path)

    def word(self, text: str) -> str:
        """Return a word of the child's as it may be kept."""
        # Redacted before it is cut: the cut could go through a secret.
        return plain(self.redact(text[: _TEXT * 4]))[:_TEXT]

    def denials(self, evidence: object) -> list[dict[str, Any]]:
        """Return what the child reported as blocked, of which every field may be anything."""
        found = evidence.get("denials") if isinstance(evidence, dict) else None
        if not isinstance(found, list):
            return []
        return [self._denial(denial) for denial in found[:_DENIALS] if isinstance(denial, dict)]

    def _denial(self, denial: Mapping[object, object]) -> dict[str, Any]:
        path, host = denial.get("path"), denial.get("host")
        return {
            "kind": "network" if denial.get("kind") == "network" else "filesystem",
            "operation": self.word(str(denial.get("operation") or "")),
            "errno": self.word(str(denial.get("errno") or "")),
            "path": self.path(str(path)[:_PATH]) if path else None,
            "host": self.word(str(host)) if host else None,
        }


def executable(sandbox: Sandbox) -> dict[str, str]:
    """Return what a record says of what set up a sandbox."""
    return {"backend": sandbox.backend, "version": sandbox.version, "sha256": sandbox.sha256}


def plain(text: str) -> str:
    """Return a text that JSON can hold: lone surrogates are replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def counts(found: Mapping[str, int]) -> dict[str, int]:
    """Return the counts above zero; the rarest are left out if there are too many."""
    some = Counter({name: count for name, count in found.items() if count > 0})
    return dict(some.most_common(_KINDS))


def _id(text: object) -> str | None:
    return text if isinstance(text, str) and _NAME.fullmatch(text) else None
