"""What was carried over the last hour, and who was denied last."""

from __future__ import annotations

from dataclasses import replace

from socksd.events import Denied, Event
from socksd.facts import Decision, Verdict
from socksd.observe.traffic import DATAGRAMS, DENIALS, EVERY, HOUR, Denials, Rate, Traffic
from tests.observe.closed import SERVED


class Live:
    def __init__(self) -> None:
        self.up = self.down = 0

    def __call__(self) -> tuple[int, int]:
        return self.up, self.down


def test_rates_are_octets_a_second_between_samples() -> None:
    live = Live()
    traffic = Traffic(live)
    traffic.sample(100.0)
    live.up, live.down = 1000, 20
    traffic.sample(110.0)
    traffic.sample(115.0)
    assert traffic.rates() == [Rate(110.0, 100.0, 2.0, 10.0), Rate(115.0, 0.0, 0.0, 5.0)]


def test_what_has_closed_still_counts_and_only_once() -> None:
    """A session that ends moves from the live ones to the others; no rate jumps."""
    live = Live()
    traffic = Traffic(live)
    live.up, live.down = SERVED.up, SERVED.down
    traffic.sample(100.0)
    live.up = live.down = 0
    traffic(SERVED)
    traffic.sample(110.0)
    assert traffic.rates() == [Rate(110.0, 0.0, 0.0, 10.0)]
    traffic(replace(SERVED, up=50, down=70))
    traffic.sample(120.0)
    assert traffic.rates()[-1] == Rate(120.0, 5.0, 7.0, 10.0)


def test_no_rate_is_negative() -> None:
    live = Live()
    traffic = Traffic(live)
    live.up = 100
    traffic.sample(100.0)
    live.up = 0
    traffic.sample(110.0)
    assert traffic.rates() == [Rate(110.0, 0.0, 0.0, 10.0)]


def test_a_clock_that_is_set_back_makes_a_gap() -> None:
    traffic = Traffic(Live())
    for now in (100.0, 50.0, 60.0):
        traffic.sample(now)
    assert [rate.time for rate in traffic.rates()] == [60.0]


def test_an_hour_is_kept() -> None:
    traffic = Traffic(Live())
    for number in range(1000):
        traffic.sample(number * EVERY)
    rates = traffic.rates()
    assert len(rates) * EVERY == HOUR
    assert rates[-1].time == 999 * EVERY


def denied(number: int) -> Denied:
    return Denied(
        session=number,
        started=5.0,
        client=SERVED.client,
        client_port=1,
        user=None,
        command=None,
        destination=None,
        decision=Decision(Verdict.DENY, "no"),
    )


def test_the_last_denials_are_kept_the_latest_first() -> None:
    denials = Denials()
    denials(SERVED)
    for number in range(DENIALS + 5):
        denials(denied(number))
    last = denials.last()
    assert len(last) == DENIALS
    assert (last[0].session, last[-1].session) == (DENIALS + 4, 5)


def test_who_listens_hears_of_the_next_ones() -> None:
    denials, heard = Denials(), list[Event]()
    denials(denied(1))

    def once(event: Denied) -> None:
        heard.append(event)
        denials.heard_by.discard(once)

    denials.heard_by.add(once)
    denials(denied(2))
    denials(denied(3))
    assert heard == [denied(2)]


def test_of_datagrams_some_are_kept_in_each_second() -> None:
    """One who sends to everywhere drives out nobody else's refusals."""
    denials = Denials()
    heard: list[float] = []
    denials.heard_by.add(lambda event: heard.append(event.started))
    for time in (5.0, 6.0):
        for _ in range(DATAGRAMS + 5):
            denials(replace(denied(1), started=time, datagram=True))
    denials(denied(2))
    assert heard == [5.0] * DATAGRAMS + [6.0] * DATAGRAMS + [5.0]
    assert denials.count == len(denials.last()) == 2 * DATAGRAMS + 1
