"""The redaction rules: what a secret looks like, and the text it is found by.

A rule is anchored on literals that stand at or before the first secret character, so a stream can
be held back exactly where a secret may have begun. The shapes follow the vendors' documentation and
the test fixtures of gitleaks and detect-secrets. There is no rule for "looks random": that is where
false alarms come from.

What makes streaming sound is that a verdict never changes when more text arrives: ``body`` is the
shortest text that confirms the secret (fixed counts, nothing said about what follows), and ``tail``
is a class that covers all characters of the body.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["BUILT_IN", "LIMIT", "Rule"]

LIMIT = 512
"""Characters from the start of an anchor within which a rule must be confirmed."""

_WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
_ALNUM = _WORD[:-1]
_PEM_LIMIT = 16 << 10  # characters; a 16,384-bit RSA key is 12.8 KB


@dataclass(frozen=True, slots=True)
class Rule:
    r"""One kind of secret.

    Attributes:
        name: shown in ``[redacted: name]``.
        anchors: literals, one of which stands at or before the secret.
        body: regular expression of the least that confirms the secret; group 1, if there is one, is
            the secret, otherwise all of it is.
        tail: character class the secret may go on with, or a pattern if ``until`` is set.
        lead: regular expression from the anchor to the secret; ``None`` if the anchor is its start.
        before: characters that may not stand before the anchor.
        until: expression that ends the secret (and belongs to it), for secrets with an end mark.
        reach: characters that the tail may go on for at most.
        rest: class to hide after a hold ran out of time, where it differs from the tail.
        harmless: expression for an unconfirmed rest that may be shown when a hold runs out of time.
        check: a last look at the confirmed body.
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


def _token(
    name: str, anchors: str, count: int, tail: str = r"[\w-]", before: str = _WORD + "-"
) -> Rule:
    """Return a rule for a vendor's prefix followed by ``count`` or more characters of a class."""
    words = tuple(anchors.split())
    escaped = "|".join(word.replace(".", r"\.") for word in words)
    return Rule(name, words, f"(?:{escaped}){tail}{{{count}}}", tail, before=before)


# What stands between a label and its value in code, JSON, YAML, INI, a shell, a repr or a table.
_GAP = r"""[\s"'=:>\\,|(\[&;]{1,24}"""


def _labelled(name: str, labels: str, body: str, tail: str, gap: str = _GAP) -> Rule:
    """Return a rule for a value that is only known by the label before it."""
    words = tuple(labels.split())
    return Rule(name, words, body, tail, lead=f"(?:{'|'.join(words)}){gap}")


def _mixed(text: str) -> bool:
    """Whether an opaque token is more than a word: prose after "Bearer " has no digits."""
    return any(character.isdigit() for character in text)


