"""What people see of a trail: `mxc-kernel audit`, as it is called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mxc_kernel.audit.facts import Source
from mxc_kernel.audit.schema import audit_schema

from .conftest import Died, environ, journal, outcome, trail_of, under, write_session

REPOSITORY = Path(__file__).parents[2]


def audit(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "mxc_kernel", "audit", *words],
        env={**os.environ, **environ(root)},
        capture_output=True,
        text=True,
    )


def shown(root: Path, *words: str) -> list[dict[str, Any]]:
    done = audit(root, "show", "--json", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    """Two sessions: one of a notebook with a denial, a refusal and an error; one of another."""
    made = journal(tmp_path, JPY_SESSION_NAME=str(tmp_path / "one.ipynb"))
    where = under("/data")
    evidence = {"denials": [{"kind": "filesystem", "path": "/etc/shadow", "errno": "EACCES"}]}
    made.finish(made.begin(Source("a", execution_count=1), where), outcome())
    made.finish(
        made.begin(Source("b", execution_count=2), where),
        outcome(status="error", error="PermissionError[red]", evidence=evidence),
    )
    made.refused(Source("%allow_rw /"), "SandboxPolicyError")
    made.close()
    write_session(tmp_path, 1, JPY_SESSION_NAME=str(tmp_path / "two.ipynb"))
    return tmp_path


def test_a_table_shows_every_cell_on_a_line(trail: Path) -> None:
    done = audit(trail, "show")
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.split()[:2] == ["session", "notebook"]
    assert len(lines) == 4
    assert "error: PermissionError[red]" in lines[1]
    assert "refused: SandboxPolicyError" in lines[2]
    assert lines[0].count("#") == 1  # the notebook's label


def test_what_is_shown_can_be_narrowed(trail: Path, tmp_path: Path) -> None:
    everything = shown(trail)
    assert [cell["status"] for cell in everything] == ["ok", "error", "refused", "ok"]
    blocked = shown(trail, "--denials")
    assert [cell["status"] for cell in blocked] == ["error", "refused"]
    session = everything[-1]["session"]
    assert [cell["session"] for cell in shown(trail, "--session", session[-8:])] == [session]
    assert len(shown(trail, "--notebook", str(tmp_path / "one.ipynb"))) == 3
    assert shown(trail, "--notebook", str(tmp_path / "three.ipynb")) == []
    assert len(shown(trail, "--since", "1h")) == 4
    assert shown(trail, "--since", "2999-01-01") == []
    assert audit(trail, "show", "--since", "soon").returncode == 1


def test_an_unfinished_cell_is_called_so(tmp_path: Path, died: Died) -> None:
    died(cells=1, pending=True)
    assert [cell["status"] for cell in shown(tmp_path)] == ["ok", "unfinished"]
    made = write_session(tmp_path, 1, end=False)
    made.begin(Source("x"), under())
    assert [cell["status"] for cell in shown(tmp_path)] == ["ok", "unfinished", "ok", "running"]
    made.close()


def test_verify_says_by_its_status_whether_the_trail_holds(trail: Path) -> None:
    done = audit(trail, "verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 sessions" in done.stdout
    assert "nothing is missing or changed" in done.stdout
    path = next((trail_of(trail) / "sessions").iterdir())
    path.write_bytes(path.read_bytes().replace(b'"ok"', b'"OK"', 1))
    done = audit(trail, "verify")
    assert done.returncode == 1
    assert path.name.removesuffix(".jsonl") in done.stdout
    assert "BROKEN" in done.stdout
    report = json.loads(audit(trail, "verify", "--json").stdout)
    assert report["ok"] is False
    assert report["findings"][0]["level"] == "broken"


def test_another_folder_can_be_looked_at(trail: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    folder = ("--folder", str(trail_of(trail)))
    assert len(shown(elsewhere, *folder)) == 4
    assert audit(elsewhere, "verify", *folder).returncode == 0
    none = audit(elsewhere, "show")
    assert none.returncode == 1
    assert "There is no audit trail" in none.stderr


def test_a_label_can_be_looked_up(trail: Path, tmp_path: Path) -> None:
    done = audit(trail, "label", str(tmp_path / "one.ipynb"))
    notebook = shown(trail)[0]["notebook"]
    assert notebook.endswith(done.stdout.strip())
    assert done.stdout.startswith("#")


def test_the_published_schema_is_the_one_in_force_and_takes_every_record(trail: Path) -> None:
    printed = json.loads(audit(trail, "schema").stdout)
    published = json.loads((REPOSITORY / "docs" / "audit.schema.json").read_text())
    assert printed == published == audit_schema()
    record = Draft202012Validator(published)
    entry = Draft202012Validator({**published["$defs"]["Entry"], "$defs": published["$defs"]})
    for path in (trail_of(trail) / "sessions").iterdir():
        for line in path.read_bytes().splitlines():
            record.validate(json.loads(line))
    for line in (trail_of(trail) / "index.jsonl").read_bytes().splitlines():
        entry.validate(json.loads(line))
    assert not record.is_valid({"v": 1, "kind": "pending"})
