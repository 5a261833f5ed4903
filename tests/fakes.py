"""
Stand-ins that can fail a test.

Twisted's StringTransport never pauses its producer and has no half-close;
these do, so that a session that forgets either is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPullProducer,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.events import Event
from socksd.interfaces import IRelay

E = TypeVar("E")


@implementer(ITCPTransport, IConsumer, IPushProducer)
class FakeTransport:
    """
    A TCP transport whose far side is the test.

    Everything happens at once, where a real one would wait for the reactor.

    Attributes:
        sent: What the far side can read.
        buffered: What waits because the far side is not reading.
        producing: Whether our protocol wants to hear more.
        fin: Whether the far side has seen our FIN.
        gone: ``None`` while connected, else "closed" or "reset".
    """

    def __init__(
        self,
        protocol: IProtocol,
        peer: IAddress | None = None,
        host: IAddress | None = None,
        limit: int = 65536,
    ) -> None:
        self.protocol = protocol
        self.peer = peer or IPv4Address("TCP", "127.0.0.1", 40000)
        self.host = host or IPv4Address("TCP", "127.0.0.1", 1080)
        self.limit = limit
        self.sent = bytearray()
        self.buffered = bytearray()
        self.reading = True
        self.producing = True
        self.fin = False
        self.gone: str | None = None
        self.producer: Any = None
        self.paused_producer = False
        self.keepalive = False
        self._closing = False
        self._half_closing = False
        self._read_ended = False
        protocol.makeConnection(self)

    # -- the far side, played by the test ------------------------------------

    def receive(self, octets: bytes) -> None:
        """The far side has sent something; it arrives only while we are reading."""
        assert self.gone is None, "sent on a connection that is gone"
        assert self.producing, "arrived while paused"
        self.protocol.dataReceived(octets)

    def receive_fin(self) -> None:
        """The far side will send no more."""
        assert self.gone is None, "sent on a connection that is gone"
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self._read_ended = True
            self.protocol.readConnectionLost()
        else:
            self._lose(ConnectionDone(), "closed")

    def receive_reset(self) -> None:
        """The far side has reset the connection."""
        self._lose(ConnectionLost(), "reset")

    def receive_close(self) -> None:
        """The far side has closed in order without FIN before, as TLS does."""
        self._lose(ConnectionDone(), "closed")

    def stop_reading(self) -> None:
        """The far side reads no more; what we write waits here."""
        self.reading = False

    def start_reading(self) -> None:
        """The far side reads again."""
        self.reading = True
        self._flush()

    # -- ITCPTransport -------------------------------------------------------

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes), "transports take bytes"
        if self.gone or self._half_closing:
            return
        self.buffered += data
        if self.reading:
            self._flush()
        elif len(self.buffered) > self.limit and self.producer:
            self.paused_producer = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Sequence[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self._closing = True
        self.producing = False
        self._finish()

    def loseWriteConnection(self) -> None:
        self._half_closing = True
        self._finish()

    def abortConnection(self) -> None:
        if self.gone is None:
            self._lose(ConnectionAborted(), "reset")

    def registerProducer(self, producer: IPushProducer | IPullProducer, streaming: bool) -> None:
        assert self.producer is None, "two producers for one transport"
        assert streaming, "our producers push"
        if self.gone:
            producer.stopProducing()
        else:
            self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None
        self.paused_producer = False
        self._finish()

    def pauseProducing(self) -> None:
        self.producing = False

    def resumeProducing(self) -> None:
        if self.gone or self._closing:
            return
        self.producing = True
        if self._read_ended:  # FIN is still there to be read
            self.protocol.readConnectionLost()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IAddress:
        return self.peer

    def getHost(self) -> IAddress:
        return self.host

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def getTcpKeepAlive(self) -> bool:
        return self.keepalive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.keepalive = enabled

    # -- inside --------------------------------------------------------------

    def _flush(self) -> None:
        self.sent += self.buffered
        self.buffered.clear()
        if self.paused_producer and self.producer:
            self.paused_producer = False
            self.producer.resumeProducing()
        self._finish()

    def _finish(self) -> None:
        """Close once everything is out and no producer has more, as Twisted does."""
        if self.gone or self.buffered or self.producer:
            return
        if self._half_closing and not self.fin:
            self.fin = True
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.writeConnectionLost()
        if self._closing and not self.gone:
            self._lose(ConnectionDone(), "closed")

    def _lose(self, reason: Exception, how: str) -> None:
        if self.gone is None:
            self.gone = how
            self.producing = False
            if self.producer:
                self.producer.stopProducing()
                self.producer = None
            self.protocol.connectionLost(Failure(reason))


class Recorder:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


def ended(relay: IRelay, early: bytes = b"") -> Deferred[Any]:
    """Join what *relay* is to join; fires when it has ended."""
    heard: Deferred[Any] = Deferred()
    relay.join(early, heard.callback)
    return heard


def outcome(deferred: Deferred[Any]) -> Any:
    """Give the result of a Deferred that has fired; a failure raises."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "the Deferred has not fired"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]
