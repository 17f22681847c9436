"""What operators add to the redaction of output, on the lattice and in ceiling files."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.output.operators import OPERATOR_SECRET, operators_rules
from mxc_kernel.output.redaction import redact
from mxc_kernel.policy import Ceiling, Redaction
from tests.policy import laws

texts = st.sampled_from(["alphabet", "bravo-two", "charlie-3", "delta four"])
patterns = st.tuples(st.sampled_from("ab"), st.sampled_from(["ACME-[0-9]{8}", "BCME-[0-9]{8}"]))
redactions = st.builds(
    Redaction,
    literals=st.frozensets(texts, max_size=3),
    patterns=st.frozensets(patterns, max_size=2),
    exceptions=st.none() | st.frozensets(texts, max_size=3),
)


@laws
@given(redactions, redactions, redactions)
def test_redactions_are_a_meet_semilattice(a, b, c):
    assert a.meet(a) == a
    assert a.meet(b) == b.meet(a)
    assert a.meet(b).meet(c) == a.meet(b.meet(c))
    assert a.meet(b) <= a
    assert a.meet(Redaction.top()) == a


@laws
@given(redactions, redactions)
def test_no_other_layer_switches_off_what_one_demands(mine, others):
    both = mine.meet(others)
    assert mine.literals <= both.literals
    assert mine.patterns <= both.patterns
    if mine.exceptions is not None:
        assert both.exceptions is not None
        assert both.exceptions <= mine.exceptions


@laws
@given(redactions, redactions)
def test_a_changed_ceiling_hides_no_less_in_a_running_session(before, after):
    now = Ceiling(policy=None, redaction=before).redaction.meet(
        Ceiling(policy=None, redaction=after).redaction
    )
    assert now <= before
    assert now <= after


SYSTEM = """
[redaction]
literals = ["Project Bluebird"]
patterns = [{ name = "acme-key", pattern = "ACME-[0-9]{8}" }]
exceptions = ["ACME-00000000"]
"""
KEYS = "ACME-00000000 ACME-11111111 ACME-22222222"


def shown(ceiling, text, environ=None):
    return redact(text + "\n", operators_rules(environ or {}, ceiling.redaction))[0][:-1]


def test_what_one_file_says(layers):
    layers.write(layers.system, SYSTEM)
    ceiling = layers.load()
    assert shown(ceiling, "Project Bluebird") == f"[redacted: {OPERATOR_SECRET}]"
    assert shown(ceiling, KEYS) == "ACME-00000000 [redacted: acme-key] [redacted: acme-key]"
    assert shown(ceiling, b"Project Bluebird".hex()) == f"[redacted: {OPERATOR_SECRET}]"


def test_an_exception_needs_both_files_and_literals_have_none(layers):
    layers.write(layers.system, SYSTEM)
    layers.write(layers.user, '[redaction]\nexceptions = ["ACME-11111111", "Project Bluebird"]\n')
    ceiling = layers.load()
    assert ceiling.redaction.exceptions == frozenset()
    assert "ACME" not in shown(ceiling, KEYS)
    layers.write(layers.user, '[redaction]\nexceptions = ["ACME-00000000", "Project Bluebird"]\n')
    ceiling = layers.load()
    assert "ACME-00000000" in shown(ceiling, KEYS)
    assert "Bluebird" not in shown(ceiling, "Project Bluebird")


def test_a_file_without_the_section_excepts_nothing(layers):
    layers.write(layers.system, SYSTEM)
    layers.write(layers.user, "[filesystem]\n")
    assert layers.load().redaction.exceptions == frozenset()
    layers.user.unlink()
    assert layers.load().redaction.exceptions == frozenset({"ACME-00000000"})


def test_a_project_adds_and_takes_no_exception_away(layers):
    layers.write(layers.system, SYSTEM)
    layers.write(layers.beside, '[redaction]\nliterals = ["Operation Thrush"]\n')
    ceiling = layers.load()
    assert "Thrush" not in shown(ceiling, "Operation Thrush")
    assert "ACME-00000000" in shown(ceiling, KEYS)


@pytest.mark.parametrize(
    "line", ['exceptions = ["ACME-11111111"]', 'files = ["/etc/hostname"]', 'variables = ["HOME"]']
)
def test_a_project_may_not_except_or_read(layers, line):
    layers.write(layers.system, SYSTEM)
    layers.write(layers.beside, f"[redaction]\n{line}\n")
    with pytest.raises(SandboxPolicyError, match="unknown key redaction"):
        layers.load()


def test_a_project_alone_adds(layers):
    layers.write(layers.beside, '[redaction]\nliterals = ["Operation Thrush"]\n')
    assert "Thrush" not in shown(layers.load(), "Operation Thrush")


def test_secrets_are_named_by_variable_and_by_file(layers):
    file = layers.write(
        layers.root / "system" / "pass", "first half of it 1\nsecond half of it 2\n"
    )
    layers.write(
        layers.system, f'[redaction]\nvariables = ["ACME_LICENCE", "UNSET"]\nfiles = ["{file}"]\n'
    )
    layers.environ["ACME_LICENCE"] = "correct horse battery"
    ceiling = layers.load()
    for text in ("correct horse battery", "second half of it 2"):
        assert shown(ceiling, f"x {text} y") == f"x [redacted: {OPERATOR_SECRET}] y"


def test_no_literal_stands_in_what_is_shown_of_a_ceiling(layers):
    layers.write(layers.system, SYSTEM)
    ceiling = layers.load()
    assert "Bluebird" not in json.dumps(ceiling.plain()) + repr(ceiling.redaction)
    assert ceiling.plain()["redaction"]["literals"] == 1


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('literals = ["short"]', ["redaction.literals.0", "8 characters"]),
        ('exceptions = ["A"]', ["redaction.exceptions.0", "8 characters"]),
        ('patterns = [{ name = "a", pattern = "(a+)+b" }]', ["redaction.patterns.0", "begin"]),
        ('patterns = [{ name = "a", pattern = "abc(a+)+b" }]', ["too many ways", "counts"]),
        ('patterns = [{ name = "a", pattern = "abc[" }]', ["not a regular expression"]),
        ('patterns = [{ name = "a b", pattern = "abcd" }]', ["'a b'", "letters"]),
        ('patterns = [{ pattern = "abcd" }]', ["redaction.patterns.0"]),
        ('patterns = [{ nmae = "a" }]', ["patterns.0.nmae", "'name'"]),
        ('patterns = ["abcd"]', ["redaction.patterns.0"]),
        ('files = ["/nonexistent/secret"]', ["/nonexistent/secret", "redaction.files"]),
        ('files = ["secret"]', ["not an absolute path"]),
        ('variables = ["A-B"]', ["'A-B'"]),
    ],
)
def test_mistakes_are_named_and_stop_everything(layers, section, words):
    layers.write(layers.user, f"[redaction]\n{section}\n")
    with pytest.raises(SandboxPolicyError) as error:
        layers.load()
    for word in [str(layers.user), *words]:
        assert word in str(error.value)
    assert error.value.remedy


def test_a_file_that_others_may_write_is_not_read(layers):
    file = layers.write(layers.root / "pass", "first half of it 1\n")
    file.chmod(0o666)
    layers.write(layers.user, f'[redaction]\nfiles = ["{file}"]\n')
    with pytest.raises(SandboxPolicyError, match="not trusted"):
        layers.load()
