"""HTTP as a proxy speaks it, on a session."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from ipaddress import ip_address

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from socksd.address import Destination
from socksd.codes import Command, Method, ReplyCode
from socksd.errors import LoginFailed, Refused, TimedOut
from socksd.events import LoggedIn, LoginRefused, Outcome, RequestReceived
from socksd.facts import ANONYMOUS, Principal
from socksd.interfaces import EndedBy
from socksd.relay.pump import Pump
from socksd.server.forward import Forward
from socksd.server.http import CHALLENGES
from socksd.wire.http import MOST, RequestHead
from tests.fakes import FakeTransport
from tests.server.test_session import the_end
from tests.server.world import ALLOW, DENY, FakePolicy, World, addresses

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
LITERAL = Destination.named("198.51.100.7", 80)


def connect(*fields: str, to: str = "198.51.100.7:80", version: str = "1.1") -> bytes:
    return head(f"CONNECT {to} HTTP/{version}", *fields)


def get(*fields: str, method: str = "GET", path: str = "/a") -> bytes:
    return head(f"{method} http://198.51.100.7{path} HTTP/1.1", *fields)


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join([line, "Host: h", *fields, "", ""]).encode()


def basic(username: str = "alice", password: str = "secret") -> str:
    return "Proxy-Authorization: Basic " + b64encode(f"{username}:{password}".encode()).decode()


def answered(client: FakeTransport) -> tuple[int, bytes, bytes]:
    """Give status, fields and body of the one answer there is; the next one begins anew."""
    octets, _, body = bytes(client.sent).partition(b"\r\n\r\n")
    line, _, fields = octets.partition(b"\r\n")
    assert b"\r\nContent-Length: %d\r\n" % len(body) in fields + b"\r\n"
    assert b"\r\nCache-Control: no-store\r\n" in fields + b"\r\n"
    client.sent.clear()
    return int(line.split()[1]), fields, body


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def login_world(world: World) -> World:
    world.authenticator.acceptable = (Method.USERNAME_PASSWORD,)
    world.authenticator.users[b"alice"] = b"secret"
    return world


# -- CONNECT ------------------------------------------------------------------


def test_connect_is_a_tunnel_like_any_other(world: World) -> None:
    client = world.connect()
    client.receive(connect() + b"early")
    assert world.egress.pending.calls == [(LITERAL, addresses("198.51.100.7"))]
    assert client.sent == b"", "no answer before the real outcome"
    target = world.egress.answer("198.51.100.7")
    assert client.sent == ESTABLISHED
    (relay,) = world.relays
    assert (relay.client.transport, relay.target.transport) == (client, target)
    assert relay.early == b"early"
    relay.end(EndedBy.BOTH, up=3, down=5)
    closed = the_end(world)
    assert (closed.outcome, closed.up, closed.down) == (Outcome.SERVED, 3, 5)
    assert (closed.command, closed.destination) == (Command.CONNECT, LITERAL)
    assert (closed.user, closed.reply) == (None, ReplyCode.SUCCEEDED)
    assert world.policy.asked[-1].principal is ANONYMOUS


def test_a_head_may_come_octet_by_octet(world: World) -> None:
    client = world.connect()
    for octet in connect():
        client.receive(bytes([octet]))
    assert len(world.egress.pending.calls) == 1
    client.receive_reset()


def test_a_line_that_comes_octet_by_octet_is_not_read_at_each(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or 32 KiB of it would cost seconds."""
    looks = []

    def take(buffer: bytearray) -> None:
        looks.append(len(buffer))

    monkeypatch.setattr(RequestHead, "take", take)
    client = world.connect()
    for octet in b"GET http://h/ HTTP/1.1\r\nHost: h\r\n" + b"a" * 100:
        client.receive(bytes([octet]))
    assert len(looks) == 2
    client.receive(b"a" * MOST)
    assert len(looks) == 3
    client.receive_reset()


def test_what_comes_while_it_is_our_turn_is_early_payload(world: World) -> None:
    """And bounded, as with any protocol."""
    client = world.connect()
    client.receive(connect())
    client.receive(connect(to="other:1"))
    client.receive(bytes(1000))
    assert not client.producing
    assert len(world.events.of(RequestReceived)) == 1
    world.egress.answer("198.51.100.7")
    assert world.relays[0].early == connect(to="other:1") + bytes(1000)
    world.relays[0].end(EndedBy.BOTH)


