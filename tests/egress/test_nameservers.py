from __future__ import annotations

import errno
from ipaddress import ip_address
from socket import AF_INET, AF_INET6

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError, ConnectionLost
from twisted.names import dns
from twisted.python.failure import Failure

from socksd.codes import ReplyCode
from socksd.egress.nameservers import ROUNDS, NameServer, NameServers
from socksd.errors import Refused, TimedOut
from tests.egress.fakes import FakeReactor, Reply, Server, a, reply_to
from tests.fakes import FakeTransport, outcome

ONE, TWO = ("192.0.2.1", 53), ("2001:db8::2", 5353)
NAME = b"web.example"


def good(question: dns.Message) -> Reply:
    return 0.02, reply_to(question, a(NAME, "198.51.100.1"))


def never(question: dns.Message) -> Reply:
    return None


def refusing(question: dns.Message) -> Reply:
    return ConnectionRefusedError()


def closing(question: dns.Message) -> Reply:
    return ConnectionAbortedError()


def unreachable(question: dns.Message) -> Reply:
    return OSError(errno.ENETUNREACH, "")


def servfail(question: dns.Message) -> Reply:
    return 0.02, reply_to(question, code=dns.ESERVER)


def truncated(question: dns.Message) -> Reply:
    message = reply_to(question)
    message.trunc = 1
    return 0.02, message


def asking(*servers: Server) -> tuple[FakeReactor, Deferred[dns.Message]]:
    reactor = FakeReactor()
    addresses = (ONE, TWO)[: len(servers)]
    reactor.servers.update(zip(addresses, servers, strict=True))
    name_servers = NameServers(
        [NameServer(ip_address(host), port) for host, port in addresses],
        reactor,  # type: ignore[arg-type]  # a fake reactor
        reactor.make_socket,  # type: ignore[arg-type]  # a fake reactor
    )
    return reactor, Deferred.fromCoroutine(name_servers.ask(NAME, dns.A))


def asked(reactor: FakeReactor) -> list[str]:
    return [host for (host, _), _ in reactor.questions]


def refusal_of(answer: Deferred[dns.Message]) -> Refused:
    with pytest.raises(Refused) as raised:
        outcome(answer)
    return raised.value


def test_the_reply_of_the_first_server_is_the_answer() -> None:
    reactor, answer = asking(good, good)
    reactor.advance(0.02)
    assert [record.payload for record in outcome(answer).answers] == [
        dns.Record_A("198.51.100.1", ttl=300)
    ]
    assert asked(reactor) == [ONE[0]]
    (_, question), *_ = reactor.questions
    assert question.recDes
    assert question.queries == [dns.Query(NAME, dns.A)]
    assert not reactor.left


def test_name_error_is_an_answer_too() -> None:
    def nxdomain(question: dns.Message) -> Reply:
        return 0.02, reply_to(question, code=dns.ENAME)

    reactor, answer = asking(nxdomain, good)
    reactor.advance(0.02)
    assert outcome(answer).rCode == dns.ENAME
    assert asked(reactor) == [ONE[0]]


def test_each_question_has_an_id_of_its_own() -> None:
    """Which is what an off-path attacker has to guess, with the port."""
    ids = set()
    for _ in range(50):
        reactor, answer = asking(good)
        reactor.advance(0.02)
        outcome(answer)
        ids.add(reactor.questions[0][1].id)
    assert len(ids) > 40


def test_the_socket_is_of_the_family_of_its_server() -> None:
    reactor, answer = asking(servfail, good)
    reactor.pump([0.02] * 2)
    outcome(answer)
    assert [socket.family for socket in reactor.sockets] == [AF_INET, AF_INET6]


def test_a_silent_server_costs_a_second_and_is_asked_again_after_the_others() -> None:
    reactor, answer = asking(never, never)
    for seconds in ROUNDS:
        for host, _ in (ONE, TWO):
            assert asked(reactor)[-1] == host
            reactor.advance(seconds)
    refused = refusal_of(answer)
    assert refused.reply is ReplyCode.HOST_UNREACHABLE
    assert refused.reason == "no name server answered"
    assert isinstance(refused, TimedOut)
    assert len(reactor.questions) == 2 * len(ROUNDS)
    assert not reactor.left


