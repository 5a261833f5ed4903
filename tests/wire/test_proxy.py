"""PROXY headers, whole, split and wrong."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import IPAddress, unmapped
from socksd.errors import ProtocolError
from socksd.wire.proxy import ProxyHeader
from tests.wire.strategies import damaged, split

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT = ProxyHeader(IPv4Address("203.0.113.7"), 40312)
CLIENT6 = ProxyHeader(IPv6Address("2001:db8::7"), 65535)


def line(text: str) -> bytes:
    return text.encode() + b"\r\n"


def binary(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + bytes((command, family)) + len(block).to_bytes(2, "big") + block


def block(source: IPAddress, port: int, tlvs: bytes = b"") -> bytes:
    other = IPv4Address("192.0.2.1") if source.version == 4 else IPv6Address("2001:db8::1")
    return source.packed + other.packed + port.to_bytes(2, "big") + b"\x04\x38" + tlvs


V4 = block(IPv4Address("203.0.113.7"), 40312)
V6 = block(IPv6Address("2001:db8::7"), 65535)
TLV = b"\x04\x00\x03abc\x20\x00\x05\x01\x00\x00\x00\x00"

HEADERS = [
    pytest.param(line("PROXY TCP4 203.0.113.7 192.0.2.1 40312 1080"), CLIENT, id="1, IPv4"),
    pytest.param(line("PROXY TCP6 2001:DB8::7 ::1 65535 1080"), CLIENT6, id="1, IPv6"),
    pytest.param(
        line("PROXY TCP6 ::ffff:203.0.113.7 ::1 40312 1080"), CLIENT, id="1, IPv4 inside IPv6"
    ),
    pytest.param(line("PROXY TCP4 0.0.0.0 0.0.0.0 0 0"), ProxyHeader(IPv4Address(0), 0), id="1, 0"),
    pytest.param(line("PROXY UNKNOWN"), ProxyHeader(), id="1, unknown"),
    pytest.param(
        line("PROXY UNKNOWN any \xff\r thing\n"), ProxyHeader(), id="1, unknown, and more"
    ),
    pytest.param(line("PROXY UNKNOWN " + "f" * 91), ProxyHeader(), id="1, the longest"),
    pytest.param(binary(0x21, 0x11, V4), CLIENT, id="2, IPv4"),
    pytest.param(binary(0x21, 0x21, V6), CLIENT6, id="2, IPv6"),
    pytest.param(
        binary(0x21, 0x21, block(IPv6Address("::ffff:203.0.113.7"), 40312)),
        CLIENT,
        id="2, IPv4 inside IPv6",
    ),
    pytest.param(binary(0x21, 0x11, V4 + TLV), CLIENT, id="2, TLVs"),
    pytest.param(binary(0x21, 0x11, V4 + bytes(8192 - 28)), CLIENT, id="2, the longest"),
    pytest.param(binary(0x20, 0x00, b""), ProxyHeader(), id="2, LOCAL"),
    pytest.param(binary(0x20, 0x11, V4 + TLV), ProxyHeader(), id="2, LOCAL with an address"),
    pytest.param(binary(0x20, 0x77, b"any"), ProxyHeader(), id="2, LOCAL of no family"),
    pytest.param(binary(0x21, 0x00, b"any"), ProxyHeader(), id="2, UNSPEC"),
    pytest.param(binary(0x21, 0x31, bytes(216)), ProxyHeader(), id="2, a unix socket"),
    pytest.param(binary(0x21, 0x12, V4), ProxyHeader(), id="2, datagrams"),
]


@pytest.mark.parametrize(("octets", "header"), HEADERS)
def test_a_header_is_taken_once_complete(octets: bytes, header: ProxyHeader) -> None:
    """It appears at its last octet; what follows stays in the buffer."""
    buffer = bytearray()
    for index, octet in enumerate(octets):
        assert ProxyHeader.take(buffer) is None
        assert buffer == octets[:index]
        buffer.append(octet)
    buffer += b"\x05\x01\x00"
    assert ProxyHeader.take(buffer) == header
    assert buffer == b"\x05\x01\x00"


@pytest.mark.parametrize(
    ("octets", "at", "said"),
    [
        pytest.param(b"\x05\x01\x00", 1, "not a PROXY header", id="SOCKS5"),
        pytest.param(b"\x16\x03\x01", 1, "not a PROXY header", id="TLS"),
        pytest.param(b"PROXY\tTCP4", 6, "not a PROXY header", id="a tab"),
        pytest.param(b"proxy TCP4", 1, "not a PROXY header", id="lower case"),
        pytest.param(b"\r\n\r\n\0\r\nQUIT\r", 12, "not a PROXY header", id="signature"),
        pytest.param(b"PROXY UNKNOWN " + b"f" * 93, 107, "without an end in 107", id="1, no end"),
        pytest.param(SIGNATURE + b"\x11", 13, "are 0x11", id="2, version 1"),
        pytest.param(SIGNATURE + b"\x22", 13, "are 0x22", id="2, command 2"),
        pytest.param(SIGNATURE + b"\x21\x13\0\x0c", 16, "are 0x13", id="2, protocol 3"),
        pytest.param(SIGNATURE + b"\x21\x41\0\x0c", 16, "are 0x41", id="2, family 4"),
        pytest.param(SIGNATURE + b"\x21\x11\0\x0b", 16, "too short", id="2, short for IPv4"),
        pytest.param(SIGNATURE + b"\x21\x21\0\x23", 16, "too short", id="2, short for IPv6"),
        pytest.param(SIGNATURE + b"\x21\x31\0\xd7", 16, "too short", id="2, short for a path"),
        pytest.param(SIGNATURE + b"\x21\x11\x1f\xf1", 16, "8193 octets", id="2, too long"),
        pytest.param(SIGNATURE + b"\x20\x00\xff\xff", 16, "65551 octets", id="2, LOCAL, too long"),
    ],
)
def test_a_wrong_header_is_refused_at_the_octet_that_settles_it(
    octets: bytes, at: int, said: str
) -> None:
    buffer = bytearray(octets[: at - 1])
    assert ProxyHeader.take(buffer) is None
    buffer += octets[at - 1 :]
    with pytest.raises(ProtocolError, match=said):
        ProxyHeader.take(buffer)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("PROXY ", "another form", id="nothing"),
        pytest.param("PROXY UNKNOWNS", "another form", id="nearly unknown"),
        pytest.param("PROXY TCP5 192.0.2.1 192.0.2.1 1 2", "another form", id="family"),
        pytest.param("PROXY TCP4 192.0.2.1 192.0.2.1 1", "another form", id="a port short"),
        pytest.param("PROXY TCP4 192.0.2.1 192.0.2.1 1 2 ", "another form", id="a space more"),
        pytest.param("PROXY TCP4  192.0.2.1 192.0.2.1 1 2", "another form", id="two spaces"),
        pytest.param("PROXY TCP4 banana 192.0.2.1 1 2", "another form", id="banana"),
        pytest.param("PROXY TCP6 fe80::1%eth0 ::1 1 2", "another form", id="a zone"),
        pytest.param("PROXY TCP4 192.0.2.1 192.0.2.1 -1 2", "another form", id="below 0"),
        pytest.param("PROXY TCP4 192.0.2.1 192.0.2.1 1 2\n", "another form", id="LF CRLF"),
        pytest.param("PROXY TCP4 192.0.2.1 ::1 1 2", "no address of its family", id="4 and 6"),
        pytest.param("PROXY TCP4 ::1 192.0.2.1 1 2", "no address of its family", id="6 and 4"),
        pytest.param("PROXY TCP6 192.0.2.1 ::1 1 2", "no address of its family", id="4 as 6"),
        pytest.param("PROXY TCP4 192.0.2.01 192.0.2.1 1 2", "no address", id="octal"),
        pytest.param("PROXY TCP4 192.0.2 192.0.2.1 1 2", "no address", id="three numbers"),
        pytest.param("PROXY TCP4 192.0.2.1 192.0.2.1 01 2", "no port", id="a heading zero"),
        pytest.param("PROXY TCP4 192.0.2.1 192.0.2.1 1 65536", "no port", id="port too large"),
        pytest.param("PROXY TCP4 192.0.2.1 192.0.2.1 1 999999", "no port", id="six digits"),
    ],
)
def test_a_line_of_another_form_is_refused(text: str, said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        ProxyHeader.take(bytearray(line(text)))


ports = st.integers(0, 65535)


def as_line(source: IPAddress, port: int) -> bytes:
    there = "192.0.2.1" if source.version == 4 else "::1"
    return line(f"PROXY TCP{source.version} {source} {there} {port} 1080")


def as_binary(source: IPAddress, port: int, tlvs: bytes) -> bytes:
    return binary(0x21, 0x11 if source.version == 4 else 0x21, block(source, port, tlvs))


@given(st.data(), st.ip_addresses(), ports, st.none() | st.binary(max_size=64), st.binary())
def test_however_a_header_is_split_it_says_the_same(
    data: st.DataObject, source: IPAddress, port: int, tlvs: bytes | None, payload: bytes
) -> None:
    octets = as_line(source, port) if tlvs is None else as_binary(source, port, tlvs)
    buffer, header = bytearray(), None
    for segment in data.draw(split(octets + payload)):
        buffer += segment
        header = header or ProxyHeader.take(buffer)
    assert header == ProxyHeader(unmapped(source), port)
    assert buffer == payload


@given(
    st.data(),
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(lambda rest: b"PROXY " + rest + b"\r\n"),
        st.binary(max_size=300).map(lambda rest: SIGNATURE + rest),
        damaged(st.builds(as_line, st.ip_addresses(), ports)),
        damaged(st.builds(as_binary, st.ip_addresses(), ports, st.binary(max_size=32))),
    ),
)
def test_no_octets_make_it_raise_anything_but_protocol_error(
    data: st.DataObject, octets: bytes
) -> None:
    """And never does it hold more than the longest header."""
    buffer = bytearray()
    for segment in data.draw(split(octets)):
        buffer += segment
        before = bytes(buffer)
        try:
            header = ProxyHeader.take(buffer)
        except ProtocolError:
            return
        if header is not None:
            assert before.endswith(buffer)
            return
        assert buffer == before
        assert len(buffer) < 8192