def test_what_is_no_request_is_answered_and_closed(world: World) -> None:
    client = world.connect()
    client.receive(head("GET / HTTP/1.1"))
    status, _, body = answered(client)
    assert status == 400
    assert b"this is a proxy" in body
    assert client.fin
    client.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.reply) == (Outcome.PROTOCOL_ERROR, None)


# -- logging in ---------------------------------------------------------------


def test_a_login_comes_with_the_request(login_world: World) -> None:
    client = login_world.connect()
    client.receive(connect(basic()))
    assert [event.user for event in login_world.events.of(LoggedIn)] == ["alice"]
    assert login_world.policy.asked[-1].principal == Principal("alice")
    login_world.egress.answer("198.51.100.7")
    assert client.sent == ESTABLISHED
    login_world.relays[0].end(EndedBy.BOTH)
    assert the_end(login_world).user == "alice"


def test_nothing_happens_before_a_login_is_verified(login_world: World) -> None:
    login_world.authenticator.slow = True
    client = login_world.connect()
    client.receive(connect(basic()))
    client.receive(connect(to="other:1"))
    assert not login_world.events.of(RequestReceived)
    login_world.authenticator.pending.deferreds[0].callback(Principal("alice"))
    (received,) = login_world.events.of(RequestReceived)
    assert received.destination == LITERAL
    client.receive_reset()


def test_who_comes_without_a_login_is_asked_for_one_and_may_stay(login_world: World) -> None:
    """As browsers do: they learn that a login is wanted from the answer."""
    client = login_world.connect()
    client.receive(connect())
    status, fields, body = answered(client)
    assert status == 407
    assert b'Proxy-Authenticate: Basic realm="socksd", charset="UTF-8"' in fields
    assert b"Connection: close" not in fields
    assert b"user name" in body
    assert not client.fin
    client.receive(connect(basic()))
    login_world.egress.answer("198.51.100.7")
    assert client.sent == ESTABLISHED
    login_world.relays[0].end(EndedBy.BOTH)
    assert the_end(login_world).outcome is Outcome.SERVED


def test_nobody_is_asked_for_ever(login_world: World) -> None:
    client = login_world.connect()
    client.receive(connect() * CHALLENGES + connect(basic()))
    assert client.sent.count(b" 407 ") == CHALLENGES
    assert client.sent.count(b"Connection: close") == 1
    assert client.fin
    client.receive_fin()
    closed = the_end(login_world)
    assert (closed.outcome, closed.command) == (Outcome.NO_METHOD, None)


@pytest.mark.parametrize(
    "octets",
    [
        connect(version="1.0"),
        connect("Proxy-Connection: close"),
        get("Content-Length: 5", method="POST"),
    ],
    ids=["HTTP/1.0", "close", "a body"],
)
def test_who_reads_no_further_answer_is_asked_and_closed(login_world: World, octets: bytes) -> None:
    client = login_world.connect()
    client.receive(octets)
    status, fields, _ = answered(client)
    assert (status, b"\r\nConnection: close" in fields) == (407, True)
    assert client.fin
    client.receive(b"hello")
    client.receive_fin()
    assert the_end(login_world).outcome is Outcome.NO_METHOD


def test_a_wrong_login_is_told_and_the_connection_closed(login_world: World) -> None:
    client = login_world.connect()
    client.receive(connect(basic(password="wrong")) + connect(basic()))
    status, fields, body = answered(client)
    assert (status, b"\r\nConnection: close" in fields) == (407, True)
    assert b"Proxy-Authenticate: Basic" in fields
    assert b"wrong" not in body
    assert client.fin
    client.receive_fin()
    (refused,) = login_world.events.of(LoginRefused)
    assert (refused.user, refused.client_port) == ("alice", 40000)
    closed = the_end(login_world)
    assert (closed.outcome, closed.user) == (Outcome.LOGIN_FAILED, "alice")
    assert not login_world.egress.pending.calls


def test_a_login_that_takes_too_long_is_told(login_world: World) -> None:
    login_world.authenticator.slow = True
    client = login_world.connect()
    client.receive(connect(basic()))
    login_world.clock.advance(10)
    assert login_world.authenticator.pending.cancelled == 1
    assert answered(client)[0] == 504
    client.receive_fin()
    closed = the_end(login_world)
    assert (closed.outcome, closed.reply) == (Outcome.TIMED_OUT, None)


