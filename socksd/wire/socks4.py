"""
The messages of SOCKS4 and of its extension 4A, as values.

Neither has an RFC: "SOCKS: A protocol for TCP proxy across firewalls" and
"SOCKS 4A: A Simple Extension to SOCKS 4 Protocol", both by Ying-Da Lee. As in
:mod:`socksd.wire.socks5` each message owns its framing.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Self

from socksd.address import Destination, Host, ipv4
from socksd.codes import Command, ReplyCode
from socksd.errors import ProtocolError
from socksd.frozen import value
from socksd.wire import socks5

VERSION = 4  # VN of a request

# Octets of USERID and of a name. SOCKS4 has no bounds; these are what RFC 1929
# has for a user name and RFC 1928 for a DOMAINNAME.
LONGEST = 255

_COMMANDS = {1: Command.CONNECT, 2: Command.BIND}
_GRANTED = 90
# Rejected or failed; for want of identd; identd names another user. We ask no
# identd, so that the last two are never ours to send.
_REJECTED = (91, 92, 93)


@value
class Request(socks5.Request):
    """
    What the client wants done, and where; and who it says it is.

    ``VN(1) CD(1) DSTPORT(2) DSTIP(4) USERID(0..255) NUL`` and, where DSTIP is
    0.0.0.x and x is not 0 (4A), ``NAME(1..255) NUL``.
    """

    userid: bytes  # any octets but NUL; nobody verifies them

    @classmethod
    def take(cls, buffer: bytearray) -> Self | None:
        """
        Take one request.

        Raises:
            ProtocolError: VN is not 4 or CD is unknown; USERID or the name
                does not end within 255 octets, or the name cannot be a host.
                Where VN is 4, always with a reply to send.
        """
        if buffer and buffer[0] != VERSION:
            raise ProtocolError(f"VN is {buffer[0]:#04x}, not {VERSION:#04x}")
        if len(buffer) < 2:
            return None
        command = _COMMANDS.get(buffer[1])
        if command is None:
            raise ProtocolError(
                f"CD is {buffer[1]:#04x}, which SOCKS4 does not know",
                ReplyCode.COMMAND_NOT_SUPPORTED,
            )
        userid_end = _end(buffer, 8, "USERID")
        if userid_end is None:
            return None
        end = userid_end
        address = ipv4(bytes(buffer[4:8]))
        host: Host = address
        if _announces_name(address):
            name_end = _end(buffer, userid_end + 1, "the name")
            if name_end is None:
                return None
            host = socks5.named_host(bytes(buffer[userid_end + 1 : name_end]))
            end = name_end
        destination = Destination(host, int.from_bytes(buffer[2:4], "big"))
        userid = bytes(buffer[8:userid_end])
        del buffer[: end + 1]
        return cls(command, destination, userid)

    def encode(self) -> bytes:
        """
        Give its octets.

        Raises:
            ValueError: USERID has a NUL or more than 255 octets, or SOCKS4
                has no such command.
        """
        if 0 in self.userid or len(self.userid) > LONGEST:
            raise ValueError(f"USERID cannot be {len(self.userid)} octets, or has a NUL")
        if self.command not in _COMMANDS.values():
            raise ValueError(f"SOCKS4 has no {self.command.name}")
        host = self.destination.host
        head = bytes((VERSION, self.command)) + self.destination.port.to_bytes(2, "big")
        if isinstance(host, IPv4Address) and not _announces_name(host):
            return head + host.packed + self.userid + b"\0"
        return head + b"\0\0\0\1" + self.userid + b"\0" + str(host).encode("ascii") + b"\0"


@value
class Reply:
    """
    How the request ended, and the address bound for it.

    ``VN(1) CD(1) DSTPORT(2) DSTIP(4)``, where VN is 0.
    """

    granted: bool
    bound: Destination  # any but an IPv4 address is sent as 0.0.0.0, which is "the server's"

    @classmethod
    def take(cls, buffer: bytearray) -> Self | None:
        """
        Take one reply.

        Raises:
            ProtocolError: VN is not 0, or CD is unknown.
        """
        if buffer and buffer[0] != 0:
            raise ProtocolError(f"VN of the reply is {buffer[0]:#04x}, not 0x00")
        if len(buffer) < 2:
            return None
        code = buffer[1]
        if code != _GRANTED and code not in _REJECTED:
            raise ProtocolError(f"CD of the reply is {code}, which SOCKS4 does not know")
        if len(buffer) < 8:
            return None
        port, address = int.from_bytes(buffer[2:4], "big"), ipv4(bytes(buffer[4:8]))
        del buffer[:8]
        return cls(code == _GRANTED, Destination(address, port))

    def encode(self) -> bytes:
        """Give its octets."""
        code = _GRANTED if self.granted else _REJECTED[0]
        host = self.bound.host
        address = host.packed if isinstance(host, IPv4Address) else bytes(4)
        return bytes((0, code)) + self.bound.port.to_bytes(2, "big") + address


def _announces_name(address: IPv4Address) -> bool:
    """Say whether a name follows USERID (4A): 0.0.0.x, and x is not 0."""
    return 0 < int(address) < 256


def _end(buffer: bytearray, start: int, what: str) -> int | None:
    """
    Find the NUL that ends a field; ``None`` while it has not arrived.

    Raises:
        ProtocolError: There is none where the longest field would end.
    """
    end = buffer.find(0, start, start + LONGEST + 1)
    if end >= 0:
        return end
    if len(buffer) > start + LONGEST:
        raise ProtocolError(f"{what} of more than {LONGEST} octets", ReplyCode.GENERAL_FAILURE)
    return None
