"""CONNECT to why.socksd is answered by the gateway itself."""

from __future__ import annotations

import pytest

from socksd.address import Destination
from socksd.codes import Command, ReplyCode
from socksd.events import Decided, Outcome, Resolved, SessionClosed
from socksd.server.why import MOST
from socksd.wire.socks5 import Request, UsernamePassword
from tests.fakes import FakeTransport
from tests.server.test_session import GREETING, LOGIN_GREETING, reply, the_end
from tests.server.world import DEFER, DENY, FakePolicy, World

WHY = Request(Command.CONNECT, Destination.named("WHY.socksd.", 80)).encode()
GET = b"GET / HTTP/1.1\r\nHost: why.socksd\r\n\r\n"
GREETED = b"\x05\x00"


def asking(world: World, octets: bytes = b"", client: str = "192.0.2.1") -> FakeTransport:
    transport = world.connect(client)
    transport.receive(GREETING)
    transport.receive(WHY + octets)
    return transport


def answer(transport: FakeTransport) -> tuple[bytes, bytes, bytes]:
    """Give status line, headers and body; what comes before is the dialogue's."""
    opening = GREETED + reply(ReplyCode.SUCCEEDED)
    assert transport.sent.startswith(opening)
    head, _, body = bytes(transport.sent[len(opening) :]).partition(b"\r\n\r\n")
    status, _, headers = head.partition(b"\r\n")
    return status, headers, body


@pytest.fixture
def world() -> World:
    """Somebody whom the policy lets in, and nowhere."""
    return World(policy=FakePolicy(lambda facts: DENY if facts.destination else DEFER))


def test_nothing_is_asked_looked_up_or_dialled(world: World) -> None:
    client = asking(world, GET)
    status, headers, body = answer(client)
    assert status == b"HTTP/1.1 200 OK"
    assert b"Content-Type: text/html; charset=utf-8" in headers
    assert b"Content-Length: %d" % len(body) in headers
    assert body == b"192.0.2.1 None False\n"
    assert client.fin
    client.receive_fin()
    closed = the_end(world)
    assert (closed.rule, closed.outcome, closed.address) == ("why", Outcome.SERVED, None)
    assert closed.up == len(GET)
    assert closed.down == len(status) + 2 + len(headers) + 4 + len(body)
    assert len(world.events.of(Decided)) == 1, "at the first octets"
    assert not world.events.of(Resolved)
    assert world.resolver.pending.calls == world.egress.pending.calls == []


def test_who_asks_is_who_has_logged_in(world: World) -> None:
    world.authenticator.acceptable = (2,)  # type: ignore[assignment]  # a method is a number
    world.authenticator.users[b"alice"] = b"secret"
    client = world.connect()
    client.receive(LOGIN_GREETING + UsernamePassword(b"alice", b"secret").encode() + WHY + GET)
    assert client.sent.endswith(b"\r\n\r\n192.0.2.1 alice False\n")
    client.receive_fin()


def test_whom_the_policy_does_not_let_in_gets_no_page(world: World) -> None:
    world.policy.answer = lambda facts: DENY
    client = asking(world, GET)
    assert client.sent == b""
    client.receive_fin()
    assert the_end(world).outcome is Outcome.DENIED


@pytest.mark.parametrize(
    ("command", "host", "port"),
    [
        pytest.param(Command.CONNECT, "why.socksd", 81, id="another port"),
        pytest.param(Command.CONNECT, "www.why.socksd", 80, id="another name"),
        pytest.param(Command.BIND, "why.socksd", 80, id="another command"),
    ],
)
def test_anything_else_is_as_ever(world: World, command: Command, host: str, port: int) -> None:
    client = world.connect()
    client.receive(GREETING + Request(command, Destination.named(host, port)).encode())
    assert client.sent[3] != ReplyCode.SUCCEEDED
    client.receive_fin()
    assert the_end(world).outcome is not Outcome.SERVED


