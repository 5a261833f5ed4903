"""``[[test]]``: what the policy's owner expects."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from socksd.address import Destination
from socksd.codes import Command
from socksd.errors import Problem
from socksd.facts import ANONYMOUS, Facts, Principal, Verdict
from socksd.policy.cases import Case, failures, load_cases, moment
from socksd.policy.explain import Question
from socksd.policy.values import Wrong
from tests.policy.test_rules import GUARD, Table, policy

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 1, 7, 12, tzinfo=UTC).timestamp()

POLICY = policy(
    {"id": "no-mail", "action": "deny", "ports": 25},
    {"id": "trial", "action": "deny", "mode": "report"},
    {"id": "db", "action": "allow", "group": "dba", "to": ".example", "resolves_to": "10.1.0.0/16",
     "when": "mon-fri 07:00-20:00 UTC"},
    guard=GUARD,
)  # fmt: skip

AS = {"user": "alice", "from": "10.1.0.1", "connect": "a.example:5432"}
TEST = {"as": AS, "resolves": ["10.1.0.7"], "expect": {"action": "allow", "rule": "db"}}


def load(*tables: object, rules: Any = POLICY.rules) -> tuple[tuple[Case, ...], dict[str, str]]:
    found: list[Problem] = []
    cases = load_cases(tables, ("office", "lab"), ("dba", "ops"), rules, found)
    assert len({problem.path for problem in found}) == len(found)
    return cases, {problem.path: problem.message for problem in found}


def problems(table: object, **keys: Any) -> dict[str, str]:
    cases, found = load(table, **keys)
    assert cases == ()
    return found


def test_a_test_is_a_question_and_what_is_expected() -> None:
    cases, found = load(TEST)
    facts = Facts(ip_address("10.1.0.1"), "office", Principal("alice"), time=NOON)
    facts = facts.asking(Command.CONNECT, Destination("a.example", 5432))
    question = Question(facts, (ip_address("10.1.0.7"),))
    assert found == {}
    assert cases == (Case("test[0]", question, Verdict.ALLOW, "db"),)


def test_all_that_can_be_said_is_in_the_question() -> None:
    (case,), _ = load(
        {
            "as": {
                "from": "::ffff:192.0.2.1",
                "user": "alice",
                "group": ["ops", "dba"],
                "listener": "lab",
                "at": "mon 00:00 Europe/Berlin",
                "udp": "[2001:db8::1]:53",
            },
            "expect": {"action": "deny"},
        }
    )
    assert case.question == Question(
        Facts(
            ip_address("192.0.2.1"),
            "lab",
            Principal("alice", frozenset({"ops", "dba"})),
            time=datetime(2026, 1, 5, tzinfo=BERLIN).timestamp(),
        ).asking(Command.UDP_ASSOCIATE, Destination(ip_address("2001:db8::1"), 53))
    )
    assert (case.action, case.rule) == (Verdict.DENY, None)


def test_without_a_user_nobody_has_logged_in() -> None:
    (case,), _ = load(TEST | {"as": {"from": "10.1.0.1", "bind": "a.example:1"}})
    assert case.question.facts.principal is ANONYMOUS


def test_a_gateway_without_listeners_in_its_file_has_tests_too() -> None:
    (case,) = load_cases([TEST], (), ("dba",), POLICY.rules, [])
    assert case.question.facts.listener == ""


@pytest.mark.parametrize(
    ("zones", "text"),
    [
        (["mon-fri 07:00-20:00 Europe/Berlin"], "wed 12:00 Europe/Berlin"),
        ([], "wed 12:00 UTC"),
        (["mon-fri UTC", "mon-fri Europe/Berlin"], "wed 12:00 UTC"),
    ],
)
def test_without_a_time_it_is_a_wednesday_noon(zones: list[str], text: str) -> None:
    """By the clocks that the rules speak of; whenever the test is run."""
    rules = policy(*({"id": f"r{i}", "action": "deny", "when": z} for i, z in enumerate(zones)))
    (case,), _ = load(TEST | {"expect": {"action": "deny"}}, rules=rules.rules)
    week = datetime(2026, 1, 9, tzinfo=UTC)
    assert case.question.facts.time == moment(text, (), week)


def with_as(**keys: Any) -> Table:
    return TEST | {"as": AS | keys}


def without(key: str) -> Table:
    return TEST | {"as": {name: value for name, value in AS.items() if name != key}}


@pytest.mark.parametrize(
    ("table", "path", "message"),
    [
        (3, "", "must be a table, not a number"),
        (TEST | {"as": []}, ".as", "must be a table, not a list"),
        (TEST | {"exect": {}}, ".exect", "there is no such key; did you mean 'expect'?"),
        (with_as(form="::1"), ".as.form", "there is no such key; did you mean 'from'?"),
        (TEST | {"expect": {"action": "allow", "rul": "db"}}, ".expect.rul",
         "there is no such key; did you mean 'rule'?"),
        (TEST | {"expect": {}}, ".expect.action", "is missing"),
        (TEST | {"expect": {"rule": "db"}}, ".expect.action", "is missing"),
        (TEST | {"expect": {"action": "alow"}}, ".expect.action",
         "'alow' is none of 'allow', 'deny'; did you mean 'allow'?"),
        (TEST | {"expect": {"action": "allow", "rule": "dba"}}, ".expect.rule",
         "no rule is named 'dba'; did you mean 'db'?"),
        (TEST | {"expect": {"action": "deny", "rule": "trial"}}, ".expect.rule",
         "no rule is named 'trial'; there are: no-mail, db, default, guard"),
        (TEST | {"resolves": []}, ".resolves", "is empty; leave it out"),
        (TEST | {"resolves": "b.example"}, ".resolves",
         "'b.example' is a name; here stands an address"),
        (TEST | {"resolves": ["10.1.0.1", 3]}, ".resolves[1]", "must be a string, not a number"),
        (with_as(connect="10.1.0.1:80"), ".resolves",
         "an address leads nowhere else; only names have this key"),
        (without("from"), ".as.from", "is missing"),
        (without("connect"), ".as", 'is missing: write one of connect, bind, udp = "host:port"'),
        (with_as(udp="a:1"), ".as", 'has several of connect, bind, udp = "host:port"'),
        (with_as(user="@any"), ".as.user", "'@any' is nobody in particular: write a name"),
        (with_as(user="@none"), ".as.user",
         "'@none' is how rules call a client without login: leave 'user' out"),
        (with_as(group="dbas"), ".as.group", "no group is named 'dbas'; did you mean 'dba'?"),
        (without("user") | {"as": {"from": "::1", "group": "dba", "connect": "a:1"}}, ".as.group",
         "without 'user' nobody has logged in, and there are no groups"),
        (with_as(listener="ofice"), ".as.listener",
         "no listener is named 'ofice'; did you mean 'office'?"),
        (with_as(connect="a.example"), ".as.connect",
         '\'a.example\' is no destination; write one as "host:443" or "[2001:db8::1]:443"'),
        (with_as(connect="a.example:65536"), ".as.connect",
         '\'a.example:65536\' is no destination; write one as "host:443" or "[2001:db8::1]:443"'),
        (with_as(connect="::1:80"), ".as.connect",
         '\'::1:80\': an IPv6 address stands in brackets: "[::1]:80"'),
        (with_as(connect="a b:80"), ".as.connect", "not a host: 'a b'"),
        (with_as(at="tue"), ".as.at",
         '\'tue\' is no time; write one as "tue 22:00" or "tue 22:00 Europe/Berlin"'),
        (with_as(at="tue 24:00"), ".as.at",
         '\'tue 24:00\' is no time; write one as "tue 22:00" or "tue 22:00 Europe/Berlin"'),
        (with_as(at="tues 10:00"), ".as.at",
         "'tues' is no day: mon, tue, wed, thu, fri, sat, sun; did you mean 'tue'?"),
        (with_as(at="tue 10:00 Europe/Berln"), ".as.at",
         "no time zone is named 'Europe/Berln'; did you mean 'Europe/Berlin'?"),
    ],
)  # fmt: skip
def test_a_problem_says_where_and_what_to_write_instead(
    table: object, path: str, message: str
) -> None:
    assert problems(table) == {f"test[0]{path}": message}


def test_a_table_that_is_missing_is_told_once() -> None:
    assert problems({}) == {
        "test[0].as": "is missing",
        "test[0].expect": "is missing",
    }


def test_no_list_is_one_problem() -> None:
    found: list[Problem] = []
    assert load_cases({"as": {}}, (), (), (), found) == ()
    assert found == [Problem("test", "must be a list of tables: write [[test]]")]


def test_good_tests_beside_bad_ones_keep_their_places() -> None:
    cases, found = load(3, TEST)
    assert [case.path for case in cases] == ["test[1]"]
    assert list(found) == ["test[0]"]


def test_while_the_rules_have_problems_their_ids_are_not_looked_for() -> None:
    cases, found = load(TEST | {"expect": {"action": "allow", "rule": "dba"}}, rules=None)
    assert found == {}
    assert cases[0].rule == "dba"


@pytest.mark.parametrize("rule", ["default", "guard"])
def test_the_default_and_the_guard_may_be_expected(rule: str) -> None:
    assert load(TEST | {"expect": {"action": "deny", "rule": rule}})[1] == {}


def test_a_time_needs_a_zone_where_the_rules_speak_of_several() -> None:
    week = datetime(2026, 1, 7, tzinfo=UTC)
    with pytest.raises(
        Wrong, match=r"by which clocks\? Rules speak of Europe/Berlin or UTC; write"
    ):
        moment("tue 10:00", {BERLIN, UTC}, week)
    assert moment("tue 10:00", {BERLIN}, week) == moment("tue 10:00 Europe/Berlin", (), week)
    assert moment("sun 23:59", (), week) == datetime(2026, 1, 11, 23, 59, tzinfo=UTC).timestamp()
    assert moment("mon 00:00", (), week) == datetime(2026, 1, 5, tzinfo=UTC).timestamp()


def failure(**keys: Any) -> str | None:
    (case,), found = load(TEST | keys)
    assert not found
    told = [str(problem) for problem in failures(POLICY, [case])]
    return told[0] if told else None


def test_what_comes_out_as_expected_is_no_problem() -> None:
    assert failure() is None
    assert failure(expect={"action": "allow"}) is None
    assert failure(expect={"action": "deny", "rule": "default"}, resolves="127.0.0.1") is None


WHEN = "'db' has when = mon-fri 07:00-20:00 UTC, and this is sat 12:00 UTC"
PORTS = "'no-mail' has ports = 25, and this is 5432"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            {"as": AS | {"at": "sat 12:00"}},
            f"expected allow by 'db', but it is denied by 'default'; {WHEN}",
        ),
        (
            {"as": AS | {"connect": "a.example:25"}, "expect": {"action": "allow"}},
            "expected allow, but it is denied by 'no-mail'",
        ),
        (
            {"expect": {"action": "deny", "rule": "default"}},
            "expected deny by 'default', but it is allowed by 'db'",
        ),
        (
            {"expect": {"action": "allow", "rule": "no-mail"}},
            f"expected allow by 'no-mail', but it is allowed by 'db'; {PORTS}",
        ),
    ],
)
def test_what_does_not_is_a_problem_with_its_reason(keys: Table, told: str) -> None:
    assert failure(**keys) == f"test[0]: {told}"


def expecting(**reports: str) -> Table:
    return TEST | {"expect": {"action": "allow", "reports": reports}}


def test_what_rules_on_trial_would_have_done_may_be_expected() -> None:
    (right, wrong, none, all_others), found = load(
        expecting(trial="deny"),
        expecting(trial="allow"),
        expecting(),
        TEST,
    )
    assert not found
    assert all_others.reports is None
    assert list(failures(POLICY, [right, all_others])) == []
    assert [problem.message for problem in failures(POLICY, [wrong, none])] == [
        "expected rules on trial to say trial = allow, not trial = deny",
        "expected rules on trial to say nothing, not trial = deny",
    ]


def test_only_rules_on_trial_report() -> None:
    assert problems(expecting(db="deny")) == {"test[0].expect.reports.db": "there is no such key"}
    assert problems(expecting(trail="deny", trial="alow")) == {
        "test[0].expect.reports.trail": "there is no such key; did you mean 'trial'?",
        "test[0].expect.reports.trial": "'alow' is none of 'allow', 'deny'; did you mean 'allow'?",
    }
    cases, found = load(expecting(trail="deny"), rules=None)
    assert cases
    assert not found


def test_a_test_of_a_name_has_to_say_where_it_leads() -> None:
    (case,), _ = load({"as": AS, "expect": {"action": "allow"}})
    (problem,) = failures(POLICY, [case])
    assert problem.message == (
        "expected allow, but it is undecided: 'db' depends on where the name leads;"
        ' say where: resolves = ["ADDRESS"]'
    )
