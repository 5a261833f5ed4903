from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import Destination
from socksd.codes import Command, Method, ReplyCode
from socksd.errors import ProtocolError
from socksd.wire.socks5 import (
    UNSPECIFIED,
    Greeting,
    MethodSelection,
    Reply,
    Request,
    Status,
    UsernamePassword,
    read_destination,
    write_destination,
)
from tests.wire.strategies import Message, destinations, garbage, messages

KINDS: list[type[Message]] = [
    Greeting,
    MethodSelection,
    UsernamePassword,
    Status,
    Request,
    Reply,
]

LONGEST_NAME = ".".join(["a" * 63] * 3 + ["b" * 61])  # 253 octets
EXAMPLE = Destination("example.com", 443)
V4 = Destination(IPv4Address("192.0.2.1"), 80)
V6 = Destination(IPv6Address("2001:db8::1"), 65535)
V6_OCTETS = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01"

EXAMPLES = [
    pytest.param(b"\x05\x01\x00", Greeting(b"\x00"), id="greeting, no authentication only"),
    pytest.param(b"\x05\x03\x02\x00\x80", Greeting(b"\x02\x00\x80"), id="greeting, order is kept"),
    pytest.param(b"\x05\xff" + bytes(255), Greeting(bytes(255)), id="greeting, most methods"),
    pytest.param(b"\x05\x02", MethodSelection(Method.USERNAME_PASSWORD), id="selection, user name"),
    pytest.param(b"\x05\xff", MethodSelection(Method.NO_ACCEPTABLE), id="selection, none"),
    pytest.param(b"\x01\x03bob\x02pw", UsernamePassword(b"bob", b"pw"), id="login"),
    pytest.param(b"\x01\x03bob\x00", UsernamePassword(b"bob", b""), id="login, PLEN 0"),
    pytest.param(b"\x01\x00\x02pw", UsernamePassword(b"", b"pw"), id="login, ULEN 0"),
    pytest.param(b"\x01\x00\x00", UsernamePassword(b"", b""), id="login, nothing at all"),
    pytest.param(
        b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255,
        UsernamePassword(b"u" * 255, b"p" * 255),
        id="login, the longest",
    ),
    pytest.param(
        b"\x01\x02\xff\x00\x01\xfe", UsernamePassword(b"\xff\x00", b"\xfe"), id="login, not UTF-8"
    ),
    pytest.param(b"\x01\x00", Status(True), id="status, success"),
    pytest.param(b"\x01\x01", Status(False), id="status, failure"),
    pytest.param(
        b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50", Request(Command.CONNECT, V4), id="request, v4"
    ),
    pytest.param(
        b"\x05\x02\x00\x04" + V6_OCTETS + b"\xff\xff", Request(Command.BIND, V6), id="request, v6"
    ),
    pytest.param(
        b"\x05\x03\x00\x03\x0bexample.com\x01\xbb",
        Request(Command.UDP_ASSOCIATE, EXAMPLE),
        id="request, name",
    ),
    pytest.param(
        b"\x05\x01\x00\x03\xfd" + LONGEST_NAME.encode() + b"\x00\x00",
        Request(Command.CONNECT, Destination(LONGEST_NAME, 0)),
        id="request, the longest name",
    ),
    pytest.param(
        b"\x05\x00\x00\x01" + bytes(6), Reply(ReplyCode.SUCCEEDED, UNSPECIFIED), id="reply, success"
    ),
    pytest.param(
        b"\x05\x08\x00\x04" + V6_OCTETS + b"\xff\xff",
        Reply(ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED, V6),
        id="reply, failure, v6",
    ),
    pytest.param(
        b"\x05\x00\x00\x03\x0bexample.com\x01\xbb",
        Reply(ReplyCode.SUCCEEDED, EXAMPLE),
        id="reply, name",
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
    buffer += octets[-1:] + b"early"
    assert type(message).take(buffer) == message
    assert buffer == b"early"


@pytest.mark.parametrize(("octets", "message"), EXAMPLES)
def test_a_message_is_encoded_as_the_rfc_writes_it(octets: bytes, message: Message) -> None:
    assert message.encode() == octets


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_taken_from_an_empty_buffer(kind: type[Message]) -> None:
    assert kind.take(bytearray()) is None


@given(messages, st.binary(max_size=8))
def test_what_is_encoded_is_taken_again(message: Message, tail: bytes) -> None:
    buffer = bytearray(message.encode() + tail)
    assert type(message).take(buffer) == message
    assert buffer == tail


@given(messages)
def test_an_incomplete_message_leaves_the_buffer_as_it_was(message: Message) -> None:
    octets = message.encode()
    for length in range(len(octets)):
        buffer = bytearray(octets[:length])
        assert type(message).take(buffer) is None
        assert buffer == octets[:length]


@given(st.sampled_from(KINDS), garbage())
def test_no_octets_raise_anything_but_protocol_error(kind: type[Message], octets: bytes) -> None:
    """And what is settled at one octet is not unsettled by more of them."""
    prefixes = [octets[:length] for length in range(len(octets) + 1)]
    results: list[Message | str | None] = []
    for prefix in prefixes:
        buffer = bytearray(prefix)
        try:
            message = kind.take(buffer)
        except ProtocolError as error:
            results.append(str(error))
            assert buffer == prefix
        else:
            results.append(message)
            assert len(buffer) < len(prefix) if message else buffer == prefix
    settled = [result for result in results if result is not None]
    assert results[len(results) - len(settled) :] == settled
    assert all(result == settled[0] for result in settled)


NAME = b"\x05\x01\x00\x03"


@pytest.mark.parametrize(
    ("kind", "octets", "message", "reply"),
    [
        # Each is cut at the octet that settles it.
        pytest.param(Greeting, b"\x06", "VER is 0x06, not 0x05", None, id="greeting, VER"),
        pytest.param(Greeting, b"\x05\x00", "NMETHODS is 0", None, id="greeting, NMETHODS"),
        pytest.param(MethodSelection, b"\x04", "VER is 0x04", None, id="selection, VER"),
        pytest.param(MethodSelection, b"\x05\x03", "METHOD is 0x03", None, id="selection, METHOD"),
        pytest.param(UsernamePassword, b"\x05", "VER of the login is 0x05", None, id="login, VER"),
        pytest.param(Status, b"\x05", "VER of the status is 0x05", None, id="status, VER"),
        pytest.param(
            Request,
            b"\x04",
            "VER of the request is 0x04",
            ReplyCode.GENERAL_FAILURE,
            id="request, VER",
        ),
        pytest.param(
            Request, b"\x05\x00", "CMD is 0x00", ReplyCode.COMMAND_NOT_SUPPORTED, id="CMD 0"
        ),
        pytest.param(
            Request, b"\x05\x04", "CMD is 0x04", ReplyCode.COMMAND_NOT_SUPPORTED, id="CMD 4"
        ),
        pytest.param(
            Request,
            b"\x05\x01\x01",
            "RSV of the request is 0x01",
            ReplyCode.GENERAL_FAILURE,
            id="request, RSV",
        ),
        pytest.param(
            Request,
            b"\x05\x01\x00\x00",
            "ATYP is 0x00",
            ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED,
            id="ATYP 0",
        ),
        pytest.param(
            Request,
            b"\x05\x01\x00\x02",
            "ATYP is 0x02",
            ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED,
            id="ATYP 2",
        ),
        pytest.param(
            Request,
            b"\x05\x01\x00\x05",
            "ATYP is 0x05",
            ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED,
            id="ATYP 5",
        ),
        pytest.param(
            Request, NAME + b"\x00", "length 0", ReplyCode.HOST_UNREACHABLE, id="name, empty"
        ),
        pytest.param(
            Request,
            NAME + b"\x04caf\xe9",
            "not UTF-8",
            ReplyCode.HOST_UNREACHABLE,
            id="name, not UTF-8",
        ),
        pytest.param(
            Request,
            NAME + b"\x06a.b\r\nc",
            "not a host",
            ReplyCode.HOST_UNREACHABLE,
            id="name, a line break",
        ),
        pytest.param(
            Request,
            NAME + b"\x04a\x00.b",
            "not a host",
            ReplyCode.HOST_UNREACHABLE,
            id="name, a NUL",
        ),
        pytest.param(
            Request,
            NAME + b"\x03a..",
            "not a host",
            ReplyCode.HOST_UNREACHABLE,
            id="name, an empty label",
        ),
        pytest.param(
            Request,
            NAME + b"\xfe" + LONGEST_NAME.encode() + b"b",
            "253 is the longest",
            ReplyCode.HOST_UNREACHABLE,
            id="name, too long",
        ),
        pytest.param(
            Request,
            NAME + b"\x091.2.3.300",
            "not an address",
            ReplyCode.HOST_UNREACHABLE,
            id="name, almost an address",
        ),
        pytest.param(
            Request,
            NAME + b"\x09fe80::1%1",
            "a zone identifier",
            ReplyCode.HOST_UNREACHABLE,
            id="name, with a zone",
        ),
        pytest.param(Reply, b"\x00", "VER of the reply is 0x00", None, id="reply, VER"),
        pytest.param(Reply, b"\x05\x09", "REP is 0x09", None, id="REP 9"),
        pytest.param(Reply, b"\x05\xff", "REP is 0xff", None, id="REP 255"),
        pytest.param(Reply, b"\x05\x00\x05", "RSV of the reply is 0x05", None, id="reply, RSV"),
        pytest.param(Reply, b"\x05\x00\x00\x00", "BND.ADDR: ATYP is 0x00", None, id="reply, ATYP"),
        pytest.param(
            Reply, b"\x05\x00\x00\x03\x00", "BND.ADDR: a DOMAINNAME of", None, id="reply, no name"
        ),
        pytest.param(
            Reply, b"\x05\x00\x00\x03\x01\xff", "not UTF-8", None, id="reply, name not UTF-8"
        ),
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
    assert caught.value.answer == b""
    assert buffer == octets + behind


@pytest.mark.parametrize(
    ("octets", "answer"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n", b"HTTP/1.1 400 Bad Request\r\n", id="HTTP"),
        pytest.param(b"\x16\x03\x01", b"\x15\x03\x03", id="TLS"),
        pytest.param(b"\x04\x01", b"\x00\x5b", id="SOCKS4"),
    ],
)
def test_another_protocol_is_answered_in_its_own_language(octets: bytes, answer: bytes) -> None:
    with pytest.raises(ProtocolError, match="it seems to be") as caught:
        Greeting.take(bytearray(octets))
    assert caught.value.answer.startswith(answer)
    assert caught.value.reply is None


@pytest.mark.parametrize(
    ("address", "host"),
    [
        pytest.param(b"\x03\x0bEXAMPLE.com", "example.com", id="case"),
        pytest.param(b"\x03\x0cexample.com.", "example.com", id="a trailing dot"),
        pytest.param(
            b"\x03\x0cb\xc3\xbccher.test", "xn--bcher-kva.test", id="an internationalised name"
        ),
        pytest.param(b"\x03\x05_x._y", "_x._y", id="underscores"),
        pytest.param(b"\x03\x06127.1.", IPv4Address("127.0.0.1"), id="a short address"),
        pytest.param(b"\x03\x0a2130706433", IPv4Address("127.0.0.1"), id="an address in decimal"),
        pytest.param(b"\x03\x05[::1]", IPv6Address("::1"), id="an IPv6 address in brackets"),
        pytest.param(b"\x03\x10::ffff:192.0.2.1", IPv4Address("192.0.2.1"), id="a mapped one"),
        pytest.param(
            b"\x04" + bytes(10) + b"\xff\xff\xc0\x00\x02\x01",
            IPv4Address("192.0.2.1"),
            id="ATYP 4, mapped",
        ),
        pytest.param(b"\x04" + bytes(16), IPv6Address("::"), id="ATYP 4, unspecified"),
    ],
)
def test_one_host_has_one_form(address: bytes, host: object) -> None:
    """However a client spells it, a rule sees the same."""
    octets = address + b"\x00\x50"
    found = read_destination(octets, 0)
    assert found is not None
    destination, end = found
    assert destination.host == host
    assert type(destination.host) is type(host)
    assert (destination.port, end) == (80, len(octets))


@given(destinations, st.binary(max_size=8), st.binary(max_size=8))
def test_a_destination_is_read_where_it_was_written(
    destination: Destination, before: bytes, behind: bytes
) -> None:
    """As in the header of a UDP datagram, which is bytes."""
    octets = write_destination(destination)
    end = len(before + octets)
    assert read_destination(before + octets + behind, len(before)) == (destination, end)
    for length in range(end):
        assert read_destination((before + octets)[:length], len(before)) is None


# What is near to the messages that most clients send.
nearly = st.one_of(
    st.tuples(
        st.sampled_from([b"\x05\x01\x00", b"\x05\x01\x00\x01", b"\x05\x01\x00\x03"]),
        st.binary(max_size=12),
    ).map(b"".join),
    st.binary(max_size=16),
)


@given(st.sampled_from([Greeting, Request]), nearly)
def test_the_usual_is_cut_as_it_would_be_taken_apart(
    kind: type[Greeting | Request], octets: bytes
) -> None:
    """The short way gives what the long one does, message, rest and error."""

    def taken() -> tuple[object, bytes]:
        buffer = bytearray(octets)
        try:
            return kind.take(buffer), bytes(buffer)
        except ProtocolError as error:
            return (str(error), error.reply, error.answer), bytes(buffer)

    quick = taken()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_USUAL_GREETING", "_CONNECT_TO_IPV4"):
            patch.setattr(f"socksd.wire.socks5.{name}", b"never")
        assert taken() == quick


def test_any_status_but_zero_is_failure() -> None:
    taken = [Status.take(bytearray((1, octet))) for octet in range(256)]
    assert taken == [Status(octet == 0) for octet in range(256)]


def test_a_password_is_not_shown() -> None:
    login = UsernamePassword(b"alice", b"secret")
    for shown in (repr(login), str(login), f"{login}"):
        assert "alice" in shown
        assert "secret" not in shown


@pytest.mark.parametrize(
    "message",
    [
        UsernamePassword(b"u" * 256, b""),
        UsernamePassword(b"", b"p" * 256),
        Greeting(bytes(256)),
    ],
    ids=["user name", "password", "methods"],
)
def test_what_does_not_fit_its_length_octet_is_not_encoded(message: Message) -> None:
    """A truncated length would turn the rest of a password into the next message."""
    with pytest.raises(ValueError, match="range"):
        message.encode()
