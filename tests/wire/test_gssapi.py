from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.errors import ProtocolError
from socksd.wire.gssapi import ABORT, LONGEST, Message, MessageType
from tests.wire.strategies import damaged, split

AUTHENTICATION = MessageType.AUTHENTICATION
WITH_TOKEN = [kind for kind in MessageType if kind is not MessageType.ABORT]

messages = st.builds(Message, st.sampled_from(WITH_TOKEN), st.binary(max_size=600))


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        pytest.param(b"\x01\x01\x00\x00", Message(AUTHENTICATION, b""), id="an empty token"),
        pytest.param(
            b"\x01\x01\x00\x03abc", Message(AUTHENTICATION, b"abc"), id="an authentication token"
        ),
        pytest.param(
            b"\x01\x02\x01\x00" + bytes(256),
            Message(MessageType.PROTECTION, bytes(256)),
            id="a protection level, LEN in network order",
        ),
        pytest.param(
            b"\x01\x03\xff\xff" + bytes(LONGEST),
            Message(MessageType.ENCAPSULATED, bytes(LONGEST)),
            id="the longest",
        ),
    ],
)
def test_a_message_is_read_and_written(octets: bytes, message: Message) -> None:
    assert message.encode() == octets
    buffer = bytearray(octets[:-1])
    if len(octets) > 4:
        assert Message.take(buffer, message.kind) is None
        assert buffer == octets[:-1]
    buffer[:] = octets + b"early"
    assert Message.take(buffer, message.kind) == message
    assert buffer == b"early"


def test_a_token_that_is_too_long_is_not_written() -> None:
    """LEN would say something else than what follows it."""
    with pytest.raises(OverflowError):
        Message(AUTHENTICATION, bytes(LONGEST + 1)).encode()


def test_abort_is_what_the_rfc_says() -> None:
    assert ABORT == b"\x01\xff"


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        pytest.param(b"\x05", "VER of a GSS-API message is 0x05, not 0x01", id="VER"),
        pytest.param(b"\x01\x02", "MTYP is 0x02, not 0x01", id="another MTYP"),
        pytest.param(b"\x01\x00", "MTYP is 0x00, not 0x01", id="an unknown MTYP"),
        pytest.param(b"\x01\xff", "the client has aborted GSS-API", id="abort"),
    ],
)
def test_what_is_wrong_is_told_at_the_octet_that_settles_it(octets: bytes, why: str) -> None:
    assert Message.take(bytearray(octets[:-1]), AUTHENTICATION) is None
    with pytest.raises(ProtocolError) as caught:
        Message.take(bytearray(octets), AUTHENTICATION)
    assert str(caught.value) == why
    assert caught.value.reply is None


def test_a_token_is_in_no_repr() -> None:
    """It is a ticket, or payload."""
    assert "secret" not in repr(Message(AUTHENTICATION, b"secret"))


@given(st.lists(messages, max_size=4), st.data())
def test_segments_make_no_difference(sent: list[Message], data: st.DataObject) -> None:
    octets = b"".join(message.encode() for message in sent)
    due, taken, buffer = list(sent), [], bytearray()
    for segment in data.draw(split(octets)):
        buffer += segment
        while due and (message := Message.take(buffer, due[0].kind)) is not None:
            taken.append(message)
            del due[0]
    assert taken == sent
    assert not buffer


@given(
    st.one_of(st.binary(max_size=600), damaged(messages.map(Message.encode))),
    st.sampled_from(MessageType),
)
def test_nothing_but_a_protocol_error_escapes(octets: bytes, kind: MessageType) -> None:
    buffer = bytearray(octets)
    try:
        message = Message.take(buffer, kind)
    except ProtocolError:
        return
    assert (message.encode() if message else b"") + buffer == octets
