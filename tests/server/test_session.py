"""Sessions, as dialogues."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.python.failure import Failure

from socksd.address import Destination
from socksd.codes import Command, Method, ReplyCode
from socksd.errors import LoginFailed, Refused
from socksd.events import (
    Asked,
    Connected,
    ConnectFailed,
    Decided,
    Denied,
    Event,
    LoggedIn,
    LoginRefused,
    MethodChosen,
    Outcome,
    RequestReceived,
    Resolved,
    ResolveFailed,
    SessionClosed,
    SessionOpened,
)
from socksd.facts import ANONYMOUS, Decision, Facts, Principal, Report, Verdict
from socksd.interfaces import EndedBy, IEgress, IEnd, IRelay
from socksd.server.spoken import dialogues
from socksd.server.states import State
from socksd.wire.socks5 import Greeting, Request, UsernamePassword
from tests.fakes import FakeTransport
from tests.server.world import ALLOW, DEFER, DENY, FakeEgress, FakePolicy, World, addresses

GREETING = Greeting(b"\x00").encode()
LOGIN_GREETING = Greeting(b"\x00\x02").encode()
LITERAL = Request(Command.CONNECT, Destination.named("198.51.100.7", 80)).encode()
NAMED = Request(Command.CONNECT, Destination.named("web.example", 443)).encode()
UNSPECIFIED = Request(Command.CONNECT, Destination.named("0.0.0.0", 80)).encode()
UDP = Request(Command.UDP_ASSOCIATE, Destination.named("0.0.0.0", 0)).encode()
LOGIN = UsernamePassword(b"alice", b"secret").encode()


def reply(code: ReplyCode) -> bytes:
    return bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0])


def the_end(world: World) -> SessionClosed:
    """Give the one SessionClosed, which is the last event."""
    (closed,) = world.events.of(SessionClosed)
    assert world.events.events[-1] is closed
    assert not world.clock.getDelayedCalls(), "a session that has ended has no deadline"
    assert len(world.sessions) == 0
    return closed


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def login_world(world: World) -> World:
    world.authenticator.acceptable = (Method.USERNAME_PASSWORD,)
    world.authenticator.users[b"alice"] = b"secret"
    return world


# -- CONNECT, as it should go --------------------------------------------------


def test_connect_to_a_literal_asks_connects_replies_and_relays(world: World) -> None:
    client = world.connect()
    client.receive(GREETING)
    assert client.sent == b"\x05\x00"
    client.receive(LITERAL)
    assert client.sent == b"\x05\x00", "no reply before the real outcome"
    assert world.egress.pending.calls == [
        (Destination.named("198.51.100.7", 80), addresses("198.51.100.7"))
    ]
    target = world.egress.answer("198.51.100.7")
    assert client.sent == b"\x05\x00" + b"\x05\x00\x00\x01\x7f\x00\x00\x01\xc3\x50"
    (relay,) = world.relays
    assert relay.client.transport is client
    assert relay.target.transport is target
    assert relay.early == b""
    world.clock.advance(7)
    relay.end(EndedBy.BOTH, up=3, down=5)
    closed = the_end(world)
    assert (closed.outcome, closed.reason, closed.up, closed.down) == (Outcome.SERVED, "", 3, 5)
    assert (closed.client, closed.client_port) == (ip_address("192.0.2.1"), 40000)
    assert (closed.listener, closed.user, closed.command) == ("office", None, Command.CONNECT)
    assert closed.destination == Destination.named("198.51.100.7", 80)
    assert (closed.address, closed.rule) == (ip_address("198.51.100.7"), "yes")
    assert (closed.reply, closed.seconds) == (ReplyCode.SUCCEEDED, 7)


def test_a_name_is_asked_about_looked_up_and_asked_about_again(world: World) -> None:
    """Each address is put to the policy, and only the permitted ones are dialled."""
    denied = ip_address("10.0.0.1")

    def answer(facts: Facts) -> Decision:
        if facts.address is None:
            return DEFER
        return DENY if facts.address == denied else ALLOW

    world.policy.answer = answer
    client = world.connect()
    client.receive(GREETING + NAMED)
    assert world.resolver.pending.calls == [("web.example",)]
    world.resolver.pending.deferreds[0].callback(addresses("10.0.0.1", "::2", "192.0.2.9"))
    assert world.egress.pending.calls == [
        (Destination.named("web.example", 443), addresses("::2", "192.0.2.9"))
    ]
    world.egress.answer("192.0.2.9", 443)
    assert len(world.relays) == 1
    asked = [(facts.destination, facts.address) for facts in world.policy.asked]
    web = Destination.named("web.example", 443)
    assert asked == [
        (None, None),
        (web, None),
        *((web, address) for address in addresses("10.0.0.1", "::2", "192.0.2.9")),
    ]
    world.relays[0].end(EndedBy.BOTH)
    closed = the_end(world)
    assert (closed.address, closed.rule) == (ip_address("192.0.2.9"), "yes")


def test_the_end_tells_what_the_decision_was_made_of(world: World) -> None:
    trial = (Report("trial", Verdict.DENY),)
    world.policy.answer = lambda facts: replace(ALLOW, reports=trial if facts.address else ())
    client = world.connect()
    client.receive(GREETING + NAMED)
    # Judged is what connect(2) would reach, and each address once.
    found = addresses("::ffff:192.0.2.9", "::2", "192.0.2.9")
    world.resolver.pending.deferreds[0].callback(found)
    client.receive_reset()
    closed = the_end(world)
    assert (closed.asked, closed.verdict, closed.reports) == (Asked.ADDRESS, Verdict.ALLOW, trial)
    assert (closed.addresses, closed.unlisted) == (addresses("192.0.2.9", "::2"), 0)


@pytest.mark.parametrize(
    ("octets", "asked", "verdict"),
    [
        pytest.param(b"", None, None, id="nothing"),
        pytest.param(GREETING, Asked.CLIENT, Verdict.DEFER, id="a greeting"),
        pytest.param(GREETING + NAMED, Asked.REQUEST, Verdict.DEFER, id="a name"),
        pytest.param(GREETING + LITERAL, Asked.REQUEST, Verdict.ALLOW, id="a literal"),
        pytest.param(GREETING + UNSPECIFIED, Asked.REQUEST, Verdict.ALLOW, id="0.0.0.0"),
        pytest.param(GREETING + UDP, Asked.REQUEST, Verdict.DEFER, id="an association"),
    ],
)
def test_the_end_tells_how_far_the_policy_was_asked(
    world: World, octets: bytes, asked: Asked | None, verdict: Verdict | None
) -> None:
    world.policy.answer = lambda facts: DEFER if facts.address is None else ALLOW
    client = world.connect()
    if octets:
        client.receive(octets)
    client.receive_reset()
    closed = the_end(world)
    assert (closed.asked, closed.verdict, closed.addresses) == (asked, verdict, ())


@pytest.mark.parametrize(
    ("octets", "protocol"),
    [
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"\x16\x03\x01", None, id="TLS"),
        pytest.param(GREETING[:1], "socks5", id="an octet of SOCKS5"),
        pytest.param(GREETING + LITERAL, "socks5", id="SOCKS5"),
        pytest.param(b"\x04\x01\x00\x50\xc6\x33\x64\x07\x00", "socks4a", id="SOCKS4"),
        pytest.param(b"CONNECT a.example:443 HTTP/1.1\r\n", "http-connect", id="HTTP"),
    ],
)
def test_the_end_tells_which_protocol_the_client_has_spoken(
    world: World, octets: bytes, protocol: str | None
) -> None:
    """By its first octet; and still when a relay has taken over."""
    client = world.connect()
    if octets:
        client.receive(octets)
    if world.egress.pending.deferreds:
        world.egress.answer("198.51.100.7")
        world.relays[0].end(EndedBy.BOTH)
    else:
        client.receive_reset()
    assert the_end(world).protocol == protocol


@pytest.mark.parametrize(
    ("denied", "listed", "unlisted"),
    [
        pytest.param(3, range(3, 19), 4, id="of many the permitted"),
        pytest.param(20, range(16), 4, id="of many that are denied the first"),
        pytest.param(19, range(19, 20), 19, id="of many the one that is permitted"),
    ],
)
def test_so_many_addresses_are_listed_that_the_decision_can_be_found_again(
    world: World, denied: int, listed: range, unlisted: int
) -> None:
    found = addresses(*(f"192.0.2.{number}" for number in range(20)))

    def answer(facts: Facts) -> Decision:
        if facts.address is None:
            return DEFER
        return DENY if facts.address in found[:denied] else ALLOW

    world.policy.answer = answer
    client = world.connect()
    client.receive(GREETING + NAMED)
    world.resolver.pending.deferreds[0].callback(found)
    client.receive_reset()
    closed = the_end(world)
    assert closed.addresses == tuple(found[number] for number in listed)
    assert closed.unlisted == unlisted


def test_the_rule_in_the_log_is_the_one_that_allowed_the_address_dialled(world: World) -> None:
    world.policy.answer = lambda facts: Decision(Verdict.ALLOW, f"for {facts.address}")
    world.connect().receive(GREETING + NAMED)
    world.resolver.pending.deferreds[0].callback(addresses("192.0.2.8", "192.0.2.9"))
    world.egress.answer("192.0.2.9")
    world.relays[0].end(EndedBy.BOTH)
    assert the_end(world).rule == "for 192.0.2.9"


def test_an_answer_of_the_resolver_is_dialled_as_connect_would_reach_it(world: World) -> None:
    """DNS is input, too: a mapped or unspecified address is judged as what it reaches."""
    client = world.connect()
    client.receive(GREETING + NAMED)
    found = addresses("::ffff:127.0.0.2", "0.0.0.0", "::")
    world.resolver.pending.deferreds[0].callback(found)
    judged = [facts.address for facts in world.policy.asked[2:]]
    assert judged == list(addresses("127.0.0.2", "127.0.0.1", "::1"))
    assert world.egress.pending.calls[0][1] == tuple(judged)
    client.receive_reset()


def test_an_egress_that_dials_what_was_not_judged_is_cut_off(
    world: World, logged_errors: list[Any]
) -> None:
    client = world.connect()
    client.receive(GREETING + LITERAL)
    target = world.egress.answer("198.51.100.8")
    assert target.gone == "reset"
    assert client.sent.endswith(reply(ReplyCode.GENERAL_FAILURE))
    assert len(logged_errors) == 1
    logged_errors.clear()
    client.receive_fin()
    assert the_end(world).outcome is Outcome.ERROR


def test_twisted_has_nothing_to_log_of_a_connection(world: World) -> None:
    """Its factories say when they start and stop, twice for each of our sessions."""
    world.connect().receive(GREETING + LITERAL)
    world.egress.answer("198.51.100.7")
    assert world.egress.factory is not None
    assert not world.egress.factory.noisy  # type: ignore[attr-defined]  # a Factory's
    world.relays[0].end(EndedBy.BOTH)


def test_the_bound_address_of_an_ipv6_connection_is_told_as_such(world: World) -> None:
    client = world.connect()
    client.receive(GREETING + NAMED)
    world.resolver.pending.deferreds[0].callback(addresses("2001:db8::1"))
    world.egress.answer("2001:db8::1")
    assert client.sent[2:] == b"\x05\x00\x00\x04" + bytes(15) + b"\x01\xc3\x50"
    world.relays[0].end(EndedBy.BOTH)


def test_the_events_of_a_session_come_in_order(login_world: World) -> None:
    world = login_world
    world.connect().receive(LOGIN_GREETING + LOGIN + NAMED)
    world.clock.advance(1)
    world.resolver.pending.deferreds[0].callback(addresses("192.0.2.9"))
    world.clock.advance(2)
    world.egress.answer("192.0.2.9")
    world.relays[0].end(EndedBy.BOTH)
    client, web = ip_address("192.0.2.1"), Destination.named("web.example", 443)
    address = ip_address("192.0.2.9")
    assert world.events.events[:-1] == [
        SessionOpened(1, client, 40000, "office"),
        Decided(1, ALLOW, None),
        MethodChosen(1, Method.USERNAME_PASSWORD, b"\x00\x02"),
        LoggedIn(1, "alice"),
        RequestReceived(1, Command.CONNECT, web),
        Decided(1, ALLOW, None),
        Resolved(1, (address,), 1),
        Decided(1, ALLOW, address),
        Connected(1, address, 2),
    ]
    assert the_end(world).user == "alice"


def test_what_nobody_hears_is_not_told(login_world: World) -> None:
    """Of what goes well before the end."""
    world = login_world

    def observer(event: Event) -> None:
        world.events(event)

    observer.hears = (Denied, SessionClosed)  # type: ignore[attr-defined]  # as classes have it
    world.factory.runtime = replace(world.runtime, observer=observer)
    world.connect().receive(LOGIN_GREETING + LOGIN + NAMED)
    world.resolver.pending.deferreds[0].callback(addresses("192.0.2.9"))
    world.egress.answer("192.0.2.9")
    world.relays[0].end(EndedBy.BOTH)
    assert {type(event) for event in world.events.events} == {LoggedIn, SessionClosed}


# -- routes and limits ---------------------------------------------------------


def by_routes(world: World, **routes: IEgress) -> None:
    """Let rules send IPv6 by other routes, and all else directly."""

    def answer(facts: Facts) -> Decision:
        if facts.address is None:
            return DEFER
        return replace(ALLOW, route="second") if facts.address.version == 6 else ALLOW

    world.policy.answer = answer
    world.factory.runtime = replace(world.runtime, routes=routes)


def test_each_address_is_dialled_by_the_route_of_its_rule(world: World) -> None:
    second = FakeEgress()
    by_routes(world, second=second)
    client = world.connect()
    client.receive(GREETING + NAMED)
    found = addresses("2001:db8::1", "192.0.2.1", "2001:db8::2")
    world.resolver.pending.deferreds[0].callback(found)
    destination = Destination.named("web.example", 443)
    assert second.pending.calls == [(destination, addresses("2001:db8::1", "2001:db8::2"))]
    assert not world.egress.pending.calls
    second.pending.deferreds[0].errback(Refused(ReplyCode.NETWORK_UNREACHABLE, "no way"))
    assert world.egress.pending.calls == [(destination, addresses("192.0.2.1"))]
    world.egress.answer("192.0.2.1")
    assert world.relays


def test_of_routes_that_all_refuse_the_first_is_told(world: World) -> None:
    second = FakeEgress()
    by_routes(world, second=second)
    client = world.connect()
    client.receive(GREETING + NAMED)
    world.resolver.pending.deferreds[0].callback(addresses("2001:db8::1", "192.0.2.1"))
    second.pending.deferreds[0].errback(Refused(ReplyCode.NETWORK_UNREACHABLE, "no way"))
    world.egress.pending.deferreds[0].errback(Refused(ReplyCode.CONNECTION_REFUSED, "no"))
    client.receive_fin()
    closed = the_end(world)
    assert (closed.reply, closed.reason) == (ReplyCode.NETWORK_UNREACHABLE, "no way")
    assert [failed.reason for failed in world.events.of(ConnectFailed)] == ["no way"]


def test_a_client_that_leaves_cancels_the_route_that_is_tried(world: World) -> None:
    second = FakeEgress()
    by_routes(world, second=second)
    client = world.connect()
    client.receive(GREETING + NAMED)
    world.resolver.pending.deferreds[0].callback(addresses("2001:db8::1", "192.0.2.1"))
    client.receive_reset()
    assert second.pending.cancelled == 1
    assert not world.egress.pending.calls
    assert the_end(world).outcome is Outcome.CLIENT_LEFT


def test_a_rule_with_limits_has_its_sessions_carried_within_them(world: World) -> None:
    asked = []

    def limited(facts: Facts, client: IEnd, target: IEnd) -> IRelay:
        asked.append((facts.client, facts.principal))
        return world.runtime.relay(client, target)

    world.policy.answer = lambda _: replace(ALLOW, limits="bulk")
    world.factory.runtime = replace(world.runtime, limited={"bulk": limited})
    client = world.connect()
    client.receive(GREETING + LITERAL)
    world.egress.answer("198.51.100.7")
    assert asked == [(ip_address("192.0.2.1"), ANONYMOUS)]
    (relay,) = world.relays
    relay.end(EndedBy.BOTH)
    assert the_end(world).outcome is Outcome.SERVED


# -- early data ----------------------------------------------------------------


def test_early_data_behind_the_request_is_handed_to_the_relay_in_order(world: World) -> None:
    client = world.connect()
    client.receive(GREETING + LITERAL + b"one ")
    client.receive(b"two")
    world.egress.answer("198.51.100.7")
    assert world.relays[0].early == b"one two"
    world.relays[0].end(EndedBy.BOTH)


def test_early_data_is_bounded_and_reading_goes_on_with_the_relay(world: World) -> None:
    client = world.connect()
    client.receive(GREETING + LITERAL)
    client.receive(bytes(1000))
    assert client.producing
    client.receive(b"x")
    assert not client.producing
    world.egress.answer("198.51.100.7")
    assert client.producing
    assert len(world.relays[0].early or b"") == 1001
    world.relays[0].end(EndedBy.BOTH)


def test_a_request_sent_ahead_waits_for_the_login(login_world: World) -> None:
    world = login_world
    world.authenticator.slow = True
    client = world.connect()
    client.receive(LOGIN_GREETING + LOGIN + LITERAL + b"early")
    assert client.sent == b"\x05\x02"
    world.authenticator.pending.deferreds[0].callback(Principal("alice"))
    assert client.sent == b"\x05\x02\x01\x00"
    world.egress.answer("198.51.100.7")
    assert world.relays[0].early == b"early"
    world.relays[0].end(EndedBy.BOTH)


# -- the policy ----------------------------------------------------------------


def test_a_client_denied_by_its_address_gets_no_answer(world: World) -> None:
    world.policy.answer = lambda facts: DENY
    client = world.connect()
    client.receive(GREETING)
    assert client.sent == b""
    assert client.fin
    client.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.rule, closed.command) == (Outcome.DENIED, "no", None)


@pytest.mark.parametrize(
    ("octets", "command"),
    [
        pytest.param(GREETING, None, id="by its address"),
        pytest.param(GREETING + NAMED, Command.CONNECT, id="by its request"),
    ],
)
def test_a_refusal_is_told_at_once_and_once(
    world: World, octets: bytes, command: Command | None
) -> None:
    """The client may take ten seconds to leave; the log need not wait for that."""
    no = replace(DENY, log=False)
    world.policy.answer = lambda facts: no if facts.command is command else DEFER
    client = world.connect()
    client.receive(octets)
    (denied,) = world.events.of(Denied)
    assert (denied.client, denied.client_port) == (ip_address("192.0.2.1"), 40000)
    assert (denied.command, denied.decision) == (command, no)
    assert (denied.destination is None) is (command is None)
    assert not world.events.of(SessionClosed)
    client.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.logged) == (Outcome.DENIED, False)
    assert world.events.of(Denied) == [denied]


def test_who_is_refused_by_its_login_is_told_of_by_name(login_world: World) -> None:
    login_world.policy.answer = lambda facts: DENY if facts.command else DEFER
    login_world.connect().receive(LOGIN_GREETING + LOGIN + NAMED)
    (denied,) = login_world.events.of(Denied)
    assert denied.user == "alice"


def test_what_the_policy_allows_is_never_told_as_a_refusal(world: World) -> None:
    client = world.connect()
    client.receive(GREETING + LITERAL)
    world.egress.pending.deferreds[-1].errback(Refused(ReplyCode.NOT_ALLOWED, "a firewall"))
    client.receive_fin()
    assert the_end(world).outcome is Outcome.FAILED
    assert not world.events.of(Denied)


def test_the_policy_learns_whether_a_login_happened(login_world: World) -> None:
    world = login_world
    first = world.connect()
    first.receive(LOGIN_GREETING + LOGIN + LITERAL)
    world.authenticator.acceptable = (Method.NO_AUTHENTICATION,)
    second = world.connect()
    second.receive(GREETING + LITERAL)
    principals = [facts.principal for facts in world.policy.asked]
    assert principals == [None, Principal("alice"), None, ANONYMOUS]
    first.receive_reset()
    second.receive_reset()


def test_a_denied_name_is_never_looked_up(world: World) -> None:
    world.policy.answer = lambda facts: DENY if facts.destination else DEFER
    client = world.connect()
    client.receive(GREETING + NAMED)
    assert client.sent == b"\x05\x00" + reply(ReplyCode.NOT_ALLOWED)
    assert world.resolver.pending.calls == []
    client.receive_fin()
    assert the_end(world).outcome is Outcome.DENIED


def test_a_name_with_no_permitted_address_is_denied(world: World) -> None:
    world.policy.answer = lambda facts: DENY if facts.address else DEFER
    client = world.connect()
    client.receive(GREETING + NAMED)
    world.resolver.pending.deferreds[0].callback(addresses("10.0.0.1", "10.0.0.2"))
    assert client.sent == b"\x05\x00" + reply(ReplyCode.NOT_ALLOWED)
    assert world.egress.pending.calls == []
    client.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.rule) == (Outcome.DENIED, "no")


def test_a_permitted_name_that_cannot_be_reached_failed_and_was_not_denied(world: World) -> None:
    """The log must not blame the policy, though one address of the name is denied."""
    denied = ip_address("10.0.0.1")
    world.policy.answer = lambda facts: DENY if facts.address == denied else ALLOW
    client = world.connect()
    client.receive(GREETING + NAMED)
    world.resolver.pending.deferreds[0].callback(addresses("192.0.2.9", "10.0.0.1"))
    refused = Refused(ReplyCode.CONNECTION_REFUSED, "refused")
    world.egress.pending.deferreds[0].errback(Failure(refused))
    assert client.sent.endswith(reply(ReplyCode.CONNECTION_REFUSED))
    client.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.rule) == (Outcome.FAILED, "yes")


# -- refusals ------------------------------------------------------------------


@pytest.mark.parametrize("code", [c for c in ReplyCode if c is not ReplyCode.SUCCEEDED])
def test_the_reply_is_what_the_egress_says(world: World, code: ReplyCode) -> None:
    client = world.connect()
    client.receive(GREETING + LITERAL)
    world.egress.pending.deferreds[0].errback(Failure(Refused(code, "so it is")))
    assert client.sent == b"\x05\x00" + reply(code)
    assert client.fin
    client.receive_fin()
    assert client.gone == "closed"
    closed = the_end(world)
    assert (closed.outcome, closed.reply, closed.reason) == (Outcome.FAILED, code, "so it is")
    assert world.events.of(ConnectFailed) == [ConnectFailed(1, code, "so it is", 0)]
    assert world.events.of(Connected) == []


def test_a_name_that_is_not_found_is_host_unreachable(world: World) -> None:
    client = world.connect()
    client.receive(GREETING + NAMED)
    refused = Refused(ReplyCode.HOST_UNREACHABLE, "no such name")
    world.resolver.pending.deferreds[0].errback(Failure(refused))
    assert client.sent == b"\x05\x00" + reply(ReplyCode.HOST_UNREACHABLE)
    client.receive_fin()
    assert the_end(world).reason == "no such name"
    assert world.events.of(ResolveFailed) == [ResolveFailed(1, "no such name", 0)]
    assert world.events.of(Resolved) == []


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        pytest.param(b"\x05\x09", ReplyCode.COMMAND_NOT_SUPPORTED, id="unknown CMD"),
        pytest.param(b"\x05\x01\x00\x05", ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED, id="unknown ATYP"),
        pytest.param(b"\x05\x01\x01", ReplyCode.GENERAL_FAILURE, id="RSV"),
        pytest.param(b"\x05\x01\x00\x03\x00", ReplyCode.HOST_UNREACHABLE, id="empty name"),
    ],
)
def test_a_broken_request_gets_its_reply(world: World, octets: bytes, code: ReplyCode) -> None:
    client = world.connect()
    client.receive(GREETING + octets)
    assert client.sent == b"\x05\x00" + reply(code)
    client.receive(b"the rest of it, which nobody reads")
    client.receive_fin()
    assert client.gone == "closed"
    assert the_end(world).outcome is Outcome.PROTOCOL_ERROR


def test_http_where_it_is_not_spoken_is_answered_in_http(world: World) -> None:
    world.factory.runtime = replace(world.runtime, dialogues={"office": dialogues({"socks5"})})
    client = world.connect()
    client.receive(b"GET / HTTP/1.1\r\nHost: gw:1080\r\n\r\n")
    assert client.sent.startswith(b"HTTP/1.1 400 ")
    client.receive_fin()
    closed = the_end(world)
    assert closed.outcome is Outcome.PROTOCOL_ERROR
    assert "HTTP" in closed.reason


def test_garbage_is_closed_without_an_answer(world: World) -> None:
    client = world.connect()
    client.receive(b"\x99")
    assert client.sent == b""
    client.receive_fin()
    assert the_end(world).outcome is Outcome.PROTOCOL_ERROR


def test_early_garbage_after_a_pause_still_ends(world: World) -> None:
    """A session that was paused hears the client's FIN once it has refused."""
    client = world.connect()
    client.receive(GREETING + LITERAL)
    client.receive(bytes(2000))
    assert not client.producing
    refused = Refused(ReplyCode.CONNECTION_REFUSED, "")
    world.egress.pending.deferreds[0].errback(Failure(refused))
    assert client.producing
    client.receive(bytes(2000))
    client.receive_fin()
    assert the_end(world).reply is ReplyCode.CONNECTION_REFUSED


