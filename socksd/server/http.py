"""HTTP with a client that takes us for its proxy (RFC 9110, RFC 9112, RFC 7617)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from zope.interface import implementer

from socksd.address import Destination
from socksd.codes import Command, Method, ReplyCode
from socksd.events import Outcome
from socksd.facts import Decision, Verdict
from socksd.interfaces import IEnd
from socksd.server.dialogue import IDialogue
from socksd.server.forward import Forward
from socksd.server.states import State
from socksd.wire.http import CHALLENGE, ESTABLISHED, MOST, RequestHead, answer
from socksd.wire.socks5 import Request

if TYPE_CHECKING:
    from socksd.server.session import Session

CHALLENGES: Final = 3  # on one connection; who knows a login needs one

_LOGIN = "This gateway wants a user name and a password."
_NO_LOGIN = "This gateway wants a login of a kind that HTTP clients cannot give here."
# What a reply of SOCKS says, in HTTP's words; NOT_ALLOWED is told by its rule.
_REFUSED = {
    ReplyCode.CONNECTION_REFUSED: (HTTPStatus.BAD_GATEWAY, "It refuses connections."),
    ReplyCode.HOST_UNREACHABLE: (
        HTTPStatus.BAD_GATEWAY,
        "There is no such name, or no way to the host.",
    ),
    ReplyCode.NETWORK_UNREACHABLE: (HTTPStatus.BAD_GATEWAY, "There is no way to its network."),
}
_OURS = (HTTPStatus.SERVICE_UNAVAILABLE, "The gateway cannot do this at the moment.")
_LATE = (HTTPStatus.GATEWAY_TIMEOUT, "There was no answer in time.")


@implementer(IDialogue)
class HTTPConnect:
    """
    Heads until one may be carried out, on one session.

    CONNECT is a tunnel, like any other command's. A request in absolute-form
    (``GET http://...``) is forwarded: the connection then carries that one
    and its response, and is closed, so that nothing comes to a target that
    was not judged.
    """

    __slots__ = ("_challenges", "_head", "_session", "_worth_a_look", "clients_turn", "unread")

    protocol = "http-connect"

    def __init__(self, session: Session) -> None:
        """Begin; the client speaks first."""
        self._session = session
        self._head: RequestHead | None = None  # the last one
        self._challenges = 0
        self._worth_a_look = False
        self.clients_turn = True
        self.unread = bytearray()

    def receive(self, octets: bytes) -> None:
        """Add what has arrived, at any turn."""
        self.unread += octets
        # Not at each octet of a line that comes octet by octet: see RequestHead.take().
        self._worth_a_look = b"\n" in octets or len(self.unread) >= MOST

    def advance(self) -> None:
        """Take the head that is there, or carry out the one whose login was right."""
        if self._head is not None and self._session.state is State.REQUESTING:
            self._request(self._head)
        while (head := self._take()) is not None:
            self._head = head
            self._identify(head)

    def _take(self) -> RequestHead | None:
        due = self.clients_turn and self._worth_a_look
        return RequestHead.take(self.unread) if due else None

    def _identify(self, head: RequestHead) -> None:
        session = self._session
        methods = session.methods()
        credentials = head.credentials()
        if credentials is not None and Method.USERNAME_PASSWORD in methods:
            self.clients_turn = False
            self._authenticate()
            session.log_in(*credentials)
        elif Method.NO_AUTHENTICATION in methods:
            session.anonymous()
            self._request(head)
        elif Method.USERNAME_PASSWORD in methods:
            self._challenge(head)
        else:
            self.clients_turn = False
            self._answer(HTTPStatus.FORBIDDEN, _NO_LOGIN)
            session.finish(Outcome.NO_METHOD, "only methods that HTTP does not have would do")

    def _challenge(self, head: RequestHead) -> None:
        """Ask for a login: on this connection, if the client stays and has not been asked often."""
        self._challenges += 1
        close = not head.persistent or self._challenges == CHALLENGES
        self._answer(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, _LOGIN, CHALLENGE, close=close)
        if close:
            self.clients_turn = False
            self._session.finish(Outcome.NO_METHOD, "came without a login")
        else:
            self._authenticate()

    def _authenticate(self) -> None:
        if self._session.state is not State.AUTHENTICATING:
            self._session.enter(State.AUTHENTICATING)

    def _request(self, head: RequestHead) -> None:
        self.clients_turn = False
        self._session.requested(Request(Command.CONNECT, head.destination))

    def logged_in(self) -> None:
        """Say nothing: the answer to the request will."""

    def login_refused(self, reason: str) -> None:
        """Ask for another, on another connection: one try on each, as RFC 1929 has it."""
        self._answer(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, _LOGIN, CHALLENGE)
        self._session.finish(Outcome.LOGIN_FAILED, reason)

    def ends(self, target: IEnd) -> tuple[IEnd, IEnd]:
        """Join the two; for a request in absolute-form with what forwards it before the target."""
        session = self._session
        return session.end, target if self._is_tunnel else Forward(target, session.settled)

    @property
    def _is_tunnel(self) -> bool:
        return self._head is not None and self._head.method == b"CONNECT"

    def granted(self, bound: Destination | None) -> None:
        """Say so for a tunnel; else have the head go first of what the target hears."""
        if self._head is None or self._is_tunnel:
            self._session.end.send(ESTABLISHED)
        else:
            self.unread[:0] = self._head.encode()

    def refused(self, code: ReplyCode, reason: str) -> bool:
        """Say why, by a status and in words."""
        session = self._session
        if code is ReplyCode.NOT_ALLOWED:
            status, text = HTTPStatus.FORBIDDEN, _forbidden(session.decision)
        else:
            status, text = _LATE if session.overdue else _REFUSED.get(code, _OURS)
        request = session.request
        self._answer(status, f"{request.destination}\n\n{text}" if request is not None else text)
        return request is not None

    def _answer(self, status: HTTPStatus, text: str, *fields: str, close: bool = True) -> None:
        head = self._head
        octets = answer(
            status,
            text,
            *fields,
            html=head is not None and head.prefers_html,
            close=close,
            body=head is None or head.method != b"HEAD",
        )
        self._session.end.send(octets)


def _forbidden(decision: Decision | None) -> str:
    """Say which rule it was, and what it has to say for itself."""
    if decision is None or decision.verdict is not Verdict.DENY:
        return "The gateway's own host does not permit connecting there."
    detail = f" ({decision.detail})" if decision.detail else ""
    text = f"\n\n{decision.text}" if decision.text else ""
    why = "What has been refused to you lately: http://why.socksd/"
    return f"Rule {decision.rule}{detail} does not allow this.{text}\n\n{why}"