@pytest.mark.parametrize("down", [refusing, closing, unreachable])
def test_a_server_that_is_down_costs_nothing(down: Server) -> None:
    reactor, answer = asking(down, good)
    reactor.pump([0, 0.02])
    assert outcome(answer).answers
    assert asked(reactor) == [ONE[0], TWO[0]]


@pytest.mark.parametrize("down", [refusing, closing, unreachable])
def test_when_all_are_down_it_is_known_at_once(down: Server) -> None:
    reactor, answer = asking(down, down)
    reactor.pump([0, 0])
    refused = refusal_of(answer)
    assert refused.reason == "no name server answered"
    assert not isinstance(refused, TimedOut)
    assert not reactor.left


def test_who_cannot_tell_is_not_asked_again_but_the_next_is() -> None:
    reactor, answer = asking(servfail, never)
    reactor.pump([0.02, 1, 2, 4])
    assert refusal_of(answer).reason == "name server failure (SERVFAIL)"
    assert asked(reactor) == [ONE[0], TWO[0], TWO[0], TWO[0]]


def test_an_rcode_without_a_name_is_told_by_number() -> None:
    reactor, answer = asking(lambda question: (0.02, reply_to(question, code=9)))
    reactor.advance(0.02)
    assert refusal_of(answer).reason == "name server failure (RCODE 9)"


def forged_id(question: dns.Message) -> Reply:
    question.id ^= 1
    return good(question)


def forged_question(question: dns.Message) -> Reply:
    question.queries = [dns.Query(b"other.example", dns.A)]
    return good(question)


def own_question(question: dns.Message) -> Reply:
    return 0.02, question


def garbage(question: dns.Message) -> Reply:
    loop = b"\xc0\x0c"  # a name that points at itself
    return 0.02, question.toStr()[:2] + b"\x80\0\0\1\0\0\0\0\0\0" + loop


@pytest.mark.parametrize("lie", [forged_id, forged_question, own_question, garbage])
def test_what_is_no_reply_to_this_question_is_dropped(lie: Server) -> None:
    """And the true reply, which comes after it, is taken."""
    reactor = FakeReactor()

    def lie_then_truth(question: dns.Message) -> Reply:
        told, truth = good(question), reply_to(question, a(NAME, "198.51.100.1"))
        assert isinstance(told, tuple)
        reactor.callLater(0.5, reactor.sockets[-1].receive, truth.toStr())
        return lie(question)

    reactor.servers[ONE] = lie_then_truth
    servers = NameServers(
        [NameServer(ip_address(ONE[0]))],
        reactor,  # type: ignore[arg-type]  # a fake reactor
        reactor.make_socket,  # type: ignore[arg-type]  # a fake reactor
    )
    answer = Deferred.fromCoroutine(servers.ask(NAME, dns.A))
    reactor.advance(0.02)
    assert not answer.called
    reactor.advance(0.48)
    assert outcome(answer).answers
    assert not reactor.left


@given(st.binary(max_size=80), st.booleans())
def test_no_octets_do_any_harm(octets: bytes, with_the_id: bool) -> None:
    def server(question: dns.Message) -> Reply:
        return 0.02, (question.toStr()[:2] + octets[2:] if with_the_id else octets)

    reactor, answer = asking(server)
    reactor.pump([0.02, *ROUNDS])
    assert refusal_of(answer).reply is ReplyCode.HOST_UNREACHABLE
    assert not reactor.left


