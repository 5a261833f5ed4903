"""
The two ends of a case, as blocking sockets that remember what was said.

Each read has a deadline, and names what it waited for when that passes.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence
from enum import Enum

from socksd.address import IPAddress
from socksd.conformance.case import Failed

SHOWN = 32  # octets of one message in a transcript


class Ending(Enum):
    """How the far side has left, if it has."""

    FIN = "FIN"
    RESET = "RST"
    NONE = "still open"


class Transcript:
    """What was sent and seen, in order, with runs from the same side joined."""

    def __init__(self) -> None:
        self._said: list[tuple[str, bytearray]] = []

    def octets(self, who: str, octets: bytes | bytearray) -> None:
        """Add octets; *who* names the socket and the direction."""
        if self._said and self._said[-1][0] == who:
            self._said[-1][1].extend(octets)
        else:
            self._said.append((who, bytearray(octets)))

    def event(self, who: str, what: str) -> None:
        """Add something that is not octets."""
        self._said.append((f"{who} ({what})", bytearray()))

    def lines(self) -> tuple[str, ...]:
        """Give one line for each message, in hexadecimal."""
        return tuple(f"{who} {shown(octets)}".rstrip() for who, octets in self._said)


def shown(octets: bytes | bytearray) -> str:
    """Write octets in hexadecimal, many of them cut short."""
    text = octets[:SHOWN].hex(" ")
    return f"{text} ... ({len(octets)} octets)" if len(octets) > SHOWN else text


class Stream:
    """A TCP connection of ours, to the server or from it."""

    def __init__(
        self, sock: socket.socket, name: str, transcript: Transcript, patience: float
    ) -> None:
        # Every segment goes out as the case has cut it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(patience)
        self.sock = sock
        self.name = name
        self._transcript = transcript
        self._patience = patience

    def send(self, octets: bytes) -> None:
        """
        Send; to a server that has gone this does nothing, and the next read tells.

        Raises:
            Failed: It does not read.
        """
        self._transcript.octets(f"{self.name} ->", octets)
        try:
            self.sock.sendall(octets)
        except TimeoutError:
            raise Failed("the server does not read what it is sent") from None
        except ConnectionError:
            self._transcript.event(f"{self.name} ->", "the connection is gone")

    def take(self, count: int, what: str, seconds: float | None = None) -> bytes:
        """
        Read exactly *count* octets; *what* names them in a failure.

        Raises:
            Failed: They do not come within *seconds*.
        """
        octets, ending = self.some(count, seconds)
        if len(octets) < count:
            got = f"{len(octets)} octets of {what}" if octets else f"no {what}"
            how = f"within {seconds or self._patience:g} s" if ending is Ending.NONE else ""
            raise Failed(f"{got} {how or 'before ' + ending.value}")
        return octets

    def expect(self, octets: bytes, what: str) -> None:
        """
        Read exactly these octets.

        Raises:
            Failed: Others come, or none.
        """
        seen = self.take(len(octets), what)
        if seen != octets:
            raise Failed(f"{what}: {shown(octets)} expected, {shown(seen)} seen")

    def some(self, count: int, seconds: float | None = None) -> tuple[bytes, Ending]:
        """Read *count* octets, or fewer if the end comes before, or *seconds* have passed."""
        return self._read(count, self._patience if seconds is None else seconds)

    def rest(self, seconds: float | None = None) -> tuple[bytes, Ending]:
        """Read to the end, or until *seconds* have passed."""
        return self._read(None, self._patience if seconds is None else seconds)

    def finish(self) -> None:
        """Send FIN, and be ready to read on."""
        self._transcript.event(f"{self.name} ->", "FIN")
        self._shutdown()

    def reset(self) -> None:
        """Close with RST."""
        self._transcript.event(f"{self.name} ->", "RST")
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close; once or more."""
        self.sock.close()

    def _shutdown(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._transcript.event(f"{self.name} ->", "the connection is gone")

    def _read(self, count: int | None, seconds: float) -> tuple[bytes, Ending]:
        octets = bytearray()
        ending = Ending.NONE
        end = time.monotonic() + seconds
        while count is None or len(octets) < count:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                break
            try:
                more = self.sock.recv(65536 if count is None else count - len(octets))
            except ConnectionError:
                ending = Ending.RESET
                break
            if not more:
                ending = Ending.FIN
                break
            octets += more
        if octets:
            self._transcript.octets(f"{self.name} <-", octets)
        if ending is not Ending.NONE:
            self._transcript.event(f"{self.name} <-", ending.value)
        elif count is None or len(octets) < count:
            self._transcript.event(f"{self.name} <-", f"nothing more within {seconds:g} s")
        return bytes(octets), ending


def carry(flows: Sequence[tuple[Stream, Stream, bytes]], seconds: float) -> None:
    """
    Send octets at one end while they are read at the other, all flows at once.

    Raises:
        Failed: What arrives is not what was sent, or it does not arrive.
    """
    sending = {source.sock: memoryview(octets) for source, _, octets in flows}
    received = {sink.sock: bytearray() for _, sink, _ in flows}
    expected = {sink.sock: octets for _, sink, octets in flows}
    end = time.monotonic() + seconds
    missing = set(expected)
    while missing:
        left = end - time.monotonic()
        if left <= 0:
            got = sum(map(len, received.values()))
            raise Failed(f"{got} of {sum(map(len, expected.values()))} octets in {seconds:g} s")
        writers = [sock for sock, octets in sending.items() if octets]
        readable, writable, _ = select.select(list(missing), writers, [], left)
        try:
            for sock in writable:
                # Not more than the kernel takes at once, or we would not read meanwhile.
                sending[sock] = sending[sock][sock.send(sending[sock][:16384]) :]
            for sock in readable:
                more = sock.recv(1 << 18)
                received[sock] += more
                if not more or len(received[sock]) >= len(expected[sock]):
                    missing.remove(sock)
        except OSError as error:
            raise Failed(f"the connection broke: {error}") from None
    for sock, octets in expected.items():
        if received[sock] != octets:
            raise Failed(f"{len(received[sock])} octets arrived, not the {len(octets)} sent")


class Listener:
    """A target: a port of this host, on one address or on two."""

    def __init__(self, addresses: Sequence[IPAddress], transcript: Transcript, patience: float):
        """Listen on one free port of all *addresses*; OSError where that cannot be."""
        self._transcript = transcript
        self._patience = patience
        self.address = addresses[0]
        self.port = 0
        self._sockets: list[socket.socket] = []
        try:
            for address in addresses:
                family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
                sock = socket.socket(family)
                self._sockets.append(sock)
                sock.bind((str(address), self.port))
                sock.listen(256)
                self.port = sock.getsockname()[1]
        except OSError:
            self.close()
            raise

    def accept(self, name: str = "target", seconds: float | None = None) -> Stream:
        """
        Take the next connection.

        Raises:
            Failed: None comes.
        """
        stream = self.accepted(name, self._patience if seconds is None else seconds)
        if stream is None:
            raise Failed("the server does not connect to the target")
        return stream

    def accepted(self, name: str, seconds: float) -> Stream | None:
        """Take the next connection, if one comes in time."""
        ready = select.select(self._sockets, [], [], seconds)[0]
        if not ready:
            return None
        sock, peer = ready[0].accept()
        self._transcript.event(f"{name} <-", f"connected from {peer[0]} port {peer[1]}")
        return Stream(sock, name, self._transcript, self._patience)

    def shrink(self) -> None:
        """Let one connection wait to be accepted; the kernel ignores further attempts."""
        for sock in self._sockets:
            sock.listen(0)

    def close(self) -> None:
        """Stop listening."""
        for sock in self._sockets:
            sock.close()


class Datagrams:
    """A UDP socket of ours: the client's, or a target."""

    def __init__(
        self, where: tuple[IPAddress, int], name: str, transcript: Transcript, patience: float
    ) -> None:
        """Bind to *where*, an address and a port or 0; OSError where that cannot be."""
        address, port = where
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self.sock.bind((str(address), port))
        except OSError:
            self.sock.close()
            raise
        self.address = address
        self.port: int = self.sock.getsockname()[1]
        self.name = name
        self._transcript = transcript
        self._patience = patience

    def send(self, octets: bytes, to: tuple[str, int]) -> None:
        """Send one datagram."""
        self._transcript.octets(f"{self.name} =>", octets)
        self.sock.sendto(octets, to)

    def take(self, what: str, seconds: float | None = None) -> tuple[bytes, tuple[str, int]]:
        """
        Take one datagram and where it came from.

        Raises:
            Failed: None comes.
        """
        found = self.taken(self._patience if seconds is None else seconds)
        if found is None:
            raise Failed(f"no {what}")
        return found

    def taken(self, seconds: float) -> tuple[bytes, tuple[str, int]] | None:
        """Take one datagram, if one comes in time."""
        if not select.select([self.sock], [], [], seconds)[0]:
            self._transcript.event(f"{self.name} <=", f"nothing within {seconds:g} s")
            return None
        octets, source = self.sock.recvfrom(65536)
        self._transcript.octets(f"{self.name} <=", octets)
        return octets, (source[0], source[1])

    def close(self) -> None:
        """Close."""
        self.sock.close()
