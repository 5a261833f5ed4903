"""Sockets of the parent's, shared by those who accept from them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from twisted.internet import reactor, tcp
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from socksd.app.workers.adopt import Shared


class Greeter(Protocol):
    def connectionMade(self) -> None:
        self.transport.write(b"hello")
        self.transport.loseConnection()


class Client(Protocol):
    def __init__(self) -> None:
        self.heard = b""
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: object = None) -> None:
        self.done.callback(self.heard)


def factory_of(protocol: type[Protocol]) -> Factory[Protocol]:
    factory = Factory.forProtocol(protocol)
    factory.noisy = False
    return factory


async def greeting(address: tuple[str, int] | str, family: int) -> bytes:
    sock = socket.socket(family)
    sock.connect(address)
    sock.setblocking(False)
    client = Client()
    factory = factory_of(lambda: client)  # type: ignore[arg-type]  # what makes one
    reactor.adoptStreamConnection(sock.fileno(), socket.AddressFamily(family), factory)
    sock.close()
    return await client.done


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
async def test_who_stops_accepting_leaves_the_socket_to_others(
    family: socket.AddressFamily, tmp_path: Path
) -> None:
    path = tmp_path / "socks"
    host = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}.get(family)
    listener = socket.socket(family)
    listener.bind((host, 0) if host else str(path))
    listener.listen(7)
    listener.setblocking(False)
    address = listener.getsockname()[:2] if host else str(path)
    if not host:
        path.chmod(0o600)
    tcp._reservedFD.reserve()  # Twisted's own, which it keeps for accept(2)
    open_before = set(os.listdir("/proc/self/fd"))
    ports = [await Shared(reactor, listener.fileno()).listen(factory_of(Greeter)) for _ in range(2)]
    await ports[0].stopListening()
    assert await greeting(address, family) == b"hello"
    if not host:
        assert path.stat().st_mode & 0o777 == 0o600
    await ports[1].stopListening()
    assert set(os.listdir("/proc/self/fd")) == open_before
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    listener.close()


async def test_what_is_no_socket_cannot_be_listened_on() -> None:
    nothing = os.memfd_create("nothing")
    with pytest.raises(OSError, match="non-socket"):
        await Shared(reactor, nothing).listen(factory_of(Greeter))
    os.close(nothing)
