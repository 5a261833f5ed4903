"""Cases of TCP's promise: where one segment ends and the next begins means nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence

from socksd.conformance.bench import (
    CONNECT,
    LOCALHOST,
    Bench,
    connect,
    request,
    succeeded,
    take_reply,
)
from socksd.conformance.case import Failed, Sentence, case
from socksd.conformance.sockets import Ending, Stream

STREAM = Sentence(
    "RFC 9293 section 2.2",
    "TCP provides a reliable, in-order, byte-stream service to applications.",
)
PASSING = Sentence(
    "RFC 1928 section 6",
    "If the reply code (REP value of X'00') indicates a success, and the request was either a"
    " BIND or a CONNECT, the client may now start passing data.",
)
EARLY = bytes(range(256)) * 128  # 32 KiB


def in_pieces(bench: Bench, client: Stream, pieces: Sequence[bytes]) -> None:
    """Send segments so that they are read one by one."""
    for piece in pieces:
        client.send(piece)
        time.sleep(bench.pace.pause)


def split(bench: Bench, turn: int) -> None:
    """Cut one message of the handshake before each octet but the first, on new connections."""
    hello = bench.hello()
    message, answer = hello[turn]
    for cut in range(1, len(message)):
        client = bench.dial()
        for earlier, due in hello[:turn]:
            client.send(earlier)
            client.expect(due, "answer")
        in_pieces(bench, client, (message[:cut], message[cut:]))
        try:
            client.expect(answer, "answer")
        except Failed as failed:
            raise Failed(f"cut after octet {cut}: {failed}") from None
        client.close()


def split_request(bench: Bench, octets: bytes) -> None:
    """Cut a request before each octet but the first, on new connections."""
    for cut in range(1, len(octets)):
        client = bench.greeted()
        in_pieces(bench, client, (octets[:cut], octets[cut:]))
        try:
            succeeded(take_reply(client, bench.pace.lookup))
        except Failed as failed:
            raise Failed(f"cut after octet {cut}: {failed}") from None
        client.close()


def coalesced(bench: Bench, listener_request: bytes, behind: bytes = b"") -> Stream:
    """Send the whole handshake and what is behind it in one segment; take all answers."""
    hello = bench.hello()
    client = bench.dial()
    client.send(b"".join(message for message, _ in hello) + listener_request + behind)
    for _, answer in hello:
        client.expect(answer, "METHOD" if answer[0] == 5 else "STATUS")
    succeeded(take_reply(client))
    return client


@case(STREAM)
def split_greeting(bench: Bench) -> None:
    """A greeting may be cut anywhere."""
    split(bench, 0)


@case(STREAM)
def split_login(bench: Bench) -> None:
    """A login (RFC 1929) may be cut anywhere."""
    bench.credentials()
    split(bench, 1)


@case(STREAM)
def split_request_ipv4(bench: Bench) -> None:
    """A request by IPv4 address may be cut anywhere."""
    split_request(bench, connect(bench.listen()))


@case(STREAM)
def split_request_name(bench: Bench) -> None:
    """A request by name may be cut anywhere."""
    split_request(bench, request(CONNECT, LOCALHOST, bench.named().port))


@case(STREAM)
def split_request_ipv6(bench: Bench) -> None:
    """A request by IPv6 address may be cut anywhere."""
    split_request(bench, connect(bench.listen(bench.ipv6())))


@case(STREAM)
def octet_by_octet(bench: Bench) -> None:
    """A whole handshake may come an octet at a time."""
    client = bench.dial()
    listener = bench.listen()
    for message, answer in bench.hello():
        in_pieces(bench, client, [message[n : n + 1] for n in range(len(message))])
        client.expect(answer, "answer")
    octets = connect(listener)
    in_pieces(bench, client, [octets[n : n + 1] for n in range(len(octets))])
    succeeded(take_reply(client))
    client.send(b"over")
    bench.accept(listener).expect(b"over", "payload")


@case(STREAM)
def coalesced_handshake(bench: Bench) -> None:
    """Greeting, login and request may come in one segment."""
    listener = bench.listen()
    client = coalesced(bench, connect(listener))
    client.send(b"over")
    bench.accept(listener).expect(b"over", "payload")


@case(STREAM)
def coalesced_payload(bench: Bench) -> None:
    """Payload in the very segment of the handshake arrives, before what follows it."""
    listener = bench.listen()
    client = coalesced(bench, connect(listener), b"early and ")
    client.send(b"late")
    bench.accept(listener).expect(b"early and late", "payload")


@case(PASSING)
def early_payload(bench: Bench) -> None:
    """Payload sent right behind the request, before its reply, arrives in order."""
    listener = bench.listen()
    client = bench.greeted()
    client.send(connect(listener) + b"early, ")
    client.send(b"earlier, ")
    succeeded(take_reply(client))
    client.send(b"late")
    bench.accept(listener).expect(b"early, earlier, late", "payload")


@case(PASSING)
def early_payload_long(bench: Bench) -> None:
    """32 KiB of payload behind the request arrive, and nothing else."""
    listener = bench.listen()
    client = bench.greeted()
    client.send(connect(listener) + EARLY)
    succeeded(take_reply(client))
    bench.accept(listener).expect(EARLY, "payload")


@case(STREAM)
def early_fin(bench: Bench) -> None:
    """Handshake, payload and FIN at once: the target gets it all, and the client its answer."""
    listener = bench.listen()
    client = bench.dial()
    hello = bench.hello()
    client.send(b"".join(message for message, _ in hello) + connect(listener) + b"question")
    client.finish()
    for _, answer in hello:
        client.expect(answer, "answer")
    succeeded(take_reply(client))
    target = bench.accept(listener)
    octets, ending = target.rest()
    if (octets, ending) != (b"question", Ending.FIN):
        raise Failed(f"the target sees {len(octets)} of 8 octets, then {ending.value}")
    target.send(b"answer")
    client.expect(b"answer", "answer of the target")
