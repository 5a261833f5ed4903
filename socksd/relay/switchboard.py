"""
Many sockets in one loop: an edge-triggered epoll beside the reactor's.

Each socket is registered once and never modified, where a transport that is
paused, resumed and written to takes an epoll_ctl(2), and the reactor's own
road to a transport, for every step.

A turn has two halves. First all that has happened is heard, and what has come
is read; then all that there is to send is sent, and connected, and closed. Done
one by one, each would wake who waits for it, who would have gone to sleep again
when the next one comes.

Somebody has to wait for both epolls. Where the reactor has one, its descriptor
is put into ours, and it is ours that is waited for; the reactor's turns, its
delayed calls and its threads stay as they are. Where it has none, ours is the
nested one: a reader of the reactor, readable when something has happened.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from select import EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from socket import SocketType
from typing import Protocol

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IReactorFDSet,
    IReactorTime,
    IReadDescriptor,
)
from twisted.internet.tcp import Port
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.interfaces import IActing, ISwitchboard, IWatched, SocketName
from socksd.relay.accepting import Accept, Accepting
from socksd.relay.pipes import Pipes, affordable
from socksd.relay.polling import Polling
from socksd.relay.switched import Switched, TCPAddress

_ALL = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
# Taken off the epoll at once; the rest is there the next turn. What is heard first waits
# until all was heard: of steps of sessions, 50 us each, three milliseconds.
_EVENTS = 64

# What bulk may move in a turn of the reactor: a millisecond or two, which is
# what a tunnel that chats waits for at most, however many streams there are.
_TURN = 8 << 20
_SHARE = 1 << 20  # of one stream, until it is another one's turn

# What bulk may leave in the kernel to be sent, all together, once there are more
# streams than _FEW: so much is in a cache yet when it is read. The kernel would
# take 4 MiB of each, and with 64 streams GB/s were 0.78 of what they are. For
# a few it costs more wake-ups than it gains, and so it does below _UNSENT each.
_ALL_UNSENT, _UNSENT = 16 << 20, 128 << 10
_FEW = 8
_FADE = 63 / 64  # how much of a turn with many is remembered in the next

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
        reactor: Whose events come to pass while we wait.
        at_end: See :class:`~socksd.interfaces.ISwitchboard`.
        now: The time of this turn. A clock read for each chunk would cost as
            much as the chunk's own bookkeeping.
        seconds: Gives the time where there is no turn.
        pipes: For splice(2).
        kept: Octets that lines hold in memory, all together.
        alone: Nothing else has happened in this turn: nobody else will be woken.
        unsent: Octets that bulk may leave unsent in a socket; 0 is up to the kernel.
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
        self.reactor = reactor
        self._clock: IReactorTime = clock or reactor
        self.seconds = self._clock.seconds
        self._given = pipes
        self._watched: dict[int, IWatched] = {}
        self._ports: dict[Port, Accepting] = {}
        self._lines: set[Timed] = set()
        self._look_at = 0.0
        self._looking: IDelayedCall | None = None
        self._hauls: deque[Hauling] = deque()
        self._again: IDelayedCall | None = None
        self._running = False
        self._behind: int | None = None  # the reactor's epoll, if it is in ours
        self._acting: list[IActing] = []
        self.at_end: Callable[[IActing], None] = self._at_end_of_another
        self._soon: dict[IWatched, None] = {}  # in order, and each once
        self._fresh: set[int] = set()  # watched since the last look at the epoll
        self.kept = 0
        self.alone = False
        self.unsent = 0
        self._streams = 0.0  # how many move bulk lately
        self._hauled = False  # in the last turn

    def start(self) -> None:
        """Begin; not before the process has forked, for the child would share the epoll."""
        self.pipes = self._given or Pipes(affordable())
        self._epoll = select.epoll()
        self._polling = Polling(self._epoll, _EVENTS)
        # Another switchboard, in tests, may be in front of the reactor already.
        if isinstance(self.reactor, EPollReactor) and "doIteration" not in vars(self.reactor):
            self._behind = self.reactor._poller.fileno()
            self._epoll.register(self._behind, EPOLLIN)
            self._iterate = self.reactor.doIteration
            self.reactor.doIteration = self._turn  # type: ignore[method-assign]  # its one seam
        else:
            self.reactor.addReader(self)
        self._running = True
        self.now = self.seconds()
        for listening in self._ports.values():
            listening.begin()

    def stop(self) -> None:
        """End what is left, and give everything back."""
        if not self._running:
            return
        self._running = False
        for port in tuple(self._ports):
            self.listen(port, None)
        for line in tuple(self._lines):
            line.abort()
        self._act()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._behind is not None:
            del self.reactor.doIteration  # type: ignore[attr-defined]  # ours, so the class's shows again
        else:
            self.reactor.removeReader(self)
        self._epoll.close()
        self.pipes.close()

    # -- sockets (ISwitchboard) ----------------------------------------------

    def watch(self, descriptor: int, watched: IWatched) -> None:
        """Tell *watched* what happens to a socket, beginning with what is true now."""
        self._epoll.register(descriptor, _ALL)
        self._watched[descriptor] = watched
        self._fresh.add(descriptor)

    def hand_over(self, descriptor: int, watched: IWatched) -> None:
        """Tell another from now on; what it has missed it has to be told by who was before."""
        self._watched[descriptor] = watched

    def watch_reading(self, descriptor: int, watched: IWatched) -> None:
        """Tell *watched* for as long as there is something to read."""
        self._epoll.register(descriptor, EPOLLIN)
        self._watched[descriptor] = watched
        self._fresh.add(descriptor)

    def forget(self, descriptor: int) -> None:
        """Tell no more."""
        del self._watched[descriptor]
        with suppress(OSError):  # closed by somebody else, which takes it out as well
            self._epoll.unregister(descriptor)

    def closing(self, descriptor: int) -> None:
        """Tell no more of a socket that is about to be closed, which takes it out by itself."""
        self._watched.pop(descriptor, None)

    def soon(self, watched: IWatched) -> None:
        """Have *watched* hear in the next turn, though nothing new may have happened."""
        self._soon[watched] = None
        self._go_on_soon()

    def _at_end_of_another(self, acting: IActing) -> None:
        """Have *acting* act at the end of a turn that begins at once: it is nobody's now."""
        if not self._running:
            acting.act()
            return
        self._acting.append(acting)
        self._go_on_soon()

    def transport(
        self,
        sock: SocketType,
        protocol: IProtocol,
        peer: TCPAddress | SocketName,
        true: int | None = None,
    ) -> Switched:
        """Make the transport of a connected socket; see :class:`Switched`."""
        return Switched(self, sock, protocol, peer, true)

    # -- listening ports (ISwitchboard) --------------------------------------

    def listen(self, port: Port, accept: Accept | None) -> None:
        """Accept what comes to *port*, as long as it reads; see :class:`ISwitchboard`."""
        if accept is None:
            if port in self._ports:
                self._ports.pop(port).give_back()
        elif port not in self._ports:
            self._ports[port] = Accepting(self, port, accept)
            if self._running:
                self._ports[port].begin()

    # -- what the reactor asks for (IReadDescriptor) -------------------------

    def doRead(self) -> None:
        """Take a turn, as the reactor's reader."""
        self._turn(0)

    def fileno(self) -> int:
        """Give the epoll's own descriptor."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """Name it in the reactor's own complaints."""
        return "switchboard"

    def connectionLost(self, reason: Failure) -> None:
        """Hear that the reactor has stopped."""
        self.stop()

    # -- a turn --------------------------------------------------------------

    def _turn(self, delay: float | None) -> None:
        """Wait for *delay* seconds at most; then what has happened, and some bulk."""
        if self._soon or self._hauls or self._acting:
            delay = 0
        happened = self._polling.wait(delay, bulk=self._hauled)
        self._hauled = False
        self.at_end = self._acting.append  # ten times a session: it has to be a quick one
        self.now = self.seconds()
        self.alone = len(happened) < 2
        self._fresh.clear()
        soon: Iterable[IWatched] = ()
        if self._soon:
            soon, self._soon = self._soon, {}
        for descriptor, events in happened:
            # Whoever came before in this turn may have had it closed, and even
            # have opened another with its number, which this is not about.
            watched = self._watched.get(descriptor)
            if watched is not None and descriptor not in self._fresh:
                try:
                    watched.hear(events)
                except Exception:  # noqa: BLE001 -- a bug ends one connection, and not all of them
                    watched.fail(Failure())
            elif descriptor == self._behind:
                self._iterate(0)  # type: ignore[no-untyped-call]  # Twisted's
        for watched in soon:
            try:
                watched.hear(0)
            except Exception:  # noqa: BLE001 -- as above
                watched.fail(Failure())
        if self._acting:
            self._act()
        if self._hauls:
            self._haul()
        if self._acting:
            self._act()
        self.at_end = self._at_end_of_another

    def _act(self) -> None:
        # One that acts may make others do so: of what it reads there is only so much.
        for acting in self._acting:
            try:
                acting.act()
            except Exception:  # noqa: BLE001 -- as above
                acting.fail(Failure())
        self._acting.clear()

    # -- bulk ----------------------------------------------------------------

    def haul(self, hauling: Hauling) -> None:
        """Let *hauling* move what it has when it is its turn."""
        self._hauls.append(hauling)

    def haul_soon(self, hauling: Hauling) -> None:
        """Let *hauling* move what it has although it is nobody's turn now."""
        self._hauls.append(hauling)
        self._go_on_soon()

    def _haul(self) -> None:
        self._hauled = True
        self._streams = max(len(self._hauls), self._streams * _FADE)
        self.unsent = unsent(int(self._streams))
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
        """Have a next turn at once; who waits in front of the reactor does not wait then."""
        if self._behind is None and self._again is None:
            self._again = self.reactor.callLater(0, self._go_on)

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


def unsent(streams: int) -> int:
    """
    Give what each of so many bulk streams may leave unsent: a power of two, which seldom changes.

    A stream that waits for a slow reader is bound by it, too, and a FIN or a
    reset has less to wait for. What is under way in the network does not count.
    """
    if streams <= _FEW:
        return 0
    return max(_ALL_UNSENT >> (streams - 1).bit_length(), _UNSENT)
