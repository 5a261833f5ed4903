"""Every number is what has happened, and there are only so many."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from twisted.internet.task import Clock

from socksd.address import Destination
from socksd.codes import Command, ReplyCode
from socksd.events import (
    Connected,
    ConnectFailed,
    Event,
    LoggedIn,
    LoginRefused,
    Outcome,
    RequestReceived,
    Resolved,
    ResolveFailed,
    SessionClosed,
    SessionOpened,
)
from socksd.observe.fanout import Observers
from socksd.observe.metrics import (
    BOUNDS,
    LAG_EVERY,
    Distribution,
    Kind,
    Labels,
    Metrics,
    ReactorLag,
    Times,
)
from socksd.relay.pump import Pump
from tests.observe.closed import SERVED

CLIENT = IPv4Address("192.0.2.1")


def values(metrics: Metrics, name: str) -> dict[Labels, float | Distribution]:
    (family,) = (each for each in metrics.families() if each.name == name)
    return {labels: value for labels, value in family.values.items() if _is_more_than_none(value)}


def _is_more_than_none(value: float | Distribution) -> bool:
    return bool(sum(value.counts) if isinstance(value, Distribution) else value)


def in_buckets(*seconds: float) -> Distribution:
    times = Times()
    for each in seconds:
        times.add(each)
    return times.now()


@pytest.mark.parametrize(
    ("event", "name", "labels"),
    [
        (SERVED, "socksd_sessions_closed", ("served",)),
        (replace(SERVED, outcome=Outcome.DENIED), "socksd_sessions_closed", ("denied",)),
        (
            replace(SERVED, outcome=Outcome.NO_METHOD),
            "socksd_handshake_failures",
            ("no-method",),
        ),
        (LoggedIn(1, "alice"), "socksd_logins", ("right",)),
        (LoginRefused(1, CLIENT, 1, "alice", "wrong"), "socksd_logins", ("wrong",)),
        (
            RequestReceived(1, Command.CONNECT, Destination("example.com", 1)),
            "socksd_requests",
            ("connect", "name"),
        ),
        (
            RequestReceived(1, Command.BIND, Destination(CLIENT, 1)),
            "socksd_requests",
            ("bind", "address"),
        ),
        (
            ConnectFailed(1, ReplyCode.CONNECTION_REFUSED, "refused", 0.1),
            "socksd_connect_failures",
            ("connection_refused",),
        ),
    ],
)
def test_what_happens_is_counted_once(event: Event, name: str, labels: Labels) -> None:
    metrics = Metrics()
    metrics(event)
    assert values(metrics, name) == {labels: 1}
    metrics(event)
    assert values(metrics, name) == {labels: 2}


def test_a_session_that_was_served_is_no_handshake_that_failed() -> None:
    metrics = Metrics()
    metrics(SERVED)
    assert values(metrics, "socksd_handshake_failures") == {}


@pytest.mark.parametrize(
    ("event", "name", "labels"),
    [
        (Resolved(1, (CLIENT,), 0.3), "socksd_resolve_seconds", ("found",)),
        (ResolveFailed(1, "no such name", 0.3), "socksd_resolve_seconds", ("failed",)),
        (Connected(1, CLIENT, 0.3), "socksd_connect_seconds", ("connected",)),
        (
            ConnectFailed(1, ReplyCode.HOST_UNREACHABLE, "silent", 0.3),
            "socksd_connect_seconds",
            ("failed",),
        ),
    ],
)
def test_what_takes_time_is_timed(event: Event, name: str, labels: Labels) -> None:
    metrics = Metrics()
    metrics(event)
    assert values(metrics, name) == {labels: in_buckets(0.3)}


def test_octets_of_sessions_that_have_ended_are_added_up() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics(SERVED)
    assert (metrics.up, metrics.down) == (2 * SERVED.up, 2 * SERVED.down)


def test_it_is_told_of_what_it_counts_and_of_nothing_else() -> None:
    metrics = Metrics()
    assert SessionClosed in metrics.hears
    before = list(metrics.families())
    Observers(metrics)(SessionOpened(1, CLIENT, 1, "office"))
    assert list(metrics.families()) == before


def test_no_stranger_can_make_a_number() -> None:
    """Names of users and hosts are no labels, nor are reasons."""
    metrics = Metrics()
    size = sum(len(family.values) for family in metrics.families())
    for number in range(50):
        metrics(LoggedIn(number, f"user-{number}"))
        metrics(RequestReceived(number, Command.CONNECT, Destination(f"{number}.example", number)))
        metrics(ResolveFailed(number, f"reason {number}", 0.1))
        metrics(replace(SERVED, user=f"user-{number}", rule=f"rule-{number}"))
    assert sum(len(family.values) for family in metrics.families()) == size < 60


def test_relays_are_counted_by_their_kind() -> None:
    metrics = Metrics()
    metrics.relays[Pump] += 2
    assert values(metrics, "socksd_relays") == {("pump",): 2}


def test_what_was_given_does_not_change_any_more() -> None:
    """It is written in another thread, while sessions go on."""
    metrics = Metrics()
    given = list(metrics.families())
    again = list(Metrics().families())
    metrics(SERVED)
    metrics(Connected(1, CLIENT, 0.1))
    metrics.lag.add(1.0)
    assert given == again


def test_names_are_as_prometheus_has_them() -> None:
    for family in Metrics().families():
        assert re.fullmatch(r"socksd_[a-z_]+", family.name)
        assert not family.name.endswith(("_total", "_count", "_sum"))
        assert (family.kind is Kind.HISTOGRAM) is family.name.endswith("_seconds")
        assert all(len(labels) == len(family.labels) for labels in family.values)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (BOUNDS[0], 0), (BOUNDS[0] + 1e-9, 1), (BOUNDS[-1], -2), (1e9, -1)],
)
def test_a_bound_belongs_to_what_is_below_it(seconds: float, bucket: int) -> None:
    """As Prometheus has it: le is "less or equal"."""
    found = in_buckets(seconds)
    assert found.counts[bucket] == 1
    assert sum(found.counts) == 1
    assert found.sum == seconds


def test_a_reactor_that_is_late_is_measured() -> None:
    clock, times = Clock(), Times()
    lag = ReactorLag(clock, times)
    lag.start()
    clock.advance(LAG_EVERY)
    assert times.now() == in_buckets(0.0)
    clock.advance(LAG_EVERY + 2.0)  # something took two seconds
    assert times.now() == in_buckets(0.0, 2.0)
    clock.advance(LAG_EVERY)
    assert times.now() == in_buckets(0.0, 2.0, 0.0), "from when it was made good"
    lag.stop()
    lag.stop()
    assert clock.getDelayedCalls() == []
