"""Frozen value classes for what is loaded before the sandbox is launched.

They are declared and used as frozen dataclasses are, and are dataclasses to whoever asks
(pydantic, ``dataclasses.fields``). But :mod:`dataclasses` imports :mod:`inspect` and compiles six
functions for each class, which is a quarter of what the host does before it launches; here all
classes share theirs. Everything that is loaded later uses dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, dataclass_transform, overload

__all__ = ["derived", "field_names", "is_record", "record", "replace"]

_T = TypeVar("_T")
_Class = TypeVar("_Class", bound=type)
_DERIVED = object()
_NONE = object()


def derived(*, init: Literal[False] = False) -> Any:  # noqa: ARG001  # for type checkers
    """Return the default of an attribute that ``__post_init__`` sets and that is no field."""
    return _DERIVED


@overload
def record(cls: _Class, /) -> _Class: ...
@overload
def record(*, eq: bool = True, kw_only: bool = False) -> Callable[[_Class], _Class]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(derived,))
def record(cls: Any = None, /, *, eq: bool = True, kw_only: bool = False) -> Any:
    """Make a class a frozen record of its annotated names.

    A default must not be mutable: all instances share it. ``__post_init__`` is called if there is
    one, and sets attributes by ``object.__setattr__``.

    Args:
        cls: the class.
        eq: compare and hash by the fields; otherwise by what the class says itself.
        kw_only: take no positional arguments.
    """
    if cls is None:
        return lambda decorated: _made(decorated, eq, kw_only)
    return _made(cls, eq, kw_only)


def _made(cls: Any, eq: bool, kw_only: bool) -> Any:
    names: dict[str, Any] = {}
    for base in reversed(cls.__mro__[1:]):
        names |= base.__dict__.get("__record_defaults__", {})
    for name, annotation in cls.__annotations__.items():
        default = cls.__dict__.get(name, _NONE)
        if default is _DERIVED:
            delattr(cls, name)
        elif not str(annotation).startswith("ClassVar"):
            names[name] = default
    cls.__record_defaults__ = names
    cls.__match_args__ = () if kw_only else tuple(names)  # type: ignore[misc]
    cls.__dataclass_fields__ = _AsDataclass()
    given = [_init, _repr, _setattr, _delattr, *([_eq, _hash] if eq else [])]
    for function in given:
        name = f"__{function.__name__[1:]}__"
        if cls.__dict__.get(name) is None:  # defining __eq__ alone sets __hash__ to None
            setattr(cls, name, function)
    return cls


def field_names(cls: Any) -> tuple[str, ...]:
    """Return the names of a record's fields, in order."""
    return tuple(cls.__record_defaults__)


def is_record(cls: object) -> bool:
    """Whether this is a class of records."""
    return isinstance(cls, type) and hasattr(cls, "__record_defaults__")


def replace(instance: _T, /, **changes: Any) -> _T:
    """Return a record with some fields changed, checked anew by its ``__post_init__``."""
    names = field_names(instance)
    return type(instance)(**{name: getattr(instance, name) for name in names} | changes)


def _init(self: Any, *args: Any, **given: Any) -> None:
    cls = type(self)
    if args:
        if len(args) > len(cls.__match_args__):
            raise TypeError(f"{cls.__name__}() takes {len(cls.__match_args__)} arguments at most")
        for name, value in zip(cls.__match_args__, args, strict=False):
            if name in given:
                raise TypeError(f"{cls.__name__}() got two values for {name!r}")
            given[name] = value
    for name, default in cls.__record_defaults__.items():
        value = given.pop(name, default)
        if value is _NONE:
            raise TypeError(f"{cls.__name__}() needs {name!r}")
        object.__setattr__(self, name, value)
    if given:
        raise TypeError(f"{cls.__name__}() knows no {', '.join(map(repr, given))}")
    if hasattr(cls, "__post_init__"):
        self.__post_init__()


def _values(self: Any) -> tuple[Any, ...]:
    return tuple([getattr(self, name) for name in self.__record_defaults__])


def _repr(self: Any) -> str:
    shown = zip(self.__record_defaults__, _values(self), strict=True)
    return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in shown)})"


def _eq(self: Any, other: object) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return _values(self) == _values(other)


def _hash(self: Any) -> int:
    return hash(_values(self))


def _setattr(self: Any, name: str, _value: object) -> None:
    raise AttributeError(f"cannot assign to {name!r}: a {type(self).__name__} never changes")


def _delattr(self: Any, name: str) -> None:
    raise AttributeError(f"cannot delete {name!r}: a {type(self).__name__} never changes")


class _AsDataclass:
    """Makes ``__dataclass_fields__`` when somebody asks for it, which few do."""

    def __get__(self, instance: object, cls: Any) -> dict[str, Any]:
        import dataclasses

        twin = type(cls.__name__, (), {"__annotations__": {}})
        annotations: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            annotations |= getattr(base, "__annotations__", {})
        for name, default in cls.__record_defaults__.items():
            twin.__annotations__[name] = annotations[name]
            if default is not _NONE:
                setattr(twin, name, _field(dataclasses.field, default))
        kw_only = not cls.__match_args__
        make: Any = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only)
        fields: dict[str, Any] = make(twin).__dataclass_fields__
        cls.__dataclass_fields__ = fields
        return fields


def _field(field: Callable[..., Any], default: object) -> Any:
    if type(default).__hash__ is not None:
        return field(default=default)
    return field(default_factory=lambda: default)  # a dataclass takes no other that may be mutable
