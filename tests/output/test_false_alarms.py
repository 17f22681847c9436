"""Ordinary output passes untouched."""

from __future__ import annotations

import base64
import json
import random
import sysconfig
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from mxc_kernel.output.documents import redact_html
from mxc_kernel.output.redaction import Rules, Stream, redact

RULES = Rules()
MIB = 1 << 20
SIZES: dict[str, int] = {}


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


def _hashes(chance: random.Random) -> Iterator[str]:
    for number in range(8000):
        key, digest = uuid.UUID(int=chance.getrandbits(128)), chance.randbytes(32)
        short = base64.b64encode(digest[:16]).decode()
        yield f"{key}\t{digest.hex()}\t{short}\n"
        yield f"request_id={key} etag={digest.hex()[:32]} span={digest.hex()[:16]} n={number}\n"
        yield f"commit {digest.hex()[:40]} next_token={short} cache_key={digest.hex()}\n"


def _locks(chance: random.Random) -> Iterator[str]:
    for number in range(4000):
        digest = chance.randbytes(64)
        integrity = base64.b64encode(digest).decode()
        yield (
            f'    "node_modules/token-types-{number}": {{\n      "version": "4.{number % 9}.1",\n'
            f'      "resolved": "https://npm.example.org/token-types/-/token-types-4.1.tgz",\n'
            f'      "integrity": "sha512-{integrity}",\n      "license": "MIT"\n    }},\n'
            f'[[package]]\nname = "secret-service-{number}"\nversion = "5.1.{number % 7}"\n'
            f'checksum = "{digest[:32].hex()}"\ncontent-hash = "{digest[32:].hex()}"\n'
            f"tokenizers==0.2{number % 9}.0 --hash=sha256:{digest[:32].hex()}\n"
        )


def _notebooks(chance: random.Random) -> Iterator[str]:
    for number in range(60):
        cell = {
            "cell_type": "code",
            "id": f"{chance.getrandbits(32):08x}",
            "metadata": {"execution": {"iopub.status.busy": "2026-11-20T23:07:01.123456Z"}},
            "source": ["token = tokenizer.encode('some text')\n", "key = keys['api_key_name']\n"],
            "outputs": [
                {"data": {"image/png": base64.b64encode(chance.randbytes(20_000)).decode()}},
                {"name": "stdout", "text": [f"loss: {chance.random()}\n", "tokens: [101, 2023]\n"]},
            ],
            "execution_count": number,
        }
        yield json.dumps({"cells": [cell], "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def _scripts(chance: random.Random) -> Iterator[str]:
    names = ["e.token", "t.apiKey", "this._secret", "n.password", "r.accessToken", "o.keyCode"]
    values = ["i.next()", "void 0", '"hidden"', "u[3]", "!0", "c(d,2e3)", '"utf-8"', "a1b2.c3"]
    for number in range(60_000):
        yield f"{chance.choice(names)}={chance.choice(values)},function(t){{return n{number}(t)}};"
        if number % 40 == 0:
            yield "\n"


def _coloured(chance: random.Random) -> Iterator[str]:
    for number in range(12_000):
        yield (
            f"\x1b[1mtests/test_{number}.py\x1b[0m::test_token[\x1b[33m{number}-secret\x1b[0m] "
            f"\x1b[32mPASSED\x1b[0m\x1b[32m [{number % 100}%]\x1b[0m in {chance.random():.2f}s\n"
            f"\r\x1b[K{'#' * (number % 40)} {number}/12000 \x1b[36mhttps://example.org/a\x1b[39m\n"
        )


def _models(chance: random.Random) -> Iterator[str]:
    for number in range(10_000):
        yield (
            f'{{"pad_token": "<|endoftext|>", "id": {number}, "cache_key": "layer.{number}"}}\n'
            f"Token indices sequence is longer than {number}; tokens/s={chance.random():.3f}\n"
            f"api_key=os.environ['API_KEY_{number}'], password=None, secret=getpass('Password: ')\n"
            f"password: str = Field(default=...), token: Optional[Token2] = token_v{number}\n"
        )


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
    [
        *(_logs, _base64, _pip, _tracebacks, _source, _notebook_words),
        *(_hashes, _locks, _notebooks, _scripts, _coloured, _models),
    ],
    ids=lambda make: make.__name__,
)
def test_ordinary_output_raises_no_alarm(make):
    text = "".join(make(random.Random(11)))
    assert len(text) > 10_000
    SIZES[make.__name__] = len(text)
    shown, counts = redact(text, RULES)
    assert counts == {}
    assert shown == text
    stream = Stream(RULES)
    pieces = [stream.feed(text[i : i + 8192], 0.0) for i in range(0, len(text), 8192)]
    assert "".join(pieces) + stream.flush(0.0) == text


def test_it_was_25_megabytes():
    if len(SIZES) == 12:  # otherwise only some of them were asked for
        assert sum(SIZES.values()) > 25_000_000


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
