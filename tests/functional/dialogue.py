"""
A SOCKS5 client in a few lines, octet by octet.

It shares no code with socksd.wire, so that one mistake is not made twice.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

SECONDS = 20.0  # for any one step

GREETING = b"\x05\x01\x00"
LOGIN_GREETING = b"\x05\x01\x02"


class Refused(Exception):
    """The gateway has answered something else than success."""

    def __init__(self, answer: int) -> None:
        super().__init__(f"{answer:#04x}")
        self.answer = answer  # REP, STATUS or METHOD


def request(host: str | bytes, port: int, command: int = 1) -> bytes:
    """Spell a request: octets as DOMAINNAME, text as an address where it is one."""
    if isinstance(host, str):
        try:
            packed = ip_address(host).packed
        except ValueError:
            host = host.encode()
        else:
            atyp = 1 if len(packed) == 4 else 4
            return struct.pack("!BBBB", 5, command, 0, atyp) + packed + struct.pack("!H", port)
    return struct.pack("!BBBBB", 5, command, 0, 3, len(host)) + host + struct.pack("!H", port)


def login(user: str, password: str) -> bytes:
    """Spell the request of RFC 1929."""
    u, p = user.encode(), password.encode()
    return b"\x01" + bytes([len(u)]) + u + bytes([len(p)]) + p


def dial(port: int, source: str = "127.0.0.1") -> socket.socket:
    """Connect to the gateway, from any address of the loopback."""
    return socket.create_connection(("127.0.0.1", port), SECONDS, (source, 0))


def take(sock: socket.socket, count: int) -> bytes:
    """Read exactly *count* octets."""
    octets = b""
    while len(octets) < count:
        more = sock.recv(count - len(octets))
        if not more:
            raise EOFError(f"the end after {octets!r}")
        octets += more
    return octets


def take_all(sock: socket.socket) -> bytes:
    """Read up to FIN."""
    octets = bytearray()
    while more := sock.recv(65536):
        octets += more
    return bytes(octets)


def take_reply(sock: socket.socket) -> int:
    """Read a reply and give its REP."""
    _, rep, _, atyp = take(sock, 4)
    take(sock, {1: 6, 4: 18}[atyp])
    return rep


def tunnel(
    port: int,
    host: str | bytes,
    to_port: int,
    credentials: tuple[str, str] | None = None,
    source: str = "127.0.0.1",
) -> socket.socket:
    """
    Open a tunnel through the gateway at *port*.

    Raises:
        Refused: At the method, the login or the request.
    """
    sock = dial(port, source)
    try:
        sock.sendall(LOGIN_GREETING if credentials else GREETING)
        method = take(sock, 2)[1]
        if method != (2 if credentials else 0):
            raise Refused(method)
        if credentials:
            sock.sendall(login(*credentials))
            status = take(sock, 2)[1]
            if status:
                raise Refused(status)
        sock.sendall(request(host, to_port))
        rep = take_reply(sock)
        if rep:
            raise Refused(rep)
    except BaseException:
        sock.close()
        raise
    return sock


def answer(port: int, host: str | bytes, to_port: int) -> int:
    """Give the REP of a CONNECT, and hang up."""
    try:
        tunnel(port, host, to_port).close()
    except Refused as refused:
        return refused.answer
    return 0


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
