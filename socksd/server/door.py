"""Stop accepting before descriptors run out; accept again when they are back."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger("socksd")

# Seconds between two looks while nobody comes or goes: the limit itself may
# be changed from outside (prlimit), and others than sessions use descriptors.
_LOOK = 0.5
_SAY = 10.0  # seconds between two lines in the log that say the same


class Listening(Protocol):
    """What the door needs of a listening port."""

    def startReading(self) -> None:
        """Accept."""

    def stopReading(self) -> None:
        """Let new connections wait in the kernel's queue."""


class Descriptors:
    """How many descriptors there are, and how many may be used for sessions."""

    def limit(self) -> int:
        """Give RLIMIT_NOFILE as it is now."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def lowest_free(self) -> int:
        """Give the number the next descriptor would get; the limit if there is none."""
        try:
            descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return self.limit()
        os.close(descriptor)
        return descriptor


class Door:
    """
    Where the listeners are shut and opened.

    The kernel gives the lowest free number to a new descriptor, so the number
    of an accepted socket tells how many are in use, whoever uses them. At the
    high-water mark the ports are no longer read: who comes waits in the
    kernel's queue, nobody is woken in vain, and live sessions keep the
    reserve for their lookups and connections.

    Attributes:
        most: Sessions at once; ``None`` for as many as descriptors allow.
        overrun: Whether connections accepted in the same turn of the reactor
            have eaten half of the reserve, so that a further one is closed.
    """

    def __init__(
        self, clock: IReactorTime, most: int | None, descriptors: Descriptors | None = None
    ) -> None:
        """
        Stand open.

        Args:
            clock: For the watch.
            most: Sessions at once; ``None`` for as many as descriptors allow.
            descriptors: What to count by.
        """
        self.most = most
        self.overrun = False
        self._clock = clock
        self._descriptors = descriptors or Descriptors()
        self._ports: list[Listening] = []
        self._limit = self._descriptors.limit()
        self._live = 0
        self._open = True
        self._said = -_SAY
        self._watch = LoopingCall(self.look)
        self._watch.clock = clock

    @property
    def is_open(self) -> bool:
        """Whether new connections are accepted."""
        return self._open

    def start(self) -> None:
        """Begin to watch."""
        self._watch.start(_LOOK)

    def stop(self) -> None:
        """Watch no more."""
        if self._watch.running:
            self._watch.stop()
        self._ports.clear()

    def guard(self, port: Listening) -> None:
        """Shut and open *port* from now on."""
        self._ports.append(port)
        if not self._open:
            port.stopReading()

    def forget(self, port: Listening) -> None:
        """Leave *port* alone, which is about to be closed."""
        self._ports.remove(port)

    def entered(self, live: int, transport: object) -> None:
        """Hear that a session has begun, the *live*-th."""
        self._live = live
        fileno: Callable[[], int] | None = getattr(transport, "fileno", None)
        self._judge(fileno() if fileno is not None else self._descriptors.lowest_free())

    def left(self, live: int) -> None:
        """Hear that a session has ended."""
        self._live = live
        if not self._open:
            self.look()

    def look(self) -> None:
        """Judge by what is free now, and what the limit is now."""
        self._limit = self._descriptors.limit()
        self._judge(self._descriptors.lowest_free())

    def _judge(self, descriptor: int) -> None:
        limit = self._limit
        reserve = min(256, limit // 4)
        full = self.most is not None and self._live >= self.most
        self.overrun = full or descriptor >= limit - reserve // 2
        if self._open:
            if full or descriptor >= limit - reserve:
                self._shut(descriptor, limit)
        # Some way below the mark, or the door would flap at every session's end.
        elif not full and descriptor < limit - reserve - reserve // 8:
            self._open = True
            for port in self._ports:
                port.startReading()

    def _shut(self, descriptor: int, limit: int) -> None:
        self._open = False
        for port in self._ports:
            port.stopReading()
        now = self._clock.seconds()
        if now - self._said >= _SAY:
            self._said = now
            _log.warn(
                "accepting no more for now: {live} sessions, {used} of {limit} descriptors",
                live=self._live,
                used=descriptor,
                limit=limit,
            )
