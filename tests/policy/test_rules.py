"""
The decision, against a naive one that is obviously right.

The universe is small, so that random rules do meet random facts.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from socksd.address import Destination, IPAddress, embedded, normal_host
from socksd.codes import Command
from socksd.errors import AddressError, ConfigError
from socksd.facts import ANONYMOUS, Decision, Facts, Principal, Report, Verdict
from socksd.interfaces import IPolicy
from socksd.policy.guard import Guard
from socksd.policy.index import Index, members
from socksd.policy.load import load_groups, load_rules, load_sets
from socksd.policy.match import Answer, Condition, Share
from socksd.policy.rules import DEFAULT, Policy, Rule
from socksd.policy.special import special_sets
from tests.spellings import SPELLINGS

ALLOW, DENY, DEFER = Verdict.ALLOW, Verdict.DENY, Verdict.DEFER
COMMANDS = {"connect": Command.CONNECT, "bind": Command.BIND, "udp": Command.UDP_ASSOCIATE}

Table = dict[str, Any]


GROUPS = load_groups({"dba": ["alice"], "ops": []}, [])
SETS = load_sets(
    {"lan": ["10.1.0.0/16", "fd00::/16"], "mixed": ["*.test", ".example", "192.0.2.0/24"]},
    special_sets([ip_network("203.0.113.1")]),
    str,
    [],
)
GUARD = Guard.of(("loopback", "link-local", "self"), SETS, private=True)
GUARDS = st.sampled_from([None, GUARD, replace(GUARD, never=()), replace(GUARD, private=False)])


def policy(*tables: Table, guard: Guard | None = None) -> Policy:
    rules = load_rules(tables, ("office", "lab"), sets=SETS, groups=GROUPS)
    return Policy(rules, guard)


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


def naive_group(value: str, facts: Facts) -> Answer:
    if facts.principal is None:
        return None
    users = {"dba": ["alice"], "ops": []}[value]
    return facts.principal.name in users or value in facts.principal.groups


NETWORKS = {
    "@lan": ["10.1.0.0/16", "fd00::/16"],
    "@mixed": ["*.test", ".example", "192.0.2.0/24"],
    "@private": [*("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
                 *("fc00::/7", "fec0::/10")],
    "@loopback": ["127.0.0.0/8", "0.0.0.0/8", "::1", "::"],
    "@link-local": ["169.254.0.0/16", "fe80::/10"],
    "@self": ["203.0.113.1"],
}  # fmt: skip


def naive_address(value: str, address: IPAddress | None) -> Answer:
    if address is None:
        return None
    return any(address in ip_network(text) for text in NETWORKS.get(value, [value]))


def naive_target(value: str, facts: Facts) -> Answer:
    if value in NETWORKS:
        return any_of(naive_target(text, facts) for text in NETWORKS[value])
    if value[0].isdigit() or ":" in value:
        return naive_address(value, facts.address)
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


def naive_when(value: str, facts: Facts) -> Answer:
    """By the strings that clocks show; the days are in one piece each, or none at all."""
    *words, zone = value.split()
    now = datetime.fromtimestamp(facts.time, ZoneInfo(zone))
    clock, day, yesterday = f"{now:%H:%M}", now.weekday(), (now.weekday() - 1) % 7
    days = {"mon-fri": {0, 1, 2, 3, 4}, "sun": {6}}.get(words[0], set(range(7)))
    begin, _, end = words[-1].partition("-") if ":" in words[-1] else ("00:00", "-", "24:00")
    if begin < end:
        return day in days and begin <= clock < end
    return (day in days and begin <= clock) or (yesterday in days and clock < end)


def naive_not(answer: Answer) -> Answer:
    return None if answer is None else not answer


NAIVE: dict[str, Callable[[Any, Facts], Answer]] = {
    "from": lambda value, facts: naive_address(value, facts.client),
    "not_from": lambda value, facts: naive_address(value, facts.client),
    "listener": lambda value, facts: facts.listener == value,
    "user": naive_user,
    "group": naive_group,
    "command": lambda value, facts: (
        None if facts.command is None else facts.command is COMMANDS[value]
    ),
    "to": naive_target,
    "not_to": naive_target,
    "resolves_to": lambda value, facts: naive_address(value, facts.address),
    "ports": naive_port,
    "when": naive_when,
    "require": lambda _, facts: (
        None if facts.destination is None else isinstance(facts.destination.host, str)
    ),
}


def naive_match(table: Table, facts: Facts) -> Answer:
    answers = []
    for key in NAIVE.keys() & table:
        values = table[key] if isinstance(table[key], list) else [table[key]]
        answer = any_of(NAIVE[key](value, facts) for value in values)
        answers.append(naive_not(answer) if key.startswith("not_") else answer)
    if "share" in table:
        answers.append(Share(table["id"], table["share"]).matches(facts))
    return all_of(answers)


def naive_objection(guard: Guard | None, table: Table, facts: Facts) -> str | None:
    """Give why the guard takes this rule's ALLOW back: '' it does not, None if not known yet."""
    if guard is None:
        return ""
    if facts.address is None:
        return None
    for each in guard.never:
        if naive_address(each.name, facts.address):
            return each.name[1:]
    private = [ip_network(text) for text in NETWORKS["@private"]]
    if not guard.private or not any(facts.address in network for network in private):
        return ""
    written = [*table.get("to", []), *table.get("resolves_to", [])]
    named = [network for value in written for network in NETWORKS.get(value, [value])]
    for text in named:
        with suppress(ValueError):
            network: Any = ip_network(text)
            if facts.address in network and any(
                network.version == space.version and network.subnet_of(space) for space in private
            ):
                return ""
    return "private"


