"""Rules for secrets in well-known forms: keys, web tokens, headers, addresses, assignments."""

from __future__ import annotations

from collections.abc import Callable

from mxc_kernel.output.looks import (
    holds_private_key,
    mixed,
    names_user,
    no_placeholder,
    opaque,
    scrambled,
    unguessable,
    unguessable_or_uuid,
)
from mxc_kernel.output.rules import ALNUM, Rule

__all__ = ["FORMATS"]

_URL = r"""[^\s/@:"'<>\\`]"""
_B64 = r"[A-Za-z0-9+/=]"
_PEM_LIMIT = 16 << 10  # characters; a 16,384-bit RSA key is 12.8 KB
_PEM_WORDS = "(?:[A-Z0-9]{1,10} ){0,3}PRIVATE KEY(?: BLOCK)?"
# What an assigned value is made of, and what ends it. "(", "{" and "[" do not: that is code.
_VALUE = r"""[^\s"'`<>\\;,(){}\[\]&]"""
_VALUE_END = r"""[\s"'`<>\\;,)}\]&]"""


def _cases(words: str) -> tuple[str, ...]:
    """Return labels as they are written in code, in the environment and in headers."""
    found: dict[str, None] = {}
    for word in words.split():
        parts = word.split("_")
        titled = [part.title() for part in parts]
        for glue in ("", "_", "-", "."):
            found[glue.join(parts)] = found[glue.join(parts).upper()] = None
            found[glue.join(titled)] = None
        found[parts[0] + "".join(titled[1:])] = None
    return tuple(found)


_LABELS = _cases(
    "password passwd passphrase secret api_key access_key auth_key private_key account_key "
    "app_key application_key master_key encryption_key signing_key service_key credential "
    "auth_token access_token api_token"
)
_VAGUE_LABELS = ("token", "Token", "TOKEN", "pwd", "PWD", "Pwd", "_pass", "_PASS")
# Tokens that are no secrets: where a list goes on, and against forged requests.
_OTHER_TOKENS = "next Next next_ page Page page_ csrf csrf_ xsrf public_"
_NO_LABEL = "".join(f"(?<!{word})" for word in (":", *_OTHER_TOKENS.split()))


def _assigned(labels: tuple[str, ...], check: Callable[[str], bool]) -> Rule:
    """Return a rule for what is assigned to a name that ends or goes on with one of the labels."""
    return Rule(
        "assigned-secret",
        labels,
        rf"({_VALUE}{{10,200}}){_VALUE_END}|({_VALUE}{{201}})",
        _VALUE,
        lead=_NO_LABEL + r"""[\w.-]{3,32}[\\"'\])]{0,4}[ \t]{0,4}(?:=>|[:=!]?==?|:|>)"""
        r"""[ \t]{0,4}[bru]?[\\"'`]{0,2}""",
        check=check,
        ends=True,
        vague=True,
    )


FORMATS: tuple[Rule, ...] = (
    Rule(
        "jwt",
        ("eyJ",),
        r"eyJ[\w-]{12,400}\.[\w-]{16}",
        r"[\w.=-]",
        before=ALNUM,
    ),
    Rule(
        "private-key",
        ("-----BEGIN ", "---- BEGIN "),
        # The first line alone is what programs that look for keys have in their source.
        rf"-----BEGIN {_PEM_WORDS}-----(?:"
        r"""[ \t]{0,8}(?:\r?\n|(?:\\{1,2}r)?\\{1,2}n)"""
        r"""[\s>|#*]{0,16}[A-Za-z0-9+/][A-Za-z0-9+/ :-]{7}"""
        r"""|[\s\\nr"'+,]{1,16}[A-Za-z0-9+/]{16})"""
        r"""|---- BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY ----""",
        r"""[A-Za-z0-9+/=\s:,.()\\"'\[\]>|#*@_-]""",
        until=rf"-----END {_PEM_WORDS}-----|---- END SSH2 (?:ENCRYPTED )?PRIVATE KEY ----",
        reach=_PEM_LIMIT,
    ),
    Rule(
        "private-key",
        ("Private-Lines:",),
        "[A-Za-z0-9+/]{16}",
        r"[A-Za-z0-9+/=\r\n]",
        lead=r"Private-Lines:\s{0,2}[0-9]{1,3}\s{1,4}",
        reach=_PEM_LIMIT,
    ),
    Rule(
        "private-key",
        ("LS0tLS1CRUdJTi",),
        "LS0tLS1CRUdJTi[A-Za-z0-9+/]{30}",
        _B64,
        check=holds_private_key,
    ),
    Rule(
        "private-key",
        ('"d"',),
        r"[\w-]{40}",
        r"[\w=-]",
        lead=r'"d"\s{0,2}:\s{0,2}"',  # of a JSON Web Key
        check=scrambled,
    ),
    Rule(
        "bearer-token",
        ("Bearer ", "bearer ", "BEARER "),
        r"[\w.~+/-]{20}",
        r"[\w.~+/=-]",
        lead=r"[Bb](?:earer|EARER) {1,4}",
        check=opaque,
    ),
    Rule(
        "basic-auth",
        ("Basic ", "basic ", '"auth"'),
        r"[A-Za-z0-9+/]{12}",
        _B64,
        lead=r"""[Bb]asic {1,4}|"auth"\s{0,2}:\s{0,2}\"""",  # in Docker's config.json
        check=names_user,
    ),
    Rule(
        "authorization",
        ("uthorization", "UTHORIZATION"),
        rf"({_VALUE}{{16,200}}){_VALUE_END}|({_VALUE}{{201}})",
        _VALUE,
        lead=r"""(?:uthorization|UTHORIZATION)[\\"'\]]{0,4}\s{0,2}[:=]\s{0,2}[\\"'`]{0,2}"""
        r"(?:[A-Za-z-]{3,12} {1,2})?",
        check=unguessable,
        ends=True,
        vague=True,
    ),
    Rule(
        "url-password",
        ("://",),
        rf"({_URL}{{3,128}})@",
        lead=rf"://{_URL}{{0,64}}:",
        check=no_placeholder,
        rest=_URL,
        harmless="[0-9]{1,5}",  # a port, as in http://localhost:8888
        needs="@",
        alive=r"""[^\s/"'<>\\`]""",
    ),
    Rule(
        "connection-string",
        (";Password=", ";password=", ";Pwd=", ";pwd=", ";PWD=", ";PASSWORD=", "; Password="),
        r"""[^\s;"'<>$%{]{4}""",
        r"""[^\s;"'<>]""",
        lead=r"; ?\w{3,8}=\s?",
    ),
    Rule(
        "npm-auth",
        ("_authToken", ":_auth", ":_password"),
        r"[\w.~+/-]{16}",
        r"[\w.~+/=-]",
        lead=r":?_(?:auth(?:Token)?|password)\s{0,4}=\s{0,4}[\"']?",
        check=mixed,  # not "self._authToken = get_token_somehow"
    ),
    Rule(
        "netrc",
        ("machine ",),
        r"(\S{6,128})\s|(\S{129})",
        r"\S",
        lead=r"machine\s{1,4}\S{1,128}\s{1,8}login\s{1,4}\S{1,128}\s{1,8}password\s{1,4}",
        check=no_placeholder,
        ends=True,
    ),
    _assigned(_LABELS, unguessable_or_uuid),
    _assigned(_VAGUE_LABELS, unguessable),
)
"""The form says it. Where several rules match at one place, the leftmost anchor names it."""
