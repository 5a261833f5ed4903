"""
Waiting at an epoll, for a moment without sleeping where the next event mostly comes at once.

To be put to sleep and woken takes the kernel longer than to receive 64 octets and
send them, and on a virtual machine, whose idle core goes back to the host, several
times as long: of a round trip through two sleeping processes most is that. So
sockets have SO_BUSY_POLL and hypervisors ``halt_poll_ns``; this is the same, a
floor higher.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

# What somebody on this machine or in this rack takes to answer, in seconds.
AWAKE: Final = 80e-6

# A sleep that took no longer, to fall asleep and to wake up among it, might have been
# spared: seconds.
SHORT: Final = 150e-6

# Where seven of eight sleeps might have been, not to sleep costs no more than it saves.
WORTH: Final = 7 / 8
_MEMORY: Final = 1 / 16  # what the latest wait counts for
_DEAR: Final = 1 / 4  # what is lost by one that was in vain, which took all of AWAKE


class Pollable(Protocol):
    """What is taken of ``select.epoll``."""

    def poll(self, timeout: float | None, maxevents: int) -> Sequence[tuple[int, int]]:
        """Wait *timeout* seconds; ``None`` is as long as it takes."""


class Polling:
    """
    Wait at an epoll for some events.

    Args:
        epoll: Where to wait.
        most: How many events to take at once.
        clock: Gives seconds.
        cores: How many the process may use. With one, whoever is waited for
            could do nothing as long as we are awake.
    """

    def __init__(
        self,
        epoll: Pollable,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        cores: int | None = None,
    ) -> None:
        if cores is None:
            cores = len(os.sched_getaffinity(0))
        self._poll = epoll.poll
        self._most = most
        self._clock = clock
        self._worth = WORTH if cores > 1 else math.inf
        self._luck = 0.0  # how many of the last waits were short, of 1

    def wait(self, delay: float | None, *, bulk: bool) -> Sequence[tuple[int, int]]:
        """
        Wait for *delay* seconds at most; ``None`` is as long as it takes.

        After *bulk* it always sleeps: the longer that takes, the more there is
        to move at once.
        """
        poll, most = self._poll, self._most
        if bulk:
            self._luck = 0.0
        if bulk or delay == 0:
            return poll(delay, most)
        clock = self._clock
        began = clock()
        if self._luck < self._worth or (delay is not None and delay < AWAKE):
            happened = poll(delay, most)
            self._luck += ((clock() - began < SHORT) - self._luck) * _MEMORY
            return happened
        until = began + AWAKE
        while not (happened := poll(0, most)):
            if clock() >= until:
                self._luck -= _DEAR
                return poll(delay, most)
        self._luck += (1.0 - self._luck) * _MEMORY
        return happened
