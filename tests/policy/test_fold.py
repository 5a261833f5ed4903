"""Folds hold all they were given, and never more than they are allowed to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.policy.fold import Domains, fold_addresses, fold_names

LABELS = st.sampled_from(["a", "b", "c", "example", "co", "uk"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
BOUNDS = st.sampled_from([0, 0.5, 1.0, 2, 10])
NOTHING = Domains(())


def is_below(name: str, domain: str) -> bool:
    return f".{name}".endswith(f".{domain}")


def price(domain: str, given: set[str], asked: set[str]) -> int:
    """Count again: places for another label, domains nobody asked for, names of others."""
    covered = {name for name in given if is_below(name, domain)}
    parents = set()
    for name in covered:
        labels = name.split(".")
        parents |= {".".join(labels[start:]) for start in range(1, len(labels))}
    inner = {parent for parent in parents if is_below(parent, domain)}
    others = {name for name in asked if is_below(name, domain)} - covered - inner
    return len(inner) + len(inner - covered) + len(others)


@given(names=st.sets(NAMES), others=st.sets(NAMES), denied=st.sets(NAMES), bound=BOUNDS)
def test_suffixes_hold_every_name_and_are_paid_for(
    names: set[str], others: set[str], denied: set[str], bound: float
) -> None:
    asked = names | others
    folded = fold_names(names, bound, Domains(asked), Domains(denied))
    suffixes = [host[1:] for host in folded.hosts if host.startswith(".")]
    exact = {host for host in folded.hosts if not host.startswith(".")}
    covered = {name for name in names if any(is_below(name, each) for each in suffixes)}
    assert names == exact | covered
    assert not exact & covered
    assert folded.unseen == sum(price(each, names, asked) for each in suffixes)
    for each in suffixes:
        seen = sum(is_below(name, each) for name in names)
        assert seen > 1
        assert price(each, names, asked) <= bound * seen
        assert not {name for name in denied - names if is_below(name, each)}


@pytest.mark.parametrize(
    ("names", "bound", "hosts", "unseen"),
    [
        pytest.param("a.d.example", 1, "a.d.example", 0, id="one name is no suffix"),
        pytest.param("a.d.example b.d.example", 1, ".d.example", 2, id="two may be one"),
        pytest.param("a.d.example b.d.example", 0.9, "a.d.example b.d.example", 0, id="too much"),
        pytest.param("d.example a.d.example", 0.5, ".d.example", 1, id="the domain is seen itself"),
        pytest.param(
            "a.x.d.example b.x.d.example a.y.d.example b.y.d.example",
            1.5,
            ".d.example",
            6,
            id="the widest",
        ),
        pytest.param(
            "a.x.d.example b.x.d.example c.y.d.example",
            1,
            ".x.d.example c.y.d.example",
            2,
            id="a narrower one where the widest is too wide",
        ),
        pytest.param("a.com b.com", 99, "a.com b.com", 0, id="never a public suffix"),
        pytest.param("a.co.uk b.co.uk", 99, "a.co.uk b.co.uk", 0, id="of two labels neither"),
        pytest.param("wiki chat", 99, "chat wiki", 0, id="nor the root"),
        pytest.param("", 1, "", 0, id="nothing"),
    ],
)
def test_names_fold(names: str, bound: float, hosts: str, unseen: int) -> None:
    given = names.split()
    folded = fold_names(given, bound, Domains(given), NOTHING)
    assert (" ".join(folded.hosts), folded.unseen) == (hosts, unseen)


def test_a_name_that_only_others_have_asked_for_is_unseen() -> None:
    given = [f"{letter}.d.example" for letter in "abcd"]
    others = [*given, "payroll.d.example", "x.payroll.d.example", "d.example"]
    # The domain, where nobody of these has asked for it, and two names.
    assert fold_names(given, 1, Domains(others), NOTHING).unseen == 4
    assert fold_names(given, 0.9, Domains(others), NOTHING).hosts == tuple(given)


def test_what_was_denied_is_never_opened() -> None:
    given = [f"{letter}.d.example" for letter in "abcd"]
    denied = Domains(["payroll.d.example"])
    assert fold_names(given, 99, Domains(given), denied).hosts == (*given,)
    assert fold_names(given, 99, Domains(given), Domains(["a.d.example"])).hosts == (".d.example",)


# -- addresses -----------------------------------------------------------------------

BLOCK = int(IPv4Address("192.0.2.16"))
ADDRESSES = st.sets(st.integers(BLOCK, BLOCK + 15).map(IPv4Address), min_size=1)


def fewest(
    given: set[IPv4Address], bound: float, first: int, bits: int, denied: set[IPv4Address]
) -> int:
    """Try every way to cover a block."""
    size = 1 << bits
    some = [address for address in given if first <= int(address) < first + size]
    if not some:
        return 0
    bad = [each for each in denied - given if first <= int(each) < first + size]
    if not bad and size - len(some) <= bound * len(some):
        return 1
    half = size // 2
    return sum(fewest(given, bound, each, bits - 1, denied) for each in (first, first + half))


@given(addresses=ADDRESSES, denied=ADDRESSES, bound=BOUNDS)
def test_networks_hold_every_address_are_paid_for_and_are_the_fewest(
    addresses: set[IPv4Address], denied: set[IPv4Address], bound: float
) -> None:
    folded = fold_addresses(addresses, bound, denied)
    networks = [ip_network(host) for host in folded.hosts]
    for address in addresses:
        assert sum(address in network for network in networks) == 1
    for network in networks:
        seen = sum(address in network for address in addresses)
        assert network.num_addresses - seen <= bound * seen
        assert not {each for each in denied - addresses if each in network}
    assert folded.unseen == sum(each.num_addresses for each in networks) - len(addresses)
    assert len(networks) == fewest(addresses, bound, BLOCK, 4, denied)


@pytest.mark.parametrize(
    ("addresses", "bound", "hosts"),
    [
        pytest.param("192.0.2.1", 1, "192.0.2.1", id="one is itself"),
        pytest.param("192.0.2.4 192.0.2.5", 0, "192.0.2.4/31", id="two make one without a price"),
        pytest.param("192.0.2.4 192.0.2.6", 1, "192.0.2.4/30", id="two more for two"),
        pytest.param("2001:db8::1 2001:db8::2", 1, "2001:db8::/126", id="IPv6"),
        pytest.param("192.0.2.4 ::c000:205", 9, "192.0.2.4 ::c000:205", id="families are apart"),
        pytest.param("9.0.0.1 10.0.0.1", 1e10, "9.0.0.1 10.0.0.1", id="private is apart"),
        pytest.param("10.0.0.0 10.255.255.255", 1e10, "10.0.0.0/8", id="not beyond private space"),
        pytest.param("10.0.0.1 172.16.0.1", 1e10, "10.0.0.1 172.16.0.1", id="nor to other such"),
        pytest.param("", 1, "", id="nothing"),
    ],
)
def test_addresses_fold(addresses: str, bound: float, hosts: str) -> None:
    given = [ip_address(text) for text in reversed(addresses.split())]
    assert sorted(fold_addresses(given, bound).hosts) == sorted(hosts.split())


def test_denied_addresses_of_the_other_family_stand_in_no_way() -> None:
    given = [IPv4Address("192.0.2.4"), IPv4Address("192.0.2.6")]
    denied = [IPv6Address(int(IPv4Address("192.0.2.5")))]
    assert fold_addresses(given, 1, denied).hosts == ("192.0.2.4/30",)
