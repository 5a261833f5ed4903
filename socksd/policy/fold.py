"""
Many hosts in few words, at a price that is known: names below one suffix, addresses in one network.

The price is what nobody has asked for and could be had then. With a network
that is its other addresses. With a suffix, below which there is no end of
names, it is counted by labels: each domain in which names were seen counts as
one (another label may stand there), as one more unless somebody asked for the
domain itself, and so does every name that only others have asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from socksd.address import IPAddress
from socksd.policy.sets import IPNetwork, domains
from socksd.policy.special import SPECIAL

# Below two-letter domains these are offered to the public as a rule: co.uk, com.au, or.jp.
_OFFERED = frozenset(
    {"ac", "co", "com", "edu", "gob", "gov", "go", "mil", "ne", "net", "or", "org"}
)
_PRIVATE = SPECIAL["@private"].networks


@dataclass(frozen=True, slots=True)
class Folded:
    """
    Hosts, written in few words.

    Attributes:
        hosts: As a rule would have them.
        unseen: How many hosts they hold, by the count of this module, that were not given.
    """

    hosts: tuple[str, ...]
    unseen: int


class Domains:
    """Names, for asking how many of them stand below a domain."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._paths = sorted(map(_path, self._names))

    def below(self, domain: str) -> int:
        """Count the names that are *domain* or stand below it."""
        path = _path(domain)
        return bisect_left(self._paths, path + "\x7f") - bisect_left(self._paths, path)

    def known(self, names: Iterable[str]) -> int:
        """Count those of *names* that are among these."""
        return sum(name in self._names for name in names)


def fold_names(names: Collection[str], bound: float, asked: Domains, denied: Domains) -> Folded:
    """
    Write names as suffixes, as few as may be.

    Args:
        names: Normalised.
        bound: What a suffix may hold that was not given, for each name that was.
        asked: All that anybody has asked for.
        denied: What no suffix may hold.
    """
    below: dict[str, set[str]] = {}
    for name in names:
        for domain in domains(name):
            if _is_private(domain):
                below.setdefault(domain, set()).add(name)
    left, hosts, unseen = set(names), [], 0
    # The widest first: where one is too wide, those below it are tried.
    for domain in sorted(below, key=lambda domain: (domain.count("."), domain)):
        covered = below[domain]
        if len(covered) < 2 or not covered <= left:
            continue
        price = _price(domain, covered, asked)
        if price <= bound * len(covered) and denied.below(domain) == denied.known(covered):
            hosts.append(f".{domain}")
            left -= covered
            unseen += price
    return Folded((*sorted(hosts), *sorted(left)), unseen)


def fold_addresses(
    addresses: Iterable[IPAddress], bound: float, denied: Collection[IPAddress] = ()
) -> Folded:
    """
    Write addresses as networks, as few as may be.

    None goes beyond the private network it lies in: what is wider would not
    name private space.

    Args:
        addresses: In any order.
        bound: What a network may hold that was not given, for each address that was.
        denied: What no network may hold.
    """
    places: dict[tuple[int, int, int], set[int]] = {}
    for address in addresses:
        width, value = _PRIVATE.width(address), int(address)
        place = (address.version, width, value >> width if width >= 0 else 0)
        places.setdefault(place, set()).add(value)
    hosts, unseen = [], 0
    for (version, _, _), values in sorted(places.items()):
        barred = sorted({int(each) for each in denied if each.version == version} - values)
        for first, shift, seen in _networks(sorted(values), bound, barred):
            hosts.append(_written(version, first, shift))
            unseen += (1 << shift) - seen
    return Folded(tuple(hosts), unseen)


def _networks(values: list[int], bound: float, barred: list[int]) -> Iterator[tuple[int, int, int]]:
    """Give first value, open bits and known members: the narrowest for all, or of its halves."""
    shift = (values[0] ^ values[-1]).bit_length()
    first = values[0] >> shift << shift
    size = 1 << shift
    is_clear = bisect_left(barred, first) == bisect_left(barred, first + size)
    if is_clear and size - len(values) <= bound * len(values):
        yield first, shift, len(values)
        return
    middle = bisect_left(values, first + size // 2)
    yield from _networks(values[:middle], bound, barred)
    yield from _networks(values[middle:], bound, barred)


def _written(version: int, first: int, shift: int) -> str:
    network: IPNetwork = (
        IPv4Network((first, 32 - shift)) if version == 4 else IPv6Network((first, 128 - shift))
    )
    return str(network if shift else network.network_address)


def _price(domain: str, covered: set[str], asked: Domains) -> int:
    depth = domain.count(".")
    inner = {
        above
        for name in covered
        for above in domains(name)
        if above != name and above.count(".") >= depth
    }
    silent = inner - covered
    others = asked.below(domain) - len(covered) - asked.known(silent)
    return len(inner) + len(silent) + others


def _is_private(domain: str) -> bool:
    """Say whether all names below *domain* seem to be somebody's: never ``com`` or ``co.uk``."""
    *lower, top = domain.split(".")
    return len(lower) > 1 or (len(lower) == 1 and (len(top) > 2 or lower[0] not in _OFFERED))


def _path(name: str) -> str:
    """Write a name from its top, so that a domain comes before what stands below it."""
    return "".join(f"{label}." for label in reversed(name.split(".")))
