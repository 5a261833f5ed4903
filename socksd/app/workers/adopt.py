"""Listening sockets that a worker shares with its parent and all others."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorSocket,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IStreamServerEndpoint)
@dataclass(frozen=True, slots=True)
class Shared:
    """A socket of the parent's, to accept from; copied when it is listened on."""

    reactor: IReactorSocket
    descriptor: int

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept from it; stopping leaves it open for the others."""
        return execute(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        with socket.socket(fileno=os.dup(self.descriptor)) as sock:
            family = sock.family
        port: Any
        if family == socket.AF_UNIX:
            port = _SharedUNIXPort._fromListeningDescriptor(self.reactor, self.descriptor, factory)  # type: ignore[no-untyped-call]  # Twisted's
            port.startListening()
        else:
            port = self.reactor.adoptStreamPort(self.descriptor, family, factory)  # type: ignore[arg-type]  # any IProtocolFactory will do
        return cast("IListeningPort", port)


class _SharedUNIXPort(unix.Port):
    """
    A unix socket that is somebody else's.

    Twisted's own, when it adopts one, opens it to everybody (mode 666), makes its
    queue shorter, and removes the file in the end.
    """

    factory: Any
    _preexistingSocket: Any
    _shouldShutdown = False

    def startListening(self) -> None:
        """Accept, and that is all."""
        shared, self._preexistingSocket = self._preexistingSocket, None
        self.socket = shared
        self.fileno = shared.fileno  # type: ignore[method-assign]  # as Twisted does
        self.factory.doStart()
        self.connected = True
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]  # Twisted's

    def connectionLost(self, reason: Failure) -> None:
        """Leave the socket, and its file, to whose they are."""
        tcp.Port.connectionLost(self, reason)
