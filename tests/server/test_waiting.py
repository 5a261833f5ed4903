from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from socksd.server.waiting import Waiting


class Guest:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.overdue_at: list[float] = []

    def time_is_up(self) -> None:
        self.overdue_at.append(self.clock.seconds())


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_each_is_overdue_in_its_own_time(clock: Clock) -> None:
    waiting = Waiting(clock, 10.0)
    guests = [Guest(clock) for _ in range(3)]
    for guest in guests:
        waiting.add(guest)
        clock.advance(1)
    clock.pump([0.5] * 40)
    assert [guest.overdue_at for guest in guests] == [[10.0], [11.0], [12.0]]
    assert not clock.getDelayedCalls()


def test_there_is_one_delayed_call_however_many_wait(clock: Clock) -> None:
    waiting = Waiting(clock, 10.0)
    for _ in range(100):
        waiting.add(Guest(clock))
        clock.advance(0.01)
    assert len(clock.getDelayedCalls()) == 1


def test_who_has_left_is_not_overdue_and_the_last_leaves_nothing(clock: Clock) -> None:
    waiting = Waiting(clock, 10.0)
    gone, stays = Guest(clock), Guest(clock)
    waiting.add(gone)
    clock.advance(1)
    waiting.add(stays)
    waiting.remove(gone)
    clock.advance(9.5)
    assert not gone.overdue_at
    waiting.remove(stays)
    assert not clock.getDelayedCalls()
    clock.advance(10)
    assert not stays.overdue_at


def test_who_is_overdue_may_have_another_leave_or_come(clock: Clock) -> None:
    """A session that ends may end another, and a new one may be let in."""
    waiting = Waiting(clock, 10.0)
    first, second, third = (Guest(clock) for _ in range(3))

    def time_is_up() -> None:
        waiting.remove(second)
        waiting.add(third)

    first.time_is_up = time_is_up  # type: ignore[method-assign]  # to see when
    waiting.add(first)
    waiting.add(second)
    clock.advance(10)
    assert not second.overdue_at
    clock.advance(10)
    assert third.overdue_at == [20.0]
    assert not clock.getDelayedCalls()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=20))
def test_it_is_a_delayed_call_for_each(stays: list[tuple[int, int]]) -> None:
    """Whoever comes when, and leaves after how long: overdue is who stays too long."""
    clock = Clock()
    waiting = Waiting(clock, 10.0)
    guests = [(come, come + stay, Guest(clock)) for come, stay in stays]
    for now in range(75):
        for come, leaves, guest in guests:
            if come == now:
                waiting.add(guest)
            if leaves == now and not guest.overdue_at:
                waiting.remove(guest)
        clock.advance(1)
    for come, leaves, guest in guests:
        assert guest.overdue_at == ([come + 10.0] if leaves - come >= 10 else [])
    assert not clock.getDelayedCalls()
