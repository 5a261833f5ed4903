"""
All rules at once: which of them match, in a time that hardly grows with their number.

A set of rules is an ``int``: bit i is rule i. For each key there is one table
from what a fact may be to the rules that match it, so that a question costs a
look-up or two for each key in use, and then a few ``&`` and ``|``.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import tzinfo
from functools import reduce
from ipaddress import IPv4Address
from operator import or_
from typing import Any, TypeVar

from socksd.address import IPAddress
from socksd.facts import Facts
from socksd.policy.match import (
    At,
    ByUser,
    Condition,
    FromNetworks,
    Hostname,
    InGroup,
    NotFrom,
    NotTo,
    OnListener,
    ResolvesTo,
    ToHost,
    ToPorts,
    WithCommand,
    minute,
)
from socksd.policy.sets import HostSet, Prefixes, domains, glob

K = TypeVar("K", bound=Hashable)

Bits = int  # a set of rules
Ask = Callable[[Facts], Bits | None]


def table(entries: Iterable[tuple[Iterable[K], Bits]]) -> dict[K, Bits]:
    """Turn "these are what those rules hold" into "this is held by those rules"."""
    found: dict[K, Bits] = {}
    shared: dict[Bits, Bits] = {}  # the entries of a set of 100,000 share one int
    for keys, bits in entries:
        for key in keys:
            union = found.get(key, 0) | bits
            found[key] = shared.setdefault(union, union)
    return found


def members(bits: Bits) -> Iterator[int]:
    """Give the positions of the rules of a set, in order."""
    while bits:
        first = bits & -bits
        yield first.bit_length() - 1
        bits ^= first


class NetworkTable:
    """From an address to the rules with a network that holds it."""

    __slots__ = ("v4", "v6")

    def __init__(self, sets: Mapping[HostSet, Bits]) -> None:
        self.v4 = _by_shift((each.networks.v4, bits) for each, bits in sets.items())
        self.v6 = _by_shift((each.networks.v6, bits) for each, bits in sets.items())

    def rules(self, address: IPAddress, widest: int = 128) -> Bits:
        """Give those with one that leaves *widest* bits open, or less."""
        found, value = 0, int(address)
        for shift, leading in self.v4 if isinstance(address, IPv4Address) else self.v6:
            if shift > widest:
                break
            found |= leading.get(value >> shift, 0)
        return found


def _by_shift(entries: Iterable[tuple[Prefixes, Bits]]) -> tuple[tuple[int, dict[int, Bits]], ...]:
    gathered: dict[int, list[tuple[frozenset[int], Bits]]] = {}
    for prefixes, bits in entries:
        for shift, leading in prefixes:
            gathered.setdefault(shift, []).append((leading, bits))
    return tuple((shift, table(found)) for shift, found in sorted(gathered.items()))


class NameTable:
    """From a name to the rules with a pattern that holds it."""

    __slots__ = ("exact", "globs", "suffixes")

    def __init__(self, sets: Mapping[HostSet, Bits]) -> None:
        self.exact = table((each.names.exact, bits) for each, bits in sets.items())
        self.suffixes = table((each.names.suffixes, bits) for each, bits in sets.items())
        # Globs are asked one by one, but only below the domain they end in.
        globs = table((each.names.globs, bits) for each, bits in sets.items())
        below: dict[str, dict[Bits, set[str]]] = {}
        for pattern, bits in globs.items():
            below.setdefault(_domain(pattern), {}).setdefault(bits, set()).add(pattern)
        self.globs: dict[str, tuple[tuple[re.Pattern[str], Bits], ...]] = {
            domain: tuple((glob(frozenset(globs)), bits) for bits, globs in by_rules.items())
            for domain, by_rules in below.items()
        }

    def rules(self, name: str) -> Bits:
        """Give those with one that holds *name*."""
        found = self.exact.get(name, 0)
        if self.suffixes:
            for domain in domains(name):
                found |= self.suffixes.get(domain, 0)
        if self.globs:
            for domain in (*domains(name), ""):
                for pattern, bits in self.globs.get(domain, ()):
                    if bits & ~found and pattern.match(name):
                        found |= bits
        return found


def _domain(pattern: str) -> str:
    """Give the whole labels that a glob ends in: "lan.example" of "db-*1.lan.example"."""
    tail = re.split(r"[*?]", pattern)[-1]
    return tail.partition(".")[2]


class Steps:
    """From a number to the rules with a range that holds it."""

    __slots__ = ("_edges", "_rules")

    def __init__(self, ranges: Iterable[tuple[tuple[int, ...], Bits]]) -> None:
        # What changes at an edge: into a range, or out of it.
        changes: dict[int, Bits] = {}
        for edges, bits in ranges:
            for edge in edges:
                changes[edge] = changes.get(edge, 0) ^ bits
        self._edges = tuple(sorted(changes))
        rules = [0]
        for edge in self._edges:
            rules.append(rules[-1] ^ changes[edge])
        self._rules = tuple(rules)

    def rules(self, value: int) -> Bits:
        """Give those with one that holds *value*."""
        return self._rules[bisect_right(self._edges, value)]


class Targets:
    """From a destination to the rules that ``to`` or ``not_to`` speaks of."""

    __slots__ = ("_by_name", "_by_network", "_names", "networks")

    def __init__(self, sets: Mapping[HostSet, Bits]) -> None:
        self._names = NameTable(sets)
        self.networks = NetworkTable(sets)
        self._by_name = _union(bits for each, bits in sets.items() if each.names)
        self._by_network = _union(bits for each, bits in sets.items() if each.networks)

    def answers(self, facts: Facts) -> tuple[Bits, Bits]:
        """Give the rules that may hold it, and of these those that do."""
        found = unknown = 0
        if facts.destination is None:
            unknown = self._by_name
        elif isinstance(facts.destination.host, str):
            found = self._names.rules(facts.destination.host)
        if facts.address is None:
            unknown |= self._by_network
        else:
            found |= self.networks.rules(facts.address)
        return found | unknown, found


class Index:
    """What the conditions of all rules answer."""

    __slots__ = (
        "_all",
        "_asks",
        "_lands",
        "_not_to",
        "_others",
        "_to",
        "_without_lands",
        "_without_to",
    )

    def __init__(self, rules: Sequence[Sequence[Condition]]) -> None:
        """Make one of the conditions of each rule; no rule has two of one kind."""
        self._all = (1 << len(rules)) - 1
        having: dict[type[Condition], list[tuple[Any, Bits]]] = {}
        for position, rule in enumerate(rules):
            for condition in rule:
                having.setdefault(type(condition), []).append((condition, 1 << position))
        # Each with the rules that do not have its key: those match whatever it answers.
        without = {
            kind: self._all & ~_union(bits for _, bits in found) for kind, found in having.items()
        }
        self._asks: list[tuple[Ask, Bits]] = [
            (make(having[kind]), without[kind]) for kind, make in _MAKE.items() if kind in having
        ]
        self._to = Targets(_by_set(having.get(ToHost, [])))
        self._without_to = without.get(ToHost, self._all)
        self._not_to = Targets(_by_set(having.get(NotTo, [])))
        self._lands = NetworkTable(_by_set(having.get(ResolvesTo, [])))
        self._without_lands = without.get(ResolvesTo, self._all)
        # What has no table (shares, where a table would need everybody in it) is asked
        # one by one, and only of rules that all the tables let match.
        self._others: list[tuple[Condition, Bits]] = [
            pair
            for kind, found in having.items()
            if kind not in _MAKE and kind not in (ToHost, NotTo, ResolvesTo)
            for pair in found
        ]

    def answers(self, facts: Facts) -> tuple[Bits, Bits]:
        """Give the rules that may match, and of these those that do."""
        may = does = self._all
        for ask, without in self._asks:
            found = ask(facts)
            if found is None:
                does &= without
            else:
                found |= without
                may &= found
                does &= found
        may_hold, holds = self._to.answers(facts)
        may &= may_hold | self._without_to
        does &= holds | self._without_to
        may_hold, holds = self._not_to.answers(facts)
        may &= ~holds
        does &= ~may_hold
        if facts.address is None:
            does &= self._without_lands
        else:
            found = self._lands.rules(facts.address) | self._without_lands
            may &= found
            does &= found
        for condition, bit in self._others:
            if may & bit:
                matched = condition.matches(facts)
                if matched is False:
                    may &= ~bit
                if not matched:
                    does &= ~bit
        return may, does

    def naming(self, address: IPAddress, width: int) -> Bits:
        """Give the rules that name *address* by a network of *width* bits or less."""
        return self._to.networks.rules(address, width) | self._lands.rules(address, width)


def _listener(rules: list[tuple[OnListener, Bits]]) -> Ask:
    names = table((each.names, bits) for each, bits in rules)
    return lambda facts: names.get(facts.listener, 0)


def _user(rules: list[tuple[ByUser, Bits]]) -> Ask:
    names = table((each.names, bits) for each, bits in rules)
    anyone = _union(bits for each, bits in rules if each.anyone)
    nobody = _union(bits for each, bits in rules if each.nobody)

    def ask(facts: Facts) -> Bits | None:
        if facts.principal is None:
            return None
        name = facts.principal.name
        return nobody if name is None else anyone | names.get(name, 0)

    return ask


def _group(rules: list[tuple[InGroup, Bits]]) -> Ask:
    groups = table((each.groups, bits) for each, bits in rules)
    reported = table(([group.name], bits) for group, bits in groups.items())
    users = table((group.users, bits) for group, bits in groups.items())

    def ask(facts: Facts) -> Bits | None:
        if facts.principal is None:
            return None
        name = facts.principal.name
        found = 0 if name is None else users.get(name, 0)
        for group in facts.principal.groups:
            found |= reported.get(group, 0)
        return found

    return ask


def _command(rules: list[tuple[WithCommand, Bits]]) -> Ask:
    commands = table((each.commands, bits) for each, bits in rules)
    return lambda facts: None if facts.command is None else commands.get(facts.command, 0)


def _ports(rules: list[tuple[ToPorts, Bits]]) -> Ask:
    steps = Steps((each.edges, bits) for each, bits in rules)
    return lambda facts: None if facts.destination is None else steps.rules(facts.destination.port)


def _when(rules: list[tuple[At, Bits]]) -> Ask:
    by_zone: dict[tzinfo, list[tuple[tuple[int, ...], Bits]]] = {}
    for each, bits in rules:
        for zone, edges in each.zones:
            by_zone.setdefault(zone, []).append((edges, bits))
    zones = [(zone, Steps(ranges)) for zone, ranges in by_zone.items()]
    return lambda facts: _union(steps.rules(minute(facts.time, zone)) for zone, steps in zones)


def _require(rules: list[tuple[Hostname, Bits]]) -> Ask:
    every = _union(bits for _, bits in rules)

    def ask(facts: Facts) -> Bits | None:
        if facts.destination is None:
            return None
        return every if isinstance(facts.destination.host, str) else 0

    return ask


def _from(rules: list[tuple[FromNetworks, Bits]]) -> Ask:
    networks = NetworkTable(_by_set(rules))
    return lambda facts: networks.rules(facts.client)


def _not_from(rules: list[tuple[NotFrom, Bits]]) -> Ask:
    networks = NetworkTable(_by_set(rules))
    every = _union(bits for _, bits in rules)
    return lambda facts: every & ~networks.rules(facts.client)


# What makes the table of a kind; to, not_to and resolves_to have theirs in the index.
_MAKE: Mapping[type[Condition], Callable[[list[tuple[Any, Bits]]], Ask]] = {
    OnListener: _listener,
    ByUser: _user,
    InGroup: _group,
    WithCommand: _command,
    ToPorts: _ports,
    At: _when,
    Hostname: _require,
    FromNetworks: _from,
    NotFrom: _not_from,
}


def _union(sets: Iterable[Bits]) -> Bits:
    return reduce(or_, sets, 0)


def _by_set(
    rules: Iterable[tuple[FromNetworks | NotFrom | ToHost | NotTo | ResolvesTo, Bits]],
) -> dict[HostSet, Bits]:
    return table((each.sets, bits) for each, bits in rules)
