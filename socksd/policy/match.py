"""
Conditions: what one key of a rule asks about the facts.

Each answers in three values: ``True`` and ``False`` are for good, whatever
becomes known later; ``None`` is "that depends on a fact not known yet".
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import ClassVar, Protocol

from socksd.address import IPAddress
from socksd.codes import Command
from socksd.facts import Facts

IPNetwork = IPv4Network | IPv6Network
Answer = bool | None


class Condition(Protocol):
    """One key of a rule; its values are alternatives."""

    key: ClassVar[str]  # as in the configuration

    def matches(self, facts: Facts) -> Answer:
        """Answer for these facts, and for all that grow out of them."""


@dataclass(frozen=True, slots=True)
class Networks:
    """
    A set of networks, asked in constant time however many there are.

    For each prefix length the leading bits that belong to the set: at most
    33 look-ups for an IPv4 address and 129 for an IPv6 address. The families
    are apart: ``::/0`` is all of IPv6 and nothing of IPv4.
    """

    v4: tuple[tuple[int, frozenset[int]], ...]  # (bits to shift out, what is left)
    v6: tuple[tuple[int, frozenset[int]], ...]

    @classmethod
    def of(cls, networks: Iterable[IPNetwork]) -> Networks:
        """Make a set of networks; they may overlap."""
        prefixes: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            leading = int(network.network_address) >> shift
            prefixes[network.version].setdefault(shift, set()).add(leading)
        v4, v6 = (
            tuple((shift, frozenset(leading)) for shift, leading in sorted(by_shift.items()))
            for by_shift in prefixes.values()
        )
        return cls(v4, v6)

    def holds(self, address: IPAddress) -> bool:
        """Say whether *address* is in one of them."""
        value = int(address)
        # A loop: a generator inside any() costs more than what it asks.
        for shift, leading in self.v4 if isinstance(address, IPv4Address) else self.v6:
            if value >> shift in leading:
                return True
        return False


@dataclass(frozen=True, slots=True)
class Names:
    """A set of normalised names: some exact, some by suffix, some by glob."""

    exact: frozenset[str]
    suffixes: frozenset[str]  # without their leading dot
    glob: re.Pattern[str] | None

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Names:
        """
        Make a set of ``host``, ``.suffix`` and globs.

        A suffix is the domain itself and everything below. In a glob ``*``
        is any number of characters and ``?`` is one, dots included.
        """
        exact, suffixes, globs = set(), set(), []
        for pattern in patterns:
            if "*" in pattern or "?" in pattern:
                globs.append(pattern)
            elif pattern.startswith("."):
                suffixes.add(pattern[1:])
            else:
                exact.add(pattern)
        # The name is the client's to choose: translate() makes atomic groups, so
        # that no name sends "*a*a*a*a*" backtracking (a ".*" for each "*" would).
        glob = re.compile("|".join(map(translate, sorted(globs)))) if globs else None
        return cls(frozenset(exact), frozenset(suffixes), glob)

    def holds(self, name: str) -> bool:
        """Say whether *name*, normalised, is one of them."""
        if name in self.exact or (self.glob is not None and self.glob.match(name)):
            return True
        if not self.suffixes:
            return False
        rest, dot = name, "."
        while dot:
            if rest in self.suffixes:
                return True
            _, dot, rest = rest.partition(".")
        return False


@dataclass(frozen=True, slots=True)
class FromNetworks:
    """``from``: where the client is."""

    key: ClassVar[str] = "from"
    networks: Networks

    @classmethod
    def of(cls, networks: Iterable[IPNetwork]) -> FromNetworks:
        """Make one of networks."""
        return cls(Networks.of(networks))

    def matches(self, facts: Facts) -> Answer:
        """Answer, from the first octets on."""
        return self.networks.holds(facts.client)


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
class ToHost:
    """
    ``to``: the name that was asked for, or the address that would be dialled.

    A name is what the client sent; a literal is none, and no pattern of names
    matches it. A network holds the literal and the resolved address alike.
    """

    key: ClassVar[str] = "to"
    names: Names | None
    networks: Networks | None

    @classmethod
    def of(cls, targets: Iterable[str | IPNetwork]) -> ToHost:
        """Make one of patterns of names (see :meth:`Names.of`) and networks."""
        names, networks = [], []
        for target in targets:
            if isinstance(target, str):
                names.append(target)
            else:
                networks.append(target)
        return cls(
            Names.of(names) if names else None,
            Networks.of(networks) if networks else None,
        )

    def matches(self, facts: Facts) -> Answer:
        """Answer, by a name as soon as it is asked for, by a network at an address."""
        named: Answer = False
        if self.names is not None:
            if facts.destination is None:
                named = None
            else:
                host = facts.destination.host
                named = isinstance(host, str) and self.names.holds(host)
        if named or self.networks is None:
            return named
        if facts.address is None:
            return None
        return self.networks.holds(facts.address) or named


@dataclass(frozen=True, slots=True)
class ToPorts:
    """``ports``: DST.PORT of the request."""

    key: ClassVar[str] = "ports"
    edges: tuple[int, ...]  # ascending; behind an odd number of them is inside

    @classmethod
    def of(cls, ranges: Iterable[range]) -> ToPorts:
        """Make one of ranges of step 1, none of them empty; they may overlap."""
        edges: list[int] = []
        for ports in sorted(ranges, key=lambda ports: ports.start):
            if edges and ports.start <= edges[-1]:
                edges[-1] = max(edges[-1], ports.stop)
            else:
                edges += (ports.start, ports.stop)
        return cls(tuple(edges))

    def matches(self, facts: Facts) -> Answer:
        """Answer, once there is a destination."""
        if facts.destination is None:
            return None
        return bisect_right(self.edges, facts.destination.port) % 2 == 1
