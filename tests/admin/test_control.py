"""The control socket: a real one, in a directory of the test."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread

from socksd.admin import site
from socksd.admin.client import Unreachable, ask
from socksd.admin.control import ControlSocket
from socksd.admin.routes import BadBody, Body, NotAdmitted, Routes, Unable
from socksd.admin.web import BODY
from socksd.errors import ConfigError, Problem


def fails(error: Exception) -> Any:
    def handler(_: Body) -> object:
        raise error

    return handler


ROUTES: Routes = {
    ("GET", "/v1/thing"): lambda body: {"thing": 1},
    ("POST", "/v1/echo"): lambda body: dict(body),
    ("GET", "/v1/query"): lambda body: dict(body),
    ("POST", "/v1/later"): lambda body: task.deferLater(reactor, 0, lambda: {"later": 1}),  # type: ignore[arg-type]  # a module to mypy
    ("POST", "/v1/bad"): fails(BadBody("no such thing")),
    ("POST", "/v1/denied"): fails(NotAdmitted("not you")),
    ("POST", "/v1/unable"): fails(Unable("not now")),
    ("POST", "/v1/config"): fails(ConfigError([Problem("a.b", "is wrong"), Problem("", "x")])),
    ("POST", "/v1/bug"): fails(ZeroDivisionError()),
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "control.sock")


@pytest.fixture
def control(path: str) -> Iterator[ControlSocket]:
    opened = ControlSocket(path, ROUTES, reactor)  # type: ignore[arg-type]  # a module to mypy
    opened.open()
    yield opened
    pytest_twisted.blockon(opened.close() or succeed(None))


async def asked(path: str, *arguments: Any) -> tuple[int, Any]:
    """Ask from a thread, as another process would."""
    answer: tuple[int, Any] = await deferToThread(ask, path, *arguments)
    return answer


async def exchanged(path: str, octets: bytes) -> bytes:
    """Send octets as they are, and read up to the end."""

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(path)
            sock.sendall(octets)
            answer = b""
            while more := sock.recv(65536):
                answer += more
            return answer

    answer: bytes = await deferToThread(talk)
    return answer


@pytest.mark.usefixtures("control")
@pytest.mark.parametrize(
    ("method", "at", "body", "status", "answer"),
    [
        pytest.param("GET", "/v1/thing", None, 200, {"thing": 1}, id="a question"),
        pytest.param("POST", "/v1/echo", {"a": [1]}, 200, {"a": [1]}, id="a body"),
        pytest.param("POST", "/v1/echo", None, 200, {}, id="no body"),
        pytest.param("POST", "/v1/later", None, 200, {"later": 1}, id="later"),
        pytest.param(
            "GET", "/v1/query", {"a": "b c", "n": 7}, 200, {"a": "b c", "n": "7"}, id="URL"
        ),
        pytest.param("GET", "/v1/query", None, 200, {}, id="no parameters"),
        pytest.param(
            "GET", "/v1/query?a=&a=1", None, 400, {"error": "a is there more than once"}, id="twice"
        ),
        pytest.param("POST", "/v1/thing", None, 405, {"error": "/v1/thing takes GET"}, id="method"),
        pytest.param("GET", "/v2/x", None, 404, {"error": "there is no /v2/x"}, id="path"),
        pytest.param("POST", "/v1/bad", None, 400, {"error": "no such thing"}, id="bad body"),
        pytest.param("POST", "/v1/denied", None, 403, {"error": "not you"}, id="not admitted"),
        pytest.param("POST", "/v1/unable", None, 409, {"error": "not now"}, id="unable"),
        pytest.param(
            "POST",
            "/v1/config",
            None,
            422,
            {
                "error": "not loaded",
                "problems": [
                    {"path": "a.b", "message": "is wrong"},
                    {"path": "", "message": "x"},
                ],
            },
            id="problems",
        ),
        pytest.param(
            "POST", "/v1/echo", [1], 400, {"error": "the body is not a JSON object"}, id="list"
        ),
    ],
)
async def test_every_answer_is_json_with_its_status(
    path: str, method: str, at: str, body: Any, status: int, answer: Any
) -> None:
    assert await asked(path, method, at, body) == (status, answer)


@pytest.mark.usefixtures("control")
async def test_a_bug_is_logged_and_answered(path: str, logged_errors: list[dict[str, Any]]) -> None:
    status, answer = await asked(path, "POST", "/v1/bug")
    assert (status, answer) == (500, {"error": "a bug; its traceback is in the log"})
    assert [event["log_failure"].type for event in logged_errors] == [ZeroDivisionError]
    logged_errors.clear()


async def test_nobody_answers_who_has_left(path: str) -> None:
    """An answer that is found later goes nowhere, and is no error."""
    asked: Deferred[object] = Deferred()
    arrived: Deferred[None] = Deferred()

    def handler(_: Body) -> object:
        arrived.callback(None)
        return asked

    opened = ControlSocket(path, {("POST", "/v1/echo"): handler}, reactor)  # type: ignore[arg-type]  # the reactor is a module to mypy
    opened.open()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(request(b""))
        await arrived
    await task.deferLater(reactor, 0.05)  # type: ignore[arg-type]  # until its FIN has been read
    asked.callback({})
    await opened.close()


def request(body: bytes, headers: bytes = b"") -> bytes:
    return b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n" + body


@pytest.mark.usefixtures("control")
@pytest.mark.parametrize(
    ("octets", "status"),
    [
        pytest.param(request(b"{", b"Content-Length: 1\r\n"), 400, id="not JSON"),
        pytest.param(
            request(b"[" * BODY, b"Content-Length: %d\r\n" % BODY), 400, id="JSON without end"
        ),
        pytest.param(
            request(b" " * (BODY + 1), b"Content-Length: %d\r\n" % (BODY + 1)), 413, id="too long"
        ),
        pytest.param(
            request(
                b"8000\r\n"
                + b" " * 32768
                + b"\r\n"
                + b"8001\r\n"
                + b" " * 32769
                + b"\r\n0\r\n\r\n",
                b"Transfer-Encoding: chunked\r\n",
            ),
            413,
            id="too long in chunks",
        ),
    ],
)
async def test_what_comes_is_bounded(path: str, octets: bytes, status: int) -> None:
    assert (await exchanged(path, octets)).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.usefixtures("control")
async def test_a_head_without_end_is_cut_off(path: str) -> None:
    assert await exchanged(path, request(b"", b"X: " + b"x" * 20000 + b"\r\n")) == b""


async def test_a_silent_client_is_let_go(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "IDLE", 0.05)
    opened = ControlSocket(path, ROUTES, reactor)  # type: ignore[arg-type]  # the reactor is a module to mypy
    opened.open()
    assert await exchanged(path, b"GET /v1/thing HT") == b""
    await opened.close()


@pytest.mark.usefixtures("control")
def test_only_owner_and_group_may_ask(path: str) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660


async def test_the_socket_goes_with_its_server(path: str, control: ControlSocket) -> None:
    await control.close()
    assert path not in sockets(path)
    assert control.close() is None


async def test_it_closes_although_somebody_has_removed_the_socket(
    path: str, control: ControlSocket
) -> None:
    Path(path).unlink()  # noqa: ASYNC240 -- at once
    await control.close()
    assert path not in sockets(path)


async def test_what_a_killed_server_has_left_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    opened = ControlSocket(path, ROUTES, reactor)  # type: ignore[arg-type]  # the reactor is a module to mypy
    opened.open()
    assert (await asked(path, "GET", "/v1/thing"))[0] == 200
    await opened.close()


@pytest.mark.usefixtures("control")
async def test_a_live_server_is_not_pushed_aside(path: str) -> None:
    with pytest.raises(OSError, match="another server listens there"):
        ControlSocket(path, ROUTES, reactor).open()  # type: ignore[arg-type]  # the reactor is a module to mypy
    assert (await asked(path, "GET", "/v1/thing"))[0] == 200


def test_what_is_no_socket_is_never_removed(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(OSError, match="not a socket"):
        ControlSocket(path, ROUTES, reactor).open()  # type: ignore[arg-type]  # the reactor is a module to mypy
    assert Path(path).read_text() == "precious"


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file or directory") as caught:
        ControlSocket(str(tmp_path / "no" / "s"), ROUTES, reactor).open()  # type: ignore[arg-type]  # the reactor is a module to mypy
    assert str(tmp_path) in str(caught.value.strerror)


def test_a_path_that_is_too_long_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        ControlSocket(str(tmp_path / ("x" * 120)), ROUTES, reactor).open()  # type: ignore[arg-type]  # the reactor is a module to mypy


def sockets(path: str) -> list[str]:
    """What is in its directory."""
    return [str(entry) for entry in Path(path).parent.iterdir()]


# -- the client --------------------------------------------------------------


def test_nobody_there_is_said(path: str) -> None:
    with pytest.raises(Unreachable, match="no server listens at"):
        ask(path, "GET", "/v1/thing")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(Unreachable, match="no server listens at"):
        ask(path, "GET", "/v1/thing")


def test_no_permission_is_said(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(self: object) -> None:
        raise PermissionError

    monkeypatch.setattr("socksd.admin.client._Unix.connect", connect)
    with pytest.raises(Unreachable, match="no permission to use"):
        ask(path, "GET", "/v1/thing")


def test_a_path_that_no_socket_can_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="too long"):
        ask(str(tmp_path / ("x" * 120)), "GET", "/")


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n?"]
)
async def test_who_is_not_socksd_is_not_believed(path: str, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()

        def answer() -> None:
            with other.accept()[0] as sock:
                sock.recv(65536)
                sock.sendall(said)

        thread = deferToThread(answer)
        with pytest.raises(Unreachable, match="is not socksd"):
            await asked(path, "GET", "/")
        await thread


async def test_routes_may_grow(path: str) -> None:
    routes: Routes = {}
    opened = ControlSocket(path, routes, reactor)  # type: ignore[arg-type]  # the reactor is a module to mypy
    opened.open()
    assert (await asked(path, "GET", "/v1/late"))[0] == 404
    routes["GET", "/v1/late"] = lambda _: json.loads("[]")
    assert await asked(path, "GET", "/v1/late") == (200, [])
    await opened.close()
