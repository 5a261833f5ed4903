from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import Destination
from socksd.errors import ProtocolError
from socksd.wire.udp import MOST, REASSEMBLY_SECONDS, Header, Reassembly, header_end
from tests.wire.strategies import damaged, destinations

IPV4 = b"\x01\xc0\x00\x02\x01\x00\x35"
NAME = b"\x03\x0bexample.com\x00\x35"
IPV6 = b"\x04" + IPv6Address("2001:db8::1").packed + b"\x00\x35"
WHOLE = b"\x00\x00\x00"

headers = st.builds(Header, destinations, st.integers(0, 255))


def fragment(number: int, to: bytes = IPV4) -> bytes:
    return bytes((0, 0, number)) + to


# -- the header ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "destination"),
    [
        pytest.param(IPV4, Destination(IPv4Address("192.0.2.1"), 53), id="IPv4"),
        pytest.param(NAME, Destination("example.com", 53), id="name"),
        pytest.param(IPV6, Destination(IPv6Address("2001:db8::1"), 53), id="IPv6"),
    ],
)
def test_a_header_has_a_fragment_number_and_a_destination(
    octets: bytes, destination: Destination
) -> None:
    assert Header.take(WHOLE + octets) == Header(destination)
    assert Header.take(fragment(0x83, octets)) == Header(destination, 0x83)
    assert Header(destination, 0x83).encode() == fragment(0x83, octets)


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(WHOLE, id="no address"),
        pytest.param(WHOLE + IPV4[:-1], id="too short"),
        pytest.param(WHOLE + IPV4 + b"x", id="too long"),
        pytest.param(b"\x01\x00\x00" + IPV4, id="RSV"),
        pytest.param(b"\x00\x01\x00" + IPV4, id="RSV, its second octet"),
        pytest.param(WHOLE + b"\x02" + IPV4[1:], id="ATYP"),
        pytest.param(WHOLE + b"\x03\x00\x00\x35", id="an empty name"),
        pytest.param(WHOLE + b"\x03\x02\xff\xff\x00\x35", id="not UTF-8"),
        pytest.param(WHOLE + b"\x03\x02a b\x00\x35", id="no name"),
    ],
)
def test_what_is_no_header_breaks_the_protocol(octets: bytes) -> None:
    with pytest.raises(ProtocolError):
        Header.take(octets)


@given(headers)
def test_a_header_survives_the_way_there_and_back(header: Header) -> None:
    assert Header.take(header.encode()) == header


@given(st.one_of(st.binary(max_size=300), damaged(headers.map(Header.encode))))
def test_nothing_but_protocol_error_comes_of_garbage(octets: bytes) -> None:
    end = header_end(octets, len(octets))
    try:
        header = Header.take(octets[:end])
    except ProtocolError:
        return
    assert Header.take(header.encode()) == header


# -- where it ends -------------------------------------------------------------


@given(headers, st.binary(max_size=40), st.binary(max_size=40))
def test_the_end_of_a_header_is_found_in_a_buffer(
    header: Header, payload: bytes, left: bytes
) -> None:
    """What an earlier, longer datagram has left behind this one plays no part."""
    octets = header.encode() + payload
    assert header_end(octets + left, len(octets)) == len(header.encode())


@given(headers, st.binary(max_size=300))
def test_a_header_that_is_cut_has_no_end(header: Header, left: bytes) -> None:
    octets = header.encode()
    for count in range(len(octets)):
        assert header_end(octets[:count] + left + octets, count) == 0


@pytest.mark.parametrize("kind", [0, 2, 5, 255])
def test_a_header_of_no_known_kind_has_no_end(kind: int) -> None:
    assert header_end(WHOLE + bytes((kind,)) + bytes(300), 300) == 0


# -- fragments ------------------------------------------------------------------


def test_fragments_become_a_datagram_at_the_last_one() -> None:
    queue = Reassembly()
    assert queue.take(fragment(1), b"one ", 0.0) is None
    assert queue.take(fragment(2), b"two ", 1.0) is None
    assert queue.position == 2
    assert queue.take(fragment(0x83), b"three", 2.0) == (WHOLE + IPV4, b"one two three")
    assert (queue.position, queue.abandoned) == (0, 0)
    assert queue.take(fragment(0x81), b"alone", 2.0) == (WHOLE + IPV4, b"alone")


