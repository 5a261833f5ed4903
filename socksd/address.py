"""
Hosts and destinations in their one normal form.

A rule can only hold if one host has one spelling. Whatever way a client, a
configuration or a name server writes a host, it becomes an ``ipaddress``
object or a normalised name *here*, before anything is asked about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from socket import inet_ntoa

import idna

from socksd.errors import AddressError
from socksd.frozen import value

IPAddress = IPv4Address | IPv6Address
Host = IPv4Address | IPv6Address | str  # a str is always a normalised name

# Letters, digits, hyphen; and the underscore that intranets do use.
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_DECIMAL = re.compile(r"0|[1-9][0-9]*")
_OCTAL = re.compile(r"0[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-f]+")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")

# The 96 bits before the IPv4 address: compatible, mapped, translated, NAT64.
_BEFORE_IPV4 = frozenset({0, 0xFFFF, 0xFFFF_0000, 0x64_FF9B << 64})


class _AtHand(IPv4Address):
    """
    An address with what is asked of it again and again at hand.

    ``ipaddress`` works octets, text and hash out anew, in two to four calls of
    Python each, of which a session would make some thirty.
    """

    __slots__ = ("_hash", "packed", "spelt")

    def __init__(self, octets: bytes) -> None:
        super().__init__(octets)
        self.packed = octets  # type: ignore[misc]  # a slot, where there is a property
        self.spelt = inet_ntoa(octets)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return self.spelt

    def __repr__(self) -> str:
        return f"IPv4Address({self.spelt!r})"

    def __reduce__(self) -> tuple[type[IPv4Address], tuple[str]]:
        return IPv4Address, (self.spelt,)


# Gives the address of four octets. Remembered, for the same few clients and targets come
# again and again, and to make one takes 3 us.
ipv4: Callable[[bytes], IPv4Address] = lru_cache(maxsize=4096)(_AtHand)

_LOOPBACK4 = ipv4(b"\x7f\0\0\1")
_LOOPBACK6 = IPv6Address("::1")


def normal_host(text: str) -> Host:
    """
    Give the one normal form of a host, however it is spelled.

    Case, one trailing dot and IDNA are levelled; addresses are recognised in
    every form that ``inet_aton(3)`` or a URL knows (``0x7f.1``, ``2130706433``,
    ``[::1]``) and an IPv4-mapped IPv6 address becomes the IPv4 address, so
    that no resolver further down finds an address where a rule saw a name.

    Raises:
        AddressError: It is neither an address nor a name to look up; zone
            identifiers (``fe80::1%eth0``) are refused, for what they mean
            differs from host to host.
    """
    if not text:
        raise AddressError("an empty host")
    if text.startswith("[") and text.endswith("]"):
        return _ipv6(text[1:-1])
    if ":" in text:
        return _ipv6(text)
    name = _ascii(text)
    if len(name) > 253:
        raise AddressError(f"a name of {len(name)} octets; 253 is the longest")
    labels = name.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise AddressError(f"not a host: {text!r}")
    if _NUMERIC.fullmatch(labels[-1]):  # as in URLs: ends in a number, so is an address
        return _ipv4(labels)
    return name


@lru_cache(maxsize=4096)
def parsed(host: str) -> IPAddress:
    """
    Give the address that the socket module spells *host*, less its zone identifier.

    Remembered, for to parse one takes longer than to accept a connection.
    """
    address = unmapped(ip_address(host.partition("%")[0]))
    return ipv4(address.packed) if isinstance(address, IPv4Address) else address


def spelled(address: IPAddress) -> str:
    """Spell an address, as ``str()`` does in twice as long."""
    return address.spelt if isinstance(address, _AtHand) else str(address)


def unmapped(address: IPAddress) -> IPAddress:
    """Give the IPv4 address inside ``::ffff:a.b.c.d``; any other as it is."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def reached(address: IPAddress) -> IPAddress:
    """
    Give the address that ``connect(2)`` really reaches for *address*.

    Linux takes the unspecified address (``0.0.0.0``, ``::``) to the loopback
    and a mapped one to its IPv4 address: judging anything but that would let
    a denied address be reached by another spelling.
    """
    if isinstance(address, IPv6Address):
        address = unmapped(address)
    if not any(address.packed):
        return _LOOPBACK4 if isinstance(address, IPv4Address) else _LOOPBACK6
    return address


