"""Cases of many clients, bad ones and silent ones."""

from __future__ import annotations

from random import Random

from socksd.conformance.bench import Bench, connect, succeeded, take_reply
from socksd.conformance.case import Failed, Sentence, case
from socksd.conformance.sockets import Ending

SERVICE = Sentence(
    "RFC 1928 section 3",
    "it must open a TCP connection to the appropriate SOCKS port on the SOCKS server system.",
)
NEGOTIATION = Sentence(
    "RFC 1928 section 3",
    "If the connection request succeeds, the client enters a negotiation for the authentication"
    " method to be used",
)
CLIENTS = 100


@case(SERVICE)
def parallel_100(bench: Bench) -> None:
    """100 handshakes at the same time, step by step, are all served."""
    listener = bench.listen()
    clients = [bench.dial() for _ in range(CLIENTS)]
    for message, answer in bench.hello():
        for client in clients:
            client.send(message)
        for client in clients:
            client.expect(answer, "answer")
    for client in clients:
        client.send(connect(listener))
    for client in clients:
        succeeded(take_reply(client))
    for number, client in enumerate(clients):
        client.send(number.to_bytes(2, "big"))
    numbers = {bench.accept(listener).take(2, "payload") for _ in clients}
    if len(numbers) != CLIENTS:
        raise Failed("the payload of two clients is the same")


@case(SERVICE)
def noise(bench: Bench) -> None:
    """50 clients that send noise do not keep the next one from being served."""
    random = Random(1928)  # noqa: S311 -- the same noise every time
    for _ in range(50):
        client = bench.dial()
        client.send(random.choice((b"", b"\x05", b"\x05\x01\x00")) + random.randbytes(64))
        client.close()
    bench.connected()


@case(NEGOTIATION, slow=True)
def silent_client(bench: Bench) -> None:
    """A client that never says anything is cut some time."""
    client = bench.dial()
    if client.rest(bench.pace.silence)[1] is Ending.NONE:
        raise Failed(f"the connection is still open after {bench.pace.silence:g} s")


@case(NEGOTIATION, slow=True)
def silent_greeted_client(bench: Bench) -> None:
    """A client that never sends its request is cut some time."""
    client = bench.greeted()
    if client.rest(bench.pace.silence)[1] is Ending.NONE:
        raise Failed(f"the connection is still open after {bench.pace.silence:g} s")
