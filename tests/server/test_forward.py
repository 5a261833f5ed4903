"""A forwarded request between two fake connections, joined by a real pump."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from socksd.events import Outcome
from socksd.interfaces import EndedBy, ICarrier, IEnd, Tally
from socksd.relay.pump import Pump
from socksd.server.ends import End
from socksd.server.forward import Forward
from socksd.wire.exchange import Exchange
from socksd.wire.http import RequestHead
from tests.fakes import FakeTransport, ended, outcome

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
SENT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nVia: 1.1 socksd\r\nConnection: close\r\n\r\nhello"
NO_ANSWER = (Outcome.FAILED, "the destination has given no answer of HTTP/1.1")
UNFRAMED = (Outcome.PROTOCOL_ERROR, "the body of the request is not framed as its head says")


def head(method: str = "GET", *fields: str) -> bytes:
    lines = [f"{method} http://example.com/ HTTP/1.1", "Host: h", *fields, "", ""]
    taken = RequestHead.take(bytearray("\r\n".join(lines).encode()))
    assert taken is not None
    return taken.encode()


@dataclass
class Forwarded:
    client: FakeTransport
    target: FakeTransport
    forward: Forward
    done: Deferred[Tally]
    failed: list[tuple[Outcome, str]]

    @property
    def tally(self) -> Tally:
        tally: Tally = outcome(self.done)
        return tally


def forwarded(early: bytes = b"", *, client_ended: bool = False) -> Forwarded:
    client, target = End(), End()
    ours, theirs = FakeTransport(client), FakeTransport(target)
    if client_ended:
        ours.receive_fin()
    failed: list[tuple[Outcome, str]] = []
    forward = Forward(target, lambda *it: failed.append(it))
    pump = Pump(client, forward, Clock(), 900.0, 300.0)
    return Forwarded(ours, theirs, forward, ended(pump, early or head()), failed)


def test_it_is_an_end_and_a_carrier() -> None:
    target = End()
    FakeTransport(target)
    forward = Forward(target, lambda *_: None)
    assert verifyObject(IEnd, forward)
    assert verifyObject(ICarrier, forward)


def test_one_request_and_one_response_go_through() -> None:
    relay = forwarded()
    assert relay.target.sent == head()
    relay.target.receive(RESPONSE[:9])
    assert not relay.client.sent
    relay.target.receive(RESPONSE[9:])
    assert relay.client.sent == SENT
    assert relay.client.fin
    relay.client.receive_fin()
    assert (relay.client.gone, relay.target.gone) == ("closed", "closed")
    assert relay.tally == Tally(len(head()), len(SENT), EndedBy.BOTH)
    assert relay.failed == []


def test_nothing_behind_the_request_reaches_the_target() -> None:
    relay = forwarded(head() + b"GET http://evil/ HTTP/1.1\r\n\r\n")
    relay.client.receive(b"GET http://evil/ HTTP/1.1\r\n\r\n")
    assert relay.target.sent == head()
    relay.client.receive_reset()


def test_a_body_may_come_later() -> None:
    request = head("POST", "Content-Length: 5")
    relay = forwarded(request + b"he")
    assert relay.target.sent == request + b"he"
    relay.client.receive(b"llo and more")
    assert relay.target.sent == request + b"hello"
    relay.client.receive_reset()
    assert relay.tally.ended_by is EndedBy.CLIENT
    assert relay.target.gone == "reset"


def test_nothing_behind_the_response_reaches_the_client() -> None:
    """The target is not even read any more."""
    relay = forwarded()
    relay.target.receive(RESPONSE + RESPONSE)
    assert relay.client.sent == SENT
    assert not relay.target.producing
    relay.client.receive_fin()
    assert relay.tally.ended_by is EndedBy.BOTH


@pytest.mark.parametrize("octets", [RESPONSE, b"SSH-2.0-OpenSSH\r\n\r\n"])
def test_what_still_comes_from_a_target_that_is_done_with_is_not_kept(
    octets: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS may have some when it is paused; an exchange that is over would gather it."""
    relay = forwarded()
    relay.target.receive(octets)
    told = bytes(relay.client.sent)
    monkeypatch.setattr(Exchange, "down", lambda *_: pytest.fail("looked at"))
    relay.target.protocol.dataReceived(b"more")
    assert relay.client.sent == told
    relay.client.receive_reset()


def test_the_end_of_the_connection_may_be_the_end_of_the_response() -> None:
    relay = forwarded()
    relay.target.receive(b"HTTP/1.0 200 OK\r\n\r\nhel")
    relay.target.receive(b"lo")
    assert not relay.client.fin
    relay.target.receive_fin()
    assert relay.client.sent.endswith(b"0\r\n\r\n")
    assert relay.client.fin
    relay.client.receive_fin()
    assert relay.tally.ended_by is EndedBy.BOTH


def test_a_client_that_sends_no_more_gets_its_response() -> None:
    """Many a server takes FIN for a client that has left."""
    relay = forwarded()
    relay.client.receive_fin()
    assert not relay.target.fin
    relay.target.receive(RESPONSE)
    assert relay.client.sent == SENT
    assert (relay.client.gone, relay.target.gone) == ("closed", "closed")
    assert relay.tally.ended_by is EndedBy.BOTH


