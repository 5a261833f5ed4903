"""
The relay for everywhere: each transport consumes what the other produces.

What arrives at one end is written to the other; when that one's buffer is
full, the first is not read until it has run empty. So a relay holds at most
one transport's buffer and one read each way, 128 KiB.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.interfaces import Ended, EndedBy, ICarrier, IEnd, IEndTransport, IRelay, Tally
from socksd.relay.throttle import Budget, Throttle


@implementer(IRelay)
class Pump:
    """
    Carry octets between two ends by nothing but Twisted's transports.

    Args:
        clock: For the deadline; the reactor.
        idle: Seconds after which a relay that is open both ways ends when
            nothing has moved in either direction. A peer that reads no more
            stops what flows to it, so it is idle, too.
        linger: The same once one direction has ended; also bounds how long
            the last octets may take to leave.
    """

    def __init__(
        self, client: IEnd, target: IEnd, clock: IReactorTime, idle: float, linger: float
    ) -> None:
        self._clock = clock
        self._idle = idle
        self._linger = linger
        self._client = self._side(client, EndedBy.CLIENT)
        self._target = self._side(target, EndedBy.TARGET)
        self._client.other = self._target
        self._target.other = self._client
        self._ended_by: EndedBy | None = None
        self._ended: Ended

    def _side(self, end: IEnd, name: EndedBy) -> _Side:
        return _Side(end, name, self, self._clock.seconds)

    @property
    def up(self) -> int:
        """Octets from the client so far."""
        return self._client.octets

    @property
    def down(self) -> int:
        """Octets from the target so far."""
        return self._target.octets

    def join(self, early: bytes, ended: Ended) -> None:
        """Take both ends over; see :class:`~socksd.interfaces.IRelay`."""
        self._ended = ended
        # One call for the relay's life, moved when it is due and not when
        # octets move: 0.1 us a chunk for reading the clock, nothing else.
        self._deadline: IDelayedCall = self._clock.callLater(self._idle, self._look)
        sides = self._client, self._target
        for side in sides:
            side.transport.registerProducer(side.other, True)
        if early:
            self._client.data_received(early)
        for side in sides:
            side.end.carried_by(side)

    def abort(self) -> None:
        """Reset both connections now."""
        self._break(EndedBy.US)

    def read_ended(self, side: _Side) -> None:
        """Pass FIN on; the second one ends the relay."""
        side.ended = True
        self._linger_on()
        if side.other.ended:
            side.close()
            side.other.close()
        else:
            side.other.end_writing()

    def lost(self, side: _Side, reason: Failure) -> None:
        """Let the other end go the way this one went; the second one is the end."""
        side.gone = True
        broken = not isinstance(reason.value, ConnectionDone)
        if broken:
            self._ended_by = self._ended_by or side.name  # the first cause is the cause
        if side.other.gone:
            self._deadline.cancel()
            self._ended(Tally(self.up, self.down, self._ended_by or EndedBy.BOTH))
        elif side.closing:
            pass  # our doing, and the other has been told its own end
        elif broken:
            side.other.abort()
        else:
            side.ended = True
            self._linger_on()
            side.other.close()

    def _linger_on(self) -> None:
        # Not reset(): to make a call sooner Twisted looks for it among all there are.
        self._deadline.cancel()
        self._deadline = self._clock.callLater(self._linger, self._look)

    def _look(self) -> None:
        """See whether it is time to end; else come back when it may be."""
        half_closed = self._client.ended or self._target.ended
        quiet = self._clock.seconds() - max(self._client.moved, self._target.moved)
        left = (self._linger if half_closed else self._idle) - quiet
        self._deadline = self._clock.callLater(left if left > 0 else self._linger, self._look)
        if left > 0:
            return
        if not half_closed:
            self._break(EndedBy.IDLE)
            return
        self._ended_by = self._ended_by or EndedBy.LINGER
        for side in (self._client, self._target):
            # Who has been sent FIN may still have octets to come, in the
            # kernel: a reset would take them away. To whom has not, a FIN now
            # would be a lie. Whoever was closed the last time has had it all.
            if side.other.ended and not side.closing:
                side.close()
            else:
                side.abort()

    def _break(self, cause: EndedBy) -> None:
        self._ended_by = self._ended_by or cause
        self._client.abort()
        self._target.abort()


@implementer(ICarrier, IPushProducer)
class _Side:
    """
    One of the two ends: hears what arrives there, and produces it for the other.

    It is the producer in its transport's place because a transport's
    stopProducing() is loseConnection(), and Twisted calls that before it tells
    how the consumer was lost: one that is half-closed would be gone in order,
    on the spot, and nobody left to pass the reset on to.

    Attributes:
        octets: How many have arrived here.
        moved: When some last did, or had left the other's buffer.
        ended: No more will arrive.
        finished: FIN was sent, or will be behind what is still to be sent.
        closing: Closed or reset by us; what still arrives has nowhere to go.
        gone: The connection is lost.
    """

    __slots__ = (
        "_pump",
        "_seconds",
        "closing",
        "end",
        "ended",
        "finished",
        "gone",
        "moved",
        "name",
        "octets",
        "other",
        "secure",
        "transport",
    )

    other: _Side

    def __init__(self, end: IEnd, name: EndedBy, pump: Pump, seconds: Callable[[], float]) -> None:
        self.end = end
        self.name = name
        self.transport = end.transport
        self.octets = 0
        self.moved = seconds()
        self.ended = False
        self.finished = False
        self.closing = False
        self.gone = False
        self._pump = pump
        self._seconds = seconds
        self.secure = ISSLTransport.providedBy(end.transport)

    # -- what its end tells (ICarrier) ---------------------------------------

    def data_received(self, octets: bytes) -> None:
        if self.closing:  # TLS goes on reading until the peer closes, too
            return
        self.octets += len(octets)
        self.moved = self._seconds()
        self.other.transport.write(octets)

    def read_ended(self) -> None:
        self._pump.read_ended(self)

    def lost(self, reason: Failure) -> None:
        self._pump.lost(self, reason)

    # -- what the other's transport asks for (IPushProducer) -----------------

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.moved = self._seconds()
        self.transport.resumeProducing()
        if self.other.secure:
            # close_notify that came while we were paused has told nobody:
            # Twisted waits for the producer to go before it closes, and drops
            # what we produce. Registering anew is how it gets to close.
            self.other.transport.unregisterProducer()
            self.other.transport.registerProducer(self, True)

    def stopProducing(self) -> None:
        """Do nothing: the other side will be told that it is lost, and why."""

    # -- what the pump asks for ----------------------------------------------

    # Unregister before closing in order: a transport whose producer is paused
    # waits for it, and stays connected for ever. A reset waits for nobody.

    def end_writing(self) -> None:
        """Send FIN behind what is still to be sent."""
        self.finished = True
        self.transport.unregisterProducer()
        self.end.finish_writing()

    def close(self) -> None:
        """Close in order, behind what is still to be sent."""
        self.closing = True
        self.transport.unregisterProducer()
        if self.secure and self.finished:
            # TLS has sent close_notify, and would wait for the peer's for ever.
            below: IEndTransport = self.transport.transport  # type: ignore[attr-defined]  # Twisted's
            below.loseConnection()
        else:
            self.transport.loseConnection()

    def abort(self) -> None:
        """Reset the connection."""
        if not self.gone:
            self.closing = True
            self.transport.abortConnection()


class ThrottledPump(Pump):
    """
    A pump that reads no more than a budget allows.

    A transport reads what it likes, 64 KiB at most: what that was too much is
    waited for afterwards.

    Args:
        budget: Of the client's user; other relays may draw on it as well.
    """

    _client: _ThrottledSide
    _target: _ThrottledSide

    def __init__(
        self,
        client: IEnd,
        target: IEnd,
        clock: IReactorTime,
        idle: float,
        linger: float,
        budget: Budget,
    ) -> None:
        self._budget = budget
        super().__init__(client, target, clock, idle, linger)

    def _side(self, end: IEnd, name: EndedBy) -> _ThrottledSide:
        throttle = self._budget.up if name is EndedBy.CLIENT else self._budget.down
        return _ThrottledSide(end, name, self, self._clock.seconds, throttle)

    def join(self, early: bytes, ended: Ended) -> None:
        """Take both ends over; see :class:`~socksd.interfaces.IRelay`."""
        super().join(early, self._budget.drawn_on(ended))

    def _look(self) -> None:
        for side in (self._client, self._target):
            if side.waits:  # for its turn, which is not idle
                side.moved = self._clock.seconds()
        super()._look()


class _ThrottledSide(_Side):
    """
    A side that is paused by two: by the other's transport, and by its throttle.

    Attributes:
        waits: Paused by the throttle.
        full: Paused by the other's transport.
    """

    __slots__ = ("_granted", "_throttle", "full", "waits")

    def __init__(
        self,
        end: IEnd,
        name: EndedBy,
        pump: Pump,
        seconds: Callable[[], float],
        throttle: Throttle,
    ) -> None:
        super().__init__(end, name, pump, seconds)
        self._throttle = throttle
        self._granted = 0
        self.waits = False
        self.full = False

    def data_received(self, octets: bytes) -> None:
        if self.closing:
            return
        super().data_received(octets)
        self._throttle.spend(max(0, len(octets) - self._granted))
        self._granted = max(0, self._granted - len(octets))
        if not self._granted and not self._throttle.open:
            self.waits = True
            self.transport.pauseProducing()
            self._throttle.wait(self)

    def granted(self, octets: int) -> None:
        """Read on, as far as we are concerned."""
        self.waits = False
        self._granted = octets
        if not (self.full or self.ended or self.closing):
            self.transport.resumeProducing()

    def lost(self, reason: Failure) -> None:
        self._throttle.leave(self)
        super().lost(reason)

    def pauseProducing(self) -> None:
        self.full = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self.full = False
        super().resumeProducing()
        if self.waits:
            self.transport.pauseProducing()