# -- methods and logins --------------------------------------------------------


def test_the_first_acceptable_method_that_is_offered_is_chosen(world: World) -> None:
    both = (Method.NO_AUTHENTICATION, Method.USERNAME_PASSWORD)
    world.authenticator.acceptable = both
    first = world.connect()
    first.receive(Greeting(b"\x02\x00").encode())
    assert first.sent == b"\x05\x00"
    second = world.connect()
    second.receive(Greeting(b"\x01\x02").encode())
    assert second.sent == b"\x05\x02"
    first.receive_reset()
    second.receive_reset()


def test_no_acceptable_method_is_said_and_the_connection_ends(login_world: World) -> None:
    client = login_world.connect()
    client.receive(Greeting(b"\x00\x01").encode())
    assert client.sent == b"\x05\xff"
    assert client.fin
    client.receive_fin()
    closed = the_end(login_world)
    assert (closed.outcome, closed.reason) == (Outcome.NO_METHOD, "offered only 0x00, 0x01")


def test_a_wrong_password_is_told_by_status_and_the_connection_ends(login_world: World) -> None:
    client = login_world.connect()
    client.receive(LOGIN_GREETING + UsernamePassword(b"al\xffce", b"hunter2").encode() + LITERAL)
    assert client.sent == b"\x05\x02\x01\x01"
    assert client.fin
    client.receive_fin()
    closed = the_end(login_world)
    assert (closed.outcome, closed.command) == (Outcome.LOGIN_FAILED, None)
    (refused,) = login_world.events.of(LoginRefused)
    assert refused.user == "al\udcffce"
    assert "hunter2" not in repr(login_world.events.events)


