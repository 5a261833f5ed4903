"""
CONNECT and the relay: a SOCKS5 server that works.

Usage: python docs/tutorial/relay.py [PORT]
"""

import sys

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorCore
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.address import Destination
from socksd.codes import Command, Method, ReplyCode
from socksd.errors import ProtocolError
from socksd.wire.handshake import ServerHandshake, Turn
from socksd.wire.socks5 import Greeting, Request


@implementer(IHalfCloseableProtocol)
class End(Protocol):
    """One end of a relay: what it hears, it says at the other end."""

    other: "End | None" = None
    heard_fin = False
    lost = False

    def dataReceived(self, octets: bytes) -> None:
        self.other.transport.write(octets)

    def readConnectionLost(self) -> None:
        """A FIN: pass it on. The second one ends both connections."""
        self.heard_fin = True
        if self.other is None:
            self.transport.loseConnection()
            return
        self.other.transport.unregisterProducer()  # we have nothing more to say there
        self.other.transport.loseWriteConnection()
        if self.other.heard_fin:
            self.transport.loseConnection()
            self.other.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure) -> None:
        self.lost = True
        if self.other is not None and not self.other.lost:
            self.other.transport.unregisterProducer()  # or its loseConnection() might wait for us
            self.other.transport.loseConnection()


class Client(End):
    def __init__(self, reactor: IReactorCore) -> None:
        self.reactor = reactor
        self.handshake = ServerHandshake()

    def dataReceived(self, octets: bytes) -> None:
        if self.other is not None:
            super().dataReceived(octets)
            return
        self.handshake.receive(octets)
        try:
            while (message := self.handshake.take()) is not None:
                self.answer(message)
        except ProtocolError as broken:
            print(f"protocol error: {broken}", flush=True)
            if broken.reply is not None:
                self.transport.write(self.handshake.reply(broken.reply))
        if self.handshake.turn is Turn.OVER:
            self.transport.loseConnection()

    def answer(self, message: object) -> None:
        match message:
            case Greeting(methods) if Method.NO_AUTHENTICATION in methods:
                self.transport.write(self.handshake.choose(Method.NO_AUTHENTICATION))
            case Request(Command.CONNECT, destination):
                Deferred.fromCoroutine(self.connect(destination))
            case Request():
                self.refuse(ReplyCode.COMMAND_NOT_SUPPORTED)
            case _:
                self.transport.write(self.handshake.choose(Method.NO_ACCEPTABLE))

    async def connect(self, destination: Destination) -> None:
        endpoint = HostnameEndpoint(self.reactor, str(destination.host), destination.port)
        self.transport.pauseProducing()
        try:
            target = await endpoint.connect(Factory.forProtocol(End))
        except error.ConnectionRefusedError:
            self.refuse(ReplyCode.CONNECTION_REFUSED, destination)
        except (error.ConnectError, error.DNSLookupError, error.TimeoutError):
            self.refuse(ReplyCode.HOST_UNREACHABLE, destination)
        else:
            print(f"CONNECT {destination}: connected", flush=True)
            self.relay(target)
        self.transport.resumeProducing()

    def refuse(self, code: ReplyCode, destination: object = "") -> None:
        print(f"CONNECT {destination}: {code.name}", flush=True)
        self.transport.write(self.handshake.reply(code))
        self.transport.loseConnection()

    def relay(self, target: End) -> None:
        if self.lost:
            target.transport.loseConnection()
            return
        bound = target.transport.getHost()
        self.transport.write(
            self.handshake.reply(ReplyCode.SUCCEEDED, Destination.named(bound.host, bound.port))
        )
        self.other, target.other = target, self
        # Each end reads only as fast as the other can write.
        self.transport.registerProducer(target.transport, True)
        target.transport.registerProducer(self.transport, True)
        target.transport.write(bytes(self.handshake.unread))  # what came early


async def main(reactor: IReactorCore, port: str = "1080") -> None:
    endpoint = TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1")
    factory = Factory()
    factory.buildProtocol = lambda address: Client(reactor)
    listening = await endpoint.listen(factory)
    print(f"listening on {listening.getHost().port}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