def naive_decision(tables: list[Table], facts: Facts, guard: Guard | None = None) -> Decision:
    """Gather the verdicts of all rules that may be the first to match, for each reading."""
    readings = embedded(facts.address) if facts.address else ()
    decisions = [naive_reading(tables, some, guard) for some in (facts, *map(facts.at, readings))]
    strictest = [DENY, DEFER, ALLOW]
    decision = min(decisions, key=lambda each: strictest.index(each.verdict))
    reports = []
    for rule in dict.fromkeys(report.rule for each in decisions for report in each.reports):
        would = [
            next((report.verdict for report in each.reports if report.rule == rule), each.verdict)
            for each in decisions
        ]
        reports.append(Report(rule, min(would, key=strictest.index)))
    return decision if decision.verdict is DEFER else replace(decision, reports=tuple(reports))


def naive_reading(tables: list[Table], facts: Facts, guard: Guard | None) -> Decision:
    possible: dict[str, str | None] = {}
    reports = []
    last = {"id": "default", "action": "deny"}
    for table in (*tables, last):
        answer = naive_match(table, facts)
        if answer is False:
            continue
        objection = naive_objection(guard, table, facts)
        verdict = table["action"]
        if verdict == "allow":
            verdict = None if objection is None else "deny" if objection else "allow"
        if table.get("mode") == "report":
            if answer and not possible:
                reports.append(Report(table["id"], Verdict(verdict or "allow")))
            continue
        possible[table["id"]] = verdict
        if answer:
            break
    if set(possible.values()) == {None}:
        return Decision(DEFER, "guard")
    if len(set(possible.values())) > 1:
        return Decision(DEFER, next(iter(possible)))
    if verdict == "deny" and table["action"] == "allow":
        return Decision(DENY, "guard", detail=objection or "", reports=tuple(reports))
    return Decision(Verdict(verdict), table["id"], table.get("text", ""), reports=tuple(reports))


# -- a small universe ------------------------------------------------------------

