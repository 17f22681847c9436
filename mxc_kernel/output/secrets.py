"""Exact secrets: which host values count, and every form in which they may be printed.

The host's environment never enters the sandbox, but its values may still come out of it (a granted
``.env`` file, a test fixture, a traceback of a client library), so they are looked for to the
letter. A value that is an ordinary word is left alone: masking each ``postgres`` in a log because
of ``DB_PASSWORD=postgres`` would hide everything and protect nothing.
"""

# ruff: noqa: SIM905 - long word lists are easier to read and to keep sorted as text
from __future__ import annotations

import base64
import html
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus, unquote, urlsplit

__all__ = [
    "HOST_SECRET",
    "covered_variables",
    "encoded_forms",
    "exact_secrets",
    "host_secrets",
    "ordinary_variables",
]

HOST_SECRET = "host-secret"  # noqa: S105
"""What a masked host value is called: the variable's name would tell the cell what the host has."""

MIN_LENGTH = 8  # characters; shorter values turn up by chance
_MIN_LINE = 12  # bytes of a line of a value with several lines
_MIN_BITS = 18.0  # length times Shannon entropy per character; "aaaaaaab" has 4, "Summer24" has 22
_WINDOW = 64  # characters; longer values are looked for piece by piece, so that a hold stays short
_MAX_VALUE = 64 << 10  # characters; what is longer is a file, not a secret

