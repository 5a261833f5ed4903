"""Stand-ins for what egress/ asks: endpoints, lookups, name servers."""

from __future__ import annotations

from collections.abc import Callable
from errno import ECONNREFUSED
from socket import SO_ERROR, SOCK_DGRAM, SOL_SOCKET

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReadDescriptor,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.names import dns
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.egress.lookup import Answer, ILookup
from tests.fakes import FakeTransport


class Target(Protocol):
    """What a factory of the server room would build."""


class TargetFactory(Factory[Target]):
    noisy = False
    protocol = Target


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """An endpoint whose attempt ends when the test says so, or at once."""

    def __init__(self, at_once: Callable[[FakeEndpoint], None] | None = None) -> None:
        self.at_once = at_once
        self.begun = False
        self.cancelled = False
        self.transport: FakeTransport | None = None
        self.connects_when_cancelled = False

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        assert not self.begun, "tried twice"
        self.begun = True
        self.factory = factory
        self.attempt: Deferred[IProtocol] = Deferred(self._cancel)
        if self.at_once:
            self.at_once(self)
        return self.attempt

    def succeed(self) -> None:
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 80))
        assert protocol is not None
        self.transport = FakeTransport(protocol)
        self.attempt.callback(protocol)

    def fail(self, number: int = 111) -> None:
        self.attempt.errback(ConnectError(number))

    @property
    def pending(self) -> bool:
        return self.begun and not self.attempt.called

    def _cancel(self, _: object) -> None:
        self.cancelled = True
        if self.connects_when_cancelled:
            self.succeed()


@implementer(ILookup)
class FakeLookup:
    """A lookup that waits for the test, or has its answers ready."""

    def __init__(self, **ready: Answer | Exception) -> None:
        self.ready = ready
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self.waiting: dict[str, Deferred[Answer]] = {}
        self.stopped = False

    def lookup(self, name: str) -> Deferred[Answer]:
        self.asked.append(name)
        known = self.ready.get(name)
        if known is not None:
            return succeed(known) if isinstance(known, Answer) else fail(known)
        self.waiting[name] = Deferred(lambda _: self.cancelled.append(name))
        return self.waiting[name]

    def stop(self) -> None:
        self.stopped = True


Reply = tuple[float, dns.Message | bytes] | OSError | None
Server = Callable[[dns.Message], Reply]  # after how many seconds it says what


class FakeUDP:
    """A UDP socket connected to a fake server."""

    def __init__(self, reactor: FakeReactor, family: int) -> None:
        self.reactor = reactor
        self.family = family
        self.open = True
        self.blocking = True
        self.arrived: list[bytes | OSError] = []
        self.reader: IReadDescriptor | None = None

    def setblocking(self, blocking: bool) -> None:
        self.blocking = blocking

    def connect(self, server: tuple[str, int]) -> None:
        self.server = server

    def fileno(self) -> int:
        return 1000 + self.reactor.sockets.index(self)

    def send(self, octets: bytes) -> int:
        assert not self.blocking
        question = dns.Message()
        question.fromStr(octets)
        self.reactor.questions.append((self.server, question))
        reply = self.reactor.servers[self.server](question)
        if isinstance(reply, ConnectionAbortedError):  # EPOLLERR without EPOLLIN
            self.reactor.callLater(0, self.lose, ECONNREFUSED)
        elif isinstance(reply, ConnectionRefusedError):  # EPOLLERR with it
            self.reactor.callLater(0, self.receive, reply)
        elif isinstance(reply, OSError):
            raise reply
        elif reply is not None:
            seconds, message = reply
            said = message if isinstance(message, bytes) else message.toStr()
            self.reactor.coming.append(self.reactor.callLater(seconds, self.receive, said))
        return len(octets)

    def recv(self, most: int) -> bytes:
        if not self.arrived:
            raise BlockingIOError
        arrived = self.arrived.pop(0)
        if isinstance(arrived, OSError):
            raise arrived
        return arrived[:most]

    def receive(self, *arrived: bytes | OSError) -> None:
        """Let something arrive; with nothing, only the reactor's word that it has."""
        self.arrived += arrived
        if self.reader is not None:
            self.reader.doRead()

    def close(self) -> None:
        assert self.reader is None, "closed under the reactor"
        self.open = False

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (SOL_SOCKET, SO_ERROR)
        return self.error

    def lose(self, error: int) -> None:
        """Let the reactor say that the connection is lost, as the epoll reactor does."""
        self.error = error
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.connectionLost(Failure(ConnectionLost()))


class FakeReactor(MemoryReactorClock):
    """A reactor with name servers at the other end of its UDP sockets."""

    def __init__(self, **servers: Server) -> None:
        super().__init__()
        self.servers: dict[tuple[str, int], Server] = {}
        self.questions: list[tuple[tuple[str, int], dns.Message]] = []
        self.sockets: list[FakeUDP] = []
        self.coming: list[object] = []  # replies on their way, which are not ours
        self.no_sockets: Exception | None = None

    def make_socket(self, family: int, kind: int) -> FakeUDP:
        if self.no_sockets:
            raise self.no_sockets
        assert kind == SOCK_DGRAM
        self.sockets.append(FakeUDP(self, family))
        return self.sockets[-1]

    def addReader(self, reader: IReadDescriptor) -> None:
        self.sockets[reader.fileno() - 1000].reader = reader

    def removeReader(self, reader: IReadDescriptor) -> None:
        self.sockets[reader.fileno() - 1000].reader = None

    @property
    def left(self) -> list[object]:
        """What was begun here and has not ended."""
        calls = [call for call in self.getDelayedCalls() if call not in self.coming]
        return [*calls, *(socket for socket in self.sockets if socket.open)]


def reply_to(question: dns.Message, *records: dns.RRHeader, code: int = dns.OK) -> dns.Message:
    """Make the reply of a name server that has these records."""
    message = dns.Message(question.id, answer=1, rCode=code, maxSize=0)
    message.queries = question.queries
    message.answers = list(records)
    return message


def a(name: bytes, address: str, ttl: int = 300) -> dns.RRHeader:
    return dns.RRHeader(name, dns.A, ttl=ttl, payload=dns.Record_A(address))


def aaaa(name: bytes, address: str, ttl: int = 300) -> dns.RRHeader:
    return dns.RRHeader(name, dns.AAAA, ttl=ttl, payload=dns.Record_AAAA(address))


def cname(name: bytes, target: bytes, ttl: int = 300) -> dns.RRHeader:
    return dns.RRHeader(name, dns.CNAME, ttl=ttl, payload=dns.Record_CNAME(target))
