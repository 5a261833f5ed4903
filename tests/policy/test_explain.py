"""Explanations: they say what decide() says, and nothing that is not so."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import Destination
from socksd.codes import Command
from socksd.facts import ANONYMOUS, Decision, Facts, Principal
from socksd.policy.explain import (
    Edit,
    Place,
    Question,
    asked,
    edits,
    explain,
    in_short,
    outcome,
)
from socksd.policy.guard import GUARD as BY_GUARD
from socksd.policy.guard import Guard
from socksd.policy.rules import Policy
from tests.policy.test_rules import (
    ADDRESSES,
    ALLOW,
    CLIENTS,
    DEFER,
    DENY,
    FULL,
    GUARD,
    GUARDS,
    TABLES,
    Table,
    policy,
)

ANSWERS = st.none() | st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=3).map(tuple)


@st.composite
def a_question(draw: st.DrawFn) -> Question:
    full = draw(FULL)
    known = Facts(full.client, full.listener, full.principal, time=full.time)
    if draw(st.integers(0, 9)) == 0:
        return Question(known)
    assert full.command is not None
    assert full.destination is not None
    facts = known.asking(full.command, full.destination)
    return Question(facts, draw(ANSWERS) if facts.address is None else None)


QUESTIONS = a_question()


def as_the_server_does(rules: Policy, question: Question) -> Decision:
    """What server/session.py and server/connect.py do with one session, in a few lines."""
    facts = question.facts
    decision = rules.decide(Facts(facts.client, facts.listener, time=facts.time))
    if decision.verdict is DENY or facts.command is None:
        return decision
    decision = rules.decide(facts)
    if decision.verdict is DENY or facts.address is not None or question.addresses is None:
        return decision
    answers = [rules.decide(facts.at(address)) for address in question.addresses]
    permitted = [answer for answer in answers if answer.verdict is ALLOW]
    return (permitted or answers)[0]


@given(TABLES, GUARDS, QUESTIONS)
def test_what_is_explained_is_what_is_decided(
    tables: list[Table], guard: Guard | None, question: Question
) -> None:
    rules = policy(*tables, guard=guard)
    decision = as_the_server_does(rules, question)
    assert explain(rules, question).decision == decision
    assert outcome(rules, question) == decision


@given(TABLES, GUARDS, QUESTIONS)
def test_each_stage_has_the_answer_to_its_own_facts(
    tables: list[Table], guard: Guard | None, question: Question
) -> None:
    rules = policy(*tables, guard=guard)
    for stage, (place, facts, decision) in zip(
        explain(rules, question).stages, asked(rules, question), strict=True
    ):
        assert (stage.place, stage.decision) == (place, decision)
        assert rules.decide(facts) == decision


@given(TABLES, GUARDS, QUESTIONS)
def test_every_rule_before_the_one_that_decides_has_a_condition_that_is_false(
    tables: list[Table], guard: Guard | None, question: Question
) -> None:
    """But for those on trial; and those that are open while all of them agree."""
    for stage in explain(policy(*tables, guard=guard), question).stages:
        *before, last = stage.said
        assert last.decides
        assert last.rule.matches(stage.facts) is True
        assert (
            last.rule.id == stage.decision.rule
            or stage.decision.rule == BY_GUARD
            or (stage.decision.verdict is DEFER)
        )
        for said in before:
            assert said.rule.matches(stage.facts) is said.answer
            if said.condition is not None:
                assert said.condition in said.rule.conditions
                assert said.condition.matches(stage.facts) is said.answer
            if said.answer is True:
                assert said.rule.on_trial
            elif said.answer is None and not said.rule.on_trial and stage.facts.address is None:
                verdicts = {stage.decision.verdict, said.rule.action}
                assert len(verdicts) == 1 or DEFER in verdicts


@given(TABLES, GUARDS, QUESTIONS)
def test_the_guard_is_named_where_it_takes_back(
    tables: list[Table], guard: Guard | None, question: Question
) -> None:
    stage = explain(policy(*tables, guard=guard), question).decisive
    if stage.decision.rule == BY_GUARD and stage.decision.verdict is DENY:
        assert stage.said[-1].objection == stage.decision.detail
    if stage.decision.verdict is ALLOW:
        assert not stage.said[-1].objection


@given(TABLES, GUARDS, QUESTIONS)
def test_every_edit_turns_the_verdict(
    tables: list[Table], guard: Guard | None, question: Question
) -> None:
    """A rule without the key that is named matches whatever that key would have to hold."""
    rules = policy(*tables, guard=guard)
    explanation = explain(rules, question)
    for edit in edits(rules, explanation):
        assert edit.rule in [said.rule.id for said in explanation.decisive.said]
        if not edit.key:
            kept = tuple(rule for rule in rules.rules if rule.id != edit.rule)
            assert outcome(replace(rules, rules=kept), question) != explanation.decision


# -- by example --------------------------------------------------------------

RULES = policy(
    {"id": "no-mail", "action": "deny", "ports": [25], "text": "Ask."},
    {"id": "try", "action": "deny", "to": ["a.example"], "mode": "report"},
    {"id": "db", "action": "allow", "group": "dba", "to": [".example"], "ports": [5432],
     "resolves_to": ["10.1.0.0/16"]},
    {"id": "web", "action": "allow", "user": "@any", "ports": [80]},
    guard=GUARD,
)  # fmt: skip
ALICE, BOB = Principal("alice"), Principal("bob")


def asking(
    who: Principal, host: str, port: int, *addresses: str, rules: Policy = RULES
) -> tuple[Policy, Question]:
    facts = Facts(CLIENTS[0], "office", who).asking(Command.CONNECT, Destination.named(host, port))
    return rules, Question(facts, tuple(map(ip_address, addresses)) or None)


def in_question(rules: Policy, question: Question, rule: str | None = None) -> str:
    return in_short(explain(rules, question), rule)


def test_a_session_is_explained_stage_by_stage() -> None:
    explanation = explain(*asking(ALICE, "a.example", 5432, "192.168.0.1", "10.1.0.1"))
    assert [(stage.place, stage.decision.verdict) for stage in explanation.stages] == [
        (Place.OPENING, DEFER),
        (Place.REQUEST, DEFER),
        (Place.ADDRESS, DENY),
        (Place.ADDRESS, ALLOW),
    ]
    assert explanation.decisive is explanation.stages[3]
    assert [said.rule.id for said in explanation.decisive.said] == ["no-mail", "try", "db"]


def test_a_refusal_by_all_addresses_is_that_of_the_first() -> None:
    explanation = explain(*asking(ALICE, "a.example", 80, "192.168.0.1", "127.0.0.1"))
    assert explanation.decision.detail == "private"
    assert explanation.decisive is explanation.stages[2]


def test_of_several_permitted_addresses_the_first_stands() -> None:
    """It is the first that is dialled."""
    rules = policy({"id": "a", "action": "allow", "resolves_to": "10.0.0.1"},
                   {"id": "b", "action": "allow", "resolves_to": "10.0.0.2"})  # fmt: skip
    question = asking(ALICE, "a.example", 80, "10.0.0.1", "10.0.0.2", rules=rules)[1]
    assert explain(rules, question).decision.rule == "a"


def test_a_session_without_a_request_is_explained_by_its_address() -> None:
    facts = Facts(CLIENTS[0], "office", ANONYMOUS)
    assert [stage.place for stage in explain(RULES, Question(facts)).stages] == [Place.OPENING]


@pytest.mark.parametrize(
    ("address", "detail", "read_as"),
    [
        pytest.param("64:ff9b::7f00:1", "loopback", "127.0.0.1", id="NAT64"),
        pytest.param("2001:0:c633:6401::80ff:fffe", "loopback", "127.0.0.1", id="Teredo client"),
        pytest.param("::", "loopback", "::1", id="none that stands for another"),
    ],
)
def test_an_address_that_stands_for_another_is_explained_as_what_decided(
    address: str, detail: str, read_as: str
) -> None:
    explanation = explain(*asking(ALICE, "a.example", 80, address))
    assert (explanation.decision.rule, explanation.decision.detail) == (BY_GUARD, detail)
    assert explanation.decisive.facts.address == ip_address(read_as)


def test_an_address_that_is_denied_by_itself_is_explained_as_itself() -> None:
    rules = policy({"id": "no-tunnels", "action": "deny", "to": "@embedded-ipv4"},
                   {"id": "all", "action": "allow"})  # fmt: skip
    explanation = explain(*asking(ALICE, "a.example", 80, "2002:c000:201::1", rules=rules))
    assert explanation.decision.rule == "no-tunnels"
    assert explanation.decisive.facts.address == ip_address("2002:c000:201::1")


@pytest.mark.parametrize(
    ("who", "host", "port", "addresses", "rule", "said"),
    [
        (ALICE, "a.example", 5432, ["10.1.0.1"], None, "allowed by 'db'"),
        (ALICE, "a.example", 25, [], "web",
         "denied by 'no-mail'"),
        (BOB, "a.example", 5432, [], "db",
         "denied by 'default'; 'db' has group = dba, and this is bob"),
        (ALICE, "a.example", 80, [], None,
         "undecided: 'guard' depends on where the name leads"),
        (ALICE, "a.example", 80, ["192.168.0.1"], None,
         "denied by 'guard'; 192.168.0.1 is private, and 'web' does not name it"),
        (ALICE, "a.example", 80, ["127.0.0.1"], None,
         "denied by 'guard'; 127.0.0.1 is loopback, and 'web' cannot open it"),
    ],
)  # fmt: skip
def test_in_short_it_says_who_decides_and_why_not_the_other(
    who: Principal, host: str, port: int, addresses: list[str], rule: str | None, said: str
) -> None:
    assert in_question(*asking(who, host, port, *addresses), rule) == said


@pytest.mark.parametrize(
    ("who", "port", "addresses", "expected"),
    [
        pytest.param(ALICE, 25, ["198.51.100.1"], [], id="without no-mail nothing would allow it"),
        pytest.param(BOB, 5432, ["10.1.0.1"], [Edit("db", "group", "bob")], id="a group"),
        pytest.param(
            ALICE, 5432, ["10.0.0.1"], [Edit("db", "resolves_to", "10.0.0.1")], id="a landing"
        ),
        pytest.param(
            ALICE, 80, ["192.168.0.1"], [Edit("web", "resolves_to", "192.168.0.1")], id="private"
        ),
        pytest.param(ALICE, 80, ["127.0.0.1"], [], id="no edit opens what is never open"),
        pytest.param(
            ALICE, 80, ["198.51.100.1"],
            [Edit("no-mail", "ports", "80"), Edit("web", "", "")], id="allowed now",
        ),
        pytest.param(BOB, 80, [], [], id="not settled"),
        pytest.param(ANONYMOUS, 5432, [], [Edit("db", "group", "nobody, without login")],
                     id="then it depends on the address"),
    ],
)  # fmt: skip
def test_edits_name_the_rule_and_what_it_would_have_to_hold(
    who: Principal, port: int, addresses: list[str], expected: list[Edit]
) -> None:
    rules, question = asking(who, "a.example", port, *addresses)
    assert list(edits(rules, explain(rules, question))) == expected


def test_edits_widen_the_bounds_there_are() -> None:
    """Where the guard objects to a rule that names other private space."""
    rules = policy(
        {"id": "in", "action": "allow", "resolves_to": ["10.1.0.0/16", "0.0.0.0/0"]}, guard=GUARD
    )
    rules, question = asking(ALICE, "a.example", 80, "192.168.0.1", rules=rules)
    assert list(edits(rules, explain(rules, question))) == [
        Edit("in", "resolves_to", "192.168.0.1")
    ]