def test_an_authenticator_with_a_bug_lets_nobody_in(
    login_world: World, logged_errors: list[Any]
) -> None:
    login_world.authenticator.slow = True
    client = login_world.connect()
    client.receive(LOGIN_GREETING + LOGIN)
    login_world.authenticator.pending.deferreds[0].errback(Failure(ZeroDivisionError()))
    assert client.sent == b"\x05\x02\x01\x01"
    client.receive_fin()
    assert the_end(login_world).outcome is Outcome.ERROR
    assert len(logged_errors) == 1
    logged_errors.clear()


# -- deadlines -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "waited"),
    [
        pytest.param(b"", State.OPEN, id="says nothing"),
        pytest.param(b"\x05\x02", State.NEGOTIATING, id="stops in the greeting"),
        pytest.param(LOGIN_GREETING, State.AUTHENTICATING, id="sends no login"),
        pytest.param(LOGIN_GREETING + LOGIN[:3], State.AUTHENTICATING, id="stops in the login"),
        pytest.param(LOGIN_GREETING + LOGIN, State.REQUESTING, id="sends no request"),
        pytest.param(LOGIN_GREETING + LOGIN + LITERAL[:5], State.REQUESTING, id="in the request"),
    ],
)
def test_a_stalled_client_is_cut_at_the_deadline_of_the_whole_handshake(
    login_world: World, octets: bytes, waited: State
) -> None:
    """However it spreads its octets: none of them renews the deadline."""
    world = login_world
    client = world.connect()
    for octet in octets:
        world.clock.advance(9.9 / len(octets))
        client.receive(bytes([octet]))
    world.clock.advance(0.09 if octets else 9.99)
    assert client.gone is None
    world.clock.advance(0.02)
    assert client.gone == "reset"
    closed = the_end(world)
    assert (closed.outcome, closed.reason) == (Outcome.TIMED_OUT, f"waiting for {waited.value}")


