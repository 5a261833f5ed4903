"""The sets that every policy knows: addresses with a meaning of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv6Network, ip_network

from socksd.policy.sets import HostSet, IPNetwork

# By the registries of RFC 6890 and what cloud providers document.
_SPECIAL: Mapping[str, tuple[str, ...]] = {
    "loopback": ("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128"),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "private": (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # RFC 6598: behind a carrier's NAT, and many an overlay network
        "fc00::/7",
        "fec0::/10",  # RFC 3879: deprecated, and still routed where it is
    ),
    # Who reaches these from within a cloud is given the machine's credentials.
    "metadata": (
        "169.254.169.254/32",  # AWS, Azure, Google and most others
        "169.254.170.2/32",  # AWS, of a container
        "169.254.170.23/32",
        "fd00:ec2::254/128",
        "fd00:ec2::23/128",
        "fd20:ce::254/128",  # Google
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure, the host's agent
        "192.0.0.192/32",  # Oracle, before 169.254.169.254
    ),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "reserved": (
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
        "100::/64",
        "2001:2::/48",
        "2001:10::/28",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
    ),
    # What socksd.address.embedded() takes apart. Mapped addresses are seen as IPv4.
    "embedded-ipv4": (
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "2001::/32",
        "::ffff:0:0:0/96",
        # IPv4-compatible; :: and ::1 are none.
        *map(str, IPv6Network("::/96").address_exclude(IPv6Network("::/127"))),
    ),
}

CLASSES = (*_SPECIAL, "self")  # of addresses, as [guard] calls them


def special_sets(own: Iterable[IPNetwork] = ()) -> dict[str, HostSet]:
    """
    Give the built-in sets by their names, with ``@``.

    Args:
        own: Where this very host answers: the set ``@self``.
    """
    networks = {name: map(ip_network, texts) for name, texts in _SPECIAL.items()}
    return {
        f"@{name}": HostSet.of(members, f"@{name}")
        for name, members in {**networks, "self": iter(own)}.items()
    }


SPECIAL = special_sets()
