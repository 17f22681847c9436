"""What a confirmed value looks like: scrambled as keys are, or made of words as names are."""

# ruff: noqa: SIM905 - a word list is easier to read as text
from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote

__all__ = [
    "holds_private_key",
    "mixed",
    "names_user",
    "no_name",
    "no_nucleotides",
    "no_placeholder",
    "opaque",
    "scrambled",
    "unguessable",
    "unguessable_or_uuid",
]

# A name comes apart into words, a key into crumbs: "createCluster2" into 3 pieces of 5 characters,
# "q8Zk2mVnB7x" into 9 of 1.
_PIECES = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+|[^A-Za-z0-9_.-]")
_JOINTS = re.compile("[_.-]")
_NO_SECRET = re.compile(
    r"example|sample|dummy|placeholder|change.?me|change.?it|insert|replace|redacted|your.?|fake"
    r"|secret|password|passwd|passphrase|token|default|invalid|undefined|xxx|\*\*\*|\.\.\.|___|1234"
    r"|abcd?ef|qwert|0000|lorem|foo|test|mock|hello|n/?a\b",
    re.IGNORECASE,
)
_DATE = re.compile(r"(?:19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]")
_VERSION = re.compile(r"[vV=~^<>!]{0,3}[0-9]+(?:\.[0-9]+)+(?:[-+.]?[a-z]{1,8}[0-9.-]*)*")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_STRANGE = re.compile(
    r"://|^[/.~$%{<*@#|=!+-]|[$%]\{|%\(|%[sdr]|\$\(|^(?:sha\d+|md5)[-:]|^AWS4-|^arn:"
)
_ONE_CASE = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_DIGEST = 24  # hexadecimal digits; below, it may be anything
_SHORT = 16  # characters; below, a value must be more scrambled to be taken for a key


def mixed(text: str) -> bool:
    """Whether an opaque token is more than a word: prose after "Bearer " has no digits."""
    return any(character.isdigit() for character in text)


def scrambled(text: str) -> bool:
    """Whether a text is no name that a program would have: it falls into small pieces.

    Args:
        text: at least ten characters.
    """
    return _crumbs(text, 3.2) and len(set(text)) > 5


def no_name(text: str) -> bool:
    """Whether a text behind a vendor's prefix is no name either: ``hf_requiredCharacteristic…``.

    Milder than `scrambled`: 99 of 100 random texts pass, in letters alone too.

    Args:
        text: at least 16 characters.
    """
    return _crumbs(text, 4.4) and len(set(text)) > 5


def opaque(text: str) -> bool:
    """Whether what follows "Bearer " is a token: prose has neither digits nor crumbs."""
    return any(character.isdigit() for character in text) or scrambled(text)


def _crumbs(text: str, largest: float) -> bool:
    """Whether the pieces of a text are smaller than so many characters on average."""
    return len(_PIECES.findall(text)) * largest > len(_JOINTS.sub("", text))


def unguessable_or_uuid(value: str) -> bool:
    """Like `unguessable`, for labels that are never those of a request or an object."""
    return unguessable(value) or bool(_UUID.fullmatch(value) and scrambled(value))


def unguessable(value: str) -> bool:
    """Whether what is assigned to ``password``, ``token`` or ``api_key`` is a secret in earnest.

    It must mix letters and digits, fall into small pieces, and be no placeholder, date, version,
    path or expression. Decided on 60 MB of source code, logs and lock files.

    Args:
        value: without quotes.
    """
    size = len(value)
    digits = sum(character.isdigit() for character in value)
    letters = sum(character.isalpha() for character in value)
    if not digits or letters < 2 or len(set(value)) < min(8, size // 2 + 2):
        return False
    if _STRANGE.search(value) or _DATE.match(value) or _VERSION.fullmatch(value):
        return False
    if _NO_SECRET.search(value) or _UUID.fullmatch(value):
        return False
    if size < _SHORT:
        # "x86_64" and "utf-8" fall into pieces too: a short password has more than one case.
        return letters >= 4 and value.lower() != value != value.upper() and _crumbs(value, 2.6)
    if size < _DIGEST and _ONE_CASE.fullmatch(value):
        return False  # a short hash of something
    return _crumbs(value, 3.4) and value.count(".") < size // 8 + 1


def names_user(text: str) -> bool:
    """Whether Base64 text starts with the ``user:`` of HTTP basic authentication."""
    try:
        decoded = base64.b64decode(text[: len(text) // 4 * 4])
    except (binascii.Error, ValueError):
        return False
    return b":" in decoded and decoded.isascii()


def holds_private_key(text: str) -> bool:
    """Whether Base64 text is that of a private key's first line, as kubeconfig files have it."""
    try:
        return b"PRIVATE" in base64.b64decode(text[: len(text) // 4 * 4])
    except (binascii.Error, ValueError):
        return False


def no_nucleotides(text: str) -> bool:
    """Whether upper-case text is no DNA: primers begin with ACCA too."""
    return not set(text) <= set("ACGTUN")


_PLACEHOLDERS = frozenset(
    "pass passwd password pwd pw secret token xxx user username my your the a some".split()
)


def no_placeholder(text: str) -> bool:
    """Whether a password is more than the words that documentation puts in its place.

    Args:
        text: the password of a URL or of a ``.netrc`` line.
    """
    words = re.findall(r"[a-z]+|[0-9]", unquote(text).lower().replace("@", "a").replace("#", ""))
    ordinary = all(word in _PLACEHOLDERS for word in words)
    return not ordinary and text[0] not in "$%{[*" and len(set(text)) > 1
