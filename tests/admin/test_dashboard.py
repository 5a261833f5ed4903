"""The dashboard: a real listener on the loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from ipaddress import IPv4Address
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThread

from socksd.admin import dashboard as module
from socksd.admin.dashboard import COOKIE, SHOWN, Dashboard, Gate
from socksd.admin.routes import Body, Routes
from socksd.errors import LoginFailed
from socksd.facts import Principal

PASSWORDS = {b"alice": b"secret", b"bob": b"secret"}


class Served:
    """A dashboard, and what stands behind it."""

    def __init__(self) -> None:
        self.killed: list[Body] = []
        self.admitted = {"alice"}
        self.clients: list[object] = []
        self.heard_by: list[Callable[[str, object], None]] = []
        routes: Routes = {
            ("GET", "/v1/status"): lambda body: {"version": "1"},
            ("GET", "/v1/config"): lambda body: {"secret": True},
            ("POST", "/v1/reload"): lambda body: {},
            ("POST", "/v1/kill"): self.kill,
        }
        gate = Gate(self.login, lambda who: who.name in self.admitted, self.client)
        self.dashboard = Dashboard(self.listen, routes, gate, self.subscribe, reactor)  # type: ignore[arg-type]  # a module to mypy
        self.port = 0

    def listen(self, factory: Any) -> Any:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]  # the reactor is a module to mypy
        self.port = port.getHost().port
        return port

    def login(self, username: bytes, password: bytes, client: object) -> Deferred[Principal]:
        self.clients.append(client)
        if PASSWORDS.get(username) == password:
            return succeed(Principal(username.decode()))
        return fail(LoginFailed("no"))

    def client(self, peer: object) -> IPv4Address:
        return IPv4Address(peer.host)  # type: ignore[attr-defined]  # a TCP address has it

    def kill(self, body: Body) -> object:
        self.killed.append(body)
        return {"killed": 1}

    def subscribe(self, tell: Callable[[str, object], None]) -> Callable[[], None]:
        self.heard_by.append(tell)
        return lambda: self.heard_by.remove(tell)


class Browser:
    """Remembers its cookie, as a browser does."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.cookie = ""
        self.csrf = ""
        self.headers: dict[str, str] = {}

    def _ask(
        self, method: str, path: str, body: object, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.served.port, timeout=10)
        try:
            connection.request(method, path, body if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            self.headers = dict(response.getheaders())
            if "Set-Cookie" in self.headers:
                self.cookie = self.headers["Set-Cookie"].partition(";")[0]
            return response.status, response.read()
        finally:
            connection.close()

    async def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, Any]:
        status, octets = await self.fetch(method, path, body, **headers)
        return status, json.loads(octets)

    async def fetch(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, bytes]:
        sent = {"Content-Type": "application/json", "X-CSRF-Token": self.csrf}
        if self.cookie:
            sent["Cookie"] = self.cookie
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer: tuple[int, bytes] = await deferToThread(self._ask, method, path, body, sent)
        return answer

    async def log_in(self, user: str = "alice", password: str = "secret") -> tuple[int, Any]:
        status, answer = await self.ask("POST", "/v1/login", {"user": user, "password": password})
        self.csrf = answer.get("csrf", "")
        return status, answer


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    served.dashboard.open()
    yield served
    pytest_twisted.blockon(served.dashboard.close() or succeed(None))


@pytest.fixture
def browser(served: Served) -> Browser:
    return Browser(served)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/dashboard.js", "text/javascript"), ("/dashboard.css", "text/css")],
)
async def test_the_page_needs_no_login_and_nothing_from_elsewhere(
    browser: Browser, path: str, kind: str
) -> None:
    status, page = await browser.fetch("GET", path)
    assert status == 200
    assert browser.headers["Content-Type"].startswith(kind)
    policy = browser.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert b"://" not in page.replace(b"http://www.w3.org/2000/svg", b"")
    assert (await browser.fetch("HEAD", path)) == (200, b"")
    assert (await browser.fetch("POST", path))[0] == 405


async def test_nothing_else_is_answered_without_login(browser: Browser, served: Served) -> None:
    for method, path in [*SHOWN, ("GET", "/v1/me"), ("GET", "/v1/events"), ("GET", "/x")]:
        status, answer = await browser.ask(method, path)
        assert (status, answer) == (401, {"error": "log in first"}), path
    assert not served.killed


async def test_who_logs_in_is_known_by_a_cookie_that_scripts_cannot_read(
    browser: Browser, served: Served
) -> None:
    status, answer = await browser.log_in()
    assert status == 200
    assert answer["user"] == "alice"
    assert served.clients == [IPv4Address("127.0.0.1")]
    cookie = browser.headers["Set-Cookie"].lower()
    assert cookie.startswith(COOKIE + "=")
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie, "this is the loopback, without TLS"
    assert await browser.ask("GET", "/v1/me") == (200, answer)
    assert await browser.ask("GET", "/v1/status") == (200, {"version": "1"})


@pytest.mark.parametrize(
    ("user", "password", "said"),
    [
        ("alice", "wrong", "user name or password is wrong"),
        ("carol", "secret", "user name or password is wrong"),
        ("alice", "\ud800", "user name or password is wrong"),
        ("bob", "secret", "bob may not see this: [dashboard] names who may"),
    ],
)
async def test_who_may_not_look_is_told_so(
    browser: Browser, user: str, password: str, said: str
) -> None:
    assert await browser.log_in(user, password) == (403, {"error": said})
    assert not browser.cookie


