"""
Method negotiation (RFC 1928 section 3), octet by octet.

Usage: python docs/tutorial/handshake.py [PORT]
"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTCP
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from zope.interface import implementer

NO_AUTHENTICATION = 0x00
NO_ACCEPTABLE = 0xFF


@implementer(IHalfCloseableProtocol)
class Socks(Protocol):
    def connectionMade(self) -> None:
        self.buffer = bytearray()

    def dataReceived(self, octets: bytes) -> None:
        self.buffer += octets  # TCP is a stream: this may be half a message, or three
        if self.buffer[0] != 5:
            print(f"VER is {self.buffer[0]:#04x}, not 0x05", flush=True)
            self.transport.loseConnection()
            return
        if len(self.buffer) < 2 or len(self.buffer) < 2 + self.buffer[1]:
            return  # not whole yet
        end = 2 + self.buffer[1]
        methods = self.buffer[2:end]
        del self.buffer[:end]
        self.choose(methods)

    def choose(self, methods: bytearray) -> None:
        chosen = NO_AUTHENTICATION if NO_AUTHENTICATION in methods else NO_ACCEPTABLE
        print(f"offered {methods.hex(' ')}, chosen {chosen:02x}", flush=True)
        self.transport.write(bytes([5, chosen]))
        self.transport.loseConnection()  # there is no next step yet

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
