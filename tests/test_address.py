import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import (
    Destination,
    Host,
    IPAddress,
    embedded,
    normal_host,
    parsed,
    reached,
    spelled,
    unmapped,
)
from socksd.errors import AddressError
from tests.spellings import SPELLINGS

# Text as clients would bend it: near to addresses and names, and far.
TRICKY = st.text(alphabet="0123456789abcdefxX.:[]%-_*？。．１２①⑦ß\u00ad\u200dn\udcff", max_size=24)
NUMERIC = st.lists(
    st.one_of(
        st.integers(0, 2**33).map(str),
        st.integers(0, 2**33).map(hex),
        st.integers(0, 2**33).map("0{:o}".format),
        st.text(alphabet="0123456789xabc", max_size=4),
    ),
    min_size=1,
    max_size=5,
).map(".".join)


@pytest.mark.parametrize("host", SPELLINGS)
def test_every_spelling_is_the_one_host_or_refused(host: str) -> None:
    """A rule holds for a host only where no spelling of it is another host."""
    levelled = 0
    for text in SPELLINGS[host]:
        try:
            found = normal_host(text)
        except AddressError:
            continue
        assert str(found) == host, text
        levelled += 1
    assert levelled >= 8


def test_there_are_spellings_enough_of_a_denied_address() -> None:
    assert len(SPELLINGS["127.0.0.2"]) >= 80
    assert all(len(text.encode()) <= 255 for text in SPELLINGS["127.0.0.2"])


@pytest.mark.parametrize(
    ("text", "host"),
    [
        pytest.param("0x7f.1", IPv4Address("127.0.0.1"), id="hexadecimal and short"),
        pytest.param("2130706433", IPv4Address("127.0.0.1"), id="one number"),
        pytest.param("0177.0.0.01", IPv4Address("127.0.0.1"), id="octal"),
        pytest.param("①②⑦。1", IPv4Address("127.0.0.1"), id="digits of another kind"),
        pytest.param("[::1]", IPv6Address("::1"), id="in brackets"),
        pytest.param("::ffff:127.0.0.1", IPv4Address("127.0.0.1"), id="mapped"),
        pytest.param("[::FFFF:7f00:1]", IPv4Address("127.0.0.1"), id="mapped, hexadecimal"),
        pytest.param("0.0.0.0", IPv4Address("0.0.0.0"), id="unspecified stays"),
        pytest.param("LOCALHOST.", "localhost", id="case and dot"),
        pytest.param("_ldap._tcp.corp", "_ldap._tcp.corp", id="underscores"),
        pytest.param("-a.b-", "-a.b-", id="hyphens anywhere"),
        pytest.param("Straße.example", "xn--strae-oqa.example", id="IDNA 2008"),
        pytest.param("a." * 126 + "b", "a." * 126 + "b", id="253 octets"),
    ],
)
def test_a_host_has_one_normal_form(text: str, host: Host) -> None:
    assert normal_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(".", id="a dot"),
        pytest.param("a..b", id="an empty label"),
        pytest.param("a" * 64, id="a long label"),
        pytest.param("a." * 126 + "bb", id="254 octets"),
        pytest.param("a b", id="a space"),
        pytest.param("a\0b", id="a NUL"),
        pytest.param("a..", id="two dots at the end"),
        pytest.param("1.2.3.4.5", id="five parts"),
        pytest.param("1.2.3.4.0", id="five parts, the last one nothing"),
        pytest.param("256.1.1.1", id="a part over 255"),
        pytest.param("1.2.3.256", id="a last part over 255"),
        pytest.param("1.2.65536", id="a last part over 65535"),
        pytest.param("4294967296", id="over 32 bits"),
        pytest.param("09.1.1.1", id="no octal"),
        pytest.param("a.1", id="ends in a number"),
        pytest.param("0x.1", id="no digits"),
        pytest.param("0" * 60 + "1", id="a very long number"),
        pytest.param("[127.0.0.1]", id="IPv4 in brackets"),
        pytest.param("[::1", id="half a bracket"),
        pytest.param("fe80::1%eth0", id="a zone"),
        pytest.param("[fe80::1%25eth0]", id="a zone in brackets"),
        pytest.param("::g", id="no IPv6"),
        pytest.param("a\u2044b.example", id="a code point that IDNA refuses"),
        pytest.param("caf\udce9", id="octets that are not UTF-8"),
    ],
)
def test_what_has_no_normal_form_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        normal_host(text)


