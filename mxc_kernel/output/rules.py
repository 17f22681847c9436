"""The form of a redaction rule: the text a secret is found by, and what confirms it.

A rule is anchored on literals that stand at or before the first secret character, so a stream can
be held back exactly where a secret may have begun. The rules themselves are in `vendors` (prefixes
that name who issued a token) and `formats` (keys, headers, addresses, assignments). Their shapes
follow the vendors' documentation and the test fixtures of gitleaks and detect-secrets. There is no
rule for "looks random" alone: that is where false alarms come from.

What makes streaming sound is that a verdict never changes when more text arrives: ``body`` is the
shortest text that confirms the secret (fixed counts, or a character that ends it, and nothing said
about what follows), and ``tail`` is a class that covers all characters of the body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ALNUM", "GAP", "LIMIT", "WORD", "Rule", "labelled", "token"]

LIMIT = 512
"""Characters from the start of an anchor within which a rule must be confirmed."""

WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
ALNUM = WORD[:-1]

GAP = r"""[\s"'`=:>\\,|(\[&;]{1,24}"""
"""What stands between a label and its value in code, JSON, YAML, a shell, a repr or a table."""


@dataclass(frozen=True, slots=True)
class Rule:
    r"""One kind of secret.

    Attributes:
        name: shown in ``[redacted: name]``.
        anchors: literals, one of which stands at or before the secret.
        body: regular expression of the least that confirms the secret. A group, if one took part,
            is the secret, otherwise all of it is; what stands behind the group ends the secret.
        tail: character class the secret may go on with.
        lead: regular expression from the anchor to the secret; ``None`` if the anchor is its start.
        before: characters that may not stand before the anchor.
        until: expression that ends the secret (and belongs to it), for secrets with an end mark.
        reach: characters that the tail may go on for at most.
        rest: class to hide after a hold ran out of time, where it differs from the tail.
        harmless: expression for an unconfirmed rest that may be shown when a hold runs out of time.
        check: a last look at the confirmed body.
        ends: whether the end of the output ends the secret as a space would. What is not a secret
            then is shown when a hold runs out of time.
        vague: whether what it finds is better called by another rule that finds it too.
        needs: a character without which, within ``LIMIT``, there is no secret.
        alive: class of all characters that may stand between the anchor and the confirmation.
    """

    name: str
    anchors: tuple[str, ...]
    body: str
    tail: str = ""
    lead: str | None = None
    before: str = ""
    until: str = ""
    reach: int = 1 << 40
    rest: str = ""
    harmless: str = ""
    check: Callable[[str], bool] | None = None
    ends: bool = False
    vague: bool = False
    needs: str = ""
    alive: str = ""


def token(
    name: str,
    anchors: str,
    count: int,
    tail: str = r"[\w-]",
    *,
    before: str = WORD + "-",
    check: Callable[[str], bool] | None = None,
) -> Rule:
    """Return a rule for a vendor's prefix followed by ``count`` or more characters of a class.

    Args:
        name: shown in ``[redacted: name]``.
        anchors: the prefixes, apart by spaces.
        count: characters behind a prefix that confirm it; somewhat fewer than the vendor issues.
        tail: their class.
        before: characters that may not stand before the prefix.
        check: a last look.
    """
    words = tuple(anchors.split())
    escaped = "|".join(word.replace(".", r"\.").replace("$", r"\$") for word in words)
    body = f"(?:{escaped}){tail}{{{count}}}"
    return Rule(name, words, body, tail, before=before, check=check, alive=tail)


def labelled(
    name: str,
    labels: str,
    body: str,
    tail: str,
    *,
    gap: str = GAP,
    before: str = "",
    check: Callable[[str], bool] | None = None,
) -> Rule:
    """Return a rule for a value that is only known by the label before it.

    Args:
        name: shown in ``[redacted: name]``.
        labels: the labels, apart by spaces.
        body: expression for the least of the value.
        tail: the value's class.
        gap: expression for what stands between label and value.
        before: characters that may not stand before the label.
        check: a last look.
    """
    words = tuple(labels.split())
    lead = f"(?:{'|'.join(words)}){gap}"
    return Rule(name, words, body, tail, lead=lead, before=before, check=check)
