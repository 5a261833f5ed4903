"""
The decision, against a naive one that is obviously right.

The universe is small, so that random rules do meet random facts.
"""

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from socksd.address import Destination, normal_host
from socksd.codes import Command
from socksd.errors import AddressError, ConfigError
from socksd.facts import ANONYMOUS, Decision, Facts, Principal, Verdict
from socksd.interfaces import IPolicy
from socksd.policy.load import load_rules
from socksd.policy.match import Answer, Condition
from socksd.policy.rules import DEFAULT, Policy, Rule
from tests.spellings import SPELLINGS

ALLOW, DENY, DEFER = Verdict.ALLOW, Verdict.DENY, Verdict.DEFER
COMMANDS = {"connect": Command.CONNECT, "bind": Command.BIND, "udp": Command.UDP_ASSOCIATE}

Table = dict[str, Any]


def policy(*tables: Table) -> Policy:
    return Policy(load_rules(tables, listeners=("office", "lab")))


# -- the naive decision ----------------------------------------------------------


def any_of(answers: Iterable[Answer]) -> Answer:
    answers = list(answers)
    return True if True in answers else None if None in answers else False


def all_of(answers: Iterable[Answer]) -> Answer:
    answers = list(answers)
    return False if False in answers else None if None in answers else True


def naive_user(value: str, facts: Facts) -> Answer:
    if facts.principal is None:
        return None
    name = facts.principal.name
    return {"@any": name is not None, "@none": name is None}.get(value, value == name)


def naive_target(value: str, facts: Facts) -> Answer:
    if value[0].isdigit() or ":" in value:
        return None if facts.address is None else facts.address in ip_network(value)
    if facts.destination is None:
        return None
    host = facts.destination.host
    if not isinstance(host, str):
        return False
    if value.startswith("."):
        return f".{host}".endswith(value)
    return fnmatchcase(host, value)


def naive_port(value: int | str, facts: Facts) -> Answer:
    if facts.destination is None:
        return None
    first, _, last = str(value).partition("-")
    return int(first) <= facts.destination.port <= int(last or first)


NAIVE = {
    "from": lambda value, facts: facts.client in ip_network(value),
    "listener": lambda value, facts: facts.listener == value,
    "user": naive_user,
    "command": lambda value, facts: facts.command and facts.command == COMMANDS[value],
    "to": naive_target,
    "ports": naive_port,
}


def naive_decision(tables: list[Table], facts: Facts) -> Decision:
    """Gather the verdicts of all rules that may be the first to match."""
    possible: dict[str, str] = {}
    last = {"id": "default", "action": "deny"}
    for table in (*tables, last):
        answer = all_of(
            any_of(NAIVE[key](value, facts) for value in table[key])
            for key in NAIVE
            if key in table
        )
        if answer is not False:
            possible[table["id"]] = table["action"]
        if answer is True:
            break
    if len(set(possible.values())) > 1:
        return Decision(DEFER, next(iter(possible)))
    return Decision(Verdict(table["action"]), table["id"])


# -- a small universe ------------------------------------------------------------

VALUES: dict[str, list[Any]] = {
    "from": ["10.0.0.0/8", "10.1.0.0/16", "10.1.0.1", "::1", "fd00::/8"],
    "listener": ["office", "lab"],
    "user": ["alice", "bob", "@any", "@none"],
    "command": ["connect", "bind", "udp"],
    "to": [
        "a.example",
        ".example",
        "*.example",
        "?.test",
        "*1*",
        "10.0.0.0/8",
        "10.1.0.1",
        "::1",
    ],
    "ports": [80, 443, "1-100", "443-8000"],
}
CLIENTS = [ip_address(text) for text in ("10.0.0.1", "10.1.0.1", "192.0.2.1", "::1", "fd00::1")]
PRINCIPALS = [ANONYMOUS, Principal("alice"), Principal("bob"), Principal("@none")]
HOSTS = [
    "a.example",
    "b.a.example",
    "example",
    "c.test",
    "elsewhere",
    "10.1.0.1",
    "192.0.2.1",
    "::1",
]
PORTS = [22, 80, 100, 443, 8000]


