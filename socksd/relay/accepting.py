"""A listening port on the switchboard: what comes is accepted in its loop."""

from __future__ import annotations

from collections.abc import Callable
from socket import SOCK_STREAM, SocketType
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.tcp import Port
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.interfaces import IWatched, SocketName

if TYPE_CHECKING:
    from socksd.relay.switchboard import Switchboard

Accept = Callable[[SocketType, SocketName], object]

# In one turn; then it is the turn of those that are there already.
_MOST = 64


@implementer(IWatched)
class Accepting:
    """
    Accepts what comes to a port of Twisted's, which stays what is closed, shut and opened.

    The reactor's own road makes an address, a protocol and a transport of each
    connection, which most sessions do without.
    """

    __slots__ = ("_accept", "_board", "_port", "_reads")

    def __init__(self, board: Switchboard, port: Port, accept: Accept) -> None:
        """Do nothing before begin(); until then the reactor does not accept either."""
        self._board = board
        self._port = port
        self._accept = accept
        self._reads = False
        port.stopReading()

    def begin(self) -> None:
        """Accept, and have the port's own word decide from now on whether we do."""
        port = self._port
        port.startReading = self.start  # type: ignore[method-assign]  # its one seam
        port.stopReading = self.stop  # type: ignore[method-assign]  # and the other
        self.start()

    def give_back(self) -> None:
        """Leave the port to the reactor, if it is still open."""
        reads = self._reads
        self.stop()
        for name in ("startReading", "stopReading"):
            vars(self._port).pop(name, None)
        if reads:
            self._port.startReading()

    def start(self) -> None:
        """Accept what comes."""
        if not self._reads:
            self._reads = True
            self._board.watch_reading(self._port.fileno(), self)

    def stop(self) -> None:
        """Leave what comes in the kernel's queue."""
        if self._reads:
            self._reads = False
            self._board.forget(self._port.fileno())

    def hear(self, events: int) -> None:
        """Accept what has come."""
        # Not accept(): that asks the socket three more questions, and makes an object
        # whose close() is two calls of Python more.
        accept = cast("Any", self._port.socket)._accept
        family = self._port.addressFamily
        for _ in range(_MOST):
            if not self._reads:  # shut by what was accepted before
                return
            try:
                descriptor, name = accept()
            except BlockingIOError:
                return
            except OSError:  # one that has gone already, or there are no more descriptors
                self._port.doRead()  # which knows what to do
                return
            sock = SocketType(family, SOCK_STREAM, 0, descriptor)
            sock.setblocking(False)
            self._accept(sock, name)

    def fail(self, failure: Failure) -> None:
        """Say so of a bug, and go on: the next one may fare better."""
        log.err(failure)
