"""
What is surely inside of what: proofs about conditions and rules.

"No" means only that there is no proof. "Yes" holds for all facts, also while
some are not known yet.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from ipaddress import ip_network
from itertools import chain, islice
from typing import TypeVar

from socksd.policy.match import (
    At,
    ByUser,
    Condition,
    FromNetworks,
    InGroup,
    NotFrom,
    NotTo,
    OnListener,
    ResolvesTo,
    ToHost,
    ToPorts,
    WithCommand,
    edges_of,
)
from socksd.policy.rules import Rule
from socksd.policy.sets import HostSet, Prefixes, domains

C = TypeVar("C", bound=Condition)
T = TypeVar("T")
Edges = tuple[int, ...]  # see edges_of()
Sets = frozenset[HostSet]

_EVERYWHERE: Sets = frozenset({HostSet.of([ip_network("0.0.0.0/0"), ip_network("::/0")])})


def hidden_by(rule: Rule, before: Sequence[Rule]) -> tuple[Rule, ...]:
    """
    Give rules of *before* of which one matches whenever *rule* does; none: no proof.

    One that holds all of it; or several that each hold all of it but in one
    key, and there hold together what it has.
    """
    mine = {type(condition): condition for condition in rule.conditions}
    nearly: dict[type[Condition], list[Rule]] = {}
    for other in before:
        # Two are enough to know that it is of no use: most rules end here, at once.
        unproved = [*islice((c for c in other.conditions if not _follows(mine, c)), 2)]
        if not unproved:
            return (other,)
        if len(unproved) == 1 and type(unproved[0]) in mine:
            nearly.setdefault(type(unproved[0]), []).append(other)
    for kind, others in nearly.items():
        if inside(mine[kind], [c for o in others if (c := of_kind(o, kind)) is not None]):
            return tuple(others)
    return ()


def contradiction(rule: Rule) -> tuple[str, str] | None:
    """Give two keys of a rule that no facts match both; ``None``: no proof."""
    from_, not_from = of_kind(rule, FromNetworks), of_kind(rule, NotFrom)
    if from_ and not_from and addresses_inside(from_.sets, not_from.sets):
        return FromNetworks.key, NotFrom.key
    to, not_to, lands = of_kind(rule, ToHost), of_kind(rule, NotTo), of_kind(rule, ResolvesTo)
    if to and not_to and _hosts_inside(to.sets, not_to.sets):
        return ToHost.key, NotTo.key
    if to and lands and not has_names(to) and _apart(to.sets, lands.sets):
        return ToHost.key, ResolvesTo.key
    if lands and not_to and addresses_inside(lands.sets, not_to.sets):
        return ResolvesTo.key, NotTo.key
    return None


def inside(mine: Condition, theirs: Sequence[Condition]) -> bool:
    """Say whether one of *theirs* matches whenever *mine* does; all are of one kind."""
    match mine:
        case OnListener():
            return mine.names <= _union(each.names for each in _like(mine, theirs))
        case WithCommand():
            return mine.commands <= _union(each.commands for each in _like(mine, theirs))
        case InGroup():
            return mine.groups <= _union(each.groups for each in _like(mine, theirs))
        case ByUser():
            users = _like(mine, theirs)
            if any(each.anyone for each in users):
                return not mine.nobody or any(each.nobody for each in users)
            return not mine.anyone and (
                mine.names <= _union(each.names for each in users)
                and (not mine.nobody or any(each.nobody for each in users))
            )
        case ToPorts():
            return _within(mine.edges, *(each.edges for each in _like(mine, theirs)))
        case At():
            zones = [dict(each.zones) for each in _like(mine, theirs)]
            return all(
                _within(edges, *(each.get(zone, ()) for each in zones))
                for zone, edges in mine.zones
            )
        case FromNetworks() | ResolvesTo():
            return addresses_inside(mine.sets, _union(each.sets for each in _like(mine, theirs)))
        case ToHost():
            return _hosts_inside(mine.sets, _union(each.sets for each in _like(mine, theirs)))
        case NotFrom():
            # The other way round: what they leave out is left out here, too.
            return any(addresses_inside(each.sets, mine.sets) for each in _like(mine, theirs))
        case NotTo():
            return any(_hosts_inside(each.sets, mine.sets) for each in _like(mine, theirs))
        case _:
            return mine in theirs


def addresses_inside(sets: Sets, others: Sets) -> bool:
    """Say whether each network is in what the networks of *others* hold together."""
    if sets <= others:
        return True
    mine, theirs = _networks(sets), _networks(others)
    return all(_within(*pair) for pair in zip(mine, theirs, strict=True))


def of_kind(rule: Rule, kind: type[C]) -> C | None:
    """Give the rule's condition of a kind."""
    return next((c for c in rule.conditions if isinstance(c, kind)), None)