def test_a_login_that_takes_too_long_is_refused(login_world: World) -> None:
    login_world.authenticator.slow = True
    client = login_world.connect()
    client.receive(LOGIN_GREETING + LOGIN)
    login_world.clock.advance(10)
    assert login_world.authenticator.pending.cancelled == 1
    assert client.sent == b"\x05\x02\x01\x01"
    client.receive_fin()
    assert the_end(login_world).outcome is Outcome.TIMED_OUT


def test_a_lookup_that_takes_too_long_is_host_unreachable(world: World) -> None:
    client = world.connect()
    client.receive(GREETING)
    world.clock.advance(9)
    client.receive(NAMED)
    world.clock.advance(9)
    assert client.sent == b"\x05\x00"
    world.clock.advance(1)
    assert world.resolver.pending.cancelled == 1
    assert client.sent == b"\x05\x00" + reply(ReplyCode.HOST_UNREACHABLE)
    client.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.reason) == (Outcome.FAILED, "no answer within 10 s")
    assert world.events.of(ResolveFailed) == [ResolveFailed(1, "no answer within 10 s", 10)]


def test_a_connection_that_takes_too_long_is_host_unreachable(world: World) -> None:
    client = world.connect()
    client.receive(GREETING + LITERAL)
    world.clock.advance(15)
    assert world.egress.pending.cancelled == 1
    assert client.sent == b"\x05\x00" + reply(ReplyCode.HOST_UNREACHABLE)
    client.receive_fin()
    assert the_end(world).reason == "no answer within 15 s"


