"""Who may move how much, and when; by a clock."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from socksd.interfaces import EndedBy, IBudget, IShare, Tally
from socksd.relay.throttle import Bucket, Budget, Budgets, Datagrams, Throttle

RATE = 100_000
BURST = 25_000
QUANTUM = 10_000


# -- the bucket -----------------------------------------------------------------


def test_a_bucket_is_full_at_first_and_holds_no_more() -> None:
    bucket = Bucket(10.0, 40.0)
    assert bucket.level(0.0) == bucket.level(1e9) == 40.0


def test_what_was_spent_flows_in_again() -> None:
    bucket = Bucket(10.0, 40.0)
    bucket.spend(35, 100.0)
    assert [bucket.level(100.0 + seconds) for seconds in (0, 1, 3.5, 9)] == [5, 15, 40, 40]
    assert bucket.when(25.0) == 102.0


def test_a_bucket_can_be_overdrawn_and_put_back_into() -> None:
    bucket = Bucket(10.0, 40.0)
    bucket.spend(60, 0.0)
    assert (bucket.level(0.0), bucket.when(0.0)) == (-20.0, 2.0)
    bucket.spend(-50, 0.0)
    assert bucket.level(0.0) == 30.0


# Amounts and pauses that floats and fractions agree on, as they are of powers of 2.
spendings = st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 64)))


@given(spendings)
def test_a_bucket_is_exact(spent: list[tuple[int, int]]) -> None:
    """However long and in whatever pieces: as by fractions."""
    bucket = Bucket(1024.0, 512.0)
    level, now = Fraction(512), Fraction(0)
    for octets, pause in spent:
        level = min(Fraction(512), level + 1024 * Fraction(pause, 64))
        now += Fraction(pause, 64)
        assert bucket.level(float(now)) == level
        bucket.spend(octets, float(now))
        level -= octets
        assert bucket.level(float(now)) == level


# -- the queue ------------------------------------------------------------------


class Taker:
    """Somebody who waits, and remembers when its turns were."""

    def __init__(self, clock: Clock, then: Callable[[Taker], object] = lambda _: None) -> None:
        self.clock = clock
        self.then = then
        self.turns: list[tuple[float, int]] = []

    def granted(self, octets: int) -> None:
        self.turns.append((round(self.clock.seconds(), 2), octets))
        self.then(self)


def run(clock: Clock, seconds: float) -> None:
    clock.pump([0.001] * round(seconds * 1000))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(RATE, clock)


@pytest.mark.parametrize(
    ("rate", "quantum"),
    [
        pytest.param(1000, 1024, id="slow: a KiB"),
        pytest.param(RATE, QUANTUM, id="a tenth of a second"),
        pytest.param(10**9, 1 << 20, id="fast: what a relay moves at a time"),
    ],
)
def test_what_is_granted_at_once_follows_from_the_rate(
    clock: Clock, rate: int, quantum: int
) -> None:
    throttle = Throttle(rate, clock)
    assert throttle.quantum == quantum
    assert throttle.take(10**9) == max(rate // 4, quantum)


def test_what_is_there_can_be_taken_at_once(clock: Clock, throttle: Throttle) -> None:
    assert throttle.take(5_000) == 5_000
    assert throttle.take(100_000) == 20_000
    assert throttle.take(1) == 0
    assert not clock.getDelayedCalls()


def test_less_than_a_quantum_is_not_worth_taking(throttle: Throttle) -> None:
    throttle.spend(BURST - QUANTUM + 1)
    assert not throttle.open
    assert throttle.take(1) == 0


def test_what_was_taken_and_not_needed_is_there_again(throttle: Throttle) -> None:
    assert throttle.take(BURST) == BURST
    throttle.spend(-BURST)
    assert throttle.full


def test_who_waits_is_granted_a_quantum_when_there_is_one(clock: Clock, throttle: Throttle) -> None:
    throttle.take(BURST)
    taker = Taker(clock, then=throttle.wait)
    throttle.wait(taker)
    run(clock, 0.35)
    assert taker.turns == [(0.1, QUANTUM), (0.2, QUANTUM), (0.3, QUANTUM)]


def test_nobody_takes_anything_past_the_queue(clock: Clock, throttle: Throttle) -> None:
    """Not even what is there: it is for who has waited longer."""
    taker = Taker(clock)
    throttle.wait(taker)
    assert not throttle.open
    assert throttle.take(1) == 0
    clock.advance(0)
    assert taker.turns == [(0.0, QUANTUM)]
    assert throttle.take(BURST) == BURST - QUANTUM


def test_turns_are_taken_in_turn(clock: Clock, throttle: Throttle) -> None:
    throttle.take(BURST)
    takers = [Taker(clock, then=throttle.wait) for _ in range(3)]
    for taker in takers:
        throttle.wait(taker)
        throttle.wait(taker)  # who says so twice is there once
    run(clock, 0.65)
    assert [taker.turns for taker in takers] == [
        [(0.1, QUANTUM), (0.4, QUANTUM)],
        [(0.2, QUANTUM), (0.5, QUANTUM)],
        [(0.3, QUANTUM), (0.6, QUANTUM)],
    ]


def test_a_late_call_gives_as_many_turns_as_there_are_quanta(
    clock: Clock, throttle: Throttle
) -> None:
    throttle.take(BURST)
    takers = [Taker(clock) for _ in range(4)]
    for taker in takers:
        throttle.wait(taker)
    clock.advance(0.25)
    assert [len(taker.turns) for taker in takers] == [1, 1, 0, 0]


def test_what_was_overdrawn_is_waited_for(clock: Clock, throttle: Throttle) -> None:
    throttle.spend(BURST + 2 * QUANTUM)
    taker = Taker(clock)
    throttle.wait(taker)
    clock.advance(0.1)
    throttle.spend(QUANTUM)  # by somebody who had been granted a turn
    run(clock, 0.45)
    assert taker.turns == [(0.4, QUANTUM)]


def test_one_call_wakes_all_and_none_is_left_when_nobody_waits(
    clock: Clock, throttle: Throttle
) -> None:
    throttle.take(BURST)
    takers = [Taker(clock) for _ in range(3)]
    for taker in takers:
        throttle.wait(taker)
    assert len(clock.getDelayedCalls()) == 1
    for taker in takers:
        throttle.leave(taker)
        throttle.leave(taker)
    assert not clock.getDelayedCalls()


def test_who_leaves_in_the_turn_of_another_has_none(clock: Clock, throttle: Throttle) -> None:
    throttle.take(BURST)
    second = Taker(clock)
    first = Taker(clock, then=lambda _: throttle.leave(second))
    throttle.wait(first)
    throttle.wait(second)
    clock.advance(0.25)
    assert (len(first.turns), second.turns) == (1, [])
    assert not clock.getDelayedCalls()


@given(st.lists(st.floats(0.0, 0.1), max_size=60), st.integers(1, 5))
def test_whatever_the_times_nobody_gets_more_than_the_rate_or_less(
    pauses: list[float], takers: int
) -> None:
    """And all get the same, to a quantum."""
    clock = Clock()
    throttle = Throttle(RATE, clock)
    throttle.take(BURST)
    waiting = [Taker(clock, then=throttle.wait) for _ in range(takers)]
    for taker in waiting:
        throttle.wait(taker)
    for pause in pauses:
        clock.advance(pause)
    turns = [len(taker.turns) for taker in waiting]
    flowed = clock.seconds() * RATE
    assert flowed - QUANTUM - 1 <= sum(turns) * QUANTUM <= flowed + 1
    assert max(turns) - min(turns) <= 1
    throttle.leave(waiting[0])


# -- who has which budget ----------------------------------------------------------


TALLY = Tally(0, 0, EndedBy.BOTH)


def test_a_budget_is_the_same_for_the_same_one_and_each_way_is_its_own(clock: Clock) -> None:
    budgets = Budgets(RATE, clock)
    alice = budgets.of("alice")
    assert budgets.of("alice") is alice
    assert budgets.of("bob") is not alice
    alice.up.take(BURST)
    assert alice.down.full


def test_a_budget_is_kept_while_it_is_drawn_on_or_not_full(clock: Clock) -> None:
    """Or else whoever comes back would find it full."""
    budgets = Budgets(RATE, clock)
    heard: list[Any] = []
    drawn_on, spent = budgets.of("drawn on"), budgets.of("spent")
    ended = drawn_on.drawn_on(heard.append)
    spent.down.take(BURST)
    for number in range(1000):
        budgets.of(number)
    assert budgets.of("drawn on") is drawn_on
    assert budgets.of("spent") is spent
    ended(TALLY)
    assert heard == [TALLY]
    clock.advance(0.25)
    assert drawn_on.idle
    assert spent.idle
    for number in range(1000, 2000):
        budgets.of(number)
    assert budgets.of("drawn on") is not drawn_on
    assert budgets.of("spent") is not spent


def test_budgets_that_are_idle_do_not_pile_up(clock: Clock) -> None:
    budgets = Budgets(RATE, clock)
    for number in range(10_000):
        budgets.of(number)
    assert len(budgets) <= 64


def test_budgets_that_are_in_use_are_not_looked_at_each_time(clock: Clock) -> None:
    budgets = Budgets(RATE, clock)
    looked = []
    tidy = budgets._tidy
    budgets._tidy = lambda: looked.append(tidy())  # type: ignore[method-assign]  # to count
    for number in range(10_000):
        budgets.of(number).up.take(1)
    assert len(budgets) == 10_000
    assert len(looked) < 10


# -- datagrams ------------------------------------------------------------------


def test_a_datagram_goes_whole_or_not_at_all(clock: Clock, throttle: Throttle) -> None:
    datagrams = Datagrams(throttle)
    went = [datagrams.take(6_000) for _ in range(6)]
    assert went == [True, True, True, False, False, False]
    run(clock, 0.1)
    assert datagrams.take(6_000)
    datagrams.leave()


def test_one_that_is_longer_than_a_turns_worth_goes_in_time(clock: Clock) -> None:
    datagrams = Datagrams(Throttle(1_000, clock))
    went = [datagrams.take(5_000)]
    for _ in range(12):
        clock.advance(0.5)
        went.append(datagrams.take(5_000))
    assert went.count(True) == 1
    datagrams.leave()
    assert not clock.getDelayedCalls()


def test_neither_datagrams_nor_streams_starve_the_other(clock: Clock, throttle: Throttle) -> None:
    datagrams = Datagrams(throttle)
    stream = Taker(clock, then=throttle.wait)
    assert throttle.take(BURST) == BURST
    throttle.wait(stream)
    went = 0
    for _ in range(10_000):  # ten times the rate
        clock.advance(0.001)
        went += 1_000 if datagrams.take(1_000) else 0
    streamed = sum(octets for _, octets in stream.turns)
    assert went == pytest.approx(500_000, rel=0.05)
    assert streamed == pytest.approx(500_000, rel=0.05)
    throttle.leave(stream)
    datagrams.leave()


def test_a_share_is_drawn_on_until_its_end(clock: Clock) -> None:
    budget = Budget(RATE, clock)
    share = budget.share()
    assert verifyObject(IBudget, budget)
    assert verifyObject(IShare, share)
    assert share.up(BURST)
    assert not share.up(1)
    assert share.down(1), "each way is its own"
    run(clock, 1)
    assert not budget.idle
    share.end()
    assert budget.idle
    assert not clock.getDelayedCalls()
