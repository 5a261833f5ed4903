"""GSS-API's sub-negotiation, by sessions; its mechanism is for tests/identity/test_gssapi.py."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from socksd.address import Destination
from socksd.codes import Command, Method, Protection, ReplyCode
from socksd.errors import LoginFailed
from socksd.events import LoggedIn, LoginRefused, MethodChosen, Outcome
from socksd.facts import Principal
from socksd.interfaces import Accepted, EndedBy
from socksd.server import session as sessions
from socksd.server.dialogue import IDialogue
from socksd.server.gssapi import Gssapi
from socksd.server.session import Session
from socksd.wire.gssapi import ABORT, Message, MessageType
from socksd.wire.socks5 import Greeting, Request
from tests.server.test_session import reply, the_end
from tests.server.world import World
from tests.tokens import FakeContext
from tests.wire.strategies import split

GREETING = Greeting(b"\x00\x01\x02").encode()
CHOSEN = b"\x05\x01"
LITERAL = Request(Command.CONNECT, Destination.named("198.51.100.7", 80)).encode()
UDP = Request(Command.UDP_ASSOCIATE, Destination.named("0.0.0.0", 0)).encode()
TOKEN = Message(MessageType.AUTHENTICATION, b"I am alice").encode()
WELCOME = Message(MessageType.AUTHENTICATION, b"hello alice").encode()


class Client:
    """A client's connection, and its side of the security context."""

    def __init__(self, world: World) -> None:
        self.context = FakeContext()
        self.transport = world.connect()

    def send(self, octets: bytes) -> None:
        self.transport.receive(octets)

    def level(self, level: int) -> bytes:
        token = self.context.wrap(bytes((level,)), False)
        return Message(MessageType.PROTECTION, token).encode()

    def encapsulated(self, octets: bytes, confidential: bool = True) -> bytes:
        token = self.context.wrap(octets, confidential)
        return Message(MessageType.ENCAPSULATED, token).encode()

    def heard(self, kind: MessageType) -> bytes:
        """What a token that was sent to it holds."""
        message = Message.take(self.transport.sent, kind)
        assert message is not None
        return self.context.unwrap(message.token)[0]

    def expect(self, octets: bytes) -> None:
        """It is sent these octets, and no more."""
        assert self.transport.sent == octets
        self.transport.sent.clear()


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


@pytest.fixture
def world(context: FakeContext) -> World:
    world = World()
    world.authenticator.acceptable = (Method.GSSAPI,)
    world.authenticator.context = context
    return world


@pytest.fixture
def client(world: World) -> Client:
    return Client(world)


@pytest.fixture
def accepted(client: Client) -> Client:
    """A client whose security context is established."""
    client.send(GREETING)
    client.expect(CHOSEN)
    client.send(TOKEN)
    client.expect(WELCOME)
    return client


def test_it_is_a_dialogue(world: World, accepted: Client) -> None:
    (session,) = world.sessions
    assert isinstance(session.dialogue, Gssapi)
    assert verifyObject(IDialogue, session.dialogue)
    with pytest.raises(RuntimeError):
        session.dialogue.granted(None)


def test_a_client_logs_in_and_is_served_in_tokens(
    world: World, context: FakeContext, accepted: Client
) -> None:
    assert context.asked == [b"I am alice"]
    accepted.send(accepted.level(Protection.CONFIDENTIALITY))
    assert accepted.heard(MessageType.PROTECTION) == bytes((Protection.CONFIDENTIALITY,))
    accepted.send(accepted.encapsulated(LITERAL))
    world.egress.answer("198.51.100.7")
    assert accepted.heard(MessageType.ENCAPSULATED)[:2] == b"\x05\x00"
    (relay,) = world.relays
    relay.client.send(b"payload")
    assert accepted.heard(MessageType.ENCAPSULATED) == b"payload"
    assert not accepted.transport.sent
    relay.end(EndedBy.BOTH)
    closed = the_end(world)
    assert (closed.user, closed.outcome) == ("alice", Outcome.SERVED)
    assert [event.user for event in world.events.of(LoggedIn)] == ["alice"]
    assert world.events.of(MethodChosen)[0].method is Method.GSSAPI


def test_the_policy_learns_who_it_is(world: World, accepted: Client) -> None:
    accepted.send(accepted.level(2))
    accepted.send(accepted.encapsulated(LITERAL))
    principals = [facts.principal for facts in world.policy.asked]
    assert principals == [None, Principal("alice")]


def test_integrity_leaves_the_octets_readable(world: World, accepted: Client) -> None:
    accepted.send(accepted.level(Protection.INTEGRITY))
    assert accepted.heard(MessageType.PROTECTION) == bytes((Protection.INTEGRITY,))
    accepted.send(accepted.encapsulated(LITERAL, confidential=False))
    assert world.egress.pending.calls


