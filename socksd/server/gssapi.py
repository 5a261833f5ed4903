"""The sub-negotiation of GSS-API (RFC 1961 sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from zope.interface import implementer

from socksd.address import Destination
from socksd.codes import Protection, ReplyCode
from socksd.errors import LoginFailed, ProtocolError
from socksd.events import Outcome
from socksd.facts import Principal
from socksd.interfaces import Accepted, IEnd
from socksd.server.dialogue import IDialogue
from socksd.server.protected import Protected
from socksd.wire.gssapi import ABORT, Message, MessageType

if TYPE_CHECKING:
    from socksd.server.session import Session


@implementer(IDialogue)
class Gssapi:
    """
    A dialogue within SOCKS5's, in its place until it is settled who the client is.

    Tokens go to and fro until there is a security context. Then the client
    says how it wants messages protected, and our answer decides; what follows
    that answer, both ways, is protected by the session's end.
    """

    __slots__ = (
        "_context",
        "_level",
        "_principal",
        "_session",
        "_settled",
        "clients_turn",
        "unread",
    )

    protocol = "socks5"

    def __init__(self, session: Session, unread: bytearray, settled: Callable[[], object]) -> None:
        """
        Begin; the client speaks first.

        Args:
            session: Whose end is protected in the end.
            unread: What has arrived already; shared with whom it goes on with.
            settled: Takes the place back, for the request.
        """
        self._session = session
        self._settled = settled
        self._context = session.runtime.authenticator.security_context(session.facts.client)
        self._principal: Principal | None = None  # known once there is a security context
        self._level = Protection.NONE
        self.clients_turn = True
        self.unread = unread

    def receive(self, octets: bytes) -> None:
        """Add what has arrived, at any turn."""
        self.unread += octets

    def advance(self) -> None:
        """Take the message that is due, if it is there."""
        try:
            if self._principal is None:
                self._take_token()
            else:
                self._take_level(self._principal)
        except ProtocolError as error:
            raise ProtocolError(str(error), answer=ABORT) from error

    def _take_token(self) -> None:
        message = Message.take(self.unread, MessageType.AUTHENTICATION)
        if message is not None:
            self.clients_turn = False
            self._session.authenticate(self._accept(message.token))

    async def _accept(self, token: bytes) -> None:
        try:
            accepted: Accepted = await self._context.accept(token)
        except LoginFailed as failed:
            self._session.refuse_login("", failed.reason)  # a token names nobody by itself
            return
        # Without a token of ours an empty one: section 3.6, it tells the client to go on.
        self._session.end.send(Message(MessageType.AUTHENTICATION, accepted.token).encode())
        self._principal = accepted.principal
        self.clients_turn = True

    def _take_level(self, principal: Principal) -> None:
        message = Message.take(self.unread, MessageType.PROTECTION)
        if message is None:
            return
        if len(message.token) == 1:
            # As the reference implementation has it (curl --socks5-gssapi-nec):
            # whoever is in between could have it lowered.
            raise ProtocolError("a protection level that is not protected itself")
        asked, _ = self._context.unwrap(message.token)
        if len(asked) != 1:
            raise ProtocolError(f"a protection level of {len(asked)} octets")
        if self.unread:
            # It cannot know yet how to protect it, and perhaps it is not its own.
            raise ProtocolError("more than a protection level before one was agreed on")
        self._level = self._context.agree(asked[0])
        self.clients_turn = False
        self._session.accept_login(principal)

    def logged_in(self) -> None:
        """Say by which level messages are protected from here on, and do so."""
        session, level = self._session, self._level
        answer = self._context.wrap(bytes((level,)), False)
        session.end.send(Message(MessageType.PROTECTION, answer).encode())
        if level is not Protection.NONE:
            confidential = level is Protection.CONFIDENTIALITY
            session.end = Protected(session.end, self._context, confidential)
            session.end.carried_by(session)
        self._settled()

    def login_refused(self, reason: str) -> None:
        """Abort, and end."""
        self._session.end.send(ABORT)
        self._session.finish(Outcome.LOGIN_FAILED, reason)

    def ends(self, target: IEnd) -> tuple[IEnd, IEnd]:
        """Do not expect this: there is no request here."""
        raise RuntimeError("ends() before there is a request")

    def granted(self, bound: Destination | None) -> None:
        """Do not expect this: there is no request here."""
        raise RuntimeError("granted() before there is a request")

    def refused(self, code: ReplyCode, reason: str) -> bool:
        """Abort; *code* is an answer to a request only."""
        self._session.end.send(ABORT)
        return False