def test_who_thinks_about_a_login_for_too_long_is_closed(login_world: World) -> None:
    """A browser that asks its user comes back on another connection."""
    client = login_world.connect()
    client.receive(connect())
    login_world.clock.advance(10)
    assert client.gone == "reset"
    assert the_end(login_world).outcome is Outcome.TIMED_OUT


def test_who_need_not_log_in_may(login_world: World) -> None:
    """SOCKS offers methods and takes the best; here a login is there, or is not."""
    login_world.authenticator.acceptable = (Method.NO_AUTHENTICATION, Method.USERNAME_PASSWORD)
    login_world.connect().receive(connect(basic()))
    login_world.connect().receive(connect())
    login_world.connect().receive(connect("Proxy-Authorization: Negotiate x"))
    principals = [facts.principal for facts in login_world.policy.asked if facts.destination]
    assert principals == [Principal("alice"), ANONYMOUS, ANONYMOUS]
    for session in login_world.sessions:
        session.stop()


def test_a_login_that_nobody_asks_for_is_not_looked_at(world: World) -> None:
    client = world.connect()
    client.receive(connect(basic("mallory", "x")))
    assert world.policy.asked[-1].principal is ANONYMOUS
    client.receive_reset()


def test_where_only_other_logins_would_do_that_is_said(world: World) -> None:
    world.authenticator.acceptable = (Method.GSSAPI,)
    client = world.connect()
    client.receive(connect(basic()) + connect())
    assert answered(client)[0] == 403
    client.receive_fin()
    assert the_end(world).outcome is Outcome.NO_METHOD


# -- what becomes of a request ------------------------------------------------


def test_a_denial_shows_its_rule_and_what_that_says(world: World) -> None:
    world.policy.answer = lambda facts: (
        replace(DENY, rule="no-mail", text="Ask <Bob> {0}.", detail="private")
        if facts.destination
        else ALLOW
    )
    client = world.connect()
    client.receive(get("Accept: text/html,*/*"))
    status, fields, body = answered(client)
    assert (status, b"text/html" in fields) == (403, True)
    assert b"198.51.100.7:80" in body
    assert b"Rule no-mail (private) does not allow this." in body
    assert b"Ask &lt;Bob&gt; {0}." in body
    assert b"http://why.socksd/" in body
    client.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.rule) == (Outcome.DENIED, "no-mail")
    assert closed.reply is ReplyCode.NOT_ALLOWED


def test_without_a_text_a_denial_shows_its_rule(world: World) -> None:
    world.policy.answer = lambda facts: DENY if facts.destination else ALLOW
    client = world.connect()
    client.receive(connect())
    status, fields, body = answered(client)
    assert (status, b"text/plain" in fields) == (403, True)
    assert b"Rule no does not allow this.\n\nWhat has been" in body
    client.receive_reset()


def test_a_head_request_is_denied_without_a_body(world: World) -> None:
    world.policy.answer = lambda facts: DENY if facts.destination else ALLOW
    client = world.connect()
    client.receive(get(method="HEAD"))
    assert client.sent.startswith(b"HTTP/1.1 403 ")
    assert client.sent.endswith(b"\r\n\r\n")
    client.receive_reset()


def test_who_is_denied_by_address_is_closed_without_a_word(world: World) -> None:
    world.policy = FakePolicy(lambda facts: DENY)
    world.factory.runtime = replace(world.runtime, policy=world.policy)
    client = world.connect()
    client.receive(connect())
    assert (client.sent, client.fin) == (b"", True)
    client.receive_reset()


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (Refused(ReplyCode.CONNECTION_REFUSED, "10.9.8.7"), 502),
        (Refused(ReplyCode.HOST_UNREACHABLE, "10.9.8.7"), 502),
        (Refused(ReplyCode.NETWORK_UNREACHABLE, "10.9.8.7"), 502),
        (TimedOut("10.9.8.7"), 504),
        (Refused(ReplyCode.GENERAL_FAILURE, "10.9.8.7"), 503),
        (Refused(ReplyCode.NOT_ALLOWED, "10.9.8.7"), 403),
    ],
    ids=str,
)
def test_a_failure_is_told_by_its_cause(world: World, refused: Refused, status: int) -> None:
    """But not what the log has of it, as addresses that a name led to."""
    client = world.connect()
    client.receive(connect())
    world.egress.pending.deferreds[0].errback(Failure(refused))
    told, _, body = answered(client)
    assert told == status
    assert b"198.51.100.7:80" in body
    assert b"10.9.8.7" not in body
    assert (b"own host does not permit" in body) is (refused.reply is ReplyCode.NOT_ALLOWED)
    assert client.fin
    client.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.reply) == (Outcome.FAILED, refused.reply)


