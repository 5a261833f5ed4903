"""
One host, many spellings.

For each host, in its normal form, what a client could write to get past a
rule about it. ``normal_host`` gives that same form for each, or refuses it.
All fit a DOMAINNAME (255 octets of UTF-8), so that they can be sent.

Not here: addresses that are others, though something on the way might take
them to the same place (``::127.0.0.2``, ``64:ff9b::127.0.0.2``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from itertools import cycle
from string import ascii_letters, digits

WRITERS: tuple[Callable[[int], str], ...] = (
    "{}".format,
    "0x{:x}".format,
    "0X{:X}".format,
    "0x{:010x}".format,
    "0{:o}".format,
    "000{:03o}".format,
)
# Digits that UTS #46 takes for 0 to 9: full-width, circled, superscript,
# subscript, mathematical bold.
DIGITS = ("０１２３４５６７８９", "⓪①②③④⑤⑥⑦⑧⑨", "⁰¹²³⁴⁵⁶⁷⁸⁹", "₀₁₂₃₄₅₆₇₈₉", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗")
DOTS = "．。｡"
FULL_WIDTH = {ord(c): ord(c) + 0xFEE0 for c in f"{ascii_letters}{digits}-:[]"}


def around(text: str) -> Iterator[str]:
    """What is refused, or levelled, whatever the host is."""
    yield from (f"{text}..", f".{text}", f" {text}", f"{text} ", f"{text}\0", f"{text}\0.example")
    yield from (f"{text}/", f"{text}/32", f"//{text}", f"x@{text}", f"{text}%25")
    yield from (f"\u00ad{text}", f"{text}\u200b", f"{text}\n")


def ipv4(address: str) -> Iterator[str]:
    value = int(IPv4Address(address))
    a, b, c, d = value.to_bytes(4, "big")
    splits = ((a, b, c, d), (a, b, value & 0xFFFF), (a, value & 0xFFFFFF), (value,))
    for numbers in splits:
        for write in WRITERS:
            yield ".".join(map(write, numbers))
            yield ".".join(map(write, numbers)) + "."
        plain = ".".join(map(str, numbers))
        yield from (plain.translate(str.maketrans(digits, others)) for others in DIGITS)
    for first in range(len(WRITERS)):
        writers = cycle((*WRITERS[first:], *WRITERS[:first]))
        yield ".".join(next(writers)(number) for number in splits[0])
    for dot in DOTS:
        yield address.replace(".", dot)
        yield address + dot
    yield "\u00ad.".join(address.split("."))
    yield from around(address)
    yield f"{address}:80"
    yield f"[{address}]"
    yield f"{value + 2**32}"  # would be the same if only 32 bits were kept
    yield f"{a}.{b}.{c}.{d + 256}"
    yield f"{a + 256}.{b}.{c}.{d}"
    yield f"{a}.{b}.{c}.{d}.0"
    yield f"{a}.{b}..{d}"
    yield from ipv6(f"::ffff:{address}")


def ipv6(address: str) -> Iterator[str]:
    value = IPv6Address(address)
    groups = value.packed.hex(":", 2).split(":")
    short = [f"{int(group, 16):x}" for group in groups]
    for text in (
        address,
        ":".join(groups),
        ":".join(short),
        ":".join(short[:6]) + f":{IPv4Address(value.packed[12:])}",
        address.upper(),
        ":".join(groups).upper(),
    ):
        yield text
        yield f"[{text}]"
    yield from (f"{address}%1", f"{address}%eth0", f"[{address}%25lo]", f"[{address}].")
    yield from (f"[{address}", f"{address}]", f"[[{address}]]", f"[{address}]:80", f"{address}.")
    yield address.translate(FULL_WIDTH)
    yield f"[{address}]".translate(FULL_WIDTH)
    yield from around(address)


def name(text: str) -> Iterator[str]:
    """An ASCII name."""
    yield from (text, text.upper(), text.title(), text.swapcase(), f"{text}.", f"{text.upper()}.")
    yield text.translate(FULL_WIDTH)
    yield text.upper().translate(FULL_WIDTH)
    for dot in DOTS:
        yield text.replace(".", dot)
        yield text + dot
    yield "\u00ad".join(text)
    yield f"{text}:80"
    yield from around(text)


def spellings() -> dict[str, list[str]]:
    found: dict[str, Iterator[str]] = {
        "127.0.0.1": ipv4("127.0.0.1"),
        "127.0.0.2": ipv4("127.0.0.2"),
        "10.0.0.1": ipv4("10.0.0.1"),
        "::1": ipv6("::1"),
        "fd00::2:1": ipv6("fd00::2:1"),
        "db-1.corp.example": name("db-1.corp.example"),
        "localhost": name("localhost"),
    }
    listed = {host: list(dict.fromkeys(texts)) for host, texts in found.items()}
    listed["xn--bcher-kva.example"] = [
        "xn--bcher-kva.example",
        "XN--BCHER-KVA.EXAMPLE",
        "bücher.example",
        "BÜCHER.example.",
        "bu\u0308cher.example",
        "BU\u0308CHER.EXAMPLE",
        "bücher。example",
        "ｂücher．example",
        "bü\u00adcher.example",
    ]
    return listed


SPELLINGS = spellings()
