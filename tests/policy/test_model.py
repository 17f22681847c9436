"""Every field of a policy is a lattice, and so is the whole."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy import (
    Access,
    Exceeded,
    Filesystem,
    HtmlLevel,
    Limits,
    Network,
    NetworkMode,
    Policy,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from mxc_kernel.policy.model import ANY_NAME, NO_CAP
from tests.policy import laws

paths = st.lists(st.sampled_from("abc"), max_size=3).map(lambda names: "/" + "/".join(names))
filesystems = st.lists(st.tuples(paths, st.sampled_from(list(Access))), max_size=5).map(
    lambda grants: Filesystem(tuple(grants))
)
hosts = st.frozensets(st.sampled_from(["a.org", "B.org", "b.org.", "::1"]))
networks = st.builds(Network, st.sampled_from(list(NetworkMode)), hosts)
limits = st.builds(
    Limits,
    **dict.fromkeys(("cell_timeout", "cpu_time"), st.none() | st.floats(0, 100)),
    **dict.fromkeys(
        (
            *("memory", "processes", "open_files", "file_size"),
            *("scratch_space", "scratch_files", "grant_space", "grant_files"),
        ),
        st.none() | st.integers(0, 5),
    ),
    **dict.fromkeys(
        (
            *("output", "rich_output", "single_output"),
            *("outputs", "output_rate", "session_output"),
        ),
        st.integers(0, 5) | st.just(NO_CAP),
    ),
    output_exceeded=st.sampled_from(list(Exceeded)),
)
policies = st.builds(
    Policy,
    filesystem=filesystems,
    network=networks,
    limits=limits,
    html=st.sampled_from(list(HtmlLevel)),
    environment=st.frozensets(st.sampled_from(["LANG", "TZ", "X", ANY_NAME])),
)


@laws
@given(policies, policies, policies)
def test_policies_are_a_meet_semilattice(a, b, c):
    assert a.meet(a) == a
    assert a.meet(b) == b.meet(a)
    assert a.meet(b.meet(c)) == a.meet(b).meet(c)
    assert a.meet(b) <= a
    assert a.meet(b) <= b
    assert a.meet(b).meet(c) <= a.meet(c)
    assert a.meet(Policy.top()) == a
    assert a.meet(Policy.bottom()) == Policy.bottom()
    assert Policy.bottom() <= a <= Policy.top()


@laws
@given(policies, policies)
def test_order_is_that_of_every_field(a, b):
    def below(name):
        one, other = getattr(a, name), getattr(b, name)
        if name == "environment":
            return ANY_NAME in other or one <= other
        return one <= other

    assert (a <= b) == all(below(item.name) for item in fields(Policy))


@laws
@given(networks, networks)
def test_a_network_reaches_what_both_reach(a, b):
    def reaches(network, host):
        return network.mode is NetworkMode.OPEN or host in network.hosts

    for host in ("a.org", "b.org", "c.org", "::1"):
        assert reaches(a.meet(b), host) == (reaches(a, host) and reaches(b, host))


def test_an_empty_list_of_hosts_is_closed():
    assert Network(NetworkMode.HOSTS) == Network(NetworkMode.CLOSED)
    one, other = (Network(NetworkMode.HOSTS, frozenset({host})) for host in ("a.org", "b.org"))
    assert one.meet(other) == Network()


@laws
@given(limits, limits)
def test_order_of_limits_is_that_of_each(a, b):
    def below(one, other):
        return other is None or (one is not None and one <= other)

    names = [item.name for item in fields(Limits)]
    assert (a <= b) == all(below(getattr(a, name), getattr(b, name)) for name in names)
    assert a.meet(b) <= a
    assert Limits.bottom() <= a <= Limits()


def test_a_cell_is_stopped_if_anyone_wants_it():
    stop, go_on = Limits(output_exceeded=Exceeded.STOP), Limits()
    assert stop.meet(go_on) == stop
    assert stop.plain()["output_exceeded"] == "stop"


def test_none_is_no_limit_and_zero_is_one():
    assert Limits(memory=5).meet(Limits()) == Limits(memory=5)
    assert Limits(memory=0).meet(Limits(memory=5)) == Limits(memory=0)


@pytest.mark.parametrize("field", [item.name for item in fields(Policy)])
def test_each_field_is_met(field):
    bottom, top = Policy.bottom(), Policy.top()
    low = replace(top, **{field: getattr(bottom, field)})
    assert low.meet(top) == low != top
    assert not top <= low


def test_only_listed_variables_pass():
    environ = {"LANG": "C", "SECRET_TOKEN": "x", "TZ": "UTC"}
    assert Policy().passes(environ) == {"LANG": "C", "TZ": "UTC"}
    assert Policy.bottom().passes(environ) == {}


@laws
@given(st.integers(1, 10**12 - 1), st.sampled_from(["ms", "s", "m", "h"]))
def test_durations_read_back(number, unit):
    seconds = parse_duration(f"{number}{unit}")
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.001, rel=1e-9)


def test_durations_and_sizes():
    assert parse_duration("off") is None
    assert [parse_duration(text) for text in ("200ms", "30s", "1.5h", "2 m")] == [
        0.2,
        30,
        5400,
        120,
    ]
    assert [parse_size(text) for text in ("1B", "1.5KiB", "2GiB")] == [1, 1536, 2 << 30]
    assert [format_duration(item) for item in (None, 0.2, 90, 120, 7200)] == [
        "off",
        "0.2s",
        "90s",
        "2m",
        "2h",
    ]
    assert [format_size(item) for item in (None, 1, 1536, 2 << 30)] == [
        "off",
        "1B",
        "1.5KiB",
        "2GiB",
    ]


@pytest.mark.parametrize(
    "text", ["", "0s", "30", "-1s", "1e3s", "٣s", "30sec", "1" * 13 + "s", "inf"]
)
def test_what_is_not_a_duration(text):
    with pytest.raises(SandboxPolicyError):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "0B", "off", "2GB", "2", "-1MiB", "0.1B", "nan GiB"])
def test_what_is_not_a_size(text):
    with pytest.raises(SandboxPolicyError):
        parse_size(text)
