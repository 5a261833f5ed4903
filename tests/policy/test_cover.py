"""Proofs: what is said to be inside of something is."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import Destination
from socksd.codes import Command
from socksd.facts import Facts
from socksd.policy.cover import contradiction, hidden_by
from socksd.policy.rules import Rule
from tests.policy.test_rules import (
    ADDRESSES,
    CLIENTS,
    FULL,
    HOSTS,
    PRINCIPALS,
    TABLES,
    Table,
    partial,
    policy,
)


def rules(*tables: Table) -> tuple[Rule, ...]:
    numbered = [{"id": f"r{i}", "action": "allow"} | table for i, table in enumerate(tables)]
    return policy(*numbered).rules


def hiding(*tables: Table) -> list[str]:
    """Give the rules that hide the last one."""
    *before, last = rules(*tables)
    return [rule.id for rule in hidden_by(last, before)]


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ({}, {"user": "alice"}),
        ({"listener": ["office", "lab"]}, {"listener": "lab"}),
        ({"user": "@any"}, {"user": ["alice", "bob"]}),
        ({"user": ["@any", "@none"]}, {"user": ["alice", "@none"]}),
        ({"user": ["alice", "@none"]}, {"user": "@none"}),
        ({"group": ["dba", "ops"]}, {"group": "ops", "ports": 80}),
        ({"command": ["connect", "bind"]}, {"command": "bind"}),
        ({"ports": ["1-100", "90-500"]}, {"ports": "95-200"}),
        ({"when": "mon-fri UTC"}, {"when": "tue 08:00-18:00 UTC"}),
        ({"require": "hostname"}, {"require": "hostname"}),
        ({"from": "10.0.0.0/8"}, {"from": ["10.1.0.0/16", "10.2.0.1"]}),
        ({"from": ["0.0.0.0/1", "128.0.0.0/1", "::/0"]}, {}),
        ({"not_from": "10.1.0.0/16"}, {"not_from": "10.0.0.0/8"}),
        ({"not_from": "192.0.2.0/24"}, {"from": "10.0.0.0/8"}),
        ({"to": ".example"}, {"to": ["a.example", ".b.example", "*.c.example", "example"]}),
        ({"to": ["*.a.example", "*1*"]}, {"to": ["x.a.example", "*1*", "a1b"]}),
        ({"to": ["10.0.0.0/9", "10.128.0.0/9"]}, {"to": "10.0.0.0/8"}),
        ({"to": "@mixed"}, {"to": "@mixed"}),
        ({"to": "10.0.0.0/8"}, {"resolves_to": "10.1.0.0/16"}),
        ({"resolves_to": "10.0.0.0/8"}, {"to": "10.1.0.0/16"}),
        ({"resolves_to": "@private"}, {"resolves_to": "10.0.0.0/8"}),
        ({"not_to": "a.example"}, {"not_to": [".example", "10.0.0.1"]}),
    ],
)
def test_a_rule_is_hidden_by_a_wider_one(wide: Table, narrow: Table) -> None:
    assert hiding(wide, narrow) == ["r0"]


@pytest.mark.parametrize(
    ("other", "rule"),
    [
        ({"user": "alice"}, {}),
        ({"listener": "lab"}, {"listener": ["office", "lab"]}),
        ({"user": "@any"}, {"user": ["alice", "@none"]}),
        ({"user": ["alice", "bob"]}, {"user": "@any"}),
        ({"user": "alice"}, {"user": ["alice", "@none"]}),
        ({"user": "alice"}, {"group": "dba"}),
        ({"group": "dba"}, {"group": ["dba", "ops"]}),
        ({"ports": ["1-100", "102-500"]}, {"ports": "95-200"}),
        ({"ports": "1-100"}, {"ports": "50-101"}),
        ({"when": "mon-fri UTC"}, {"when": "tue Europe/Berlin"}),
        ({"when": "mon-fri UTC"}, {"when": "fri-sat UTC"}),
        ({"from": "0.0.0.0/0"}, {}),
        ({"from": "10.0.0.0/8"}, {"from": ["10.1.0.0/16", "::1"]}),
        ({"not_from": "10.0.0.0/8"}, {"from": "0.0.0.0/0"}),
        ({"not_from": "10.1.0.0/16"}, {"from": ["10.0.0.0/15"]}),
        ({"not_from": "10.1.0.0/16"}, {"not_from": "10.1.0.0/17"}),
        ({"to": ".b.example"}, {"to": ".example"}),
        ({"to": ".example"}, {"to": "*example"}),
        ({"to": "*.a.example"}, {"to": ".a.example"}),
        ({"to": "a.example"}, {"to": ["a.example", "10.0.0.1"]}),
        ({"to": "10.0.0.0/8"}, {"to": "a.example", "from": "10.0.0.0/8"}),
        ({"resolves_to": "10.0.0.0/8"}, {"to": ["10.1.0.0/16", "a.example"]}),
        ({"not_to": ["a.example", "10.0.0.1"]}, {"not_to": "a.example"}),
        ({"not_to": "10.0.0.0/8"}, {"to": "a.example"}),
    ],
)
def test_what_may_match_elsewhere_is_not_called_hidden(other: Table, rule: Table) -> None:
    assert hiding(other, rule) == []


@pytest.mark.parametrize(
    ("key", "some", "others", "all_of"),
    [
        ("user", ["alice"], ["bob"], ["alice", "bob"]),
        ("ports", ["1-100"], [101], ["50-101"]),
        ("listener", ["office"], ["lab"], ["lab", "office"]),
        ("from", ["10.0.0.0/9"], ["10.128.0.0/9"], ["10.0.0.0/8"]),
        ("to", ["a.example"], ["10.0.0.0/8"], ["a.example", "10.1.0.0/16"]),
        ("when", ["mon UTC"], ["tue UTC"], ["mon-tue UTC"]),
    ],
)
def test_rules_may_hide_one_together(key: str, some: Any, others: Any, all_of: Any) -> None:
    both = {"command": "connect"}
    assert hiding({key: some}, {key: others}, {key: all_of} | both) == ["r0", "r1"]
    assert hiding({key: some}, {key: others} | both, {key: all_of}) == []
    assert hiding({key: some}, {key: all_of}) == []


def test_what_nobody_asks_for_yet_is_not_taken_for_everything() -> None:
    """All ports together hide no rule without ports: before the request it speaks, they do not."""
    assert hiding({"ports": "0-500"}, {"ports": "501-65535"}, {"user": "alice"}) == []


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        ({"from": "10.1.0.0/16", "not_from": "10.0.0.0/8"}, ("from", "not_from")),
        ({"to": ["a.example", "10.0.0.1"], "not_to": [".example", "10.0.0.0/8"]}, ("to", "not_to")),
        ({"to": "10.0.0.0/8", "resolves_to": "192.0.2.0/24"}, ("to", "resolves_to")),
        ({"resolves_to": "10.1.0.0/16", "not_to": "10.0.0.0/8"}, ("resolves_to", "not_to")),
        ({"to": "a.example", "resolves_to": "192.0.2.0/24"}, None),
        ({"to": "10.0.0.0/8", "resolves_to": "10.1.0.0/16"}, None),
        ({"to": "10.1.0.0/16", "resolves_to": "10.0.0.0/8"}, None),
        ({"to": ".example", "not_to": "a.example"}, None),
        ({"from": "10.0.0.0/8", "not_from": "10.1.0.0/16"}, None),
        ({}, None),
    ],
)
def test_keys_that_no_request_can_meet_together(table: Table, keys: tuple[str, str] | None) -> None:
    (rule,) = rules(table)
    assert contradiction(rule) == keys


# -- by enumeration ----------------------------------------------------------

# Few values, so that random rules do hide one another.
SMALL: dict[str, list[Any]] = {
    "from": ["10.0.0.0/8", "10.1.0.0/16", "@lan", "0.0.0.0/0", "::/0", "::1"],
    "not_from": ["10.1.0.0/16", "10.0.0.0/8", "::/0"],
    "user": ["alice", "bob", "@any", "@none"],
    "group": ["dba", "ops"],
    "listener": ["office", "lab"],
    "to": ["a.example", ".example", "*.example", "10.0.0.0/8", "10.1.0.1", "@mixed"],
    "not_to": ["a.example", ".example", "10.0.0.0/8", "@mixed"],
    "resolves_to": ["10.0.0.0/8", "10.1.0.1", "@private"],
    "ports": [80, "1-100", "80-443"],
    "when": ["mon-fri UTC", "00:00-12:00 UTC", "sun Europe/Berlin"],
    "command": ["connect", "bind"],
}


@st.composite
def a_small_table(draw: st.DrawFn) -> Table:
    keys = draw(st.sets(st.sampled_from(sorted(SMALL)), max_size=2))
    return {key: draw(st.lists(st.sampled_from(SMALL[key]), min_size=1, max_size=2))
            for key in sorted(keys)}  # fmt: skip


@given(st.lists(a_small_table(), min_size=1, max_size=4), FULL)
def test_a_rule_that_is_called_hidden_never_matches_first(
    tables: list[Table], facts: Facts
) -> None:
    """Also not while facts are missing."""
    *before, last = rules(*tables)
    for some in partial(facts).values():
        if last.matches(some) is True:
            hiding = hidden_by(last, before)
            assert not hiding or any(other.matches(some) for other in hiding)
            assert contradiction(last) is None


def universe() -> list[Facts]:
    """A small world, whole: every client, principal, destination, port and address of it."""
    found = []
    for client, principal, host, port in product(CLIENTS, PRINCIPALS, HOSTS, (80, 100, 443)):
        facts = Facts(client, "office", principal, time=1762000000.0)
        asking = facts.asking(Command.CONNECT, Destination.named(host, port))
        if asking.address is not None:
            found.append(asking)
        else:
            found += [asking.at(address) for address in ADDRESSES]
    return found


UNIVERSE = universe()


@given(TABLES.filter(lambda tables: len(tables) > 1))
def test_a_rule_that_is_called_hidden_decides_nothing_in_the_whole_universe(
    tables: list[Table],
) -> None:
    some = policy(*tables)
    hidden = {
        rule.id
        for position, rule in enumerate(some.rules)
        if contradiction(rule)
        or hidden_by(rule, [other for other in some.rules[:position] if not other.on_trial])
    }
    if hidden:
        for facts in UNIVERSE:
            decision = some.decide(facts)
            assert decision.rule not in hidden
            assert hidden.isdisjoint(report.rule for report in decision.reports)
