"""Sockets of our own on any reactor, where there is no switchboard."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.interfaces import IWatched

_READABLE = 1  # EPOLLIN; not every system's select module knows it by name


class Readers:
    """Has a reactor watch sockets, as its own."""

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._readers: dict[int, _Reader] = {}

    def watch_reading(self, descriptor: int, watched: IWatched) -> None:
        """Tell *watched* for as long as there is something to read."""
        reader = self._readers[descriptor] = _Reader(descriptor, watched)
        self._reactor.addReader(reader)

    def forget(self, descriptor: int) -> None:
        """Tell no more."""
        self._reactor.removeReader(self._readers.pop(descriptor))


@implementer(IReadDescriptor)
class _Reader:
    """One socket, as the reactor sees it."""

    def __init__(self, descriptor: int, watched: IWatched) -> None:
        self._descriptor = descriptor
        self._watched = watched

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        try:
            self._watched.hear(_READABLE)
        except Exception:  # noqa: BLE001 -- the reactor would log it, and end nothing but its part
            self._watched.fail(Failure())

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the reactor has stopped, and the session hears of it by its own socket."""

    def logPrefix(self) -> str:
        return "datagrams"
