"""Stand-ins for the magics that only the host understands, so that help and completion know them.

The host reads policy magics at the top of a cell and acts on them before the cell comes here; the
source reaches the child unchanged. So a stand-in does nothing when the host says that it has
acted, and explains itself when it is called from anywhere else.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mxc_kernel.worker.settings import MagicStub

__all__ = ["Stubs"]

_OUT_OF_PLACE = (
    "{sign}{name} is a policy magic: it works only at the top of a cell, before any code, and not "
    "through get_ipython() or exec(). Nothing was changed."
)


def _entry(text: str) -> str:
    """Return the form in which calls are compared with what the host names, blanks evened out."""
    return " ".join(text.split())


@dataclass
class _Handled:
    """What the host has done for one cell.

    Attributes:
        waiting: the magics whose stand-ins are still to be called, in order.
        cell: the cell magic that was taken out of the source.
    """

    waiting: deque[str]
    cell: str | None = None


class _StandIn:
    """A magic that passes where the host has acted on it, and explains itself anywhere else."""

    def __init__(self, stubs: Stubs, name: str, doc: str) -> None:
        self._stubs = stubs
        self.__name__ = name
        self.__doc__ = doc

    def __call__(self, line: str, cell: str | None = None) -> None:
        self._stubs.called(self.__name__, line, cell=cell is not None)


class Stubs:
    """The host's magics inside the child.

    Args:
        shell: IPython's shell, which completes and documents what is registered with it.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        # Subshells run cells at the same time, so what is handled belongs to the running cell.
        self._handled: ContextVar[_Handled] = ContextVar("mxc_handled")
        shell.input_transformers_cleanup.append(self._without_cell_magic)

    def register(self, stubs: Iterable[MagicStub]) -> None:
        """Make the magics known to ``%lsmagic``, ``%name?`` and completion."""
        for stub in stubs:
            # A path with a dollar sign or braces must compare as written.
            function = no_var_expand(_StandIn(self, stub.name, stub.doc))
            kinds = ("line", "cell") if stub.kind == "line_cell" else (stub.kind,)
            for kind in kinds:
                self._shell.register_magic_function(function, kind, stub.name)
        self._correct_help(self._shell.inspector)

    @staticmethod
    def _correct_help(inspector: Any) -> None:
        """Show the help text and no file: our modules have none in the sandbox.

        ``%name??`` asks for the source alone, and IPython fails where there is nothing to show.
        """
        look_up = inspector.info

        def info(obj: Any, *args: Any, **kwargs: Any) -> Any:
            found = look_up(obj, *args, **kwargs)
            if isinstance(obj, _StandIn):
                found["file"], found["source"] = None, obj.__doc__
            return found

        inspector.info = info

    @contextmanager
    def handled(self, entries: object) -> Iterator[None]:
        """Let the stand-ins named in ``entries`` pass silently, in order, during one cell."""
        named = entries if isinstance(entries, list | tuple) else ()
        token = self._handled.set(_Handled(deque(_entry(str(entry)) for entry in named)))
        try:
            yield
        finally:
            self._handled.reset(token)

    def called(self, name: str, line: str, *, cell: bool) -> None:
        """Pass a call that the host has acted on.

        Raises:
            UsageError: it has not: the call stands where the host does not look.
        """
        waiting = self._now().waiting
        if cell or not waiting or waiting[0] != _entry(f"{name} {line}"):
            raise UsageError(_OUT_OF_PLACE.format(sign="%%" if cell else "%", name=name))
        waiting.popleft()

    def _now(self) -> _Handled:
        return self._handled.get(_Handled(deque()))

    def _without_cell_magic(self, lines: list[str]) -> list[str]:
        """Take out a handled ``%%name`` line, so that the cell's body runs as an ordinary cell.

        Running it through ``run_cell_magic`` would need a cell within the cell, and its error
        would not be the cell's error. IPython has dropped blank lines above it by now, and may
        transform a cell more than once.
        """
        if not lines or not lines[0].startswith("%%"):
            return lines
        entry, now = _entry(lines[0][2:]), self._now()
        if now.cell is None and now.waiting and now.waiting[0] == entry:
            now.cell = now.waiting.popleft()
        if now.cell != entry:
            return lines
        body = [*lines[1:]]
        while body and body[0].isspace():
            del body[0]
        if body and body[0].startswith("%%"):
            return body  # %%bash and the like count on the first line only
        return ["\n", *lines[1:]]  # the numbers of the lines stay
