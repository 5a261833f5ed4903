"""
So many octets a second: a bucket of tokens, and those who wait for some.

To throttle an end is not to read it. What it sends then waits in its own
kernel, and nothing is held here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from functools import partial
from math import inf
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.interfaces import Ended, IBudget, IShare, Tally

# Seconds of the rate that are handed out at once, and so how often a bucket
# that somebody waits for wakes us: ten times a second, however many there
# are; but for no less than a KiB, and for no more than a relay moves at a time.
_TURN = 0.1
_LEAST, _MOST = 1 << 10, 1 << 20

# Seconds of the rate that a bucket holds when nothing was spent.
_BURST = 0.25

# A delayed call may come so many seconds early, by rounding.
_EARLY = 1e-6

_FEW = 64  # budgets that are not worth tidying


class Bucket:
    """
    Tokens for octets, by whatever clock gives *now*.

    Args:
        rate: Octets a second that flow in.
        burst: Octets that it holds; at first it is full.
    """

    __slots__ = ("_full_at", "burst", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._full_at = -inf

    def level(self, now: float) -> float:
        """How many octets are in it; below zero where more was spent than there was."""
        return self.burst - max(0.0, self._full_at - now) * self.rate

    def spend(self, octets: int, now: float) -> None:
        """Take *octets* out, there or not; less than none puts them back."""
        self._full_at = max(self._full_at, now) + octets / self.rate

    def when(self, level: float) -> float:
        """Tell when *level* will be reached, if nothing is spent; the time may be past."""
        return self._full_at - (self.burst - level) / self.rate


class Waiting(Protocol):
    """Who waits for a throttle."""

    def granted(self, octets: int) -> None:
        """Hear that it is our turn: *octets* have been spent on us."""


class Throttle:
    """
    One bucket, whoever draws on it, and a queue of those who find too little.

    Who waits is granted a quantum when its turn comes, and nobody takes
    anything past the queue: so all get the same, whatever they would take.

    Attributes:
        quantum: Octets that are granted at once.
    """

    __slots__ = ("_bucket", "_clock", "_queue", "_wake", "quantum")

    def __init__(self, rate: int, clock: IReactorTime) -> None:
        self.quantum = int(min(max(rate * _TURN, _LEAST), _MOST))
        self._bucket = Bucket(rate, max(rate * _BURST, self.quantum))
        self._clock = clock
        self._queue: OrderedDict[Waiting, None] = OrderedDict()
        self._wake: IDelayedCall | None = None

    @property
    def full(self) -> bool:
        """Whether it is as if nothing had ever been spent."""
        return self._bucket.when(self._bucket.burst) <= self._clock.seconds()

    @property
    def open(self) -> bool:
        """Whether nobody waits, nor has to."""
        return not self._queue and self._bucket.level(self._clock.seconds()) >= self.quantum

    def take(self, most: int) -> int:
        """Spend up to *most* octets and give how many; 0 where it is time to wait."""
        if not self.open:
            return 0
        now = self._clock.seconds()
        octets = min(most, int(self._bucket.level(now)))
        self._bucket.spend(octets, now)
        return octets

    def spend(self, octets: int) -> None:
        """Spend what has been read already, there or not; less than none was not needed."""
        self._bucket.spend(octets, self._clock.seconds())

    def wait(self, waiting: Waiting) -> None:
        """Grant *waiting* a quantum when it is its turn."""
        self._queue.setdefault(waiting)
        if self._wake is None:
            self._sleep()

    def leave(self, waiting: Waiting) -> None:
        """Grant it nothing; whoever does not wait may say so, too."""
        self._queue.pop(waiting, None)
        if not self._queue and self._wake is not None and self._wake.active():
            self._wake.cancel()
            self._wake = None

    def _sleep(self) -> None:
        delay = self._bucket.when(self.quantum) - self._clock.seconds()
        self._wake = self._clock.callLater(max(0.0, delay), self._grant)

    def _grant(self) -> None:
        # While we are at it _wake is not None: whoever waits again is seen to below.
        due = self._clock.seconds() + _EARLY
        while self._queue and self._bucket.when(self.quantum) <= due:
            waiting, _ = self._queue.popitem(last=False)
            self.spend(self.quantum)
            waiting.granted(self.quantum)
        self._wake = None
        if self._queue:
            self._sleep()


class Datagrams:
    """
    What one association has of a throttle, one way.

    A datagram goes whole or is dropped, and is never kept: who sends
    datagrams slows down when they are lost. While there is too little it waits
    in the queue as a stream does, or the one kind would starve the other.
    """

    __slots__ = ("_credit", "_throttle")

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle
        self._credit = 0

    def take(self, octets: int) -> bool:
        """Spend *octets*, if there are as many."""
        if self._credit < octets:
            self._credit += self._throttle.take(max(self._throttle.quantum, octets))
            if self._credit < octets:
                self._throttle.wait(self)
                return False
        self._credit -= octets
        return True

    def granted(self, octets: int) -> None:
        """Hear that it is our turn."""
        self._credit += octets

    def leave(self) -> None:
        """Wait no more."""
        self._throttle.leave(self)


@implementer(IShare)
class Share:
    """What the datagrams of one association take of a budget, until it ends."""

    __slots__ = ("_budget", "_down", "_up", "down", "up")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._up, self._down = Datagrams(budget.up), Datagrams(budget.down)
        self.up, self.down = self._up.take, self._down.take
        budget.relays += 1

    def end(self) -> None:
        """Take no more."""
        self._up.leave()
        self._down.leave()
        self._budget.relays -= 1


@implementer(IBudget)
class Budget:
    """
    What somebody may spend: a throttle each way, which all their relays share.

    Attributes:
        relays: How many draw on it now.
    """

    __slots__ = ("down", "relays", "up")

    def __init__(self, rate: int, clock: IReactorTime) -> None:
        self.up = Throttle(rate, clock)
        self.down = Throttle(rate, clock)
        self.relays = 0

    def share(self) -> Share:
        """Take part in it with datagrams."""
        return Share(self)

    def drawn_on(self, ended: Ended) -> Ended:
        """Count a relay until it has ended; give who is to hear of that, who tells *ended*."""
        self.relays += 1
        return partial(self._left, ended)

    def _left(self, ended: Ended, result: Tally | Failure) -> None:
        self.relays -= 1
        ended(result)

    @property
    def idle(self) -> bool:
        """Whether a new one would do as well."""
        return not self.relays and self.up.full and self.down.full


class Budgets:
    """
    The budgets of one limit, by who has them.

    A budget that no relay draws on is kept until it is full again, or whoever
    comes back would have another burst.

    Args:
        rate: Octets a second, each way.
        clock: The reactor.
    """

    def __init__(self, rate: int, clock: IReactorTime) -> None:
        self._rate = rate
        self._clock = clock
        self._budgets: dict[Hashable, Budget] = {}
        self._tidy_at = _FEW

    def of(self, whose: Hashable) -> Budget:
        """Give somebody's budget."""
        budget = self._budgets.get(whose)
        if budget is None:
            if len(self._budgets) >= self._tidy_at:
                self._tidy()
            budget = self._budgets[whose] = Budget(self._rate, self._clock)
        return budget

    def _tidy(self) -> None:
        """Drop those that are idle; as often as they double, so that it costs each one little."""
        self._budgets = {who: each for who, each in self._budgets.items() if not each.idle}
        self._tidy_at = max(_FEW, 2 * len(self._budgets))

    def __len__(self) -> int:
        return len(self._budgets)
