"""Awake where it pays, and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from socksd.relay.polling import AWAKE, SHORT, WORTH, Polling

EVENT = (7, 1)
MOST = 64
LOOK = AWAKE / 8  # what it takes to look


class World:
    """An epoll and a clock: the next event comes *gap* seconds after the last was taken."""

    def __init__(self, gap: float = math.inf, cores: int = 2) -> None:
        self.gap = gap
        self.now = 1000.0
        self.slept: list[float | None] = []  # for how long it was to be
        self.looked = 0  # without sleeping
        self._taken = self.now
        self.polling = Polling(self, MOST, lambda: self.now, cores)

    def poll(self, timeout: float | None, maxevents: int) -> Sequence[tuple[int, int]]:
        assert maxevents == MOST
        due = self._taken + self.gap
        if timeout == 0:
            self.looked += 1
            self.now += LOOK
        else:
            self.slept.append(timeout)
            end = math.inf if timeout is None else self.now + timeout
            self.now = max(self.now, min(due, end)) + SHORT / 4  # to wake takes time
        if self.now < due:
            return []
        self._taken = self.now
        return [EVENT]

    def wait(self, delay: float | None = None, bulk: bool = False) -> Sequence[tuple[int, int]]:
        return self.polling.wait(delay, bulk=bulk)

    def spoil(self) -> None:
        """Let short waits be what is to be expected."""
        self.gap = AWAKE / 2
        for _ in range(100):
            assert self.wait() == [EVENT]
        self.slept.clear()
        self.looked = 0


def test_who_waits_long_sleeps() -> None:
    world = World(gap=10 * SHORT)
    for _ in range(100):
        assert world.wait() == [EVENT]
    assert world.slept == [None] * 100
    assert world.looked == 0


def test_where_the_next_mostly_comes_at_once_nobody_sleeps() -> None:
    world = World()
    world.spoil()
    for _ in range(100):
        assert world.wait(5.0) == [EVENT]
    assert world.slept == []


def test_it_sleeps_when_nothing_has_come() -> None:
    world = World()
    world.spoil()
    world.gap = 10 * SHORT
    before = world.now
    assert world.wait(5.0) == [EVENT]
    assert world.slept == [5.0]
    assert AWAKE <= LOOK * world.looked <= AWAKE + 2 * LOOK
    assert world.now - before == pytest.approx(10 * SHORT, rel=0.2)


def test_what_was_in_vain_is_not_tried_again_soon() -> None:
    """Neither where waits are long from now on, nor where it fails though they look short."""
    world = World()
    world.spoil()
    world.gap = 10 * SHORT
    for _ in range(100):
        world.wait()
    assert LOOK * world.looked <= 2 * AWAKE
    world.spoil()
    world.gap = (AWAKE + SHORT) / 2 - SHORT / 8  # too long to be awake, and yet a short sleep
    for _ in range(1000):
        world.wait()
    assert LOOK * world.looked <= 1000 * AWAKE / 8


def test_irregular_gaps_are_slept_through() -> None:
    """Of which two thirds are short: the rest would cost more than these would save."""
    world = World()
    for _ in range(300):
        for gap in (AWAKE / 2, AWAKE / 2, 10 * SHORT):
            world.gap = gap
            world.wait()
    assert world.looked == 0
    assert WORTH > 2 / 3


def test_after_bulk_it_sleeps_and_expects_more_of_it() -> None:
    world = World()
    world.spoil()
    assert world.wait(bulk=True) == [EVENT]
    assert world.wait() == [EVENT]
    assert world.slept == [None, None]
    assert world.looked == 0
    world.spoil()
    world.wait(0, bulk=True)
    world.wait()
    assert world.slept == [None]


def test_a_turn_that_waits_for_nothing_says_nothing_of_waits() -> None:
    world = World()
    for _ in range(100):
        world.wait(0)
    assert (world.slept, world.looked) == ([], 100)
    world.gap = AWAKE / 2
    world.wait()
    assert world.slept == [None]


def test_what_is_due_sooner_is_not_waited_for_awake() -> None:
    world = World()
    world.spoil()
    world.gap = math.inf
    assert world.wait(AWAKE / 2) == []
    assert (world.slept, world.looked) == ([AWAKE / 2], 0)


def test_on_one_core_it_sleeps() -> None:
    world = World(gap=AWAKE / 2, cores=1)
    for _ in range(100):
        world.wait()
    assert len(world.slept) == 100
    assert world.looked == 0


def test_the_cores_are_those_that_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(gap=AWAKE / 2)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3})
    world.polling = Polling(world, MOST, lambda: world.now)
    for _ in range(100):
        world.wait()
    assert world.looked == 0
