"""What comes before a session: the PROXY header, in clear."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress

from socksd.events import Outcome, SessionClosed, SessionOpened
from socksd.server.door import Door
from socksd.server.front import Front, IPNetwork, Preface
from socksd.server.protocol import SocksProtocol
from socksd.server.states import Deadlines
from socksd.wire.socks5 import Greeting
from tests.fakes import FakeTransport
from tests.server.world import DENY, FakePolicy, PlentyOfDescriptors, World

LINE = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 1080\r\n"
UNKNOWN = b"PROXY UNKNOWN\r\n"
ITSELF = b"PROXY TCP4 192.0.2.1 192.0.2.9 40000 1080\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
GREETING = Greeting(b"\x00").encode()
HANDSHAKE = Deadlines().handshake


def networks(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(map(ip_network, texts))


@pytest.fixture
def world() -> World:
    world = World()
    world.factory.front = Front(networks("192.0.2.0/24", "127.0.0.1/32"))
    return world


def come(world: World, address: str = "192.0.2.1") -> FakeTransport:
    """Let a balancer connect."""
    peer = IPv4Address("TCP", address, 40000)
    protocol = world.factory.buildProtocol(peer)
    assert isinstance(protocol, Preface)
    return FakeTransport(protocol, peer)


def the_end(world: World) -> SessionClosed:
    (closed,) = world.events.of(SessionClosed)
    assert len(world.sessions) == 0
    assert not world.clock.getDelayedCalls()
    return closed


def test_a_session_begins_with_whom_the_header_names(world: World) -> None:
    client = come(world)
    assert world.events.events == []
    client.receive(LINE)
    (opened,) = world.events.of(SessionOpened)
    assert (opened.client, opened.client_port) == (ip_address("203.0.113.9"), 4711)
    client.receive(GREETING)
    assert client.sent == b"\x05\x00"
    (facts,) = world.policy.asked
    assert facts.client == ip_address("203.0.113.9")
    client.receive_reset()
    closed = the_end(world)
    assert (closed.client, closed.client_port) == (ip_address("203.0.113.9"), 4711)


@pytest.mark.parametrize("cut", range(len(LINE + GREETING) + 1))
def test_however_it_is_split_what_follows_the_header_is_the_clients(world: World, cut: int) -> None:
    client = come(world)
    octets = LINE + GREETING
    for part in filter(None, (octets[:cut], octets[cut:])):
        client.receive(part)
    assert client.sent == b"\x05\x00"
    client.receive_reset()
    the_end(world)


@pytest.mark.parametrize("header", [UNKNOWN, LOCAL, ITSELF])
def test_where_it_names_nobody_the_client_is_the_balancer_itself(
    world: World, header: bytes
) -> None:
    client = come(world)
    client.receive(header)
    client.receive(GREETING)
    assert client.sent == b"\x05\x00"
    (opened,) = world.events.of(SessionOpened)
    assert (opened.client, opened.client_port) == (ip_address("192.0.2.1"), 40000)
    client.receive_reset()
    the_end(world)


@pytest.mark.parametrize("said", [b"", LINE[:7], UNKNOWN, LOCAL, ITSELF])
@pytest.mark.parametrize("leave", [FakeTransport.receive_fin, FakeTransport.receive_reset])
def test_a_balancer_that_goes_without_a_word_for_a_client_was_no_session(
    world: World, said: bytes, leave: object
) -> None:
    """A health check, twice a second from each balancer."""
    client = come(world)
    assert len(world.sessions) == 1
    if said:
        client.receive(said)
    assert callable(leave)
    leave(client)
    assert world.events.events == []
    assert len(world.sessions) == 0
    assert world.sessions.keep(world.runtime) == 0
    assert not world.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        pytest.param(GREETING, "not a PROXY header", id="SOCKS5"),
        pytest.param(b"PROXY TCP4 banana\r\n", "another form", id="banana"),
        pytest.param(LOCAL[:12] + b"\x11", "0x11", id="version"),
    ],
)
def test_a_balancer_without_a_header_is_told_nothing_and_the_log_why(
    world: World, octets: bytes, reason: str
) -> None:
    client = come(world)
    client.receive(octets)
    assert client.sent == b""
    assert client.fin
    client.receive(GREETING)  # read on, or closing would reset
    client.receive_fin()
    closed = the_end(world)
    assert closed.outcome is Outcome.PROTOCOL_ERROR
    assert reason in closed.reason
    assert closed.client == ip_address("192.0.2.1")
    assert world.policy.asked == []


@pytest.mark.parametrize("octets", [LINE, GREETING])
def test_nobody_else_may_come_with_a_header_or_without(world: World, octets: bytes) -> None:
    """Who could choose would choose whom to be."""
    client = come(world, "198.51.100.1")
    assert client.fin
    client.receive(octets)
    assert client.sent == b""
    client.receive_fin()
    closed = the_end(world)
    assert closed.outcome is Outcome.PROTOCOL_ERROR
    assert closed.client == ip_address("198.51.100.1")
    assert "proxy_protocol" in closed.reason


def test_a_mapped_balancer_is_known_by_its_ipv4_address(world: World) -> None:
    client = come(world, "::ffff:192.0.2.1")
    client.receive(LINE)
    assert len(world.events.of(SessionOpened)) == 1
    client.receive_reset()


def test_a_balancer_on_a_unix_socket_is_on_this_host(world: World) -> None:
    protocol = world.factory.buildProtocol(None)
    assert protocol is not None
    client = FakeTransport(protocol, UNIXAddress(None))
    client.receive(LINE)
    assert len(world.events.of(SessionOpened)) == 1
    client.receive_reset()


@pytest.mark.parametrize("said", [b"", LINE[:-1], UNKNOWN, ITSELF])
def test_the_deadline_of_the_handshake_holds_for_the_header(world: World, said: bytes) -> None:
    client = come(world)
    world.clock.advance(HANDSHAKE - 1)
    if said:
        client.receive(said)
    world.clock.advance(1.5)  # the reactor may be late
    assert client.fin
    client.receive_fin()
    assert the_end(world).outcome is Outcome.TIMED_OUT


def test_what_the_header_took_is_gone_for_the_rest_of_the_handshake(world: World) -> None:
    client = come(world)
    world.clock.advance(HANDSHAKE - 1)
    client.receive(LINE)
    world.clock.advance(0.9)
    assert client.gone is None
    world.clock.advance(0.1)
    assert client.gone == "reset"
    assert the_end(world).outcome is Outcome.TIMED_OUT


def test_the_policy_judges_the_client_and_not_the_balancer() -> None:
    world = World(policy=FakePolicy(lambda facts: DENY))
    world.factory.front = Front(networks("192.0.2.1/32"))
    client = come(world)
    client.receive(LINE + GREETING)
    (facts,) = world.policy.asked
    assert facts.client == ip_address("203.0.113.9")
    client.receive_fin()
    assert the_end(world).outcome is Outcome.DENIED


def test_the_door_counts_who_waits_for_a_header(world: World) -> None:
    world.sessions.door = Door(world.clock, most=1, descriptors=PlentyOfDescriptors())
    client = come(world)
    assert world.factory.buildProtocol(client.peer) is None
    client.receive(LINE)
    assert world.factory.buildProtocol(client.peer) is None
    client.receive_reset()
    come(world).receive_reset()
    come(world).receive_reset()


def test_what_a_connection_begins_with_is_kept_for_its_session(world: World) -> None:
    """A reload while the header is on its way: neither is another listener's name mixed in."""
    left: list[object] = []
    world.sessions.left = left.append
    client = come(world)
    world.factory.listener = "lab"
    world.factory.front = None
    client.receive(LINE)
    assert world.sessions.keep(world.runtime) == 1
    (session,) = world.sessions
    assert session.facts.listener == "office"
    assert left == []
    client.receive_reset()
    assert left == [world.runtime]


def test_stopping_ends_who_waits_for_a_header(world: World) -> None:
    client, another = come(world), come(world)
    another.receive(LINE)
    world.sessions.stop()
    assert (client.gone, another.gone) == ("reset", "reset")
    assert the_end(world).outcome is Outcome.STOPPED


def test_without_a_front_there_is_nothing_before_the_session() -> None:
    world = World()
    assert isinstance(world.factory.buildProtocol(None), SocksProtocol)