@pytest.mark.parametrize(("to", "seconds"), [("web.example:1", 10), ("198.51.100.7:1", 15)])
def test_our_own_deadlines_are_gateway_time_outs(world: World, to: str, seconds: int) -> None:
    client = world.connect()
    client.receive(connect(to=to))
    world.clock.advance(seconds)
    assert answered(client)[0] == 504
    client.receive_fin()
    assert the_end(world).reply is ReplyCode.HOST_UNREACHABLE


# -- requests in absolute-form ------------------------------------------------


def test_a_request_in_absolute_form_is_judged_and_forwarded(world: World) -> None:
    client = world.connect()
    client.receive(get("Content-Length: 5", basic(), method="POST") + b"hello")
    assert world.policy.asked[-1].destination == LITERAL
    target = world.egress.answer("198.51.100.7")
    assert client.sent == b"", "the target is to answer"
    (relay,) = world.relays
    assert isinstance(relay.target, Forward)
    assert relay.client.transport is client
    assert relay.early == (
        b"POST /a HTTP/1.1\r\nHost: 198.51.100.7\r\nContent-Length: 5\r\nVia: 1.1 socksd\r\n"
        b"Connection: close\r\n\r\nhello"
    )
    target.receive_reset()
    relay.end(EndedBy.BOTH)
    assert the_end(world).outcome is Outcome.SERVED


def test_a_page_of_ours_instead_of_a_response_is_no_success(world: World) -> None:
    """Octets have gone both ways, and both sides have ended in order."""
    client = world.connect()
    client.receive(get())
    target = world.egress.answer("198.51.100.7")
    (relay,) = world.relays
    Pump(relay.client, relay.target, Clock(), 900.0, 300.0).join(relay.early, lambda _: None)
    target.receive(b"SSH-2.0-OpenSSH\r\n\r\n")
    assert answered(client)[0] == 502
    relay.end(EndedBy.BOTH, up=3, down=5)
    end = the_end(world)
    assert end.outcome is Outcome.FAILED
    assert end.reason == "the destination has given no answer of HTTP/1.1"


def test_a_tunnel_to_the_reserved_name_shows_why(world: World) -> None:
    client = world.connect()
    client.receive(connect(to="why.socksd:80") + b"GET / HTTP/1.1\r\nAccept: text/plain\r\n\r\n")
    assert client.sent.startswith(ESTABLISHED + b"HTTP/1.1 200 OK\r\n")
    assert client.sent.endswith(b"\r\n\r\n192.0.2.1 None True\n")
    client.receive_fin()
    assert the_end(world).rule == "why"


def test_a_request_for_the_reserved_name_shows_why(login_world: World) -> None:
    client = login_world.connect()
    client.receive(head("GET http://why.socksd/ HTTP/1.1", basic(), "Accept: text/plain"))
    assert client.sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.sent.endswith(b"\r\n\r\n192.0.2.1 alice True\n")
    client.receive_fin()
    assert the_end(login_world).rule == "why"


def test_a_client_that_leaves_is_one_that_has_left(world: World) -> None:
    client = world.connect()
    client.receive(get())
    client.receive_fin()
    assert client.gone == "closed"
    assert world.egress.pending.cancelled == 1
    assert the_end(world).outcome is Outcome.CLIENT_LEFT


def test_a_login_that_fails_for_want_of_anything_else_is_not_a_bug(login_world: World) -> None:
    login_world.authenticator.slow = True
    client = login_world.connect()
    client.receive(connect(basic()))
    login_world.authenticator.pending.deferreds[0].errback(LoginFailed("the authenticator failed"))
    assert answered(client)[0] == 407
    client.receive_fin()
    closed = the_end(login_world)
    assert (closed.outcome, closed.reason) == (Outcome.LOGIN_FAILED, "the authenticator failed")
    assert closed.client == ip_address("192.0.2.1")
