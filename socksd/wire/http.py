"""
What an HTTP client says to a proxy, and what it is told (RFC 9110, RFC 9112).

A head is read strictly. Whatever two readers may take for two things is
refused: what a target gets has to be what was judged. Nor is it ever passed on
as it came: ``encode`` writes it anew.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from typing import Final, Self

from socksd.address import Destination
from socksd.errors import AddressError, ProtocolError

MOST: Final = 32 * 1024  # octets of a head
FIELDS: Final = 100
LOGIN: Final = 255  # octets of a user name, and of a password: what RFC 1929 has room for

# RFC 9110 section 9.3.6: a 2xx to CONNECT MUST NOT have Content-Length or Transfer-Encoding.
ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
# RFC 7617 sections 2 and 2.1.
CHALLENGE: Final = 'Proxy-Authenticate: Basic realm="socksd", charset="UTF-8"'

_REQUEST_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])"
)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # all but HTAB
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)")  # RFC 3986 section 4.3
# An address of IPv6 in brackets, or what may be a name or an address of IPv4.
_AUTHORITY = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{0,5}))?")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_PREFERS = re.compile(rb"text/html|text/plain")

# RFC 9110 section 7.6.1, and what is between a client and its proxy alone.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class RequestHead:
    """
    A request's line and fields (RFC 9112 sections 3 and 5).

    Attributes:
        destination: Of the target in authority-form (CONNECT) or absolute-form.
        path: The target in origin-form, or ``*``; empty for CONNECT.
        minor: Of the version, HTTP/1.0 or HTTP/1.1.
        fields: Names as they were written, values without the white space around them.
        length: Octets of the body; ``None`` where it is chunked.
    """

    method: bytes
    destination: Destination
    path: bytes
    minor: int
    fields: Fields = field(repr=False)  # has passwords
    length: int | None

    @classmethod
    def take(cls, buffer: bytearray) -> Self | None:
        """
        Take one head.

        To look takes 0.1 ms where one of 30 KiB has no end yet: worth it when
        a line has come to its end, or MOST is reached.

        Raises:
            ProtocolError: It is none, or not one for a proxy; at the latest
                when it is whole, or longer than MOST. Has an answer.
        """
        end = buffer.find(b"\r\n\r\n", 0, MOST)
        if end < 0:
            _check_unfinished(buffer)
            return None
        head = cls._of(bytes(buffer[:end]).split(b"\r\n"))
        del buffer[: end + 4]
        return head

    @classmethod
    def _of(cls, lines: list[bytes]) -> Self:
        method, target, minor = _request_line(lines[0])
        _check_count(len(lines) - 1)
        fields = tuple(_field(line) for line in lines[1:])
        _check_host(_values(fields, b"host"), minor)
        length = _length(fields, minor)
        if method == b"CONNECT":
            if length != 0:  # RFC 9110 section 9.3.6: it has no content
                raise _error(HTTPStatus.BAD_REQUEST, "a CONNECT with content")
            return cls(method, _authority(target, None), b"", minor, fields, length)
        # RFC 9110 section 7.6.2: what a proxy MUST count down. TRACE would besides
        # show a script what the browser does not.
        if method == b"TRACE" or (method == b"OPTIONS" and _values(fields, b"max-forwards")):
            raise _error(HTTPStatus.NOT_IMPLEMENTED, "TRACE, or OPTIONS with Max-Forwards")
        destination, path = _absolute(target)
        if not path.startswith(b"/"):
            # RFC 9112 section 3.2.4: what the last proxy makes of an empty path.
            path = b"*" if method == b"OPTIONS" and not path else b"/" + path
        return cls(method, destination, path, minor, fields, length)

    def encode(self) -> bytes:
        """
        Give the head to send to the target.

        In origin-form, without what is for us alone; Host is what was judged,
        whatever the client has written there (RFC 9112 section 3.2.2).
        """
        fields = [
            (b"Host", _host(self.destination)),
            *end_to_end(self.fields, {b"host"}),
            (b"Via", b"1.%d socksd" % self.minor),  # RFC 9110 section 7.6.3
            (b"Connection", b"close"),
        ]
        if self.length is None:
            fields.append((b"Transfer-Encoding", b"chunked"))
        line = b"%b %b HTTP/1.%d\r\n" % (self.method, self.path, self.minor)
        return line + b"".join(b"%b: %b\r\n" % each for each in fields) + b"\r\n"

    def credentials(self) -> tuple[bytes, bytes] | None:
        """
        Give user name and password of Basic authentication (RFC 7617 section 2).

        ``None`` where there are none that could be right: then the client is
        to be asked for some (RFC 9110 section 11.4).
        """
        given = _values(self.fields, b"proxy-authorization")
        if len(given) != 1:
            return None
        scheme, _, encoded = given[0].partition(b" ")
        if scheme.lower() != b"basic":
            return None
        try:
            decoded = b64decode(encoded.strip(b" "), validate=True)
        except NotBase64:
            return None
        username, colon, password = decoded.partition(b":")
        if not colon or max(len(username), len(password)) > LOGIN:
            return None
        return username, password

    @property
    def persistent(self) -> bool:
        """Whether the client reads another answer on this connection (RFC 9112 section 9.3)."""
        options = _options(self.fields) | _options(self.fields, b"proxy-connection")
        if b"close" in options or self.length != 0:
            return False
        return self.minor == 1 or b"keep-alive" in options

    @property
    def prefers_html(self) -> bool:
        """Which of two kinds is named first; quality values are more than our pages need."""
        prefers = _PREFERS.search(b",".join(_values(self.fields, b"accept")).lower())
        return prefers is not None and prefers[0] == b"text/html"


def answer(
    status: HTTPStatus,
    text: str,
    *extra: str,
    html: bool = False,
    close: bool = True,
    body: bool = True,
) -> bytes:
    """
    Write an answer of our own.

    Args:
        status: Of the answer.
        text: What the person in front of the client reads, in paragraphs.
        extra: Further fields.
        html: As a page for a browser; else as plain text.
        close: Whether the connection ends behind it.
        body: Not after HEAD, which gets the length all the same.
    """
    write = _html if html else _plain
    page = write(f"{status.value} {status.phrase}", text).encode(errors="replace")
    fields = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: text/{'html' if html else 'plain'}; charset=utf-8",
        f"Content-Length: {len(page)}",
        "Cache-Control: no-store",
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'",
        "X-Content-Type-Options: nosniff",
        *extra,
        *(["Connection: close"] if close else []),
    ]
    head = "\r\n".join(fields) + "\r\n\r\n"
    return head.encode("ascii") + (page if body else b"")


def end_to_end(fields: Fields, without: AbstractSet[bytes]) -> Fields:
    """
    Leave out what is between two neighbours only, and names in *without*.

    That is also whatever Connection names (RFC 9110 section 7.6.1), but for
    Content-Length: where a body ends is no option.
    """
    dropped = ((_HOP_BY_HOP | _options(fields)) - {b"content-length"}) | without
    return tuple(
        (name, value)
        for name, value in fields
        if name.lower() not in dropped and not name.lower().startswith(b"proxy-")
    )


def _host(destination: Destination) -> bytes:
    """Write Host: without the port where that is http's own."""
    text = str(destination)
    if destination.port == 80:
        text = text.removesuffix(":80")
    return text.encode("ascii")


