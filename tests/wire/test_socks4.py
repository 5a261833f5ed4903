from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import Destination
from socksd.codes import Command, ReplyCode
from socksd.errors import ProtocolError
from socksd.wire.socks4 import LONGEST, Reply, Request
from tests.wire.strategies import damaged, destinations, split

Message = Request | Reply

V4 = Destination(IPv4Address("192.0.2.1"), 80)
EXAMPLE = Destination("example.com", 443)
LONGEST_NAME = ".".join(["a" * 63] * 3 + ["b" * 61])  # 253 octets

EXAMPLES = [
    pytest.param(
        b"\x04\x01\x00\x50\xc0\x00\x02\x01\x00", Request(Command.CONNECT, V4, b""), id="connect"
    ),
    pytest.param(
        b"\x04\x02\x00\x50\xc0\x00\x02\x01fred\x00", Request(Command.BIND, V4, b"fred"), id="bind"
    ),
    pytest.param(
        b"\x04\x01\x01\xbb\x00\x00\x00\x01fred\x00example.com\x00",
        Request(Command.CONNECT, EXAMPLE, b"fred"),
        id="4a",
    ),
    pytest.param(
        b"\x04\x01\x00\x00\x00\x00\x00\x01"
        + b"u" * LONGEST
        + b"\x00"
        + LONGEST_NAME.encode()
        + b"\x00",
        Request(Command.CONNECT, Destination(LONGEST_NAME, 0), b"u" * LONGEST),
        id="4a, the longest",
    ),
    pytest.param(
        b"\x04\x01\xff\xff\x00\x00\x00\x00\xff\xfe\x00",
        Request(Command.CONNECT, Destination(IPv4Address(0), 65535), b"\xff\xfe"),
        id="0.0.0.0 announces no name",
    ),
    pytest.param(
        b"\x04\x01\x00\x50\x00\x00\x01\x00\x00",
        Request(Command.CONNECT, Destination(IPv4Address("0.0.1.0"), 80), b""),
        id="nor does 0.0.1.0",
    ),
    pytest.param(b"\x00\x5a\x00\x50\xc0\x00\x02\x01", Reply(True, V4), id="granted"),
    pytest.param(
        b"\x00\x5b" + bytes(6), Reply(False, Destination(IPv4Address(0), 0)), id="rejected"
    ),
]


@pytest.mark.parametrize(("octets", "message"), EXAMPLES)
def test_a_message_is_taken_at_its_last_octet(octets: bytes, message: Message) -> None:
    """Not before, when the buffer stays as it was; and what follows stays in it."""
    buffer = bytearray()
    for index, octet in enumerate(octets[:-1]):
        buffer.append(octet)
        assert type(message).take(buffer) is None
        assert buffer == octets[: index + 1]
    buffer += octets[-1:] + b"early\x00data"
    assert type(message).take(buffer) == message
    assert buffer == b"early\x00data"


@pytest.mark.parametrize(("octets", "message"), EXAMPLES)
def test_a_message_is_encoded_as_it_is_written_down(octets: bytes, message: Message) -> None:
    assert message.encode() == octets


userids = st.binary(max_size=LONGEST).map(lambda octets: octets.replace(b"\0", b""))
requests = st.builds(
    Request, st.sampled_from([Command.CONNECT, Command.BIND]), destinations, userids
)
replies = st.builds(
    Reply,
    st.booleans(),
    st.builds(Destination, st.ip_addresses(v=4), st.integers(0, 65535)),
)
messages: st.SearchStrategy[Message] = st.one_of(requests, replies)


@given(messages, st.binary(max_size=8), st.data())
def test_what_is_encoded_is_taken_again_however_it_is_split(
    message: Message, tail: bytes, data: st.DataObject
) -> None:
    """Also a request for an IPv6 address, which 4A can spell as a name."""
    octets = message.encode()
    buffer = bytearray()
    for segment in data.draw(split(octets)):
        assert len(buffer) == len(octets) or type(message).take(buffer) is None
        buffer += segment
    buffer += tail
    assert type(message).take(buffer) == message
    assert buffer == tail


ANY = st.one_of(st.binary(max_size=600), damaged(messages.map(lambda message: message.encode())))


@given(st.sampled_from([Request, Reply]), ANY)
def test_no_octets_raise_anything_but_protocol_error(kind: type[Message], octets: bytes) -> None:
    """And what is settled at one octet is not unsettled by more of them."""
    results: list[Message | str | None] = []
    for length in range(len(octets) + 1):
        buffer = bytearray(octets[:length])
        try:
            message = kind.take(buffer)
        except ProtocolError as error:
            results.append(str(error))
            assert buffer == octets[:length]
        else:
            results.append(message)
            assert len(buffer) < length if message else buffer == octets[:length]
    settled = [result for result in results if result is not None]
    assert results[len(results) - len(settled) :] == settled
    assert all(result == settled[0] for result in settled)


