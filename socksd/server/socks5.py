"""SOCKS5 with a client (RFC 1928, RFC 1929; RFC 1961 is in ``gssapi``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from socksd.address import Destination
from socksd.codes import Method, ReplyCode
from socksd.events import MethodChosen, Outcome
from socksd.interfaces import IEnd
from socksd.server.dialogue import IDialogue
from socksd.server.gssapi import Gssapi
from socksd.server.states import State
from socksd.wire.handshake import ServerHandshake, Turn
from socksd.wire.socks5 import Greeting, Request

if TYPE_CHECKING:
    from socksd.server.session import Session

_CLIENTS_TURN = frozenset({Turn.GREETING, Turn.LOGIN, Turn.REQUEST})


@implementer(IDialogue)
class Socks5:
    """Method negotiation, authentication and request, on one session."""

    __slots__ = ("_handshake", "_session", "unread")

    protocol = "socks5"

    def __init__(self, session: Session) -> None:
        """Begin; the client speaks first."""
        self._session = session
        self._handshake = ServerHandshake()
        self.unread = self._handshake.unread

    @property
    def clients_turn(self) -> bool:
        """See :class:`~socksd.server.dialogue.IDialogue`."""
        return self._handshake.turn in _CLIENTS_TURN

    def receive(self, octets: bytes) -> None:
        """Add what has arrived, at any turn."""
        self.unread += octets

    def advance(self) -> None:
        """Take the messages that are there."""
        session = self._session
        while self.unread:
            message = self._handshake.take()
            if message is None:
                return
            if isinstance(message, Request):
                session.requested(message)
            elif isinstance(message, Greeting):
                self._greeted(message)
            else:
                session.log_in(message.username, message.password)

    def _greeted(self, greeting: Greeting) -> None:
        session = self._session
        acceptable = session.methods()
        for method in acceptable:
            if method in greeting.methods:
                break
        else:
            method = Method.NO_ACCEPTABLE
        session.end.send(self._handshake.choose(method))
        if MethodChosen in session.runtime.hears:
            session.tell(MethodChosen(session.number, method, greeting.methods))
        if method is Method.NO_ACCEPTABLE:
            offered = ", ".join(f"{number:#04x}" for number in greeting.methods[:16])
            session.finish(Outcome.NO_METHOD, f"offered only {offered}")
        elif method is Method.NO_AUTHENTICATION:
            session.anonymous()
        else:
            session.enter(State.AUTHENTICATING)
            if method is Method.GSSAPI:
                session.dialogue = Gssapi(session, self.unread, self._negotiated)
                session.dialogue.advance()

    def _negotiated(self) -> None:
        self._handshake.negotiated()
        self._session.dialogue = self

    def logged_in(self) -> None:
        """Say that user name and password were right."""
        self._session.end.send(self._handshake.status(ok=True))

    def login_refused(self, reason: str) -> None:
        """Say that they were not, and end: RFC 1929 section 2, the server MUST close."""
        self._session.end.send(self._handshake.status(ok=False))
        self._session.finish(Outcome.LOGIN_FAILED, reason)

    def ends(self, target: IEnd) -> tuple[IEnd, IEnd]:
        """Join the two as they are."""
        return self._session.end, target

    def granted(self, bound: Destination | None) -> None:
        """Send the reply that says so."""
        self._session.end.send(self._handshake.reply(ReplyCode.SUCCEEDED, bound))

    def refused(self, code: ReplyCode, reason: str) -> bool:
        """Send what is owed at this turn: a STATUS, a reply, or nothing."""
        turn = self._handshake.turn
        if turn is Turn.STATUS:
            self._session.end.send(self._handshake.status(ok=False))
        elif turn is Turn.REPLY:
            self._session.end.send(self._handshake.reply(code))
        return turn is Turn.REPLY
