"""Lines of the access log, taken apart again."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import Destination
from socksd.codes import Command
from socksd.events import Asked, Outcome
from socksd.facts import Principal, Verdict
from socksd.observe import access
from socksd.policy.records import Unusable, Unused, moment, read, record, unspelled
from tests.observe.closed import SERVED

LINE = access.record(SERVED)


def line(**changed: object) -> str:
    """Give the line with other values; ``...`` takes a key out."""
    written: dict[str, Any] = json.loads(LINE) | changed
    return json.dumps({key: value for key, value in written.items() if value is not ...})


def why(text: str) -> Unused:
    with pytest.raises(Unusable) as caught:
        record(read(text)[1])
    return caught.value.why


def test_what_was_decided_is_found_again_with_all_facts() -> None:
    found = record(read(LINE)[1])
    assert (found.verdict, found.rule, found.user) == (Verdict.ALLOW, "local", "alice")
    assert (found.asked, found.dialled) == (Asked.ADDRESS, SERVED.address)
    facts = found.asking(7.0, found.addresses[1])
    assert facts.principal == Principal("alice", frozenset({"ops", "dba"}))
    assert (facts.command, facts.destination) == (Command.CONNECT, SERVED.destination)
    assert (facts.address, facts.time) == (ip_address("2001:db8::1"), 7.0)
    assert found.connecting(7.0).principal is None


def test_lines_that_differ_in_the_time_only_have_one_key() -> None:
    """So that a hundred thousand sessions of one kind are decided once."""
    other = access.record(replace(SERVED, started=SERVED.started + 86_400, session=18, up=0))
    assert read(LINE)[1] == read(other)[1]
    assert read(LINE)[1] != read(line(rule="other"))[1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(LINE[:-2], Unused.TORN, id="half a line"),
        pytest.param("[]", Unused.TORN, id="no object"),
        pytest.param("[" * 100_000, Unused.TORN, id="too deep"),
        pytest.param(line(verdict=...), Unused.LACKING, id="a key is missing"),
        pytest.param(line(groups=7), Unused.UNREADABLE, id="no list"),
        pytest.param(line(rule={}), Unused.UNREADABLE, id="a table"),
        pytest.param(line(client="here"), Unused.UNREADABLE, id="no address"),
        pytest.param(line(port="80"), Unused.UNREADABLE, id="no number"),
        pytest.param(line(port=True), Unused.UNREADABLE, id="a boolean is no number"),
        pytest.param(line(command="ping"), Unused.UNREADABLE, id="no command"),
        pytest.param(line(verdict="maybe"), Unused.UNREADABLE, id="no verdict"),
        pytest.param(line(addresses=[]), Unused.UNREADABLE, id="an address, but which"),
        pytest.param(line(outcome=Outcome.ERROR), Unused.BUG, id="a bug"),
        pytest.param(line(asked=None), Unused.NOT_ASKED, id="nothing was decided"),
        pytest.param(line(asked="client"), Unused.NOT_ASKED, id="of the client only"),
    ],
)
def test_a_line_that_says_nothing_of_a_decision_says_why(text: str, reason: Unused) -> None:
    assert why(text) is reason


@given(st.text() | st.integers(0, len(LINE)).map(lambda cut: LINE[:cut]))
def test_no_text_is_more_than_unusable(text: str) -> None:
    """A log may be cut anywhere, or be another program's."""
    with suppress(Unusable):
        record(read(text)[1])


def test_an_association_has_no_destination() -> None:
    found = record(read(line(command="udp", host="192.0.2.1", literal=True, asked="request"))[1])
    assert (found.command, found.destination, found.literal) == (Command.UDP_ASSOCIATE, None, None)


def test_a_literal_is_its_own_address() -> None:
    found = record(read(line(host="::ffff:192.0.2.80", literal=True, asked="request"))[1])
    assert found.literal == ip_address("192.0.2.80")
    assert found.settled
    assert found.asking(0.0).address == ip_address("192.0.2.80")
    named = record(read(line(asked="request", addresses=[]))[1])
    assert not named.settled
    assert named.destination == Destination("example.com", 443)


@given(st.binary().map(lambda octets: octets.decode("utf-8", "surrogateescape")))
def test_a_users_name_is_the_one_that_was_logged_in_as(name: str) -> None:
    """Whatever octets it has: two names never become one."""
    written, _ = read(access.record(replace(SERVED, user=name)))
    assert unspelled(str(written["user"])) == name


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("1970-01-01T00:00:01Z", 1.0), ("2026-01-01T00:00:00.123Z", 1767225600.123)],
)
def test_a_time_is_seconds_of_utc(written: str, seconds: float) -> None:
    assert moment(written) == seconds


@pytest.mark.parametrize("written", ["2026-01-01T00:00:00", "2026-01-01T00:00:00+02:00", "Z", 7])
def test_a_time_of_somewhere_else_is_none(written: object) -> None:
    with pytest.raises(Unusable):
        moment(written)
