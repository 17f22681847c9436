"""What the host tells the child before anything else happens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MagicStub", "Settings", "parse_stubs"]


@dataclass(frozen=True)
class MagicStub:
    """A magic that the host understands; the child only shows and completes its name."""

    name: str
    kind: str
    doc: str


@dataclass(frozen=True)
class Settings:
    """The HELLO frame's settings.

    Attributes:
        cwd: folder to start in, or None for the scratch folder.
        scratch: private folder of this child, made when missing.
        execution_count: the number of the first cell.
        history: path of the history database; ``:memory:`` keeps none.
        argv: further arguments for ipykernel's application.
        hardening: what to give up before anything else; None for nothing, outside of a sandbox.
        forbidden: what to try that must not work, where the host cannot look into the sandbox.
    """

    cwd: str | None = None
    scratch: str = ""
    execution_count: int = 1
    history: str = ":memory:"
    argv: tuple[str, ...] = ()
    hardening: Mapping[str, Any] | None = None
    forbidden: Mapping[str, Any] | None = None

    @classmethod
    def parse(cls, data: bytes) -> Settings:
        """Read the settings; what is absent keeps its default.

        Raises:
            ValueError: the bytes are not a JSON object.
        """
        values = json.loads(data)
        if not isinstance(values, dict):
            raise ValueError("the settings are not an object")  # noqa: TRY004 - bad bytes, not a bad type
        return cls(
            cwd=values.get("cwd"),
            scratch=values.get("scratch") or "",
            execution_count=values.get("execution_count", 1),
            history=values.get("history") or ":memory:",
            argv=tuple(values.get("argv", ())),
            hardening=values.get("hardening"),
            forbidden=values.get("forbidden"),
        )


def parse_stubs(data: bytes) -> tuple[MagicStub, ...]:
    """Read the host's magics, for help and completion; they come after the HELLO.

    Raises:
        ValueError: the bytes are not a JSON array of magics.
    """
    return tuple(
        MagicStub(entry["name"], entry.get("kind", "line"), entry.get("doc", ""))
        for entry in json.loads(data)
    )
