"""The bench that a case works at: the server, our addresses, and what closes behind it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from socksd.address import IPAddress, unmapped
from socksd.conformance.case import Failed, Inconclusive, NotOffered, Skipped
from socksd.conformance.sockets import Datagrams, Listener, Stream, Transcript
from socksd.errors import SocksdError

# Written as octets here, and not by socksd.wire, so that one mistake is not made twice.
NONE, LOGIN, NO_ACCEPTABLE = 0x00, 0x02, 0xFF
CONNECT, BIND, ASSOCIATE = 0x01, 0x02, 0x03
SUCCEEDED, REFUSED, NO_SUCH_COMMAND, NO_SUCH_TYPE = 0x00, 0x05, 0x07, 0x08
UNREACHED = (0x01, 0x03, 0x04)  # what fits a name that does not exist

LOCALHOST = b"localhost"


class CannotRun(SocksdError):
    """There is no server to test, or it serves us nothing."""


@dataclass(frozen=True, slots=True)
class Pace:
    """
    How long to wait for what, in seconds.

    Attributes:
        patience: For what has to come.
        lookup: For what may need a name server, or a connection attempt of the server's.
        closing: For the end after a failure reply; RFC 1928 section 6 allows 10.
        quiet: For what must not come.
        pause: Between two segments, so that they are read one by one.
        silence: Until a silent client is cut, and a connection attempt given up.
    """

    patience: float = 5.0
    lookup: float = 30.0
    closing: float = 10.0
    quiet: float = 0.4
    pause: float = 0.02
    silence: float = 180.0


@dataclass(frozen=True, slots=True)
class Server:
    """
    The server under test, and where we stand to it.

    Attributes:
        credentials: User name and password that are right.
        method: What it chooses among the methods that we have to offer.
        ipv4: Our address as the server can reach it; targets listen there.
        ipv6: The same, or ``None`` where this host has no IPv6.
    """

    address: IPAddress
    port: int
    ipv4: IPv4Address
    ipv6: IPv6Address | None
    credentials: tuple[bytes, bytes] | None = None
    method: int = NONE

    @property
    def is_here(self) -> bool:
        """Whether server and targets share a loopback, with all of its names and addresses."""
        return self.address.is_loopback


class Reply(NamedTuple):
    """What RFC 1928 section 6 calls REP, BND.ADDR and BND.PORT."""

    code: int
    address: IPAddress | bytes  # octets of a DOMAINNAME
    port: int


class Bench(ExitStack):
    """
    All that one case needs; what it opens is closed with it.

    Cases script both ends in one thread: the client here, and the target that
    the server connects to there.
    """

    def __init__(self, server: Server, pace: Pace) -> None:
        super().__init__()
        self.server = server
        self.pace = pace
        self.transcript = Transcript()

    @property
    def here(self) -> IPAddress:
        """Our address by the family that the server is reached by."""
        if self.server.address.version == 4 or self.server.ipv6 is None:
            return self.server.ipv4
        return self.server.ipv6

    # -- our sockets ---------------------------------------------------------

    def dial(self) -> Stream:
        """
        Connect to the server.

        Raises:
            Failed: It does not accept any more.
        """
        where = (str(self.server.address), self.server.port)
        try:
            sock = socket.create_connection(where, self.pace.patience)
        except OSError as error:
            raise Failed(f"no connection to the server: {error}") from None
        return self.keep(Stream(sock, "client", self.transcript, self.pace.patience))

    def listen(self, *addresses: IPAddress) -> Listener:
        """Open a target on one port of *addresses*, which are ours by IPv4 if none is given."""
        addresses = addresses or (self.server.ipv4,)
        listener = Listener(addresses, self.transcript, self.pace.patience)
        self.enter_context(closing(listener))
        return listener

    def accept(self, listener: Listener, name: str = "target") -> Stream:
        """
        Take the connection that the server has made.

        Raises:
            Failed: None comes.
        """
        return self.keep(listener.accept(name))

    def datagrams(self, name: str, address: IPAddress | None = None, port: int = 0) -> Datagrams:
        """Open a UDP socket, by IPv4 unless another *address* of ours is given."""
        where = (address or self.server.ipv4, port)
        sock = Datagrams(where, name, self.transcript, self.pace.patience)
        self.enter_context(closing(sock))
        return sock

    def keep(self, stream: Stream) -> Stream:
        """Close *stream* with the case."""
        self.enter_context(closing(stream))
        return stream

    # -- what a case needs, or does without --------------------------------

    def ipv6(self) -> IPv6Address:
        """
        Give our IPv6 address.

        Raises:
            NotOffered: There is none.
        """
        if self.server.ipv6 is None:
            raise NotOffered("this host has no IPv6 address that the server could reach")
        return self.server.ipv6

    def named(self) -> Listener:
        """
        Open a target that ``localhost`` leads to, by IPv4 and by IPv6 where there is any.

        Raises:
            Skipped: The server is elsewhere, and the name would lead to itself.
        """
        if not self.server.is_here:
            raise Skipped("needs a server on this host, where localhost is the target")
        here = self.server.ipv6
        return self.listen(self.server.ipv4, *([here] if here else []))

    def stranger(self) -> IPv4Address:
        """
        Give an address that is not the client's, but as good as another host.

        Raises:
            Skipped: We have none.
        """
        if not self.server.is_here or self.server.address.version == 6:
            raise Skipped("needs a server on this host by IPv4, for a second address to use")
        return IPv4Address("127.0.0.2")

    def credentials(self) -> tuple[bytes, bytes]:
        """
        Give a user name and a password that are right.

        Raises:
            Skipped: We have none.
            NotOffered: The server does not ask for any.
        """
        if self.server.credentials is None:
            raise Skipped("needs --user and --pass")
        if self.server.method != LOGIN:
            raise NotOffered("the server selects FF where only a login is offered")
        return self.server.credentials

    # -- the handshake -------------------------------------------------------

    def hello(self) -> list[tuple[bytes, bytes]]:
        """Give what comes before the request: messages of ours, and the answers that are due."""
        greeting = (bytes([5, 1, self.server.method]), bytes([5, self.server.method]))
        if self.server.method == NONE:
            return [greeting]
        return [greeting, (login(*self.credentials()), b"\x01\x00")]

    def greeted(self) -> Stream:
        """
        Connect, and be ready to send a request.

        Raises:
            Failed: The server does not let us.
        """
        client = self.dial()
        for message, answer in self.hello():
            client.send(message)
            client.expect(answer, "METHOD" if answer[0] == 5 else "STATUS")
        return client

    def asked(self, octets: bytes, seconds: float | None = None) -> tuple[Stream, Reply]:
        """Send a request on a new connection, and take the reply."""
        client = self.greeted()
        client.send(octets)
        return client, take_reply(client, seconds)

    def connected(
        self, listener: Listener | None = None, octets: bytes = b""
    ) -> tuple[Stream, Stream, Reply]:
        """
        Open a tunnel to a target, by IPv4 unless *octets* is another request.

        Raises:
            Failed: There is none.
        """
        listener = listener or self.listen()
        client, reply = self.asked(octets or connect(listener), self.pace.lookup)
        succeeded(reply)
        return client, self.accept(listener), reply


def login(user: bytes, password: bytes) -> bytes:
    """RFC 1929 section 2."""
    return b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password


def address(host: IPAddress | bytes, port: int) -> bytes:
    """ATYP, an address or a name, and a port (RFC 1928 section 5)."""
    if isinstance(host, bytes):
        kind, octets = b"\x03", bytes([len(host)]) + host
    else:
        kind, octets = (b"\x01" if host.version == 4 else b"\x04"), host.packed
    return kind + octets + port.to_bytes(2, "big")


def request(command: int, host: IPAddress | bytes, port: int) -> bytes:
    """RFC 1928 section 4."""
    return bytes([5, command, 0]) + address(host, port)


def connect(listener: Listener) -> bytes:
    """Ask for a connection to a target, by its address."""
    return request(CONNECT, listener.address, listener.port)


def take_reply(client: Stream, seconds: float | None = None) -> Reply:
    """
    Take one reply.

    Raises:
        Failed: None comes, or it is not in the form of RFC 1928 section 6.
    """
    head = client.take(4, "reply", seconds)
    if head[0] != 5:
        raise Failed(f"VER of the reply is {head[0]:02x}, not 05")
    if head[2] != 0:
        raise Failed(f"RSV of the reply is {head[2]:02x}, not 00")
    if head[3] not in (1, 3, 4):
        raise Failed(f"ATYP of the reply is {head[3]:02x}")
    what = "BND.ADDR and BND.PORT"
    count = client.take(1, what)[0] if head[3] == 3 else {1: 4, 4: 16}[head[3]]
    octets = client.take(count + 2, what)
    bound, port = octets[:-2], int.from_bytes(octets[-2:], "big")
    return Reply(head[1], bound if head[3] == 3 else ip_address(bound), port)


def succeeded(reply: Reply) -> Reply:
    """
    Give the reply of a success.

    Raises:
        Failed: It is not one.
        NotOffered: The server has no such command, or no such type of address.
    """
    if reply.code == NO_SUCH_COMMAND:
        raise NotOffered("the server answers 07, Command not supported")
    if reply.code == NO_SUCH_TYPE:
        raise NotOffered("the server answers 08, Address type not supported")
    if reply.code != SUCCEEDED:
        raise Failed(f"REP is {reply.code:02x}, not 00")
    return reply


def survey(host: str, port: int, credentials: tuple[bytes, bytes] | None, pace: Pace) -> Server:
    """
    Find out how the server can be used, and that it can be.

    Raises:
        CannotRun: There is none, it wants a login that we do not have, or it
            does not connect to the address where our targets are.
    """
    try:
        with socket.create_connection((host, port), pace.patience) as sock:
            address = unmapped(ip_address(sock.getpeername()[0].partition("%")[0]))
    except OSError as error:
        raise CannotRun(f"no connection to {host} port {port}: {error}") from error
    known = Server(address, port, *_ours(address), credentials)
    # A login first, if we have one: a server may well prefer to do without.
    methods = [NONE] if credentials is None else [LOGIN, NONE]
    try:
        method = next((m for m in methods if _selects(known, m, pace)), None)
        if method is None:
            advice = "it may want a login: give --user and --pass" if credentials is None else ""
            raise CannotRun(f"{host} port {port} accepts none of our methods; {advice}".strip("; "))
        server = replace(known, method=method)
        with Bench(server, pace) as bench:
            bench.connected()
    except Inconclusive as error:
        where = f"{known.ipv4}, where the targets would be,"
        raise CannotRun(f"a plain CONNECT to {where} comes to nothing: {error}") from error
    return server


def _selects(server: Server, method: int, pace: Pace) -> bool:
    with Bench(server, pace) as bench:
        client = bench.dial()
        client.send(bytes([5, 1, method]))
        return client.take(2, "METHOD selection") == bytes([5, method])


def _ours(server: IPAddress) -> tuple[IPv4Address, IPv6Address | None]:
    """Give our addresses as the server can reach them."""
    there: Sequence[str] = ("127.0.0.1", "::1")
    if not server.is_loopback:  # any address far away will do for the other family
        there = (str(server), "2001:db8::1") if server.version == 4 else ("192.0.2.1", str(server))
    ipv4, ipv6 = (_facing(ip_address(text)) for text in there)
    return IPv4Address(ipv4 or "127.0.0.1"), ipv6 if isinstance(ipv6, IPv6Address) else None


def _facing(there: IPAddress) -> IPAddress | None:
    """Give the address that datagrams to *there* would leave from; nothing is sent."""
    family = socket.AF_INET6 if there.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((str(there), 9))
            return ip_address(sock.getsockname()[0].partition("%")[0])
    except OSError:
        return None
