from __future__ import annotations

import http.client
import io
import ssl
import string

import pytest

from socksd.wire.guess import wrong_version


class _Received:
    """What http.client reads a response from, instead of a socket."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._octets)


@pytest.mark.parametrize(
    ("octet", "clause"),
    [
        pytest.param(ord("G"), "VER is 0x47, not 0x05: it seems to be HTTP", id="GET"),
        pytest.param(0x16, "VER is 0x16, not 0x05: it seems to be a TLS ClientHello", id="TLS"),
        pytest.param(0x04, "VER is 0x04, not 0x05: it seems to be SOCKS4", id="SOCKS4"),
        pytest.param(
            0x05, "VER is 0x05, which is not spoken here: it seems to be SOCKS5", id="SOCKS5"
        ),
        pytest.param(0x00, "VER is 0x00, not 0x05", id="nothing we know"),
    ],
)
def test_the_log_is_told_what_it_seems_to_be(octet: int, clause: str) -> None:
    assert str(wrong_version(octet)) == clause


def test_only_what_is_recognised_is_answered() -> None:
    """An answer in the wrong language is worse than none."""
    answered = {octet for octet in range(256) if wrong_version(octet).answer}
    assert answered == {0x04, 0x05, 0x16, *string.ascii_uppercase.encode()}


def test_before_the_request_there_is_no_reply() -> None:
    assert all(wrong_version(octet).reply is None for octet in range(256))


def test_an_http_client_reads_what_this_port_speaks_and_what_to_do() -> None:
    """The answer is one whole response: a browser shows it instead of an error of its own."""
    received = _Received(wrong_version(ord("C")).answer)
    response = http.client.HTTPResponse(received, method="GET")  # type: ignore[arg-type]  # a file in place of a socket
    response.begin()
    assert (response.status, response.reason) == (400, "Bad Request")
    assert response.headers["Content-Type"] == "text/plain"
    assert response.headers["Connection"] == "close"
    body = response.read().decode("ascii")
    assert response.headers["Content-Length"] == str(len(body))
    assert "speaks SOCKS5, not HTTP." in body
    assert "curl --proxy socks5h://" in body
    assert body.endswith("\n")


def test_a_tls_client_understands_the_alert() -> None:
    """A real ClientHello, answered, ends with our alert and not with an end of file."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="gw.test")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    incoming.write(wrong_version(outgoing.read()[0]).answer)
    with pytest.raises(ssl.SSLError) as caught:
        client.do_handshake()
    assert "ALERT_HANDSHAKE_FAILURE" in caught.value.reason


def test_a_socks5_client_is_told_that_no_method_will_do() -> None:
    assert wrong_version(5).answer == b"\x05\xff"


def test_a_socks4_client_is_rejected_in_eight_octets() -> None:
    assert wrong_version(4).answer == b"\x00\x5b\x00\x00\x00\x00\x00\x00"
