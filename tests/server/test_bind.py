"""BIND: who may connect, who may not, and that no port stays open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from twisted.internet.interfaces import ILoggingContext

from socksd.address import Destination
from socksd.codes import Command, ReplyCode
from socksd.errors import Refused
from socksd.events import (
    Asked,
    Decided,
    Outcome,
    PeerArrived,
    PortOpened,
    RequestReceived,
    SessionClosed,
    StrangerTurnedAway,
)
from socksd.facts import Decision, Facts, Verdict
from socksd.interfaces import EndedBy, IEnd, IRelay
from socksd.server.socks5 import Socks5
from socksd.server.states import State
from socksd.wire.socks5 import Greeting, Reply, Request
from tests.fakes import FakeTransport
from tests.server.world import ALLOW, DEFER, DENY, FakePort, World, addresses

GREETING = Greeting(b"\x00").encode()
FTP = Destination.named("198.51.100.7", 21)
BIND = Request(Command.BIND, FTP).encode()
NAMED = Request(Command.BIND, Destination.named("ftp.example", 21)).encode()
METHOD = b"\x05\x00"
FIRST = Reply(ReplyCode.SUCCEEDED, Destination.named("192.0.2.99", 45678)).encode()
SECOND = Reply(ReplyCode.SUCCEEDED, Destination.named("198.51.100.7", 20)).encode()


def failure(code: ReplyCode) -> bytes:
    return bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0])


@pytest.fixture
def world() -> World:
    return World()


def port_of(world: World) -> FakePort:
    assert world.egress.port is not None
    return world.egress.port


def asked(world: World, request: bytes = BIND) -> tuple[FakeTransport, FakePort]:
    """A client that has been told where we listen."""
    client = world.connect()
    client.receive(GREETING + request)
    assert client.sent == METHOD + FIRST
    return client, port_of(world)


def the_end(world: World) -> SessionClosed:
    """Give the one SessionClosed; nothing is left behind it, least of all a port."""
    (closed,) = world.events.of(SessionClosed)
    assert world.events.events[-1] is closed
    assert not world.clock.getDelayedCalls()
    assert len(world.sessions) == 0
    assert world.egress.port is None or not world.egress.port.is_open
    return closed


# -- as it should go -----------------------------------------------------------


def test_bind_listens_replies_accepts_replies_and_relays(world: World) -> None:
    client, port = asked(world)
    assert port.addresses == addresses("198.51.100.7")
    (session,) = world.sessions
    assert session.state is State.BINDING
    world.clock.advance(3)
    peer = port.connect("198.51.100.7")
    assert peer is not None
    assert client.sent == METHOD + FIRST + SECOND
    assert not port.is_open, "one connection, and no more"
    (relay,) = world.relays
    assert relay.client.transport is client
    assert relay.target.transport is peer
    relay.end(EndedBy.BOTH, up=3, down=5)
    closed = the_end(world)
    assert (closed.outcome, closed.reply, closed.reason) == (
        Outcome.SERVED,
        ReplyCode.SUCCEEDED,
        "",
    )
    assert (closed.command, closed.destination) == (Command.BIND, FTP)
    assert (closed.address, closed.rule) == (FTP.host, "yes")
    assert (closed.up, closed.down, closed.asked) == (3, 5, Asked.REQUEST)


def test_the_events_of_a_bind_come_in_order(world: World) -> None:
    _, port = asked(world)
    port.connect("203.0.113.5", 4711)
    world.clock.advance(3)
    port.connect("198.51.100.7")
    assert world.events.events[-5:] == [
        RequestReceived(1, Command.BIND, FTP),
        Decided(1, ALLOW, ip_address("198.51.100.7")),
        PortOpened(1, Destination.named("192.0.2.99", 45678)),
        StrangerTurnedAway(1, ip_address("203.0.113.5"), 4711),
        PeerArrived(1, ip_address("198.51.100.7"), 20, 3.0),
    ]
    world.relays[0].end(EndedBy.BOTH)
    the_end(world)


def test_twisted_calls_the_port_what_it_is(world: World) -> None:
    """Its own lines say when it begins to listen, and when it ends; the factory adds none."""
    client, port = asked(world)
    assert ILoggingContext.providedBy(port.factory)
    assert port.factory.logPrefix() == "BIND"  # type: ignore[attr-defined]  # a Factory's
    assert not port.factory.noisy  # type: ignore[attr-defined]  # and this
    client.receive_reset()


def test_an_ipv6_peer_is_told_as_such(world: World) -> None:
    client, port = asked(world, Request(Command.BIND, Destination.named("2001:db8::7", 0)).encode())
    port.connect("2001:db8::7", 20)
    assert (
        client.sent[-22:]
        == Reply(ReplyCode.SUCCEEDED, Destination.named("2001:db8::7", 20)).encode()
    )
    world.relays[0].end(EndedBy.BOTH)


def test_what_the_client_sends_ahead_reaches_the_peer(world: World) -> None:
    client, port = asked(world)
    client.receive(b"early")
    client.receive_fin()  # a half-close: there is payload before it
    assert port.is_open
    port.connect("198.51.100.7")
    assert world.relays[0].early == b"early"
    world.relays[0].end(EndedBy.BOTH)


def test_what_the_peer_sends_before_the_relay_is_kept(world: World) -> None:
    """An FTP server sends a listing as soon as it is connected."""
    _, port = asked(world)
    peer = port.connect("198.51.100.7")
    assert peer is not None
    peer.receive(b"150 ")
    assert not peer.producing, "until a relay reads"
    world.relays[0].end(EndedBy.BOTH)


# -- the policy ----------------------------------------------------------------


def test_a_denied_request_opens_no_port(world: World) -> None:
    world.policy.answer = lambda facts: DENY if facts.destination else DEFER
    client = world.connect()
    client.receive(GREETING + NAMED)
    assert client.sent == METHOD + failure(ReplyCode.NOT_ALLOWED)
    assert world.resolver.pending.calls == []
    client.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.rule) == (Outcome.DENIED, "no")
    assert world.egress.port is None


def test_the_policy_knows_that_it_is_a_bind(world: World) -> None:
    client, _ = asked(world)
    facts = world.policy.asked[-1]
    assert (facts.command, facts.destination, facts.address) == (Command.BIND, FTP, FTP.host)
    client.receive_reset()


def test_each_address_of_a_name_is_judged_and_only_the_permitted_may_connect(world: World) -> None:
    denied = ip_address("10.0.0.1")

    def answer(facts: Facts) -> Decision:
        if facts.address is None:
            return DEFER
        return DENY if facts.address == denied else Decision(Verdict.ALLOW, f"to {facts.address}")

    world.policy.answer = answer
    client = world.connect()
    client.receive(GREETING + NAMED)
    assert client.sent == METHOD
    world.resolver.pending.deferreds[0].callback(addresses("10.0.0.1", "192.0.2.8", "192.0.2.9"))
    assert client.sent == METHOD + FIRST
    port = port_of(world)
    assert port.addresses == addresses("192.0.2.8", "192.0.2.9")
    assert port.connect("10.0.0.1") is None
    assert port.connect("192.0.2.9") is not None
    world.relays[0].end(EndedBy.BOTH)
    closed = the_end(world)
    assert (closed.address, closed.rule) == (ip_address("192.0.2.9"), "to 192.0.2.9")
    assert (closed.asked, closed.addresses) == (
        Asked.ADDRESS,
        addresses("10.0.0.1", "192.0.2.8", "192.0.2.9"),
    )


def test_of_both_families_ipv4_is_listened_on(world: World) -> None:
    """FTP's PORT and SOCKS4 have no way to tell an IPv6 address."""
    client = world.connect()
    client.receive(GREETING + NAMED)
    found = addresses("2001:db8::2", "192.0.2.9", "2001:db8::1", "192.0.2.8")
    world.resolver.pending.deferreds[0].callback(found)
    port = port_of(world)
    assert port.addresses == addresses("192.0.2.9", "192.0.2.8", "2001:db8::2", "2001:db8::1")
    assert port.connect("2001:db8::1") is not None, "though any of them may connect"
    world.relays[0].end(EndedBy.BOTH)


