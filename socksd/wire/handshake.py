"""
Whose turn it is, on both sides of the conversation of RFC 1928.

Neither side does I/O: octets that arrived go in, messages and octets to send
come out, and what is behind the conversation stays where it can be relayed.
"""

from __future__ import annotations

from enum import Enum, auto

from socksd.address import Destination
from socksd.codes import VERSION, Command, Method, ReplyCode
from socksd.errors import LoginFailed, ProtocolError
from socksd.wire.socks5 import (
    UNSPECIFIED,
    Greeting,
    MethodSelection,
    Reply,
    Request,
    Status,
    UsernamePassword,
    write_destination,
)


class Turn(Enum):
    """The message that comes next, which also says who is to speak."""

    GREETING = auto()  # the client
    METHOD = auto()  # the server
    LOGIN = auto()  # the client
    STATUS = auto()  # the server
    NEGOTIATION = auto()  # both, by messages that are not of RFC 1928: RFC 1961
    REQUEST = auto()  # the client
    REPLY = auto()  # the server
    RELAY = auto()  # both: the reply was a success
    OVER = auto()  # nobody: it failed

    # Each is there once. Enum's own hashes the name in Python, for each look at a table.
    __hash__ = object.__hash__


# What the client sends at its turns, and whose turn it is then.
_CLIENT_MESSAGES: dict[Turn, tuple[type[Greeting | UsernamePassword | Request], Turn]] = {
    Turn.GREETING: (Greeting, Turn.METHOD),
    Turn.LOGIN: (UsernamePassword, Turn.STATUS),
    Turn.REQUEST: (Request, Turn.REPLY),
}
_AFTER_METHOD = {
    method: (turn, MethodSelection(method).encode())
    for method, turn in (
        (Method.NO_AUTHENTICATION, Turn.REQUEST),
        (Method.GSSAPI, Turn.NEGOTIATION),
        (Method.USERNAME_PASSWORD, Turn.LOGIN),
        (Method.NO_ACCEPTABLE, Turn.OVER),
    )
}

_REPLIES = {code: bytes((VERSION, code, 0)) for code in ReplyCode}  # what BND follows


class ServerHandshake:
    """
    The server's side: take the client's messages, give the octets that answer them.

    A client may send ahead, as far as its first payload: that waits in
    *unread*, whose growth is for the caller to bound. A BIND that succeeds is
    answered twice (RFC 1928 section 6): when we listen, and when the peer has
    connected.

    Attributes:
        turn: Whose turn it is.
        unread: What has arrived and was not taken; early payload at RELAY.
    """

    __slots__ = ("_listens", "turn", "unread")

    def __init__(self) -> None:
        self.turn = Turn.GREETING
        self.unread = bytearray()
        self._listens = False  # whether the next success is the first of two

    def receive(self, octets: bytes) -> None:
        """Add what has arrived, at any turn."""
        self.unread += octets

    def take(self) -> Greeting | UsernamePassword | Request | None:
        """
        Take the client's next message.

        Returns:
            The message, and then it is our turn; ``None`` while it is
            incomplete, or is not the client's turn.

        Raises:
            ProtocolError: There is no such message. Where the error has a
                reply it is our turn to send that, else all is OVER.
        """
        expected = _CLIENT_MESSAGES.get(self.turn)
        if expected is None:
            return None
        kind, following = expected
        try:
            message = kind.take(self.unread)
        except ProtocolError as error:
            self.turn = Turn.OVER if error.reply is None else Turn.REPLY
            raise
        if message is not None:
            self.turn = following
            if isinstance(message, Request) and message.command is Command.BIND:
                self._listens = True
        return message

    def choose(self, method: Method) -> bytes:
        """Answer the greeting; the client's turn then, or OVER for NO_ACCEPTABLE."""
        if self.turn is not Turn.METHOD:
            raise _out_of_turn("choose", self.turn, Turn.METHOD)
        self.turn, octets = _AFTER_METHOD[method]
        return octets

    def status(self, ok: bool) -> bytes:
        """Answer the login; the client's turn to send its request then, or OVER."""
        _in_turn("status", self.turn, Turn.STATUS)
        self.turn = Turn.REQUEST if ok else Turn.OVER
        return Status(ok).encode()

    def negotiated(self) -> None:
        """End a negotiation that others have conducted; the client's turn to send its request."""
        _in_turn("negotiated", self.turn, Turn.NEGOTIATION)
        self.turn = Turn.REQUEST

    def reply(self, code: ReplyCode, bound: Destination | None = None) -> bytes:
        """
        Answer the request (*bound* ``None``: 0.0.0.0:0); RELAY then, or OVER.

        After the first success of a BIND it is our turn still.
        """
        if self.turn is not Turn.REPLY:
            raise _out_of_turn("reply", self.turn, Turn.REPLY)
        if self._listens and code is ReplyCode.SUCCEEDED:
            self._listens = False
        else:
            self.turn = Turn.RELAY if code is ReplyCode.SUCCEEDED else Turn.OVER
        return _REPLIES[code] + write_destination(bound or UNSPECIFIED)