def test_a_client_that_does_not_close_is_closed_within_ten_seconds(world: World) -> None:
    """RFC 1928 section 6: not more than 10 seconds after detecting the failure."""
    client = world.connect()
    client.receive(GREETING + b"\x05\x09")
    world.clock.advance(9.9)
    assert client.gone is None
    world.clock.advance(0.1)
    assert client.gone == "reset"
    assert the_end(world).outcome is Outcome.PROTOCOL_ERROR


def test_a_client_that_does_not_read_its_refusal_is_cut(world: World) -> None:
    client = world.connect()
    client.receive(GREETING)
    client.stop_reading()
    client.receive(b"\x05\x09")
    assert not client.fin
    world.clock.advance(10)
    assert client.gone == "reset"
    assert the_end(world).reply is ReplyCode.COMMAND_NOT_SUPPORTED


def test_a_relay_has_no_deadline_of_the_session(world: World) -> None:
    client = world.connect()
    client.receive(GREETING + LITERAL)
    world.egress.answer("198.51.100.7")
    assert world.clock.getDelayedCalls() == []
    world.relays[0].end(EndedBy.IDLE)
    assert the_end(world).outcome is Outcome.IDLE


# -- clients that leave --------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize(
    ("octets", "pending"),
    [
        pytest.param(GREETING + NAMED, "resolver", id="while we resolve"),
        pytest.param(GREETING + LITERAL, "egress", id="while we connect"),
    ],
)
def test_a_client_that_leaves_cancels_the_work_at_once(
    world: World, octets: bytes, pending: str, how: str
) -> None:
    client = world.connect()
    client.receive(octets)
    getattr(client, f"receive_{how}")()
    assert getattr(world, pending).pending.cancelled == 1
    assert client.gone is not None
    closed = the_end(world)
    assert (closed.outcome, closed.reply) == (Outcome.CLIENT_LEFT, None)
    assert len(world.events.of(ResolveFailed) + world.events.of(ConnectFailed)) == 1


