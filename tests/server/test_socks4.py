"""SOCKS4 and 4A, as dialogues."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.python.failure import Failure

from socksd.address import Destination
from socksd.codes import Command, Method, ReplyCode
from socksd.errors import Refused
from socksd.events import (
    Connected,
    Decided,
    MethodChosen,
    Outcome,
    RequestReceived,
    SessionClosed,
    SessionOpened,
)
from socksd.facts import ANONYMOUS, Verdict
from socksd.interfaces import EndedBy
from socksd.server.spoken import dialogues
from socksd.wire.socks4 import Request
from tests.fakes import FakeTransport
from tests.server.world import ALLOW, DENY, World, addresses
from tests.wire.strategies import split

HOST = Destination.named("198.51.100.7", 80)
CONNECT = Request(Command.CONNECT, HOST, b"fred").encode()
NAMED = Request(Command.CONNECT, Destination.named("web.example", 443), b"").encode()
BIND = Request(Command.BIND, Destination.named("198.51.100.7", 21), b"fred").encode()
REJECTED = b"\x00\x5b" + bytes(6)
GRANTED = b"\x00\x5a\xc3\x50\x7f\x00\x00\x01"  # from 127.0.0.1, port 50000


@pytest.fixture
def world() -> World:
    return World()


def the_end(world: World) -> SessionClosed:
    """Give the one SessionClosed, which is the last event."""
    (closed,) = world.events.of(SessionClosed)
    assert world.events.events[-1] is closed
    assert not world.clock.getDelayedCalls()
    assert len(world.sessions) == 0
    return closed


def rejected(world: World, client: FakeTransport) -> SessionClosed:
    """The client was told 91, and that was the end."""
    assert client.sent == REJECTED
    assert client.fin
    client.receive_fin()
    return the_end(world)


# -- CONNECT -------------------------------------------------------------------


def test_connect_is_asked_about_connected_and_relayed(world: World) -> None:
    client = world.connect()
    client.receive(CONNECT + b"early")
    assert client.sent == b"", "no reply before the real outcome"
    world.egress.answer("198.51.100.7")
    assert client.sent == GRANTED
    assert world.relays[0].early == b"early"
    world.relays[0].end(EndedBy.BOTH, up=3, down=5)
    closed = the_end(world)
    assert (closed.outcome, closed.up, closed.down) == (Outcome.SERVED, 3, 5)
    assert (closed.command, closed.destination) == (Command.CONNECT, HOST)
    assert (closed.reply, closed.address) == (ReplyCode.SUCCEEDED, HOST.host)


def test_the_events_are_those_of_a_session_without_login(world: World) -> None:
    world.connect().receive(CONNECT)
    world.egress.answer("198.51.100.7")
    world.relays[0].end(EndedBy.BOTH)
    assert world.events.events[:-1] == [
        SessionOpened(1, ip_address("192.0.2.1"), 40000, "office"),
        Decided(1, ALLOW, None),
        RequestReceived(1, Command.CONNECT, HOST),
        Decided(1, ALLOW, ip_address("198.51.100.7")),
        Connected(1, ip_address("198.51.100.7"), 0),
    ]
    assert world.events.of(MethodChosen) == []


@given(st.data())
def test_a_request_is_heard_however_it_is_split(data: st.DataObject) -> None:
    world = World()
    client = world.connect()
    for segment in data.draw(split(NAMED + b"early")):
        if segment:
            client.receive(segment)
    assert world.resolver.pending.calls == [("web.example",)]
    world.resolver.pending.deferreds[0].callback(addresses("192.0.2.9"))
    world.egress.answer("192.0.2.9", 443)
    assert client.sent == GRANTED
    assert world.relays[0].early == b"early"
    world.relays[0].end(EndedBy.BOTH)
    the_end(world)


def test_the_bound_address_of_an_ipv6_connection_is_left_out(world: World) -> None:
    client = world.connect()
    client.receive(NAMED)
    world.resolver.pending.deferreds[0].callback(addresses("2001:db8::1"))
    world.egress.answer("2001:db8::1", 443)
    assert client.sent == b"\x00\x5a\xc3\x50" + bytes(4)
    world.relays[0].end(EndedBy.BOTH)


def test_early_data_is_bounded(world: World) -> None:
    client = world.connect()
    client.receive(CONNECT)
    client.receive(bytes(1001))
    assert not client.producing
    world.egress.answer("198.51.100.7")
    assert client.producing
    world.relays[0].end(EndedBy.BOTH)


# -- BIND ------------------------------------------------------------------------


def test_bind_is_answered_twice(world: World) -> None:
    client = world.connect()
    client.receive(BIND)
    first = b"\x00\x5a\xb2\x6e\xc0\x00\x02\x63"  # 192.0.2.99, port 45678
    assert client.sent == first
    assert world.egress.port is not None
    world.egress.port.connect("198.51.100.7", 20)
    assert client.sent == first + b"\x00\x5a\x00\x14\xc6\x33\x64\x07"
    world.relays[0].end(EndedBy.BOTH)
    assert the_end(world).command is Command.BIND


def test_a_bind_without_a_peer_is_rejected_behind_its_first_reply(world: World) -> None:
    client = world.connect()
    client.receive(BIND)
    world.clock.advance(60)
    assert client.sent[8:] == REJECTED
    client.receive_fin()
    assert the_end(world).outcome is Outcome.FAILED


# -- USERID ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "userid"),
    [
        pytest.param(b"fred", "fred", id="a name"),
        pytest.param(b"", "", id="none"),
        pytest.param(b"fr\xe9d\n", "fr\udce9d\n", id="not UTF-8"),
    ],
)
def test_userid_is_told_at_the_end_and_is_not_a_user(
    world: World, octets: bytes, userid: str
) -> None:
    world.connect().receive(Request(Command.CONNECT, HOST, octets).encode())
    world.egress.answer("198.51.100.7")
    world.relays[0].end(EndedBy.BOTH)
    closed = the_end(world)
    assert (closed.user, closed.userid) == (None, userid)
    assert [facts.principal for facts in world.policy.asked] == [None, ANONYMOUS]


def test_a_client_that_has_to_log_in_is_rejected(world: World) -> None:
    """Whatever it calls itself: the name of a user is no proof."""
    world.authenticator.acceptable = (Method.USERNAME_PASSWORD,)
    world.authenticator.users[b"fred"] = b""
    client = world.connect()
    client.receive(CONNECT)
    closed = rejected(world, client)
    assert (closed.outcome, closed.reason) == (
        Outcome.NO_METHOD,
        "has to log in, which SOCKS4 cannot",
    )
    assert (closed.user, closed.userid) == (None, "fred")
    assert (closed.command, closed.destination) == (Command.CONNECT, HOST)
    assert world.egress.pending.calls == []
    assert len(world.policy.asked) == 1, "about the client, and not about what it wanted"


def test_a_client_that_may_log_in_or_not_is_served(world: World) -> None:
    world.authenticator.acceptable = (Method.NO_AUTHENTICATION, Method.USERNAME_PASSWORD)
    client = world.connect()
    client.receive(CONNECT)
    world.egress.answer("198.51.100.7")
    assert client.sent == GRANTED
    world.relays[0].end(EndedBy.BOTH)


# -- refusals ----------------------------------------------------------------------


@pytest.mark.parametrize("code", [c for c in ReplyCode if c is not ReplyCode.SUCCEEDED])
def test_every_refusal_is_91_and_the_log_knows_which(world: World, code: ReplyCode) -> None:
    client = world.connect()
    client.receive(CONNECT)
    world.egress.pending.deferreds[0].errback(Failure(Refused(code, "so it is")))
    closed = rejected(world, client)
    assert (closed.outcome, closed.reply, closed.reason) == (Outcome.FAILED, code, "so it is")


def test_a_denied_request_is_rejected(world: World) -> None:
    world.policy.answer = lambda facts: DENY if facts.destination else ALLOW
    client = world.connect()
    client.receive(NAMED)
    closed = rejected(world, client)
    assert (closed.outcome, closed.rule, closed.verdict) == (Outcome.DENIED, "no", Verdict.DENY)
    assert world.resolver.pending.calls == []


def test_a_client_denied_by_its_address_gets_no_answer(world: World) -> None:
    world.policy.answer = lambda facts: DENY
    client = world.connect()
    client.receive(CONNECT)
    assert client.sent == b""
    client.receive_fin()
    assert the_end(world).outcome is Outcome.DENIED


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"\x04\x03", id="CD"),
        pytest.param(CONNECT[:8] + b"u" * 256, id="a long USERID"),
        pytest.param(b"\x04\x01\x00\x50\x00\x00\x00\x01\x00a b\x00", id="a bad name"),
    ],
)
def test_a_broken_request_is_rejected_once(world: World, octets: bytes) -> None:
    client = world.connect()
    client.receive(octets)
    client.receive(b"the rest of it, which nobody reads")
    assert rejected(world, client).outcome is Outcome.PROTOCOL_ERROR


def test_a_client_that_is_silent_after_its_first_octets_is_cut_off(world: World) -> None:
    client = world.connect()
    client.receive(CONNECT[:-1])
    world.clock.advance(10)
    assert client.sent == b""
    assert client.gone == "reset"
    assert the_end(world).outcome is Outcome.TIMED_OUT


def test_where_it_is_not_spoken_it_is_rejected_unheard(world: World) -> None:
    """As before SOCKS4 was spoken at all."""
    only5 = {"office": dialogues(["socks5"])}
    world.factory.runtime = replace(world.runtime, dialogues=only5)
    client = world.connect()
    client.receive(CONNECT)
    closed = rejected(world, client)
    assert closed.outcome is Outcome.PROTOCOL_ERROR
    assert "SOCKS4" in closed.reason
    assert (closed.command, closed.userid) == (None, None)


def test_nobody_is_told_of_a_login(world: World) -> None:
    client = world.connect()
    client.receive(CONNECT)
    (session,) = world.sessions
    dialogue = session.dialogue
    assert dialogue is not None
    dialogue.logged_in()
    dialogue.login_refused("wrong")
    assert client.sent == b""
    client.receive_reset()


def test_after_a_success_nothing_is_refused(world: World) -> None:
    client = world.connect()
    client.receive(CONNECT)
    (session,) = world.sessions
    dialogue = session.dialogue
    assert dialogue is not None
    world.egress.answer("198.51.100.7")
    assert not dialogue.refused(ReplyCode.GENERAL_FAILURE, "too late")
    assert client.sent == GRANTED
    world.relays[0].end(EndedBy.BOTH)
