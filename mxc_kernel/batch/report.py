"""The report of a run: what stands in report.json and in each executed notebook's metadata."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from mxc_kernel.batch.outcomes import Status, worst

__all__ = [
    "Asked",
    "CellReport",
    "Denial",
    "ErrorText",
    "NotebookReport",
    "RunReport",
    "report_schema",
]

VERSION = 1


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)


class Denial(_Model):
    """Something that was blocked, as the cell reported it and the ceiling explains it."""

    what: str
    """What was tried."""
    rule: str
    """The rule that stopped it, and who can change that."""
    grant: str | None = None
    """The magic that would have allowed it, where the ceiling holds it."""
    by_policy: bool = True
    """Whether the sandbox stopped it, and not the file's own permissions."""


class ErrorText(_Model):
    """An error, shortened, redacted and without colours."""

    name: str
    value: str
    traceback: str = ""


class CellReport(_Model):
    """One code cell."""

    index: int
    """Its place in the executed notebook, from 0."""
    id: str | None = None
    """The cell's id, where the notebook has any."""
    status: Status
    seconds: float = 0.0
    """From sending it to its end, the start of a new sandbox included."""
    execution_count: int | None = None
    expected: bool = False
    """Whether the cell's tag `raises-exception` says that an error is what it is for."""
    error: ErrorText | None = None
    denials: list[Denial] = Field(default_factory=list)
    redacted: dict[str, int] = Field(default_factory=dict)
    """Secrets hidden in its output, by rule."""
    truncated: dict[str, int] = Field(default_factory=dict)
    """Of its text, the bytes printed and shown, where that is less."""
    outputs_refused: int = 0
    """Displays that were not shown because of a limit."""
    peak_memory: int | None = None
    """The most bytes that the sandbox had used by then."""


class Asked(_Model):
    """A path that a notebook's metadata asks for."""

    path: str
    asked: str
    granted: str


class NotebookReport(_Model):
    """One notebook."""

    name: str
    """Its path below the folder that all of the run's notebooks are in."""
    source: str
    output: str | None = None
    """Where the executed notebook is; none where the file is no notebook."""
    status: Status
    reason: str = ""
    """Why, where no cell says it."""
    started: str | None = None
    """When it began (RFC 3339, UTC)."""
    seconds: float = 0.0
    input_sha256: str | None = None
    ceiling_sha256: str | None = None
    """Over all that decides what its requests come to."""
    key: str | None = None
    """SHA-256 over what decides whether `--resume` takes it as done."""
    asked: list[Asked] = Field(default_factory=list)
    cells: list[CellReport] = Field(default_factory=list)
    """The code cells that were begun."""
    cells_total: int = 0
    """Code cells that are not empty."""
    peak_memory: int | None = None
    resumed: bool = False
    """Whether an earlier run has done it."""
    attempts: int = 1
    """How often it was begun; more than once means that side effects may have happened twice."""
    worker: str | None = None
    """The worker of a cluster that ran it."""
    audit_session: str | None = None
    """The session in the audit trail."""

    @property
    def denials(self) -> int:
        """How many denials its cells reported."""
        return sum(len(cell.denials) for cell in self.cells)


class RunReport(_Model):
    """A run of notebooks."""

    version: Literal[1] = 1
    tool: str
    started: str
    """When it began (RFC 3339, UTC)."""
    seconds: float = 0.0
    output_dir: str
    options: dict[str, Any] = Field(default_factory=dict)
    notebooks: list[NotebookReport] = Field(default_factory=list)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def status(self) -> Status:
        """The gravest outcome."""
        return worst(notebook.status for notebook in self.notebooks)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def counts(self) -> dict[str, int]:
        """How many notebooks had each outcome."""
        return dict(Counter(str(notebook.status) for notebook in self.notebooks))

    def as_json(self) -> bytes:
        """Return the text of a report file."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema of report files; generated from the models."""
    schema = RunReport.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