def test_a_client_that_leaves_cancels_its_login(login_world: World) -> None:
    login_world.authenticator.slow = True
    client = login_world.connect()
    client.receive(LOGIN_GREETING + LOGIN)
    client.receive_fin()
    assert login_world.authenticator.pending.cancelled == 1
    assert client.sent == b"\x05\x02"
    assert the_end(login_world).outcome is Outcome.CLIENT_LEFT


@pytest.mark.parametrize("octets", [b"", b"\x05", GREETING, GREETING + NAMED[:7]])
@pytest.mark.parametrize("how", ["fin", "reset"])
def test_a_client_may_leave_at_any_octet(world: World, octets: bytes, how: str) -> None:
    client = world.connect()
    if octets:
        client.receive(octets)
    getattr(client, f"receive_{how}")()
    assert the_end(world).outcome is Outcome.CLIENT_LEFT


def test_a_client_that_left_and_does_not_read_is_cut_at_the_deadline(world: World) -> None:
    client = world.connect()
    client.stop_reading()
    client.receive(GREETING)
    client.receive_fin()
    assert client.gone is None
    world.clock.advance(10)
    assert client.gone == "reset"
    assert the_end(world).outcome is Outcome.CLIENT_LEFT


def test_a_half_close_behind_early_data_is_no_leaving(world: World) -> None:
    """``printf REQUEST+PAYLOAD | nc`` wants its answer; the relay learns of the FIN."""
    client = world.connect()
    client.receive(GREETING + LITERAL + b"payload")
    client.receive_fin()
    assert world.egress.pending.cancelled == 0
    world.egress.answer("198.51.100.7")
    (relay,) = world.relays
    assert relay.early == b"payload"
    heard: list[str] = []

    class Carrier:
        def data_received(self, octets: bytes) -> None:
            heard.append("data")

        def read_ended(self) -> None:
            heard.append("fin")

        def lost(self, reason: Failure) -> None:
            heard.append("lost")

    relay.client.carried_by(Carrier())  # type: ignore[arg-type]  # for the test only
    assert heard == ["fin"]
    relay.end(EndedBy.BOTH)


