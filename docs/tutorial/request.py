"""
The request and its reply (RFC 1928 sections 4 to 6): everybody is refused.

Usage: python docs/tutorial/request.py [PORT]
"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTCP
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from zope.interface import implementer

from socksd.codes import Method, ReplyCode
from socksd.errors import ProtocolError
from socksd.wire.handshake import ServerHandshake, Turn
from socksd.wire.socks5 import Greeting, Request


@implementer(IHalfCloseableProtocol)
class Socks(Protocol):
    def connectionMade(self) -> None:
        self.handshake = ServerHandshake()

    def dataReceived(self, octets: bytes) -> None:
        self.handshake.receive(octets)
        try:
            while (message := self.handshake.take()) is not None:
                self.transport.write(self.answer(message))
        except ProtocolError as broken:
            print(f"protocol error: {broken}", flush=True)
            if broken.reply is not None:
                self.transport.write(self.handshake.reply(broken.reply))
        if self.handshake.turn is Turn.OVER:
            self.transport.loseConnection()

    def answer(self, message: object) -> bytes:
        match message:
            case Greeting(methods) if Method.NO_AUTHENTICATION in methods:
                return self.handshake.choose(Method.NO_AUTHENTICATION)
            case Request(command, destination):
                print(f"{command.name} {destination}", flush=True)
                return self.handshake.reply(ReplyCode.NOT_ALLOWED)
        return self.handshake.choose(Method.NO_ACCEPTABLE)

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass


async def main(reactor: IReactorTCP, port: str = "1080") -> None:
    endpoint = TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1")
    listening = await endpoint.listen(Factory.forProtocol(Socks))
    print(f"listening on {listening.getHost().port}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
