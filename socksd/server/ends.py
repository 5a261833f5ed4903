"""The connections of a session, as their transports see them."""

from __future__ import annotations

from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.address import IPAddress, parsed
from socksd.interfaces import ICarrier, IEnd, IEndTransport


@implementer(IEnd, IHalfCloseableProtocol)
class End(Protocol):
    """
    Tells whoever carries it what arrives.

    Octets are told once; while nobody carries it they are kept, and the
    transport is paused, so that they stay what one read gives. That the peer
    has sent FIN, or is gone, is told to every new carrier.
    """

    __slots__ = ("_carrier", "_kept", "_loss", "_paused", "_read_ended", "_waiting")

    transport: IEndTransport
    bare = False

    def __init__(self) -> None:
        self._carrier: ICarrier | None = None
        self._kept = b""
        self._paused = False  # by us, and not by a carrier
        self._read_ended = False
        self._waiting = False  # octets in the transport's buffer, as far as we know
        self._loss: Failure | None = None

    def carried_by(self, carrier: ICarrier) -> None:
        """From now on tell *carrier*, beginning with what it has missed."""
        # What happens while it is being told, it hears by itself.
        octets, read_ended, loss = self._kept, self._read_ended, self._loss
        self._kept = b""
        self._carrier = carrier
        if self._paused:
            # Before the octets: what they fill may pause us again, which has to last.
            self._paused = False
            if not read_ended:  # a transport that reads on would find FIN once more
                self.transport.resumeProducing()
        if octets:
            carrier.data_received(octets)
        # The carrier may have handed us on, and the next one knows already.
        if read_ended and self._carrier is carrier:
            carrier.read_ended()
        if loss is not None and self._carrier is carrier:
            carrier.lost(loss)

    def send(self, octets: bytes) -> None:
        """
        Send, at once if the kernel takes it.

        A few octets of the dialogue always fit. Through a transport they take
        another turn of the reactor, and two epoll_ctl(2).
        """
        transport = self.transport
        if (
            not self._waiting
            and isinstance(transport, Connection)
            and transport.connected
            and not transport.TLS
        ):
            try:
                sent = transport.getHandle().send(octets)
            except OSError:  # no room, or worse: the transport will find out
                sent = 0
            if sent == len(octets):
                return
            octets = octets[sent:]
        self._waiting = True
        transport.write(octets)

    def finish_writing(self) -> None:
        """Send FIN behind what is still to be sent, and read on; with TLS, close_notify."""
        if ISSLTransport.providedBy(self.transport):
            # It closes our direction only, while a half-close of the TCP
            # connection below would cut off what is still to be encrypted.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def near(self) -> tuple[IPAddress, int]:
        """Give our own side's address and port."""
        return address_of(self.transport.getHost())

    def far(self) -> tuple[IPAddress, int]:
        """Give the other side's address and port."""
        return address_of(self.transport.getPeer())

    def abort(self) -> None:
        """Reset the connection."""
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Tell of octets, or keep them."""
        if self._carrier is not None:
            self._carrier.data_received(data)
            return
        self._kept += data
        self._paused = True
        self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        """Tell of FIN."""
        self._read_ended = True
        if self._carrier is not None:
            self._carrier.read_ended()

    def writeConnectionLost(self) -> None:
        """Our own FIN is out; who asked for it need not be told."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell of the end."""
        self._loss = reason
        if self._carrier is not None:
            self._carrier.lost(reason)


def address_of(side: IAddress) -> tuple[IPAddress, int]:
    """Give address and port of a TCP transport's side."""
    host: str = side.host  # type: ignore[attr-defined]  # IPv4Address and IPv6Address have it
    port: int = side.port  # type: ignore[attr-defined]  # and this
    return parsed(host), port
