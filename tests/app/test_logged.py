"""Lines of the access log, read back."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from socksd.address import Destination
from socksd.app.logged import question_of
from socksd.codes import Command
from socksd.facts import ANONYMOUS, Facts, Principal
from socksd.observe.access import record
from socksd.policy.explain import Question
from tests.observe.closed import SERVED


def test_a_line_of_the_log_is_what_was_asked() -> None:
    closed = replace(
        SERVED,
        started=1700000000.25,
        user="alice",
        command=Command.CONNECT,
        destination=Destination("a.example", 443),
        groups=frozenset({"ops"}),
        address=ip_address("192.0.2.80"),
        addresses=(),
    )
    alice = Principal("alice", frozenset({"ops"}))
    facts = Facts(closed.client, closed.listener, alice, time=1700000000.25)
    facts = facts.asking(Command.CONNECT, Destination("a.example", 443))
    assert question_of(record(closed)) == Question(facts, (ip_address("192.0.2.80"),))
    unresolved = record(replace(closed, address=None))
    assert question_of(unresolved) == Question(facts)
    literal = replace(closed, destination=Destination(ip_address("192.0.2.80"), 443))
    assert question_of(record(literal)) == Question(
        replace(facts, destination=literal.destination, address=ip_address("192.0.2.80"))
    )


def test_who_asked_for_nothing_is_a_question_about_the_client() -> None:
    closed = replace(SERVED, user=None, command=None, destination=None, address=None, started=0.0)
    assert question_of(record(closed)) == Question(Facts(closed.client, closed.listener, ANONYMOUS))


def line(**changes: Any) -> str:
    written: dict[str, Any] = json.loads(record(SERVED))
    return json.dumps(written | changes)


def test_groups_and_all_addresses_are_taken_where_the_line_has_them() -> None:
    question = question_of(
        line(user="bob", groups=["ops"], host="a.example", port=1, command="connect",
             addresses=["192.0.2.1", "192.0.2.2"])
    )  # fmt: skip
    assert question.facts.principal == Principal("bob", frozenset({"ops"}))
    assert question.addresses == (ip_address("192.0.2.1"), ip_address("192.0.2.2"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", r"'\[\]' is no object"),
        ("{}", "the line has no 'user'"),
        (line(client="a.example"), "'a.example' is a name; here stands an address"),
        (line(time=3), "no line of the access log: fromisoformat"),
        (line(time="yesterday"), "Invalid isoformat string"),
        (line(command="fetch", host="a.example", port=1), "'fetch' is none of"),
        (line(command="connect", host=None, port=1), "must be a string"),
        (line(command="connect", host="a.example", port=None), "no line of the access log"),
    ],
)
def test_anything_else_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        question_of(text)
