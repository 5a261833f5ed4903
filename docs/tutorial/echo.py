"""
An echo server: what comes in goes back.

Usage: python docs/tutorial/echo.py [PORT]
"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTCP
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IHalfCloseableProtocol)
class Echo(Protocol):
    """One connection; Twisted makes a new object for each."""

    def connectionMade(self) -> None:
        self.port = self.transport.getPeer().port
        print(f"{self.port}: connected", flush=True)

    def dataReceived(self, octets: bytes) -> None:
        print(f"{self.port}: heard {octets!r}", flush=True)
        self.transport.write(octets)

    def readConnectionLost(self) -> None:
        """The client has sent FIN: it says no more, but it may still listen."""
        self.transport.loseConnection()  # once all that we wrote has left

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure) -> None:
        print(f"{self.port}: gone", flush=True)


async def main(reactor: IReactorTCP, port: str = "7007") -> None:
    endpoint = TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1")
    listening = await endpoint.listen(Factory.forProtocol(Echo))
    print(f"listening on {listening.getHost().port}", flush=True)
    await Deferred()  # never fires: until Ctrl-C


if __name__ == "__main__":
    react(main, sys.argv[1:])