VALUES: dict[str, list[Any]] = {
    "from": ["@lan", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.1", "::1", "fd00::/8"],
    "not_from": ["10.1.0.0/16", "@lan", "::1"],
    "listener": ["office", "lab"],
    "group": ["dba", "ops"],
    "not_to": ["a.example", ".test", "10.0.0.0/8", "@mixed", "::1"],
    "resolves_to": ["10.0.0.0/8", "10.1.0.1", "0.0.0.0/0", "@lan", "@private"],
    "when": [
        *("mon-fri 08:00-18:00 UTC", "sun 22:00-06:00 Europe/Berlin"),
        *("00:00-12:00 America/New_York", "mon-fri UTC", "12:30-12:29 Asia/Kolkata"),
    ],
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
        "::/0",
        "@mixed",
        "@private",
    ],
    "ports": [80, 443, "1-100", "443-8000"],
}
CLIENTS = [ip_address(text) for text in ("10.0.0.1", "10.1.0.1", "192.0.2.1", "::1", "fd00::1")]
ADDRESSES = [
    *CLIENTS,
    *map(ip_address, ("127.0.0.1", "169.254.1.1", "203.0.113.1", "192.168.0.1", "fe80::1")),
    *map(
        ip_address, ("64:ff9b::a01:1", "64:ff9b::7f00:1", "2002:c000:201::1", "64:ff9b::c000:201")
    ),
]
PRINCIPALS = [
    *(ANONYMOUS, Principal("alice"), Principal("bob"), Principal("@none")),
    Principal("carol", frozenset({"ops", "dba"})),
]
# Monday to Monday, with an hour that comes twice in Berlin and one that never comes.
TIMES = st.one_of(st.integers(1761519600, 1762124400), st.integers(1774738800, 1774749600))
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
    rarely = st.integers(0, 9)
    if draw(rarely) == 0:
        table["require"] = "hostname"
    if draw(rarely) < 3:
        table["mode"] = "report"
        if draw(st.booleans()):
            table["share"] = 0.5
    if draw(st.booleans()):
        table["text"] = "Ask the network people."
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
    address=st.sampled_from(ADDRESSES),
    time=TIMES.map(float),
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


@given(TABLES, FULL, GUARDS)
def test_an_answer_is_never_contradicted_by_more_facts(
    tables: list[Table], facts: Facts, guard: Guard | None
) -> None:
    """In whatever order they become known."""
    rules = policy(*tables, guard=guard)
    verdicts = {known: rules.decide(some).verdict for known, some in partial(facts).items()}
    for less, verdict in verdicts.items():
        if verdict is not DEFER:
            later = {verdicts[more] for more in verdicts if more > less}
            assert later <= {verdict}


@given(TABLES, FULL, GUARDS)
def test_all_facts_settle_it(tables: list[Table], facts: Facts, guard: Guard | None) -> None:
    """And the rule in the log is the first that matches, the guard, or the default."""
    decision = policy(*tables, guard=guard).decide(facts)
    assert decision.verdict is not DEFER
    assert decision == naive_decision(tables, facts, guard)


@given(TABLES, FULL, GUARDS)
def test_it_decides_as_the_naive_one(
    tables: list[Table], facts: Facts, guard: Guard | None
) -> None:
    rules = policy(*tables, guard=guard)
    for some in partial(facts).values():
        assert rules.decide(some) == naive_decision(tables, some, guard)


@given(TABLES, FULL)
def test_the_index_answers_as_the_rules_do(tables: list[Table], facts: Facts) -> None:
    rules = policy(*tables).rules
    index = Index([rule.conditions for rule in rules])
    for some in partial(facts).values():
        may, does = index.answers(some)
        answers = [rule.matches(some) for rule in rules]
        assert list(members(may)) == [i for i, answer in enumerate(answers) if answer is not False]
        assert list(members(does)) == [i for i, answer in enumerate(answers) if answer]


@given(TABLES, FULL, GUARDS)
def test_a_rule_on_trial_changes_no_verdict(
    tables: list[Table], facts: Facts, guard: Guard | None
) -> None:
    """Nor which rule speaks, nor what it says: traffic is the same to the octet."""
    enforced = [table for table in tables if table.get("mode") != "report"]
    tried, plain = policy(*tables, guard=guard), policy(*enforced, guard=guard)
    for some in partial(facts).values():
        assert replace(tried.decide(some), reports=()) == plain.decide(some)


