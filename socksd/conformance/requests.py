"""Cases of RFC 1928 sections 4 and 5: what a request may look like."""

from __future__ import annotations

from socksd.conformance.bench import (
    CONNECT,
    LOCALHOST,
    NO_SUCH_COMMAND,
    NO_SUCH_TYPE,
    SUCCEEDED,
    Bench,
    connect,
    request,
    take_reply,
)
from socksd.conformance.case import Failed, Sentence, case
from socksd.conformance.sockets import Ending

ADDRESSING = "RFC 1928 section 5"
IPV4 = Sentence(ADDRESSING, "the address is a version-4 IP address, with a length of 4 octets")
IPV6 = Sentence(ADDRESSING, "the address is a version-6 IP address, with a length of 16 octets.")
NAME = Sentence(ADDRESSING, "the address field contains a fully-qualified domain name.")
COUNTED = Sentence(
    ADDRESSING,
    "The first octet of the address field contains the number of octets of name that follow,"
    " there is no terminating NUL octet.",
)
REQUEST = Sentence("RFC 1928 section 4", "VER protocol version: X'05'")
PORT = Sentence("RFC 1928 section 4", "DST.PORT desired destination port in network octet order")
ANSWERS = Sentence(
    "RFC 1928 section 6", "The server evaluates the request, and returns a reply formed as follows"
)
COMMAND = Sentence("RFC 1928 section 6", "X'07' Command not supported")
TYPE = Sentence("RFC 1928 section 6", "X'08' Address type not supported")


def not_served(bench: Bench, octets: bytes) -> None:
    """Send a request that leads nowhere: a failure reply, or the end, must come."""
    client = bench.greeted()
    client.send(octets)
    answer, ending = client.some(2, bench.pace.lookup)
    if answer == b"\x05\x00":
        raise Failed("the reply says that it has succeeded")
    if not answer and ending is Ending.NONE:
        raise Failed(f"neither a reply nor the end within {bench.pace.lookup:g} s")


@case(IPV4)
def request_ipv4(bench: Bench) -> None:
    """ATYP 01 leads to the target."""
    client, target, _ = bench.connected()
    client.send(b"question")
    target.expect(b"question", "payload")
    target.send(b"answer")
    client.expect(b"answer", "payload")


@case(IPV6)
def request_ipv6(bench: Bench) -> None:
    """ATYP 04 leads to the target."""
    client, target, _ = bench.connected(bench.listen(bench.ipv6()))
    client.send(b"question")
    target.expect(b"question", "payload")
    target.send(b"answer")
    client.expect(b"answer", "payload")


@case(NAME)
def request_name(bench: Bench) -> None:
    """ATYP 03 leads to the target; the server looks the name up."""
    listener = bench.named()
    client, target, _ = bench.connected(listener, request(CONNECT, LOCALHOST, listener.port))
    client.send(b"question")
    target.expect(b"question", "payload")


@case(NAME)
def request_name_of_ipv4(bench: Bench) -> None:
    """An address written as a name leads there, or is refused in the proper form."""
    listener = bench.listen()
    octets = request(CONNECT, str(listener.address).encode(), listener.port)
    client, reply = bench.asked(octets, bench.pace.lookup)
    if reply.code == SUCCEEDED:
        client.send(b"question")
        bench.accept(listener).expect(b"question", "payload")


@case(COUNTED)
def request_name_255(bench: Bench) -> None:
    """A name of 255 octets, which cannot exist, is read whole and answered with a failure."""
    label = b"a" * 49 + b"."
    _, reply = bench.asked(request(CONNECT, label * 5 + b"inval", 80), bench.pace.lookup)
    if reply.code == SUCCEEDED:
        raise Failed("the reply says that it has succeeded")


@case(COUNTED)
def request_name_empty(bench: Bench) -> None:
    """A name of no octets leads nowhere: a failure reply, or the end."""
    listener = bench.listen()
    not_served(bench, request(CONNECT, b"", listener.port))


@case(COUNTED)
def request_name_nul(bench: Bench) -> None:
    """A NUL does not end a name: what is before it is not where the client wants to go."""
    listener = bench.named()
    not_served(bench, request(CONNECT, LOCALHOST + b"\x00.invalid", listener.port))


@case(TYPE)
def request_type_unknown(bench: Bench) -> None:
    """An ATYP that does not exist is answered with 08."""
    client = bench.greeted()
    client.send(b"\x05\x01\x00\x05\x7f\x00\x00\x01\x00\x50")
    reply = take_reply(client)
    if reply.code != NO_SUCH_TYPE:
        raise Failed(f"REP is {reply.code:02x}, not 08")


@case(COMMAND)
def request_command_unknown(bench: Bench) -> None:
    """A CMD that does not exist is answered with 07."""
    listener = bench.listen()
    _, reply = bench.asked(request(0x09, listener.address, listener.port))
    if reply.code != NO_SUCH_COMMAND:
        raise Failed(f"REP is {reply.code:02x}, not 07")


@case(REQUEST)
def request_version(bench: Bench) -> None:
    """A request of version 4 behind a greeting of version 5 is not served."""
    listener = bench.listen()
    client = bench.greeted()
    client.send(b"\x04" + connect(listener)[1:])
    client.some(2, bench.pace.quiet)
    if listener.accepted("target", 0) is not None:
        raise Failed("the server connects to the target")


@case(ANSWERS)
def request_reserved(bench: Bench) -> None:
    """A request whose RSV is not 00 is answered: served or refused, but in the proper form."""
    octets = connect(bench.listen())
    bench.asked(octets[:2] + b"\x2a" + octets[3:])


@case(PORT)
def request_port_0(bench: Bench) -> None:
    """Nobody listens on port 0: a failure reply."""
    _, reply = bench.asked(request(CONNECT, bench.server.ipv4, 0), bench.pace.lookup)
    if reply.code == SUCCEEDED:
        raise Failed("the reply says that it has succeeded")