@st.composite
def a_table(draw: st.DrawFn) -> Table:
    table: Table = {"action": draw(st.sampled_from(["allow", "deny"]))}
    for key in draw(st.sets(st.sampled_from(sorted(VALUES)), max_size=3)):
        table[key] = draw(st.lists(st.sampled_from(VALUES[key]), min_size=1, max_size=3))
    return table


def numbered(tables: list[Table]) -> list[Table]:
    return [{"id": f"rule-{index}"} | table for index, table in enumerate(tables)]


TABLES = st.lists(a_table(), max_size=8).map(numbered)
FULL = st.builds(
    Facts,
    client=st.sampled_from(CLIENTS),
    listener=st.sampled_from(["office", "lab"]),
    principal=st.sampled_from(PRINCIPALS),
    command=st.sampled_from(Command),
    destination=st.builds(Destination.named, st.sampled_from(HOSTS), st.sampled_from(PORTS)),
    address=st.sampled_from(CLIENTS),
)
GROWING = ("principal", "command", "destination", "address")


def partial(facts: Facts) -> dict[frozenset[str], Facts]:
    """Give all that may be known on the way to *facts*, by what is known."""
    found = {}
    for known in product((False, True), repeat=len(GROWING)):
        unknown = [key for key, is_known in zip(GROWING, known, strict=True) if not is_known]
        changes: dict[str, Any] = dict.fromkeys(unknown)
        found[frozenset(GROWING).difference(unknown)] = replace(facts, **changes)
    return found


@given(TABLES, FULL)
def test_an_answer_is_never_contradicted_by_more_facts(tables: list[Table], facts: Facts) -> None:
    """In whatever order they become known."""
    rules = policy(*tables)
    verdicts = {known: rules.decide(some).verdict for known, some in partial(facts).items()}
    for less, verdict in verdicts.items():
        if verdict is not DEFER:
            later = {verdicts[more] for more in verdicts if more > less}
            assert later <= {verdict}


@given(TABLES, FULL)
def test_all_facts_settle_it(tables: list[Table], facts: Facts) -> None:
    """And the rule in the log is the first that matches, or the default."""
    decision = policy(*tables).decide(facts)
    assert decision.verdict is not DEFER
    assert decision == naive_decision(tables, facts)


@given(TABLES, FULL)
def test_it_decides_as_the_naive_one(tables: list[Table], facts: Facts) -> None:
    rules = policy(*tables)
    for some in partial(facts).values():
        assert rules.decide(some) == naive_decision(tables, some)


@given(TABLES)
def test_the_order_of_keys_and_values_changes_nothing(tables: list[Table]) -> None:
    turned = [
        {
            key: value[::-1] if isinstance(value, list) else value
            for key, value in reversed(table.items())
        }
        for table in tables
    ]
    assert policy(*turned) == policy(*tables)


# -- examples --------------------------------------------------------------------

FIRST = Facts(ip_address("10.0.0.1"), "office")
NO_SMTP = {"id": "no-smtp", "action": "deny", "ports": [25, 465, 587]}
STAFF = {"id": "staff", "action": "allow", "user": "@any", "to": [".corp.example", "10.0.0.0/8"]}
NOT_LAB = {"id": "not-lab", "action": "deny", "listener": "lab"}
BY_NAME = {"id": "by-name", "action": "allow", "to": ".corp.example"}
NOT_THERE = {"id": "not-there", "action": "deny", "to": "10.0.0.0/8"}
OPEN = {"id": "open", "action": "allow"}
ALICE = FIRST.known_as(Principal("alice"))


def asking(host: str, port: int = 80) -> Facts:
    return ALICE.asking(Command.CONNECT, Destination.named(host, port))


