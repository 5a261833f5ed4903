"""
Conditions: what one key of a rule asks about the facts.

Each answers in three values: ``True`` and ``False`` are for good, whatever
becomes known later; ``None`` is "that depends on a fact not known yet".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from hashlib import blake2b
from typing import ClassVar, Protocol

from socksd.address import IPAddress
from socksd.codes import Command
from socksd.facts import Facts
from socksd.policy.sets import HostSet, IPNetwork

Answer = bool | None


class Condition(Protocol):
    """One key of a rule; its values are alternatives."""

    key: ClassVar[str]  # as in the configuration

    def matches(self, facts: Facts) -> Answer:
        """Answer for these facts, and for all that grow out of them."""


@dataclass(frozen=True, slots=True)
class OnListener:
    """``listener``: where the client came in."""

    key: ClassVar[str] = "listener"
    names: frozenset[str]

    @classmethod
    def of(cls, names: Iterable[str]) -> OnListener:
        """Make one of the listeners' names."""
        return cls(frozenset(names))

    def matches(self, facts: Facts) -> Answer:
        """Answer, from the first octets on."""
        return facts.listener in self.names


@dataclass(frozen=True, slots=True)
class ByUser:
    """
    ``user``: who the client is.

    The two words are kept apart from the names, for somebody who logs in as
    "@none" has logged in.
    """

    ANY: ClassVar[str] = "@any"  # logged in
    NONE: ClassVar[str] = "@none"  # came without login

    key: ClassVar[str] = "user"
    names: frozenset[str]
    anyone: bool
    nobody: bool

    @classmethod
    def of(cls, users: Iterable[str]) -> ByUser:
        """Make one of names, ``@any`` and ``@none``."""
        users = frozenset(users)
        return cls(users - {cls.ANY, cls.NONE}, cls.ANY in users, cls.NONE in users)

    def matches(self, facts: Facts) -> Answer:
        """Answer, once it is known who they are or that they do not say."""
        if facts.principal is None:
            return None
        name = facts.principal.name
        if name is None:
            return self.nobody
        return self.anyone or name in self.names


@dataclass(frozen=True, slots=True)
class Group:
    """One of ``[groups]``: who belongs to it by the configuration."""

    name: str
    users: frozenset[str]


@dataclass(frozen=True, slots=True)
class InGroup:
    """``group``: what the client belongs to, by the configuration or by its authenticator."""

    key: ClassVar[str] = "group"
    groups: frozenset[Group]

    @classmethod
    def of(cls, groups: Iterable[Group]) -> InGroup:
        """Make one of groups."""
        return cls(frozenset(groups))

    def matches(self, facts: Facts) -> Answer:
        """Answer, once it is known who they are or that they do not say."""
        if facts.principal is None:
            return None
        name, reported = facts.principal.name, facts.principal.groups
        return any(name in group.users or group.name in reported for group in self.groups)


@dataclass(frozen=True, slots=True)
class WithCommand:
    """``command``: CMD of the request."""

    key: ClassVar[str] = "command"
    commands: frozenset[Command]

    @classmethod
    def of(cls, commands: Iterable[Command]) -> WithCommand:
        """Make one of commands."""
        return cls(frozenset(commands))

    def matches(self, facts: Facts) -> Answer:
        """Answer, once there is a request."""
        if facts.command is None:
            return None
        return facts.command in self.commands


@dataclass(frozen=True, slots=True)
class ToPorts:
    """``ports``: DST.PORT of the request."""

    key: ClassVar[str] = "ports"
    edges: tuple[int, ...]  # see edges_of()

    @classmethod
    def of(cls, ranges: Iterable[range]) -> ToPorts:
        """Make one of ranges of step 1, none of them empty; they may overlap."""
        return cls(edges_of(ranges))

    def matches(self, facts: Facts) -> Answer:
        """Answer, once there is a destination."""
        if facts.destination is None:
            return None
        return between(self.edges, facts.destination.port)