def test_a_client_that_stops_in_the_middle_of_its_request_is_told() -> None:
    relay = forwarded(head("POST", "Content-Length: 5"))
    relay.client.receive_fin()
    assert relay.client.sent.startswith(b"HTTP/1.1 400 ")
    assert (relay.client.gone, relay.target.gone) == ("closed", "closed")
    assert relay.tally.ended_by is EndedBy.BOTH
    assert relay.failed == [UNFRAMED]


@pytest.mark.parametrize("early", [True, False])
def test_a_client_whose_chunks_are_none_is_told(early: bool) -> None:
    request = head("POST", "Transfer-Encoding: chunked")
    relay = forwarded(request + b"x\r\n") if early else forwarded(request)
    if not early:
        relay.client.receive(b"x\r\n")
    assert relay.client.sent.startswith(b"HTTP/1.1 400 ")
    assert relay.client.fin
    relay.client.receive(b"x\r\n")
    relay.client.receive_fin()
    assert relay.target.gone == "closed"
    assert b"x\r\n" not in relay.target.sent


@pytest.mark.parametrize("octets", [b"SSH-2.0-OpenSSH\r\n\r\n", b"\x16\x03\x01"])
def test_a_target_that_speaks_something_else_is_a_bad_gateway(octets: bytes) -> None:
    relay = forwarded()
    relay.target.receive(octets)
    assert relay.client.sent.startswith(b"HTTP/1.1 502 ")
    assert relay.client.fin
    assert relay.failed == [NO_ANSWER]
    relay.client.receive_fin()
    assert relay.target.gone == "closed"


def test_a_target_that_closes_without_an_answer_is_a_bad_gateway() -> None:
    relay = forwarded()
    relay.target.receive_fin()
    assert relay.client.sent.startswith(b"HTTP/1.1 502 ")
    relay.client.receive_fin()
    assert (relay.client.gone, relay.target.gone) == ("closed", "closed")
    assert relay.failed == [NO_ANSWER]


def test_a_target_that_resets_before_its_answer_is_a_bad_gateway() -> None:
    relay = forwarded()
    relay.target.receive_reset()
    assert relay.client.sent.startswith(b"HTTP/1.1 502 ")
    assert relay.client.gone == "closed"
    assert relay.tally.ended_by is EndedBy.BOTH
    assert relay.failed == [NO_ANSWER]


@pytest.mark.parametrize("how", ["reset", "fin", "chunks"])
def test_half_a_response_is_not_passed_off_as_a_whole_one(how: str) -> None:
    """The connection breaks: HTTP/1.0 has no other sign of it."""
    relay = forwarded()
    relay.target.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
    if how == "reset":
        relay.target.receive_reset()
    elif how == "fin":
        relay.target.receive_fin()
    else:
        relay.target.receive(b"loXX")
    assert relay.client.gone == "reset"
    assert relay.tally.ended_by is EndedBy.TARGET


def test_a_reset_behind_the_response_takes_nothing_away() -> None:
    relay = forwarded()
    relay.target.receive(RESPONSE)
    relay.target.receive_fin()
    relay.target.receive_reset()
    assert relay.client.sent == SENT
    assert relay.client.gone == "closed"
    assert relay.tally.ended_by is EndedBy.BOTH


def test_a_client_that_is_gone_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its transport has no descriptor to write to."""
    relay = forwarded()
    monkeypatch.setattr(End, "finish_writing", lambda _: pytest.fail("told"))
    relay.client.receive_reset()
    assert relay.target.gone == "reset"
    assert relay.tally == Tally(len(head()), 0, EndedBy.CLIENT)


def test_the_client_is_not_read_while_the_target_does_not_read() -> None:
    relay = forwarded(head("POST", "Content-Length: 1000000"))
    relay.target.stop_reading()
    relay.client.receive(bytes(70_000))
    assert not relay.client.producing
    relay.target.start_reading()
    assert relay.client.producing
    relay.client.receive_reset()


def test_the_target_is_not_read_while_the_client_does_not_read() -> None:
    relay = forwarded()
    relay.client.stop_reading()
    relay.target.receive(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(70_000))
    assert not relay.target.producing
    relay.client.start_reading()
    assert relay.target.producing
    relay.client.receive_reset()


def test_writing_in_sequence_goes_through_as_well() -> None:
    """Not past us, to the target."""
    relay = forwarded(head("POST", "Content-Length: 5"))
    forward = relay.forward
    forward.transport.writeSequence([b"he", b"llo and more"])
    assert relay.target.sent.endswith(b"\r\n\r\nhello")
    relay.client.receive_reset()


@pytest.mark.parametrize("octets", [b"", b"he"])
def test_a_client_may_have_stopped_before_it_was_joined(octets: bytes) -> None:
    relay = forwarded(head("POST", "Content-Length: 5") + octets, client_ended=True)
    assert relay.client.sent.startswith(b"HTTP/1.1 400 ")
    assert relay.tally.ended_by is EndedBy.BOTH


def test_a_client_may_have_asked_and_stopped_before_it_was_joined() -> None:
    relay = forwarded(client_ended=True)
    relay.target.receive(RESPONSE)
    assert relay.client.sent == SENT
    assert relay.tally.ended_by is EndedBy.BOTH
