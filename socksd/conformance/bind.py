"""Cases of BIND (RFC 1928 sections 4 and 6)."""

from __future__ import annotations

import socket
import time
from ipaddress import IPv4Address
from typing import NamedTuple

from socksd.conformance.bench import BIND, Bench, Reply, request, succeeded, take_reply
from socksd.conformance.case import Failed, Sentence, case
from socksd.conformance.sockets import Stream

SECTION = "RFC 1928 section 6"
FIRST = Sentence(
    SECTION,
    "The BND.PORT field contains the port number that the SOCKS server assigned to listen for an"
    " incoming connection. The BND.ADDR field contains the associated IP address.",
)
SECOND = Sentence(
    SECTION,
    "The second reply occurs only after the anticipated incoming connection succeeds or fails.",
)
PEER = Sentence(
    SECTION,
    "In the second reply, the BND.PORT and BND.ADDR fields contain the address and port number"
    " of the connecting host.",
)
EVALUATES = Sentence(
    SECTION,
    "In is expected that a SOCKS server will use DST.ADDR and DST.PORT in evaluating the BIND"
    " request.",
)
STREAM = Sentence(
    "RFC 9293 section 2.2",
    "TCP provides a reliable, in-order, byte-stream service to applications.",
)


class Waiting(NamedTuple):
    """A BIND whose first reply has come."""

    client: Stream
    where: Reply  # the server listens there


def bound(bench: Bench) -> Waiting:
    """Ask for a connection from a target of ours, as one to which there is a primary connection."""
    listener = bench.listen()
    bench.connected(listener)
    client, reply = bench.asked(request(BIND, listener.address, listener.port))
    succeeded(reply)
    return Waiting(client, reply)


def arrive(bench: Bench, where: Reply, source: IPv4Address | None = None) -> Stream:
    """Connect to where the server listens, as the target would."""
    if isinstance(where.address, bytes) or where.address.is_unspecified or not where.port:
        raise Failed(f"nobody can connect to BND.ADDR {where.address!s}, BND.PORT {where.port}")
    try:
        sock = socket.create_connection(
            (str(where.address), where.port), bench.pace.patience, (str(source or ""), 0)
        )
    except OSError as error:
        raise Failed(f"no connection to {where.address!s} port {where.port}: {error}") from None
    return bench.keep(Stream(sock, "target", bench.transcript, bench.pace.patience))


@case(FIRST)
def bind_listens(bench: Bench) -> None:
    """The first reply names an address and a port that can be connected to."""
    arrive(bench, bound(bench).where)


@case(SECOND)
def bind_waits(bench: Bench) -> None:
    """There is no second reply before somebody has connected; then there is."""
    client, where = bound(bench)
    if client.rest(bench.pace.quiet)[0]:
        raise Failed("something follows the first reply, and nobody has connected")
    arrive(bench, where)
    succeeded(take_reply(client))


@case(PEER)
def bind_peer(bench: Bench) -> None:
    """The second reply names the address and the port of who has connected."""
    client, where = bound(bench)
    target = arrive(bench, where)
    reply = succeeded(take_reply(client))
    address, port = target.sock.getsockname()[:2]
    if (str(reply.address), reply.port) != (address, port):
        raise Failed(f"BND is {reply.address!s} {reply.port}, not {address} {port}")


@case(STREAM)
def bind_carries(bench: Bench) -> None:
    """Behind the second reply octets go both ways."""
    client, where = bound(bench)
    target = arrive(bench, where)
    target.send(b"150 data\r\n")
    succeeded(take_reply(client))
    client.expect(b"150 data\r\n", "octets of the target")
    client.send(b"upload")
    target.expect(b"upload", "octets of the client")


@case(EVALUATES)
def bind_stranger(bench: Bench) -> None:
    """Who connects from another address than DST.ADDR is not joined with the client."""
    address = bench.stranger()
    client, where = bound(bench)
    stranger = arrive(bench, where, address)
    stranger.send(b"injected")
    octets, _ = client.rest(2 * bench.pace.quiet)
    if octets[:2] == b"\x05\x00":
        raise Failed("a stranger is joined with the client")


@case(SECOND)
def bind_ends_with_client(bench: Bench) -> None:
    """Once the client has gone, nobody is waited for any more."""
    client, where = bound(bench)
    client.close()
    end = time.monotonic() + bench.pace.patience
    while time.monotonic() < end:
        try:
            socket.create_connection((str(where.address), where.port), 1).close()
        except OSError:
            return
        time.sleep(bench.pace.quiet / 4)
    raise Failed(f"the server still listens {bench.pace.patience:g} s after the client has gone")
