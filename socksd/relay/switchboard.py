"""
Many sockets in one loop: an edge-triggered epoll, nested in the reactor's.

The reactor sees one descriptor, this epoll's own, which is readable when
something has happened to one of the sockets in it. Each is registered once and
never modified, where a transport that is paused, resumed and written to takes
an epoll_ctl(2), and the reactor's own road to a transport, for every step.
"""

from __future__ import annotations

import select
from collections import deque
from contextlib import suppress
from select import EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import Protocol

from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFDSet,
    IReactorTime,
    IReadDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.interfaces import ISwitchboard, IWatched
from socksd.relay.pipes import Pipes, affordable

_ALL = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
_EVENTS = 512  # taken off the epoll at once; the rest is there the next turn

# What bulk may move in a turn of the reactor: a millisecond or two, which is
# what a tunnel that chats waits for at most, however many streams there are.
_TURN = 8 << 20
_SHARE = 1 << 20  # of one stream, until it is another one's turn

# Seconds from one walk over all lines to the next, at least, for each line. A
# walk takes less than 0.5 us for each, so this is a thousandth of the time; of
# 10,000 lines, one that is due waits five seconds more at worst.
_PACE = 0.0005


class IReactorSwitching(IReactorFDSet, IReactorTime):
    """What the switchboard takes of the reactor."""


class Hauling(Protocol):
    """Who has more to move than a read takes."""

    def haul(self, share: int) -> int:
        """Move about *share* octets; give how many it was."""

    def fail(self, failure: Failure) -> None:
        """Hear that haul() has raised, which is a bug."""


class Timed(Protocol):
    """Who ends when nothing happens, and takes itself off the switchboard then."""

    def look(self, now: float) -> float:
        """Give the time to look again; what is due is done at once."""

    def abort(self) -> None:
        """End."""


@implementer(IReadDescriptor, ISwitchboard)
class Switchboard:
    """
    Watches sockets, gives bulk its turn, and tells the time.

    Attributes:
        now: The time of this turn. A clock read for each chunk would cost as
            much as the chunk's own bookkeeping.
        seconds: Gives the time where there is no turn.
        pipes: For splice(2).
        kept: Octets that lines hold in memory, all together.
    """

    def __init__(
        self,
        reactor: IReactorSwitching,
        clock: IReactorTime | None = None,
        pipes: Pipes | None = None,
    ) -> None:
        """
        Watch nothing yet.

        Args:
            reactor: Where it is to be a reader.
            clock: For deadlines, if not by the reactor.
            pipes: For tests.
        """
        self._reactor = reactor
        self._clock: IReactorTime = clock or reactor
        self.seconds = self._clock.seconds
        self._given = pipes
        self._watched: dict[int, IWatched] = {}
        self._lines: set[Timed] = set()
        self._look_at = 0.0
        self._looking: IDelayedCall | None = None
        self._hauls: deque[Hauling] = deque()
        self._again: IDelayedCall | None = None
        self._running = False
        self.kept = 0

    def start(self) -> None:
        """Begin; not before the process has forked, for the child would share the epoll."""
        self.pipes = self._given or Pipes(affordable())
        self._epoll = select.epoll()
        self._reactor.addReader(self)
        self._running = True
        self.now = self.seconds()

    def stop(self) -> None:
        """End what is left, and give everything back."""
        if not self._running:
            return
        self._running = False
        for line in tuple(self._lines):
            line.abort()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._reactor.removeReader(self)
        self._epoll.close()
        self.pipes.close()

    # -- sockets (ISwitchboard) ----------------------------------------------

    def watch(self, descriptor: int, watched: IWatched) -> None:
        """Tell *watched* what happens to a socket, beginning with what is true now."""
        self._epoll.register(descriptor, _ALL)
        self._watched[descriptor] = watched

    def watch_reading(self, descriptor: int, watched: IWatched) -> None:
        """Tell *watched* for as long as there is something to read."""
        self._epoll.register(descriptor, EPOLLIN)
        self._watched[descriptor] = watched

    def forget(self, descriptor: int) -> None:
        """Tell no more."""
        del self._watched[descriptor]
        with suppress(OSError):  # closed by somebody else, which takes it out as well
            self._epoll.unregister(descriptor)

    # -- what the reactor asks for (IReadDescriptor) -------------------------

    def doRead(self) -> None:
        """Take a turn: what has happened, then some bulk."""
        self.now = self.seconds()
        for descriptor, events in self._epoll.poll(0, _EVENTS):
            # Whoever came before in this turn may have had it closed, and even
            # have opened another with its number, which then hears of what is
            # not so. That is harmless: they look for themselves.
            watched = self._watched.get(descriptor)
            if watched is not None:
                try:
                    watched.hear(events)
                except Exception:  # noqa: BLE001 -- a bug ends one line, and not all of them
                    watched.fail(Failure())
        self._haul()

    def fileno(self) -> int:
        """Give the epoll's own descriptor."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """Name it in the reactor's own complaints."""
        return "switchboard"

    def connectionLost(self, reason: Failure) -> None:
        """Hear that the reactor has stopped."""
        self.stop()

    # -- bulk ----------------------------------------------------------------

    def haul(self, hauling: Hauling) -> None:
        """Let *hauling* move what it has when it is its turn."""
        self._hauls.append(hauling)

    def haul_soon(self, hauling: Hauling) -> None:
        """Let *hauling* move what it has although it is nobody's turn now."""
        self._hauls.append(hauling)
        self._go_on_soon()

    def _haul(self) -> None:
        left = _TURN
        while self._hauls and left > 0:
            hauling = self._hauls.popleft()
            try:
                left -= hauling.haul(_SHARE)
            except Exception:  # noqa: BLE001 -- as above
                hauling.fail(Failure())
        if self._hauls:
            self._go_on_soon()

    def _go_on_soon(self) -> None:
        if self._again is None:
            self._again = self._reactor.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._again = None
        self.doRead()

    # -- deadlines -----------------------------------------------------------

    def add(self, line: Timed, due: float) -> None:
        """Look at *line*, the first time when it is *due*, until it is removed."""
        self._lines.add(line)
        self.due(due)

    def remove(self, line: Timed) -> None:
        """Look at *line* no more."""
        self._lines.discard(line)
        if not self._lines and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def due(self, when: float) -> None:
        """Look not later than *when*."""
        if self._looking is None:
            self._looking = self._clock.callLater(when - self.seconds(), self._look)
        elif when < self._look_at:
            self._looking.reset(when - self.seconds())
        else:
            return
        self._look_at = when

    def _look(self) -> None:
        self._looking = None
        self.now = self.seconds()
        dues = [line.look(self.now) for line in tuple(self._lines)]
        if self._lines:
            self.due(max(min(dues), self.now + _PACE * len(self._lines)))