def _plain(title: str, text: str) -> str:
    return f"{title}\n\n{text}\n"


def _html(title: str, text: str) -> str:
    paragraphs = "".join(f"<p>{escape(each)}\n" for each in text.split("\n\n"))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n'
        "<style>body{font:1rem sans-serif;margin:2rem}</style>\n"
        f"<h1>{title}</h1>\n{paragraphs}</html>\n"
    )


def _error(status: HTTPStatus, message: str, advice: str = "") -> ProtocolError:
    """Make an error whose *message*, for the log and the client, has nothing that came in."""
    text = f"The gateway does not take this request: {message}."
    return ProtocolError(message, answer=answer(status, f"{text}\n\n{advice}" if advice else text))


def _check_unfinished(buffer: bytearray) -> None:
    """Raise where nothing that may follow makes a head of *buffer*."""
    line, found, _ = buffer.partition(b"\r\n")
    if found:
        _request_line(bytes(line))
    lines = buffer.count(b"\r\n")
    if buffer.count(b"\n") > lines:
        raise _error(HTTPStatus.BAD_REQUEST, "a line that ends without CR")
    _check_count(lines - 1)
    if len(buffer) >= MOST:
        # RFC 9112 section 3: a target that is too long; else RFC 6585 section 5.
        status = (
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if found else HTTPStatus.REQUEST_URI_TOO_LONG
        )
        raise _error(status, f"a head of more than {MOST} octets")


