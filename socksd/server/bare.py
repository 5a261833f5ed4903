"""
An end that is only a socket, for as long as that will do.

A transport is for what has to wait: octets that the kernel does not take, a
pause, a close in order. The usual session needs none of it, from the first
octet to the last: it reads twice, answers twice, and hands both its sockets to
a relay. Whatever else happens is left to a transport, made on the spot.
"""

from __future__ import annotations

from contextlib import suppress
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLRDHUP
from socket import SO_LINGER, SOL_SOCKET, SocketType
from struct import pack
from typing import cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted
from twisted.internet.main import CONNECTION_LOST
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.address import IPAddress, parsed
from socksd.interfaces import (
    IActing,
    IBareEnd,
    ICarrier,
    IEndTransport,
    ISwitchboard,
    IWatched,
    SocketName,
)
from socksd.server.ends import End

_HUNG = EPOLLRDHUP | EPOLLHUP | EPOLLERR
_READABLE = EPOLLIN | _HUNG
_READ = 4096  # octets; any greeting and request, and most of what is sent ahead
_RESET = pack("ii", 1, 0)  # close(2) throws away what is not sent, and resets


@implementer(IBareEnd, IWatched, IActing)
class BareEnd(End):
    """
    An end whose socket the switchboard watches.

    Attributes:
        bare: See :class:`~socksd.interfaces.IEnd`.
    """

    __slots__ = ("_board", "_descriptor", "_made", "_name", "_sock", "_true", "_unsent", "bare")

    def __init__(
        self, board: ISwitchboard, sock: SocketType, name: SocketName, true: int | None = None
    ) -> None:
        """
        Begin to read, from the next event on.

        Args:
            board: Watches the socket.
            sock: Connected, and not blocking.
            name: Of the other side.
            true: What is known of a socket that *board* watches already;
                ``None`` for one that it does not.
        """
        super().__init__()
        self.bare = True
        self._board = board
        self._sock = sock
        self._descriptor = sock.fileno()
        self._name = name
        self._unsent = b""
        self._made: IEndTransport | None = None
        if true is None:
            self._true = 0
            board.watch(self._descriptor, self)
            return
        self._true = true
        board.hand_over(self._descriptor, self)
        if true & _READABLE:  # which will not be told again
            board.soon(self)

    @property
    def transport(self) -> IEndTransport:  # type: ignore[override]  # an attribute, elsewhere
        """The transport, made when it is first asked for; a relay loses the socket to it."""
        if self._made is None:
            if self._loss is not None:
                raise RuntimeError("the connection is gone")
            self.bare = False
            kind = IPv4Address if len(self._name) == 2 else IPv6Address
            peer = kind("TCP", *self._name)
            self._made = self._board.transport(self._sock, self, peer, self._true)
            if self._read_ended:  # it would find FIN once more
                self._made.stopReading()  # type: ignore[attr-defined]  # any descriptor has it
            unsent, self._unsent = self._unsent, b""
            if unsent:
                self._waiting = True
                self._made.write(unsent)
        return self._made

    def fileno(self) -> int:
        """Give the socket's descriptor."""
        return self._descriptor

    def near(self) -> tuple[IPAddress, int]:
        """Give our own side's address and port."""
        host, port, *_ = self._sock.getsockname()
        return parsed(host), port

    def far(self) -> tuple[IPAddress, int]:
        """Give the other side's address and port."""
        return parsed(self._name[0]), self._name[1]

    def send(self, octets: bytes) -> None:
        """Send at the end of the turn."""
        if self.bare:
            self._unsent += octets
            self._board.at_end(self)
        else:
            super().send(octets)

    def abort(self) -> None:
        """Reset the connection, if there still is one."""
        if self._loss is None:
            super().abort()

    # -- at the end of a turn (IActing) ---------------------------------------

    def act(self) -> None:
        """Send, or close."""
        if self._loss is not None:
            self._sock.close()
        elif self.bare and self._unsent:
            try:
                sent = self._sock.send(self._unsent)
            except OSError:  # no room, or worse: the transport will find out
                sent = 0
            unsent, self._unsent = self._unsent[sent:], b""
            if unsent:
                super().send(unsent)

    # -- a relay (IBareEnd) --------------------------------------------------

    def taken_over(self, by: ICarrier) -> tuple[SocketType, int, bytes]:
        """Tell *by*, and nobody else, what happens to the socket."""
        self.bare = False
        self._carrier = by
        self._board.hand_over(self._descriptor, by)  # type: ignore[arg-type]  # it is both
        unsent, self._unsent = self._unsent, b""
        return self._sock, self._true, unsent

    def hang_up(self, reason: Failure) -> None:
        """Close a socket that was taken over."""
        if reason.type is ConnectionAborted:
            with suppress(OSError):  # it is not connected any more
                self._sock.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
        self._loss = reason
        self._board.closing(self._descriptor)
        self._board.at_end(self)

    # -- what the switchboard tells (IWatched) -------------------------------

    def hear(self, events: int) -> None:
        """Read once, if there may be something to read."""
        if not self.bare:
            if self._made is not None:  # it was to hear soon, and its transport is to
                cast("IWatched", self._made).hear(events)
            return
        self._true |= events
        if self._read_ended or not self._true & _READABLE:
            return
        try:
            octets = self._sock.recv(_READ)
        except BlockingIOError:
            self._true &= ~_READABLE
            return
        except OSError:
            self.lose(Failure(CONNECTION_LOST))
            return
        if not octets:
            self.readConnectionLost()
            return
        # What has hung up tells of it once, and FIN may be what comes next.
        if len(octets) < _READ and not self._true & _HUNG:
            self._true &= ~EPOLLIN
        else:
            self._board.soon(self)
        carrier = self._carrier
        if carrier is not None:
            carrier.data_received(octets)
        else:
            self.dataReceived(octets)  # which pauses

    def fail(self, failure: Failure) -> None:
        """Lose a connection whose carrier has raised, as the reactor does."""
        log.err(failure)
        if self._loss is None:
            self.lose(failure)

    def lose(self, reason: Failure) -> None:
        """Lose the connection, and tell of it."""
        self.transport.connectionLost(reason)  # type: ignore[attr-defined]  # see stopReading()