def _names_user(text: str) -> bool:
    """Whether Base64 text starts with the ``user:`` of HTTP basic authentication."""
    try:
        return b":" in base64.b64decode(text[: len(text) // 4 * 4])
    except (binascii.Error, ValueError):
        return False


_PLACEHOLDERS = frozenset(
    {"pass", "passwd", "password", "pwd", "pw", "secret", "token", "xxx", "***"}
)


def _no_placeholder(text: str) -> bool:
    """Whether a URL's password is more than the word that documentation puts in its place."""
    return text.lower() not in _PLACEHOLDERS and text[0] not in "$%{[*" and len(set(text)) > 1


def _discord_anchors() -> tuple[str, ...]:
    """Return how the Base64 of a user id may begin; ids are decimal numbers."""
    pairs = ("MT", "Mj", "Mz", "ND", "NT", "Nj", "Nz", "OD", "OT")
    return tuple(pair + third for pair in pairs for third in "AEIMQUYcgk")


_URL = r"""[^\s/@:"'<>\\`]"""
_B64 = r"[A-Za-z0-9+/=]"
_BASE64URL = r"[\w-]"

BUILT_IN: tuple[Rule, ...] = (
    # Cloud providers
    Rule(
        "aws-access-key",
        ("AKIA", "ASIA", "ABIA", "ACCA"),
        r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",
        "[A-Z0-9]",
        before=_WORD + "+/",
    ),
    _labelled(
        "aws-secret-key",
        "aws_secret_access_key AWS_SECRET_ACCESS_KEY aws_secret_key AWS_SECRET_KEY SecretAccessKey "
        "secretAccessKey secret_access_key SECRET_ACCESS_KEY aws_secret AWS_SECRET awsSecretKey "
        "aws_session_token AWS_SESSION_TOKEN SessionToken sessionToken",
        "[A-Za-z0-9+/]{40}",
        _B64,
    ),
    _token("google-api-key", "AIza", 35),
    _token("google-oauth", "GOCSPX-", 24),
    _token("google-oauth", "ya29.", 20, r"[\w.-]"),
    _labelled(
        "azure-storage-key",
        "AccountKey SharedAccessKey AZURE_STORAGE_KEY AZURE_STORAGE_ACCOUNT_KEY account_key",
        "[A-Za-z0-9+/]{40}",
        _B64,
    ),
    Rule(
        "azure-sas",
        ("sig=",),
        "(?:[A-Za-z0-9+/]|%[0-9A-Fa-f]{2}){42}",
        "[A-Za-z0-9+/%=]",
        lead="(?<![A-Za-z])sig=",
    ),
    Rule(
        "azure-client-secret",
        # The characters before the anchor are the hint that Azure's portal itself displays.
        ("Q~",),
        r"(?<=[\w~.-]{3}[0-9])Q~[\w~.-]{31}",
        r"[\w~.-]",
    ),
    _labelled(
        "azure-devops",
        "AZURE_DEVOPS_EXT_PAT SYSTEM_ACCESSTOKEN AZP_TOKEN azure_devops_pat AZURE_DEVOPS_PAT "
        "AZURE_DEVOPS_TOKEN azure_devops_token azureDevOpsPat AzureDevOpsPAT ADO_PAT ado_pat "
        "VSTS_PAT vsts_pat vsts_token VSTS_TOKEN",
        "[A-Za-z0-9]{52}",
        "[A-Za-z0-9]",
    ),
    # Code hosting and packages
    _token("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", 30, r"\w"),
    _token("github-token", "github_pat_", 30, r"\w"),
    _token(
        "gitlab-token",
        "glpat- gldt- glft- glsoat- glrt- glrtr- glcbt- glptt- glagent- glimt- glffct- gloas-",
        20,
        r"[\w.-]",
    ),
    _token("npm-token", "npm_", 30, "[A-Za-z0-9]"),
    _token("pypi-token", "pypi-AgEI pypi-AgEN", 40),
    Rule(
        "npm-auth",
        ("_authToken", ":_auth"),
        r"[\w.~+/-]{16}",
        r"[\w.~+/=-]",
        lead=r":?_auth(?:Token)?\s{0,4}=\s{0,4}[\"']?",
        check=_mixed,  # not "self._authToken = get_token_somehow"
    ),
    # Models and data
    _token("hugging-face", "hf_", 30, "[A-Za-z0-9]"),
    _token("hugging-face", "api_org_", 30, "[A-Za-z0-9]"),
    Rule(
        "openai-key",
        ("sk-",),
        r"sk-(?:(?:proj|svcacct|admin|None)-[\w-]{24}|or-v1-[\w-]{32}|[A-Za-z0-9]{32})",
        r"[\w-]",
        before=_ALNUM + "-",
    ),
    Rule("anthropic-key", ("sk-ant-",), r"sk-ant-[\w-]{24}", r"[\w-]", before=_ALNUM + "-"),
    _token("databricks-token", "dapi", 32, "[0-9a-f-]"),
    _token("groq-key", "gsk_", 40, "[A-Za-z0-9]"),
    # Services
    _token(
        "slack-token", "xoxb- xoxp- xoxa- xoxr- xoxs- xoxe- xoxc- xoxd- xapp- xoxe.", 12, r"[\w%.-]"
    ),
    Rule(
        "slack-webhook",
        ("hooks.slack.com/",),
        r"[A-Z0-9]{6}",
        r"[\w/-]",
        lead=r"hooks\.slack\.com/(?:services|workflows|triggers)/",
    ),
    _token(
        "stripe-key",
        "sk_live_ sk_test_ rk_live_ rk_test_ sk_prod_ rk_prod_ whsec_",
        16,
        "[A-Za-z0-9]",
    ),
    Rule(
        "sendgrid-key",
        ("SG.",),
        r"SG\.[\w-]{16,32}\.[\w-]{20}",
        r"[\w-]",
        before=_ALNUM,
    ),
    _token("docker-token", "dckr_pat_ dckr_oat_", 20),
    _token("digitalocean-token", "dop_v1_ doo_v1_ dor_v1_", 32, "[0-9a-f]"),
    _token("vault-token", "hvs. hvb.", 24, r"[\w.-]"),
    Rule(
        "discord-token",
        _discord_anchors(),
        r"[MNO][DTjz][AEIMQUYcgk][wxyz0-5](?:[MNO][DTjz][AEIMQUYcgk][wxyz0-5]){4}[\w-]{2,8}\.[\w-]{6}\.[\w-]{20}",
        _BASE64URL,
        before=_WORD + "-+/",
    ),
    _labelled(
        "discord-token",
        "DISCORD_TOKEN DISCORD_BOT_TOKEN discord_token discord_bot_token discordToken",
        r"[\w-]{23,28}\.[\w-]{6}\.[\w-]{20}",
        _BASE64URL,
    ),
    Rule(
        "discord-webhook",
        ("/api/webhooks/",),
        r"[\w-]{40}",
        _BASE64URL,
        lead=r"/api/webhooks/[0-9]{15,21}/",
    ),
    Rule("telegram-token", (":AA",), r"(?<=[0-9]{8}):AA[\w-]{30}", _BASE64URL),
    # Formats
    Rule(
        "jwt",
        ("eyJ",),
        r"eyJ[\w-]{12,400}\.[\w-]{16}",
        r"[\w.=-]",
        before=_ALNUM,
    ),
    Rule(
        "private-key",
        ("-----BEGIN ",),
        r"-----BEGIN (?:[A-Z0-9]{1,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----",
        r"[A-Za-z0-9+/=\s:,.()\\-]",
        until=r"-----END (?:[A-Z0-9]{1,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----",
        reach=_PEM_LIMIT,
    ),
    Rule(
        "bearer-token",
        ("Bearer ", "bearer ", "BEARER "),
        r"[\w.~+/-]{20}",
        r"[\w.~+/=-]",
        lead=r"[Bb](?:earer|EARER) {1,4}",
        check=_mixed,
    ),
    Rule(
        "basic-auth",
        ("Basic ", "basic "),
        r"[A-Za-z0-9+/]{12}",
        _B64,
        lead=r"[Bb]asic {1,4}",
        check=_names_user,
    ),
    Rule(
        "url-password",
        ("://",),
        rf"({_URL}{{3,128}})@",
        lead=rf"://{_URL}{{0,64}}:",
        check=_no_placeholder,
        rest=_URL,
        harmless="[0-9]{1,5}",  # a port, as in http://localhost:8888
    ),
    Rule(
        "connection-string",
        (";Password=", ";password=", ";Pwd=", ";pwd=", ";PWD=", ";PASSWORD="),
        r"""[^\s;"'<>$%{]{4}""",
        r"""[^\s;"'<>]""",
        lead=r";\w{3,8}=\s?",
    ),
    Rule(
        "netrc",
        ("machine ",),
        r"\S{4}",
        r"\S",
        lead=r"machine\s{1,4}\S{1,128}\s{1,8}login\s{1,4}\S{1,128}\s{1,8}password\s{1,4}",
    ),
)
"""The rules that are always on. Where several match at one place, the leftmost anchor names it."""