def _check_count(fields: int) -> None:
    if fields > FIELDS:
        raise _error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {FIELDS} fields")


def _request_line(line: bytes) -> tuple[bytes, bytes, int]:
    """Give method, target and minor version."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise _error(HTTPStatus.BAD_REQUEST, "not a request line of HTTP/1.1")
    method, target, major, minor = found.groups()
    if major != b"1" or minor not in b"01":
        raise _error(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "not HTTP/1.0 or HTTP/1.1")
    return method, target, int(minor)


def _field(line: bytes) -> tuple[bytes, bytes]:
    """
    Read a field line (RFC 9112 section 5).

    A line that goes on from the one before (obs-fold, section 5.2) and white
    space before the colon (5.1) have no name to begin with: both MUST be refused.
    """
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name):
        raise _error(HTTPStatus.BAD_REQUEST, "a line that is no field")
    if _CONTROL.search(value):
        raise _error(HTTPStatus.BAD_REQUEST, "a control character in a field")
    return name, value.strip(b" \t")


def _values(fields: Fields, name: bytes) -> list[bytes]:
    return [value for written, value in fields if written.lower() == name]


def _options(fields: Fields, name: bytes = b"connection") -> frozenset[bytes]:
    listed = b",".join(_values(fields, name)).lower().split(b",")
    return frozenset(option.strip(b" \t") for option in listed)


def _check_host(hosts: list[bytes], minor: int) -> None:
    """RFC 9112 section 3.2: none, two, or what is no host MUST be answered with 400."""
    if len(hosts) > 1 or (minor == 1 and not hosts):
        raise _error(HTTPStatus.BAD_REQUEST, "not exactly one Host")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise _error(HTTPStatus.BAD_REQUEST, "a Host that is none")


def _length(fields: Fields, minor: int) -> int | None:
    """Say how long the body is (RFC 9112 sections 6.1 to 6.3); ``None``: chunked."""
    codings = _values(fields, b"transfer-encoding")
    lengths = _values(fields, b"content-length")
    if codings:
        if lengths:  # an attempt at smuggling, section 6.3 says
            raise _error(HTTPStatus.BAD_REQUEST, "Transfer-Encoding with Content-Length")
        if minor == 0:  # section 6.1: faulty framing
            raise _error(HTTPStatus.BAD_REQUEST, "Transfer-Encoding in HTTP/1.0")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise _error(HTTPStatus.NOT_IMPLEMENTED, "a Transfer-Encoding other than chunked")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise _error(HTTPStatus.BAD_REQUEST, "not exactly one Content-Length")
    return int(lengths[0])


def _absolute(target: bytes) -> tuple[Destination, bytes]:
    """Read a target in absolute-form (RFC 9112 section 3.2.2): where to, and path with query."""
    if target.startswith(b"/") or target == b"*":
        raise _error(
            HTTPStatus.BAD_REQUEST,
            "this is a proxy, and not a web server",
            "Set the client up for an HTTP or SOCKS5 proxy, for example:"
            " curl --proxy http://HOST:PORT URL",
        )
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise _error(HTTPStatus.BAD_REQUEST, "not a target for a proxy")
    scheme, authority, path = found.groups()
    if scheme.lower() != b"http":
        raise _error(
            HTTPStatus.NOT_IMPLEMENTED, "a scheme other than http", "For others use CONNECT."
        )
    return _authority(authority, 80), path


def _authority(authority: bytes, default: int | None) -> Destination:
    """
    Read host and port.

    Userinfo is not taken (RFC 9110 section 4.2.4: it is there to mislead), nor is an empty
    host (4.2.1) or, where there is no *default*, an empty port (9.3.6).
    """
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise _error(HTTPStatus.BAD_REQUEST, "not a HOST:PORT")
    port = int(found[2]) if found[2] else default
    if port is None or not 0 < port < 65536:
        raise _error(HTTPStatus.BAD_REQUEST, "not a port")
    try:
        return Destination.named(found[1].decode("ascii"), port)
    except AddressError:
        raise _error(HTTPStatus.BAD_REQUEST, "not a host") from None
