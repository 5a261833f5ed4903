"""
The page behind the reserved name: why was I refused?

SOCKS has one octet for a refusal (RFC 1928 section 6). A CONNECT to
``why.socksd``, port 80, is therefore answered by the gateway itself, with what
it has refused to this very caller. Nothing is looked up and nothing is dialled.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.address import Destination
from socksd.facts import Decision, Verdict
from socksd.interfaces import Ended, EndedBy, ICarrier, IEnd, IRelay, Tally
from socksd.server.states import State

if TYPE_CHECKING:
    from socksd.server.session import Session

DESTINATION: Final = Destination("why.socksd", 80)
MOST: Final = 8192  # octets of a request's head

_ALLOWED = Decision(Verdict.ALLOW, "why")
_REQUEST_LINE = re.compile(rb"([A-Z]+) \S+ HTTP/1\.[01]\r?\n")
_HEAD_ENDS = re.compile(rb"\r?\n\r?\n")
# Which of the two kinds it names first; quality values are more than this page needs.
_PREFERS = re.compile(rb"^accept:.*?(text/html|text/plain)", re.IGNORECASE | re.MULTILINE)


def why(session: Session) -> None:
    """Carry out a CONNECT to the reserved name: whoever gets this far may ask about itself."""
    facts, runtime = session.facts, session.runtime
    user = facts.principal.name if facts.principal else None
    session.decision = _ALLOWED
    session.enter(State.CONNECTING)
    page = WhyPage(
        session.end,
        lambda plain: runtime.refusals(facts.client, user, plain),
        runtime.clock,
        runtime.deadlines.handshake,
    )
    session.carry(page)


@implementer(IRelay, ICarrier)
class WhyPage:
    """
    Answer one HTTP request on a client's end, in the place of a target.

    Args:
        page: Writes the page; plain text where it is given ``True``.
        clock: For the deadline; the reactor.
        seconds: How long the client may take to ask, and then to take the
            answer and close.

    Attributes:
        up: Octets of the request.
        down: Octets of the answer.
    """

    def __init__(
        self, client: IEnd, page: Callable[[bool], str], clock: IReactorTime, seconds: float
    ) -> None:
        self.up = 0
        self.down = 0
        self._client = client
        self._page = page
        self._seconds = seconds
        self._head: bytearray | None = bytearray()  # None once it is answered
        self._ended_by: EndedBy | None = None
        self._deadline = clock.callLater(seconds, self._overdue)
        self._ended: Ended

    def join(self, early: bytes, ended: Ended) -> None:
        """Take the client's end over; see :class:`~socksd.interfaces.IRelay`."""
        self._ended = ended
        if early:
            self.data_received(early)
        self._client.carried_by(self)

    def abort(self) -> None:
        """Reset the connection now."""
        self._ended_by = EndedBy.US
        self._client.transport.abortConnection()

    def data_received(self, octets: bytes) -> None:
        """Take some of the request; what follows its head is read and dropped."""
        self.up += len(octets)
        if self._head is None:
            return
        self._head += octets
        end = _HEAD_ENDS.search(self._head)
        if (end.end() if end else len(self._head)) > MOST:
            self._answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif end:
            self._asked(bytes(self._head[: end.end()]))

    def read_ended(self) -> None:
        """The client asks no more; a whole question has been answered by now."""
        self._client.transport.loseConnection()

    def lost(self, reason: Failure) -> None:
        """The connection is gone."""
        if self._deadline.active():
            self._deadline.cancel()
        broken = not reason.check(ConnectionDone)
        ended_by = self._ended_by or (EndedBy.CLIENT if broken else EndedBy.BOTH)
        self._ended(Tally(self.up, self.down, ended_by))

    def _asked(self, head: bytes) -> None:
        line = _REQUEST_LINE.match(head)
        if line is None:
            self._answer(HTTPStatus.BAD_REQUEST)
        elif line[1] not in (b"GET", b"HEAD"):
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED)
        else:
            prefers = _PREFERS.search(head)
            plain = prefers is not None and prefers[1].lower() == b"text/plain"
            kind = "text/plain" if plain else "text/html"
            self._answer(HTTPStatus.OK, self._page(plain), kind, send_body=line[1] == b"GET")

    def _answer(
        self,
        status: HTTPStatus,
        page: str | None = None,
        kind: str = "text/plain",
        *,
        send_body: bool = True,
    ) -> None:
        self._head = None
        body = (f"{status.phrase}\n" if page is None else page).encode()
        allow = "Allow: GET, HEAD\r\n" if status is HTTPStatus.METHOD_NOT_ALLOWED else ""
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"Content-Type: {kind}; charset=utf-8\r\nContent-Length: {len(body)}\r\n{allow}"
            # Somebody else may be the next to ask from here.
            "Cache-Control: no-store\r\nContent-Security-Policy: default-src 'none'; "
            "style-src 'unsafe-inline'\r\nX-Content-Type-Options: nosniff\r\n"
            "Connection: close\r\n\r\n"
        ).encode()
        octets = head + body if send_body else head
        self.down = len(octets)
        self._client.transport.write(octets)
        self._client.finish_writing()
        self._deadline.reset(self._seconds)

    def _overdue(self) -> None:
        self._ended_by = EndedBy.IDLE
        self._client.transport.abortConnection()
