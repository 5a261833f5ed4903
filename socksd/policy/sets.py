"""Sets of hosts: networks and names, asked in constant time however many there are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from socksd.address import IPAddress

IPNetwork = IPv4Network | IPv6Network
# For each prefix length the bits to shift out of an address, and what may be left.
Prefixes = tuple[tuple[int, frozenset[int]], ...]


@dataclass(frozen=True, slots=True)
class Networks:
    """
    A set of networks.

    For each prefix length the leading bits that belong to the set: at most
    33 look-ups for an IPv4 address and 129 for an IPv6 address. The families
    are apart: ``::/0`` is all of IPv6 and nothing of IPv4.
    """

    v4: Prefixes = ()
    v6: Prefixes = ()

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

    def holds(self, address: IPAddress, widest: int = 128) -> bool:
        """Say whether *address* is in one that leaves at most *widest* of its bits open."""
        value = int(address)
        # A loop: a generator inside any() costs more than what it asks.
        for shift, leading in self.v4 if isinstance(address, IPv4Address) else self.v6:
            if shift > widest:
                break
            if value >> shift in leading:
                return True
        return False

    def width(self, address: IPAddress) -> int:
        """Give how many bits the widest that holds *address* leaves open; -1: none holds it."""
        value = int(address)
        for shift, leading in reversed(self.v4 if isinstance(address, IPv4Address) else self.v6):
            if value >> shift in leading:
                return shift
        return -1

    def __bool__(self) -> bool:
        return bool(self.v4 or self.v6)


@dataclass(frozen=True, slots=True)
class Names:
    """A set of normalised names: some exact, some by suffix, some by glob."""

    exact: frozenset[str] = frozenset()
    suffixes: frozenset[str] = frozenset()  # without their leading dot
    globs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Names:
        """
        Make a set of ``host``, ``.suffix`` and globs.

        A suffix is the domain itself and everything below. In a glob ``*``
        is any number of characters and ``?`` is one, dots included.
        """
        exact, suffixes, globs = set(), set(), set()
        for pattern in patterns:
            if "*" in pattern or "?" in pattern:
                globs.add(pattern)
            elif pattern.startswith("."):
                suffixes.add(pattern[1:])
            else:
                exact.add(pattern)
        return cls(frozenset(exact), frozenset(suffixes), frozenset(globs))

    def holds(self, name: str) -> bool:
        """Say whether *name*, normalised, is one of them."""
        if name in self.exact:
            return True
        if self.suffixes and not self.suffixes.isdisjoint(domains(name)):
            return True
        return bool(self.globs) and glob(self.globs).match(name) is not None

    def __bool__(self) -> bool:
        return bool(self.exact or self.suffixes or self.globs)


def domains(name: str) -> Iterable[str]:
    """Give a name, and every domain above it but the root, the longest first."""
    dot = "."
    while dot:
        yield name
        _, dot, name = name.partition(".")


@lru_cache(maxsize=1024)
def glob(globs: frozenset[str]) -> re.Pattern[str]:
    """
    Make one pattern of globs, to be matched at the beginning.

    The name is the client's to choose: translate() makes atomic groups, so
    that no name sends "*a*a*a*a*" backtracking (a ".*" for each "*" would).
    """
    return re.compile("|".join(map(translate, sorted(globs))))


@dataclass(frozen=True, slots=True)
class HostSet:
    """
    Networks and names together: what ``[sets]`` names, or what stands in a rule.

    Attributes:
        name: With its ``@``; '' for what stands in a rule itself.
    """

    name: str
    networks: Networks
    names: Names

    @classmethod
    def of(cls, hosts: Iterable[str | IPNetwork], name: str = "") -> HostSet:
        """Make one of networks and patterns of names (see :meth:`Names.of`)."""
        networks, patterns = [], []
        for host in hosts:
            if isinstance(host, str):
                patterns.append(host)
            else:
                networks.append(host)
        return cls(name, Networks.of(networks), Names.of(patterns))
