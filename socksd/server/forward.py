"""A target for one request of an HTTP client; to a relay it is one like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.errors import ProtocolError
from socksd.events import Outcome
from socksd.interfaces import ICarrier, IEnd, IEndTransport
from socksd.wire.exchange import Exchange
from socksd.wire.http import answer


@dataclass(frozen=True, slots=True)
class _Failure:
    """What becomes of an exchange that does not end well: for the client, and for the logs."""

    page: bytes
    outcome: Outcome
    reason: str


_BAD_REQUEST = _Failure(
    answer(HTTPStatus.BAD_REQUEST, "The body of the request is not framed as its head says."),
    Outcome.PROTOCOL_ERROR,
    "the body of the request is not framed as its head says",
)
_BAD_GATEWAY = _Failure(
    answer(
        HTTPStatus.BAD_GATEWAY, "The destination has given no answer, or one that is not HTTP/1.1."
    ),
    Outcome.FAILED,
    "the destination has given no answer of HTTP/1.1",
)
_Delegate: Any = proxyForInterface(IEndTransport)


@implementer(IEnd, ICarrier)
class Forward:
    """
    Stands before a target's end.

    What is written to it goes on as the one request that was judged, and what
    comes from it is the one response. Then it has ended.

    Attributes:
        transport: The target's, but for what is written. No plain socket, so
            that a relay does not go around us.
    """

    bare = False

    def __init__(self, target: IEnd, failed: Callable[[Outcome, str], None]) -> None:
        """Begin; *failed* hears of it where the client is not given a response."""
        self._target = target
        self._failed = failed
        self._exchange = Exchange()
        self._carrier: ICarrier | None = None
        self._early = bytearray()  # written before anybody could be told what is wrong with it
        self._finished = False  # the client sends no more
        self._over = False  # the client has been told all that it will be
        self.transport: IEndTransport = _Transport(target.transport, self)

    # -- what the relay asks for (IEnd) --------------------------------------

    def carried_by(self, carrier: ICarrier) -> None:
        """From now on tell *carrier*."""
        self._carrier = carrier
        early = bytes(self._early)
        self._early.clear()
        self.send(early)
        if self._finished:
            self.finish_writing()
        self._target.carried_by(self)

    def send(self, octets: bytes) -> None:
        """Pass on some of the request, the head as RequestHead.encode() writes it."""
        if self._carrier is None:
            self._early += octets
            return
        try:
            request = self._exchange.up(octets)
        except ProtocolError:
            self._end(self._carrier, _BAD_REQUEST)
            return
        if request:
            self._target.transport.write(request)

    def finish_writing(self) -> None:
        """
        Hear that the client sends no more.

        Not passed on: many a server takes FIN for a client that has left, and
        that the request is whole it knows without.
        """
        self._finished = True
        if self._carrier is not None and not self._exchange.asked:
            self._end(self._carrier, _BAD_REQUEST)

    # -- what the target's end tells (ICarrier) ------------------------------

    def data_received(self, octets: bytes) -> None:
        """Pass on some of the response."""
        carrier = self._carrier
        assert carrier is not None  # our target tells us nothing before there is one
        if self._over:
            return
        try:
            response = self._exchange.down(octets)
        except ProtocolError:
            self._end(carrier, _BAD_GATEWAY)
            return
        if response:
            carrier.data_received(response)
        if self._exchange.answered:
            self._end(carrier)

    def read_ended(self) -> None:
        """The target sends no more, which may be how its response ends."""
        self.data_received(b"")

    def lost(self, reason: Failure) -> None:
        """The connection is gone; in order, if the client has been told all."""
        carrier = self._carrier
        assert carrier is not None
        if not self._exchange.begun and not reason.check(ConnectionDone, ConnectionAborted):
            self._end(carrier, _BAD_GATEWAY)
        carrier.lost(Failure(ConnectionDone()) if self._over else reason)

    def _end(self, carrier: ICarrier, failure: _Failure | None = None) -> None:
        """
        Tell the client nothing but of a *failure* any more, and the target nothing at all.

        In the middle of a response there is no place for a page: then the
        connection breaks, for a client to see that this is not the whole.
        """
        exchange = self._exchange
        if self._over:
            return
        if exchange.begun and not exchange.answered:
            self._target.transport.abortConnection()
            return
        self._over = True
        if failure is not None:
            self._failed(failure.outcome, failure.reason)
            carrier.data_received(failure.page)
        carrier.read_ended()
        self._target.transport.pauseProducing()  # until the client has closed


class _Transport(_Delegate):  # type: ignore[misc]  # a class that is made at run time
    """A target's transport with the exchange before it."""

    def __init__(self, original: IEndTransport, forward: Forward) -> None:
        super().__init__(original)
        self._forward = forward

    def write(self, data: bytes) -> None:
        """Pass on some of the request."""
        self._forward.send(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Pass on some of the request."""
        self._forward.send(b"".join(data))
