"""Pydantic's part: what is wrong with a ceiling file, and the JSON Schema.

Imported only when a file is not plainly right, and for the schema.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy.document import CeilingFile

__all__ = ["ceiling_schema", "validate"]

T = TypeVar("T")

# Pydantic speaks of Python's types where people have written TOML.
_WORDS = {
    "string_type": 'this must be a text. Write it in quotes, such as "2GiB"',
    "int_type": "this must be a whole number. Write it without quotes",
    "tuple_type": 'this must be a list. Write it in brackets, such as ["~/data"]',
    "dataclass_type": "this must be a section. Write it as [name] with keys below it",
}


def ceiling_schema() -> dict[str, Any]:
    """Return the JSON Schema of ceiling files, for editors; generated from the models."""
    schema = TypeAdapter(CeilingFile).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_without_nulls(schema)}


def validate(data: dict[str, Any], source: str, model: type[T]) -> T:
    """Check TOML data against a model.

    Args:
        data: what TOML gave.
        source: the file's path, for messages.
        model: what it is to be.

    Raises:
        SandboxPolicyError: names the file, the key and what to write instead.
    """
    try:
        valid: T = _judge(cast("Any", model)).validate_python(data)
    except ValidationError as error:
        raise _explained(error, source, model) from None
    return valid


@cache
def _judge(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _explained(error: ValidationError, source: str, model: type[Any]) -> SandboxPolicyError:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = problems[0]
    names = [str(name) for name in first["loc"] if not _internal(name)]
    key = ".".join(names) or "the file"
    # A value that fits none of two kinds is one mistake, reported twice.
    places = {tuple(name for name in item["loc"] if not _internal(name)) for item in problems}
    more = len(places) - 1
    rest = f" ({more} more after it)" if more else ""
    if first["type"] == "unexpected_keyword_argument":
        known = _keys(model, names[:-1])
        if len(names) == 1 and names[0] in _keys(CeilingFile, []):
            remedy = f"A ceiling beside a notebook can only narrow; move [{names[0]}] to your own."
        elif close := difflib.get_close_matches(names[-1], known, n=1):
            remedy = f"Did you mean {close[0]!r}?"
        else:
            remedy = f"Known here: {', '.join(known)}."
        return SandboxPolicyError(f"{source}: unknown key {key}{rest}", remedy=remedy)
    text = _WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
    problem, _, remedy = text.partition(". ")
    return SandboxPolicyError(
        f"{source}: {key}: {problem}{rest}",
        remedy=(remedy.rstrip(".") or "Correct the value; `mxc-kernel init` writes an example")
        + ".",
    )


def _internal(name: int | str) -> bool:
    """Whether pydantic put the name there for a member of a union."""
    return (isinstance(name, str) and not re.fullmatch(r"[a-z_]+", name)) or name in {"int", "str"}


def _keys(model: type[Any], path: list[str]) -> list[str]:
    """The keys that a model knows, or one of its sections."""
    for name in path:
        if not name.isdigit():  # a place in a list
            model = next(_sections(get_type_hints(model).get(name)))
    return [field.name for field in fields(model)]


def _sections(kind: Any) -> Iterator[type[Any]]:
    """Yield the models in an annotation."""
    if isinstance(kind, type) and is_dataclass(kind):
        yield kind
    for part in get_args(kind):
        yield from _sections(part)


def _without_nulls(node: Any) -> Any:
    """Take out the `null` that stands for an absent key; TOML has none."""
    if isinstance(node, list):
        return [_without_nulls(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {
        key: _without_nulls(value)
        for key, value in node.items()
        if not (key == "default" and value is None)
    }
    if options := [item for item in node.get("anyOf", ()) if item != {"type": "null"}]:
        del node["anyOf"]
        return {**node, **(options[0] if len(options) == 1 else {"anyOf": options})}
    return node