def test_a_second_reply_is_nothing_new() -> None:
    reactor, answer = asking(good)
    (socket,) = reactor.sockets
    reader = socket.reader
    assert reader is not None
    socket.receive()  # the reactor's word alone
    assert not answer.called
    _, question = reactor.questions[0]
    twice = reply_to(question, a(NAME, "198.51.100.1")).toStr()
    socket.receive(twice)
    assert outcome(answer).answers
    assert not socket.open
    socket.arrived = [twice, ConnectionRefusedError()]
    reader.doRead()
    reader.doRead()
    assert reader.logPrefix() == "dns"


def test_what_the_reactor_says_of_another_descriptor_does_no_harm() -> None:
    """An event of a closed descriptor whose number this socket has got since."""
    reactor, answer = asking(good)
    (socket,) = reactor.sockets
    socket.reader.doWrite()  # type: ignore[union-attr]  # which is no IReadDescriptor's business
    socket.lose(0)
    reactor.advance(0.02)
    assert outcome(answer).answers
    assert not reactor.left


def test_without_a_socket_it_is_our_trouble_and_not_the_names() -> None:
    reactor = FakeReactor()
    reactor.no_sockets = OSError(errno.EMFILE, "")
    servers = NameServers(
        [NameServer(ip_address(ONE[0]))],
        reactor,  # type: ignore[arg-type]  # a fake reactor
        reactor.make_socket,  # type: ignore[arg-type]  # a fake reactor
    )
    refused = refusal_of(Deferred.fromCoroutine(servers.ask(NAME, dns.A)))
    assert refused.reply is ReplyCode.GENERAL_FAILURE


def test_cancelling_leaves_nothing() -> None:
    reactor, answer = asking(never)
    answer.cancel()
    with pytest.raises(CancelledError):
        outcome(answer)
    assert not reactor.left


# -- over TCP -------------------------------------------------------------------


def over_tcp(*servers: Server) -> tuple[FakeReactor, Deferred[dns.Message], FakeTransport]:
    reactor, answer = asking(truncated, *servers)
    reactor.advance(0.02)
    host, port, factory, *_ = reactor.tcpClients[0]
    assert (host, port) == ONE
    return reactor, answer, FakeTransport(factory.buildProtocol(None))


def test_a_truncated_reply_is_asked_for_again_over_tcp() -> None:
    reactor, answer, transport = over_tcp()
    question = dns.Message()
    question.fromStr(bytes(transport.sent[2:]))
    assert int.from_bytes(transport.sent[:2], "big") == len(transport.sent) - 2
    octets = reply_to(question, *(a(NAME, f"198.51.100.{i}") for i in range(99))).toStr()
    framed = len(octets).to_bytes(2, "big") + octets
    transport.receive(framed[:100])
    assert not answer.called
    transport.receive(framed[100:])
    assert len(outcome(answer).answers) == 99
    assert transport.gone == "reset", "the connection is for one question"
    assert not reactor.left


def test_a_connection_that_breaks_sends_us_to_the_next_server() -> None:
    reactor, answer, transport = over_tcp(good)
    transport.receive_reset()
    reactor.advance(0.02)
    assert outcome(answer).answers
    assert asked(reactor) == [ONE[0], TWO[0]]


def test_a_refused_connection_sends_us_to_the_next_server() -> None:
    reactor, answer = asking(truncated, good)
    reactor.advance(0.02)
    factory = reactor.tcpClients[0][2]
    factory.clientConnectionFailed(reactor.connectors[0], Failure(ConnectionLost()))
    reactor.advance(0.02)
    assert outcome(answer).answers


def test_silence_over_tcp_is_bounded_too() -> None:
    reactor, answer, transport = over_tcp(good)
    reactor.advance(ROUNDS[0])
    assert transport.gone == "reset"
    reactor.advance(0.02)
    assert outcome(answer).answers
    assert not reactor.left


def test_cancelling_while_connecting_leaves_nothing() -> None:
    reactor, answer = asking(truncated)
    reactor.advance(0.02)
    answer.cancel()
    with pytest.raises(ConnectingCancelledError):
        outcome(answer)
    assert reactor.connectors[0].stoppedConnecting
    assert not reactor.left
