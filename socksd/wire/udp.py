"""
The header of UDP datagrams, and datagrams in fragments (RFC 1928 section 7).

A relay finds what it knows of a target by the octets of the header, so that
only the first datagram to each one is taken apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from socksd.address import Destination
from socksd.codes import AddressType
from socksd.errors import ProtocolError
from socksd.wire.socks5 import read_destination, write_destination

MOST = 65507  # octets of the longest payload, by IPv4: 65,535 less the headers of IP and UDP
REASSEMBLY_SECONDS = 5.0  # "MUST be no less than 5 seconds"

_END = 0x80  # the bit of FRAG that ends a sequence
_WHOLE = b"\x00\x00\x00"  # RSV, and FRAG of a datagram that stands alone

# As plain numbers: a look at an enumeration would cost more than all the rest of header_end().
_IPV4, _NAME, _IPV6 = map(int, (AddressType.IPV4, AddressType.DOMAINNAME, AddressType.IPV6))
_IPV4_END = 10
_IPV6_END = 22
_NAME_END = 7  # and the name


def header_end(octets: Sequence[int], count: int) -> int:
    """
    Give where the header ends that *count* octets begin with.

    Nothing but its length is looked at: neither RSV and FRAG, nor whether a
    name is one.

    Args:
        octets: What holds the datagram; what follows it there is not looked at.
        count: The datagram's length.

    Returns:
        The index of the first octet of the payload, which is *count* where
        there is none; 0: this is too short, or ATYP is unknown.
    """
    if count < _NAME_END:
        return 0
    kind = octets[3]
    if kind == _IPV4:
        end = _IPV4_END
    elif kind == _NAME:
        end = _NAME_END + octets[4]
    elif kind == _IPV6:
        end = _IPV6_END
    else:
        return 0
    return end if end <= count else 0


@dataclass(frozen=True, slots=True)
class Header:
    """
    What stands before the payload of a datagram.

    RFC 1928 section 7: ``RSV(2) FRAG(1) ATYP(1) DST.ADDR(variable) DST.PORT(2)``.
    """

    destination: Destination
    fragment: int = 0  # 0: it stands alone; else its position, and 0x80 if it is the last one

    @classmethod
    def take(cls, octets: bytes) -> Self:
        """
        Take a header, which is all of *octets*.

        Raises:
            ProtocolError: RSV is not 0, ATYP is unknown, DST.ADDR cannot be a
                host, or the header is shorter or longer than that.
        """
        found = read_destination(octets, 3)
        if found is None or found[1] != len(octets):
            raise ProtocolError(f"not a header: {len(octets)} octets")
        if octets[:2] != _WHOLE[:2]:
            raise ProtocolError("RSV of a datagram is not 0")
        return cls(found[0], octets[2])

    def encode(self) -> bytes:
        """Give its octets."""
        return bytes((0, 0, self.fragment)) + write_destination(self.destination)


class Reassembly:
    """
    The reassembly queue of one association.

    A sequence is given up when its timer expires or a fragment comes that is
    not the next one, which may then begin another. So it is with a gap, too,
    for the RFC has no way to fill one: a fragment below the highest that has
    come abandons all. Fragments of one sequence have one destination.

    It holds the octets of one datagram at most.

    Attributes:
        position: Of the latest fragment; 0 while there is none.
        abandoned: How many fragments have come for nothing.
    """

    __slots__ = ("_due", "_octets", "_to", "abandoned", "position")

    def __init__(self) -> None:
        self.position = 0
        self.abandoned = 0
        self._to = b""
        self._octets = bytearray()
        self._due = 0.0

    def take(self, header: bytes, payload: bytes, now: float) -> tuple[bytes, bytes] | None:
        """
        Take one fragment.

        Args:
            header: Its header, of which FRAG is not 0.
            payload: What follows.
            now: The time, in seconds.

        Returns:
            The datagram, if it is whole now: the header it would have had, if
            it had been sent in one piece, and the payload; else ``None``.
        """
        fragment, to = header[2], header[3:]
        position = fragment & ~_END
        if (
            position != self.position + 1
            or now >= self._due
            or to != self._to
            or len(self._octets) + len(payload) > MOST
        ):
            self.abandon()
            if position != 1 or len(payload) > MOST:
                self.abandoned += 1
                return None
            self._to = to
            self._due = now + REASSEMBLY_SECONDS
        self.position = position
        self._octets += payload
        if not fragment & _END:
            return None
        whole = bytes(self._octets)
        self._reset()
        return _WHOLE + to, whole

    def abandon(self) -> None:
        """Give up what has come of a sequence."""
        self.abandoned += self.position
        self._reset()

    def _reset(self) -> None:
        self.position = 0
        self._to = b""
        self._octets = bytearray()