def test_the_timer_gives_a_sequence_up() -> None:
    """RFC 1928 section 7: no less than 5 seconds; counted from the first fragment."""
    queue = Reassembly()
    assert queue.take(fragment(1), b"one", 10.0) is None
    assert queue.take(fragment(2), b"two", 10.0 + REASSEMBLY_SECONDS - 0.001) is None
    assert queue.take(fragment(0x83), b"three", 10.0 + REASSEMBLY_SECONDS) is None
    assert (queue.position, queue.abandoned) == (0, 3)


@pytest.mark.parametrize(
    ("numbers", "abandoned"),
    [
        pytest.param([1, 2, 3, 2], 4, id="a lower one"),
        pytest.param([1, 2, 2], 3, id="the same one"),
        pytest.param([1, 3], 2, id="a gap"),
        pytest.param([2], 1, id="no first one"),
        pytest.param([0x82], 1, id="a last one alone"),
        pytest.param([1, 0x80], 2, id="a last one without a position"),
    ],
)
def test_a_fragment_out_of_order_abandons_all(numbers: list[int], abandoned: int) -> None:
    queue = Reassembly()
    for number in numbers:
        assert queue.take(fragment(number), b"x", 0.0) is None
    assert (queue.position, queue.abandoned) == (0, abandoned)


def test_a_first_fragment_begins_another_sequence() -> None:
    queue = Reassembly()
    queue.take(fragment(1), b"lost", 0.0)
    queue.take(fragment(2), b"lost", 0.0)
    assert queue.take(fragment(1), b"one ", 4.0) is None
    assert queue.abandoned == 2
    assert queue.take(fragment(0x82), b"two", 8.0) == (WHOLE + IPV4, b"one two")


def test_fragments_for_another_target_are_of_another_datagram() -> None:
    queue = Reassembly()
    queue.take(fragment(1), b"one", 0.0)
    assert queue.take(fragment(0x82, NAME), b"two", 0.0) is None
    assert (queue.position, queue.abandoned) == (0, 2)


def test_no_more_is_kept_than_a_datagram_may_have() -> None:
    queue = Reassembly()
    half = bytes(MOST // 2)
    queue.take(fragment(1), half, 0.0)
    assert queue.take(fragment(2), half, 0.0) is None
    assert queue.take(fragment(0x83), b"xx", 0.0) is None
    assert (queue.position, queue.abandoned) == (0, 3)
    assert queue.take(fragment(0x81), bytes(MOST + 1), 0.0) is None
    assert queue.take(fragment(0x81), bytes(MOST), 0.0) == (WHOLE + IPV4, bytes(MOST))


def test_a_sequence_can_be_given_up() -> None:
    queue = Reassembly()
    queue.take(fragment(1), b"one", 0.0)
    queue.abandon()
    assert queue.take(fragment(0x82), b"two", 0.0) is None
    assert queue.abandoned == 2


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2, 3, 0x80, 0x81, 0x82, 0x83]) | st.integers(1, 255),
            st.sampled_from([IPV4, NAME]),
            st.binary(max_size=4),
            st.sampled_from([0.0, 1.0, REASSEMBLY_SECONDS]),
        ),
        max_size=20,
    )
)
def test_what_comes_whole_is_a_run_of_fragments_without_a_break(
    arrivals: list[tuple[int, bytes, bytes, float]],
) -> None:
    """Whatever arrives in whatever order; and every fragment is used, waits, or is counted."""
    queue = Reassembly()
    run: list[tuple[int, bytes, bytes, float]] = []
    used, now = 0, 0.0
    for number, to, payload, passed in arrivals:
        now += passed
        run.append((number, to, payload, now))
        whole = queue.take(fragment(number, to), payload, now)
        assert len(run) >= queue.position
        if whole is not None:
            parts = run[-(number & 0x7F) :]
            assert [part[0] & 0x7F for part in parts] == list(range(1, len(parts) + 1))
            assert all(not part[0] & 0x80 for part in parts[:-1])
            assert number & 0x80
            assert whole == (WHOLE + to, b"".join(part[2] for part in parts))
            assert {part[1] for part in parts} == {to}
            assert parts[-1][3] - parts[0][3] < REASSEMBLY_SECONDS
            used += len(parts)
    assert used + queue.abandoned + queue.position == len(arrivals)
