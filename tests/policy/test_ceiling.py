"""What a session asks for never comes to more than the ceiling, whatever it asks."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy import Access, Ceiling, Filesystem, Limits, Place, Places, Policy, Request
from tests.policy import laws
from tests.policy.test_model import filesystems, limits, paths, policies

RO, RW, NONE = Access.READONLY, Access.READWRITE, Access.NONE

steps = st.lists(
    st.one_of(
        st.tuples(st.just("allow"), paths, st.sampled_from(list(Access))),
        st.tuples(st.just("revoke"), paths),
        st.tuples(st.just("narrow"), policies),
        st.tuples(st.just("limits"), limits),
    ),
    max_size=8,
)
places = st.lists(
    st.builds(
        Place,
        paths,
        st.sampled_from(list(Access)),
        st.just("it is a test"),
        by_name=st.sampled_from(list(Access)),
        whole=st.booleans(),
        secret=st.booleans(),
    ),
    max_size=4,
).map(lambda table: Places(tuple(table)))
ceilings = st.builds(
    Ceiling,
    policy=policies,
    start=filesystems.map(Request),
    requests=st.sampled_from(["magics", "none"]),
    places=places,
)


def run(request, steps):
    for name, *arguments in steps:
        if name == "allow":
            request = request.allow(*arguments)
        elif name == "revoke":
            request = request.revoke(*arguments)
        elif name == "narrow":
            request = request.narrow(*arguments)
        else:
            (asked,) = arguments
            request = request.with_limits(cell_timeout=asked.cell_timeout, memory=asked.memory)
    return request


@laws
@given(ceilings, steps)
def test_no_sequence_of_requests_gets_beyond_the_ceiling(ceiling, steps):
    request = run(ceiling.start, steps)
    policy = ceiling.clamp(request)
    assert policy <= ceiling.policy
    assert policy <= request.policy
    for path, access in policy.filesystem.grants:
        assert access <= ceiling.holds(path)
    if ceiling.requests == "none":
        assert policy.filesystem <= ceiling.start.filesystem


@laws
@given(ceilings, steps, paths, st.sampled_from([RO, RW]))
def test_what_is_accepted_is_granted_up_to_protected_places(ceiling, steps, path, access):
    held = run(ceiling.start, steps)
    request = held.allow(path, access)
    try:
        ceiling.check(request, held=held)
    except SandboxPolicyError:
        return
    if held.filesystem.access(path) < access and request.narrowed == Policy.top():
        assert ceiling.clamp(request).filesystem.access(path) >= access


@laws
@given(ceilings, ceilings, steps)
def test_a_changed_ceiling_can_only_narrow_a_session(before, after, steps):
    request = run(before.start, steps)
    now = before.followed_by(after)
    assert now.clamp(request) <= before.clamp(request)
    assert now.policy <= after.policy


@laws
@given(ceilings, steps, policies, steps)
def test_what_is_given_up_stays_given_up(ceiling, before, given_up, after):
    request = run(run(ceiling.start, before).narrow(given_up), after)
    assert ceiling.clamp(request) <= given_up


def ceiling(**grants):
    return Ceiling(replace(Policy(), filesystem=Filesystem.of(**grants), limits=Limits(memory=100)))


def test_a_request_within_the_ceiling_is_granted_and_others_are_not():
    held = ceiling(readonly=["/data"], readwrite=["/out"])
    request = Request().allow("/data/x", RO).allow("/out", RW)
    held.check(request)
    files = held.clamp(request).filesystem
    assert [files.access(path) for path in ("/data/x/y", "/out/z", "/data/y")] == [RO, RW, NONE]


@pytest.mark.parametrize(
    ("path", "access"), [("/data", RW), ("/database", RO), ("/", RO), ("/out/..x", RO)]
)
def test_a_request_beyond_the_ceiling_names_path_wish_and_holding(path, access):
    held = ceiling(readonly=["/data"])
    with pytest.raises(SandboxPolicyError) as error:
        held.check(Request().allow(path, access))
    assert path in error.value.message
    assert access.words in error.value.message
    assert held.holds(path).words in error.value.message
    assert held.clamp(Request().allow(path, access)).filesystem.access(path) < access


def test_a_folder_with_less_inside_is_refused_as_a_whole_and_named():
    held = ceiling(readwrite=["/out"], denied=["/out/private"])
    held.check(Request().allow("/out/public", RW))
    with pytest.raises(SandboxPolicyError, match="/out/private"):
        held.check(Request().allow("/out", RO))


def test_only_what_is_new_is_checked():
    wide, narrow = ceiling(readwrite=["/a", "/b"]), ceiling(readwrite=["/b"])
    held = Request().allow("/a", RW)
    wide.check(held)
    narrow.check(held.allow("/b", RW), held=held)
    with pytest.raises(SandboxPolicyError, match="/a"):
        narrow.check(held.allow("/b", RW))


def test_revoked_can_be_asked_for_again_and_takes_what_is_inside():
    request = Request().allow("/a", RW).allow("/a/b/c", RW).revoke("/a/b")
    assert request.filesystem.access("/a/b/c") == NONE
    assert request.filesystem.access("/a/d") == RW
    assert request.allow("/a/b", RO).filesystem.access("/a/b/c") == RO


def test_limits_are_checked_and_clamped():
    held = ceiling()
    held.check(Request().with_limits(memory=50, cell_timeout=5.0))
    with pytest.raises(SandboxPolicyError, match=r"memory.*101.*100"):
        held.check(Request().with_limits(memory=101))
    assert held.clamp(Request().with_limits(memory=101)).limits.memory == 100
    assert held.clamp(Request()).limits.memory == 100
    assert held.clamp(Request().with_limits(memory=50)).limits.memory == 50


def test_where_no_requests_are_taken_only_the_start_holds():
    start = Request().allow("/a/s", RO)
    open_to_all = replace(ceiling(readwrite=["/a"]), start=start)
    shut = replace(open_to_all, requests="none")
    request = start.allow("/a/x", RO)
    open_to_all.check(request)
    assert open_to_all.clamp(request).filesystem.access("/a/x") == RO
    with pytest.raises(SandboxPolicyError, match="takes no requests"):
        shut.check(request)
    assert shut.clamp(request).filesystem == start.filesystem


def test_the_digest_follows_the_content():
    one, same, other = ceiling(readonly=["/a/"]), ceiling(readonly=["/a"]), ceiling(readonly=["/b"])
    assert one.digest == same.digest != other.digest
    assert len(one.digest) == 64
