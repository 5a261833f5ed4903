"""An end that protects; that relays work over it is for tests/relay/test_contract.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from zope.interface import alsoProvides
from zope.interface.verify import verifyObject

from socksd.errors import ProtocolError
from socksd.interfaces import ICarrier, IEnd
from socksd.server.ends import End
from socksd.server.protected import Protected
from socksd.wire.gssapi import Message, MessageType
from tests.fakes import FakeTransport
from tests.server.test_ends import Carrier
from tests.tokens import FakeContext
from tests.wire.strategies import split


class Client:
    """A client of a protected end, its connection, and who carries the end."""

    def __init__(self, confidential: bool = True, size: int = 1000) -> None:
        below = End()
        self.transport = FakeTransport(below)
        self.ours = FakeContext(size=size)
        self.context = FakeContext(size=size)
        self.end = Protected(below, self.ours, confidential)
        self.carrier = Carrier()
        self.end.carried_by(self.carrier)

    def message(self, octets: bytes, confidential: bool = True) -> bytes:
        token = self.context.wrap(octets, confidential)
        return Message(MessageType.ENCAPSULATED, token).encode()

    def heard(self) -> list[bytes]:
        """What the messages that were sent to it hold."""
        held = []
        while message := Message.take(self.transport.sent, MessageType.ENCAPSULATED):
            octets, _ = self.context.unwrap(message.token)
            held.append(octets)
        return held


@pytest.fixture
def client() -> Client:
    return Client()


def test_it_is_an_end_and_carries_one(client: Client) -> None:
    assert verifyObject(IEnd, client.end)
    assert verifyObject(ICarrier, client.end)


def test_a_carrier_is_told_what_tokens_hold(client: Client) -> None:
    client.transport.receive(client.message(b"one"))
    client.transport.receive_fin()
    assert client.carrier.told == [b"one", "FIN"]


@given(st.lists(st.binary(max_size=50), max_size=5), st.data())
def test_segments_make_no_difference(sent: list[bytes], data: st.DataObject) -> None:
    client = Client()
    octets = b"".join(map(client.message, sent))
    for segment in data.draw(split(octets)):
        if segment:
            client.transport.receive(segment)
    assert b"".join(octets for octets in client.carrier.told) == b"".join(sent)


def test_what_one_read_brings_is_told_at_once(client: Client) -> None:
    """So a carrier that pauses us is not told more than it would be by a plain end."""
    client.transport.receive(client.message(b"one") + client.message(b"two"))
    assert client.carrier.told == [b"onetwo"]


def test_an_empty_token_tells_nothing(client: Client) -> None:
    """A carrier may count on an octet."""
    client.transport.receive(client.message(b""))
    assert client.carrier.told == []


def test_what_is_sent_is_in_tokens_that_the_framing_can_carry() -> None:
    client = Client(size=4)
    client.end.send(b"ten octets")
    client.end.transport.writeSequence([b"and", b" more"])
    client.end.transport.write(b"")
    assert client.heard() == [b"ten ", b"octe", b"ts", b"and ", b"more"]


@pytest.mark.parametrize("confidential", [True, False])
def test_all_tokens_are_encrypted_or_none_is(confidential: bool) -> None:
    """RFC 1961 section 5: conf_req_flag MUST be as agreed, always."""
    client = Client(confidential)
    client.end.send(b"secret")
    assert (b"secret" not in client.transport.sent) is confidential
    client.transport.receive(client.message(b"fine", confidential))
    assert client.carrier.told == [b"fine"]
    client.transport.receive(client.message(b"not as agreed", not confidential))
    assert client.carrier.told == [b"fine", ProtocolError]
    assert client.transport.gone == "reset"


def test_a_token_that_is_not_the_next_one_resets(client: Client) -> None:
    """Nothing of the read that brings it is told: whoever sent it is not the client."""
    first, second = client.message(b"one"), client.message(b"two")
    client.transport.receive(first)
    client.transport.receive(second + first)
    assert client.transport.gone == "reset"
    assert client.carrier.told == [b"one", ProtocolError]


def test_octets_outside_of_messages_reset(client: Client) -> None:
    client.transport.receive(b"GET")
    assert client.transport.gone == "reset"
    assert client.carrier.told == [ProtocolError]


def test_fin_within_a_message_is_a_break(client: Client) -> None:
    """Else it could be cut off where it hurts."""
    client.transport.receive(client.message(b"delete everything but this")[:-5])
    client.transport.receive_fin()
    assert client.transport.gone == "reset"
    assert client.carrier.told == [ProtocolError]


def test_a_context_that_can_wrap_no_more_is_a_break(client: Client) -> None:
    client.ours.expired = True
    client.end.send(b"never in clear")
    assert client.transport.gone == "reset"
    assert not client.transport.sent
    assert client.carrier.told == [ProtocolError]


def test_a_connection_that_is_lost_by_itself_says_why(client: Client) -> None:
    client.transport.receive_reset()
    assert client.carrier.told == [ConnectionLost]
    other = Client()
    other.transport.receive_close()
    assert other.carrier.told == [ConnectionDone]
    third = Client()
    third.end.transport.abortConnection()
    assert third.carrier.told == [ConnectionAborted]


def test_finishing_half_closes_behind_what_was_sent(client: Client) -> None:
    client.end.send(b"the end")
    client.end.finish_writing()
    assert client.transport.fin
    assert client.heard() == [b"the end"]
    client.transport.receive(client.message(b"still here"))
    assert client.carrier.told == [b"still here"]


def test_over_tls_finishing_is_tls_s_own_way() -> None:
    """A half-close below TLS would cut off what is still to be encrypted."""
    below = End()
    transport = FakeTransport(below)
    alsoProvides(transport, ISSLTransport)
    end = Protected(below, FakeContext(), confidential=True)
    end.carried_by(Carrier())
    end.finish_writing()
    assert not transport.fin
    assert transport.gone == "closed"


def test_pausing_is_the_transport_s_below(client: Client) -> None:
    client.end.transport.pauseProducing()
    assert not client.transport.producing
    client.end.transport.resumeProducing()
    assert client.transport.producing


def test_without_a_carrier_one_read_is_kept_and_no_more() -> None:
    below = End()
    transport = FakeTransport(below)
    context = FakeContext()
    end = Protected(below, FakeContext(), confidential=True)
    transport.receive(Message(MessageType.ENCAPSULATED, context.wrap(b"early", True)).encode())
    assert not transport.producing
    carrier = Carrier()
    end.carried_by(carrier)
    assert carrier.told == [b"early"]
    assert transport.producing
