"""Wait for a connection, on the address where a peer would look for us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from errno import EADDRINUSE, errorcode
from ipaddress import IPv4Address, ip_address
from secrets import SystemRandom
from socket import AF_INET, AF_INET6, SOCK_DGRAM, socket

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory, IReactorTCP

from socksd.address import Destination, IPAddress
from socksd.codes import ReplyCode
from socksd.egress.refusals import refusal
from socksd.errors import Refused
from socksd.interfaces import OpenPort

# Of a range that is nine tenths in use, 64 ports taken at random are all in use
# in one case of a thousand; and it costs no more than a few milliseconds to know.
_TRIES = 64
_DISCARD = 9  # any port would do
_random = SystemRandom()


@dataclass(frozen=True, slots=True)
class Listening:
    """
    How to listen.

    Attributes:
        ports: Where to; ``None`` leaves it to the kernel.
        advertise: What clients are told instead of our own address of the
            same family, for a gateway behind NAT; ``None``: nothing else.
    """

    ports: range | None = None
    advertise: IPAddress | None = None

    def open(
        self,
        reactor: IReactorTCP,
        addresses: Sequence[IPAddress],
        factory: IProtocolFactory,
    ) -> OpenPort:
        """
        Listen where one of *addresses* would connect to; see IEgress.

        Raises:
            Refused: There is no way to any of them, or no port.
        """
        failures: list[tuple[IPAddress, BaseException]] = []
        for address in addresses:
            try:
                here = facing(address)
            except OSError as error:
                failures.append((address, error))
            else:
                return self._open(reactor, here, factory)
        raise refusal(failures)

    def _open(self, reactor: IReactorTCP, here: IPAddress, factory: IProtocolFactory) -> OpenPort:
        every = range(1) if self.ports is None else self.ports
        for number in _random.sample(every, min(_TRIES, len(every))):
            try:
                port = reactor.listenTCP(
                    number,
                    factory,  # type: ignore[arg-type]  # any IProtocolFactory will do
                    interface=str(here),
                )
            # listen(2) itself fails where another socket has the port, and does not listen yet.
            except (CannotListenError, OSError) as error:
                cause = error.socketError if isinstance(error, CannotListenError) else error
                if cause.errno != EADDRINUSE:
                    why = errorcode.get(cause.errno or 0, str(cause))
                    reason = f"cannot listen on {here} port {number}: {why}"
                    raise Refused(ReplyCode.GENERAL_FAILURE, reason) from None
            else:
                told = self.advertise
                if told is None or told.version != here.version:
                    told = here
                assigned: int = port.getHost().port  # type: ignore[attr-defined]  # of TCP
                return OpenPort(Destination(told, assigned), port.stopListening)
        raise Refused(ReplyCode.GENERAL_FAILURE, f"no port to listen on {here} is free")


ANY_PORT = Listening()


def facing(address: IPAddress) -> IPAddress:
    """
    Give the address of ours from which *address* is reached.

    To connect(2) a datagram socket looks the route up, and sends nothing.

    Raises:
        OSError: There is no way to it.
    """
    family = AF_INET if isinstance(address, IPv4Address) else AF_INET6
    with socket(family, SOCK_DGRAM) as sock:
        sock.connect((str(address), _DISCARD))
        host: str = sock.getsockname()[0]
    return ip_address(host)
