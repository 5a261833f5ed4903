"""Valid messages, any octets, and any way to split them."""

from __future__ import annotations

from hypothesis import strategies as st

from socksd.address import Destination, unmapped
from socksd.codes import Command, Method, ReplyCode
from socksd.wire.socks5 import (
    Greeting,
    MethodSelection,
    Reply,
    Request,
    Status,
    UsernamePassword,
)

Message = Greeting | MethodSelection | UsernamePassword | Status | Request | Reply

labels = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63)
names = st.builds(
    lambda leading, last: ".".join([*leading, last]),
    st.lists(labels, max_size=3),
    st.sampled_from(["com", "localhost", "_tcp", "xn--p1ai"]),  # a last label that is no number
)
hosts = st.one_of(names, st.ip_addresses(v=4), st.ip_addresses(v=6).map(unmapped))
destinations = st.builds(Destination, hosts, st.integers(0, 65535))

fields = st.one_of(st.binary(max_size=8), st.binary(max_size=255))
greetings = st.builds(Greeting, st.binary(min_size=1, max_size=255))
selections = st.builds(MethodSelection, st.sampled_from(Method))
logins = st.builds(UsernamePassword, fields, fields)
statuses = st.builds(Status, st.booleans())
requests = st.builds(Request, st.sampled_from(Command), destinations)
replies = st.builds(Reply, st.sampled_from(ReplyCode), destinations)
messages: st.SearchStrategy[Message] = st.one_of(
    greetings, selections, logins, statuses, requests, replies
)


@st.composite
def damaged(draw: st.DrawFn, octets: st.SearchStrategy[bytes]) -> bytes:
    """Valid octets with up to three of them overwritten, and cut or followed by any others."""
    damage = bytearray(draw(octets))
    for index in draw(st.lists(st.integers(0, max(0, len(damage) - 1)), max_size=3)):
        damage[index : index + 1] = draw(st.binary(min_size=1, max_size=1))
    return bytes(damage[: draw(st.integers(0, len(damage)))] + draw(st.binary(max_size=8)))


def garbage() -> st.SearchStrategy[bytes]:
    """Any octets at all, and those that only just went wrong."""
    dialogue = st.lists(messages, min_size=1, max_size=4)
    valid = dialogue.map(lambda several: b"".join(message.encode() for message in several))
    return st.one_of(st.binary(max_size=600), damaged(valid))


@st.composite
def split(draw: st.DrawFn, octets: bytes) -> list[bytes]:
    """The same octets in some number of segments."""
    cuts = sorted(draw(st.sets(st.integers(0, len(octets)), max_size=12)))
    return [octets[start:end] for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
