"""Where this very host answers: the built-in set ``@self``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

IPNetwork = IPv4Network | IPv6Network

# Not /proc/net: under ProcSubset=pid, as in our unit, only what belongs to a process is there.
_PROC = Path("/proc/self/net")


def own_networks(proc: Path = _PROC) -> tuple[IPNetwork, ...]:
    """
    Give all that the kernel delivers to this host: addresses, and networks routed to it.

    Raises:
        OSError: The kernel's table for IPv4 cannot be read. That for IPv6
            is not there where there is no IPv6.
    """
    found: set[IPNetwork] = set(_ipv4((proc / "fib_trie").read_text("ascii")))
    with suppress(FileNotFoundError):
        found.update(_ipv6((proc / "if_inet6").read_text("ascii")))
    return tuple(sorted(found, key=lambda network: (network.version, network)))


def _ipv4(trie: str) -> Iterator[IPv4Network]:
    """
    Read /proc/self/net/fib_trie.

    A leaf is "|-- ADDRESS"; below it stands a line for each route, as
    "/32 host LOCAL" for one that ends here.
    """
    address = ""
    for line in trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif words[-1:] == ["LOCAL"]:
            yield IPv4Network(address + words[0])


def _ipv6(table: str) -> Iterator[IPv6Network]:
    """Read /proc/self/net/if_inet6: 32 hexadecimal digits, and what is not needed here."""
    for line in table.splitlines():
        yield IPv6Network(int(line[:32], 16))
