"""What a ceiling adds to the redaction of output is hidden in every channel, and stays hidden."""

from __future__ import annotations

from pathlib import Path

from .conftest import Start

SECRET = "Project Bluebird"
KEY = "ACME-12345678"
HIDDEN = "[redacted: operator-secret]"
SHOW = (
    "import sys\ntext = ' '.join(['Project', 'Bluebird']); key = 'ACME-' + '12345678'\n"
    "print(text, key); print(text, key, file=sys.stderr)\n"
    "from IPython.display import HTML, display\n"
    "display(HTML(f'<b>{text[:7]}</b>{text[7:]} {key}'))\n[text, key]"
)


def _add(ceiling: Path, *lines: str) -> None:
    text = ceiling.read_text().partition("\n[redaction]")[0]
    ceiling.write_text("\n".join((text, "[redaction]", *lines)) + "\n")


def test_an_operators_literals_and_patterns_are_hidden(start: Start, ceiling: Path) -> None:
    _add(
        ceiling,
        f'literals = ["{SECRET}"]',
        'patterns = [{ name = "acme", pattern = "ACME-[0-9]{8}" }]',
    )
    result = start(ceiling).run(SHOW)
    assert result.status == "ok"
    for text in (result.stream("stdout"), result.stream("stderr")):
        assert text == f"{HIDDEN} [redacted: acme]\n"
    assert result.value == f"['{HIDDEN}', '[redacted: acme]']"
    assert "Bluebird" not in result.shown
    assert KEY not in result.shown
    counts = result.reply["metadata"]["mxc"]["redacted"]
    assert counts["operator-secret"] >= 4
    assert counts["acme"] >= 4


def test_a_ceiling_that_changes_can_only_hide_more(start: Start, ceiling: Path) -> None:
    _add(ceiling, 'patterns = [{ name = "acme", pattern = "ACME-[0-9]{8}" }]')
    kernel = start(ceiling)
    assert kernel.run(SHOW).stream() == f"{SECRET} [redacted: acme]\n"
    _add(ceiling, f'literals = ["{SECRET}"]', f'exceptions = ["{KEY}"]')
    assert kernel.run(SHOW).stream() == f"{HIDDEN} [redacted: acme]\n"