# -- the service stops ---------------------------------------------------------


@pytest.mark.parametrize("octets", [b"", GREETING, GREETING + NAMED, GREETING + LITERAL])
def test_a_session_that_is_stopped_ends_and_says_so(world: World, octets: bytes) -> None:
    client = world.connect()
    if octets:
        client.receive(octets)
    (session,) = world.sessions
    session.stop()
    assert client.gone == "reset"
    assert the_end(world).outcome is Outcome.STOPPED


def test_a_relay_that_is_stopped_ends_and_says_so(world: World) -> None:
    world.connect().receive(GREETING + LITERAL)
    world.egress.answer("198.51.100.7")
    (session,) = world.sessions
    session.stop()
    assert the_end(world).outcome is Outcome.STOPPED


@pytest.mark.parametrize(
    ("ended_by", "outcome"),
    [
        (EndedBy.BOTH, Outcome.SERVED),
        (EndedBy.CLIENT, Outcome.RESET),
        (EndedBy.TARGET, Outcome.RESET),
        (EndedBy.IDLE, Outcome.IDLE),
        (EndedBy.LINGER, Outcome.IDLE),
        (EndedBy.US, Outcome.STOPPED),
    ],
)
def test_how_a_relay_ended_is_the_outcome(
    world: World, ended_by: EndedBy, outcome: Outcome
) -> None:
    world.connect().receive(GREETING + LITERAL)
    world.egress.answer("198.51.100.7")
    world.relays[0].end(ended_by)
    assert the_end(world).outcome is outcome


# -- odds ----------------------------------------------------------------------


def test_a_state_is_not_entered_from_where_no_way_leads(world: World) -> None:
    client = world.connect()
    (session,) = world.sessions
    with pytest.raises(RuntimeError, match="no way from OPEN to RELAYING"):
        session.enter(State.RELAYING)
    client.receive_reset()


def test_a_bug_in_a_command_is_logged_and_answered(world: World, logged_errors: list[Any]) -> None:
    client = world.connect()
    client.receive(GREETING + LITERAL)
    world.egress.pending.deferreds[0].errback(Failure(ZeroDivisionError()))
    assert client.sent.endswith(reply(ReplyCode.GENERAL_FAILURE))
    client.receive_fin()
    assert the_end(world).outcome is Outcome.ERROR
    assert len(logged_errors) == 1
    logged_errors.clear()


def test_a_mapped_client_is_judged_as_ipv4(world: World) -> None:
    client = world.connect("::ffff:192.0.2.5")
    client.receive(GREETING)
    assert world.policy.asked[0].client == ip_address("192.0.2.5")
    client.receive_reset()


def test_a_link_local_client_is_known_without_its_zone(world: World) -> None:
    client = world.connect("fe80::1%eth0")
    assert world.events.of(SessionOpened)[0].client == ip_address("fe80::1")
    client.receive_reset()


