"""Looks for conversations that break a rule, guided by the code that they reach.

``make fuzz`` runs it; it needs the extra ``fuzz`` (atheris has wheels for a few Pythons only). What
breaks a rule is left in ``build/fuzz`` as ``crash-…``, and belongs into ``tests/fuzz/corpus`` with
its fix. What reached something new is in ``build/fuzz/found``; ``--keep`` takes into the corpus the
few that reach the most.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from pathlib import Path

import atheris

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
BUILD = HERE.parents[1] / "build" / "fuzz"
_KEPT = 80  # files of at most _LONGEST bytes, so 40 kB
_LONGEST = 512  # bytes
_MEMORY = 1500  # MiB; a play that needs more has found something
_HANG = 60  # seconds of one play; they take a hundredth of one


def _play(data: bytes) -> None:
    from tests.fuzz.play import play

    play(data)


def _decode(data: bytes) -> None:
    """Any bytes are frames or a refusal, and cost no more than they are."""
    from tests.fuzz.frames import decode

    decode(data)


def main() -> None:
    """Fuzz for some seconds."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: %(default)s)")
    parser.add_argument("--only", choices=("play", "frames"), default="play", help="what to fuzz")
    parser.add_argument("--keep", action="store_true", help="renew the corpus from what was found")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    found = BUILD / "found" / options.only
    found.mkdir(parents=True, exist_ok=True)
    corpus = CORPUS / options.only
    if options.keep:
        _merge(corpus, found)
        return
    with atheris.instrument_imports(include=["mxc_kernel"]):
        import tests.fuzz.frames
        import tests.fuzz.play  # noqa: F401  # what it imports is instrumented
    arguments = [
        sys.argv[0],
        f"-max_total_time={options.seconds}",
        f"-max_len={_LONGEST}",
        "-len_control=0",  # long conversations from the beginning
        f"-rss_limit_mb={_MEMORY}",
        f"-timeout={_HANG}",
        f"-artifact_prefix={BUILD}/",
        "-print_final_stats=1",
        str(found),
        str(corpus),
    ]
    atheris.Setup(arguments, _play if options.only == "play" else _decode)
    atheris.Fuzz()


def _merge(corpus: Path, found: Path) -> None:
    """Take the newest finds into the corpus: each reached something that none before did."""
    for path in sorted(found.iterdir(), key=lambda path: path.stat().st_mtime)[-_KEPT:]:
        shutil.copy(path, corpus / path.name)


if __name__ == "__main__":
    main()