@given(st.one_of(st.text(max_size=40), TRICKY, NUMERIC))
def test_any_text_is_a_host_or_an_address_error(text: str) -> None:
    """And a normal form is its own: nothing becomes another host the second time."""
    try:
        host = normal_host(text)
    except AddressError:
        return
    assert normal_host(str(host)) == host
    if isinstance(host, str):
        assert normal_host(host.upper()) == normal_host(f"{host}.") == host
    else:
        assert unmapped(host) == host


@given(NUMERIC)
def test_numbers_are_read_as_the_resolver_reads_them(text: str) -> None:
    """getaddrinfo(3) hands numbers to inet_aton(3); we must not judge another address."""
    try:
        theirs = IPv4Address(socket.inet_aton(text))
    except OSError:
        theirs = None
    try:
        ours = normal_host(text)
    except AddressError:
        return
    if isinstance(ours, str):
        assert theirs is None
    elif theirs is not None:
        assert ours == theirs


@given(st.ip_addresses())
def test_an_address_is_read_as_ipaddress_reads_it(address: IPAddress) -> None:
    assert normal_host(str(address)) == unmapped(address)


@pytest.mark.parametrize(
    ("address", "dialled"),
    [
        pytest.param("0.0.0.0", "127.0.0.1", id="unspecified"),
        pytest.param("::", "::1", id="unspecified, IPv6"),
        pytest.param("::ffff:0.0.0.0", "127.0.0.1", id="unspecified, mapped"),
        pytest.param("::ffff:10.0.0.1", "10.0.0.1", id="mapped"),
        pytest.param("0.0.0.1", "0.0.0.1", id="not quite unspecified"),
        pytest.param("fe80::1", "fe80::1", id="any other"),
    ],
)
def test_reached_is_where_the_kernel_goes(address: str, dialled: str) -> None:
    assert reached(ip_address(address)) == ip_address(dialled)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        pytest.param("Example.COM.", "example.com:80", id="name"),
        pytest.param("0x7f.1", "127.0.0.1:80", id="IPv4"),
        pytest.param("::1", "[::1]:80", id="IPv6 in brackets"),
    ],
)
def test_a_destination_shows_its_normal_form(host: str, text: str) -> None:
    assert str(Destination.named(host, 80)) == text


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        pytest.param("64:ff9b::10.0.0.1", ["10.0.0.1"], id="NAT64"),
        pytest.param("64:ff9b::0.0.0.0", ["0.0.0.0"], id="NAT64 of what reaches the loopback"),
        pytest.param("2002:a00:1:2::3", ["10.0.0.1"], id="6to4"),
        pytest.param(
            "2001:0:c000:201:0:0:f5ff:fffe", ["192.0.2.1", "10.0.0.1"], id="Teredo: server, client"
        ),
        pytest.param("::10.0.0.1", ["10.0.0.1"], id="compatible"),
        pytest.param("::ffff:0:10.0.0.1", ["10.0.0.1"], id="translated"),
        pytest.param("::ffff:10.0.0.1", ["10.0.0.1"], id="mapped"),
        pytest.param("64:ff9b:1::10.0.0.1", ["10.0.0.1"], id="local NAT64 of 96 bits"),
        pytest.param(
            "64:ff9b:1:a01:2:300::", ["10.1.2.3", "1.2.3.0", "2.3.0.0"], id="local NAT64 of 48 bits"
        ),
        pytest.param("64:ff9b:1:9a:1:203::", ["154.1.2.3", "1.2.3.0"], id="local NAT64 of 56 bits"),
        pytest.param(
            "64:ff9b:1:0:a:102:300:0", ["10.1.2.3", "3.0.0.0"], id="local NAT64 of 64 bits"
        ),
        pytest.param("64:ff9b:1::", [], id="local NAT64 of nothing"),
        pytest.param("::", [], id="unspecified"),
        pytest.param("::1", [], id="loopback"),
        pytest.param("2606:4700::1", [], id="any other"),
        pytest.param("10.0.0.1", [], id="IPv4"),
    ],
)
def test_what_an_address_may_stand_for(address: str, inside: list[str]) -> None:
    assert embedded(ip_address(address)) == tuple(map(ip_address, inside))


@given(st.ip_addresses())
def test_an_address_is_spelled_as_python_does(address: IPAddress) -> None:
    """In the log, and in what an old log is compared with."""
    assert spelled(address) == str(address)
    assert Destination(address, 1).spelled_host == str(address)
    assert Destination("a.example", 1).spelled_host == "a.example"


@pytest.mark.parametrize(
    ("text", "address"),
    [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1")],
)
def test_what_the_socket_module_says_has_a_normal_form(text: str, address: str) -> None:
    assert parsed(text) == ip_address(address)
    assert parsed(text) is parsed(text)
