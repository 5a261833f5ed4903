"""
User name and password (RFC 1929), with the messages of socksd.wire.

Usage: python docs/tutorial/authentication.py [PORT]
"""

import sys
from hmac import compare_digest

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTCP
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from zope.interface import implementer

from socksd.codes import Method
from socksd.errors import ProtocolError
from socksd.wire.socks5 import Greeting, MethodSelection, Status, UsernamePassword

USERS = {b"alice": b"rabbit"}  # a real server keeps hashes


@implementer(IHalfCloseableProtocol)
class Socks(Protocol):
    def connectionMade(self) -> None:
        self.unread = bytearray()
        self.turn = self.negotiate

    def dataReceived(self, octets: bytes) -> None:
        self.unread += octets
        try:
            while self.turn():  # the next message may be here already
                pass
        except ProtocolError as broken:
            print(f"protocol error: {broken}", flush=True)
            self.transport.loseConnection()

    def negotiate(self) -> bool:
        greeting = Greeting.take(self.unread)
        if greeting is None:
            return False
        if Method.USERNAME_PASSWORD not in greeting.methods:
            print(f"offered {greeting.methods.hex(' ')}: no login, no service", flush=True)
            self.transport.write(MethodSelection(Method.NO_ACCEPTABLE).encode())
            return self.end()
        self.transport.write(MethodSelection(Method.USERNAME_PASSWORD).encode())
        self.turn = self.log_in
        return True

    def log_in(self) -> bool:
        login = UsernamePassword.take(self.unread)
        if login is None:
            return False
        password = USERS.get(login.username)
        ok = password is not None and compare_digest(password, login.password)
        print(f"login of {login.username!r} {'accepted' if ok else 'refused'}", flush=True)
        self.transport.write(Status(ok).encode())
        return self.end()  # there is no next step yet

    def end(self) -> bool:
        self.transport.loseConnection()
        self.turn = self.end
        return False

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
