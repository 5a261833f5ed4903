"""
Twenty thousand bad clients, the same ones for the same seed.

What they send lies near the protocol more often than far from it: whole
dialogues that were bent, cut, doubled or spliced, other protocols, noise.
Every destination in them is on the loopback or does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

from tests.functional.dialogue import GREETING, LOGIN_GREETING, login, request

_STRANGERS = (
    b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n",
    b"CONNECT example.test:443 HTTP/1.1\r\n\r\n",
    bytes.fromhex("16030100c8010000c40303") + bytes(60),  # the head of a TLS ClientHello
    b"\x04\x01\x00\x50\x7f\x00\x00\x01user\x00",  # SOCKS4
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n",
)
_NAMES = (
    *(b"echo.test", b"nowhere.test", b"EcHo.TeSt.", b"_dmarc.test", b"xn--a"),
    *(b"127.0.0.1", b"0x7f.1", b"[::1]"),
    *(b"a" * 255, b"\xff\xfe", b"host\r\nInjected: yes", b"\x00", b".."),
)


class Ending(Enum):
    """How a bad client goes."""

    FIN = "fin"  # says that it is done, and reads on to the end
    CLOSE = "close"  # closes without a look at what came
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Case:
    segments: Sequence[bytes]
    ending: Ending
    known: bool  # comes from where no login is needed


def cases(seed: int, count: int, echo_port: int) -> Iterator[Case]:
    """Give *count* bad clients; *echo_port* is where some of them get through to."""
    random = Random(seed)
    for _ in range(count):
        octets = _octets(random, echo_port)
        cuts = sorted(random.randrange(len(octets) + 1) for _ in range(random.randrange(3)))
        segments = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
        yield Case(segments, random.choice(list(Ending)), random.random() < 0.5)


def _octets(random: Random, echo_port: int) -> bytes:
    kind = random.random()
    if kind < 0.45:
        return _bent(random, _dialogue(random, echo_port))
    if kind < 0.60:
        whole = _dialogue(random, echo_port)
        return whole[: random.randrange(len(whole) + 1)]
    if kind < 0.70:
        return _dialogue(random, echo_port)
    if kind < 0.80:
        return random.choice(_STRANGERS) + random.randbytes(random.randrange(40))
    if kind < 0.97:
        return random.choice((b"", b"\x05", GREETING)) + random.randbytes(random.randrange(600))
    return random.choice((GREETING, LOGIN_GREETING)) + random.randbytes(1 << 16)


def _dialogue(random: Random, echo_port: int) -> bytes:
    """A whole dialogue in one breath, with something for the target to echo."""
    host: str | bytes = random.choice(
        ("127.0.0.1", "::1", "0.0.0.0", "::ffff:127.0.0.1", "192.0.2.1", *_NAMES)
    )
    port = random.choice((echo_port, echo_port, 0, random.randrange(65536)))
    command = random.choice((1, 1, 1, 1, 2, 3, 4, 0, 255))
    asked = request(host, port, command) + random.randbytes(random.randrange(2000))
    start = random.randrange(4)
    if start == 0:
        return LOGIN_GREETING + login("alice", random.choice(("right", "wrong", ""))) + asked
    if start == 1:
        offered = random.randbytes(random.randrange(256))
        return bytes([5, len(offered)]) + offered + asked
    return GREETING + asked


def _bent(random: Random, octets: bytes) -> bytes:
    bent = bytearray(octets)
    for _ in range(random.randrange(1, 5)):
        # The framing is at the front; that is where bending tells.
        at = random.randrange(min(len(bent), 40) + 1)
        match random.randrange(6):
            case 0:
                bent[at : at + 1] = random.randbytes(1)
            case 1:
                bent[at : at + 1] = random.choice((b"\x00", b"\xff", b"\x01", b"\x05"))
            case 2:
                bent[at:at] = random.randbytes(random.randrange(1, 9))
            case 3:
                del bent[at : at + random.randrange(1, 9)]
            case 4:
                bent[at:at] = bent[: random.randrange(20)]
            case 5:
                bent[at:] = bent[at:][::-1]
    return bytes(bent)
