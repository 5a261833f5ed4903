from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from socksd.address import Destination
from socksd.codes import Command
from socksd.facts import ANONYMOUS, Decision, Facts, Principal, Verdict
from socksd.interfaces import IPolicy
from socksd.policy import remembered
from socksd.policy.guard import Guard
from socksd.policy.remembered import Remembered
from tests.policy.test_rules import FULL, GUARDS, TABLES, Table, partial, policy

ASKED = Facts(ip_address("10.0.0.1"), "office", ANONYMOUS).asking(
    Command.CONNECT, Destination.named("a.example", 80)
)


class Asked:
    """A policy that counts what it is asked."""

    def __init__(self, *tables: Table) -> None:
        self.count = 0
        self._policy = policy(*tables)
        self.rules = self._policy.rules

    def decide(self, facts: Facts) -> Decision:
        self.count += 1
        return self._policy.decide(facts)


def asked(*tables: Table) -> tuple[Asked, Remembered]:
    counting: Any = Asked(*tables)
    return counting, Remembered(counting)


def test_it_is_a_policy() -> None:
    assert verifyObject(IPolicy, Remembered(policy()))


@given(TABLES, st.lists(FULL, min_size=1, max_size=4), GUARDS)
def test_it_says_what_the_policy_says_whatever_it_was_asked_before(
    tables: list[Table], many: list[Facts], guard: Guard | None
) -> None:
    rules = policy(*tables, guard=guard)
    memory = Remembered(rules)
    questions = [some for facts in many for some in partial(facts).values()]
    for facts in (*questions, *questions):
        assert memory.decide(facts) == rules.decide(facts)


def test_what_it_is_asked_again_it_does_not_ask_again() -> None:
    counting, memory = asked({"action": "deny", "to": "10.0.0.0/8", "id": "inside"})
    first = memory.decide(ASKED)
    assert memory.decide(replace(ASKED, time=1.0, certificate="ab")) == first
    assert counting.count == 1
    memory.decide(ASKED.at(ip_address("10.0.0.2")))
    assert counting.count == 2


BY_CLIENT = {"action": "allow", "from": "10.0.0.0/8", "id": "by-client"}
BY_USER = {"action": "allow", "user": "alice", "id": "by-user"}
BY_SHARE = {"action": "allow", "share": 0.5, "mode": "report", "id": "by-share"}


@pytest.mark.parametrize(
    ("tables", "change", "count"),
    [
        pytest.param([], {"listener": "lab"}, 2, id="the listener"),
        pytest.param([], {"command": Command.BIND}, 2, id="the command"),
        pytest.param([], {"destination": Destination("b.example", 80)}, 2, id="the name"),
        pytest.param([], {"destination": Destination("a.example", 81)}, 2, id="the port"),
        pytest.param([], {"destination": None}, 2, id="no destination"),
        pytest.param([], {"address": ip_address("10.0.0.1")}, 2, id="the address"),
        pytest.param([], {"client": ip_address("10.0.0.2")}, 1, id="no rule looks at clients"),
        pytest.param([BY_CLIENT], {"client": ip_address("10.0.0.2")}, 2, id="one does"),
        pytest.param([BY_SHARE], {"client": ip_address("10.0.0.2")}, 2, id="one draws lots"),
        pytest.param([], {"principal": Principal("alice")}, 1, id="no rule looks at users"),
        pytest.param([BY_USER], {"principal": Principal("alice")}, 2, id="one does so"),
        pytest.param(
            [BY_USER], {"principal": Principal(None, frozenset({"a"}))}, 2, id="or at groups"
        ),
    ],
)
def test_questions_differ_by_the_request_and_by_what_rules_look_at(
    tables: list[Table], change: dict[str, Any], count: int
) -> None:
    counting, memory = asked(*tables)
    memory.decide(ASKED)
    memory.decide(replace(ASKED, **change))
    assert counting.count == count


def test_an_address_of_one_family_is_none_of_the_other() -> None:
    """::a00:1 has the number of 10.0.0.1, and is elsewhere."""
    memory = Remembered(policy({"action": "allow", "to": "10.0.0.0/8", "id": "inside"}))
    verdicts = [
        memory.decide(ASKED.asking(Command.CONNECT, Destination(address, 80)).at(address)).verdict
        for address in (IPv4Address("10.0.0.1"), IPv6Address(int(IPv4Address("10.0.0.1"))))
    ]
    assert verdicts == [Verdict.ALLOW, Verdict.DENY]


def test_hours_are_looked_at_each_time() -> None:
    counting, memory = asked(
        {"action": "allow", "when": ["mon-fri 08:00-18:00 UTC"], "id": "work"},
    )
    night = replace(ASKED, time=1761519600.0)  # a Sunday, 23:00 UTC
    assert memory.decide(night).verdict is Verdict.DENY
    assert memory.decide(replace(night, time=night.time + 12 * 3600)).verdict is Verdict.ALLOW
    memory.decide(night)
    assert counting.count == 3


def test_it_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST", 3)
    counting, memory = asked()
    questions = [
        ASKED.asking(Command.CONNECT, Destination("a.example", port)) for port in range(1, 5)
    ]
    for question in (*questions[:3], *questions[:3]):
        memory.decide(question)
    assert counting.count == 3
    memory.decide(questions[3])  # all others are forgotten
    memory.decide(questions[3])
    assert counting.count == 4
    memory.decide(questions[0])
    assert counting.count == 5


def test_all_that_facts_have_is_thought_of() -> None:
    """A new fact belongs into the question, or is one that no rule looks at."""
    asked_by = {"client", "listener", "principal", "command", "destination", "address"}
    by_the_minute, by_no_rule = {"time"}, {"certificate"}
    assert {field.name for field in fields(Facts)} == asked_by | by_the_minute | by_no_rule
