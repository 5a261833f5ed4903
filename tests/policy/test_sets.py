from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import IPAddress
from socksd.policy.sets import IPNetwork, Names, Networks

ADDRESSES = st.one_of(
    st.ip_addresses(),
    st.integers(0, 255).map(IPv4Address),
    st.integers(0, 255).map(IPv6Address),
)


@st.composite
def networks(draw: st.DrawFn) -> IPNetwork:
    address = draw(ADDRESSES)
    length = draw(st.integers(0, address.max_prefixlen))
    network: IPNetwork = ip_network((address, length), strict=False)
    return network


@given(st.lists(networks()), ADDRESSES)
def test_a_set_of_networks_holds_what_one_of_them_holds(
    members: list[IPNetwork], address: IPAddress
) -> None:
    assert Networks.of(members).holds(address) == any(address in network for network in members)


@given(networks(), st.data())
def test_a_set_of_networks_holds_both_its_edges(network: IPNetwork, data: st.DataObject) -> None:
    others = data.draw(st.lists(networks(), max_size=3))
    members = Networks.of([*others, network])
    assert members.holds(network.network_address)
    assert members.holds(network.broadcast_address)


@pytest.mark.parametrize(
    ("network", "address"),
    [
        pytest.param("::/0", "10.0.0.1", id="all of IPv6"),
        pytest.param("0.0.0.0/0", "::1", id="all of IPv4"),
        pytest.param("0.0.0.1/32", "::1", id="the same number"),
    ],
)
def test_a_family_holds_nothing_of_the_other(network: str, address: str) -> None:
    assert not Networks.of([ip_network(network)]).holds(ip_address(address))


@pytest.mark.parametrize(
    ("pattern", "name", "held"),
    [
        pytest.param("a.example", "a.example", True, id="exact"),
        pytest.param("a.example", "b.a.example", False, id="exact is not what is below"),
        pytest.param("a.example", "example", False, id="exact is not what is above"),
        pytest.param(".a.example", "a.example", True, id="a suffix is the domain itself"),
        pytest.param(".a.example", "b.a.example", True, id="and what is below"),
        pytest.param(".a.example", "c.b.a.example", True, id="far below"),
        pytest.param(".a.example", "ba.example", False, id="but whole labels only"),
        pytest.param(".a.example", "example", False, id="and nothing above"),
        pytest.param(".a.example", "a.example.evil", False, id="at the end only"),
        pytest.param("db-*.example", "db-1.example", True, id="glob"),
        pytest.param("db-*.example", "db-.example", True, id="* is nothing, too"),
        pytest.param("db-*.example", "db-1.lan.example", True, id="* is dots, too"),
        pytest.param("db-*.example", "xdb-1.example", False, id="a glob begins at the beginning"),
        pytest.param("db-*.example", "db-1.example.evil", False, id="and ends at the end"),
        pytest.param("db-*.example", "db-1xexample", False, id="a dot is a dot"),
        pytest.param("db-?.example", "db-1.example", True, id="? is one"),
        pytest.param("db-?.example", "db-.example", False, id="? is not none"),
        pytest.param("db-?.example", "db-12.example", False, id="? is not two"),
    ],
)
def test_a_name_is_held_by_its_pattern(pattern: str, name: str, held: bool) -> None:
    assert Names.of([pattern]).holds(name) is held
    assert Names.of(["x.test", ".y.test", "z*.test", pattern, "*.q?.test"]).holds(name) is held


def test_no_name_sends_a_glob_backtracking() -> None:
    """Clients choose the name; a regular expression with ".*" takes ages for this one."""
    hostile = Names.of(["*a*a*a*a*b"])
    began = process_time()
    assert not hostile.holds("a" * 253)
    assert process_time() - began < 0.5
