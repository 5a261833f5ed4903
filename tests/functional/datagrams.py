"""A client of UDP ASSOCIATE, octet by octet; no code of socksd.wire in it, either."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from tests.functional.dialogue import GREETING, SECONDS, Refused, dial, request, take

UDP_ASSOCIATE = 3


def header(host: str | bytes, port: int, fragment: int = 0) -> bytes:
    """Spell what goes before a payload: octets as DOMAINNAME, text as an address."""
    return struct.pack("!HB", 0, fragment) + request(host, port)[3:]


class Association:
    """An association with the gateway at *port*, and the client's own socket."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self.control = dial(port, source)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.settimeout(SECONDS)
        try:
            self.sock.bind((source, 0))
            self.control.sendall(GREETING + request("0.0.0.0", 0, UDP_ASSOCIATE))
            assert take(self.control, 2) == b"\x05\x00"
            _, rep, _, kind = take(self.control, 4)
            if rep:
                raise Refused(rep)
            self.relay = (
                str(ip_address(take(self.control, {1: 4, 4: 16}[kind]))),
                int.from_bytes(take(self.control, 2), "big"),
            )
        except BaseException:
            self.close()
            raise

    def send(self, host: str | bytes, port: int, payload: bytes, fragment: int = 0) -> None:
        """Send one datagram, or a fragment of one."""
        self.sock.sendto(header(host, port, fragment) + payload, self.relay)

    def take(self) -> tuple[str, int, bytes]:
        """Take one answer: where it comes from, and its payload."""
        octets, source = self.sock.recvfrom(65536)
        assert source == self.relay
        assert octets[:3] == b"\x00\x00\x00"
        end = 4 + {1: 4, 4: 16}[octets[3]]
        host = str(ip_address(octets[4:end]))
        return host, int.from_bytes(octets[end : end + 2], "big"), octets[end + 2 :]

    def ask(self, host: str | bytes, port: int, payload: bytes) -> bytes:
        """Send one datagram, and give the payload that answers it."""
        self.send(host, port, payload)
        return self.take()[2]

    def close(self) -> None:
        self.control.close()
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