_SECRET_NAME = re.compile(
    r"""(?:^|_)(?:
        PASSWORD | PASSWD | PASSPHRASE | PASS | PWD | PW
      | SECRETS? | TOKENS? | KEYS? | PAT | CREDENTIALS? | CREDS? | AUTH | AUTHORIZATION
      | APIKEY | APITOKEN | ACCESSKEY | SECRETKEY | PRIVATEKEY | AUTHTOKEN
      | CONNECTION_?STRING | CONN_?STR | DSN | COOKIE | SAS | WEBHOOK(?:_URL)? | LICENSE
    )(?:_?\d+)?$ |
    (?:PASSWORD|SECRET|TOKEN|APIKEY|API_KEY|PRIVATE_KEY)(?!_(?:FILE|PATH|DIR|ID|NAME|TYPE)) """,
    re.VERBOSE,
)
_NOT_SECRET_NAME = re.compile(  # GPG_KEY: a public fingerprint in the official Python images
    r"^GPG_KEY$|_(?:FILE|PATH|DIR|HOME|NAME|ID|TYPE|USER|HOST|PORT|SOCK|ENABLED|COUNT|SIZE|URI|MODE)$"
)
_PATH = re.compile(r"(?:[A-Za-z]:)?[/\\~.][\w./\\ @:~+-]*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WORDS = re.compile(r"[a-z]+")

# What stands in real configurations where a secret should, and what is too common in output to
# mask.
_ORDINARY = frozenset(
    """
    admin administrator ansible apache api app application asdf auth azure backend bitnami broker
    build bucket cache changeit changeme client cloud cluster company config container customer dash
    data database default demo dev developer development disabled django docker elastic
    elasticsearch empty enabled engine example false flask frontend github gitlab grafana guest
    hadoop hello host http https hub insecure internal jenkins jupyter jupyterhub jupyterlab kafka
    key kibana kubernetes letmein linux local localhost login machine main manager master memcached
    minio mongo mongodb my myapp mydb mysql name nginx nobody none notebook notset null object
    oracle org owner pass passphrase password passwd postgres postgresql prod production project
    public python qwerty rabbitmq redis redhat remote replica required root sample sandbox secret
    server service session shared site spark staging standard storage string super superuser
    supersecret system temp template test testing tester tmp token tomcat trial true ubuntu
    undefined unknown unset user username vagrant value var web webapp welcome windows worker
    workspace world yes your zookeeper """.split()
)


def covered_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the variables whose values are looked for in output, sorted.

    Args:
        environ: the host's environment. Its values are not part of the answer.
    """
    return tuple(sorted(name for name, value in environ.items() if _literals(name, value)))


def ordinary_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the variables that are called like secrets but hold ordinary words.

    Args:
        environ: the host's environment. Its values are not part of the answer.
    """
    return tuple(
        sorted(
            name
            for name, value in environ.items()
            if value.strip() and _is_secret_name(name) and not _literals(name, value)
        )
    )


def host_secrets(environ: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return what to look for because of the host's environment, for ``Rules``.

    Args:
        environ: the host's environment.
    """
    values = (literal for name in environ for literal in _literals(name, environ[name]))
    return exact_secrets(HOST_SECRET, values)


def exact_secrets(name: str, values: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return texts to look for to the letter and in their encoded forms, for ``Rules``.

    Args:
        name: what to show for them.
        values: the texts; what is shorter than 8 characters is left out.
    """
    forms = {form: None for value in values for form in encoded_forms(value)}
    return {name: tuple(forms)} if forms else {}


def encoded_forms(value: str) -> tuple[str, ...]:
    """Return a value as it may be printed: raw, encoded, escaped, quoted, reversed, line by line.

    Args:
        value: the secret.

    Base64 is taken at its three phases, without the characters that neighbours share. Forms longer
    than 64 characters are cut into pieces that are looked for one by one.
    """
    forms: dict[str, None] = {}
    lines = [line for line in value.splitlines() if len(line.encode()) >= _MIN_LINE]
    for text in dict.fromkeys((value, *lines) if "\n" in value else (value,)):
        for form in _forms(text):
            if len(form) >= MIN_LENGTH:
                forms.update(dict.fromkeys(_windows(form)))
    return tuple(forms)


def _forms(text: str) -> Iterator[str]:
    data = text.encode("utf-8", "surrogatepass")
    yield text.encode("utf-8", "replace").decode()
    for phase in range(3):
        # What comes before shifts the bits; characters that hold a neighbour's bits are left out.
        encoded = base64.b64encode(bytes(phase) + data)
        part = encoded[(0, 2, 3)[phase] : (phase + len(data)) * 8 // 6].decode()
        yield part
        yield part.replace("+", "-").replace("/", "_")
    yield data.hex()
    yield data.hex().upper()
    yield base64.b32encode(data)[: len(data) * 8 // 5].decode()
    yield quote(data, safe="")
    yield quote(data)
    yield quote_plus(data)
    once = json.dumps(text)[1:-1]
    yield once
    yield json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace").decode()
    yield json.dumps(once)[1:-1]
    yield repr(text)[1:-1]
    yield html.escape(text, quote=False).encode("utf-8", "replace").decode()
    yield html.escape(text).encode("utf-8", "replace").decode()
    yield html.escape(text).replace("&#x27;", "&#39;").encode("utf-8", "replace").decode()
    yield text[::-1].encode("utf-8", "replace").decode()


def _windows(form: str) -> Iterator[str]:
    if len(form) <= _WINDOW:
        yield form
        return
    for start in range(0, len(form) - _WINDOW, _WINDOW):
        yield form[start : start + _WINDOW]
    yield form[-_WINDOW:]


def _literals(name: str, value: str) -> tuple[str, ...]:
    """Return the secret texts in a variable's value; none if it does not count."""
    value = value.strip()
    if not MIN_LENGTH <= len(value) <= _MAX_VALUE:
        return ()
    password = _url_password(value)
    if password is not None:
        return tuple(word for word in password if _worth(word))
    if not _is_secret_name(name):
        return ()
    if value.startswith("{"):
        return _json_secrets(value)
    if _PATH.fullmatch(value) and value.count("/") + value.count("\\") > 1:
        return ()
    # The scheme is no part of the secret, and "https://" at the end of a write should not be held.
    value = _SCHEME.sub("", value, count=1) if _SCHEME.match(value) else value
    return (value,) if _worth(value) else ()


def _is_secret_name(name: str) -> bool:
    # camelCase and dashes are read like underscores.
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper().replace("-", "_").replace(".", "_")
    return bool(_SECRET_NAME.search(words)) and not _NOT_SECRET_NAME.search(words)


def _url_password(value: str) -> tuple[str, ...] | None:
    """Return the password in a URL as written and decoded; ``None`` if there is none."""
    if "://" not in value or "@" not in value:
        return None
    try:
        password = urlsplit(value).password
    except ValueError:
        return None
    return tuple(dict.fromkeys((password, unquote(password)))) if password else None


def _json_secrets(value: str) -> tuple[str, ...]:
    """Return the secret fields of a JSON value, such as a service account's key file."""
    try:
        content = json.loads(value)
    except (ValueError, RecursionError):
        return (value,) if _worth(value) else ()
    found = [
        text
        for key, text in content.items()
        if isinstance(text, str)
        and len(text) >= MIN_LENGTH
        and (_is_secret_name(key) or key == "private_key_id")
        and _worth(text)
    ]
    return tuple(found)


def _worth(value: str) -> bool:
    """Whether a value is improbable enough in ordinary output to be looked for."""
    if len(value) < MIN_LENGTH or _bits(value) < _MIN_BITS:
        return False
    if value.isdigit() and len(value) < 12:  # dates, times, phone and port numbers
        return False
    return not _ordinary(value)


def _bits(value: str) -> float:
    total = len(value)
    shares = (count / total for count in Counter(value).values())
    return -total * sum(share * math.log2(share) for share in shares)


def _ordinary(value: str) -> bool:
    """Whether a value is made of words: known ones, or a short pronounceable one."""
    lowered = value.lower()
    words = _WORDS.findall(lowered)
    if not words or sum(map(len, words)) < len(lowered) // 2:
        return False
    known = [word in _ORDINARY for word in words]
    if any(known) and all(ok or len(word) < 3 for ok, word in zip(known, words, strict=True)):
        return True
    return len(words) == 1 and lowered.isalpha() and len(value) < 12 and _pronounceable(lowered)


def _pronounceable(word: str) -> bool:
    vowels = sum(letter in "aeiouy" for letter in word)
    return 0.25 <= vowels / len(word) <= 0.6 and not re.search(
        r"[^aeiouy]{5}|[jqxz][^aeiouy]", word
    )
