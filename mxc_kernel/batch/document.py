"""A notebook's text: read with suspicion, made ready to run, and written again."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import nbformat
import orjson
from nbformat.reader import NotJSONError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mxc_kernel.batch import parameters
from mxc_kernel.batch.report import CellReport, NotebookReport
from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.kernelspec import NAME
from mxc_kernel.policy import Ask

__all__ = ["Document", "NotANotebookError", "done_before", "load", "read_source"]

_LARGEST = 512 << 20  # bytes
_OURS = "mxc"


class NotANotebookError(Exception):
    """The file is not a notebook that can be run; the message says why."""


@dataclass(frozen=True)
class Document:
    """A notebook, ready to run.

    Attributes:
        notebook: its nodes (nbformat 4), without outputs.
        code: the places of its code cells that are not empty.
    """

    notebook: Any
    code: tuple[int, ...]

    def ask(self) -> Ask:
        """Return what the notebook's metadata asks for under ``mxc.policy``.

        Raises:
            SandboxPolicyError: it cannot be understood.
        """
        entry = self.notebook.metadata.get(_OURS)
        policy = entry.get("policy") if isinstance(entry, dict) else None
        if policy is None:
            return Ask()
        try:
            wanted = _Wanted.model_validate(policy)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            key = ".".join(map(str, ("metadata.mxc.policy", *problem["loc"])))
            raise SandboxPolicyError(
                f"{key}: {problem['msg']}",
                remedy='Write {"filesystem": {"readonly": ["data"], "readwrite": ["out"]}}.',
            ) from None
        files = wanted.filesystem
        return Ask(tuple(files.readonly), tuple(files.readwrite), wanted.limits)

    def note(self, report: NotebookReport) -> None:
        """Put what is known of the run so far into the metadata of the notebook and its cells."""
        entry = self.notebook.metadata.setdefault(_OURS, {})
        entry["run"] = report.model_dump(mode="json", exclude={"cells"}, exclude_none=True)

    def note_cell(self, cell: CellReport) -> None:
        """Put what came of a cell into its metadata."""
        entry = self.notebook.cells[cell.index].metadata.setdefault(_OURS, {})
        entry["run"] = cell.model_dump(mode="json", exclude_defaults=True)

    def text(self, *, final: bool) -> bytes:
        """Return the notebook's file.

        Args:
            final: as Jupyter writes it; else only as fast as can be, for a file that is replaced
                after the next cell.
        """
        if final:
            return cast("str", nbformat.v4.writes_json(self.notebook)).encode() + b"\n"
        return orjson.dumps(self.notebook, option=orjson.OPT_NON_STR_KEYS)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Files(_Strict):
    readonly: list[str] = Field(default_factory=list, max_length=200)
    readwrite: list[str] = Field(default_factory=list, max_length=200)


class _Wanted(_Strict):
    filesystem: _Files = Field(default_factory=_Files)
    limits: dict[str, str | int] = Field(default_factory=dict)


def read_source(path: str) -> bytes:
    """Read a notebook's file.

    Raises:
        NotANotebookError: it is a link, no regular file, too large, or cannot be read.
    """
    # A sandbox may be able to write here: no link is followed and no pipe waited for.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise NotANotebookError("it is no regular file")
            if status.st_size > _LARGEST:
                raise NotANotebookError("it is larger than 512 MiB")
            return file.read(_LARGEST)
    except OSError as error:
        link = os.path.islink(path)
        why = "it is a symbolic link; name the file that it leads to" if link else error.strerror
        raise NotANotebookError(why) from error


def load(content: bytes, values: Mapping[str, Any]) -> Document:
    """Make a notebook ready to run.

    Outputs that it brings are dropped: they have not passed this kernel's gate, and those of cells
    that are not reached would look like results.

    Args:
        content: the file's bytes.
        values: parameters to put in.

    Raises:
        NotANotebookError: it is no notebook, or one in another language.
    """
    try:
        notebook: Any = nbformat.from_dict(json.loads(content))
        notebook = nbformat.convert(notebook, 4)
        _prepare(notebook)
        parameters.inject(notebook, values)
        nbformat.validate(notebook)
    except (NotJSONError, ValueError, RecursionError) as error:
        reason = "it is not JSON" if isinstance(error, ValueError) else "it is nested too deeply"
        raise NotANotebookError(reason) from error
    except nbformat.ValidationError as error:
        raise NotANotebookError(str(error).partition("\n")[0][:300]) from error
    except (AttributeError, KeyError, TypeError) as error:
        raise NotANotebookError("it has not the form of a notebook") from error
    code = (i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    return Document(notebook, tuple(i for i in code if notebook.cells[i].source.strip()))


def _prepare(notebook: Any) -> None:
    spec = notebook.metadata.get("kernelspec", {})
    info = notebook.metadata.get("language_info", {})
    language = str(spec.get("language") or info.get("name") or "python").lower()
    if language not in ("python", "ipython"):
        raise NotANotebookError(f"its language is {language[:50]!r}, and only Python runs here")
    # Whoever opens the result and runs it again does so in the sandbox.
    notebook.metadata["kernelspec"] = {
        "name": NAME,
        "display_name": "Python (MXC sandboxed)",
        "language": "python",
    }
    notebook.metadata.pop("widgets", None)
    _drop_run(notebook)
    for cell in notebook.cells:
        if isinstance(cell.source, list):
            cell.source = "".join(cell.source)
        _drop_run(cell)
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None


def _drop_run(node: Any) -> None:
    """Take out what an earlier run, or someone who imitates one, has put in."""
    entry = node.metadata.get(_OURS)
    if isinstance(entry, dict):
        entry.pop("run", None)
    elif entry is not None:
        del node.metadata[_OURS]


def done_before(content: bytes, key: str) -> NotebookReport | None:
    """Return what an executed notebook says of its own run, if that was for the same key.

    Args:
        content: the executed notebook, from the output folder.
        key: what the run would have now.
    """
    try:
        notebook = json.loads(content)
        report = NotebookReport.model_validate(notebook["metadata"][_OURS]["run"])
        if report.key != key:
            return None
        cells = [cell["metadata"].get(_OURS, {}).get("run") for cell in notebook["cells"]]
        report.cells = [CellReport.model_validate(cell) for cell in cells if cell]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return report


def sha256(data: bytes) -> str:
    """Return a hash in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
