"""Everything that was tried: what a hostile cell shows, and what it would do.

Each attack runs under plain ipykernel too, where it must succeed in exactly the phases that its row
names. A row that names none is harmless as tried: it is kept because it was tried, and proves
nothing but that.
"""

from dataclasses import replace

from tests.browser.attacks import bundles, calls, markup, protocol, scripts, widgets
from tests.browser.attacks.attack import CHARTS, Attack

__all__ = ["ATTACKS"]

ATTACKS: tuple[Attack, ...] = (
    *scripts.ATTACKS,
    *calls.ATTACKS,
    *markup.ATTACKS,
    *(replace(attack, group=CHARTS) for attack in bundles.ATTACKS),
    *widgets.ATTACKS,
    *protocol.ATTACKS,
)
assert len({attack.name for attack in ATTACKS}) == len(ATTACKS), "names are marks"
