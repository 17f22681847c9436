"""Policy magics: found at the top of a cell, carried out by the host, never by the child."""

from __future__ import annotations

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.magics.completion import Completion, complete
from mxc_kernel.magics.outcome import Action, MagicContext, Outcome, SandboxFacts, Throwaway
from mxc_kernel.magics.parser import Call, ParsedCell, parse_cell
from mxc_kernel.magics.table import CELL_MAGICS, MAGICS, Magic
from mxc_kernel.magics.usage import UsageError, read

__all__ = [
    "Action",
    "Call",
    "Completion",
    "MagicContext",
    "Outcome",
    "ParsedCell",
    "SandboxFacts",
    "Throwaway",
    "apply",
    "complete",
    "describe",
    "parse",
]


def parse(source: str) -> ParsedCell:
    """Find the policy magics at the top of a cell.

    Args:
        source: the cell, unchanged.

    Raises:
        SandboxPolicyError: a magic is misspelt, indented or out of place, or its arguments are not
            shell words.
    """
    return parse_cell(source, MAGICS, CELL_MAGICS)


def apply(parsed: ParsedCell, context: MagicContext) -> Outcome:
    """Carry out the magics of a cell: all of them or, where one fails, none.

    Nothing is changed but the value that is returned. What counts is the caller's doing.

    Args:
        parsed: the cell.
        context: what magics may know about their session.

    Raises:
        SandboxPolicyError: a usage error, or a request beyond the ceiling. No code may run then.
    """
    outcome = Outcome(context.request)
    for call in parsed.calls:
        magic = MAGICS[call.name]
        form = magic.form(cell=call.cell)
        try:
            outcome = form.run(read(form.arguments, call.words), outcome, context)
        except UsageError as error:
            sign = "%%" if call.cell else "%"
            cell = _meant_for_cell(magic, call)
            raise SandboxPolicyError(
                f"line {call.line}, {sign}{call.name}: {error}.",
                remedy=f"Usage: {magic.usage(cell=cell)}",
            ) from None
    return outcome


def _meant_for_cell(magic: Magic, call: Call) -> bool:
    """Tell which form a wrong call was meant for: it may use options that only the other has."""
    used = {word.partition("=")[0] for word in call.words}
    here, there = (
        used & {argument.name for argument in magic.form(cell=cell).arguments}
        for cell in (call.cell, not call.cell)
    )
    return call.cell if len(here) >= len(there) else not call.cell


def describe() -> list[dict[str, str]]:
    """Describe the magics for the child, which registers stubs for help and completion.

    Returns:
        For each magic its ``name``, ``kind`` (``line`` or ``line_cell``) and ``doc``.
    """
    return [{"name": item.name, "kind": item.kind, "doc": item.help} for item in MAGICS.values()]