@pytest.mark.parametrize(
    ("accept", "plain"),
    [
        pytest.param(b"text/plain", True, id="plain"),
        pytest.param(
            b"application/json, text/plain;q=0.5, text/html;q=0.1", True, id="plain first"
        ),
        pytest.param(b"text/html,application/xhtml+xml,*/*;q=0.8", False, id="a browser"),
        pytest.param(b"*/*", False, id="curl"),
    ],
)
def test_the_kind_is_what_the_client_accepts_first(
    world: World, accept: bytes, plain: bool
) -> None:
    client = asking(world, b"GET / HTTP/1.1\r\naccept: " + accept + b"\r\nX: text/plain\r\n\r\n")
    _, headers, body = answer(client)
    assert body.endswith(b" True\n" if plain else b" False\n")
    assert (b"text/plain" in headers) is plain
    client.receive_fin()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(b"POST / HTTP/1.1\r\n\r\nbody", b"405 Method Not Allowed", id="method"),
        pytest.param(b"hello\r\n\r\n", b"400 Bad Request", id="not HTTP"),
        pytest.param(b"GET /\r\n\r\n", b"400 Bad Request", id="HTTP/0.9"),
        pytest.param(b"G" * (MOST + 1), b"431 ", id="a head without end"),
        pytest.param(
            b"GET / HTTP/1.1\r\nX: " + b"x" * MOST + b"\r\n\r\n", b"431 ", id="a long head"
        ),
        pytest.param(b"GET / HTTP/1.0\n\n", b"200 OK", id="bare newlines"),
    ],
)
def test_every_question_has_one_answer(world: World, request_: bytes, status: bytes) -> None:
    client = asking(world, request_)
    assert answer(client)[0].startswith(b"HTTP/1.1 " + status)
    sent = len(client.sent)
    client.receive(GET)
    assert len(client.sent) == sent
    client.receive_fin()
    assert the_end(world).up == len(request_) + len(GET)


def test_head_gives_no_body(world: World) -> None:
    client = asking(world, GET.replace(b"GET", b"HEAD"))
    _, headers, body = answer(client)
    assert b"Content-Length: 21" in headers
    assert body == b""
    client.receive_fin()


def test_octet_by_octet_it_is_the_same_question(world: World) -> None:
    client = asking(world)
    for octet in GET:
        assert client.sent == GREETED + reply(ReplyCode.SUCCEEDED)
        client.receive(bytes([octet]))
    assert answer(client)[2] == b"192.0.2.1 None False\n"
    client.receive_fin()


def test_who_asks_nothing_is_let_go(world: World) -> None:
    client = asking(world, b"GET / HT")
    client.receive_fin()
    assert the_end(world).outcome is Outcome.SERVED


@pytest.mark.parametrize("octets", [pytest.param(b"GET", id="half"), pytest.param(GET, id="all")])
def test_nobody_stays_for_ever(world: World, octets: bytes) -> None:
    """Neither before the question nor after the answer."""
    client = asking(world, octets)
    world.clock.advance(9.9)
    assert client.gone is None
    world.clock.advance(0.2)
    assert client.gone == "reset"
    assert the_end(world).outcome is Outcome.IDLE


def test_who_asks_late_has_time_to_take_the_answer(world: World) -> None:
    client = asking(world)
    world.clock.advance(9)
    client.receive(GET)
    world.clock.advance(9)
    assert client.gone is None
    client.receive_fin()
    assert the_end(world).outcome is Outcome.SERVED


def test_a_reset_is_the_clients(world: World) -> None:
    client = asking(world)
    client.receive_reset()
    assert the_end(world).outcome is Outcome.RESET


def test_the_service_stops_it(world: World) -> None:
    client = asking(world)
    for session in world.sessions:
        session.stop("a reason")
    assert client.gone == "reset"
    closed = the_end(world)
    assert (closed.outcome, closed.reason) == (Outcome.STOPPED, "a reason")


def test_sessions_tell_when_the_last_that_kept_a_runtime_has_gone() -> None:
    world, left = World(), []
    world.sessions.left = left.append
    one, two = world.connect(), world.connect()
    assert world.sessions.keep(world.runtime) == 2
    one.receive_reset()
    assert left == []
    two.receive_reset()
    assert left == [world.runtime]
    assert world.sessions.keep(world.runtime) == 0
    assert len(world.events.of(SessionClosed)) == 2
