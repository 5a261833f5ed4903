"""How much has been carried over the last hour, and what was denied last."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from socksd.events import Denied, Event, SessionClosed

EVERY: Final = 10.0  # seconds between two samples
HOUR: Final = 3600.0
DENIALS: Final = 200  # remembered
DATAGRAMS: Final = 10  # denied targets in a second that are: they cost a client nothing


class Rate(NamedTuple):
    """Octets a second between two samples."""

    time: float  # seconds since the epoch, of the later one
    up: float
    down: float
    seconds: float  # between the two


class _Sample(NamedTuple):
    time: float
    up: int
    down: int


class Traffic:
    """
    Samples of what has been carried, one every EVERY seconds for an hour.

    Args:
        carried: Gives the octets that live sessions have carried so far, up
            and down; those of the others it hears of as they close.
    """

    hears = (SessionClosed,)

    def __init__(self, carried: Callable[[], tuple[int, int]]) -> None:
        self._carried = carried
        self._up = 0
        self._down = 0
        self._samples: deque[_Sample] = deque(maxlen=int(HOUR / EVERY) + 1)

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        if isinstance(event, SessionClosed):
            self._up += event.up
            self._down += event.down

    def sample(self, now: float) -> None:
        """Look how much it is at *now*, in seconds since the epoch."""
        up, down = self._carried()
        self._samples.append(_Sample(now, self._up + up, self._down + down))

    def rates(self) -> list[Rate]:
        """Give the rates between the samples, the oldest first."""
        return [
            # A session that closes is told before it is no longer counted as
            # live, or after: a sample between the two must not look negative.
            Rate(
                after.time,
                max(0, after.up - before.up) / (after.time - before.time),
                max(0, after.down - before.down) / (after.time - before.time),
                after.time - before.time,
            )
            for before, after in pairwise(self._samples)
            if after.time > before.time  # the clock may have been set back
        ]


class Denials:
    """
    The last refusals, and whoever wants to hear of the next ones.

    Of targets of datagrams it takes the first DATAGRAMS of each second only.

    Attributes:
        count: How many it has taken so far.
    """

    hears = (Denied,)

    def __init__(self) -> None:
        self.count = 0
        self._second = 0
        self._datagrams = 0  # in that second
        self._last: deque[Denied] = deque(maxlen=DENIALS)
        self.heard_by: set[Callable[[Denied], None]] = set()

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        if isinstance(event, Denied) and not (event.datagram and self._too_many(event.started)):
            self.count += 1
            self._last.append(event)
            for hear in tuple(self.heard_by):
                hear(event)

    def _too_many(self, time: float) -> bool:
        second = int(time)
        if second != self._second:
            self._second, self._datagrams = second, 0
        self._datagrams += 1
        return self._datagrams > DATAGRAMS

    def last(self) -> Sequence[Denied]:
        """Give what is remembered, the latest first."""
        return tuple(reversed(self._last))
