"""What the clients want to reach: small servers on the loopback, a thread per connection."""

from __future__ import annotations

import hashlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from random import Random

from twisted.names import dns

PAGE = b"<html><body><p>the page behind the gateway</p></body></html>\n"
BLOCK = Random(1928).randbytes(1 << 20)


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Run a server in a thread of its own while the block lasts."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Origin(socketserver.ThreadingTCPServer):
    """A TCP server that is one function of a connected socket."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(
        self, talk: Callable[[socket.socket], None], host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.accepted = 0
        self.port: int
        self._talk = talk
        super().__init__((host, port), socketserver.BaseRequestHandler)
        self.port = self.server_address[1]

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        self.accepted += 1
        return super().get_request()  # type: ignore[return-value]  # datagrams have no connection

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]  # narrower than socketserver says
        with suppress(OSError):  # the far side may leave when it likes
            self._talk(request)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]  # narrower than socketserver says
        request.close()


def echo(sock: socket.socket) -> None:
    """Send back what comes, then FIN for FIN."""
    while octets := sock.recv(65536):
        sock.sendall(octets)


class Flood:
    """Send without end, as far as anybody takes it."""

    def __init__(self, total: int) -> None:
        self.total = total  # octets to each client
        self.sent = 0  # octets to all of them; exact once they stall
        self._lock = threading.Lock()

    def __call__(self, sock: socket.socket) -> None:
        left = self.total
        while left:
            sent = sock.send(BLOCK[:left])
            left -= sent
            with self._lock:
                self.sent += sent


class _Files(SimpleHTTPRequestHandler):
    """Files; ``/octets/N`` is N octets, and a PUT is answered with its SHA-256."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/":
            self._answer(PAGE)
        elif self.path.startswith("/octets/"):
            count = int(self.path.rpartition("/")[2])
            self.send_response(200)
            self.send_header("Content-Length", str(count))
            self.end_headers()
            for octets in blocks(count):
                self.wfile.write(octets)
        else:
            super().do_GET()

    def do_PUT(self) -> None:
        digest = hashlib.sha256()
        left = int(self.headers["Content-Length"])
        while left:
            octets = self.rfile.read(min(left, len(BLOCK)))
            digest.update(octets)
            left -= len(octets)
        self._answer(digest.hexdigest().encode())

    def log_message(self, *_: object) -> None:
        """Say nothing; the gateway's log is the one that is read."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def blocks(count: int) -> Iterator[bytes]:
    """Give *count* octets, the same ones each time."""
    whole, rest = divmod(count, len(BLOCK))
    for _ in range(whole):
        yield BLOCK
    yield BLOCK[:rest]


class HTTPOrigin(ThreadingHTTPServer):
    """An HTTP server, for IPv4 or IPv6 by its address."""

    request_queue_size = 1024

    def __init__(self, directory: Path, host: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), partial(_Files, directory=str(directory)))
        self.port: int = self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: the far side may leave when it likes."""


class NameServer(socketserver.UDPServer):
    """
    A name server that knows a few addresses.

    Args:
        zone: Addresses by name; any other name does not exist, except that
            one beginning with ``never`` is never answered. May be changed.
        ttl: Of every answer, in seconds.
        gate: Queries wait for it; set unless the test clears it.
    """

    max_packet_size = 4096

    def __init__(self, zone: Mapping[str, Sequence[str]], ttl: int = 60) -> None:
        self._ttl = ttl
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[str] = []
        self._zone = zone
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.port: int = self.server_address[1]

    def finish_request(self, request: object, client_address: object) -> None:
        octets, sock = request  # type: ignore[misc]  # of a datagram it is a pair
        query = dns.Message()
        query.fromStr(octets)
        name = query.queries[0].name.name.decode().lower()
        self.asked.append(name)
        if name.startswith("never"):
            return
        self.gate.wait(20)
        answer = dns.Message(id=query.id, answer=1, recDes=query.recDes, recAv=1, auth=1)
        answer.queries = query.queries
        if name not in self._zone:
            answer.rCode = dns.ENAME
        for text in self._zone.get(name, ()):
            record = dns.Record_A if ip_address(text).version == 4 else dns.Record_AAAA
            if query.queries[0].type in (record.TYPE, dns.ALL_RECORDS):
                payload = record(text, ttl=self._ttl)
                header = dns.RRHeader(name, record.TYPE, ttl=self._ttl, payload=payload)
                answer.answers.append(header)
        sock.sendto(answer.toStr(), client_address)
