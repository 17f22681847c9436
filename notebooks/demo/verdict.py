"""What is to come of a cell, what came of it, and whether that is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from world import World

__all__ = ["NOT_RUN", "Expectation", "Row", "judge", "outcome"]

NOT_RUN = "did not run"
MOST_TEXT = (1 << 20) + (16 << 10)
"""Characters: what a ceiling that says nothing lets a cell print, and room for a traceback."""

WORDS = ("allowed", "blocked", "refused", "contained", "error")


@dataclass(frozen=True)
class Expectation:
    """What is to come of a cell: the ``mxc`` entry of its metadata, field by field.

    Attributes:
        label: what the cell tries, in a few words.
        expect: ``allowed``: it runs; ``blocked``: it ends in an error, and the kernel notes that
            the sandbox stopped it; ``refused``: the kernel does not run it; ``contained``: it runs
            and achieves nothing outside; ``error``: it ends in an error of its own.
        error: the name of that error.
        writes: what it changes in the home folder, by path: a file's text, ``-> target`` for a
            link, None for what it removes. Nothing else may change.
        processes: what it leaves running: a word on the command line, and how many have it.
        says: texts in its output.
        shows: MIME types in its output.
    """

    label: str
    expect: str
    error: str = ""
    writes: Mapping[str, str | None] = field(default_factory=dict)
    processes: Mapping[str, int] = field(default_factory=dict)
    says: Sequence[str] = ()
    shows: Sequence[str] = ()

    @property
    def word(self) -> str:
        """What is expected, in a word: for an error its name."""
        return self.error or self.expect

    def __post_init__(self) -> None:
        if self.expect not in WORDS or (self.expect == "error") != bool(self.error):
            raise ValueError(
                f"“{self.label}” does not say in these words what is expected: {WORDS}"
            )


@dataclass
class Row:
    """One cell's line in the report.

    Attributes:
        happened: what came of the cell, in a word.
        facts: what else was seen, on the host above all.
        problems: what was not as expected.
    """

    expected: Expectation
    happened: str = NOT_RUN
    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def as_expected(self) -> bool:
        """Whether it ran and nothing was amiss."""
        return self.happened != NOT_RUN and not self.problems


def outcome(outputs: Sequence[Mapping[str, Any]], reply: Mapping[str, Any]) -> str:
    """Say in a word what came of a cell, by what the kernel sent.

    Args:
        outputs: the cell's outputs.
        reply: the content of the execute reply.
    """
    if reply["status"] == "ok":
        return "allowed"
    if reply.get("ename") == "SandboxPolicyError":
        return "refused"
    # Only the kernel itself can put this into an output's metadata.
    notes = [out.get("metadata", {}).get("mxc", {}).get("note") for out in outputs]
    if "blocked" in notes:
        return "blocked"
    return str(reply.get("ename", reply["status"]))


def judge(
    row: Row,
    outputs: Sequence[Mapping[str, Any]],
    reply: Mapping[str, Any],
    changes: Mapping[str, str | None],
    world: World,
) -> None:
    """Compare what came of a cell with what was expected, and fill in its row.

    Args:
        row: the cell's row.
        outputs: the cell's outputs.
        reply: the content of the execute reply.
        changes: what has changed in the home folder meanwhile; None for what was removed.
        world: tells the rest.
    """
    wanted = row.expected
    row.happened = outcome(outputs, reply)
    if row.happened != ("allowed" if wanted.expect == "contained" else wanted.word):
        why = str(reply.get("evalue", "")).partition("\n")[0]
        row.problems.append(
            f"expected “{wanted.word}”, but it was “{row.happened}”{why and f' ({why})'}"
        )
    _judge_files(row, changes)
    _judge_output(row, outputs, world)
    if world.was_called():
        row.problems.append("it reached a server of the host")
    for word, count in wanted.processes.items():
        found = world.await_processes(count, word)
        row.facts.append(f"{found} running on the host")
        if found != count:
            row.problems.append(f"{found} processes “{word}” run on the host, and not {count}")
    if wanted.expect == "contained" and not row.problems:
        row.happened = "contained"


def _judge_files(row: Row, changes: Mapping[str, str | None]) -> None:
    wanted = row.expected.writes
    for path, content in wanted.items():
        if path in changes and changes[path] == content:
            row.facts.append(f"{'removed' if content is None else 'wrote'} {path}")
        else:
            row.problems.append(f"{path} is not on the host as it should be")
    others = sorted(changes.keys() - wanted.keys())
    row.problems += [f"{path} has changed on the host" for path in others]
    if row.expected.expect in ("blocked", "refused", "contained") and not others:
        row.facts.append(f"nothing {'else ' if changes else ''}changed on the host")


def _judge_output(row: Row, outputs: Sequence[Mapping[str, Any]], world: World) -> None:
    everything = json.dumps(outputs)
    leaked = [name for name, value in world.secrets.items() if value in everything]
    row.problems += [f"the {name} stands in its output" for name in leaked]
    text = "\n".join(_texts(outputs))
    if len(text) > MOST_TEXT:
        row.problems.append(f"its output has {len(text)} characters, more than the limit")
    missing = [words for words in row.expected.says if words not in text]
    row.problems += [f"“{words}” is not in its output" for words in missing]
    kinds = {kind for out in outputs for kind in out.get("data", ())}
    for kind in row.expected.shows:
        if kind in kinds:
            row.facts.append(f"shows {kind}")
        else:
            row.problems.append(f"no {kind} is in its output")


def _texts(outputs: Sequence[Mapping[str, Any]]) -> list[str]:
    texts = []
    for out in outputs:
        texts += [out.get("text", ""), out.get("data", {}).get("text/plain", "")]
        texts += [out.get("evalue", ""), *out.get("traceback", ())]
    return texts
