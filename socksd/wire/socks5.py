"""
The messages of RFC 1928 (over TCP) and of RFC 1929, as values.

Each owns its framing. ``take`` takes one message off the front of a buffer: it
shortens the buffer only when the message is whole, so a ``None`` leaves all as
it was, and it raises ProtocolError at the octet that settles that no message
can come of it, whatever else has arrived. ``encode`` is the way back.
"""

from __future__ import annotations

from dataclasses import field
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from socksd.address import Destination, Host, ipv4, normal_host, unmapped
from socksd.codes import VERSION, AddressType, Command, Method, ReplyCode
from socksd.errors import AddressError, ProtocolError
from socksd.frozen import value
from socksd.wire.guess import wrong_version

LOGIN_VERSION = 1  # VER of the sub-negotiation, RFC 1929 section 2
UNSPECIFIED = Destination(IPv4Address(0), 0)  # where BND has nothing to tell

_IPV4 = bytes((AddressType.IPV4,))

# What most clients say, whole and at once, is not taken apart octet by octet.
_USUAL_METHODS = bytes((Method.NO_AUTHENTICATION,))
_USUAL_GREETING = bytes((VERSION, 1)) + _USUAL_METHODS
_CONNECT_TO_IPV4 = bytes((VERSION, Command.CONNECT, 0, AddressType.IPV4))

_LENGTHS: dict[int, int] = {AddressType.IPV4: 4, AddressType.IPV6: 16}


def read_destination(octets: bytes | bytearray, start: int) -> tuple[Destination, int] | None:
    """
    Read ``ATYP(1) ADDR(variable) PORT(2)`` (RFC 1928 section 5) at *start*.

    Returns:
        The destination in its normal form and the index behind it, or
        ``None`` while it is incomplete.

    Raises:
        ProtocolError: ATYP is unknown, or the name is empty, not UTF-8 or
            without a normal form; with the reply that a request is due.
    """
    if len(octets) <= start:
        return None
    kind = octets[start]
    begin = start + 1
    length = _LENGTHS.get(kind)
    if length is None:
        if kind != AddressType.DOMAINNAME:
            raise ProtocolError(
                f"ATYP is {kind:#04x}, which RFC 1928 does not know",
                ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED,
            )
        if len(octets) == begin:
            return None
        length = octets[begin]
        if length == 0:
            raise ProtocolError("a DOMAINNAME of length 0", ReplyCode.HOST_UNREACHABLE)
        begin += 1
    end = begin + length
    if len(octets) < end:
        return None
    host = _host(kind, bytes(octets[begin:end]))  # before the port: a bad name is bad by now
    if len(octets) < end + 2:
        return None
    return Destination(host, int.from_bytes(octets[end : end + 2], "big")), end + 2


def write_destination(destination: Destination) -> bytes:
    """Give ``ATYP(1) ADDR(variable) PORT(2)``, the way back of read_destination."""
    host = destination.host
    port = destination.port.to_bytes(2, "big")
    if isinstance(host, IPv4Address):
        return _IPV4 + host.packed + port
    if isinstance(host, IPv6Address):
        return bytes((AddressType.IPV6,)) + host.packed + port
    return bytes((AddressType.DOMAINNAME,)) + _counted(host.encode("ascii")) + port


@value
class Greeting:
    """
    The client's version identifier and method selection message.

    RFC 1928 section 3: ``VER(1) NMETHODS(1) METHODS(1..255)``.
    """

    methods: bytes  # offered method numbers, in the client's order; others than Method's too

    @classmethod
    def take(cls, buffer: bytearray) -> Self | None:
        """
        Take one greeting.

        Raises:
            ProtocolError: VER is not 5 (the error then has an answer, where
                the first octet tells what the peer speaks), or NMETHODS is 0.
        """
        if buffer == _USUAL_GREETING:
            buffer.clear()
            return cls(_USUAL_METHODS)
        if buffer and buffer[0] != VERSION:
            raise wrong_version(buffer[0])
        if len(buffer) < 2:
            return None
        end = 2 + buffer[1]
        if end == 2:
            raise ProtocolError("NMETHODS is 0")
        if len(buffer) < end:
            return None
        methods = bytes(buffer[2:end])
        del buffer[:end]
        return cls(methods)

    def encode(self) -> bytes:
        """Give its octets."""
        return bytes((VERSION,)) + _counted(self.methods)


@value
class MethodSelection:
    """
    The server's choice among the methods offered.

    RFC 1928 section 3: ``VER(1) METHOD(1)``.
    """

    method: Method

    @classmethod
    def take(cls, buffer: bytearray) -> Self | None:
        """
        Take one selection.

        Raises:
            ProtocolError: VER is not 5, or METHOD is a number we have no name for.
        """
        _expect(buffer, 0, VERSION, "VER")
        if len(buffer) < 2:
            return None
        try:
            method = Method(buffer[1])
        except ValueError:
            raise ProtocolError(f"METHOD is {buffer[1]:#04x}, which we never offer") from None
        del buffer[:2]
        return cls(method)

    def encode(self) -> bytes:
        """Give its octets."""
        return bytes((VERSION, self.method))


