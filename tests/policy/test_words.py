"""Conditions and facts in words."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from socksd.address import Destination
from socksd.codes import Command
from socksd.facts import ANONYMOUS, Facts, Principal
from socksd.policy.match import minute
from socksd.policy.words import UNKNOWN, clock, found, next_minute, wanted
from tests.policy.test_rules import policy

BARE = Facts(ip_address("10.1.0.1"), "office")
TUESDAY = datetime(2026, 1, 6, 22, 5, tzinfo=UTC).timestamp()
WHOLE = Facts(
    BARE.client, "office", Principal("alice", frozenset({"ops", "dba"})), time=TUESDAY
).asking(Command.CONNECT, Destination("a.example", 443))


def condition(key: str, value: Any, **more: Any) -> Any:
    table = {"id": "r", "action": "deny", key: value} | more
    return next(c for c in policy(table).rules[0].conditions if c.key == key)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("listener", ["office", "lab"], "lab, office"),
        ("user", ["bob", "@none", "alice", "@any"], "alice, bob, @any, @none"),
        ("group", ["ops", "dba"], "dba, ops"),
        ("command", ["udp", "bind"], "bind, udp"),
        ("ports", [443, "80-90", 91], "80-91, 443"),
        ("ports", list(range(1, 20, 2)), "1, 3, 5, 7, 9, 11 and 4 more"),
        ("when", "mon-fri 07:00-20:00 Europe/Berlin", "mon-fri 07:00-20:00 Europe/Berlin"),
        ("when", "mon,tue,thu,sun 07:00-24:00 UTC", "mon,tue,thu,sun 07:00-24:00 UTC"),
        ("when", ["sat 22:00-02:00 UTC", "mon UTC"], "mon 00:00-24:00 UTC, sat 22:00-02:00 UTC"),
        ("when", "sat-sun UTC", "sat 00:00 to mon 00:00 UTC"),
        ("from", ["10.0.0.0/8", "10.1.0.1", "::1", "@lan"], "10.1.0.1, 10.0.0.0/8, ::1, @lan"),
        ("not_from", "@private", "@private"),
        (
            "to",
            ["db-*.x", ".example", "a.b", "192.0.2.0/24"],
            "a.b, .example, db-*.x, 192.0.2.0/24",
        ),
        ("not_to", "a.example", "a.example"),
        ("resolves_to", "fd00::/8", "fd00::/8"),
        ("require", "hostname", "hostname"),
    ],
)
def test_what_a_condition_wants_reads_like_the_configuration(
    key: str, value: Any, words: str
) -> None:
    assert wanted(condition(key, value)) == words


def test_a_share_is_told_as_one() -> None:
    assert wanted(condition("share", 0.05, mode="report")) == "0.05 of the people"
    assert found(condition("share", 0.05, mode="report"), WHOLE) == "alice"


@pytest.mark.parametrize(
    ("key", "value", "bare", "whole", "landed"),
    [
        ("listener", "lab", "office", "office", "office"),
        ("user", "bob", UNKNOWN, "alice", "alice"),
        ("group", "ops", UNKNOWN, "alice in dba, ops", "alice in dba, ops"),
        ("command", "bind", UNKNOWN, "connect", "connect"),
        ("ports", 80, UNKNOWN, "443", "443"),
        ("when", "mon UTC", "thu 00:00 UTC", "tue 22:05 UTC", "tue 22:05 UTC"),
        ("from", "::1", "10.1.0.1", "10.1.0.1", "10.1.0.1"),
        ("not_from", "::1", "10.1.0.1", "10.1.0.1", "10.1.0.1"),
        ("to", "b.example", UNKNOWN, "a.example", "a.example"),
        ("to", "::1", UNKNOWN, "a.example, whose address is not known yet",
         "a.example at 192.0.2.1"),
        ("not_to", "b.example", UNKNOWN, "a.example", "a.example"),
        ("resolves_to", "::1", UNKNOWN, UNKNOWN, "192.0.2.1"),
        ("require", "hostname", UNKNOWN, "a.example", "a.example"),
    ],
)  # fmt: skip
def test_what_the_fact_is_stands_beside_it(
    key: str, value: Any, bare: str, whole: str, landed: str
) -> None:
    asks = condition(key, value)
    assert found(asks, BARE) == bare
    assert found(asks, WHOLE) == whole
    assert found(asks, WHOLE.at(ip_address("192.0.2.1"))) == landed


def test_an_address_that_was_asked_for_is_told_once() -> None:
    literal = BARE.asking(Command.CONNECT, Destination.named("192.0.2.1", 80))
    assert found(condition("to", "::1"), literal) == "192.0.2.1"


def test_who_comes_without_login_is_nobody() -> None:
    assert found(condition("user", "bob"), BARE.known_as(ANONYMOUS)) == "nobody, without login"


def test_the_clock_is_that_of_the_zone() -> None:
    assert clock(TUESDAY, ZoneInfo("Asia/Kolkata")) == "wed 03:35 Asia/Kolkata"


@pytest.mark.parametrize("of_week", [0, 1, 2 * 24 * 60 + 35, 7 * 24 * 60 - 1])
def test_the_next_minute_of_the_week_is_the_next_one(of_week: int) -> None:
    found = next_minute(TUESDAY + 7, UTC, of_week)
    assert minute(found, UTC) == of_week
    assert found % 60 == 0
    assert TUESDAY - 60 < found < TUESDAY + 7 * 24 * 3600
