from __future__ import annotations

from ipaddress import ip_address

import pytest
from twisted.internet.testing import MemoryReactorClock

from socksd.egress.cache import CachingResolver
from socksd.egress.names import DNSResolver
from socksd.egress.nameservers import NameServer
from socksd.egress.resolve import name_servers, resolver_from
from socksd.egress.system import SystemResolver


@pytest.mark.parametrize(
    ("text", "kind"), [("system", SystemResolver), ("dns:192.0.2.53", DNSResolver)]
)
def test_a_resolver_remembers_whoever_it_asks(text: str, kind: type) -> None:
    resolver = resolver_from(text, MemoryReactorClock())  # type: ignore[arg-type]  # a fake reactor
    assert isinstance(resolver, CachingResolver)
    assert isinstance(resolver._inner, kind)
    resolver.stop()


def test_the_settings_reach_whom_they_concern() -> None:
    resolver = resolver_from(
        "system",
        MemoryReactorClock(),
        threads=7,
        ttl=8,
        negative_ttl=9,
        entries=10,  # type: ignore[arg-type]  # a fake reactor
    )
    lookup = resolver._inner
    assert isinstance(lookup, SystemResolver)
    assert lookup._threads.max == 7
    assert lookup._ttl == 8
    assert resolver._negative_ttl == 9
    assert resolver._entries == 10
    resolver.stop()


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("192.0.2.53", [("192.0.2.53", 53)]),
        ("192.0.2.53:5353", [("192.0.2.53", 5353)]),
        ("2001:db8::53", [("2001:db8::53", 53)]),
        ("[2001:db8::53]", [("2001:db8::53", 53)]),
        ("[2001:db8::53]:65535", [("2001:db8::53", 65535)]),
        ("192.0.2.2, 192.0.2.1:1", [("192.0.2.2", 53), ("192.0.2.1", 1)]),
        ("192.0.2.1,192.0.2.1:53", [("192.0.2.1", 53)]),
    ],
)
def test_name_servers_are_read_in_order(text: str, servers: list[tuple[str, int]]) -> None:
    assert name_servers(text) == [NameServer(ip_address(host), port) for host, port in servers]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write 'system' or 'dns:SERVER,...'"),
        ("dns", "write 'system' or 'dns:SERVER,...'"),
        ("sytem", "did you mean 'system'?"),
        ("system:192.0.2.53", "write 'system' or 'dns:SERVER,...'"),
        ("dns:", "a name server is missing"),
        ("dns:192.0.2.53,", "a name server is missing"),
        ("dns:ns.example", "not a name server: 'ns.example'; write its address"),
        ("dns:192.0.2.53:dns", "write its address"),
        ("dns:192.0.2.256", "write its address"),
        ("dns:[192.0.2.53", "write its address"),
        ("dns:192.0.2.53:0", "its port has to be 1 to 65535"),
        ("dns:[::1]:65536", "its port has to be 1 to 65535"),
    ],
)
def test_what_names_no_resolver_is_told_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ValueError) as raised:
        resolver_from(text, MemoryReactorClock())  # type: ignore[arg-type]  # a fake reactor
    assert says in str(raised.value)