def test_a_client_on_a_unix_socket_is_on_this_host(world: World) -> None:
    protocol = world.factory.buildProtocol(UNIXAddress(None))
    assert protocol is not None
    client = FakeTransport(protocol, peer=UNIXAddress(None))
    opened = world.events.of(SessionOpened)[0]
    assert (opened.client, opened.client_port) == (ip_address("127.0.0.1"), 0)
    client.receive_reset()


def test_the_login_of_a_failed_session_is_in_its_last_line(login_world: World) -> None:
    login_world.authenticator.slow = True
    client = login_world.connect()
    client.receive(LOGIN_GREETING + LOGIN)
    login_world.authenticator.pending.deferreds[0].errback(Failure(LoginFailed("no")))
    client.receive_fin()
    closed = the_end(login_world)
    assert (closed.user, closed.reason) == ("alice", "no")


def test_a_session_keeps_the_runtime_it_began_with(world: World) -> None:
    from dataclasses import replace

    client = world.connect()
    world.factory.runtime = replace(world.runtime, policy=FakePolicy(lambda facts: DENY))
    client.receive(GREETING)
    assert client.sent == b"\x05\x00"
    (session,) = world.sessions
    assert session.state is State.REQUESTING
    client.receive_reset()


class Deaf:
    """A carrier that does nothing."""

    def data_received(self, octets: bytes) -> None: ...

    def read_ended(self) -> None: ...

    def lost(self, reason: Failure) -> None: ...


def test_a_relay_with_a_bug_leaves_no_connection_behind(
    world: World, logged_errors: list[Any]
) -> None:
    client = world.connect()
    client.receive(GREETING + LITERAL)
    target = world.egress.answer("198.51.100.7")
    client.protocol.carried_by(Deaf())  # type: ignore[attr-defined]  # the relay has it
    world.relays[0].ended(Failure(ZeroDivisionError()))
    assert target.gone == "reset"
    assert client.fin
    client.receive_fin()
    assert the_end(world).outcome is Outcome.ERROR
    assert len(logged_errors) == 1
    logged_errors.clear()


def test_a_relay_that_does_not_begin_leaves_no_connection_behind(
    world: World, logged_errors: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def join(relay: object, early: bytes, ended: object) -> None:
        raise ZeroDivisionError

    client = world.connect()
    client.receive(GREETING + LITERAL)
    monkeypatch.setattr("tests.server.world.FakeRelay.join", join)
    target = world.egress.answer("198.51.100.7")
    assert target.gone == "reset"
    client.receive_fin()
    assert the_end(world).outcome is Outcome.ERROR
    assert len(logged_errors) == 1
    logged_errors.clear()


def test_a_relay_with_a_bug_may_have_closed_both(world: World, logged_errors: list[Any]) -> None:
    client = world.connect()
    client.receive(GREETING + LITERAL)
    target = world.egress.answer("198.51.100.7")
    for transport in (client, target):
        transport.protocol.carried_by(Deaf())  # type: ignore[attr-defined]  # no carrier, which is the point
        transport.receive_reset()
    world.relays[0].ended(Failure(ZeroDivisionError()))
    assert the_end(world).outcome is Outcome.ERROR
    assert len(logged_errors) == 1
    logged_errors.clear()


def test_a_bug_met_while_the_client_leaves_is_logged(
    world: World, logged_errors: list[Any]
) -> None:
    client = world.connect()
    client.receive(GREETING + NAMED)
    deferred = world.resolver.pending.deferreds[0]
    deferred._canceller = lambda d: d.errback(Failure(ZeroDivisionError()))
    client.receive_fin()
    assert the_end(world).outcome is Outcome.CLIENT_LEFT
    assert len(logged_errors) == 1
    logged_errors.clear()


def test_what_follows_a_refusal_is_read_and_dropped(world: World) -> None:
    """However much it is: a paused transport would never hear the client's FIN."""
    client = world.connect()
    client.receive(GREETING + b"\x05\x09")
    for _ in range(5):
        client.receive(bytes(1000))
    (session,) = world.sessions
    assert session.dialogue is not None
    assert len(session.dialogue.unread) < 10
    client.receive_fin()
    assert the_end(world).outcome is Outcome.PROTOCOL_ERROR


def test_a_client_that_left_cancels_the_work_though_it_does_not_read(world: World) -> None:
    client = world.connect()
    client.stop_reading()
    client.receive(GREETING + NAMED)
    client.receive_fin()
    assert world.resolver.pending.cancelled == 1
    assert client.gone is None
    client.start_reading()
    assert the_end(world).outcome is Outcome.CLIENT_LEFT


def test_early_data_is_kept_once(world: World) -> None:
    world.connect().receive(GREETING + LITERAL + b"early")
    world.egress.answer("198.51.100.7")
    (session,) = world.sessions
    assert session.dialogue is None, "the relay has it now"
    world.relays[0].end(EndedBy.BOTH)


def test_a_client_that_stalls_after_a_slow_login_is_cut_too(login_world: World) -> None:
    login_world.authenticator.slow = True
    client = login_world.connect()
    client.receive(LOGIN_GREETING + LOGIN)
    login_world.clock.advance(5)
    login_world.authenticator.pending.deferreds[0].callback(Principal("alice"))
    login_world.clock.advance(5)
    assert client.gone == "reset"
    assert the_end(login_world).outcome is Outcome.TIMED_OUT


def test_a_rule_that_only_wanted_to_know_more_is_not_in_the_last_line(world: World) -> None:
    world.policy.answer = lambda facts: DEFER
    client = world.connect()
    client.receive(GREETING)
    client.receive_fin()
    assert the_end(world).rule is None