def embedded(address: IPAddress) -> tuple[IPv4Address, ...]:
    """
    Give the IPv4 addresses that an IPv6 address may stand for on its way.

    A translator or a tunnel takes them out again: NAT64 (RFC 6052 and, with
    the prefix of RFC 8215, at each place it may have them), 6to4 (RFC 3056),
    Teredo (RFC 4380: server and client), IPv4-compatible (RFC 4291) and
    IPv4-translated (RFC 2765) addresses. Empty for any other.
    """
    if isinstance(address, IPv4Address):
        return ()
    value, octets = int(address), address.packed
    if value >> 32 in _BEFORE_IPV4 and value > 1:  # :: and ::1 are themselves
        return (IPv4Address(octets[12:]),)
    if value >> 112 == 0x2002:
        return (IPv4Address(octets[2:6]),)
    if value >> 96 == 0x2001_0000:
        client = value & 0xFFFF_FFFF ^ 0xFFFF_FFFF
        return (IPv4Address(octets[4:8]), IPv4Address(client))
    if value >> 80 == 0x64_FF9B_0001:
        # How long the prefix is only its translator knows; octet 8 is left out.
        places = (
            octets[6:8] + octets[9:11],
            octets[7:8] + octets[9:12],
            octets[9:13],
            octets[12:16],
        )
        # What is read at a wrong place is mostly zeros; nothing is sent to 0.0.0.0/8.
        return tuple(dict.fromkeys(IPv4Address(place) for place in places if place[0]))
    return ()


@value
class Destination:
    """
    Where a client wants to go: DST.ADDR and DST.PORT of RFC 1928 section 4.

    Attributes:
        host: Normalised; see :func:`normal_host`.
        port: 0..65535.
    """

    host: Host
    port: int

    @classmethod
    def named(cls, host: str, port: int) -> Destination:
        """
        Make a destination of a host as somebody wrote it.

        Raises:
            AddressError: *host* has no normal form.
        """
        return cls(normal_host(host), port)

    @property
    def spelled_host(self) -> str:
        """The host as text."""
        return self.host if isinstance(self.host, str) else spelled(self.host)

    def __str__(self) -> str:
        host = self.host
        if isinstance(host, str):
            return f"{host}:{self.port}"
        if isinstance(host, IPv4Address):
            return f"{spelled(host)}:{self.port}"
        return f"[{host}]:{self.port}"


def _ascii(text: str) -> str:
    """Lower case, A-labels, no trailing dot."""
    if not text.isascii():
        try:
            # The mapping first: it also turns full-width digits and dots
            # into the ASCII ones, which may then spell an address.
            text = idna.uts46_remap(text, std3_rules=False, transitional=False)
            text = ".".join(
                label if label.isascii() else idna.alabel(label).decode("ascii")
                for label in text.split(".")
            )
        except (idna.IDNAError, UnicodeError) as error:
            raise AddressError(f"not a host: {error}") from error
    return text.lower().removesuffix(".")


def _ipv4(labels: list[str]) -> IPv4Address:
    """Read an address as inet_aton(3) does: the last part fills what is left."""
    spelled = ".".join(labels)
    if len(labels) > 4:
        raise AddressError(f"not an address: {spelled}")
    numbers = [_number(label, spelled) for label in labels]
    *leading, last = numbers
    if any(number > 255 for number in leading) or last >= 256 ** (5 - len(labels)):
        raise AddressError(f"not an address: {spelled}")
    value = last
    for position, number in enumerate(leading):
        value += number << (24 - 8 * position)
    return IPv4Address(value)


def _number(label: str, spelled: str) -> int:
    if len(label) > 16:  # no part needs more; int() of a long one would cost
        raise AddressError(f"not an address: {spelled}")
    if _DECIMAL.fullmatch(label):
        return int(label)
    if _OCTAL.fullmatch(label):
        return int(label, 8)
    if _HEXADECIMAL.fullmatch(label):
        return int(label, 16)
    raise AddressError(f"not an address: {spelled}")


def _ipv6(text: str) -> IPAddress:
    if "%" in text:
        raise AddressError(f"a zone identifier: {text!r}")
    try:
        return unmapped(IPv6Address(text))
    except AddressValueError as error:
        raise AddressError(f"not an address: {text!r}") from error
