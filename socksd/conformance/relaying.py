"""Cases of what comes behind a successful reply: the relay is to be as good as a connection."""

from __future__ import annotations

from socksd.conformance.bench import Bench, connect, succeeded, take_reply
from socksd.conformance.case import Failed, Sentence, case
from socksd.conformance.sockets import Ending, carry

STREAM = Sentence(
    "RFC 9293 section 2.2",
    "TCP provides a reliable, in-order, byte-stream service to applications.",
)
CLOSE = Sentence(
    "RFC 9293 section 3.6",
    "The user who CLOSEs may continue to RECEIVE until the TCP receiver is told that the remote"
    " peer has CLOSED also.",
)
RESET = Sentence(
    "RFC 9293 section 3.5.3",
    "If the receiver was in any other state, it aborts the connection and advises the user and"
    " goes to the CLOSED state.",
)
MANY = bytes(range(251)) * 33420  # 8 MiB that no multiple of a buffer's size divides


@case(STREAM)
def transfer_up(bench: Bench) -> None:
    """8 MiB from the client arrive unchanged."""
    client, target, _ = bench.connected()
    carry([(client, target, MANY)], 6 * bench.pace.patience)


@case(STREAM)
def transfer_down(bench: Bench) -> None:
    """8 MiB from the target arrive unchanged."""
    client, target, _ = bench.connected()
    carry([(target, client, MANY)], 6 * bench.pace.patience)


@case(STREAM)
def transfer_both(bench: Bench) -> None:
    """8 MiB each way at the same time arrive unchanged."""
    client, target, _ = bench.connected()
    carry([(client, target, MANY), (target, client, MANY[::-1])], 12 * bench.pace.patience)


@case(STREAM)
def target_speaks_first(bench: Bench) -> None:
    """What the target sends at once comes behind the reply, whole."""
    listener = bench.listen()
    client = bench.greeted()
    client.send(connect(listener))
    target = bench.accept(listener)
    target.send(b"220 ready\r\n")
    succeeded(take_reply(client))
    client.expect(b"220 ready\r\n", "greeting of the target")


@case(CLOSE)
def half_close_by_client(bench: Bench) -> None:
    """The client sends FIN: the target hears it, answers afterwards, and is heard."""
    client, target, _ = bench.connected()
    client.send(b"question")
    client.finish()
    octets, ending = target.rest()
    if (octets, ending) != (b"question", Ending.FIN):
        raise Failed(f"the target sees {len(octets)} of 8 octets, then {ending.value}")
    target.send(b"answer" * 10000)
    target.finish()
    octets, ending = client.rest()
    if (len(octets), ending) != (60000, Ending.FIN):
        raise Failed(f"the client sees {len(octets)} of 60000 octets, then {ending.value}")


@case(CLOSE)
def half_close_by_target(bench: Bench) -> None:
    """The target sends FIN: the client hears it, sends afterwards, and is heard."""
    client, target, _ = bench.connected()
    target.send(b"go on")
    target.finish()
    octets, ending = client.rest()
    if (octets, ending) != (b"go on", Ending.FIN):
        raise Failed(f"the client sees {len(octets)} of 5 octets, then {ending.value}")
    client.send(b"upload" * 10000)
    client.finish()
    octets, ending = target.rest()
    if (len(octets), ending) != (60000, Ending.FIN):
        raise Failed(f"the target sees {len(octets)} of 60000 octets, then {ending.value}")


@case(RESET)
def reset_by_target(bench: Bench) -> None:
    """The target resets: the client hears RST, and cannot take what it has for the whole."""
    client, target, _ = bench.connected()
    target.reset()
    ending = client.rest()[1]
    if ending is not Ending.RESET:
        raise Failed(f"the client hears {ending.value}")


@case(RESET)
def reset_by_client(bench: Bench) -> None:
    """The client resets: the target hears RST."""
    client, target, _ = bench.connected()
    client.reset()
    ending = target.rest()[1]
    if ending is not Ending.RESET:
        raise Failed(f"the target hears {ending.value}")
