"""A client's end whose octets travel in GSS-API tokens (RFC 1961 section 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.errors import ProtocolError
from socksd.interfaces import ICarrier, IEnd, IEndTransport, ISecurityContext
from socksd.server.ends import End
from socksd.wire.gssapi import Message, MessageType


@implementer(ICarrier)
class Protected(End):
    """
    An end over another one: it carries that, and is carried itself as any end is.

    Nothing is held back but a message that is incomplete, 64 KiB, and what a
    token holds is never more than the token. So pausing, resuming, half-closing
    and what bounds the memory are left to the transport below.

    FIN has no token of its own: an end between two messages can be forged, as
    it can without any of this. Within a message it is a break.
    """

    def __init__(self, end: IEnd, context: ISecurityContext, confidential: bool) -> None:
        """
        Take *end* over.

        Args:
            end: The client's, with nothing unread.
            context: An established one.
            confidential: Whether tokens are encrypted: all of them, or none
                (RFC 1961 section 5), those of the client too.
        """
        super().__init__()
        self._end = end
        self._context = context
        self._confidential = confidential
        self._unread = bytearray()
        self._error: Failure | None = None
        wrapping = _Wrapping(end.transport, self._wrap, context.longest(confidential))
        self.transport = cast("IEndTransport", wrapping)
        end.carried_by(self)

    # -- what the end below tells us (ICarrier) ------------------------------

    def data_received(self, octets: bytes) -> None:
        """Tell what whole messages hold, all of it at once."""
        self._unread += octets
        plain = bytearray()
        try:
            while (message := Message.take(self._unread, MessageType.ENCAPSULATED)) is not None:
                held, confidential = self._context.unwrap(message.token)
                if confidential is not self._confidential:
                    raise ProtocolError("a GSS-API token of another protection level than agreed")
                plain += held
        except ProtocolError as error:
            self._break(error)
            return
        if plain:
            self.dataReceived(bytes(plain))

    def read_ended(self) -> None:
        """Tell of FIN, if it is the end of a message."""
        if self._unread:
            self._break(ProtocolError("FIN within a GSS-API message"))
        else:
            self.readConnectionLost()

    def lost(self, reason: Failure) -> None:
        """Tell of the end, and of what we have broken it for."""
        self.connectionLost(self._error or reason)

    # -- what our transport writes -------------------------------------------

    def _wrap(self, octets: bytes) -> bytes:
        try:
            token = self._context.wrap(octets, self._confidential)
        except ProtocolError as error:
            self._break(error)
            return b""
        return Message(MessageType.ENCAPSULATED, token).encode()

    def _break(self, error: ProtocolError) -> None:
        self._error = self._error or Failure(error)
        self._end.transport.abortConnection()


class _Wrapping:
    """The transport below, to its interfaces, but for what is written to it."""

    def __init__(
        self, transport: IEndTransport, wrap: Callable[[bytes], bytes], longest: int
    ) -> None:
        self._transport = transport
        self._wrap = wrap
        self._longest = longest

    def write(self, data: bytes) -> None:
        """Write *data* in as many messages as it takes."""
        for start in range(0, len(data), self._longest):
            self._transport.write(self._wrap(data[start : start + self._longest]))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Write all of *data*."""
        self.write(b"".join(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
