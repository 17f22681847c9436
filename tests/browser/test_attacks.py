"""No output reaches the server or another host, runs a command of the Lab or changes a cell.

Each attack is tried when the cell runs, when the saved notebook is opened again, and in a copy that
the server does not trust; at the levels ``safe`` and ``frame``; and under plain ipykernel, where it
has to succeed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.attacks import ATTACKS
from tests.browser.attacks.attack import EXECUTED, PHASES, RELOADED, Attack
from tests.browser.stage import Played

# The whole table is played within the first test of each level: in three to four minutes on two
# quiet cores.
pytestmark = pytest.mark.timeout(2400)
Play = Callable[[str], Played]
each = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


@each
def test_it_succeeds_under_plain_ipykernel(attack: Attack, played: Play) -> None:
    seen = played("control").seen
    assert {phase for phase in PHASES if attack.name in seen[phase]} == attack.works, {
        phase: seen[phase].get(attack.name) for phase in PHASES
    }


@pytest.mark.parametrize("level", ["safe", "frame"])
@each
def test_it_reaches_nothing(attack: Attack, level: str, played: Play) -> None:
    seen = played(level).seen
    reached = {phase: seen[phase][attack.name] for phase in PHASES if attack.name in seen[phase]}
    assert not reached


@pytest.mark.parametrize("level", ["safe", "frame"])
def test_its_code_ran_as_it_did_there(level: str, played: Play) -> None:
    """A cell that fails for another reason would prove nothing."""
    assert played(level).errors == played("control").errors


def test_scripts_run_in_frames_and_nowhere_else(played: Play) -> None:
    """That they reach nothing there is because of the frame, not because they did not run."""
    ran = played("frame").ran_in_frames
    for name in ("script", "img-onerror", "details-toggle", "iframe-srcdoc", "repr-html"):
        assert name in ran[EXECUTED] & ran[RELOADED], name
    assert not any(played("safe").ran_in_frames.values())
