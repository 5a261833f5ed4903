from ipaddress import ip_address, ip_network

import pytest

from socksd.address import embedded
from socksd.policy.special import CLASSES, SPECIAL, special_sets

EXAMPLES = {
    "@loopback": ["127.0.0.1", "127.255.255.255", "0.0.0.1", "::1", "::"],
    "@link-local": ["169.254.0.1", "fe80::1", "febf::1"],
    "@private": ["10.0.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "fd00::1", "fec0::1"],
    "@metadata": ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"],
    "@multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "@reserved": ["192.0.2.1", "198.19.255.255", "240.0.0.1", "255.255.255.255", "2001:db8::1"],
    "@embedded-ipv4": [
        *("64:ff9b::a00:1", "64:ff9b:1:2::", "2002:a00:1::", "2001:0:1::", "::a00:1", "::2"),
        "::ffff:0:a00:1",
    ],
    "@self": [],
}


def test_there_are_these_sets() -> None:
    assert list(SPECIAL) == list(EXAMPLES) == [f"@{name}" for name in CLASSES]
    assert all(each.name == name and not each.names for name, each in SPECIAL.items())


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_set_holds_its_examples_and_of_the_others_only_what_they_share(name: str) -> None:
    for other, addresses in EXAMPLES.items():
        for address in map(ip_address, addresses):
            held = SPECIAL[name].networks.holds(address)
            assert held or other != name
            assert not held or name in {other, "@link-local", "@private", "@metadata"}


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1"])
def test_the_public_internet_is_in_none(address: str) -> None:
    assert not any(each.networks.holds(ip_address(address)) for each in SPECIAL.values())


def test_embedded_ipv4_is_what_is_taken_apart() -> None:
    for address in map(ip_address, EXAMPLES["@embedded-ipv4"][:-1]):
        assert SPECIAL["@embedded-ipv4"].networks.holds(address)
    for text in ("::", "::1", "2606:4700::1", "64:ff9a::a00:1", "2003::1", "2001:1::1"):
        address = ip_address(text)
        assert not SPECIAL["@embedded-ipv4"].networks.holds(address)
        assert not embedded(address)


def test_self_is_what_it_is_told() -> None:
    own = special_sets([ip_network("198.51.100.7"), ip_network("2001:db8::7")])["@self"].networks
    assert own.holds(ip_address("198.51.100.7"))
    assert own.holds(ip_address("2001:db8::7"))
    assert not own.holds(ip_address("198.51.100.8"))