@dataclass(frozen=True, slots=True)
class Hours:
    """
    Some minutes of every week, by the clocks of one time zone.

    By its clocks: on the day they are put back the hour that comes twice is
    inside twice, and the one that is left out in spring never comes.
    """

    WEEK: ClassVar[int] = 7 * 24 * 60

    zone: tzinfo
    minutes: tuple[range, ...]  # from Monday, 00:00; those beyond the week are of the next one


@dataclass(frozen=True, slots=True)
class At:
    """``when``: the time at which the client connected."""

    key: ClassVar[str] = "when"
    zones: tuple[tuple[tzinfo, tuple[int, ...]], ...]  # each with the edges of its minutes

    @classmethod
    def of(cls, hours: Iterable[Hours]) -> At:
        """Make one of hours; they may overlap."""
        by_zone: dict[tzinfo, list[range]] = {}
        for each in hours:
            ranges = by_zone.setdefault(each.zone, [])
            for minutes in each.minutes:
                ranges.append(range(minutes.start, min(minutes.stop, Hours.WEEK)))
                if minutes.stop > Hours.WEEK:
                    ranges.append(range(minutes.stop - Hours.WEEK))
        zones = sorted(by_zone.items(), key=lambda item: str(item[0]))
        return cls(tuple((zone, edges_of(ranges)) for zone, ranges in zones))

    def matches(self, facts: Facts) -> Answer:
        """Answer, from the first octets on."""
        return any(between(edges, minute(facts.time, zone)) for zone, edges in self.zones)


@dataclass(frozen=True, slots=True)
class FromNetworks:
    """``from``: where the client is."""

    key: ClassVar[str] = "from"
    sets: frozenset[HostSet]

    @classmethod
    def of(cls, members: Iterable[IPNetwork | HostSet]) -> FromNetworks:
        """Make one of networks and of sets of them."""
        return cls(host_sets(members))

    def matches(self, facts: Facts) -> Answer:
        """Answer, from the first octets on."""
        return any_holds(self.sets, facts.client)


@dataclass(frozen=True, slots=True)
class NotFrom:
    """``not_from``: where the client is not."""

    key: ClassVar[str] = "not_from"
    sets: frozenset[HostSet]

    @classmethod
    def of(cls, members: Iterable[IPNetwork | HostSet]) -> NotFrom:
        """Make one of networks and of sets of them."""
        return cls(host_sets(members))

    def matches(self, facts: Facts) -> Answer:
        """Answer, from the first octets on."""
        return not any_holds(self.sets, facts.client)


@dataclass(frozen=True, slots=True)
class Hostname:
    """``require = "hostname"``: the client leaves looking names up to us."""

    key: ClassVar[str] = "require"

    def matches(self, facts: Facts) -> Answer:
        """Answer, once there is a destination."""
        if facts.destination is None:
            return None
        return isinstance(facts.destination.host, str)


@dataclass(frozen=True, slots=True)
class ToHost:
    """
    ``to``: the name that was asked for, or the address that would be dialled.

    A name is what the client sent; a literal is none, and no pattern of names
    matches it. A network holds the literal and the resolved address alike.
    """

    key: ClassVar[str] = "to"
    sets: frozenset[HostSet]

    @classmethod
    def of(cls, members: Iterable[str | IPNetwork | HostSet]) -> ToHost:
        """Make one of patterns of names (see :meth:`Names.of`), networks and sets."""
        return cls(host_sets(members))

    def matches(self, facts: Facts) -> Answer:
        """Answer, by a name as soon as it is asked for, by a network at an address."""
        return leads_to(self.sets, facts)


