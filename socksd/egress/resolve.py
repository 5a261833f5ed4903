"""A resolver from its words in the configuration: ``system``, or ``dns:SERVER,...``."""

from __future__ import annotations

import re
from ipaddress import ip_address

from twisted.internet.interfaces import IReactorFromThreads

from socksd.egress.cache import ENTRIES, NEGATIVE_TTL, CachingResolver
from socksd.egress.lookup import ILookup
from socksd.egress.names import DNSResolver
from socksd.egress.nameservers import IReactorAsking, NameServer, NameServers
from socksd.egress.system import THREADS, TTL, LookupThreads, SystemResolver
from socksd.errors import did_you_mean

TIMEOUT = 8.0  # seconds; below the 10 s that a session waits by default

_BRACKETED = re.compile(r"\[([^]]*)\](?::([0-9]{1,5}))?")
_PLAIN = re.compile(r"([^:]*):([0-9]{1,5})")


class IReactorResolving(IReactorAsking, IReactorFromThreads):
    """What resolving takes of the reactor."""


def resolver_from(
    text: str,
    reactor: IReactorResolving,
    *,
    timeout: float = TIMEOUT,
    threads: int = THREADS,
    ttl: float = TTL,
    negative_ttl: float = NEGATIVE_TTL,
    entries: int = ENTRIES,
) -> CachingResolver:
    """
    Make the resolver that *text* names.

    No thread and no socket is made before the first question.

    It is ``system``; or ``dns:`` and name servers, each an address with or
    without a port: ``dns:192.0.2.53,192.0.2.54:5353,[2001:db8::53]:53``.

    A lookup by ``dns:`` has *timeout* seconds; the system has its own patience,
    but only so many *threads*, and no TTL but the one it is given here.

    Raises:
        ValueError: *text* names none; says what to write instead.
    """
    kind, colon, rest = text.partition(":")
    lookup: ILookup
    if text == "system":
        lookup = SystemResolver(reactor, LookupThreads(threads), ttl)
    elif kind == "dns" and colon:
        lookup = DNSResolver(NameServers(name_servers(rest), reactor), reactor, timeout)
    else:
        hint = did_you_mean(kind, ["system", "dns"])
        raise ValueError(f"no resolver {text!r}: write 'system' or 'dns:SERVER,...'{hint}")
    return CachingResolver(lookup, reactor, negative_ttl, entries)


def name_servers(text: str) -> list[NameServer]:
    """
    Read name servers, separated by commas.

    Raises:
        ValueError: One is not an address with or without a port.
    """
    return list(dict.fromkeys(_name_server(server.strip()) for server in text.split(",")))


def _name_server(text: str) -> NameServer:
    if not text:
        raise ValueError("a name server is missing: write 'dns:ADDRESS' or 'dns:ADDRESS:PORT'")
    split = _BRACKETED.fullmatch(text) or _PLAIN.fullmatch(text)
    host, port = split.groups() if split else (text, None)
    try:
        address = ip_address(host)
    except ValueError:
        raise ValueError(
            f"not a name server: {text!r}; write its address, as in 192.0.2.53,"
            " 192.0.2.53:5353 or [2001:db8::53]:5353"
        ) from None
    server = NameServer(address) if port is None else NameServer(address, int(port))
    if not 0 < server.port < 65536:
        raise ValueError(f"not a name server: {text!r}; its port has to be 1 to 65535")
    return server
