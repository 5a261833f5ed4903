"""Ask a control socket from within the reactor: one question, one answer, under a deadline."""

from __future__ import annotations

import json
from functools import partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from socksd.admin.routes import Body, IReactorControlled
from socksd.errors import SocksdError

SECONDS: Final = 3.0  # that an answer may take; a worker that serves has it in milliseconds
MOST: Final = 32 << 20  # octets of an answer: ten thousand clients with ten destinations each

# What becomes of a question where there is nobody, not in time, or something else.
_NO_ANSWER: Final = (
    *(ConnectError, OSError, ValueError),
    *(CancelledError, ConnectingCancelledError, DeferredTimeoutError),
)


class NoAnswer(SocksdError):
    """Nobody answers there, or not in time, or not as a server of ours does."""


class Said(NamedTuple):
    """An answer."""

    status: int  # of HTTP
    what: dict[str, Any]


class Asking:
    """Ask servers on unix sockets."""

    def __init__(self, reactor: IReactorControlled) -> None:
        self._reactor = reactor

    def ask(
        self, socket: str, method: str, path: str, body: Body, seconds: float = SECONDS
    ) -> Deferred[Said]:
        """
        Ask. The Deferred fails with NoAnswer.

        With GET, too, *body* goes as JSON, so that numbers and lists stay what they are.
        """
        answer = Deferred.fromCoroutine(self._ask(socket, _request(method, path, body)))
        return answer.addTimeout(seconds, self._reactor).addErrback(_nobody)

    async def _ask(self, socket: str, request: bytes) -> Said:
        endpoint = UNIXClientEndpoint(self._reactor, socket)
        factory = Factory.forProtocol(partial(_Conversation, request))
        factory.noisy = False  # or the log of a parent would have two lines for each question
        conversation = cast("_Conversation", await endpoint.connect(factory))
        return _said(await conversation.over)


class _Conversation(Protocol):
    """
    One request and what comes back, until the server closes.

    By HTTP/1.0, in which nothing follows an answer and nothing stands between
    its octets; Agent, which knows more, cannot abort a body that is too long.
    """

    transport: ITCPTransport  # of it, what a unix socket has as well

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._octets = bytearray()
        self.over: Deferred[bytes] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._octets += data
        if len(self._octets) > MOST:
            self._octets.clear()
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.over.called:
            self.over.callback(bytes(self._octets))


def _request(method: str, path: str, body: Body) -> bytes:
    octets = json.dumps(body).encode("ascii")
    head = f"{method} {path} HTTP/1.0\r\nContent-Length: {len(octets)}\r\n\r\n"
    return head.encode("ascii") + octets


def _said(answer: bytes) -> Said:
    """
    Take an answer apart.

    Raises:
        ValueError: It is none, or not whole: half a JSON object is no JSON.
    """
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = head.split(maxsplit=2)
    if len(fields) < 2:
        raise ValueError("it has closed the connection")
    status, what = HTTPStatus(int(fields[1])), json.loads(body)
    if not isinstance(what, dict):
        raise ValueError("it has sent no JSON object")
    return Said(status, what)


def _nobody(failure: Failure) -> Failure:
    """Say in one word that there is no answer, whatever has become of it."""
    failure.trap(*_NO_ANSWER)
    return Failure(NoAnswer(failure.getErrorMessage()))
