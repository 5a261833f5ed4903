"""What would turn a verdict."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given

from socksd.address import Destination
from socksd.codes import Command
from socksd.facts import ANONYMOUS, Facts, Principal
from socksd.policy.explain import Question, outcome
from socksd.policy.guard import Guard
from socksd.policy.match import Condition
from socksd.policy.nearest import SOMEBODY, Change, addresses_of, changed, nearest, options
from socksd.policy.sets import HostSet
from tests.policy.test_explain import QUESTIONS
from tests.policy.test_rules import DEFER, GUARD, GUARDS, TABLES, Table, policy

MONDAY = datetime(2026, 1, 5, 9, 30, tzinfo=UTC).timestamp()
ALICE = Principal("alice")


def asking(
    host: str = "a.example",
    port: int = 443,
    *addresses: str,
    who: Principal = ALICE,
    listener: str = "office",
    client: str = "10.1.0.1",
) -> Question:
    facts = Facts(ip_address(client), listener, who, time=MONDAY)
    facts = facts.asking(Command.CONNECT, Destination.named(host, port))
    return Question(facts, tuple(map(ip_address, addresses)) or None)


def turns(tables: list[Table], question: Question, guard: Guard | None = None) -> list[str]:
    return [
        " and ".join(f"{change.key}={change.text}" for change in turn.changes)
        + f" -> {turn.decision.verdict.value} {turn.decision.rule}"
        for turn in nearest(policy(*tables, guard=guard), question)
    ]


def rule(action: str = "allow", **keys: Any) -> Table:
    return {"id": "r", "action": action} | keys


@given(TABLES, GUARDS, QUESTIONS)
def test_every_turn_turns_the_verdict(
    tables: list[Table], guard: Guard | None, question: Question
) -> None:
    rules = policy(*tables, guard=guard)
    now = outcome(rules, question).verdict
    found = nearest(rules, question)
    for turn in found:
        decision = outcome(rules, changed(question, turn.changes))
        assert decision == turn.decision
        assert decision.verdict is not now
        assert len({change.key for change in turn.changes}) == len(turn.changes)
    assert len({len(turn.changes) for turn in found}) <= 1
    assert not (found and now is DEFER)


@pytest.mark.parametrize(
    ("keys", "question", "turn"),
    [
        ({"user": ["bob", "carol"]}, asking(), "user=bob -> allow r"),
        ({"user": "@any"}, asking(who=ANONYMOUS), "user=anybody who logs in -> allow r"),
        ({"user": "@none"}, asking(), "user=nobody, without login -> allow r"),
        ({"group": "ops"}, asking(), "group=ops -> allow r"),
        ({"group": "dba"}, asking(who=ANONYMOUS), "user=alice -> allow r"),
        ({"listener": "lab"}, asking(), "listener=lab -> allow r"),
        ({"command": "bind"}, asking(), "command=bind -> allow r"),
        ({"ports": ["1-100", "500-600", 8000]}, asking(), "port=500 -> allow r"),
        ({"ports": "60000-65535"}, asking(), "port=60000 -> allow r"),
        ({"when": "tue 08:00-18:00 UTC"}, asking(), "at=tue 08:00 UTC -> allow r"),
        ({"from": "192.0.2.0/24"}, asking(), "from=192.0.2.1 -> allow r"),
        ({"from": "fd00::1"}, asking(), "from=fd00::1 -> allow r"),
        ({"not_from": "10.0.0.0/8", "from": "10.1.0.1"}, asking(), None),
        ({"to": "b.example"}, asking(), "host=b.example -> allow r"),
        ({"to": ".test"}, asking(), "host=test -> allow r"),
        ({"to": "db-?.*"}, asking(), "host=db-x.x -> allow r"),
        ({"to": "192.0.2.0/24"}, asking(), "host=192.0.2.1 -> allow r"),
        (
            {"to": "192.0.2.0/24"},
            asking("a.example", 443, "10.0.0.1"),
            "resolves=192.0.2.1 -> allow r",
        ),
        (
            {"resolves_to": "192.0.2.7"},
            asking("a.example", 443, "10.0.0.1"),
            "resolves=192.0.2.7 -> allow r",
        ),
        (
            {"require": "hostname"},
            asking("10.0.0.1"),
            "host=a name instead of the address -> allow r",
        ),
    ],
)  # fmt: skip
def test_one_fact_that_would_allow_it(keys: Table, question: Question, turn: str | None) -> None:
    rules = policy(rule(**keys))
    assert outcome(rules, question).verdict.value in ("deny", "defer")
    if outcome(rules, question).verdict is not DEFER:
        assert turns([rule(**keys)], question)[:1] == ([turn] if turn else [])


def test_a_name_asked_for_by_address_leads_where_that_was() -> None:
    question = asking("10.0.0.1")
    turned = changed(question, [Change("host", "b.example", "b.example")])
    assert turned.addresses == (ip_address("10.0.0.1"),)
    assert turned.facts.address is None


def test_what_is_allowed_may_be_denied_by_asking_for_the_address() -> None:
    tables = [rule(require="hostname")]
    question = asking("a.example", 443, "198.51.100.1")
    assert turns(tables, question) == ["host=198.51.100.1 -> deny default"]


def test_several_facts_change_where_one_would_not_do() -> None:
    tables = [
        {"id": "no-mail", "action": "deny", "ports": 25},
        rule(user="bob", ports=[25, 26], to="b.example"),
    ]
    assert turns(tables, asking(port=25)) == ["user=bob and port=26 and host=b.example -> allow r"]
    found = turns(tables, asking("b.example", 25))
    assert "user=bob and port=26 -> allow r" in found


def test_the_rules_of_others_help_to_get_by() -> None:
    """Changes are combined across rules: away from what denies, to what allows."""
    tables = [
        {"id": "no-mail", "action": "deny", "ports": 25},
        rule(user="bob"),
    ]
    assert turns(tables, asking(port=25)) == ["port=24 and user=bob -> allow r"]


def test_before_the_name_is_looked_up_it_may_come_to_depend_on_that() -> None:
    assert turns([rule(user="bob")], asking(), GUARD) == ["user=bob -> defer guard"]


def test_nothing_is_found_where_nothing_would_do() -> None:
    assert turns([], asking()) == []
    assert turns([rule("deny")], asking()) == []
    assert turns([rule(to="a.example", resolves_to="10.0.0.1")], asking()) == []  # not settled


def test_rules_on_trial_turn_nothing() -> None:
    assert turns([rule(user="bob", mode="report")], asking()) == []


def test_a_session_without_a_request_asks_for_nothing_else() -> None:
    question = Question(Facts(ip_address("10.1.0.1"), "office", time=MONDAY))
    tables = [rule("deny", listener="office", ports=443), rule("deny", listener="office")]
    tables[1]["id"] = "s"
    assert turns(tables, question) == []
    tables = [rule("deny", listener="lab"), rule("deny", group="ops")]
    tables[1]["id"] = "s"
    assert turns(tables, question) == []


def test_who_has_not_logged_in_has_no_groups() -> None:
    question = asking(who=ANONYMOUS)
    assert changed(question, [Change("group", "ops", "ops")]) == question
    (condition,) = policy(rule(user="@any")).rules[0].conditions
    assert [change.value for change in options(condition, question)] == [SOMEBODY]


def test_nobody_can_change_which_share_they_are_in() -> None:
    conditions = policy(rule(share=0.5, mode="report")).rules[0].conditions
    assert list(options(conditions[0], asking())) == []


@pytest.mark.parametrize(
    "glob",
    [
        pytest.param(".".join(["*" + "a" * 60] * 4) + ".*" + "b" * 20, id="too long"),
        pytest.param("0?0", id="an address, so written out"),
    ],
)
def test_a_glob_for_which_no_name_is_found_is_left_out(glob: str) -> None:
    conditions: tuple[Condition, ...] = policy(rule(to=glob)).rules[0].conditions
    assert list(options(conditions[0], asking())) == []


def test_addresses_are_hosts_and_not_the_networks_themselves() -> None:
    for condition in policy(rule(to=["10.0.0.0/8", "192.0.2.7", "fd00::/8"])).rules[0].conditions:
        sets: frozenset[HostSet] = condition.sets  # type: ignore[attr-defined]  # it is of "to"
        assert list(map(str, addresses_of(sets))) == ["192.0.2.7", "10.0.0.1", "fd00::1"]
