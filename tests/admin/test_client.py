"""What a program that asks a running server gets, from a socket of the test's."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from socksd.admin import client
from socksd.admin.client import Unreachable, ask

PATH = "/run/socksd/control.sock"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The other side of the connection that ask() makes."""
    ours, theirs = socket.socketpair()

    def connect(self: Any) -> None:
        self.sock = ours

    monkeypatch.setattr(client._Unix, "connect", connect)
    yield theirs
    theirs.close()


def answer(octets: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(octets), octets)


def heard(server: socket.socket) -> tuple[str, bytes]:
    head, _, body = server.recv(65536).partition(b"\r\n\r\n")
    return head.decode().partition("\r\n")[0], body


@pytest.mark.parametrize(
    ("arguments", "line", "body"),
    [
        pytest.param(("GET", "/v1/rules"), "GET /v1/rules HTTP/1.1", b"", id="a question"),
        pytest.param(
            ("GET", "/v1/sessions", {"user": "a b&c", "limit": 7}),
            "GET /v1/sessions?user=a+b%26c&limit=7 HTTP/1.1",
            b"",
            id="parameters",
        ),
        pytest.param(
            ("POST", "/v1/kill", {"user": "bj\u00f6rk"}),
            "POST /v1/kill HTTP/1.1",
            b'{"user": "bj\\u00f6rk"}',
            id="a body",
        ),
        pytest.param(("POST", "/v1/kill", {}), "POST /v1/kill HTTP/1.1", b"{}", id="an empty one"),
        pytest.param(("POST", "/v1/confirm"), "POST /v1/confirm HTTP/1.1", b"", id="none"),
    ],
)
def test_what_is_asked_is_in_the_url_or_the_body(
    server: socket.socket, arguments: Any, line: str, body: bytes
) -> None:
    server.sendall(answer(b'{"a": [1]}', "409 Conflict"))
    assert ask(PATH, *arguments) == (409, {"a": [1]})
    assert heard(server) == (line, body)


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(answer(b"<html>"), id="no JSON"),
        pytest.param(answer(b"{}")[:-1], id="half an answer"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_whatever_else_answers_is_not_taken_for_a_server(
    server: socket.socket, octets: bytes
) -> None:
    server.sendall(octets)
    server.shutdown(socket.SHUT_WR)
    with pytest.raises(Unreachable):
        ask(PATH, "GET", "/v1/status")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), f"no permission to use {PATH}"),
        (FileNotFoundError(2, "No such file"), f"no server listens at {PATH}"),
        (ConnectionRefusedError(111, "Connection refused"), f"no server listens at {PATH}"),
        (OSError(12, "Cannot allocate memory"), f"{PATH}: Cannot allocate memory"),
        (TimeoutError("timed out"), f"{PATH}: timed out"),
    ],
)
def test_who_cannot_be_reached_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    def fails(error: OSError) -> Callable[[Any], None]:
        def connect(_: Any) -> None:
            raise error

        return connect

    monkeypatch.setattr(client._Unix, "connect", fails(error))
    with pytest.raises(Unreachable) as caught:
        ask(PATH, "GET", "/v1/status")
    assert str(caught.value) == said
