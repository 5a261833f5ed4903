"""
One question to name servers, over UDP and, if truncated, TCP (RFC 1035, RFC 7766).

The messages are those of twisted.names; its Resolver is not used. There, a
cancelled look-up leaves its delayed calls behind and fails others that ask the
same; a SERVFAIL is not taken to the next server; a server that is down is
noticed by time-out only, for the socket is not connected; TCP connections
stay open, and their time-outs are on the global reactor.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from random import SystemRandom
from socket import AF_INET, AF_INET6, SO_ERROR, SOCK_DGRAM, SOL_SOCKET, socket
from typing import cast

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, ITCPTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.address import IPAddress
from socksd.codes import ReplyCode
from socksd.egress.direct import IReactorConnecting, tcp_endpoint
from socksd.errors import Refused, TimedOut

# Seconds to wait for a server that has not answered yet, in one round of all
# of them and the next. One lost datagram costs a second.
ROUNDS = (1.0, 2.0, 4.0)

DATAGRAM = 8192  # octets; a server owes us no more than 512, and some send more

_RCODES = {
    dns.EFORMAT: "FORMERR",
    dns.ESERVER: "SERVFAIL",
    dns.ENOTIMP: "NOTIMP",
    dns.EREFUSED: "REFUSED",
}

_random_id = SystemRandom().getrandbits


MakeSocket = Callable[[int, int], socket]  # of an address family and a type


class IReactorAsking(IReactorConnecting, IReactorFDSet):
    """What asking name servers takes of the reactor."""


@dataclass(frozen=True, slots=True)
class NameServer:
    """Where to ask; by address, for there is nobody else to ask for a name."""

    address: IPAddress
    port: int = dns.PORT


class _Question:
    """
    One question, and what a reply to it looks like.

    A reply has to repeat the random ID and the question itself (RFC 5452
    section 9.1); whatever else arrives is dropped, as if it had been lost.
    """

    def __init__(self, name: bytes, kind: int) -> None:
        self._query = dns.Query(name, kind, dns.IN)
        self._id = _random_id(16)
        message = dns.Message(self._id, recDes=1)
        message.queries = [self._query]
        self.octets: bytes = message.toStr()
        self.replied: Deferred[dns.Message] = Deferred()

    def received(self, octets: bytes) -> None:
        """Take what has arrived; fires ``replied`` if it is the reply."""
        message = dns.Message()
        try:
            message.fromStr(octets)
        except Exception:  # noqa: BLE001  # decoders of forty record types, fed by strangers
            return
        reply = (message.id, message.answer, message.queries) == (self._id, 1, [self._query])
        if reply and not self.replied.called:
            self.replied.callback(message)

    def failed(self, reason: Failure | Exception) -> None:
        """There will be no reply."""
        if not self.replied.called:
            self.replied.errback(reason)


@implementer(IReadDescriptor)
class _Datagrams:
    """
    A UDP socket for one question.

    Connected, it hears of nobody but the server, and of an ICMP "port
    unreachable" at once. Twisted's own UDP port would do, if it did not log
    two lines for every name that is looked up.

    Raises:
        OSError: No socket is to be had.
    """

    def __init__(
        self, server: NameServer, question: _Question, reactor: IReactorFDSet, make: MakeSocket
    ) -> None:
        self._question = question
        self._reactor = reactor
        self._server = (str(server.address), server.port)
        family = AF_INET6 if isinstance(server.address, IPv6Address) else AF_INET
        self._socket = make(family, SOCK_DGRAM)

    def ask(self) -> None:
        """Send the question, from a port that the kernel picks at random."""
        try:
            self._socket.setblocking(False)
            self._socket.connect(self._server)
            self._socket.send(self._question.octets)
        except OSError as error:
            self._question.failed(error)
        else:
            self._reactor.addReader(self)

    def close(self) -> None:
        """Give the socket back."""
        self._reactor.removeReader(self)
        self._socket.close()

    def doRead(self) -> None:
        """Take one datagram."""
        try:
            octets = self._socket.recv(DATAGRAM)
        except BlockingIOError:  # a wrong checksum is noticed as late as this
            return
        except OSError as error:
            self._question.failed(error)
        else:
            self._question.received(octets)

    def fileno(self) -> int:
        """Give the descriptor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Name it in the reactor's own complaints."""
        return "dns"

    # One batch of the epoll reactor may hold an event of a descriptor that was
    # closed since, and whose number is now ours: it could be of any kind.

    def doWrite(self) -> None:
        """Hear that somebody else's descriptor was writable."""

    def connectionLost(self, reason: Failure) -> None:
        """Hear of EPOLLERR without EPOLLIN: an ICMP error, or somebody else's."""
        error = self._socket.getsockopt(SOL_SOCKET, SO_ERROR)
        if error:
            self._question.failed(OSError(error, os.strerror(error)))
        else:
            self._reactor.addReader(self)


