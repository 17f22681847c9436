"""Ordinary output passes untouched."""

from __future__ import annotations

import base64
import random
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from mxc_kernel.output.documents import redact_html
from mxc_kernel.output.redaction import Rules, Stream, redact

RULES = Rules()
MIB = 1 << 20


def _logs(chance: random.Random) -> Iterator[str]:
    for number in range(20_000):
        yield (
            f"2026-11-20 23:07:{number % 60:02d},{number % 1000:03d} INFO [worker-{number % 8}] "
            f"GET http://10.0.0.{number % 255}:8080/items/{chance.getrandbits(64):016x}?page=2 "
            f"took {chance.random():.3f}s user=bob@example.org id={chance.getrandbits(128):032x}\n"
        )


def _base64(chance: random.Random) -> Iterator[str]:
    text = base64.b64encode(chance.randbytes(4 * MIB)).decode()
    yield text
    yield "\n".join(text[start : start + 76] for start in range(0, MIB, 76))
    yield base64.urlsafe_b64encode(chance.randbytes(2 * MIB)).decode()


def _pip(chance: random.Random) -> Iterator[str]:
    for number in range(5000):
        yield (
            f"Collecting package-{number}>=1.{number % 20}\n"
            f"  Downloading https://files.example.org/packages/{chance.getrandbits(256):064x}/"
            f"package_{number}-1.{number % 9}-py3-none-any.whl.metadata (3.3 kB)\n"
            f"     ━━━━━━━━━━━━━━━ {number % 99}.1/99.9 MB 12.3 MB/s eta 0:00:01\n"
            f"  --hash=sha256:{chance.getrandbits(256):064x}\n"
        )


def _tracebacks(_chance: random.Random) -> Iterator[str]:
    for depth in range(200):
        try:
            _fail(depth % 20)
        except ZeroDivisionError:
            yield "\x1b[0;31m" + traceback.format_exc().replace(", in", "\x1b[0m, in") + "\n"


def _fail(depth: int) -> float:
    return 1 / 0 if not depth else _fail(depth - 1)


def _source(_chance: random.Random) -> Iterator[str]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted((*root.glob("*.py"), *root.glob("[a-h]*/*.py"))):
        text = path.read_text(encoding="utf-8", errors="replace")
        # Control characters are dropped from what is shown; that is tested elsewhere.
        if "site-packages" not in path.parts and text.replace("\n", "").isprintable():
            yield text


def _notebook_words(_chance: random.Random) -> Iterator[str]:
    yield (
        "sk-learn sk-toggleable__content sk-estimator-doc-link sk-parallel-item hf_hub_download "
        "Bearer authentication is used; the Basic usage of bearer tokens-and-more-text-here "
        "machine learning with login and password fields, eyJ is how JWTs begin. AKIA is a prefix "
        "https://user:password@example.org http://localhost:8888/lab?x=1 git@example.org:a/b.git "
        "postgresql://user:$PASSWORD@host postgres://app:{password}@db sig=left AccountKey= none "
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\nssh-rsa AAAAB3NzaC1yc2E "
        "_authToken=${NPM_TOKEN} SG.ANALYTICS.example ghp_short npm_config_user_agent 12:34:56 "
        "AWS_SECRET_ACCESS_KEY is not set; aws_secret_access_key=None Password: \n"
    ) * 20


@pytest.mark.parametrize(
    "make",
    [_logs, _base64, _pip, _tracebacks, _source, _notebook_words],
    ids=lambda make: make.__name__,
)
def test_ordinary_output_raises_no_alarm(make):
    text = "".join(make(random.Random(11)))
    assert len(text) > 10_000
    shown, counts = redact(text, RULES)
    assert counts == {}
    assert shown == text
    stream = Stream(RULES)
    pieces = [stream.feed(text[i : i + 8192], 0.0) for i in range(0, len(text), 8192)]
    assert "".join(pieces) + stream.flush(0.0) == text


def test_pandas_html_raises_no_alarm():
    chance = random.Random(5)
    frame = pd.DataFrame(
        {
            "id": [f"{chance.getrandbits(128):032x}" for _ in range(2000)],
            "mail": [f"user{number}@example.org" for number in range(2000)],
            "url": [f"https://example.org/{number}?a=1&b=2" for number in range(2000)],
            "value": [chance.random() for _ in range(2000)],
        }
    )
    html = frame.to_html()
    assert redact_html(html, RULES) == (html, {})
