"""Deadlines by the thousand, for the price of a few."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Waits(Protocol):
    """Who may be kept waiting for so long, and no longer."""

    def time_is_up(self) -> None:
        """Hear that the time has passed."""


class Waiting:
    """
    All who wait for the same number of seconds.

    Who came first is the first who is due: one delayed call, for that one,
    does for all. To wait, and to wait no more, is an entry in a dict; a
    delayed call for each would be 5 us of every state of every session.
    """

    __slots__ = ("_clock", "_due", "_next", "seconds")

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self.seconds = seconds
        self._clock = clock
        self._due: dict[Waits, float] = {}
        self._next: IDelayedCall | None = None

    def add(self, who: Waits) -> None:
        """Let *who* wait, from now on."""
        self._due[who] = self._clock.seconds() + self.seconds
        if self._next is None:
            self._next = self._clock.callLater(self.seconds, self._pass)

    def remove(self, who: Waits) -> None:
        """Who waits, waits no more."""
        del self._due[who]
        if not self._due and self._next is not None:
            self._next.cancel()
            self._next = None

    def _pass(self) -> None:
        self._next = None
        now = self._clock.seconds()
        while self._due:
            who, due = next(iter(self._due.items()))
            if due > now:
                self._next = self._clock.callLater(due - now, self._pass)
                return
            del self._due[who]
            who.time_is_up()
