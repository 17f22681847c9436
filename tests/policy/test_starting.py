"""What a runner of notebooks says at a kernel's start narrows or asks; it never grants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy import START_VARIABLE, Access, Ask, Ceiling, LayerText, Start
from tests.policy.conftest import Layers

FOLDERS = ("a", "a/b", "c", "c/d", ".")


def started(layers: Layers, start: Start | dict[str, Any] | str) -> Ceiling:
    data = start.plain() if isinstance(start, Start) else start
    file = layers.write(
        layers.root / "start.json", data if isinstance(data, str) else json.dumps(data)
    )
    return layers.load(environ={**layers.environ, START_VARIABLE: str(file)})


def write_user(layers: Layers, more: str = "") -> None:
    layers.write(
        layers.user,
        f'{more}\n[filesystem]\nreadonly = ["{layers.project}/a"]\n'
        f'readwrite = ["{layers.project}/c"]\n[start]\nreadonly = ["{layers.project}/a/b"]\n'
        '[limits]\ncell_timeout = "10m"\n',
    )


@pytest.fixture
def project(layers: Layers) -> Path:
    for name in FOLDERS:
        (layers.project / name).mkdir(exist_ok=True)
    write_user(layers)
    return layers.project


def test_asking_is_clamped(layers: Layers, project: Path) -> None:
    ask = Ask(readonly=("c", "/etc/shadow"), readwrite=("a",), limits={"cell_timeout": "1h"})
    ceiling = started(layers, Start(ask=ask))
    effective = ceiling.clamp(ceiling.start)
    assert effective.filesystem.access(f"{project}/c") is Access.READONLY
    assert effective.filesystem.access(f"{project}/a") is Access.READONLY
    assert effective.filesystem.access("/etc/shadow") is Access.NONE
    assert effective.limits.cell_timeout == 600
    assert layers.load().clamp(layers.load().start).filesystem.access(f"{project}/c") is Access.NONE


def test_a_ceiling_without_requests_hears_none(layers: Layers, project: Path) -> None:
    write_user(layers, 'requests = "none"')
    ceiling = started(layers, Start(ask=Ask(readonly=("c",))))
    assert ceiling.clamp(ceiling.start) == layers.load().clamp(layers.load().start)


def test_a_layer_narrows_and_settings_are_not_its(layers: Layers, project: Path) -> None:
    text = (
        f'requests = "none"\n[filesystem]\nreadonly = ["{project}"]\n'
        '[limits]\ncell_timeout = "5s"\n[sandbox]\npython = "/opt/other/python"\n'
    )
    ceiling = started(layers, Start(layers=(LayerText("user", text, "the head's ceiling"),)))
    assert ceiling.requests == "none"
    assert ceiling.policy.limits.cell_timeout == 5
    assert ceiling.policy.filesystem.access(f"{project}/c") is Access.READONLY
    assert ceiling.settings.python is None
    assert "the head's ceiling" in [layer.source for layer in ceiling.layers]


def test_a_further_layer_is_no_ceiling_of_this_machines_own(layers: Layers, project: Path) -> None:
    text = f'[filesystem]\nreadwrite = ["{project}/c"]\n[start]\nreadwrite = ["{project}/c"]\n'
    start = Start(layers=(LayerText("user", text, "the head's ceiling"),))
    assert started(layers, start).holds(f"{project}/c") is Access.READWRITE
    assert started(layers, start).start.filesystem.access(f"{project}/c") is Access.NONE
    layers.user.unlink()
    assert started(layers, start).holds(f"{project}/c") is Access.NONE


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"layers": []}', '{"layers": [{}], "ask": {}}', "x" * 10, "[" * 100_000],
)
def test_what_cannot_be_read_stops_the_start(layers: Layers, project: Path, text: str) -> None:
    with pytest.raises(SandboxPolicyError, match=START_VARIABLE):
        started(layers, text)


def test_a_file_that_others_may_write_stops_the_start(layers: Layers, project: Path) -> None:
    file = layers.write(layers.root / "start.json", json.dumps(Start().plain()))
    file.chmod(0o666)
    with pytest.raises(SandboxPolicyError, match="others may write"):
        layers.load(environ={**layers.environ, START_VARIABLE: str(file)})
    with pytest.raises(SandboxPolicyError, match="does not exist"):
        layers.load(environ={**layers.environ, START_VARIABLE: f"{file}.none"})


paths = st.lists(st.sampled_from([*FOLDERS, "/", "/etc", "..", "none", "a/../c"]), max_size=4)
texts = st.sampled_from(
    [
        'requests = "none"',
        '[limits]\ncell_timeout = "1h"',
        '[limits]\noutput = "1KiB"',
        '[output]\nhtml = "trusted"',
        '[filesystem]\nreadwrite = ["${notebook_dir}"]',
        '[filesystem]\nreadonly = ["${notebook_dir}/c"]\n[environment]\nnames = ["SECRET"]',
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    ask=st.builds(Ask, paths.map(tuple), paths.map(tuple)),
    extra=st.lists(
        st.builds(LayerText, st.sampled_from(["project", "user"]), texts, st.just("x")), max_size=3
    ).map(tuple),
)
def test_nothing_goes_beyond_the_ceiling(
    layers: Layers, ask: Ask, extra: tuple[LayerText, ...]
) -> None:
    for name in FOLDERS:
        (layers.project / name).mkdir(exist_ok=True)
    write_user(layers)
    plain = layers.load()
    extra = tuple(each for each in extra if each.name == "user" or "filesystem" not in each.text)
    ceiling = started(layers, Start(extra, ask))
    assert ceiling.policy <= plain.policy
    assert ceiling.clamp(ceiling.start) <= plain.policy
    assert ceiling.clamp(ceiling.start.allow("/", Access.READWRITE)) <= plain.policy
