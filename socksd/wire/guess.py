"""
What is on the line when nobody here speaks what begins with that octet.

A browser with the wrong kind of proxy set, a TLS client, an old SOCKS: each is
told by its first octet, and answered in its own language, so that the person
in front of it reads more than "connection closed".
"""

from __future__ import annotations

from typing import NamedTuple

from socksd.codes import VERSION
from socksd.errors import ProtocolError


class _Guess(NamedTuple):
    language: str  # a noun for the log
    answer: bytes


_ADVICE = (
    b"This port speaks SOCKS5, not HTTP. Set the client up for a SOCKS5 proxy,"
    b" for example: curl --proxy socks5h://HOST:PORT URL\n"
)
_HTTP = _Guess(
    "HTTP",
    b"HTTP/1.1 400 Bad Request\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: %d\r\n"
    b"Connection: close\r\n"
    b"\r\n%b" % (len(_ADVICE), _ADVICE),
)

# RFC 8446 section 6: an alert record (21), version 0x0303, two octets, fatal (2)
# handshake_failure (40). Not protocol_version (70): it invites the client to try
# an older TLS.
_TLS = _Guess("a TLS ClientHello", b"\x15\x03\x03\x00\x02\x02\x28")

# The SOCKS 4 reply: VN 0, CD 91 (request rejected or failed), a port and an address unused.
_SOCKS4 = _Guess("SOCKS4", b"\x00\x5b" + bytes(6))

# RFC 1928 section 3: none of the methods is acceptable.
_SOCKS5 = _Guess("SOCKS5", b"\x05\xff")

_GUESSES = {
    0x04: _SOCKS4,
    VERSION: _SOCKS5,
    0x16: _TLS,  # the content type "handshake", RFC 8446 section 5.1
    **dict.fromkeys(range(ord("A"), ord("Z") + 1), _HTTP),  # methods are in upper case
}


def wrong_version(octet: int) -> ProtocolError:
    """Make the error for a first *octet* that nobody understands, with the answer it gets."""
    message = f"VER is {octet:#04x}"
    message += f", not {VERSION:#04x}" if octet != VERSION else ", which is not spoken here"
    guess = _GUESSES.get(octet)
    if guess is None:
        return ProtocolError(message)
    return ProtocolError(f"{message}: it seems to be {guess.language}", answer=guess.answer)
