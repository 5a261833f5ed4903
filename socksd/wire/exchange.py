"""
One request and its response, on their way through a proxy (RFC 9112).

Both are taken apart and written anew by h11. So nothing but one request
reaches the target, framed in one way only, and the client gets one response.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import h11

from socksd.errors import ProtocolError
from socksd.wire.http import end_to_end

MOST: Final = 64 * 1024  # octets of a head, or of a line between chunks


class Exchange:
    """
    Between a client and a target, for the length of one request.

    What is taken in comes out again in the same call: nothing waits here but
    a head or a line that is not whole.

    Attributes:
        asked: The whole request has been passed on; what comes up behind it is dropped.
        begun: The client is being given the response, other than an interim one.
        answered: The whole response has been passed on.
    """

    __slots__ = ("_client", "_target", "answered", "asked", "begun")

    def __init__(self) -> None:
        """Begin with the client's head, as RequestHead.encode() writes it."""
        self._client = h11.Connection(h11.SERVER, MOST)
        self._target = h11.Connection(h11.CLIENT, MOST)
        self.asked = False
        self.begun = False
        self.answered = False

    def up(self, octets: bytes) -> bytes:
        """
        Give what the target is to be sent for *octets* of the client.

        Raises:
            ProtocolError: The body is not framed as its head says.
        """
        if self.asked or self.answered or not octets:
            return b""
        sent: list[bytes] = []
        try:
            self._client.receive_data(octets)
            while isinstance(event := self._client.next_event(), h11.Event):
                if isinstance(event, h11.Request):
                    # In HTTP/1.1, whatever the client speaks (RFC 9110 section 2.5).
                    event = h11.Request(
                        method=event.method,
                        target=event.target,
                        headers=event.headers.raw_items(),
                    )
                elif isinstance(event, h11.EndOfMessage):
                    event = h11.EndOfMessage()  # RFC 9110 section 6.5.1: trailers may be dropped
                    self.asked = True
                sent.append(self._target.send(event) or b"")
                if self.asked:
                    break
        except h11.ProtocolError as error:
            raise ProtocolError("the body of a request is not framed as its head says") from error
        return b"".join(sent)

    def down(self, octets: bytes) -> bytes:
        """
        Give what the client is to be sent for *octets* of the target; ``b""`` is its end.

        Raises:
            ProtocolError: It is no response, or ends too early.
        """
        sent: list[bytes] = []
        try:
            self._target.receive_data(octets)
            while not self.answered and isinstance(event := self._target.next_event(), h11.Event):
                sent.append(self._passed_on(event))
        except h11.ProtocolError as error:
            raise ProtocolError("the target gives no response of HTTP/1.1") from error
        return b"".join(sent)

    def _passed_on(self, event: h11.Event) -> bytes:
        if isinstance(event, h11.InformationalResponse):
            if self._client.their_http_version == b"1.0":  # RFC 9110 section 15.2: MUST NOT
                return b""
            interim = h11.InformationalResponse(
                status_code=event.status_code, headers=_fields(event), reason=event.reason
            )
            return self._client.send(interim)
        if isinstance(event, h11.Response):
            if event.status_code == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                # It would be the login here that the client is asked for.
                raise ProtocolError("the target asks for a login as a proxy does")
            self.begun = True
            fields = [
                *_fields(event),
                (b"Via", b"%b socksd" % event.http_version),  # RFC 9110 section 7.6.3
                (b"Connection", b"close"),
            ]
            response = h11.Response(
                status_code=event.status_code, headers=fields, reason=event.reason
            )
            return self._client.send(response)
        if isinstance(event, h11.EndOfMessage):
            self.answered = True
            event = h11.EndOfMessage()
        return self._client.send(event) or b""


def _fields(response: h11.Response | h11.InformationalResponse) -> list[tuple[bytes, bytes]]:
    """
    Give the fields to pass on.

    Where there is no Content-Length h11 frames the body itself: in chunks, or
    by the end of the connection for a client of HTTP/1.0. Beside a
    Transfer-Encoding it is none (RFC 9112 section 6.3).
    """
    fields = tuple(response.headers.raw_items())
    chunked = any(name == b"transfer-encoding" for name, _ in response.headers)
    return list(end_to_end(fields, {b"content-length"} if chunked else set()))
