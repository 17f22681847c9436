"""Parameters of a notebook, put in as papermill does it."""

from __future__ import annotations

import json
import keyword
import math
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from nbformat.v4 import new_code_cell

from mxc_kernel.errors import MxcKernelError

__all__ = ["inject", "parse_pairs", "read_file"]

_INJECTED, _TAG = "injected-parameters", "parameters"
_WORDS = {"True": True, "False": False, "None": None}


def parse_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """Read ``name=value`` words; what looks like a number, True, False or None is one.

    Raises:
        MxcKernelError: a word has another form.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise MxcKernelError(
                f"{pair!r} is no parameter.", remedy="Write --parameters name=value."
            )
        found[name] = _value(text)
    return checked(found)


def _value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def read_file(path: str) -> dict[str, Any]:
    """Read a file of parameters: JSON or, by its name, TOML or YAML.

    Raises:
        MxcKernelError: it cannot be read, or is not a table of parameters.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if path.endswith(".toml"):
            data = tomllib.loads(text)
        elif path.endswith((".yaml", ".yml")):
            data = _yaml(text)
        else:
            data = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise MxcKernelError(
            f"{path} cannot be read: {error}",
            remedy='Write a file such as {"year": 2024} (JSON), or one in TOML or YAML.',
        ) from error
    if not isinstance(data, dict):
        raise MxcKernelError(
            f"{path} holds no names with values.", remedy='Write a file such as {"year": 2024}.'
        )
    return checked(data)


def _yaml(text: str) -> Any:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError("YAML needs the package PyYAML") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def checked(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters that can be written as Python.

    Raises:
        MxcKernelError: a name is no name of a variable, or a value is no plain data.
    """
    for name, value in parameters.items():
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise MxcKernelError(
                f"{name!r} cannot be the name of a parameter.",
                remedy="Use a name that Python takes for a variable.",
            )
        literal(value)
    return dict(parameters)


def literal(value: Any) -> str:
    """Return the Python expression for plain data.

    Raises:
        MxcKernelError: it is something else, such as a date.
    """
    if value is None or isinstance(value, bool | int | str):
        return repr(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"float({str(value)!r})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in value.items())}}}"
    raise MxcKernelError(
        f"{value!r} cannot be a parameter: it is a {type(value).__name__}.",
        remedy="Use texts, numbers, True, False, None, lists and tables; write a date as a text.",
    )


def inject(notebook: Any, parameters: Mapping[str, Any]) -> None:
    """Put a cell with parameters into a notebook.

    Behind the cell that is tagged ``parameters``, whose values it overrides; else at the top. One
    that papermill or we have put in before is replaced.

    Args:
        notebook: a notebook of nbformat 4; changed in place.
        parameters: what `checked` has returned; without any, nothing is done.
    """
    if not parameters:
        return
    lines = [f"{name} = {literal(value)}" for name, value in parameters.items()]
    cell = new_code_cell("\n".join(["# Parameters", *lines]))
    cell.metadata["tags"] = [_INJECTED]
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        del cell["id"]
    cells = notebook.cells
    if (at := _tagged(cells, _INJECTED)) is not None:
        cells[at] = cell
    else:
        at = _tagged(cells, _TAG)
        cells.insert(0 if at is None else at + 1, cell)


def _tagged(cells: list[Any], tag: str) -> int | None:
    return next((i for i, cell in enumerate(cells) if tag in cell.metadata.get("tags", ())), None)