def test_what_the_server_chooses_is_what_is_done(
    world: World, context: FakeContext, accepted: Client
) -> None:
    """The client asked for less, and may leave if it does not like more."""
    context.protections = {Protection.CONFIDENTIALITY}
    accepted.send(accepted.level(Protection.INTEGRITY))
    assert accepted.heard(MessageType.PROTECTION) == bytes((Protection.CONFIDENTIALITY,))
    accepted.send(accepted.encapsulated(LITERAL, confidential=False))
    assert the_end(world).outcome is Outcome.PROTOCOL_ERROR
    assert accepted.transport.gone == "reset"


def test_without_protection_all_goes_on_in_clear(
    world: World, context: FakeContext, accepted: Client
) -> None:
    """And by the transport itself, so that a line can carry it."""
    context.protections = {Protection.NONE}
    accepted.send(accepted.level(2))
    assert accepted.heard(MessageType.PROTECTION) == b"\x00"
    accepted.send(LITERAL)
    world.egress.answer("198.51.100.7")
    accepted.expect(b"\x05\x00\x00\x01\x7f\x00\x00\x01\xc3\x50")
    assert world.relays[0].client.transport is accepted.transport


@given(st.data())
def test_segments_make_no_difference(data: st.DataObject) -> None:
    world = World()
    world.authenticator.acceptable = (Method.GSSAPI,)
    client = Client(world)
    for octets in (GREETING, TOKEN, client.level(2), client.encapsulated(LITERAL)):
        for segment in data.draw(split(octets)):
            if segment:
                client.send(segment)
    assert world.egress.pending.calls


def test_a_token_may_come_with_the_greeting(world: World, client: Client) -> None:
    """Who offers nothing else knows what will be chosen."""
    client.send(Greeting(b"\x01").encode() + TOKEN)
    client.expect(CHOSEN + WELCOME)


def test_a_context_may_take_several_tokens(world: World, client: Client) -> None:
    context = FakeContext(
        Accepted(b"go on", None), Accepted(b"", None), Accepted(b"", Principal("alice"))
    )
    world.authenticator.context = context
    client.send(GREETING)
    for _ in range(3):
        client.send(TOKEN)
    go_on = Message(MessageType.AUTHENTICATION, b"go on").encode()
    # An empty one has the client go on, RFC 1961 section 3.6.
    client.expect(CHOSEN + go_on + b"\x01\x01\x00\x00" * 2)
    client.send(client.level(2))
    assert client.heard(MessageType.PROTECTION) == b"\x02"


def test_a_login_that_fails_is_aborted_and_told(world: World, client: Client) -> None:
    world.authenticator.context = FakeContext(LoginFailed("Request is a replay"))
    client.send(GREETING + TOKEN)
    client.expect(CHOSEN + ABORT)
    assert client.transport.fin
    client.transport.receive_fin()
    (refused,) = world.events.of(LoginRefused)
    assert (refused.user, refused.reason) == ("", "Request is a replay")
    closed = the_end(world)
    assert (closed.outcome, closed.reason) == (Outcome.LOGIN_FAILED, "Request is a replay")
    assert not world.events.of(LoggedIn)


def test_what_follows_a_token_that_failed_is_not_looked_at(world: World, client: Client) -> None:
    world.authenticator.context = FakeContext(LoginFailed("no"))
    client.send(GREETING + TOKEN + b"whatever")
    client.expect(CHOSEN + ABORT)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        pytest.param(b"\x05", "VER of a GSS-API message is 0x05, not 0x01", id="not GSS-API"),
        pytest.param(b"\x01\x02", "MTYP is 0x02, not 0x01", id="a level before a context"),
        pytest.param(b"\x01\xff", "the client has aborted GSS-API", id="abort"),
    ],
)
def test_what_is_no_token_is_aborted(
    world: World, client: Client, sent: bytes, reason: str
) -> None:
    client.send(GREETING + sent)
    client.expect(CHOSEN + ABORT)
    client.transport.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.reason) == (Outcome.PROTOCOL_ERROR, reason)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        pytest.param(
            lambda client: b"\x01\x02\x00\x01\x00",
            "a protection level that is not protected itself",
            id="in clear, as NEC had it",
        ),
        pytest.param(
            lambda client: Message(MessageType.PROTECTION, b"forged").encode(),
            "a bad GSS-API token: not the next one",
            id="forged",
        ),
        pytest.param(
            lambda client: Message(
                MessageType.PROTECTION, client.context.wrap(b"\x02\x00", False)
            ).encode(),
            "a protection level of 2 octets",
            id="of two octets",
        ),
        pytest.param(
            lambda client: client.level(2) + LITERAL,
            "more than a protection level before one was agreed on",
            id="followed by what somebody else may have put there",
        ),
        pytest.param(lambda client: TOKEN, "MTYP is 0x01, not 0x02", id="another token"),
    ],
)
def test_a_level_that_nobody_can_rely_on_is_aborted(
    world: World, accepted: Client, sent: Callable[[Client], bytes], reason: str
) -> None:
    accepted.send(sent(accepted))
    accepted.expect(ABORT)
    accepted.transport.receive_fin()
    closed = the_end(world)
    assert (closed.outcome, closed.reason) == (Outcome.PROTOCOL_ERROR, reason)
    assert closed.user is None
    assert not world.events.of(LoggedIn)


