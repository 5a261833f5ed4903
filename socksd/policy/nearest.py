"""
What would turn a verdict: the smallest changes of the facts that do.

Values are taken from what the rules speak of, and each set of changes has
been put to decide() before it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from itertools import chain, combinations, islice
from typing import Any

from socksd.address import IPAddress, normal_host
from socksd.codes import COMMANDS
from socksd.errors import AddressError
from socksd.facts import ANONYMOUS, Decision, Principal, Verdict
from socksd.policy.explain import Question, outcome
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
)
from socksd.policy.rules import Policy
from socksd.policy.sets import HostSet, Names, Networks
from socksd.policy.words import clock, networks, next_minute

SOMEBODY = "somebody"  # who logs in, and no rule has to know the name
ANY_NAME = "name.invalid"  # RFC 2606: a name that no rule has to know

_ASKS = 3_000  # questions to the policy for each number of changes
_SETS = 100 * _ASKS  # that are looked at for that
_EACH = 4  # values that are tried of one set
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Change:
    """One fact that would be another."""

    key: str  # as explain's options and [[test]] have it, or "host", "port"
    text: str
    value: Any = field(compare=False)


Changes = tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """
    Changes that turn the verdict, and what is then decided.

    That is DEFER where it then depends on addresses that are not known.
    """

    changes: Changes
    decision: Decision


def nearest(policy: Policy, question: Question) -> tuple[Turn, ...]:
    """
    Find the smallest sets of changes that turn ALLOW into DENY, or DENY into ALLOW.

    Up to three facts are changed. All sets have the same size; one is told
    for each rule that would then decide and each kind of change. Empty where
    none was found within the bound on questions, or the verdict is DEFER.
    """
    now = outcome(policy, question).verdict
    if now is Verdict.DEFER:
        return ()
    by_rule = [
        list(dict.fromkeys(_options_of(rule.conditions, question)))
        for rule in policy.rules
        if not rule.on_trial
    ]
    every = list(dict.fromkeys(chain.from_iterable(by_rule)))
    for size in (1, 2, 3):
        # What one rule asks for first: in a long list the other pairs are too many.
        own = chain.from_iterable(combinations(changes, size) for changes in by_rule)
        sets = own if size == 3 else chain(own, combinations(every, size))
        turning: dict[tuple[str, ...], Turn] = {}
        for changes in islice(filter(_of_different_facts, islice(sets, _SETS)), _ASKS):
            decision = outcome(policy, changed(question, changes))
            if decision.verdict is not now:
                kind = (decision.rule, *sorted(each.key for each in changes))
                turning.setdefault(kind, Turn(changes, decision))
        if turning:
            return tuple(turning.values())[:_SHOWN]
    return ()


def changed(question: Question, changes: Iterable[Change]) -> Question:
    """Give the question with other facts."""
    for change in changes:
        question = _APPLY[change.key](question, change.value)
    return question


def options(condition: Condition, question: Question) -> Iterator[Change]:
    """Give changes that may make a condition match, or not match any more; the nearest first."""
    facts = question.facts
    match condition:
        case OnListener():
            yield from (Change("listener", name, name) for name in sorted(condition.names))
        case ByUser():
            yield from (Change("user", name, name) for name in sorted(condition.names))
            if condition.anyone:
                yield Change("user", "anybody who logs in", SOMEBODY)
            if condition.nobody:
                yield Change("user", "nobody, without login", None)
        case InGroup():
            for group in sorted(condition.groups, key=lambda group: group.name):
                yield Change("group", group.name, group.name)
                yield from (Change("user", n, n) for n in nsmallest(_EACH, group.users))
        case WithCommand():
            for command in sorted(condition.commands):
                yield Change("command", COMMANDS[command], command)
        case ToPorts():
            port = facts.destination.port if facts.destination else 0
            sides = {side for edge in condition.edges for side in (edge - 1, edge)}
            near = sorted(sides, key=lambda each: (abs(each - port), each))
            yield from (Change("port", str(each), each) for each in near if 0 <= each <= 65535)
        case At():
            for zone, edges in condition.zones:
                for time in sorted(next_minute(facts.time, zone, edge) for edge in edges):
                    yield Change("at", clock(time, zone), time)
        case Hostname():
            yield Change("host", "a name instead of the address", ANY_NAME)
            yield from (Change("host", str(a), a) for a in (question.addresses or ())[:1])
        case FromNetworks() | NotFrom():
            yield from (Change("from", str(a), a) for a in addresses_of(condition.sets))
        case ToHost() | NotTo() | ResolvesTo():
            named = facts.destination is not None and isinstance(facts.destination.host, str)
            key = "resolves" if named and question.addresses else "host"
            yield from (Change(key, str(a), a) for a in addresses_of(condition.sets))
            for each in _sorted(condition.sets):
                yield from (Change("host", name, name) for name in _names(each.names))


def _options_of(conditions: Iterable[Condition], question: Question) -> Iterator[Change]:
    """Leave out what is so already."""
    for condition in conditions:
        for change in options(condition, question):
            if changed(question, (change,)) != question:
                yield change


def _of_different_facts(changes: Changes) -> bool:
    return len({change.key for change in changes}) == len(changes)


def _sorted(sets: Iterable[HostSet]) -> list[HostSet]:
    return sorted(sets, key=lambda each: each.name)


def addresses_of(sets: Iterable[HostSet]) -> Iterator[IPAddress]:
    """Give an address of each of the first few networks of some sets."""
    for each in _sorted(sets):
        for family in (Networks(v4=each.networks.v4), Networks(v6=each.networks.v6)):
            for network in islice(networks(family), _EACH):
                yield network[1] if network.num_addresses > 1 else network[0]


def _names(names: Names) -> Iterator[str]:
    yield from nsmallest(_EACH, names.exact)
    yield from nsmallest(_EACH, names.suffixes)
    for glob in nsmallest(_EACH, names.globs):
        name = glob.replace("*", "x").replace("?", "x")
        try:
            if normal_host(name) == name:
                yield name
        except AddressError:
            pass  # a glob of names that are too long, or none


def _user(question: Question, name: str | None) -> Question:
    principal = question.facts.principal or ANONYMOUS
    principal = ANONYMOUS if name is None else replace(principal, name=name)
    return replace(question, facts=question.facts.known_as(principal))


def _group(question: Question, group: str) -> Question:
    principal = question.facts.principal or ANONYMOUS
    if principal.name is None:
        return question  # without login nobody reports groups
    principal = Principal(principal.name, principal.groups | {group})
    return replace(question, facts=question.facts.known_as(principal))


def _asking(question: Question, **changes: Any) -> Question:
    facts = question.facts
    if facts.command is None or facts.destination is None:
        return question
    command = changes.pop("command", facts.command)
    asking = facts.asking(command, replace(facts.destination, **changes))
    addresses = question.addresses
    if addresses is None and facts.address is not None and asking.address is None:
        addresses = (facts.address,)  # a name for what was asked for by address
    return Question(asking, addresses if asking.address is None else None)


_APPLY: Mapping[str, Callable[[Question, Any], Question]] = {
    "user": _user,
    "group": _group,
    "from": lambda q, client: replace(q, facts=replace(q.facts, client=client)),
    "listener": lambda q, listener: replace(q, facts=replace(q.facts, listener=listener)),
    "at": lambda q, time: replace(q, facts=replace(q.facts, time=time)),
    "command": lambda q, command: _asking(q, command=command),
    "host": lambda q, host: _asking(q, host=host),
    "port": lambda q, port: _asking(q, port=port),
    "resolves": lambda q, address: replace(q, addresses=(address,)),
}
