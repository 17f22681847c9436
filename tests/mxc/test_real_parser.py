"""The contract's real parser reads every request that is rendered, for whichever system.

On Linux ``lxc-exec --dry-run`` parses a request for another system as a whole and then says that
this backend is not available here: so far it was accepted. The controls show that it would say
something else of a request with a mistake, in each of its parts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.mxc.conftest import Judge
from tests.mxc.corpus import CORPUS, Request

REJECTED = "Configuration parse error"


def accepted(request: Request) -> str:
    if request["containment"] == "bubblewrap":
        return "Dry run completed"
    return f"the '{request['containment']}' backend is not available on Linux"


@pytest.mark.parametrize("name", CORPUS)
def test_every_request_is_accepted(name: str, judged: Judge) -> None:
    request = CORPUS[name]()
    said = judged(request)
    assert accepted(request) in said
    assert REJECTED not in said


def sections(value: Request, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for key, part in value.items():
        if isinstance(part, dict):
            yield from sections(part, (*path, key))


def changed(request: Request, path: tuple[str, ...], **fields: Any) -> Request:
    copied = copy.deepcopy(request)
    section = copied
    for key in path:
        section = section[key]
    section.update(fields)
    return copied


@pytest.mark.parametrize(
    "name", ["bubblewrap-each-level", "processcontainer-each-level", "seatbelt-each-level"]
)
def test_a_mistake_in_any_part_is_rejected(name: str, judged: Judge) -> None:
    request = CORPUS[name]()
    for path in sections(request):
        assert REJECTED in judged(changed(request, path, unheardOf=True)), path
    for path, fields in (
        ((), {"version": "9.9.9"}),
        ((), {"containment": "nothing"}),
        (("process",), {"commandLine": None}),
        (("process",), {"timeout": "soon"}),
        (("filesystem",), {"readonlyPaths": "C:\\"}),
        (("network", "egress"), {"default": "maybe"}),
    ):
        assert REJECTED in judged(changed(request, path, **fields)), fields


def test_a_section_for_another_backend_is_rejected(judged: Judge) -> None:
    for name, section in (
        ("bubblewrap-each-level", "seatbelt"),
        ("processcontainer-each-level", "seatbelt"),
        ("seatbelt-each-level", "processContainer"),
    ):
        assert REJECTED in judged(changed(CORPUS[name](), (), **{section: {}}))


def test_the_contract_has_no_place_for_an_identity(judged: Judge) -> None:
    """What `check_identity_binding` says is missing; if this fails, look whether it came."""
    request: Request = {
        "version": "1.0.0",
        "containment": "isolation_session",
        "process": {"commandLine": "cmd /c echo"},
        "network": {
            "egress": {"default": "allow"},
            "ingress": {"default": "allow", "hostLoopback": "allow"},
        },
    }
    assert accepted(request) in judged(request)
    for section in ("isolationSession", "identity", "user"):
        assert REJECTED in judged(changed(request, (), **{section: {}}))
