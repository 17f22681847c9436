"""The benchmark runs, and fails where a kernel did not do its work. No test asserts a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import rounds
from benchmarks.__main__ import main

REPOSITORY = Path(__file__).parent.parent


def test_it_measures_both_kernels_and_shows_and_saves_what_it_measured(tmp_path: Path) -> None:
    output = tmp_path / "samples.json"
    command = [sys.executable, "-P", "-m", "benchmarks", "--quick", "--only", "trivial"]
    run = subprocess.run(
        [*command, "--samples", "1", "--output", str(output)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert run.returncode == 0, run.stderr
    assert "trivial cell, round trip" in run.stdout
    assert "100 MB" not in run.stdout
    document = json.loads(output.read_text())
    assert [result["work"] for result in document["results"]] == ["trivial"]
    result = document["results"][0]
    assert result["ours"] > 0
    assert result["ipykernel"] > 0
    assert result["ratio"] == result["ours"] / result["ipykernel"]
    assert document["samples"]["trivial"] == {
        "mxc-kernel": [result["ours"]],
        "ipykernel": [result["ipykernel"]],
    }


def test_the_table_can_be_pasted_into_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "samples.json")
    assert main(["--samples", "1", "--only", "memory", "--markdown", "--output", output]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "| work | ours | ipykernel | ratio | goal |"
    assert shown[2].startswith("| memory (USS), all processes | ")
    assert shown[2].endswith("| ≤ 1.50 |")


def test_a_kernel_that_loses_output_has_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capped = rounds._CEILING.replace("1GiB", "64KiB")
    assert capped != rounds._CEILING
    monkeypatch.setattr(rounds, "_CEILING", capped)
    output = tmp_path / "samples.json"
    assert main(["--samples", "1", "--only", "lines", "--output", str(output)]) == 1
    assert "output cut here" in capsys.readouterr().err
    assert not output.exists()
