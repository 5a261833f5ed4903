"""Cases of UDP ASSOCIATE (RFC 1928 sections 6 and 7)."""

from __future__ import annotations

import select
import time
from ipaddress import IPv4Address, ip_address
from typing import NamedTuple

from socksd.address import IPAddress
from socksd.conformance.bench import ASSOCIATE, LOCALHOST, Bench, address, request, succeeded
from socksd.conformance.case import Failed, Sentence, Skipped, case
from socksd.conformance.sockets import Datagrams, Stream

SECTION = "RFC 1928 section 7"
WHERE = Sentence(
    "RFC 1928 section 6",
    "In the reply to a UDP ASSOCIATE request, the BND.PORT and BND.ADDR fields indicate the port"
    " number/address where the client MUST send UDP request messages to be relayed.",
)
EXPECTS = Sentence(
    "RFC 1928 section 6",
    "The DST.ADDR and DST.PORT fields contain the address and port that the client expects to use"
    " to send UDP datagrams on for the association.",
)
TERMINATES = Sentence(
    "RFC 1928 section 6",
    "A UDP association terminates when the TCP connection that the UDP ASSOCIATE request arrived"
    " on terminates.",
)
ENCAPSULATES = Sentence(
    SECTION,
    "When a UDP relay server receives a reply datagram from a remote host, it MUST encapsulate"
    " that datagram using the above UDP request header",
)
CARRIES = Sentence(SECTION, "Each UDP datagram carries a UDP request header with it")
DROPS = Sentence(SECTION, "it will drop datagrams it cannot or will not relay.")
SOURCE = Sentence(
    SECTION,
    "It MUST drop any datagrams arriving from any source IP address other than the one recorded"
    " for the particular association.",
)
FRAGMENTS = Sentence(
    SECTION,
    "an implementation that does not support fragmentation MUST drop any datagram whose FRAG"
    " field is other than X'00'.",
)
NOBODY = ip_address("0.0.0.0")  # noqa: S104 -- DST.ADDR of a client that does not know its own


class Association(NamedTuple):
    """A UDP association, and where its client sends."""

    control: Stream
    client: Datagrams
    relay: tuple[str, int]

    def send(self, head: bytes, payload: bytes) -> None:
        """Send to the relay: RSV, FRAG, then *head* (ATYP and so on), then the payload."""
        self.client.send(b"\x00\x00\x00" + head + payload, self.relay)


def associate(bench: Bench, *, claimed: bool = False) -> Association:
    """Open an association; *claimed* says in the request where the datagrams will come from."""
    client = bench.datagrams("client", bench.here)
    octets = request(ASSOCIATE, NOBODY, 0)
    if claimed:
        octets = request(ASSOCIATE, client.address, client.port)
    control, reply = bench.asked(octets)
    succeeded(reply)
    if isinstance(reply.address, bytes) or reply.address.is_unspecified or not reply.port:
        raise Failed(f"nobody can send to BND.ADDR {reply.address!s}, BND.PORT {reply.port}")
    return Association(control, client, (str(reply.address), reply.port))


def echoed(
    bench: Bench, association: Association, host: IPAddress | bytes, target: Datagrams
) -> None:
    """See a datagram through to a target, and its answer back."""
    association.send(address(host, target.port), b"question")
    octets, source = target.take("datagram at the target", bench.pace.patience)
    if octets != b"question":
        raise Failed("the target gets something else than the payload")
    target.send(b"answer", source)
    octets, _ = association.client.take("answer at the client")
    due = b"\x00\x00\x00" + address(target.address, target.port) + b"answer"
    if octets != due and not (isinstance(host, bytes) and octets.endswith(b"answer")):
        raise Failed("the answer is not encapsulated with the target's address and port")


@case(WHERE)
def udp_associates(bench: Bench) -> None:
    """A client that does not know its address and port gets a relay that it can send to."""
    associate(bench)


@case(EXPECTS)
def udp_associates_claimed(bench: Bench) -> None:
    """A client that names its address and port is served at these."""
    echoed(bench, associate(bench, claimed=True), bench.server.ipv4, bench.datagrams("target"))


@case(CARRIES)
def udp_ipv4(bench: Bench) -> None:
    """ATYP 01: the payload arrives bare, the answer with the target's address and port."""
    echoed(bench, associate(bench), bench.server.ipv4, bench.datagrams("target"))


@case(CARRIES)
def udp_ipv6(bench: Bench) -> None:
    """ATYP 04: the same for a target by IPv6."""
    target = bench.datagrams("target", bench.ipv6())
    echoed(bench, associate(bench), target.address, target)


