"""Runs the tests that others wrote against our kernel; the exit code says whether all is known."""

from __future__ import annotations

import argparse
import sys
import time

from tests.conformance import notebooks, suites

PARTS = (*(suite.package for suite in suites.SUITES), "notebooks")


def main() -> int:
    """Run the chosen parts and print one line for each, with what was not expected below it."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="run this part; repeatable")
    parser.add_argument("--control", action="store_true", help="run plain ipykernel instead")
    options = parser.parse_args()
    chosen = options.only or PARTS
    summary = []
    failed = False
    with suites.world() as root:
        for suite in (suite for suite in suites.SUITES if suite.package in chosen):
            began = time.monotonic()
            found = suites.run(suite, root, ours=not options.control)
            expected = {} if options.control else suites.differences(suite.package)
            summary.append(_line(suite.package, found, began))
            problems = suites.judge(found, expected)
            summary += [f"  {problem}" for problem in problems]
            failed |= bool(problems)
        if "notebooks" in chosen and not options.control:
            began = time.monotonic()
            compared = notebooks.compare_all(root)
            summary.append(_line("notebooks", compared, began))
            problems = suites.judge(compared, suites.differences("notebooks"))
            summary += [f"  {problem}" for problem in problems]
            failed |= bool(problems)
    print("\n".join(["", *summary]))
    return int(failed)


def _line(name: str, found: dict[str, str], began: float) -> str:
    outcomes = list(found.values())
    counts = ", ".join(f"{outcomes.count(how)} {how}" for how in ("passed", "failed", "skipped"))
    return f"{name}: {counts} in {time.monotonic() - began:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
