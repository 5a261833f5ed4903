"""The tables; that they answer as the rules do is a property in test_rules.py."""

from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import Destination
from socksd.facts import Facts
from socksd.policy.index import Index, NameTable, NetworkTable, Steps, members, table
from socksd.policy.match import Answer, Condition, ToHost, between, edges_of
from socksd.policy.sets import HostSet, Names

FIRST = Facts(IPv4Address("10.0.0.7"), "office")
PATTERNS = [
    *("a.example", "b.a.example", ".example", ".a.example", "*.example", "x*", "*x", "*"),
    *("db-*.a.example", "db-?.a.example", "*1.a.example", "db-1.*.example", "*.a.*"),
]
NAMES = ["a.example", "b.a.example", "db-1.a.example", "db-1.b.example", "x", "xx.test", "example"]


@given(st.sets(st.integers(0, 2000)))
def test_the_members_of_a_set_come_in_order(positions: set[int]) -> None:
    assert list(members(sum(1 << each for each in positions))) == sorted(positions)


@given(st.lists(st.sets(st.sampled_from(PATTERNS), min_size=1), max_size=4), st.sampled_from(NAMES))
def test_a_name_has_the_rules_whose_patterns_hold_it(rules: list[set[str]], name: str) -> None:
    sets = [HostSet.of(patterns, f"@{position}") for position, patterns in enumerate(rules)]
    found = NameTable({each: 1 << position for position, each in enumerate(sets)}).rules(name)
    assert list(members(found)) == [
        position for position, patterns in enumerate(rules) if Names.of(patterns).holds(name)
    ]


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1), max_size=5),
    st.integers(0, 20),
)
def test_a_number_has_the_rules_whose_ranges_hold_it(
    rules: list[list[tuple[int, int]]], value: int
) -> None:
    edges = [edges_of(range(a, a + size) for a, size in ranges) for ranges in rules]
    found = Steps((each, 1 << position) for position, each in enumerate(edges)).rules(value)
    assert list(members(found)) == [
        position for position, each in enumerate(edges) if between(each, value)
    ]


@pytest.mark.parametrize(
    ("address", "widest", "rules"),
    [
        pytest.param("10.1.2.3", 128, [0, 1, 2], id="any width"),
        pytest.param("10.1.2.3", 24, [1, 2], id="8 bits of prefix, or more"),
        pytest.param("10.1.2.3", 0, [2], id="the address itself"),
        pytest.param("10.1.2.4", 0, [], id="another one"),
        pytest.param("11.0.0.1", 24, [], id="only in what is wider"),
    ],
)
def test_networks_may_be_too_wide_to_count(address: str, widest: int, rules: list[int]) -> None:
    networks = ("0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32")
    sets = {HostSet.of([ip_network(text)]): 1 << n for n, text in enumerate(networks)}
    assert list(members(NetworkTable(sets).rules(ip_address(address), widest))) == rules


def test_a_large_set_that_many_rules_use_is_held_once() -> None:
    """A hundred thousand entries of a thousand rules must not become as many sets of rules."""
    large, small = frozenset(range(100_000)), frozenset({1})
    thousand = (1 << 1000) - 1
    found = table([(large, thousand), (small, 1 << 1000)])
    assert found[1] == thousand | 1 << 1000
    assert len({id(bits) for bits in found.values()}) == 2


def test_a_question_looks_at_no_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand rules cost a look-up, not a thousand questions."""
    rules: list[list[Condition]] = [[ToHost.of([f".site-{n}.example"])] for n in range(1000)]
    index = Index(rules)
    monkeypatch.setattr(ToHost, "matches", None)
    asking = replace(FIRST, destination=Destination("www.site-7.example", 80))
    assert index.answers(asking) == (1 << 7, 1 << 7)


@pytest.mark.parametrize("answer", [True, False, None])
def test_a_condition_without_a_table_is_asked_itself(answer: Answer) -> None:
    """A new kind of condition must not match everything until it has got a table."""

    class New:
        key: ClassVar[str] = "new"

        def matches(self, facts: Facts) -> Answer:
            return answer

    may, does = Index([[New()], []]).answers(FIRST)
    assert list(members(may)) == [
        position for position in (0, 1) if position or answer is not False
    ]
    assert list(members(does)) == [position for position in (0, 1) if position or answer]