def test_a_context_that_cannot_protect_aborts(
    world: World, context: FakeContext, accepted: Client
) -> None:
    """Whatever was to be protected, nothing follows."""
    context.expired = True
    accepted.send(accepted.level(2))
    accepted.expect(ABORT)
    assert accepted.transport.fin


def test_a_client_that_leaves_cancels_its_login(world: World, client: Client) -> None:
    cancelled: list[object] = []
    world.authenticator.context = FakeContext(Deferred(cancelled.append))
    client.send(GREETING + TOKEN)
    client.transport.receive_reset()
    assert cancelled
    assert the_end(world).outcome is Outcome.CLIENT_LEFT


def test_a_login_that_takes_too_long_is_aborted(world: World, client: Client) -> None:
    world.authenticator.context = FakeContext(Deferred())
    client.send(GREETING + TOKEN)
    client.expect(CHOSEN)
    world.clock.advance(10)
    client.expect(ABORT)
    client.transport.receive_fin()
    assert the_end(world).outcome is Outcome.TIMED_OUT


def test_no_more_than_the_bound_waits_for_a_login(world: World, client: Client) -> None:
    world.authenticator.context = FakeContext(Deferred())
    client.send(GREETING + TOKEN)
    client.send(bytes(world.runtime.early_data))
    assert client.transport.producing
    client.send(b"!")
    assert not client.transport.producing


def test_a_level_takes_no_longer_than_the_handshake(world: World, accepted: Client) -> None:
    world.clock.advance(10)
    assert accepted.transport.gone == "reset"
    closed = the_end(world)
    assert (closed.outcome, closed.user) == (Outcome.TIMED_OUT, None)


def test_octets_in_clear_are_a_protocol_error_once_they_are_to_be_protected(
    world: World, accepted: Client
) -> None:
    accepted.send(accepted.level(2))
    accepted.send(LITERAL)
    assert accepted.transport.gone == "reset"
    closed = the_end(world)
    assert (closed.user, closed.outcome) == ("alice", Outcome.PROTOCOL_ERROR)
    assert closed.reason == "VER of a GSS-API message is 0x05, not 0x01"


def test_a_refused_request_is_told_in_a_token(world: World, accepted: Client) -> None:
    accepted.send(accepted.level(2))
    accepted.heard(MessageType.PROTECTION)
    accepted.send(accepted.encapsulated(b"\x05\x09"))
    assert accepted.heard(MessageType.ENCAPSULATED) == reply(ReplyCode.COMMAND_NOT_SUPPORTED)
    assert accepted.transport.fin


def test_stopping_resets_a_protected_client(world: World, accepted: Client) -> None:
    accepted.send(accepted.level(2))
    (session,) = world.sessions
    session.stop()
    assert accepted.transport.gone == "reset"
    assert the_end(world).outcome is Outcome.STOPPED


@pytest.mark.parametrize("level", [Protection.NONE, Protection.CONFIDENTIALITY])
def test_datagrams_are_refused_to_who_was_promised_protection(
    world: World,
    context: FakeContext,
    accepted: Client,
    level: Protection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would have to be in tokens, too (RFC 1961 section 5), and are not."""
    carried_out: list[Request] = []

    async def associate(session: Session, request: Request) -> None:
        carried_out.append(request)

    commands: dict[Command, Callable[..., Coroutine[Any, Any, None]]] = {
        Command.UDP_ASSOCIATE: associate
    }
    monkeypatch.setattr(sessions, "_COMMANDS", commands)
    context.protections = {level}
    accepted.send(accepted.level(level))
    accepted.heard(MessageType.PROTECTION)
    if level is Protection.NONE:
        accepted.send(UDP)
        assert carried_out
    else:
        accepted.send(accepted.encapsulated(UDP))
        assert accepted.heard(MessageType.ENCAPSULATED) == reply(ReplyCode.COMMAND_NOT_SUPPORTED)
        assert not carried_out