@given(TABLES, FULL, GUARDS)
def test_a_report_tells_what_enforcing_that_one_rule_would_do(
    tables: list[Table], facts: Facts, guard: Guard | None
) -> None:
    for report in policy(*tables, guard=guard).decide(facts).reports:
        only = [
            {key: value for key, value in table.items() if key not in ("mode", "share")}
            if table["id"] == report.rule
            else table
            for table in tables
        ]
        decision = policy(*only, guard=guard).decide(facts)
        assert decision.verdict is report.verdict


@given(TABLES, FULL, GUARDS)
def test_what_the_guard_objects_to_is_what_it_says_of_each_rule(
    tables: list[Table], facts: Facts, guard: Guard | None
) -> None:
    """The tools ask it rule by rule; the decision asks for all rules at once."""
    rules = policy(*tables, guard=guard)
    decision = rules.decide(facts)
    first = next((rule for rule in rules.rules if not rule.on_trial and rule.matches(facts)), None)
    if guard and first and first.action is ALLOW and facts.address and not embedded(facts.address):
        objection = guard.objects(facts.address, first.conditions)
        assert decision.detail == objection
        assert decision.rule == ("guard" if objection else first.id)


@given(TABLES, FULL, GUARDS)
def test_what_an_address_stands_for_is_open_only_where_that_is(
    tables: list[Table], facts: Facts, guard: Guard | None
) -> None:
    """A NAT64 spelling of 10.0.0.1 passes no rule and no guard that 10.0.0.1 would not."""
    rules = policy(*tables, guard=guard)
    if rules.decide(facts).verdict is ALLOW and facts.address is not None:
        for address in embedded(facts.address):
            assert rules.decide(facts.at(address)).verdict is ALLOW


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


INSIDE = {"id": "inside", "action": "allow", "to": ".corp.example"}
BOUND = INSIDE | {"resolves_to": ["10.0.0.0/8"]}
TRIAL_DENY = {"id": "trial", "action": "deny", "mode": "report", "to": ".corp.example"}
TRIAL_ALLOW = {"id": "trial", "action": "allow", "mode": "report", "to": ".corp.example"}
WITH_TEXT = {"id": "x", "action": "deny", "text": "Ask us.", "ports": [25]}


