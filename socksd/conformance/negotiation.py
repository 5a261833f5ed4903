"""Cases of RFC 1928 section 3: the greeting, and the method that answers it."""

from __future__ import annotations

from socksd.conformance.bench import LOGIN, NO_ACCEPTABLE, NONE, Bench, connect
from socksd.conformance.case import Failed, NotOffered, Sentence, case
from socksd.conformance.sockets import Ending, Stream

SECTION = "RFC 1928 section 3"
SELECTS = Sentence(SECTION, "The server selects from one of the methods given in METHODS")
UNACCEPTABLE = Sentence(
    SECTION,
    "If the selected METHOD is X'FF', none of the methods listed by the client are acceptable",
)
NMETHODS = Sentence(
    SECTION,
    "The NMETHODS field contains the number of method identifier octets that appear in the"
    " METHODS field.",
)
VERSION = Sentence(SECTION, "The VER field is set to X'05' for this version of the protocol.")


def selected(client: Stream) -> int:
    """Take a method selection; Failed where it is none."""
    answer = client.take(2, "METHOD selection")
    if answer[0] != 5:
        raise Failed(f"VER of the METHOD selection is {answer[0]:02x}, not 05")
    return answer[1]


def greet(bench: Bench, octets: bytes) -> tuple[Stream, int]:
    """Send a greeting on a new connection; take the method selected."""
    client = bench.dial()
    client.send(octets)
    return client, selected(client)


@case(SELECTS)
def method_00(bench: Bench) -> None:
    """Method 00 is selected where it is the only one offered."""
    _, method = greet(bench, b"\x05\x01\x00")
    if method == NO_ACCEPTABLE:
        raise NotOffered("the server wants a login")
    if method != NONE:
        raise Failed(f"method {method:02x} is selected, which was not offered")


@case(SELECTS)
def method_02(bench: Bench) -> None:
    """Method 02 is selected where it is the only one offered, and no other ever."""
    _, method = greet(bench, b"\x05\x01\x02")
    if method == NO_ACCEPTABLE:
        raise NotOffered("the server selects FF: it knows no login")
    if method != LOGIN:
        raise Failed(f"method {method:02x} is selected, which was not offered")


@case(UNACCEPTABLE)
def method_ff(bench: Bench) -> None:
    """FF answers a greeting that offers nothing acceptable."""
    _, method = greet(bench, b"\x05\x01\xfe")
    if method != NO_ACCEPTABLE:
        raise Failed(f"method {method:02x} is selected, not FF")


@case(UNACCEPTABLE)
def method_ff_is_final(bench: Bench) -> None:
    """No request is served behind a greeting that offers nothing acceptable."""
    listener = bench.listen()
    client = bench.dial()
    client.send(b"\x05\x01\xfe")
    octets, _ = client.rest(bench.pace.quiet)
    client.send(connect(listener))
    more, _ = client.rest(bench.pace.quiet)
    if (octets + more)[2:]:
        raise Failed("the server answers a request after FF")


@case(NMETHODS)
def methods_255(bench: Bench) -> None:
    """All of 255 methods are read: the acceptable one is the last."""
    private = bytes(0x80 + n % 0x7F for n in range(254))
    _, method = greet(bench, b"\x05\xff" + private + bytes([bench.server.method]))
    if method != bench.server.method:
        raise Failed(f"method {method:02x} is selected, not {bench.server.method:02x}")


@case(NMETHODS)
def methods_repeated(bench: Bench) -> None:
    """A method offered three times is selected once."""
    client, method = greet(bench, b"\x05\x03" + bytes([bench.server.method] * 3))
    if method != bench.server.method:
        raise Failed(f"method {method:02x} is selected, not {bench.server.method:02x}")
    if client.rest(bench.pace.quiet)[0]:
        raise Failed("more than one METHOD selection, or something else behind it")


@case(NMETHODS)
def methods_none(bench: Bench) -> None:
    """A greeting with NMETHODS 0 offers nothing, so nothing is selected."""
    client = bench.dial()
    client.send(b"\x05\x00")
    octets, _ = client.rest(bench.pace.quiet)
    if octets and octets != b"\x05\xff":
        raise Failed("a method is selected that was not offered")


@case(VERSION)
def version_6(bench: Bench) -> None:
    """A greeting of version 6 is not answered with a method, and the connection ends."""
    client = bench.dial()
    client.send(b"\x06\x01" + bytes([bench.server.method]))
    octets, ending = client.rest(bench.pace.closing)
    if octets == bytes([5, bench.server.method]):
        raise Failed("a method is selected for version 6")
    if ending is Ending.NONE:
        raise Failed(f"the connection is still open after {bench.pace.closing:g} s")


@case(VERSION)
def version_of_http(bench: Bench) -> None:
    """A client that speaks HTTP is not kept waiting."""
    client = bench.dial()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    if client.rest(bench.pace.closing)[1] is Ending.NONE:
        raise Failed(f"the connection is still open after {bench.pace.closing:g} s")
