"""
A SOCKS5 server that is right in all things but the defects it is given.

A thread for each client, on the loopback; names are its own business, and no
resolver is ever asked.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from contextlib import closing, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, Self

from socksd.conformance.bench import Server

HANDSHAKE = 1.0  # seconds for a silent client
CONNECTING = 0.3
CLOSING = 2.0
ZERO = ("0.0.0.0", 0)
USER, PASSWORD = b"alice", b"correct horse"

Address = tuple[str, int]


class End(Exception):
    """The client has gone, or has to go."""


class Destination(NamedTuple):
    host: str
    port: int


class Fake:
    """Use as a context manager; *defects* are words that this module looks for."""

    def __init__(self, *defects: str, login: bool = False) -> None:
        self.defects = set(defects)
        self.login = login
        self.stopped = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self.listener.getsockname()[1]
        self.clients: list[tuple[threading.Thread, socket.socket]] = []
        self.thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        for thread, client in self.clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            assert not thread.is_alive()
        self.listener.close()

    def server(self) -> Server:
        """What a survey would find."""
        ipv4, ipv6 = IPv4Address("127.0.0.1"), IPv6Address("::1")
        known = (USER, PASSWORD) if self.login else None
        return Server(ipv4, self.port, ipv4, ipv6, known, 2 if self.login else 0)

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if "few clients" in self.defects and sum(t.is_alive() for t, _ in self.clients) > 50:
                client.close()
                continue
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self.clients.append((thread, client))
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with closing(client), suppress(End, OSError):
            Session(self, client).run()


class Session:
    def __init__(self, fake: Fake, client: socket.socket) -> None:
        self.fake = fake
        self.client = client
        self.buffer = b""
        client.settimeout(None if "patient" in fake.defects else HANDSHAKE)

    def has(self, defect: str) -> bool:
        return defect in self.fake.defects

    def take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            more = self.client.recv(4096)
            if not more:
                raise End
            self.buffer += more
        octets, self.buffer = self.buffer[:count], self.buffer[count:]
        return octets

    def message(self) -> None:
        """Begin a message; with the defect, one recv() is one message."""
        if self.has("one recv"):
            self.buffer = self.client.recv(1024)
            if not self.buffer:
                raise End
            self.take = self.take_at_once  # type: ignore[method-assign]  # another manner for this one

    def take_at_once(self, count: int) -> bytes:
        if len(self.buffer) < count:
            raise End
        octets, self.buffer = self.buffer[:count], self.buffer[count:]
        return octets

    def run(self) -> None:
        self.message()
        self.negotiate()
        self.message()
        version, command, reserved, atyp = self.take(4)
        if reserved and self.has("silent"):
            self.drain()
        if version != 5 and not self.has("any version"):
            raise End
        destination = self.destination(atyp)
        if self.has("drops early") or self.has("one recv"):
            self.buffer = b""
        self.client.settimeout(None)
        if command == 1:
            self.connect(destination)
        elif command == 2:
            self.bind(destination)
        elif command == 3:
            Association(self, destination).run()
        else:
            self.fail(0 if self.has("lies") else 7)

    # -- negotiation and login ---------------------------------------------------

    def negotiate(self) -> None:
        version, count = self.take(2)
        if version != 5 and self.has("waits"):
            self.drain()
        if version != 5 and not self.has("any version"):
            if self.has("dies of noise"):
                self.fake.listener.shutdown(socket.SHUT_RDWR)
            raise End
        methods = self.take(min(count, 16) if self.has("few methods") else count)
        method = 2 if self.fake.login else 0
        if self.has("selects 00"):
            method = 0
        elif self.has("selects 02"):
            method = 2
        elif method not in methods:
            method = 0xFF
        version = 4 if self.has("selects in version 4") else 5
        self.client.sendall(bytes([version, method]) * (count if self.has("repeats itself") else 1))
        if method == 2:
            self.message()
            self.log_in()
        elif method == 0xFF and not self.has("carries on"):
            self.close_in_order()

    def log_in(self) -> None:
        version, count = self.take(2)
        if self.has("login optional") and version == 5:
            self.buffer = bytes([version, count]) + self.buffer
            return
        if version != 1 and not self.has("any version"):
            raise End
        user = self.take(count)
        password = self.take(self.take(1)[0])
        if self.has("C strings"):
            user, password = user.partition(b"\0")[0], password.partition(b"\0")[0]
        if self.has("short login") and max(len(user), len(password)) > 128:
            raise End
        right = (user == USER or self.has("any user")) and password == PASSWORD
        right = (right or self.has("any password")) and not self.has("no password")
        version = 5 if self.has("status of version 5") else 1
        self.client.sendall(bytes([version, 0 if right else 1]))
        if right:
            return
        if self.has("stays open"):
            self.drain()
        if self.has("talks on"):
            self.client.sendall(b"\x05\x00")
        self.close_in_order()

    # -- requests and replies ----------------------------------------------------

    def destination(self, atyp: int) -> Destination:
        if atyp == 3:
            host = self.take(self.take(1)[0]).decode("latin-1")
            if host[-1:].isdigit() and self.has("strict names"):
                self.fail(4)
            if not host and self.has("silent"):
                self.drain()
            if self.has("C strings"):
                host = host.partition("\0")[0]
        elif atyp in (1, 4):
            host = str(ip_address(self.take({1: 4, 4: 16}[atyp])))
        elif self.has("hangs up"):
            raise End
        else:
            self.fail(8)
        return Destination(host, int.from_bytes(self.take(2), "big"))

    def reply(self, code: int, bound: Address = ZERO, *, zero: bool = False) -> None:
        host, port = ZERO if zero or self.has("bound zero") else bound
        packed = ip_address(host).packed
        octets = bytes([5, code, 0xFF if self.has("RSV ff") else 0, 1 if len(packed) == 4 else 4])
        if self.has("reply of version 4"):
            octets = b"\x04" + octets[1:]
        if self.has("reply of type 9"):
            octets = octets[:3] + b"\x09"
        if self.has("reply of a name"):
            name = host.encode()
            octets, packed = octets[:3] + b"\x03", bytes([len(name)]) + name
        octets += packed + port.to_bytes(2, "big")
        self.client.sendall(octets * (2 if self.has("replies twice") else 1))

    def fail(self, code: int) -> None:
        if self.has("hangs up") and code in (7, 8):
            raise End
        self.reply(1 if self.has("vague") else code)
        if self.has("stays open"):
            self.drain()
        if self.has("closes at once"):
            raise End
        self.close_in_order()

    def close_in_order(self) -> None:
        with suppress(OSError):
            self.client.shutdown(socket.SHUT_WR)
            self.client.settimeout(CLOSING)
            self.drain()
        raise End

    def drain(self) -> None:
        while self.client.recv(65536):
            pass
        raise End

    def resolve(self, host: str) -> str:
        if self.has("denies"):
            self.fail(2)
        if host == "localhost":
            return "127.0.0.1"
        try:
            return str(ip_address(host))
        except ValueError:
            self.fail(0 if self.has("lies") else 2 if self.has("wrong code") else 4)
            raise

    def connect(self, destination: Destination) -> None:
        host = self.resolve(destination.host)
        if self.has("refuses IPv6") and ":" in host:
            self.fail(8)
        if self.has("lies") or self.has("never connects"):
            self.reply(0)
        if self.has("never connects"):
            self.drain()
        target = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        with closing(target):
            target.settimeout(None if self.has("patient") else CONNECTING)
            try:
                target.connect((host, destination.port))
            except ConnectionRefusedError:
                self.fail(5)
            except OSError:
                self.fail(4)
            target.settimeout(None)
            if not self.has("lies"):
                self.reply(0, target.getsockname()[:2])
            self.relay(target)

    # -- relaying ------------------------------------------------------------------

    def relay(self, target: socket.socket) -> None:
        if self.buffer:
            target.sendall(self.buffer)
        up = threading.Thread(target=self.pipe, args=(self.client, target))
        up.start()
        self.pipe(target, self.client)
        up.join()

    def garbled(self, octets: bytes) -> bytes:
        if self.has("blanks"):
            return bytes(len(octets))
        return bytes([octets[0] ^ 1]) + octets[1:] if self.has("garbles") else octets

    def pipe(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while octets := source.recv(65536):
                sink.sendall(self.garbled(octets))
            if self.has("keeps FIN"):
                pass
            elif self.has("no half-close"):
                source.shutdown(socket.SHUT_RDWR)
                sink.shutdown(socket.SHUT_RDWR)
            else:
                sink.shutdown(socket.SHUT_WR)
        except ConnectionError:
            with suppress(OSError):
                if self.has("no reset"):
                    sink.shutdown(socket.SHUT_RDWR)
                else:
                    # RST once closed; SHUT_RD only wakes the other thread.
                    sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sink.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    # -- BIND ----------------------------------------------------------------------

    def bind(self, destination: Destination) -> None:
        if self.has("no BIND"):
            self.fail(7)
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            where = listener.getsockname()
            if self.has("does not listen"):
                listener.close()
            self.reply(0, where)
            if self.has("does not listen"):
                self.drain()
            if self.has("two replies at once"):
                self.reply(0)
            waiting = [listener, self.client]
            while not self.fake.stopped.is_set():
                ready = select.select(waiting, [], [], 0.1)[0]
                if self.client in ready:
                    if not self.has("outlives"):
                        raise End
                    waiting.remove(self.client)
                if listener not in ready:
                    continue
                peer, address = listener.accept()
                with closing(peer):
                    if self.client not in waiting:
                        continue
                    if address[0] == destination.host or self.has("anybody"):
                        self.reply(0, address, zero=self.has("peer zero"))
                        self.relay(peer)
                        return


class Association:
    """UDP ASSOCIATE."""

    def __init__(self, session: Session, destination: Destination) -> None:
        self.session = session
        self.has = session.has
        self.peer: str = session.client.getpeername()[0]
        self.claimed = destination.port
        self.relay = socket.socket(type=socket.SOCK_DGRAM)
        self.relay.bind(("127.0.0.1", 0))
        self.out = {
            4: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            6: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
        }
        self.client: Address | None = (self.peer, self.claimed) if self.claimed else None

    def run(self) -> None:
        sockets = [self.relay, *self.out.values()]
        try:
            self.session.reply(0, self.relay.getsockname())
            waiting = [self.session.client, *sockets]
            while not self.session.fake.stopped.is_set():
                ready = select.select(waiting, [], [], 0.1)[0]
                if self.session.client in ready:
                    if not self.has("outlives"):
                        return
                    waiting.remove(self.session.client)
                if self.relay in ready:
                    self.outwards()
                for out in self.out.values():
                    if out in ready:
                        self.inwards(out)
        finally:
            for sock in sockets:
                sock.close()

    def outwards(self) -> None:
        octets, source = self.relay.recvfrom(65536)
        if source[0] != self.peer and not self.has("anybody"):
            return
        if self.client and source != self.client and not self.has("anybody"):
            return
        try:
            host, port, payload = self.parse(octets)
        except (IndexError, ValueError):
            if self.has("careless"):
                raise End from None
            return
        self.client = source
        self.out[ip_address(host).version].sendto(self.session.garbled(payload), (host, port))

    def parse(self, octets: bytes) -> tuple[str, int, bytes]:
        if len(octets) < 4 or (octets[2] and not self.has("no FRAG")):
            raise ValueError
        if octets[3] == 5 and self.has("relays anything"):
            octets = octets[:3] + b"\x01" + octets[4:]
        if octets[3] == 3 and not self.has("no names"):
            begin, end = 5, 5 + octets[4]
            if octets[begin:end] != b"localhost":
                raise ValueError
            host = "127.0.0.1"
        else:
            begin, end = 4, 4 + {1: 4, 4: 16}.get(octets[3], 99)
            host = str(ip_address(octets[begin:end]))
        return host, int.from_bytes(octets[end : end + 2], "big"), octets[end + 2 :]

    def inwards(self, out: socket.socket) -> None:
        octets, source = out.recvfrom(65536)
        packed = ip_address(source[0]).packed
        head = b"\x00\x00\x00" + (b"\x01" if len(packed) == 4 else b"\x04") + packed
        head += source[1].to_bytes(2, "big")
        if self.has("bare answers"):
            head = b""
        if self.client:
            self.relay.sendto(head + octets, self.client)
