from __future__ import annotations

import http.client
import io
from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.errors import ProtocolError
from socksd.wire.exchange import Exchange
from socksd.wire.http import RequestHead
from tests.wire.strategies import damaged, split

IN_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


def head(method: bytes = b"GET", *fields: bytes, version: bytes = b"1.1") -> bytes:
    """A head of a client, as the dialogue hands it on."""
    line = b"%b http://example.com/ HTTP/%b" % (method, version)
    octets = b"\r\n".join([line, b"Host: x", *fields, b"", b""])
    taken = RequestHead.take(bytearray(octets))
    assert taken is not None
    return taken.encode()


def asked(*request: bytes) -> Exchange:
    """An exchange whose request is whole."""
    exchange = Exchange()
    exchange.up(b"".join(request) or head())
    assert exchange.asked
    return exchange


class _Received:
    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._octets)


def read(octets: bytes, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    """Read a response as a client does."""
    response = http.client.HTTPResponse(_Received(octets), method=method)  # type: ignore[arg-type]  # all it reads from
    response.begin()
    return response, response.read()


# -- the request --------------------------------------------------------------


def test_a_request_without_a_body_goes_on_at_once() -> None:
    exchange = Exchange()
    assert exchange.up(head(b"GET", b"X: 1")) == (
        b"GET / HTTP/1.1\r\nHost: example.com\r\nX: 1\r\nVia: 1.1 socksd\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert exchange.asked


@pytest.mark.parametrize(
    ("framing", "body", "sent"),
    [
        (b"Content-Length: 5", b"hello", b"hello"),
        (b"Transfer-Encoding: chunked", CHUNKED, CHUNKED),
        (b"Transfer-Encoding: chunked", b"5;a=b\r\nhello\r\n0\r\nT: 1\r\n\r\n", CHUNKED),
    ],
    ids=["length", "chunks", "trailers and extensions"],
)
def test_a_body_is_framed_anew_and_what_follows_it_is_dropped(
    framing: bytes, body: bytes, sent: bytes
) -> None:
    """A second request would reach a target that was judged for the first only."""
    exchange = Exchange()
    first = exchange.up(head(b"POST", framing))
    assert first.startswith(b"POST / HTTP/1.1\r\n")
    assert not exchange.asked
    assert exchange.up(body + b"GET http://evil/ HTTP/1.1\r\n\r\n") == sent
    assert exchange.asked
    assert exchange.up(b"GET http://evil/ HTTP/1.1\r\n\r\n") == b""


def test_a_client_of_http_1_0_is_spoken_for_in_1_1() -> None:
    exchange = Exchange()
    sent = exchange.up(head(version=b"1.0"))
    assert sent.startswith(b"GET / HTTP/1.1\r\n")
    assert b"\r\nVia: 1.0 socksd\r\n" in sent


@pytest.mark.parametrize("body", [b"x\r\n", b"-5\r\nhello", b"5\r\nhelloXX", b"5\nhello\r\n"])
def test_chunks_that_are_none_end_the_request(body: bytes) -> None:
    exchange = Exchange()
    exchange.up(head(b"POST", b"Transfer-Encoding: chunked"))
    with pytest.raises(ProtocolError):
        exchange.up(body + bytes(70_000))


# -- the response -------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", id="a length"),
        pytest.param(IN_CHUNKS + CHUNKED, id="chunks"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nhello", id="the end of the connection"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
            id="both",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_response_comes_back_however_it_is_framed(octets: bytes, version: bytes) -> None:
    exchange = asked(head(version=version))
    received = exchange.down(octets)
    if not exchange.answered:
        received += exchange.down(b"")
    assert exchange.answered
    response, body = read(received)
    assert (response.status, body) == (200, b"hello")
    assert response.getheader("Connection") == "close"
    assert response.getheader("Via") in ("1.0 socksd", "1.1 socksd")
    assert (version == b"1.1") or response.getheader("Transfer-Encoding") is None


def test_what_is_between_the_target_and_us_stays_there() -> None:
    received = asked().down(
        b"HTTP/1.1 200 OK\r\nConnection: x, keep-alive\r\nX: 1\r\nKeep-Alive: 5\r\n"
        b"Proxy-Authenticate: Basic realm=y\r\nUpgrade: h2c\r\nA: 1\r\nSet-Cookie: a\r\n"
        b"Set-Cookie: b\r\nContent-Length: 0\r\n\r\n"
    )
    assert received == (
        b"HTTP/1.1 200 OK\r\nA: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n"
        b"Via: 1.1 socksd\r\nConnection: close\r\n\r\n"
    )


def test_a_body_that_head_has_not_got_is_not_waited_for() -> None:
    exchange = asked(head(b"HEAD"))
    response, body = read(exchange.down(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), "HEAD")
    assert exchange.answered
    assert (response.getheader("Content-Length"), body) == ("5", b"")


def test_an_interim_response_comes_first() -> None:
    exchange = Exchange()
    exchange.up(head(b"POST", b"Expect: 100-continue", b"Content-Length: 2"))
    assert exchange.down(b"HTTP/1.1 100 Continue\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not exchange.begun
    assert exchange.up(b"ab") == b"ab"
    exchange.down(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert exchange.begun
    assert exchange.answered


def test_http_1_0_has_no_interim_responses() -> None:
    exchange = asked(head(version=b"1.0"))
    assert exchange.down(b"HTTP/1.1 103 Early Hints\r\n\r\n") == b""


def test_a_response_may_come_before_the_end_of_the_request() -> None:
    """And what is left of that has nowhere to go."""
    exchange = Exchange()
    exchange.up(head(b"POST", b"Content-Length: 5"))
    exchange.down(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert exchange.answered
    assert exchange.up(b"hello") == b""


def test_what_follows_a_response_is_dropped() -> None:
    exchange = asked()
    received = exchange.down(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n\r\n"
    )
    assert received.endswith(b"\r\n\r\na")


@pytest.mark.parametrize(
    "segments",
    [
        pytest.param([b""], id="nothing"),
        pytest.param([b"HTTP/1.1 200 OK\r\n", b""], id="half a head"),
        pytest.param([b"220 mail.example.com ESMTP\r\n\r\n"], id="another protocol"),
        pytest.param([b"\x15\x03\x03\x00\x02\x02\x28"], id="TLS"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"a", b""], id="cut"),
        pytest.param(
            [IN_CHUNKS, b"5\r\nhello", b""],
            id="cut between chunks",
        ),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n"], id="two lengths"),
        pytest.param([b"HTTP/1.1 200 OK\r\nA: " + bytes(70_000)], id="a head without an end"),
        pytest.param([b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], id="an upgrade"),
        pytest.param([b"HTTP/1.1 407 Log In\r\nContent-Length: 0\r\n\r\n"], id="asks for a login"),
    ],
)
def test_what_is_no_response_is_an_error(segments: list[bytes]) -> None:
    """A 407 would make a browser ask for, and send, the login for this very proxy."""
    exchange = asked()
    for segment in segments[:-1]:
        exchange.down(segment)
    with pytest.raises(ProtocolError):
        exchange.down(segments[-1])


# -- however it comes ---------------------------------------------------------


def through(octets: Iterable[bytes]) -> bytes:
    exchange = Exchange()
    return b"".join(map(exchange.up, octets))


@given(
    st.data(),
    st.sampled_from(
        [
            head(b"POST", b"Content-Length: 12") + b"hello, world",
            head(b"PUT", b"Content-Length: 0"),
            head(b"GET"),
        ]
    ),
)
def test_splitting_a_request_changes_nothing(data: st.DataObject, request_: bytes) -> None:
    octets = request_ + b"GET / HTTP/1.1\r\n\r\n"
    assert through(data.draw(split(octets))) == through([octets])


@given(st.lists(st.one_of(st.binary(max_size=60), damaged(st.just(CHUNKED))), max_size=5))
def test_nothing_but_protocol_error_comes_of_any_body(segments: list[bytes]) -> None:
    exchange = Exchange()
    exchange.up(head(b"POST", b"Transfer-Encoding: chunked"))
    with suppress(ProtocolError):
        for segment in segments:
            exchange.up(segment)


RESPONSES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: a\r\n\r\n" + CHUNKED,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 No\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\nVia: x\r\n\r\n",
    ]
)


@given(damaged(RESPONSES), st.data(), st.sampled_from([b"GET", b"HEAD"]))
def test_nothing_but_protocol_error_comes_of_any_response(
    octets: bytes, data: st.DataObject, method: bytes
) -> None:
    """And a client can read what it is sent, if it is told that this is all."""
    exchange = asked(head(method))
    received = b""
    with suppress(ProtocolError):
        for segment in [*filter(None, data.draw(split(octets))), b""]:
            received += exchange.down(segment)
    if exchange.answered:
        read(received, method.decode())