@pytest.mark.parametrize(
    ("tables", "facts", "decision"),
    [
        pytest.param([OPEN], FIRST, Decision(DEFER, "guard"), id="no address to judge yet"),
        pytest.param(
            [NO_SMTP, OPEN], asking("a.test", 25), Decision(DENY, "no-smtp"), id="denied anyhow"
        ),
        pytest.param(
            [OPEN], asking("127.0.0.1"), Decision(DENY, "guard", detail="loopback"), id="never"
        ),
        pytest.param(
            [OPEN],
            asking("a.test").at(ip_address("203.0.113.1")),
            Decision(DENY, "guard", detail="self"),
            id="a name that leads to this host",
        ),
        pytest.param(
            [OPEN],
            asking("a.test").at(ip_address("10.0.0.1")),
            Decision(DENY, "guard", detail="private"),
            id="a name that leads into private space: rebinding",
        ),
        pytest.param(
            [OPEN],
            asking("10.0.0.1"),
            Decision(DENY, "guard", detail="private"),
            id="a literal is no way around",
        ),
        pytest.param(
            [BOUND, OPEN],
            asking("a.corp.example").at(ip_address("10.0.0.1")),
            Decision(ALLOW, "inside"),
            id="the rule says where it may land",
        ),
        pytest.param(
            [INSIDE, STAFF],
            asking("a.corp.example").at(ip_address("10.0.0.1")),
            Decision(DENY, "guard", detail="private"),
            id="it is the rule that decides that has to name it, not a later one",
        ),
        pytest.param(
            [STAFF],
            asking("a.test").at(ip_address("64:ff9b::10.0.0.1")),
            Decision(DENY, "default"),
            id="NAT64: not even the address itself is allowed",
        ),
        pytest.param(
            [OPEN],
            asking("a.test").at(ip_address("64:ff9b::127.0.0.1")),
            Decision(DENY, "guard", detail="loopback"),
            id="NAT64 of the loopback",
        ),
        pytest.param(
            [NOT_THERE, OPEN],
            asking("a.test").at(ip_address("64:ff9b::10.0.0.1")),
            Decision(DENY, "not-there"),
            id="NAT64 of a denied network",
        ),
        pytest.param(
            [OPEN],
            asking("a.test").at(ip_address("64:ff9b::c000:201")),
            Decision(ALLOW, "open"),
            id="NAT64 of an address that is allowed",
        ),
        pytest.param(
            [TRIAL_DENY, OPEN],
            asking("a.corp.example").at(ip_address("192.0.2.1")),
            Decision(ALLOW, "open", reports=(Report("trial", DENY),)),
            id="would deny",
        ),
        pytest.param(
            [TRIAL_ALLOW, NO_SMTP],
            asking("a.corp.example"),
            Decision(DENY, "default", reports=(Report("trial", ALLOW),)),
            id="would allow, known before any look-up",
        ),
        pytest.param(
            [TRIAL_ALLOW],
            asking("a.corp.example").at(ip_address("127.0.0.1")),
            Decision(DENY, "default", reports=(Report("trial", DENY),)),
            id="would be guarded",
        ),
        pytest.param(
            [OPEN, TRIAL_DENY],
            asking("a.corp.example").at(ip_address("192.0.2.1")),
            Decision(ALLOW, "open"),
            id="comes too late to decide",
        ),
        pytest.param(
            [TRIAL_DENY, TRIAL_ALLOW | {"id": "second"}, OPEN],
            asking("a.corp.example").at(ip_address("192.0.2.1")),
            Decision(ALLOW, "open", reports=(Report("trial", DENY), Report("second", ALLOW))),
            id="each trial by itself",
        ),
        pytest.param([WITH_TEXT], asking("a.test", 25), Decision(DENY, "x", "Ask us."), id="text"),
    ],
)
def test_the_guard_takes_back_and_trials_report(
    tables: list[Table], facts: Facts, decision: Decision
) -> None:
    assert policy(*tables, guard=GUARD).decide(facts) == decision


def test_a_decision_says_by_which_way_and_within_what() -> None:
    rule = Rule("x", ALLOW, (), route="dmz", limits="bulk")
    assert Policy((rule,)).decide(FIRST) == Decision(ALLOW, "x", route="dmz", limits="bulk")


def test_a_decision_is_not_made_anew_each_time() -> None:
    """There are three of them in a session."""
    rules = policy(NO_SMTP, OPEN)
    assert rules.decide(asking("a.test")) is rules.decide(asking("b.test"))


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


@given(st.sampled_from(["127.0.0.1", "10.0.0.1"]).map(ip_address) | st.ip_addresses(v=4))
def test_no_address_around_an_address_passes_where_that_does_not(address: IPv4Address) -> None:
    """As a literal or as a name server's answer: "64:ff9b::" before 127.0.0.1, and the like."""
    assume(int(address) >> 24)  # nothing is sent to 0.0.0.0/8, by a translator or otherwise
    value, rules = int(address), policy(*GUARDED, guard=GUARD)
    verdict = rules.decide(asking(str(address))).verdict
    for around in (
        *(value, 0xFFFF_0000 << 32 | value, 0x64_FF9B << 96 | value),
        *(0x2002 << 112 | value << 80, 0x2001 << 112 | 0x0808_0808 << 64 | value ^ 0xFFFF_FFFF),
        *(0x64_FF9B_0001 << 80 | value, 0x64_FF9B_0001 << 80 | value << 24),
    ):
        spelled = str(IPv6Address(around))
        for facts in (asking(spelled), asking("a.test").at(ip_address(spelled))):
            assert rules.decide(facts).verdict in (verdict, DENY)
