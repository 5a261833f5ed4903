"""SOCKS4 and 4A with a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from socksd.address import Destination
from socksd.codes import Command, Method, ReplyCode
from socksd.events import Outcome
from socksd.interfaces import IEnd
from socksd.server.dialogue import IDialogue
from socksd.wire.socks4 import Reply, Request
from socksd.wire.socks5 import UNSPECIFIED

if TYPE_CHECKING:
    from socksd.server.session import Session

_REJECTED = Reply(False, UNSPECIFIED).encode()


@implementer(IDialogue)
class Socks4:
    """
    One request, on one session.

    There is no login: USERID is a claim, told to the log and to nobody else.
    """

    __slots__ = ("_owed", "_session", "clients_turn", "unread")

    protocol = "socks4a"

    def __init__(self, session: Session) -> None:
        """Begin; the client speaks first."""
        self._session = session
        self._owed = 1  # replies, unless one is a rejection
        self.clients_turn = True
        self.unread = bytearray()

    def receive(self, octets: bytes) -> None:
        """Add what has arrived, at any turn."""
        self.unread += octets

    def advance(self) -> None:
        """Take the request, if it is there."""
        request = Request.take(self.unread)
        if request is None:
            return
        session, self.clients_turn = self._session, False
        if Method.NO_AUTHENTICATION not in session.methods():
            session.request = request  # for the log
            session.end.send(_REJECTED)
            session.finish(Outcome.NO_METHOD, "has to log in, which SOCKS4 cannot")
            return
        if request.command is Command.BIND:
            self._owed = 2
        session.anonymous()
        session.requested(request)

    def logged_in(self) -> None:
        """Say nothing: nobody logs in."""

    def login_refused(self, reason: str) -> None:
        """Say nothing: nobody logs in."""

    def ends(self, target: IEnd) -> tuple[IEnd, IEnd]:
        """Join the two as they are."""
        return self._session.end, target

    def granted(self, bound: Destination | None) -> None:
        """Send the reply that says so."""
        self._owed -= 1
        self._session.end.send(Reply(True, bound or UNSPECIFIED).encode())

    def refused(self, code: ReplyCode, reason: str) -> bool:
        """Send the reply that says so, if it is owed: SOCKS4 has one for all reasons."""
        owed, self._owed = self._owed > 0, 0
        if owed:
            self._session.end.send(_REJECTED)
        return owed
