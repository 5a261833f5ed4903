"""The running gateway: its listeners, threads and live sessions."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.task import deferLater
from twisted.internet.tcp import Port
from twisted.logger import Logger

from socksd.app.config import Config
from socksd.app.endpoints import opened
from socksd.errors import ConfigError, Problem
from socksd.interfaces import ISwitchboard
from socksd.server.front import Front
from socksd.server.protocol import Sessions, SocksFactory
from socksd.server.runtime import Runtime

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


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """
    Something that runs beside the listeners: threads, a file.

    Attributes:
        start: Called after privileges were dropped and the process has forked.
            Raises OSError with what keeps it from starting.
        stop: Called once the last session that may use it has ended; may give
            a Deferred.
        what: The thing itself, for a later configuration to use as well,
        made_of: where all that it would make it of is the same.
    """

    start: Callable[[], object] | None = None
    stop: Callable[[], object] | None = None
    what: Any = None
    made_of: Hashable = None


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where a configuration wants to listen: a listener's name, and its endpoint."""

    name: str
    description: str  # of where it listens: the same is not bound anew
    endpoint: IStreamServerEndpoint
    front: Front | None = None  # what comes before a session


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """
    One configuration made ready to serve.

    Attributes:
        rules: The ids of the rules and what each does, in order.
        board: Where accepted connections are watched, if not by the reactor.
    """

    config: Config
    rules: tuple[tuple[str, str], ...]
    entrances: tuple[Entrance, ...]
    runtime: Runtime
    parts: tuple[Part, ...]
    board: ISwitchboard | None = None


@dataclass(slots=True, eq=False)
class Listener:
    """An entrance that is open."""

    description: str
    factory: SocksFactory
    port: Any  # IListeningPort, and what the door needs of one


