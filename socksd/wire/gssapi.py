"""
The messages of RFC 1961, as values.

Their tokens are opaque here: ``identity`` establishes a security context with
them, and ``server`` puts what a client and we say to each other into them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from socksd.errors import ProtocolError

VERSION = 1  # "ver" of the sub-negotiation, RFC 1961 section 3.4
LONGEST = 0xFFFF  # octets of a token; "len" has two octets

_HEADER = 4


class MessageType(IntEnum):
    """MTYP, RFC 1961 sections 3.4, 3.8, 4.3 and 5."""

    AUTHENTICATION = 1
    PROTECTION = 2
    ENCAPSULATED = 3
    ABORT = 0xFF


ABORT = bytes((VERSION, MessageType.ABORT))  # the one message without a token


@dataclass(frozen=True, slots=True)
class Message:
    """
    One message with a token.

    RFC 1961 sections 3.4, 4.3 and 5: ``VER(1) MTYP(1) LEN(2) TOKEN(0..65535)``.
    """

    kind: MessageType
    token: bytes = field(repr=False)  # a ticket, or what it protects

    @classmethod
    def take(cls, buffer: bytearray, kind: MessageType) -> Self | None:
        """
        Take one message off the front of *buffer*, which stays as it is while it is incomplete.

        Args:
            buffer: What has arrived.
            kind: The one that is due.

        Raises:
            ProtocolError: VER is not 1, or MTYP is another. Never with a
                reply: what answers it is ABORT, while there is no context.
        """
        if buffer and buffer[0] != VERSION:
            raise ProtocolError(f"VER of a GSS-API message is {buffer[0]:#04x}, not 0x01")
        if len(buffer) > 1 and buffer[1] != kind:
            if buffer[1] == MessageType.ABORT:
                raise ProtocolError("the client has aborted GSS-API")
            raise ProtocolError(f"MTYP is {buffer[1]:#04x}, not {kind:#04x}")
        if len(buffer) < _HEADER:
            return None
        end = _HEADER + int.from_bytes(buffer[2:_HEADER], "big")
        if len(buffer) < end:
            return None
        token = bytes(buffer[_HEADER:end])
        del buffer[:end]
        return cls(kind, token)

    def encode(self) -> bytes:
        """
        Give its octets.

        Raises:
            OverflowError: The token is longer than LONGEST.
        """
        return bytes((VERSION, self.kind)) + len(self.token).to_bytes(2, "big") + self.token
