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
from select import EPOLLOUT
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_IP,
    TCP_NODELAY,
    SocketType,
)

from twisted.internet import error
from twisted.internet.address import IPv4Address as TCP4Address
from twisted.internet.address import IPv6Address as TCP6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.address import IPAddress, spelled
from socksd.interfaces import IActing, ISwitchboard, IWatched, SocketName

_IP_BIND_ADDRESS_NO_PORT = 24  # ip(7); Python has no name for it before 3.12


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
        board: ISwitchboard,
        address: IPAddress,
        port: int,
        source: IPAddress | None = None,
    ) -> None:
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
        to: SocketName
        if isinstance(self._address, IPv4Address):
            family, to = AF_INET, (spelled(self._address), self._port)
        else:
            family, to = AF_INET6, (str(self._address), self._port, 0, 0)
        return _Attempt(self._board, family, to, factory, self._source).connected


@implementer(IWatched, IActing)
class _Attempt:
    """One connect(2), and what it comes to."""

    __slots__ = ("_board", "_factory", "_sock", "_to", "connected")

    def __init__(
        self,
        board: ISwitchboard,
        family: int,
        to: SocketName,
        factory: IProtocolFactory,
        source: IPAddress | None,
    ) -> None:
        self.connected: Deferred[IProtocol] = Deferred(self._cancel)
        self._board = board
        self._to = to
        self._factory = factory
        try:
            self._sock = sock = SocketType(family, SOCK_STREAM | SOCK_NONBLOCK)
            if source is not None:
                _bind(sock, source)
        except OSError as none:  # EMFILE, a kernel without IPv6, or a source that is not ours
            self.connected.errback(error.ConnectBindError(none.errno, none.strerror))
            return
        # What has come in pieces is passed on in pieces: to wait for more (Nagle)
        # would add the far side's delayed ACK to each.
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        board.at_end(self)

    def act(self) -> None:
        if self.connected.called:  # cancelled
            return
        number = self._sock.connect_ex(self._to)
        if number == EINPROGRESS:
            self._board.watch(self._sock.fileno(), self)
        elif number:
            self._failed(number)
        else:
            self._connected(None)

    def hear(self, events: int) -> None:
        if events == EPOLLOUT:  # without an error or a hang-up beside it: connected
            self._connected(events)
            return
        # Asking once more tells all: 0 when it is connected, else why it is not.
        number = self._sock.connect_ex(self._to)
        if number == 0:
            self._connected(events)
        elif number != EALREADY:
            self._board.forget(self._sock.fileno())
            self._failed(number)

    def fail(self, failure: Failure) -> None:
        if not self.connected.called:
            self._sock.close()
            self.connected.errback(failure)

    def _cancel(self, connected: Deferred[IProtocol]) -> None:
        self._board.closing(self._sock.fileno())
        self._sock.close()
        connected.errback(error.ConnectingCancelledError(self._peer()))

    def _failed(self, number: int) -> None:
        """End as connect(2) has, with this errno."""
        self._sock.close()
        self.connected.errback(error.getConnectError((number, strerror(number))))

    def _connected(self, true: int | None) -> None:
        """Make what the factory makes of a socket of which so much is *true*, if it is watched."""
        bare = getattr(self._factory, "bare", None)
        if bare is not None:  # it does without a transport
            self.connected.callback(bare(self._board, self._sock, self._to, true))
            return
        peer = self._peer()
        protocol = self._factory.buildProtocol(peer)
        if protocol is None:
            if true is not None:
                self._board.forget(self._sock.fileno())
            self._sock.close()
            self.connected.errback(error.NoProtocol())
            return
        protocol.makeConnection(self._board.transport(self._sock, protocol, peer, true))
        self.connected.callback(protocol)

    def _peer(self) -> TCP4Address | TCP6Address:
        return (TCP4Address if len(self._to) == 2 else TCP6Address)("TCP", *self._to)


def _bind(sock: SocketType, source: IPAddress) -> None:
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