class _Stream(Int16StringReceiver):
    transport: ITCPTransport

    def __init__(self, question: _Question) -> None:
        self._question = question

    def connectionMade(self) -> None:
        octets = self._question.octets
        self.transport.write(len(octets).to_bytes(2, "big") + octets)

    def stringReceived(self, string: bytes) -> None:
        self._question.received(string)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._question.failed(reason)


class _StreamFactory(Factory[_Stream]):
    noisy = False

    def __init__(self, question: _Question) -> None:
        self._question = question

    def buildProtocol(self, addr: object) -> _Stream:
        return _Stream(self._question)


class NameServers:
    """
    Ask the first server that can tell.

    Args:
        servers: At least one, in the order to ask.
        make_socket: For tests.
    """

    def __init__(
        self,
        servers: Sequence[NameServer],
        reactor: IReactorAsking,
        make_socket: MakeSocket = socket,
    ) -> None:
        self._servers = tuple(servers)
        self._reactor = reactor
        self._make_socket = make_socket

    async def ask(self, name: bytes, kind: int) -> dns.Message:
        """
        Ask for records of *kind*, a TYPE of RFC 1035 section 3.2.2.

        A silent server is asked again in the next round, one that cannot
        tell is not.

        Returns:
            A message whose RCODE is "no error" or "name error".

        Raises:
            Refused: No server could tell.
        """
        silent = list(self._servers)
        reason = "no name server answered"
        for seconds in ROUNDS:
            for server in tuple(silent):
                try:
                    message = await self._reply(server, name, kind, seconds)
                except defer.TimeoutError:
                    continue
                except (ConnectError, ConnectionClosed, OSError):
                    silent.remove(server)
                    continue
                if message.rCode in (dns.OK, dns.ENAME):
                    return message
                silent.remove(server)
                rcode = _RCODES.get(message.rCode, f"RCODE {message.rCode}")
                reason = f"name server failure ({rcode})"
        if len(silent) == len(self._servers):
            raise TimedOut(reason)
        raise Refused(ReplyCode.HOST_UNREACHABLE, reason)

    async def _reply(
        self, server: NameServer, name: bytes, kind: int, seconds: float
    ) -> dns.Message:
        message = await self._over_udp(server, _Question(name, kind), seconds)
        if message.trunc:
            message = await self._over_tcp(server, _Question(name, kind), seconds)
        return message

    async def _over_udp(
        self, server: NameServer, question: _Question, seconds: float
    ) -> dns.Message:
        try:
            datagrams = _Datagrams(server, question, self._reactor, self._make_socket)
        except OSError as error:  # out of descriptors: ours, not the name's
            reason = "no socket to ask a name server with"
            raise Refused(ReplyCode.GENERAL_FAILURE, reason) from error
        try:
            datagrams.ask()
            return await question.replied.addTimeout(seconds, self._reactor)
        finally:
            datagrams.close()

    async def _over_tcp(
        self, server: NameServer, question: _Question, seconds: float
    ) -> dns.Message:
        endpoint = tcp_endpoint(self._reactor, server.address, server.port, seconds)
        stream = cast("_Stream", await endpoint.connect(_StreamFactory(question)))
        try:
            return await question.replied.addTimeout(seconds, self._reactor)
        finally:
            stream.transport.abortConnection()