@value
class UsernamePassword:
    """
    The client's user name and password, any octets.

    RFC 1929 section 2: ``VER(1) ULEN(1) UNAME(1..255) PLEN(1) PASSWD(1..255)``.
    Either may be empty here, against the letter: Java sends PLEN 0 when it has
    no password, and that is a login that fails, not a broken protocol.
    """

    username: bytes
    password: bytes = field(repr=False)

    @classmethod
    def take(cls, buffer: bytearray) -> Self | None:
        """
        Take one login.

        Raises:
            ProtocolError: VER is not 1.
        """
        _expect(buffer, 0, LOGIN_VERSION, "VER of the login")
        if len(buffer) < 2:
            return None
        username_end = 2 + buffer[1]
        if len(buffer) <= username_end:
            return None
        password_end = username_end + 1 + buffer[username_end]
        if len(buffer) < password_end:
            return None
        username = bytes(buffer[2:username_end])
        password = bytes(buffer[username_end + 1 : password_end])
        del buffer[:password_end]
        return cls(username, password)

    def encode(self) -> bytes:
        """
        Give its octets.

        Raises:
            ValueError: A field is longer than 255 octets.
        """
        return bytes((LOGIN_VERSION,)) + _counted(self.username) + _counted(self.password)


@value
class Status:
    """
    The server's answer to a login.

    RFC 1929 section 2: ``VER(1) STATUS(1)``; 0 is success, all else is failure
    (0x01 when it is ours).
    """

    ok: bool

    @classmethod
    def take(cls, buffer: bytearray) -> Self | None:
        """
        Take one status.

        Raises:
            ProtocolError: VER is not 1.
        """
        _expect(buffer, 0, LOGIN_VERSION, "VER of the status")
        if len(buffer) < 2:
            return None
        ok = buffer[1] == 0
        del buffer[:2]
        return cls(ok)

    def encode(self) -> bytes:
        """Give its octets."""
        return bytes((LOGIN_VERSION, 0x00 if self.ok else 0x01))


@value
class Request:
    """
    What the client wants done, and where.

    RFC 1928 section 4: ``VER(1) CMD(1) RSV(1) ATYP(1) DST.ADDR(variable) DST.PORT(2)``.
    """

    command: Command
    destination: Destination

    @classmethod
    def take(cls, buffer: bytearray) -> Self | None:
        """
        Take one request.

        Raises:
            ProtocolError: VER is not 5, RSV is not 0, CMD or ATYP is unknown,
                or DST.ADDR cannot be a host. Always with a reply to send.
        """
        if len(buffer) >= 10 and buffer.startswith(_CONNECT_TO_IPV4):
            host, port = ipv4(bytes(buffer[4:8])), buffer[8] << 8 | buffer[9]
            del buffer[:10]
            return cls(Command.CONNECT, Destination(host, port))
        _expect(buffer, 0, VERSION, "VER of the request", ReplyCode.GENERAL_FAILURE)
        if len(buffer) < 2:
            return None
        try:
            command = Command(buffer[1])
        except ValueError:
            raise ProtocolError(
                f"CMD is {buffer[1]:#04x}, which RFC 1928 does not know",
                ReplyCode.COMMAND_NOT_SUPPORTED,
            ) from None
        _expect(buffer, 2, 0, "RSV of the request", ReplyCode.GENERAL_FAILURE)
        found = read_destination(buffer, 3)
        if found is None:
            return None
        destination, end = found
        del buffer[:end]
        return cls(command, destination)

    def encode(self) -> bytes:
        """Give its octets."""
        return bytes((VERSION, self.command, 0)) + write_destination(self.destination)


@value
class Reply:
    """
    How the request ended, and the address bound for it.

    RFC 1928 section 6: ``VER(1) REP(1) RSV(1) ATYP(1) BND.ADDR(variable) BND.PORT(2)``.
    """

    code: ReplyCode
    bound: Destination

    @classmethod
    def take(cls, buffer: bytearray) -> Self | None:
        """
        Take one reply.

        Raises:
            ProtocolError: VER is not 5, RSV is not 0, REP or ATYP is unknown,
                or BND.ADDR cannot be a host. Never with a reply: there is no
                answering a reply.
        """
        _expect(buffer, 0, VERSION, "VER of the reply")
        if len(buffer) < 2:
            return None
        try:
            code = ReplyCode(buffer[1])
        except ValueError:
            raise ProtocolError(f"REP is {buffer[1]:#04x}, which is unassigned") from None
        _expect(buffer, 2, 0, "RSV of the reply")
        try:
            found = read_destination(buffer, 3)
        except ProtocolError as error:
            raise ProtocolError(f"in BND.ADDR: {error}") from error
        if found is None:
            return None
        bound, end = found
        del buffer[:end]
        return cls(code, bound)

    def encode(self) -> bytes:
        """Give its octets."""
        return bytes((VERSION, self.code, 0)) + write_destination(self.bound)


def named_host(octets: bytes) -> Host:
    """
    Give the host that a DOMAINNAME stands for.

    Raises:
        ProtocolError: It is not UTF-8, or has no normal form; with a reply.
    """
    # HOST_UNREACHABLE rather than GENERAL_FAILURE: no such host can be found.
    try:
        return normal_host(octets.decode("utf-8"))
    except UnicodeDecodeError:
        raise ProtocolError(
            f"a DOMAINNAME that is not UTF-8: {octets!r}", ReplyCode.HOST_UNREACHABLE
        ) from None
    except AddressError as error:
        raise ProtocolError(f"DOMAINNAME: {error}", ReplyCode.HOST_UNREACHABLE) from error


def _host(kind: int, octets: bytes) -> Host:
    if kind == AddressType.IPV4:
        return ipv4(octets)
    if kind == AddressType.IPV6:
        return unmapped(IPv6Address(octets))
    return named_host(octets)


def _counted(octets: bytes) -> bytes:
    """Put the length in front, in one octet; ValueError where it does not fit."""
    return bytes((len(octets),)) + octets


def _expect(
    buffer: bytearray, index: int, value: int, name: str, reply: ReplyCode | None = None
) -> None:
    """Raise if the octet at *index* has arrived and is not *value*."""
    if len(buffer) > index and buffer[index] != value:
        raise ProtocolError(f"{name} is {buffer[index]:#04x}, not {value:#04x}", reply)
