from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent

from socksd.address import Destination
from socksd.codes import Command, ReplyCode
from socksd.events import (
    DatagramsDropped,
    DatagramTarget,
    Denied,
    LoginRefused,
    Outcome,
    SessionOpened,
    StrangerTurnedAway,
)
from socksd.facts import Decision, Verdict
from socksd.interfaces import Drop
from socksd.observe import lines
from socksd.observe.batch import DELAY
from socksd.observe.log import LINES_A_SECOND, PeopleLog
from tests.observe.closed import DENIED, SERVED

REFUSED = LoginRefused(9, IPv4Address("192.0.2.7"), 5555, "bob", "wrong password")
BY_DEFAULT = replace(DENIED, decision=Decision(Verdict.DENY, "default"))
ENDED = replace(SERVED, outcome=Outcome.DENIED, reply=ReplyCode.NOT_ALLOWED)

TARGET = DatagramTarget(
    session=17,
    client=IPv4Address("192.0.2.7"),
    client_port=5555,
    user=None,
    destination=Destination("example.com", 53),
    decision=Decision(Verdict.ALLOW, "staff"),
    address=IPv4Address("192.0.2.80"),
    reason="",
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> Iterator[PeopleLog]:
    log = PeopleLog(clock)
    yield log
    log.close()
    assert clock.getDelayedCalls() == []


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    with capturedLogs() as captured:
        yield cast("list[LogEvent]", captured)


def said(events: list[LogEvent]) -> list[str]:
    return [formatEvent(event) for event in events]


def test_a_session_that_ends_has_its_canonical_line_a_moment_later(
    log: PeopleLog, clock: Clock, events: list[LogEvent]
) -> None:
    log(SERVED)
    assert events == []
    clock.advance(DELAY)
    (event,) = events
    assert formatEvent(event) == lines.session(SERVED)
    assert event["log_level"] is LogLevel.info
    assert event["log_namespace"] == "socksd"


def test_a_failed_login_is_a_warning_at_once(log: PeopleLog, events: list[LogEvent]) -> None:
    log(REFUSED)
    (event,) = events
    assert formatEvent(event) == lines.login_failed(REFUSED)
    assert event["log_level"] is LogLevel.warn


def test_strangers_are_told_but_not_without_end(
    log: PeopleLog, clock: Clock, events: list[LogEvent]
) -> None:
    """Anybody who finds the port of a BIND may knock as often as he likes."""
    for port in range(LINES_A_SECOND + 7):
        log(StrangerTurnedAway(17, IPv4Address("203.0.113.5"), port))
    assert len(events) == LINES_A_SECOND
    assert said(events)[0] == lines.turned_away(
        StrangerTurnedAway(17, IPv4Address("203.0.113.5"), 0)
    )
    clock.advance(1)
    assert said(events)[-1] == "suppressed 7 more lines: has turned away"


def test_a_denial_is_a_warning_at_once_and_only_once(
    log: PeopleLog, clock: Clock, events: list[LogEvent]
) -> None:
    log(DENIED)
    assert said(events) == [lines.denied(DENIED)]
    assert events[0]["log_level"] is LogLevel.warn
    log(ENDED)
    clock.advance(DELAY)
    assert said(events)[1:] == [lines.session(ENDED)]


def test_what_a_rule_wants_out_of_the_logs_has_no_line(
    log: PeopleLog, events: list[LogEvent]
) -> None:
    log(replace(DENIED, decision=replace(DENIED.decision, log=False)))
    log(replace(ENDED, logged=False))
    log(replace(SERVED, logged=False))
    assert events == []


def test_who_is_denied_by_default_is_told_of_at_most_once_a_minute(
    log: PeopleLog, clock: Clock, events: list[LogEvent]
) -> None:
    hint = lines.hint(BY_DEFAULT.client)
    log(BY_DEFAULT)
    assert said(events)[1] == hint
    clock.advance(59.9)
    log(BY_DEFAULT)
    assert said(events).count(hint) == 1
    clock.advance(0.1)
    log(BY_DEFAULT)
    assert said(events).count(hint) == 2


def test_what_a_rule_denies_needs_no_hint(log: PeopleLog, events: list[LogEvent]) -> None:
    log(DENIED)
    assert lines.hint(DENIED.client) not in said(events)


def test_other_events_say_nothing(log: PeopleLog, events: list[LogEvent]) -> None:
    log(SessionOpened(1, IPv4Address("127.0.0.1"), 40000, "local"))
    assert events == []


def test_a_flood_is_cut_and_counted(log: PeopleLog, clock: Clock, events: list[LogEvent]) -> None:
    """Who reaches the port must not be able to fill the disk."""
    for _ in range(LINES_A_SECOND + 7):
        log(REFUSED)
    assert said(events) == [lines.login_failed(REFUSED)] * LINES_A_SECOND
    clock.advance(1.0)
    assert said(events)[LINES_A_SECOND:] == ["suppressed 7 more lines: login failed"]
    assert events[-1]["log_level"] is LogLevel.warn
    log(REFUSED)
    assert said(events)[-1] == lines.login_failed(REFUSED)


def test_a_flood_of_one_kind_leaves_the_others_their_lines(
    log: PeopleLog, clock: Clock, events: list[LogEvent]
) -> None:
    for _ in range(LINES_A_SECOND + 1):
        log(DENIED)
        log(ENDED)
    events.clear()
    log(REFUSED)
    log(replace(ENDED, outcome=Outcome.TIMED_OUT, reply=None))
    clock.advance(DELAY)
    assert len(events) == 2
    clock.advance(1.0)
    assert said(events)[2:] == [
        "suppressed 1 more lines: denied",
        "suppressed 1 more lines: session outcome=denied",
    ]


@pytest.mark.parametrize("outcome", [Outcome.SERVED, Outcome.RESET, Outcome.IDLE, Outcome.STOPPED])
def test_a_session_that_reached_its_destination_is_always_in_the_log(
    log: PeopleLog, events: list[LogEvent], outcome: Outcome
) -> None:
    for _ in range(3 * LINES_A_SECOND):
        log(replace(SERVED, outcome=outcome))
    log.close()
    assert len(events) == 3 * LINES_A_SECOND


def test_a_quiet_second_says_nothing_and_costs_nothing(
    log: PeopleLog, clock: Clock, events: list[LogEvent]
) -> None:
    for _ in range(LINES_A_SECOND):
        log(REFUSED)
    events.clear()
    clock.advance(1.0)
    assert events == []
    assert clock.getDelayedCalls() == []


def test_closing_says_what_was_suppressed(log: PeopleLog, events: list[LogEvent]) -> None:
    for _ in range(LINES_A_SECOND + 1):
        log(REFUSED)
    log.close()
    assert said(events)[-1] == "suppressed 1 more lines: login failed"


def test_closing_writes_the_sessions_that_wait(log: PeopleLog, events: list[LogEvent]) -> None:
    log(SERVED)
    log.close()
    assert said(events) == [lines.session(SERVED)]


def test_braces_in_a_name_are_no_format(log: PeopleLog, events: list[LogEvent]) -> None:
    event = replace(SERVED, user="{line}")
    log(event)
    log.close()
    assert said(events) == [lines.session(event)]


# -- datagrams ----------------------------------------------------------------


def test_each_target_of_an_association_has_a_line(log: PeopleLog, events: list[LogEvent]) -> None:
    unknown = replace(TARGET, address=None, reason="no such name")
    log(TARGET)
    log(unknown)
    assert said(events) == [lines.target(TARGET), lines.target(unknown)]
    assert {event["log_level"] for event in events} == {LogLevel.info}


def test_a_denied_target_is_a_warning(log: PeopleLog, events: list[LogEvent]) -> None:
    event = replace(DENIED, command=Command.UDP_ASSOCIATE, datagram=True)
    log(event)
    assert said(events) == [lines.denied(event)]
    assert events[0]["log_level"] is LogLevel.warn


def test_what_was_dropped_is_a_line(log: PeopleLog, events: list[LogEvent]) -> None:
    event = DatagramsDropped(17, {Drop.DENIED: 3})
    log(event)
    assert said(events) == [lines.dropped(event)]


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(TARGET, id="target"),
        pytest.param(replace(DENIED, datagram=True), id="denied"),
        pytest.param(DatagramsDropped(17, {Drop.DENIED: 3}), id="dropped"),
    ],
)
def test_who_sends_everywhere_does_not_fill_the_log(
    log: PeopleLog,
    events: list[LogEvent],
    clock: Clock,
    event: DatagramTarget | Denied | DatagramsDropped,
) -> None:
    """To send a datagram to one more address costs nothing."""
    for _ in range(LINES_A_SECOND + 5):
        log(event)
    assert len(events) == LINES_A_SECOND
    clock.advance(1)
    assert said(events)[-1].startswith("suppressed 5 more lines: ")