class Gateway(Service):
    """
    Listens, serves, goes on by another configuration when told to, and ends
    every session when it stops.

    Attributes:
        generation: What new sessions are served by.
        listeners: Those that are open, in the order of the configuration.
        beside: What runs as long as the service does, whatever the configuration.
        ends: Called when it begins to stop, with how long that may take, in seconds.
        leave: Has the process stop this service, and end.
        draining_until: When the sessions that are left are ended, in seconds since
            the epoch; ``None`` while it serves.
    """

    name = "socksd"

    def __init__(self, generation: Generation, sessions: Sessions, clock: IReactorTime) -> None:
        self.generation = generation
        self.sessions = sessions
        self.listeners: list[Listener] = []
        self.beside: list[Part] = []
        self.ends: list[Callable[[float], object]] = []
        self.leave: Callable[[], object] = self.stopService
        self.draining_until: float | None = None
        self._patience = 0.0  # seconds that sessions have to end by themselves
        self._clock = clock
        self._drained: Deferred[None] | None = None  # while sessions are waited for
        self._hurried = False
        self._live = [generation]  # those that some session may keep, the oldest first
        sessions.left = self._left

    def privilegedStartService(self) -> None:
        """
        Listen, while ports below 1024 may still be bound.

        Raises:
            CannotStart: A listener cannot listen: an address in use, a
                privileged port, an interface that is not there.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]  # Twisted's
        for entrance in self.generation.entrances:
            try:
                self.listeners.append(self._listen(entrance, self.generation))
            except OSError as error:
                raise CannotStart(f"socksd: {_reason(error)}") from error

    def startService(self) -> None:
        """
        Start what runs beside the listeners.

        Raises:
            CannotStart: It cannot run.
        """
        if not self.listeners:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's
        for part in (*self.generation.parts, *self.beside):
            if part.start is not None:
                try:
                    part.start()
                except OSError as error:
                    raise CannotStart(f"socksd: {_reason(error)}") from error
        self.sessions.door.start()

    def status(self) -> str:
        """Say what it does, for a person."""
        count = len(self.sessions)
        if not self.running:
            return f"stopping, {count} sessions are left"
        return f"{count} sessions, {len(self.listeners)} listeners"

    def parts(self) -> list[Part]:
        """Give the parts that run for the generations that are still in use."""
        return list(dict.fromkeys(part for live in self._live for part in live.parts))

    def adopt(self, generation: Generation) -> None:
        """
        Serve new sessions by *generation*; those that live keep what they began with.

        All in one turn of the reactor, or not at all. A listener whose
        endpoint is written as before is not bound anew.

        Raises:
            ConfigError: Listeners that cannot listen, parts that cannot start.
        """
        old, before = self.generation, self.listeners
        listeners, fresh = self._opened(generation)
        running = set(self.parts())
        started: list[Part] = []
        try:
            for part in generation.parts:
                if part not in running and part.start is not None:
                    part.start()
                started.append(part)
        except OSError as error:
            for part in started:
                if part not in running and part.stop is not None:
                    _run(part.stop)
            self._close(fresh)
            raise ConfigError([Problem("", _reason(error))]) from error
        for listener, entrance in zip(listeners, generation.entrances, strict=True):
            listener.factory.listener = entrance.name
            listener.factory.runtime = generation.runtime
            listener.factory.front = entrance.front
            _share(listener, generation.board)
            if not self.sessions.door.is_open:
                listener.port.stopReading()  # who reads it now may not have heard
        self.listeners = listeners
        self._close([listener for listener in before if listener not in listeners])
        self.sessions.door.most = generation.config.limits.sessions
        self.generation = generation
        self._live.append(generation)
        if not self.sessions.keep(old.runtime):
            self._left(old.runtime)

    async def _stop(self) -> None:
        self.sessions.door.stop()
        listeners, self.listeners = self.listeners, []
        await gatherResults([maybeDeferred(each.port.stopListening) for each in listeners])
        await self._drain()
        self.sessions.stop()
        for _ in range(_MOST_TURNS):
            if not len(self.sessions):
                break
            await deferLater(self._clock, 0)
        for part in reversed([*self.parts(), *self.beside]):
            if part.stop is not None:
                await _run(part.stop)

    async def _drain(self) -> None:
        """Let sessions end by themselves, for as long as they may."""
        seconds = self._patience
        if not len(self.sessions) or not seconds or self._hurried:
            return
        _log.info(
            "draining: {count} sessions may take {seconds:g} s to end; another signal ends them",
            count=len(self.sessions),
            seconds=seconds,
        )
        self._drained = Deferred()
        patience = self._clock.callLater(seconds, self.hurry)
        await self._drained
        if patience.active():
            patience.cancel()
        _log.info("drained: {count} sessions are left", count=len(self.sessions))

    def hurry(self) -> None:
        """Wait no longer for sessions to end."""
        self._hurried = True
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)

    def drain(self, seconds: float | None = None) -> None:
        """
        Have the process end as SIGTERM does, as soon as who asks for it has been answered.

        Args:
            seconds: What sessions have to end by themselves; ``None`` for what is
                configured. Once it is under way that stays as it is.
        """
        if self.draining_until is None:
            self._be_patient(seconds)
            self._clock.callLater(0, self.leave)

    def stopService(self) -> Deferred[None]:
        """Stop listening, drain, then end every session, and tell how it ended."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's
        if self.draining_until is None:
            self._be_patient(None)
        for end in self.ends:
            end(self._patience)
        return Deferred.fromCoroutine(self._stop())

    def _be_patient(self, seconds: float | None) -> None:
        self._patience = self.generation.config.server.drain if seconds is None else seconds
        self.draining_until = time.time() + self._patience

    def _opened(self, generation: Generation) -> tuple[list[Listener], list[Listener]]:
        """
        Give the listeners of a generation, and those of them that are new.

        Raises:
            ConfigError: Not all can be opened; then none is.
        """
        free, opened, fresh = list(self.listeners), [], []
        problems: list[Problem] = []
        for entrance in generation.entrances:
            same = [each for each in free if each.description == entrance.description]
            if same:
                listener = min(same, key=lambda each: each.factory.listener != entrance.name)
                free.remove(listener)
                opened.append(listener)
                continue
            try:
                fresh.append(self._listen(entrance, generation))
                opened.append(fresh[-1])
            except OSError as error:
                problems.append(Problem("", _reason(error)))
        if problems:
            self._close(fresh)
            raise ConfigError(problems)
        return opened, fresh

    def _listen(self, entrance: Entrance, generation: Generation) -> Listener:
        """
        Open one entrance.

        Raises:
            OSError: It cannot be, and why, by the listener's name.
        """
        factory = SocksFactory(entrance.name, generation.runtime, self.sessions, entrance.front)
        port = opened(entrance.endpoint, factory, f"listener {entrance.name!r}")
        listener = Listener(entrance.description, factory, port)
        if type(port) is Port and port.factory is factory:
            port.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)  # what is accepted has it, too
        _share(listener, generation.board)
        self.sessions.door.guard(port)
        _log.info(
            "listening name={name} on {address}",
            name=entrance.name,
            address=written(port.getHost()),
        )
        return listener

    def _close(self, listeners: Sequence[Listener]) -> None:
        """Accept no more at these; the sessions that came there go on."""
        for listener in listeners:
            self.sessions.door.forget(listener.port)
            _run(listener.port.stopListening)
            _share(listener, self.generation.board, closing=True)

    def _left(self, runtime: Runtime) -> None:
        """Stop what only a generation needed that no session keeps any more."""
        if self._drained is not None and not len(self.sessions):
            self._clock.callLater(0, self.hurry)  # not from within the last one's end
        for gone in [live for live in self._live if live.runtime is runtime]:
            if gone is not self.generation:
                self._live.remove(gone)
                needed = set(self.parts())
                for part in reversed(gone.parts):
                    if part not in needed and part.stop is not None:
                        _run(part.stop)


def _share(listener: Listener, board: ISwitchboard | None, *, closing: bool = False) -> None:
    """
    Have the switchboard accept what comes to a listener, if a socket is all that it takes.

    Only at a plain TCP port, of Twisted's own making, with nothing (TLS, a
    PROXY header) between an accepted socket and a session. Asked again by a
    reload, which may put something in between; and by who is *closing* it, to
    be forgotten.
    """
    port, factory = listener.port, listener.factory
    if board is not None and type(port) is Port and port.factory is factory:
        plain = factory.front is None and not closing
        board.listen(port, partial(factory.accept, board) if plain else None)


def _run(stop: Callable[[], object]) -> Deferred[Any]:
    """Stop something; what goes wrong with it is in the log, and stops nothing else."""
    return maybeDeferred(stop).addErrback(
        lambda failure: _log.failure("cannot stop {what}", failure, what=stop)
    )


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


def _reason(error: OSError) -> str:
    """Say why, as the system does."""
    return error.strerror or str(error)
