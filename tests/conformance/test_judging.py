"""The list of known differences is neither too short nor too long."""

from __future__ import annotations

from pathlib import Path

from tests.conformance import suites

KNOWN = {"a::fails": "for a reason"}


def test_what_is_expected_passes() -> None:
    assert suites.judge({"a::fails": "failed", "a::works": "passed"}, KNOWN) == []


def test_an_unexpected_failure_fails() -> None:
    assert suites.judge({"a::fails": "failed", "a::b": "failed", "a::c": "passed"}, KNOWN) == [
        "a::b: failed"
    ]


def test_an_unexpected_pass_fails_and_so_does_a_test_that_is_gone() -> None:
    for found in (
        {"a::fails": "passed"},
        {"a::fails": "skipped", "a::b": "passed"},
        {"b": "passed"},
    ):
        assert len(suites.judge(found, KNOWN)) == 1


def test_a_run_without_tests_fails() -> None:
    assert suites.judge({}, {}) == ["no test passed"]


def test_outcomes_are_read_with_file_group_and_name(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="tests.test_a.TestB" file="tests/test_a.py" name="c">'
        "<error/></testcase>"
        '<testcase classname="tests.test_a" file="tests/test_a.py" name="d[x]">'
        "<skipped/></testcase>"
        '<testcase classname="tests.test_a" file="tests/test_a.py" name="e" />'
        "</testsuite></testsuites>"
    )
    assert suites.outcomes(report) == {
        "test_a.py::TestB::c": "failed",
        "test_a.py::d[x]": "skipped",
        "test_a.py::e": "passed",
    }


def test_every_difference_has_a_reason_and_a_suite() -> None:
    for suite in suites.SUITES:
        for test, reason in suites.differences(suite.package).items():
            assert test.partition("::")[0] in suite.files
            assert len(reason) > 40
