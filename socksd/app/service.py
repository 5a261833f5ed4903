"""The running gateway: its listeners, threads and live sessions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from socksd.server.protocol import Sessions, SocksFactory

_log = Logger("socksd")

# Aborted connections are gone one turn of the reactor later; if some are not,
# the process ends all the same.
_MOST_TURNS = 100


class CannotStart(SystemExit, Exception):
    """
    The service cannot start, and says why in one line.

    An ``Exception``, so that twistd cleans up (pid file, status pipe) and
    re-raises it; a ``SystemExit``, so that the interpreter then ends with the
    line and status 1 instead of a traceback.
    """


@dataclass(frozen=True, slots=True)
class Part:
    """
    Something that runs beside the listeners: threads, a file.

    Attributes:
        start: Called after privileges were dropped and the process has forked.
        stop: Called once the last session has ended.
    """

    start: Callable[[], object] | None = None
    stop: Callable[[], object] | None = None


class Gateway(Service):
    """
    Listens, serves, and ends every session when it stops.

    Attributes:
        factories: One for each listener, with the endpoint it listens on.
    """

    name = "socksd"

    def __init__(
        self,
        factories: Sequence[tuple[SocksFactory, IStreamServerEndpoint]],
        sessions: Sessions,
        parts: Sequence[Part],
        clock: IReactorTime,
    ) -> None:
        self.factories = factories
        self.sessions = sessions
        self._parts = parts
        self._clock = clock
        self._ports: list[IListeningPort] = []

    def privilegedStartService(self) -> None:
        """
        Listen, while ports below 1024 may still be bound.

        Raises:
            CannotStart: A listener cannot listen: an address in use, a
                privileged port, an interface that is not there.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]  # Twisted's
        for factory, endpoint in self.factories:
            result: list[Any] = []
            endpoint.listen(factory).addBoth(result.append)
            if not result:
                raise CannotStart(f"socksd: listener {factory.listener!r} does not get ready")
            if isinstance(result[0], Failure):
                reason = _reason(result[0].value)
                raise CannotStart(f"socksd: listener {factory.listener!r} cannot listen: {reason}")
            port = result[0]
            self._ports.append(port)
            self.sessions.door.guard(port)
            _log.info(
                "listening name={name} on {address}",
                name=factory.listener,
                address=written(port.getHost()),
            )

    def startService(self) -> None:
        """Start what runs beside the listeners."""
        if not self._ports:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's
        for part in self._parts:
            if part.start is not None:
                part.start()
        self.sessions.door.start()

    async def _stop(self) -> None:
        self.sessions.door.stop()
        ports, self._ports = self._ports, []
        await gatherResults([maybeDeferred(port.stopListening) for port in ports])
        for session in self.sessions:
            session.stop()
        for _ in range(_MOST_TURNS):
            if not len(self.sessions):
                break
            await deferLater(self._clock, 0)
        for part in reversed(self._parts):
            if part.stop is not None:
                part.stop()

    def stopService(self) -> Deferred[None]:
        """Stop listening, then end every session, and tell how it ended."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's
        return Deferred.fromCoroutine(self._stop())


def go_by_monotonic_time(reactor: IReactorTime) -> None:
    """
    Take the reactor's delayed calls off the wall clock.

    Twisted goes by time.time(): setting the clock an hour forward would end
    every handshake and idle tunnel at once, and an hour back would leave them
    without a deadline. Only while nothing is scheduled, by the old time.
    """
    if not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic  # type: ignore[method-assign]  # an attribute, there


def written(address: IAddress) -> str:
    """Write where a port listens, for the log."""
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, UNIXAddress) and address.name is not None:
        return f"unix:{address.name.decode(errors='backslashreplace')}"
    return str(address)


def _reason(error: BaseException | None) -> str:
    """Say why a port cannot be listened on, as the system says it."""
    cause = getattr(error, "socketError", error)
    return getattr(cause, "strerror", None) or str(cause) or type(error).__name__
