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
from socksd.events import Asked
from socksd.facts import Facts, Principal
from socksd.observe.access import record
from socksd.policy.explain import Question
from socksd.policy.records import Unused
from tests.observe.closed import SERVED


def test_a_line_of_the_log_is_what_was_asked() -> None:
    facts = Facts(
        SERVED.client, SERVED.listener, Principal("alice", frozenset({"ops", "dba"})),
        time=SERVED.started,
    ).asking(Command.CONNECT, Destination("example.com", 443))  # fmt: skip
    assert question_of(record(SERVED)) == Question(facts, SERVED.addresses)
    literal = Destination(ip_address("192.0.2.80"), 443)
    closed = replace(SERVED, destination=literal, asked=Asked.REQUEST, addresses=())
    assert question_of(record(closed)) == Question(facts.asking(Command.CONNECT, literal))


def test_without_all_addresses_it_is_the_one_that_was_dialled() -> None:
    """As of a name that leads to a literal's one, which nobody has to list."""
    closed = replace(SERVED, asked=Asked.REQUEST, addresses=())
    assert question_of(record(closed)).addresses == (closed.address,)
    assert question_of(record(replace(closed, address=None))).addresses is None


def test_a_user_is_read_as_it_was_not_as_the_log_spells_it() -> None:
    """Rules speak of who has logged in; replay reads the same."""
    question = question_of(record(replace(SERVED, user="caf\udce9", groups=frozenset({"\udce9"}))))
    assert question.facts.principal == Principal("caf\udce9", frozenset({"\udce9"}))


def test_who_asked_for_nothing_is_a_question_about_the_client() -> None:
    closed = replace(
        SERVED, command=None, destination=None, address=None, started=0.0, asked=Asked.CLIENT,
        addresses=(),
    )  # fmt: skip
    assert question_of(record(closed)) == Question(Facts(closed.client, closed.listener))


def test_of_an_association_the_policy_is_asked_without_a_destination() -> None:
    """What it names is where the client will send from."""
    closed = replace(SERVED, command=Command.UDP_ASSOCIATE, asked=Asked.REQUEST, addresses=())
    question = question_of(record(closed))
    assert (question.facts.command, question.facts.destination) == (Command.UDP_ASSOCIATE, None)
    assert question.addresses is None


def line(**changes: Any) -> str:
    written: dict[str, Any] = json.loads(record(SERVED))
    return json.dumps(written | changes)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", Unused.TORN),
        ("[]", Unused.TORN),
        ("{}", Unused.LACKING),
        (line(client="a.example"), Unused.UNREADABLE),
        (line(time=3), Unused.UNREADABLE),
        (line(time=None), Unused.UNREADABLE),
        (line(command="fetch"), Unused.UNREADABLE),
        (line(outcome="error"), Unused.BUG),
        (line(asked=None), Unused.NOT_ASKED),
    ],
)
def test_anything_else_is_an_error(text: str, why: Unused) -> None:
    with pytest.raises(ValueError, match=f"nothing to explain: a line {why}"):
        question_of(text)
