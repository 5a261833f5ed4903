"""A transport whose socket the switchboard watches, instead of the reactor."""

from __future__ import annotations

import struct
from contextlib import suppress
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from socket import SO_LINGER, SOL_SOCKET, SocketType
from typing import TYPE_CHECKING

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.interfaces import IEndTransport, IWatched, SocketName

if TYPE_CHECKING:
    from socksd.relay.switchboard import Switchboard

TCPAddress = IPv4Address | IPv6Address

HUNG = EPOLLRDHUP | EPOLLHUP | EPOLLERR
READABLE = EPOLLIN | HUNG

_RESET = struct.pack("ii", 1, 0)  # close(2) throws away what is not sent, and resets

_DONE = Failure(CONNECTION_DONE)
_LOST = Failure(CONNECTION_LOST)


@implementer(IEndTransport, IWatched)
class Switched(Connection):
    """
    A transport as Twisted's own, for a fraction of what one costs.

    The reactor knows nothing of it: it is told by the switchboard once what
    has become true, and keeps that in mind for as long as it is. So reading,
    not reading and writing are no system calls, and a relay takes the socket
    over by a word.

    Attributes:
        true: What is true of the socket as far as we know, in the bits of
            epoll(7). What is not: there is nothing to read, no room to write.
    """

    logstr = "Switched"

    def __init__(
        self,
        board: Switchboard,
        sock: SocketType,
        protocol: IProtocol,
        peer: TCPAddress | SocketName,
        true: int | None = None,
    ) -> None:
        """
        Begin to read, from the next event on.

        Args:
            board: Watches the socket.
            sock: Connected, and not blocking.
            protocol: Makes its connection itself, later.
            peer: The other side's address, or what the socket module calls it.
            true: What is known of a socket that *board* watches already;
                ``None`` for one that it does not.
        """
        FileDescriptor.__init__(self, board.reactor)
        self.socket = sock  # type: ignore[assignment]  # all that Twisted does with it, it can do
        self.fileno = sock.fileno
        self.protocol = protocol
        self.connected = 1
        self._board = board
        self._peer = peer
        self._descriptor = sock.fileno()
        self._reading = True
        self._writing = False
        self._unheard = False  # nobody reads what we write: to be told behind what is unread
        self.true = true or 0
        if true is None:
            board.watch(self._descriptor, self)
        else:
            board.hand_over(self._descriptor, self)
            if true & READABLE:  # which will not be told again
                board.soon(self)

    def getPeer(self) -> TCPAddress:
        """Give the other side's address."""
        return address_of(self._peer) if isinstance(self._peer, tuple) else self._peer

    def getHost(self) -> TCPAddress:
        """Give our own side's address."""
        return address_of(self.socket.getsockname())

    # -- what a transport asks of its reactor --------------------------------

    def startReading(self) -> None:
        """Hear what arrives, and what has arrived."""
        if not self._reading:
            self._reading = True
            if self.true & READABLE:
                self._board.soon(self)

    def stopReading(self) -> None:
        """Hear no more."""
        self._reading = False

    def startWriting(self) -> None:
        """Write when there is room."""
        if not self._writing and not self._unheard:
            self._writing = True
            if self.true & EPOLLOUT:
                self._board.soon(self)

    def stopWriting(self) -> None:
        """Write no more."""
        self._writing = False

    # -- what the switchboard tells (IWatched) -------------------------------

    def hear(self, events: int) -> None:
        """Read once and write once, where that is wanted and possible."""
        self.true |= events
        if self._reading and self.true & READABLE:
            why = self.doRead()
            if why is not None:
                # What waits to be written still goes: the other side may read on.
                self._ended(CONNECTION_LOST if self._unheard else why, reading=True)
        if self._writing and self.true & EPOLLOUT:
            why = self.doWrite()  # type: ignore[no-untyped-call]  # Twisted's
            if why is not None and self._reading and self.true & READABLE:
                # Who has sent all and closed answers what we send by a reset, before
                # we have read it all: TLS does so, to close_notify. It comes first.
                self._writing, self._unheard = False, True
            elif why is not None:
                self._ended(why, reading=False)
            elif self._writing and self.true & EPOLLOUT:
                self._board.soon(self)

    def fail(self, failure: Failure) -> None:
        """Lose a connection whose protocol has raised, as the reactor does."""
        log.err(failure)
        self.connectionLost(failure)

    def doRead(self) -> ConnectionDone | ConnectionLost | None:  # type: ignore[override]  # Twisted's has no type
        """Read what one read takes; give why nothing more will come, if so."""
        try:
            octets = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            self.true &= ~READABLE
            return None
        except OSError:
            return CONNECTION_LOST
        if not octets:
            return CONNECTION_DONE
        # First, for who is told may have the socket taken over. What has hung
        # up tells of it once, and FIN may be what comes next.
        if len(octets) < self.bufferSize and not self.true & HUNG:
            self.true &= ~EPOLLIN
        else:
            self._board.soon(self)
        self.protocol.dataReceived(octets)
        return None

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        """Send, and note when there is no more room."""
        sent = super().writeSomeData(data)
        if isinstance(sent, int) and sent < min(len(data), self.SEND_LIMIT):
            self.true &= ~EPOLLOUT
        return sent

    # -- the end -------------------------------------------------------------

    def taken_over(self, by: IWatched) -> int:
        """Have another hear of the socket from now on; give what is true of it."""
        self._reading = self._writing = False
        self._board.hand_over(self._descriptor, by)
        return self.true

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket, and tell the protocol; the first time."""
        if self.disconnected:
            return
        self.connected, self.disconnected = 0, 1
        self._reading = self._writing = False
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        if reason.type is ConnectionAborted:
            with suppress(OSError):  # it is not connected any more
                self.socket.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
        self._board.closing(self._descriptor)
        self.socket.close()
        protocol = self.protocol
        del self.protocol, self.socket, self.fileno  # as Twisted's own do: they are cycles
        protocol.connectionLost(reason)

    def _ended(self, why: BaseException, *, reading: bool) -> None:
        """End as the reactor ends a transport that has nothing more to read, or cannot write."""
        self._reading = False
        if reading and why is CONNECTION_DONE:
            self.readConnectionLost(_DONE)
        else:
            self.connectionLost(_DONE if why is CONNECTION_DONE else _LOST)


def address_of(name: SocketName) -> TCPAddress:
    """Make Twisted's address of one as the socket module has it."""
    return (IPv4Address if len(name) == 2 else IPv6Address)("TCP", *name)