def test_a_name_with_no_permitted_address_is_denied(world: World) -> None:
    world.policy.answer = lambda facts: DENY if facts.address else DEFER
    client = world.connect()
    client.receive(GREETING + NAMED)
    world.resolver.pending.deferreds[0].callback(addresses("10.0.0.1"))
    assert client.sent == METHOD + failure(ReplyCode.NOT_ALLOWED)
    client.receive_fin()
    assert the_end(world).outcome is Outcome.DENIED
    assert world.egress.port is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0"])
def test_nobody_in_particular_cannot_be_waited_for(world: World, host: str) -> None:
    """Whoever came first would be the peer, and a scan finds an open port."""
    client = world.connect()
    client.receive(GREETING + Request(Command.BIND, Destination.named(host, 0)).encode())
    assert client.sent == METHOD + failure(ReplyCode.NOT_ALLOWED)
    client.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.reason) == (
        Outcome.FAILED,
        "DST.ADDR names nobody who might connect",
    )
    assert world.egress.port is None


def test_a_limit_that_a_rule_names_holds_for_the_peer(world: World) -> None:
    """The rule that has let this one in, of however many."""
    asked_for = []

    def limited(facts: Facts, client: IEnd, peer: IEnd) -> IRelay:
        asked_for.append(facts.client)
        return world.runtime.relay(client, peer)

    world.factory.runtime = replace(world.runtime, limited={"bulk": limited})
    world.policy.answer = lambda facts: replace(ALLOW, limits="bulk")
    _, port = asked(world)
    port.connect("198.51.100.7", 20)
    assert asked_for == [ip_address("192.0.2.1")]
    (relay,) = world.relays
    relay.end(EndedBy.BOTH)