NAMED = b"\x04\x01\x00\x50\x00\x00\x00\x01\x00"


@pytest.mark.parametrize(
    ("kind", "octets", "message", "reply"),
    [
        # Each is cut at the octet that settles it.
        pytest.param(Request, b"\x05", "VN is 0x05, not 0x04", None, id="VN"),
        pytest.param(Request, b"\x04\x03", "CD is 0x03", ReplyCode.COMMAND_NOT_SUPPORTED, id="CD"),
        pytest.param(
            Request,
            b"\x04\x01\x00\x50\xc0\x00\x02\x01" + b"u" * 256,
            "USERID of more than 255 octets",
            ReplyCode.GENERAL_FAILURE,
            id="USERID without an end",
        ),
        pytest.param(
            Request,
            NAMED + b"n" * 256,
            "the name of more than 255 octets",
            ReplyCode.GENERAL_FAILURE,
            id="a name without an end",
        ),
        pytest.param(
            Request, NAMED + b"\x00", "empty", ReplyCode.HOST_UNREACHABLE, id="an empty name"
        ),
        pytest.param(
            Request, NAMED + b"\xe9\x00", "not UTF-8", ReplyCode.HOST_UNREACHABLE, id="not UTF-8"
        ),
        pytest.param(
            Request, NAMED + b"a b\x00", "not a host", ReplyCode.HOST_UNREACHABLE, id="no host"
        ),
        pytest.param(
            Request,
            NAMED + LONGEST_NAME.encode() + b"b\x00",
            "253 is the longest",
            ReplyCode.HOST_UNREACHABLE,
            id="a name that DNS cannot have",
        ),
        pytest.param(Reply, b"\x04", "VN of the reply is 0x04, not 0x00", None, id="reply, VN"),
        pytest.param(Reply, b"\x00\x59", "CD of the reply is 89", None, id="reply, CD 89"),
        pytest.param(Reply, b"\x00\x5e", "CD of the reply is 94", None, id="reply, CD 94"),
    ],
)
@pytest.mark.parametrize("behind", [b"", b"\x01\x00\x00"], ids=["alone", "followed"])
def test_what_is_malformed_raises_at_the_octet_that_settles_it(
    kind: type[Message], octets: bytes, message: str, reply: ReplyCode | None, behind: bytes
) -> None:
    """Before it there is hope; behind it nothing matters."""
    buffer = bytearray()
    for octet in octets[:-1]:
        buffer.append(octet)
        assert kind.take(buffer) is None
    buffer += octets[-1:] + behind
    with pytest.raises(ProtocolError, match=message) as caught:
        kind.take(buffer)
    assert caught.value.reply is reply
    assert buffer == octets + behind


@pytest.mark.parametrize(
    ("name", "host"),
    [
        pytest.param(b"EXAMPLE.com.", "example.com", id="case and a dot"),
        pytest.param(b"0x7f.1", IPv4Address("127.0.0.1"), id="an address in disguise"),
        pytest.param(b"::1", IPv6Address("::1"), id="an IPv6 address"),
        pytest.param(b"::ffff:192.0.2.1", IPv4Address("192.0.2.1"), id="a mapped one"),
    ],
)
def test_one_host_has_one_form(name: bytes, host: object) -> None:
    """A rule sees the same, whichever version of SOCKS a client speaks."""
    request = Request.take(bytearray(NAMED + name + b"\x00"))
    assert request is not None
    assert request.destination == Destination(host, 80)  # type: ignore[arg-type]  # in the table


@pytest.mark.parametrize("code", [91, 92, 93])
def test_every_rejection_is_one(code: int) -> None:
    reply = Reply.take(bytearray(bytes((0, code)) + bytes(6)))
    assert reply is not None
    assert not reply.granted


@pytest.mark.parametrize("host", [IPv6Address("2001:db8::1"), "gw.example"])
def test_what_socks4_cannot_spell_is_bound_at_the_servers_own_address(
    host: IPv6Address | str,
) -> None:
    """0.0.0.0 is what a client replaces by the address of the server; the port is still true."""
    assert Reply(True, Destination(host, 80)).encode() == b"\x00\x5a\x00\x50\x00\x00\x00\x00"


@pytest.mark.parametrize(
    "request_",
    [
        Request(Command.CONNECT, V4, b"a\0b"),
        Request(Command.CONNECT, V4, b"u" * 256),
        Request(Command.UDP_ASSOCIATE, V4, b""),
    ],
    ids=["a NUL in USERID", "a long USERID", "UDP"],
)
def test_what_would_be_taken_for_something_else_is_not_encoded(request_: Request) -> None:
    with pytest.raises(ValueError, match=r"SOCKS4 has no|USERID cannot"):
        request_.encode()