class ClientHandshake:
    """
    The client's side, to ask an upstream proxy for *destination*.

    Attributes:
        turn: What the server has to send; RELAY or OVER once that is settled.
        reply: The server's reply, a failure too, and of BIND the first;
            ``None`` until it is there.
        unread: What has arrived and was not taken; payload at RELAY.
    """

    __slots__ = ("_greeting", "_login", "_request", "reply", "turn", "unread")

    def __init__(
        self,
        destination: Destination,
        credentials: tuple[bytes, bytes] | None = None,
        command: Command = Command.CONNECT,
    ) -> None:
        """
        Args:
            destination: Where the server is to go.
            credentials: User name and password, to log in if the server
                wants that; ``None``: offer no login.
            command: What it is to do there.

        Raises:
            ValueError: A user name or a password of more than 255 octets.
        """
        methods = [Method.NO_AUTHENTICATION]
        self._login = None
        if credentials is not None:
            methods.append(Method.USERNAME_PASSWORD)
            self._login = UsernamePassword(*credentials).encode()
        self._greeting = Greeting(bytes(methods)).encode()
        self._request = Request(command, destination).encode()
        self.turn = Turn.GREETING
        self.reply: Reply | None = None
        self.unread = bytearray()

    def start(self) -> bytes:
        """Give the greeting to send first."""
        _in_turn("start", self.turn, Turn.GREETING)
        self.turn = Turn.METHOD
        return self._greeting

    def receive(self, octets: bytes) -> bytes:
        """
        Add what has arrived, at any turn after start().

        Returns:
            The octets to send next, perhaps none.

        Raises:
            LoginFailed: The server accepts no method, or refuses the login.
            ProtocolError: It broke the protocol. After either, all is OVER.
        """
        if self.turn is Turn.GREETING:
            raise RuntimeError("receive() at GREETING, before start()")
        self.unread += octets
        try:
            return self._converse()
        except (LoginFailed, ProtocolError):
            self.turn = Turn.OVER
            raise

    def _converse(self) -> bytes:
        """Go as far as what has arrived allows: a server may answer in one segment."""
        to_send = b""
        if self.turn is Turn.METHOD:
            selection = MethodSelection.take(self.unread)
            if selection is not None:
                to_send += self._answer(selection.method)
        if self.turn is Turn.STATUS:
            status = Status.take(self.unread)
            if status is not None:
                if not status.ok:
                    raise LoginFailed("the server refuses the user name or the password")
                self.turn = Turn.REPLY
                to_send += self._request
        if self.turn is Turn.REPLY:
            self.reply = Reply.take(self.unread)
            if self.reply is not None:
                self.turn = _after_reply(self.reply.code)
        return to_send

    def _answer(self, method: Method) -> bytes:
        if method is Method.NO_AUTHENTICATION:
            self.turn = Turn.REPLY
            return self._request
        if method is Method.NO_ACCEPTABLE:
            raise LoginFailed("the server accepts none of the methods offered")
        if method is Method.USERNAME_PASSWORD and self._login is not None:
            self.turn = Turn.STATUS
            return self._login
        raise ProtocolError(f"METHOD is {method.name}, which was not offered")


def _after_reply(code: ReplyCode) -> Turn:
    return Turn.RELAY if code is ReplyCode.SUCCEEDED else Turn.OVER


def _in_turn(call: str, turn: Turn, due: Turn) -> None:
    """Raise for a call out of turn, which is a mistake of ours and not of the peer's."""
    if turn is not due:
        raise _out_of_turn(call, turn, due)


def _out_of_turn(call: str, turn: Turn, due: Turn) -> RuntimeError:
    return RuntimeError(f"{call}() at {turn.name}, not at {due.name}")
