from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import Destination, IPAddress
from socksd.codes import Command
from socksd.facts import ANONYMOUS, Facts, Principal
from socksd.policy.match import (
    Answer,
    ByUser,
    FromNetworks,
    OnListener,
    ToHost,
    ToPorts,
    WithCommand,
)

FIRST = Facts(IPv4Address("10.0.0.7"), "office")
CLIENT = FromNetworks.of([ip_network("10.0.0.0/8"), ip_network("::1")])
LISTENER = OnListener.of(["office"])


@pytest.mark.parametrize(
    ("client", "answer"),
    [
        pytest.param("10.9.9.9", True, id="in one"),
        pytest.param("::1", True, id="in another"),
        pytest.param("11.0.0.1", False, id="in none"),
    ],
)
def test_from_is_where_the_client_is(client: str, answer: bool) -> None:
    assert CLIENT.matches(replace(FIRST, client=ip_address(client))) is answer


def test_listener_is_where_the_client_came_in() -> None:
    assert LISTENER.matches(FIRST) is True
    assert LISTENER.matches(replace(FIRST, listener="lab")) is False


@pytest.mark.parametrize(
    ("users", "principal", "answer"),
    [
        pytest.param(["alice"], None, None, id="name, not known yet"),
        pytest.param(["@any"], None, None, id="any, not known yet"),
        pytest.param(["@none"], None, None, id="none, not known yet"),
        pytest.param(["alice", "bob"], Principal("bob"), True, id="one of them"),
        pytest.param(["alice"], Principal("bob"), False, id="somebody else"),
        pytest.param(["alice"], Principal("Alice"), False, id="case counts"),
        pytest.param(["alice"], ANONYMOUS, False, id="name, without login"),
        pytest.param(["@any"], Principal("bob"), True, id="any, logged in"),
        pytest.param(["@any"], ANONYMOUS, False, id="any, without login"),
        pytest.param(["@none"], ANONYMOUS, True, id="none, without login"),
        pytest.param(["@none"], Principal("bob"), False, id="none, logged in"),
        pytest.param(["@none"], Principal("@none"), False, id="somebody called @none"),
        pytest.param(["alice"], Principal("@any"), False, id="somebody called @any"),
        pytest.param(["alice", "@none"], ANONYMOUS, True, id="mixed, without login"),
        pytest.param(["caf\u00e9"], Principal("caf\udce9"), False, id="octets that are not UTF-8"),
    ],
)
def test_user_is_who_they_are(
    users: list[str], principal: Principal | None, answer: Answer
) -> None:
    assert ByUser.of(users).matches(replace(FIRST, principal=principal)) is answer


def test_command_is_what_they_ask() -> None:
    condition = WithCommand.of([Command.CONNECT, Command.BIND])
    assert condition.matches(FIRST) is None
    assert condition.matches(replace(FIRST, command=Command.BIND)) is True
    assert condition.matches(replace(FIRST, command=Command.UDP_ASSOCIATE)) is False


NAMES = ToHost.of([".example"])
GLOB = ToHost.of(["1*"])
NETWORKS = ToHost.of([ip_network("192.0.2.0/24")])
BOTH = ToHost.of([".example", ip_network("192.0.2.0/24")])
IN, OUT = IPv4Address("192.0.2.1"), IPv4Address("198.51.100.1")


@pytest.mark.parametrize(
    ("condition", "host", "address", "answer"),
    [
        pytest.param(NAMES, None, None, None, id="names: nothing known"),
        pytest.param(NAMES, None, IN, None, id="names: address known"),
        pytest.param(NAMES, "a.example", None, True, id="names: a match"),
        pytest.param(NAMES, "a.test", None, False, id="names: a mismatch"),
        pytest.param(NAMES, "192.0.2.1", None, False, id="names: a literal is no name"),
        pytest.param(GLOB, "192.0.2.1", None, False, id="names: not even one that looks so"),
        pytest.param(NETWORKS, None, None, None, id="networks: nothing known"),
        pytest.param(NETWORKS, None, IN, True, id="networks: address known"),
        pytest.param(NETWORKS, "a.example", None, None, id="networks: name not resolved"),
        pytest.param(NETWORKS, "a.example", IN, True, id="networks: name leads in"),
        pytest.param(NETWORKS, "a.example", OUT, False, id="networks: name leads elsewhere"),
        pytest.param(BOTH, None, None, None, id="both: nothing known"),
        pytest.param(BOTH, None, IN, True, id="both: address in, name unknown"),
        pytest.param(BOTH, None, OUT, None, id="both: address out, name unknown"),
        pytest.param(BOTH, "a.example", None, True, id="both: the name does, wherever it leads"),
        pytest.param(BOTH, "a.example", OUT, True, id="both: the name does"),
        pytest.param(BOTH, "a.test", None, None, id="both: the address may"),
        pytest.param(BOTH, "a.test", IN, True, id="both: the address does"),
        pytest.param(BOTH, "a.test", OUT, False, id="both: neither does"),
    ],
)
def test_to_is_the_name_or_the_address(
    condition: ToHost, host: str | None, address: IPAddress | None, answer: Answer
) -> None:
    destination = None if host is None else Destination.named(host, 80)
    facts = replace(FIRST, destination=destination, address=address)
    assert condition.matches(facts) is answer


def test_a_network_holds_a_literal_at_once() -> None:
    facts = FIRST.asking(Command.CONNECT, Destination.named("192.0.2.1", 80))
    assert NETWORKS.matches(facts) is True


@given(
    st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted), min_size=1),
    st.integers(0, 65535),
    st.data(),
)
def test_ports_are_what_one_of_the_ranges_holds(
    bounds: list[list[int]], port: int, data: st.DataObject
) -> None:
    ranges = [range(first, last + 1) for first, last in bounds]
    near = st.sampled_from([edge + by for pair in bounds for edge in pair for by in (-1, 0, 1)])
    for asked in (port, data.draw(near)):
        facts = replace(FIRST, destination=Destination("a.example", asked))
        assert ToPorts.of(ranges).matches(facts) is any(asked in each for each in ranges)


def test_ports_are_unknown_before_there_is_a_destination() -> None:
    assert ToPorts.of([range(65536)]).matches(FIRST) is None
