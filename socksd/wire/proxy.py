"""
The PROXY protocol, versions 1 and 2: whom a balancer has connected for.

"The PROXY protocol, versions 1 & 2" by Willy Tarreau (HAProxy's
doc/proxy-protocol.txt, 2020/03/05); sections below are its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from socksd.address import IPAddress, unmapped
from socksd.errors import ProtocolError

_V1 = b"PROXY "
_UNKNOWN = b"PROXY UNKNOWN "
# "If the CRLF sequence is not found in the first 107 characters, the receiver
# should declare the line invalid" (2.1).
_V1_LONGEST = 107
_V1_LINE = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ([0-9]+) ([0-9]+)")
# "Heading zeroes are not permitted in front of numbers" (2.1).
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")

_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD = 16  # signature, version and command, family and protocol, length
_LOCAL, _PROXY = 0x20, 0x21  # version 2 and the command
# Section 2.2: the octets that addresses and ports take, by family and protocol.
# "Other values are unspecified and must not be emitted in version 2 of this
# protocol and must be rejected as invalid by receivers."
_ADDRESSES = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
_TCP4, _TCP6 = 0x11, 0x21
# The format allows 64 KiB of addresses and TLVs. HAProxy's largest, with a
# client certificate in one of them, is some 4 KiB.
_V2_MOST = 8192


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """
    What a balancer says before it relays the first octet.

    Attributes:
        client: Who connected to the balancer, never IPv4-mapped. ``None``
            where it does not say, and the connection is to be taken as the
            balancer's own: LOCAL, as of its health checks, UNKNOWN and
            UNSPEC. "A receiver [...] automatically falls back to the UNSPEC
            mode for the valid combinations [...] that it does not support"
            (2.2): unix sockets, which are those of a host that is not ours,
            and datagrams.
        port: The client's; 0 without one.
    """

    client: IPAddress | None = None
    port: int = 0

    @classmethod
    def take(cls, buffer: bytearray) -> ProxyHeader | None:
        """
        Take one header, of either version, off the front of *buffer*.

        What version 2 has behind the addresses (TLVs) is skipped.

        Args:
            buffer: Unparsed octets; shortened only when a whole header is
                there, so a ``None`` leaves it as it was.

        Returns:
            The header, or ``None`` while it is incomplete.

        Raises:
            ProtocolError: It is none, or has what its version must not have.
        """
        if _V2.startswith(buffer[: len(_V2)]):
            return cls._take_binary(buffer)
        if _V1.startswith(buffer[: len(_V1)]):
            return cls._take_line(buffer)
        raise ProtocolError("not a PROXY header")

    @classmethod
    def _take_line(cls, buffer: bytearray) -> ProxyHeader | None:
        """Version 1, section 2.1: ``PROXY TCP4 source destination port port CRLF``."""
        end = buffer.find(b"\r\n", 0, _V1_LONGEST)
        if end < 0:
            if len(buffer) >= _V1_LONGEST:
                raise ProtocolError(f"a PROXY line without an end in {_V1_LONGEST} octets")
            return None
        line = bytes(buffer[:end])
        # "The receiver must ignore anything presented before the CRLF" of UNKNOWN.
        header = cls() if (line + b" ").startswith(_UNKNOWN) else cls._of_line(line)
        del buffer[: end + 2]
        return header

    @classmethod
    def _of_line(cls, line: bytes) -> ProxyHeader:
        found = _V1_LINE.fullmatch(line)
        if found is None:
            raise ProtocolError("a PROXY line of another form")
        kind = IPv4Address if found[1] == b"4" else IPv6Address
        try:
            source, _ = kind(found[2].decode()), kind(found[3].decode())
        except AddressValueError:
            raise ProtocolError("a PROXY line with what is no address of its family") from None
        if not all(_PORT.fullmatch(port) and int(port) < 65536 for port in (found[4], found[5])):
            raise ProtocolError("a PROXY line with what is no port")
        return cls(unmapped(source), int(found[4]))

    @classmethod
    def _take_binary(cls, buffer: bytearray) -> ProxyHeader | None:
        """Version 2, section 2.2: signature(12) VER|CMD(1) FAM|PROTO(1) LEN(2) LEN octets."""
        if len(buffer) > 12 and buffer[12] not in (_LOCAL, _PROXY):
            raise ProtocolError(f"version and command of a PROXY header are {buffer[12]:#04x}")
        if len(buffer) < _V2_HEAD:
            return None
        local, family = buffer[12] == _LOCAL, buffer[13]
        end = _V2_HEAD + int.from_bytes(buffer[14:16], "big")
        if end > _V2_MOST:
            raise ProtocolError(f"a PROXY header of {end} octets; {_V2_MOST} are the most")
        # "The receiver must [...] discard the protocol block including the family" of LOCAL.
        if not local:
            if family not in _ADDRESSES:
                raise ProtocolError(f"family and protocol of a PROXY header are {family:#04x}")
            if end < _V2_HEAD + _ADDRESSES[family]:
                raise ProtocolError("a PROXY header too short for its addresses")
        if len(buffer) < end:
            return None
        block = bytes(buffer[_V2_HEAD:end])
        del buffer[:end]
        if not local and family == _TCP4:
            return cls(IPv4Address(block[:4]), int.from_bytes(block[8:10], "big"))
        if not local and family == _TCP6:
            return cls(unmapped(IPv6Address(block[:16])), int.from_bytes(block[32:34], "big"))
        return cls()