@dataclass(frozen=True, slots=True)
class NotTo:
    """``not_to``: what ``to`` would match does not."""

    key: ClassVar[str] = "not_to"
    sets: frozenset[HostSet]

    @classmethod
    def of(cls, members: Iterable[str | IPNetwork | HostSet]) -> NotTo:
        """Make one of patterns of names (see :meth:`Names.of`), networks and sets."""
        return cls(host_sets(members))

    def matches(self, facts: Facts) -> Answer:
        """Answer as ``to`` does, the other way round."""
        answer = leads_to(self.sets, facts)
        return None if answer is None else not answer


@dataclass(frozen=True, slots=True)
class ResolvesTo:
    """
    ``resolves_to``: where a name may land.

    The address that would be dialled, whatever spelled it: a literal lands at
    itself, else to look the name up oneself would be a way around.
    """

    key: ClassVar[str] = "resolves_to"
    sets: frozenset[HostSet]

    @classmethod
    def of(cls, members: Iterable[IPNetwork | HostSet]) -> ResolvesTo:
        """Make one of networks and of sets of them."""
        return cls(host_sets(members))

    def matches(self, facts: Facts) -> Answer:
        """Answer, once there is an address."""
        if facts.address is None:
            return None
        return any_holds(self.sets, facts.address)


@dataclass(frozen=True, slots=True)
class Share:
    """
    ``share``: some of the people, always the same ones.

    Drawn by user, or by address where nobody has logged in; by the rule's id
    as well, so that not every trial is tried on the same few.
    """

    key: ClassVar[str] = "share"
    rule: str
    part: float  # above 0, at most 1

    def matches(self, facts: Facts) -> Answer:
        """Answer, once it is known who they are or that they do not say."""
        if facts.principal is None:
            return None
        name = facts.principal.name
        who = f"client {facts.client}" if name is None else f"user {name}"
        drawn = blake2b(f"{self.rule} {who}".encode(errors="surrogatepass"), digest_size=8)
        return int.from_bytes(drawn.digest(), "big") < self.part * 2**64


def edges_of(ranges: Iterable[range]) -> tuple[int, ...]:
    """
    Give the edges of ranges, ascending: behind an odd number of them is inside.

    Args:
        ranges: Of step 1, none of them empty; they may overlap.
    """
    edges: list[int] = []
    for each in sorted(ranges, key=lambda each: each.start):
        if edges and each.start <= edges[-1]:
            edges[-1] = max(edges[-1], each.stop)
        else:
            edges += (each.start, each.stop)
    return tuple(edges)


def between(edges: tuple[int, ...], value: int) -> bool:
    """Say whether *value* is inside of what has these edges."""
    return bisect_right(edges, value) % 2 == 1


def minute(time: float, zone: tzinfo) -> int:
    """Give the minute of the week that the clocks of *zone* show, from Monday, 00:00."""
    local = datetime.fromtimestamp(time, zone)
    return (local.weekday() * 24 + local.hour) * 60 + local.minute


def host_sets(members: Iterable[str | IPNetwork | HostSet]) -> frozenset[HostSet]:
    """Gather what stands in the rule itself into one set beside those it refers to."""
    sets: set[HostSet] = set()
    inline: list[str | IPNetwork] = []
    for member in members:
        if isinstance(member, HostSet):
            sets.add(member)
        else:
            inline.append(member)
    if inline:
        sets.add(HostSet.of(inline))
    return frozenset(sets)


def any_holds(sets: Iterable[HostSet], address: IPAddress) -> bool:
    """Say whether a network of one of the sets holds *address*."""
    return any(each.networks.holds(address) for each in sets)


def leads_to(sets: Iterable[HostSet], facts: Facts) -> Answer:
    """Answer whether a set holds the name that was asked for, or the address."""
    unknown = False
    if facts.destination is None:
        unknown = any(each.names for each in sets)
    elif isinstance(facts.destination.host, str):
        name = facts.destination.host
        if any(each.names.holds(name) for each in sets):
            return True
    if facts.address is None:
        unknown = unknown or any(each.networks for each in sets)
    elif any_holds(sets, facts.address):
        return True
    return None if unknown else False