def test_a_route_that_a_rule_names_is_not_gone_around(world: World) -> None:
    world.policy.answer = lambda facts: replace(ALLOW, route="dmz")
    client = world.connect()
    client.receive(GREETING + BIND)
    assert client.sent == METHOD + failure(ReplyCode.COMMAND_NOT_SUPPORTED)
    client.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.rule) == (Outcome.FAILED, "yes")
    assert world.egress.port is None


# -- who else comes --------------------------------------------------------------


@pytest.mark.parametrize("stranger", ["198.51.100.8", "2001:db8::1", "127.0.0.1"])
def test_a_stranger_is_turned_away_and_the_peer_is_waited_for(world: World, stranger: str) -> None:
    client, port = asked(world)
    assert port.connect(stranger, 4711) is None
    assert client.sent == METHOD + FIRST
    assert port.is_open
    assert port.connect("198.51.100.7") is not None
    assert client.sent == METHOD + FIRST + SECOND
    world.relays[0].end(EndedBy.BOTH)


def test_a_second_connection_in_the_same_turn_is_closed(world: World) -> None:
    _, port = asked(world)
    assert port.connect("198.51.100.7") is not None
    assert port.connect_in_the_same_turn("198.51.100.7", 21) is None
    assert len(world.relays) == 1
    assert world.events.of(StrangerTurnedAway) == []
    world.relays[0].end(EndedBy.BOTH)


def test_a_peer_that_comes_as_the_client_leaves_is_closed(world: World) -> None:
    client, port = asked(world)
    client.receive_reset()
    assert port.connect_in_the_same_turn("198.51.100.7", 20) is None
    assert world.relays == []
    the_end(world)


# -- when it ends without a peer --------------------------------------------------


@pytest.mark.parametrize(
    ("strangers", "reason"),
    [
        pytest.param(0, "no answer within 60 s", id="nobody came"),
        pytest.param(2, "no answer within 60 s; turned away: 2", id="others came"),
    ],
)
def test_a_peer_that_does_not_come_is_a_failure(world: World, strangers: int, reason: str) -> None:
    client, port = asked(world)
    for _ in range(strangers):
        port.connect("203.0.113.5")
    world.clock.advance(59)
    assert port.is_open, "the deadlines of handshake and connect are not its own"
    world.clock.advance(1)
    assert client.sent == METHOD + FIRST + failure(ReplyCode.HOST_UNREACHABLE)
    assert not port.is_open
    client.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.reason) == (Outcome.FAILED, reason)
    assert (closed.reply, closed.address) == (ReplyCode.HOST_UNREACHABLE, None)


@pytest.mark.parametrize("leave", [FakeTransport.receive_fin, FakeTransport.receive_reset])
def test_a_client_that_leaves_ends_the_listening_at_once(
    world: World, leave: Callable[[FakeTransport], None]
) -> None:
    client, port = asked(world)
    leave(client)
    assert not port.is_open
    closed = the_end(world)
    assert closed.outcome is Outcome.CLIENT_LEFT
    assert closed.reason == "waiting for the peer to connect to the port we have opened for it"
    assert closed.reply is None, "the last word was not said"


def test_a_service_that_stops_closes_the_port(world: World) -> None:
    _, port = asked(world)
    (session,) = world.sessions
    session.stop()
    assert not port.is_open
    assert the_end(world).outcome is Outcome.STOPPED


def test_no_port_is_what_the_egress_says(world: World) -> None:
    world.egress.no_port = Refused(ReplyCode.NETWORK_UNREACHABLE, "no way there")
    client = world.connect()
    client.receive(GREETING + BIND)
    assert client.sent == METHOD + failure(ReplyCode.NETWORK_UNREACHABLE)
    client.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.reason) == (Outcome.FAILED, "no way there")


def test_a_relay_that_cannot_be_made_resets_the_peer(
    world: World, logged_errors: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(client: IEnd, target: IEnd) -> IRelay:
        raise ZeroDivisionError

    monkeypatch.setattr(world, "_relay", broken)
    world.__post_init__()
    client, port = asked(world)
    peer = port.connect("198.51.100.7")
    assert peer is not None
    assert peer.gone == "reset"
    assert client.sent == METHOD + FIRST + failure(ReplyCode.GENERAL_FAILURE)
    assert len(logged_errors) == 1
    logged_errors.clear()
    client.receive_fin()
    assert the_end(world).outcome is Outcome.ERROR


def test_a_bug_between_opening_and_accepting_leaves_no_port(
    world: World, logged_errors: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(dialogue: Socks5, bound: Destination) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Socks5, "granted", broken)
    client = world.connect()
    client.receive(GREETING + BIND)
    assert not port_of(world).is_open
    assert client.sent == METHOD + failure(ReplyCode.GENERAL_FAILURE)
    assert len(logged_errors) == 1
    logged_errors.clear()
    client.receive_fin()
    assert the_end(world).outcome is Outcome.ERROR
