from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from socksd.app import own
from socksd.app.own import own_networks

TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 192.0.2.0/24 2 0 2
           |-- 192.0.2.0
              /24 link UNICAST
           |-- 192.0.2.2
              /32 host LOCAL
     |-- 198.51.100.0
        /24 link UNICAST
        /28 host LOCAL
Local:
  +-- 0.0.0.0/0 3 0 5
           |-- 192.0.2.2
              /32 host LOCAL
"""
IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
20010db8000000000000000000000002 04 40 00 82     eth0
"""
V4 = [ip_network(text) for text in ("127.0.0.0/8", "127.0.0.1", "192.0.2.2", "198.51.100.0/28")]
V6 = [ip_network(text) for text in ("::1", "2001:db8::2", "fe80::fc:ff:fe00:1")]


def test_every_address_that_ends_here_is_own(tmp_path: Path) -> None:
    """Networks that are routed here whole, too: "ip route add local" makes such."""
    (tmp_path / "fib_trie").write_text(TRIE)
    (tmp_path / "if_inet6").write_text(IF_INET6)
    assert list(own_networks(tmp_path)) == V4 + V6


def test_a_host_without_ipv6_has_the_others(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(TRIE)
    assert list(own_networks(tmp_path)) == V4


def test_not_to_know_is_an_error(tmp_path: Path) -> None:
    """Else the guard would let somebody in to this host without a word."""
    with pytest.raises(OSError, match="fib_trie"):
        own_networks(tmp_path)


def test_the_loopback_is_there() -> None:
    assert any(ip_address("127.0.0.1") in network for network in own_networks())


def test_it_is_asked_below_a_process() -> None:
    """ProcSubset=pid, as in the unit that is shipped, hides /proc/net, which is a link to there."""
    assert Path("/proc/self/net") == own._PROC
