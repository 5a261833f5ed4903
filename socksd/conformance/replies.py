"""Cases of RFC 1928 section 6: replies, when they come and what they say."""

from __future__ import annotations

import socket
import time
from contextlib import closing

from socksd.conformance.bench import (
    CONNECT,
    REFUSED,
    SUCCEEDED,
    UNREACHED,
    Bench,
    connect,
    request,
    take_reply,
)
from socksd.conformance.case import Failed, Sentence, case
from socksd.conformance.sockets import Ending, Listener

SECTION = "RFC 1928 section 6"
EVALUATES = Sentence(
    SECTION, "The server evaluates the request, and returns a reply formed as follows"
)
REFUSES = Sentence(SECTION, "X'05' Connection refused")
UNREACHABLE = Sentence(SECTION, "X'04' Host unreachable")
SUCCESS = Sentence(
    SECTION,
    "If the reply code (REP value of X'00') indicates a success [...] the client may now"
    " start passing data.",
)
BOUND = Sentence(
    SECTION,
    "In the reply to a CONNECT, BND.PORT contains the port number that the server assigned to"
    " connect to the target host, while BND.ADDR contains the associated IP address.",
)
TERMINATES = Sentence(
    SECTION,
    "When a reply (REP value other than X'00') indicates a failure, the SOCKS server MUST"
    " terminate the TCP connection shortly after sending the reply. This must be no more than 10"
    " seconds after detecting the condition that caused a failure.",
)
RESERVED = Sentence(SECTION, "Fields marked RESERVED (RSV) must be set to X'00'.")
UNREAD = Sentence(
    "RFC 9293 section 3.6.1",
    "If such a host issues a CLOSE call while received data is still pending in the TCP"
    " connection, [...] its TCP implementation SHOULD send a RST to show that data was lost",
)


def closed_port(bench: Bench) -> int:
    """Give a port of ours that nobody listens on."""
    listener = bench.listen()
    listener.close()
    return listener.port


def full(bench: Bench) -> Listener:
    """Open a target whose queue is full, so that attempts to connect get no answer."""
    listener = bench.listen()
    listener.shrink()
    for _ in range(3):  # one waits to be accepted, and no more are let in
        sock = socket.socket()
        bench.enter_context(closing(sock))
        sock.setblocking(False)
        sock.connect_ex((str(listener.address), listener.port))
    return listener


@case(REFUSES)
def reply_refused(bench: Bench) -> None:
    """05 where nobody listens."""
    _, reply = bench.asked(request(CONNECT, bench.server.ipv4, closed_port(bench)))
    if reply.code != REFUSED:
        raise Failed(f"REP is {reply.code:02x}, not 05")


@case(UNREACHABLE)
def reply_no_such_name(bench: Bench) -> None:
    """04 for a name that does not exist; 01 and 03 will do."""
    name = b"no-such-host.invalid"
    _, reply = bench.asked(request(CONNECT, name, 80), bench.pace.lookup)
    if reply.code not in UNREACHED:
        raise Failed(f"REP is {reply.code:02x}, not 04")


@case(SUCCESS)
def reply_after_outcome(bench: Bench) -> None:
    """No success is reported while the target has not answered."""
    listener = full(bench)
    client = bench.greeted()
    client.send(connect(listener))
    if client.rest(4 * bench.pace.quiet)[0][:2] == b"\x05\x00":
        raise Failed("the reply says success, and there is no connection")


@case(EVALUATES, slow=True)
def reply_at_last(bench: Bench) -> None:
    """A target that never answers ends in a failure reply."""
    listener = full(bench)
    _, reply = bench.asked(connect(listener), bench.pace.silence)
    if reply.code == SUCCEEDED:
        raise Failed("the reply says success, and there is no connection")


@case(EVALUATES)
def reply_once(bench: Bench) -> None:
    """One reply to a CONNECT, and nothing behind it but the target's octets."""
    client, target, _ = bench.connected()
    octets, _ = client.rest(bench.pace.quiet)
    if octets:
        raise Failed("something follows the reply")
    target.send(b"first")
    client.expect(b"first", "first octets of the target")


@case(RESERVED)
def reply_reserved(bench: Bench) -> None:
    """RSV is 00 in failures too, and such a reply is as long as any."""
    client = bench.greeted()
    client.send(request(CONNECT, bench.server.ipv4, closed_port(bench)))
    take_reply(client)
    if client.rest(bench.pace.quiet)[0]:
        raise Failed("something follows the reply")


@case(BOUND)
def bound_port(bench: Bench) -> None:
    """BND.PORT is the port that the target sees."""
    _, target, reply = bench.connected()
    port = target.sock.getpeername()[1]
    if reply.port != port:
        raise Failed(f"BND.PORT is {reply.port}, the connection comes from {port}")


@case(BOUND)
def bound_address(bench: Bench) -> None:
    """BND.ADDR is the address that the target sees."""
    _, target, reply = bench.connected()
    address = target.sock.getpeername()[0]
    if str(reply.address) != address:
        raise Failed(f"BND.ADDR is {reply.address!s}, the connection comes from {address}")


@case(BOUND)
def bound_ipv6(bench: Bench) -> None:
    """BND.ADDR and BND.PORT are true for a connection by IPv6, and of ATYP 04."""
    _, target, reply = bench.connected(bench.listen(bench.ipv6()))
    address, port = target.sock.getpeername()[:2]
    if (str(reply.address), reply.port) != (address, port):
        raise Failed(f"BND is {reply.address!s} {reply.port}, the peer {address} {port}")


@case(TERMINATES)
def failure_closes(bench: Bench) -> None:
    """The connection ends within 10 seconds of a failure reply."""
    octets = request(CONNECT, bench.server.ipv4, closed_port(bench))
    client, reply = bench.asked(octets)
    if reply.code == SUCCEEDED:
        raise Failed("the reply says success, and there is no connection")
    if client.rest(bench.pace.closing)[1] is Ending.NONE:
        raise Failed(f"the connection is still open after {bench.pace.closing:g} s")


@case(UNREAD)
def failure_is_not_reset(bench: Bench) -> None:
    """A failure reply is followed by FIN: RST could destroy it before the client has read it."""
    client = bench.greeted()
    # As a client that sends ahead, and more than a server would read at once.
    client.send(request(CONNECT, bench.server.ipv4, closed_port(bench)) + bytes(65536))
    time.sleep(bench.pace.quiet)
    take_reply(client)
    if client.rest(bench.pace.closing)[1] is Ending.RESET:
        raise Failed("the connection is reset behind the reply")
