"""
Connections that are made beside the reactor, on a switchboard.

Twisted's own way makes a connector, a transport that the reactor watches from
connect(2) on, and two more trips through the reactor, whoever carries the
connection afterwards. A relay of its own has no use for any of that.
"""

from __future__ import annotations

from errno import EALREADY, EINPROGRESS
from ipaddress import IPv4Address
from os import strerror
from socket import AF_INET, AF_INET6, SOCK_NONBLOCK, SOCK_STREAM, SOL_IP, socket

from twisted.internet import error
from twisted.internet.address import IPv4Address as TCP4Address
from twisted.internet.address import IPv6Address as TCP6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorFDSet,
    IStreamClientEndpoint,
)
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.address import IPAddress
from socksd.interfaces import ISwitchboard, IWatched

TCPAddress = TCP4Address | TCP6Address

_IP_BIND_ADDRESS_NO_PORT = 24  # ip(7); Python has no name for it before 3.12


class Dialled(Connection):
    """
    A transport that the reactor does not know of until somebody has it read or write.

    So whoever takes its socket over at once, as a relay does, takes it from
    nobody. In all else it is what Twisted's own are.
    """

    logstr = "Dialled"

    def __init__(
        self, sock: socket, protocol: IProtocol, reactor: IReactorFDSet, peer: TCPAddress
    ) -> None:
        super().__init__(sock, protocol, reactor)
        self._peer = peer
        self._told = False  # whether to read
        self.connected = 1

    def begin(self) -> None:
        """Read, as a transport does, unless somebody has said already whether to."""
        if not self._told:
            self.startReading()

    def startReading(self) -> None:
        """Hear what arrives."""
        self._told = True
        super().startReading()  # type: ignore[no-untyped-call]  # Twisted's

    def stopReading(self) -> None:
        """Hear no more."""
        self._told = True
        super().stopReading()  # type: ignore[no-untyped-call]  # Twisted's

    def getPeer(self) -> TCPAddress:
        """Give the address that was dialled."""
        return self._peer

    def getHost(self) -> TCPAddress:
        """Give our own side's address."""
        return type(self._peer)("TCP", *self.socket.getsockname())


@implementer(IStreamClientEndpoint)
class DialEndpoint:
    """
    Connects to an address, and to no other: nothing is looked up.

    It has no deadline but the operating system's, which is minutes: the race
    has one for all its endpoints.

    Args:
        source: From which address of this host's; ``None``: as the system likes.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        board: ISwitchboard,
        address: IPAddress,
        port: int,
        source: IPAddress | None = None,
    ) -> None:
        self._reactor = reactor
        self._board = board
        self._address = address
        self._port = port
        self._source = source

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect.

        Fails with a ConnectError that has the errno, with NoProtocol, or with
        ConnectingCancelledError.
        """
        ipv4 = isinstance(self._address, IPv4Address)
        peer = (TCP4Address if ipv4 else TCP6Address)("TCP", str(self._address), self._port)
        attempt = _Attempt(self._reactor, self._board, peer, factory)
        attempt.begin(AF_INET if ipv4 else AF_INET6, self._source)
        return attempt.connected


@implementer(IWatched)
class _Attempt:
    """One connect(2), and what it comes to."""

    def __init__(
        self,
        reactor: IReactorFDSet,
        board: ISwitchboard,
        peer: TCPAddress,
        factory: IProtocolFactory,
    ) -> None:
        self.connected: Deferred[IProtocol] = Deferred(self._cancel)
        self._reactor = reactor
        self._board = board
        self._peer = peer
        self._factory = factory
        self._to = (peer.host, peer.port)

    def begin(self, family: int, source: IPAddress | None) -> None:
        try:
            self._sock = socket(family, SOCK_STREAM | SOCK_NONBLOCK)
            if source is not None:
                _bind(self._sock, source)
        except OSError as none:  # EMFILE, a kernel without IPv6, or a source that is not ours
            self.connected.errback(error.ConnectBindError(none.errno, none.strerror))
            return
        number = self._sock.connect_ex(self._to)
        if number == EINPROGRESS:
            self._board.watch(self._sock.fileno(), self)
        else:
            self._settle(number)

    def hear(self, events: int) -> None:
        # Asking once more tells all: 0 when it is connected, EALREADY when it
        # was not about us (a descriptor of the same number, closed a moment
        # ago), else why it is not.
        number = self._sock.connect_ex(self._to)
        if number != EALREADY:
            self._board.forget(self._sock.fileno())
            self._settle(number)

    def fail(self, failure: Failure) -> None:
        if not self.connected.called:
            self._sock.close()
            self.connected.errback(failure)

    def _cancel(self, connected: Deferred[IProtocol]) -> None:
        self._board.forget(self._sock.fileno())
        self._sock.close()
        connected.errback(error.ConnectingCancelledError(self._peer))

    def _settle(self, number: int) -> None:
        """End as connect(2) has, with this errno."""
        if number:
            self._sock.close()
            self.connected.errback(error.getConnectError((number, strerror(number))))
            return
        protocol = self._factory.buildProtocol(self._peer)
        if protocol is None:
            self._sock.close()
            self.connected.errback(error.NoProtocol())
            return
        transport = Dialled(self._sock, protocol, self._reactor, self._peer)
        protocol.makeConnection(transport)
        self.connected.callback(protocol)
        transport.begin()


def _bind(sock: socket, source: IPAddress) -> None:
    """
    Bind a socket to an address; raises OSError, and then it is closed.

    Its port is left to connect(2), which takes any that is free for that
    destination: taken now it would have to be free for all of them.
    """
    try:
        sock.setsockopt(SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((str(source), 0))
    except OSError:
        sock.close()
        raise