@case(CARRIES)
def udp_name(bench: Bench) -> None:
    """ATYP 03: the relay looks the name up."""
    if not bench.server.is_here:
        raise Skipped("needs a server on this host, where localhost is the target")
    association = associate(bench)
    targets = [bench.datagrams("target")]
    if bench.server.ipv6 is not None:
        targets.append(bench.datagrams("target", bench.server.ipv6, targets[0].port))
    association.send(address(LOCALHOST, targets[0].port), b"question")
    ready = select.select([target.sock for target in targets], [], [], bench.pace.patience)[0]
    found = [target.take("datagram")[0] for target in targets if target.sock in ready]
    if found != [b"question"]:
        raise Failed("not one datagram with the payload at the target")


@case(ENCAPSULATES)
def udp_two_targets(bench: Bench) -> None:
    """Answers of two targets of one association can be told apart."""
    association = associate(bench)
    for _ in range(2):
        echoed(bench, association, bench.server.ipv4, bench.datagrams("target"))


@case(DROPS)
def udp_malformed(bench: Bench) -> None:
    """Malformed datagrams are dropped, and the association goes on."""
    association = associate(bench)
    target = bench.datagrams("target")
    there = address(target.address, target.port)
    for octets in (
        b"",
        b"\x00",
        b"\x00\x00\x00",
        b"\x00\x00\x00\x01\x7f\x00",
        b"\x00\x00\x00\x05" + there[1:] + b"type",
        b"\x00\x00\x00\x03\xffshort",
        b"\x00\x00\x00\x03\x00" + there[-2:] + b"empty name",
    ):
        association.client.send(octets, association.relay)
    if target.taken(bench.pace.quiet) is not None:
        raise Failed("a malformed datagram is relayed")
    echoed(bench, association, target.address, target)


@case(FRAGMENTS)
def udp_fragment(bench: Bench) -> None:
    """A fragment is never relayed as if it were a datagram."""
    association = associate(bench)
    target = bench.datagrams("target")
    there = address(target.address, target.port)
    association.client.send(b"\x00\x00\x01" + there + b"a fragment", association.relay)
    if target.taken(bench.pace.quiet) is not None:
        raise Failed("a fragment is relayed")
    echoed(bench, association, target.address, target)


@case(SOURCE)
def udp_stranger_first(bench: Bench) -> None:
    """A datagram from another address is dropped, though the client has not sent one yet."""
    address = bench.stranger()
    injected(bench, associate(bench), address)


@case(SOURCE)
def udp_stranger_later(bench: Bench) -> None:
    """A datagram from another address is dropped while the client uses its association."""
    address = bench.stranger()
    association = associate(bench)
    echoed(bench, association, bench.server.ipv4, bench.datagrams("target"))
    injected(bench, association, address)


def injected(bench: Bench, association: Association, source: IPv4Address) -> None:
    """Send from another address than the client's: that must come to nothing."""
    target = bench.datagrams("target")
    stranger = bench.datagrams("stranger", source)
    there = address(target.address, target.port)
    stranger.send(b"\x00\x00\x00" + there + b"injected", association.relay)
    if target.taken(bench.pace.quiet) is not None:
        raise Failed("a datagram from a stranger's address is relayed")
    echoed(bench, association, target.address, target)


@case(EXPECTS)
def udp_other_port(bench: Bench) -> None:
    """Once the client's port is known, a datagram from another one does not use its association."""
    association = associate(bench, claimed=True)
    target = bench.datagrams("target")
    echoed(bench, association, target.address, target)
    stranger = bench.datagrams("stranger", bench.here)
    there = address(target.address, target.port)
    stranger.send(b"\x00\x00\x00" + there + b"injected", association.relay)
    if target.taken(bench.pace.quiet) is not None:
        raise Failed("a datagram from another port than the client's is relayed")
    echoed(bench, association, target.address, target)


@case(TERMINATES)
def udp_ends_with_tcp(bench: Bench) -> None:
    """Nothing is relayed once the TCP connection has ended."""
    association = associate(bench)
    target = bench.datagrams("target")
    echoed(bench, association, target.address, target)
    association.control.close()
    end = time.monotonic() + bench.pace.patience
    while time.monotonic() < end:
        association.send(address(target.address, target.port), b"late")
        if target.taken(bench.pace.quiet) is None:
            return
    raise Failed(f"datagrams are still relayed after {bench.pace.patience:g} s")