@pytest.mark.parametrize("body", [{}, {"user": "alice"}, {"user": 1, "password": "x"}])
async def test_a_login_without_a_password_is_none(browser: Browser, body: object) -> None:
    assert (await browser.ask("POST", "/v1/login", body))[0] == 400


async def test_what_changes_anything_needs_the_visitors_own_token(
    browser: Browser, served: Served
) -> None:
    await browser.log_in()
    for wrong in ("", "x", "\xe9", browser.csrf[:-1]):
        status, _ = await browser.ask("POST", "/v1/kill", {"session": 1}, X_CSRF_Token=wrong)
        assert status == 403
    other = Browser(served)
    await other.log_in()
    status, _ = await browser.ask("POST", "/v1/kill", {"session": 1}, X_CSRF_Token=other.csrf)
    assert status == 403
    assert not served.killed
    assert await browser.ask("POST", "/v1/kill", {"session": 1}) == (200, {"killed": 1})
    assert served.killed == [{"session": 1}]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_what_a_form_of_another_site_can_send_is_refused(
    browser: Browser, served: Served, kind: str
) -> None:
    await browser.log_in()
    assert (await browser.ask("POST", "/v1/kill", {"session": 1}, Content_Type=kind))[0] == 415
    assert not served.killed


async def test_it_neither_reloads_nor_shows_the_configuration(browser: Browser) -> None:
    await browser.log_in()
    for method, path in [("GET", "/v1/config"), ("POST", "/v1/reload"), ("GET", "/v1/rules")]:
        assert (await browser.ask(method, path))[0] == 404


async def test_who_leaves_is_forgotten(browser: Browser) -> None:
    await browser.log_in()
    assert (await browser.ask("POST", "/v1/logout", {}))[0] == 200
    assert (await browser.ask("GET", "/v1/me"))[0] == 401


async def test_a_reload_that_takes_somebody_off_the_list_counts_at_once(
    browser: Browser, served: Served
) -> None:
    await browser.log_in()
    served.admitted.clear()
    assert (await browser.ask("GET", "/v1/status"))[0] == 401


class Reader:
    """Reads server-sent events off a connection, in a thread."""

    def __init__(self, browser: Browser) -> None:
        self.connection = HTTPConnection("127.0.0.1", browser.served.port, timeout=10)
        self.connection.request("GET", "/v1/events", headers={"Cookie": browser.cookie})
        self.response = self.connection.getresponse()

    def event(self) -> tuple[str, Any]:
        name = ""
        while line := self.response.readline().decode():
            if line.startswith("event: "):
                name = line[7:].strip()
            elif line.startswith("data: "):
                return name, json.loads(line[6:])
        return "end", None


async def watching(browser: Browser) -> Reader:
    reader: Reader = await deferToThread(Reader, browser)
    return reader


async def test_events_are_told_as_they_happen(browser: Browser, served: Served) -> None:
    await browser.log_in()
    reader = await watching(browser)
    assert reader.response.getheader("Content-Type") == "text/event-stream"
    (tell,) = served.heard_by
    tell("denied", {"rule": "no\n\nevent: x"})
    assert await deferToThread(reader.event) == ("denied", {"rule": "no\n\nevent: x"})
    reader.connection.close()
    reader.response.close()
    await until(lambda: not served.heard_by)


async def until(what: Callable[[], bool]) -> None:
    """Let the reactor turn until something is so; 5 s at most."""
    from twisted.internet.task import deferLater

    for _ in range(500):
        if what():
            return
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]  # the reactor is a module to mypy
    raise AssertionError("not in time")


async def test_who_does_not_read_is_told_less_and_how_much(
    browser: Browser, served: Served
) -> None:
    """And costs no more memory than the transport's buffer."""
    await browser.log_in()
    reader = await watching(browser)
    (tell,) = served.heard_by
    stream = tell.__self__  # type: ignore[attr-defined]  # a method of the stream
    stream.pauseProducing()
    for _ in range(3):
        tell("denied", 1)
    stream.resumeProducing()
    tell("denied", 2)
    assert await deferToThread(reader.event) == ("missed", 3)
    assert await deferToThread(reader.event) == ("denied", 2)
    reader.connection.close()
    reader.response.close()
    await until(lambda: not served.heard_by)


async def test_a_stream_ends_with_the_right_to_see_it(
    browser: Browser, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT", 0.02)
    await browser.log_in()
    reader = await watching(browser)
    await deferToThread(reader.response.readline)
    (tell,) = served.heard_by
    tell.__self__.pauseProducing()  # type: ignore[attr-defined]  # a beat drops out, too
    served.admitted.clear()
    await until(lambda: not served.heard_by)
    tell.__self__.stopProducing()  # type: ignore[attr-defined]  # a bound method's
    assert (await deferToThread(reader.event))[0] == "end"
    reader.response.close()
    reader.connection.close()


async def test_only_so_many_may_watch(
    browser: Browser, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STREAMS", 1)
    await browser.log_in()
    reader = await watching(browser)
    assert (await browser.ask("GET", "/v1/events"))[0] == 503
    reader.connection.close()
    reader.response.close()
    await until(lambda: not served.heard_by)


async def test_closing_ends_the_streams() -> None:
    served = Served()
    served.dashboard.open()
    browser = Browser(served)
    await browser.log_in()
    reader = await watching(browser)
    await served.dashboard.close()
    assert (await deferToThread(reader.event))[0] == "end"
    assert not served.heard_by
    assert served.dashboard.close() is None
    reader.response.close()
    reader.connection.close()