@pytest.mark.parametrize(
    ("tables", "facts", "decision"),
    [
        pytest.param([], FIRST, Decision(DENY, "default"), id="no rule"),
        pytest.param([OPEN], FIRST, Decision(ALLOW, "open"), id="no condition"),
        pytest.param([STAFF], FIRST, Decision(DEFER, "staff"), id="not known yet who"),
        pytest.param(
            [STAFF], FIRST.known_as(ANONYMOUS), Decision(DENY, "default"), id="without login"
        ),
        pytest.param([STAFF], ALICE, Decision(DEFER, "staff"), id="not known yet where to"),
        pytest.param(
            [STAFF], asking("www.corp.example"), Decision(ALLOW, "staff"), id="by name, no look-up"
        ),
        pytest.param([STAFF], asking("www.test"), Decision(DEFER, "staff"), id="it may lead there"),
        pytest.param(
            [STAFF],
            asking("www.test").at(ip_address("10.1.1.1")),
            Decision(ALLOW, "staff"),
            id="it does",
        ),
        pytest.param(
            [STAFF],
            asking("www.test").at(ip_address("192.0.2.1")),
            Decision(DENY, "default"),
            id="it does not",
        ),
        pytest.param([STAFF], asking("10.1.1.1"), Decision(ALLOW, "staff"), id="a literal"),
        pytest.param(
            [NO_SMTP, STAFF], asking("a.test", 25), Decision(DENY, "no-smtp"), id="first match wins"
        ),
        pytest.param(
            [NO_SMTP, NOT_LAB],
            replace(FIRST, listener="lab"),
            Decision(DENY, "not-lab"),
            id="those before would say the same: the one that surely matches",
        ),
        pytest.param(
            [NO_SMTP], FIRST, Decision(DENY, "default"), id="the same, and that is the default"
        ),
        pytest.param(
            [NO_SMTP, OPEN], FIRST, Decision(DEFER, "no-smtp"), id="the one before may disagree"
        ),
        pytest.param(
            [BY_NAME, NOT_THERE, OPEN],
            FIRST,
            Decision(DEFER, "by-name"),
            id="two before disagree: the first wants to know",
        ),
        pytest.param(
            [NOT_THERE, OPEN],
            asking("0.0.0.0").at(ip_address("10.0.0.1")),
            Decision(DENY, "not-there"),
            id="a name server's answer in a denied network",
        ),
    ],
)
def test_the_first_rule_that_matches_decides(
    tables: list[Table], facts: Facts, decision: Decision
) -> None:
    assert policy(*tables).decide(facts) == decision


def test_one_definite_mismatch_beats_all_that_is_unknown() -> None:
    """Else a rule of another listener would put a decision off to the end."""
    (rule,) = load_rules(
        [{"id": "x", "action": "allow", "user": "alice", "to": "a.example", "from": "192.0.2.1"}],
        listeners=(),
    )
    assert rule.matches(FIRST) is False


def test_each_condition_knows_its_key() -> None:
    """So that an explanation can name the one that failed."""
    table = {key: values[0] for key, values in VALUES.items()}
    (rule,) = policy({"id": "x", "action": "allow"} | table).rules
    conditions: tuple[Condition, ...] = rule.conditions
    assert {condition.key for condition in conditions} == set(VALUES)


def test_it_is_a_policy() -> None:
    assert verifyObject(IPolicy, Policy((Rule("open", ALLOW, ()),)))


def test_no_rule_can_be_mistaken_for_the_default() -> None:
    with pytest.raises(ConfigError):
        policy({"id": DEFAULT, "action": "allow"})


# -- spellings -------------------------------------------------------------------

GUARDED: list[Table] = [
    {
        "id": "guarded",
        "action": "deny",
        "to": ["127.0.0.0/8", "::1", "10.0.0.1", "fd00::/16", "localhost", ".corp.example"],
    },
    {"id": "idna", "action": "deny", "to": "BÜCHER.*"},
    OPEN,
]


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_of_a_destination_passes_a_rule(host: str) -> None:
    rules = policy(*GUARDED)
    for text in SPELLINGS[host]:
        try:
            facts = asking(text)
        except AddressError:
            continue
        assert rules.decide(facts).verdict is not ALLOW, text
        settled = facts if facts.address else facts.at(ip_address("192.0.2.1"))
        assert rules.decide(settled).verdict is DENY, text


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_in_a_rule_makes_it_another(host: str) -> None:
    """It is refused, or it is the very rule that the normal form makes."""
    plain = policy({"id": "x", "action": "deny", "to": str(normal_host(host))})
    loaded = 0
    for text in SPELLINGS[host]:
        try:
            rules = policy({"id": "x", "action": "deny", "to": text})
        except ConfigError:
            continue
        if text.startswith("."):  # a suffix is another thing to say
            continue
        assert rules == plain, text
        loaded += 1
    assert loaded >= 8