def has_names(condition: ToHost) -> bool:
    """Say whether some of its values are names."""
    return any(each.names for each in condition.sets)


def _follows(rule: Mapping[type[Condition], Condition], condition: Condition) -> bool:
    """Say whether *condition* matches whenever all those of a rule do."""
    mine = rule.get(type(condition))
    if mine is not None and inside(mine, [condition]):
        return True
    match condition:
        case FromNetworks():
            return addresses_inside(_EVERYWHERE, condition.sets)
        case NotFrom():
            from_ = rule.get(FromNetworks)
            return isinstance(from_, FromNetworks) and _apart(from_.sets, condition.sets)
        case ToHost():
            lands = rule.get(ResolvesTo)
            return isinstance(lands, ResolvesTo) and addresses_inside(lands.sets, condition.sets)
        case ResolvesTo():
            # A network, unlike a name, is found only by the address itself.
            to = rule.get(ToHost)
            return (
                isinstance(to, ToHost)
                and not has_names(to)
                and addresses_inside(to.sets, condition.sets)
            )
        case _:
            return False


def _like(mine: C, theirs: Sequence[Condition]) -> list[C]:
    return [each for each in theirs if isinstance(each, type(mine))]


def _union(sets: Iterable[AbstractSet[T]]) -> frozenset[T]:
    return frozenset(chain.from_iterable(sets))


def _hosts_inside(sets: Sets, others: Sets) -> bool:
    return sets <= others or (addresses_inside(sets, others) and _names_inside(sets, others))


def _names_inside(sets: Sets, others: Sets) -> bool:
    theirs = [each.names for each in others]
    suffixes = _union(each.suffixes for each in theirs)
    globs = _union(each.globs for each in theirs)

    def below(domain: str) -> bool:
        return not suffixes.isdisjoint(domains(domain))

    return all(
        all(any(some.holds(name) for some in theirs) for name in each.names.exact)
        and all(map(below, each.names.suffixes))
        and all(glob in globs or below(_domain(glob)) for glob in each.names.globs)
        for each in sets
    )


def _domain(glob: str) -> str:
    """Give the whole labels that a glob ends in: "lan.example" of "db-*1.lan.example"."""
    return re.split(r"[*?]", glob)[-1].partition(".")[2]


@lru_cache(maxsize=16_384)  # more than rules have keys: each is asked for by each other rule
def _networks(sets: Sets) -> tuple[Edges, Edges]:
    """Give the edges of all networks, of IPv4 and IPv6."""
    all_of = [each.networks for each in sets]
    v4 = (_ranges(each.v4) for each in all_of)
    v6 = (_ranges(each.v6) for each in all_of)
    return edges_of(chain.from_iterable(v4)), edges_of(chain.from_iterable(v6))


def _ranges(prefixes: Prefixes) -> Iterable[range]:
    for shift, leading in prefixes:
        for value in leading:
            yield range(value << shift, (value + 1) << shift)


def _within(edges: Edges, *others: Edges) -> bool:
    """Say whether each range of *edges* is in what *others* hold together."""
    merged = others[0] if len(others) == 1 else _merged(others)
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        behind = bisect_right(merged, start)
        if behind % 2 == 0 or merged[behind] < stop:
            return False
    return True


def _merged(all_of: Iterable[Edges]) -> Edges:
    return edges_of(
        range(start, stop)
        for edges in all_of
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
    )


def _apart(sets: Sets, others: Sets) -> bool:
    """Say whether no address is in a network of both."""
    for mine, theirs in zip(_networks(sets), _networks(others), strict=True):
        for start, stop in zip(mine[::2], mine[1::2], strict=True):
            before, behind = bisect_right(theirs, start), bisect_left(theirs, stop)
            if before % 2 or before != behind:
                return False
    return True
