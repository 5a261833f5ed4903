"""
Three servers, each a process, as one: asked, watched, scraped and killed.

What asks them is in the test's own process, made by the code that makes a
service's pages; who asks it, as a command does, is in threads.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from socksd.admin.client import ask
from socksd.app.build import build, lasting
from socksd.app.config import parse_config
from socksd.app.whole import Whole, WorkerAddress
from socksd.identity.htpasswd import set_password
from tests.functional.conftest import Serve
from tests.functional.dialogue import answer, take, take_all, tunnel
from tests.functional.origins import Origin, echo
from tests.functional.process import SCRIPTS, Gateway, needs, run

reactor: Any = real_reactor

RULES = """
[guard]
never = "nothing"
[[rule]]
id = "no-mail"
action = "deny"
ports = [25]
[[rule]]
id = "all"
action = "allow"
"""


def pages(directory: Path, users: Path, *, of_parent: bool = False) -> str:
    """Everything that can be asked, on sockets of its own; of the parent, for others as well."""
    anywhere = "tcp:0:interface=127.0.0.1"
    metrics = anywhere if of_parent else f"unix:{directory}/metrics.sock"
    dashboard = anywhere if of_parent else f"unix:{directory}/dashboard.sock"
    return (
        f'[auth]\nauthenticators = ["htpasswd:{users}"]\nanonymous = ["127.0.0.0/8"]\n'
        f'[control]\nsocket = "{directory}/control.sock"\n'
        f'[metrics]\nendpoint = "{metrics}"\n'
        f'[dashboard]\nendpoint = "{dashboard}"\nusers = ["alice"]\n'
    )


def echoes(sock: Any) -> bool:
    sock.sendall(b"still there?")
    return take(sock, 12) == b"still there?"


class Parent:
    """
    Three servers, and what answers for them.

    Attributes:
        workers: The servers, by their numbers.
        socket: Where it is asked for all of them.
        metrics: Its port for Prometheus,
        dashboard: and that for browsers.
    """

    def __init__(self, serve: Serve, directory: Path) -> None:
        self.serve, self.directory, self.users = serve, directory, directory / "users"
        set_password(self.users, "alice", "secret", cost=4)
        self.workers: dict[int, Gateway] = {}
        for number in (1, 2, 3):
            self.begin(number)
        self.socket = str(directory / "control.sock")
        whole = Whole(
            lambda: [WorkerAddress(n, self._socket(n)) for n in self.workers],
            reactor,
            status=lambda: {"config": "the parent's"},
        )
        common = lasting(reactor, whole=whole)
        text = RULES + pages(directory, self.users, of_parent=True)
        generation = build(parse_config(text, ""), reactor, common, switched=False)
        common.watching.gateway = SimpleNamespace(generation=generation)  # type: ignore[assignment]  # of it, what is used
        ours = ("control", "metrics", "dashboard", "login threads")
        self._parts = [p for p in generation.parts if p.made_of and p.made_of[0] in ours]  # type: ignore[index]  # tuples
        for part in self._parts:
            assert part.start is not None
            part.start()
        ports = [part.start.__self__._port for part in self._parts[-2:]]  # type: ignore[union-attr]  # methods
        self.metrics, self.dashboard = (port.getHost().port for port in ports)

    def _socket(self, number: int) -> str:
        return f"{self.directory}/{number}/control.sock"

    def begin(self, number: int) -> None:
        own = self.directory / str(number)
        own.mkdir()
        self.workers[number] = self.serve(config=pages(own, self.users) + RULES)

    def end(self, number: int) -> None:
        """Kill the first that is killed; another begins in its place."""
        gateway = self.workers.pop(number)
        gateway.process.kill()
        gateway.process.wait()
        self.begin(4)  # a number is never given twice

    async def stop(self) -> None:
        for part in reversed(self._parts):
            assert part.stop is not None
            await maybeDeferred(part.stop)
        await deferLater(reactor, 0.05)  # what was aborted ends a turn later

    async def asked(self, method: str, path: str, **body: object) -> Any:
        status, said = await deferToThread(ask, self.socket, method, f"/v1/{path}", body or None)
        assert status == 200, said
        return said

    async def command(self, *words: str) -> str:
        done = await deferToThread(run, SCRIPTS / "socksd", *words, "--socket", self.socket)
        assert done.returncode == 0, done
        return str(done.stdout + done.stderr)

    async def page(self) -> str:
        def fetch() -> str:
            with urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=20) as found:
                page: str = found.read().decode()
                return page

        page: str = await deferToThread(fetch)
        return page


@async_yield_fixture
async def parent(serve: Serve, tmp_path: Path) -> AsyncIterator[Parent]:
    pytest.importorskip("prometheus_client")
    parent = Parent(serve, tmp_path)
    yield parent
    await parent.stop()


@pytest.fixture
def target(origin: Callable[..., Origin]) -> Origin:
    return origin(echo)


def served(page: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
    assert found, page
    return float(found[1])


@pytest.mark.reactor_timeout(60)
@ensureDeferred
async def test_commands_see_one_server(parent: Parent, target: Origin, during: ExitStack) -> None:
    socks = [
        during.enter_context(tunnel(worker.port, "localhost", target.port))
        for worker in parent.workers.values()
    ]
    assert all(echoes(sock) for sock in socks)
    during.enter_context(tunnel(parent.workers[2].port, "127.0.0.1", target.port))
    status = await parent.asked("GET", "status")
    assert (status["sessions"], status["missing"], status["config"]) == (4, [], "the parent's")
    pids = [worker.pid for worker in parent.workers.values()]
    assert [(each["number"], each["sessions"]) for each in status["workers"]] == [
        *((1, 1), (2, 2), (3, 1)),
    ]
    written = await parent.command("status")
    assert all(f"process {pid}, since" in written for pid in pids)

    listed = await parent.command("sessions", "--to", "localhost", "--sort=-octets")
    assert listed.count(f"localhost:{target.port}") == 3
    assert "4 sessions" in await parent.command("top", "--times", "1")
    (talker, _) = (await parent.asked("GET", "talkers"))["talkers"]
    assert (talker["host"], talker["sessions"], talker["up"]) == ("localhost", 3, 36)

    assert await parent.command("kill", "--to", "localhost") == "3 sessions ended\n"
    for sock in socks:
        with suppress(ConnectionResetError):
            assert take_all(sock) == b""
    assert (await parent.asked("GET", "status"))["sessions"] == 1


@pytest.mark.reactor_timeout(60)
@ensureDeferred
async def test_what_a_killed_worker_has_counted_stays(
    parent: Parent, target: Origin, during: ExitStack
) -> None:
    for number, worker in parent.workers.items():
        for _ in range(number):
            with tunnel(worker.port, "127.0.0.1", target.port) as sock:
                assert echoes(sock)
        worker.sessions(number)

    async def hits() -> int:
        rules = (await parent.asked("GET", "rules"))["rules"]
        (found,) = [rule["hits"] for rule in rules if rule["id"] == "all"]
        return int(found)

    name = 'socksd_rule_sessions_total{outcome="served",rule="all"}'
    before = await parent.page()
    assert (await hits(), served(before, name)) == (6, 6)
    assert served(before, 'socksd_octets_total{direction="up"}') == 72
    assert served(before, "socksd_sessions_opened_total") == 6
    leaks = await parent.asked("GET", "leaks")
    assert (leaks["clients"], leaks["leaks"][0]["addresses"]) == (1, 6)
    with tunnel(parent.workers[1].port, "127.0.0.1", target.port) as rest:
        parent.end(3)
        assert echoes(rest), "the sessions of others go on"
    parent.workers[1].sessions(2)
    after = await parent.page()
    assert (await hits(), served(after, name)) == (7, 7)
    assert served(after, "socksd_sessions_opened_total") == 7
    assert served(after, 'socksd_workers{state="answering"}') == 3
    assert (await parent.asked("GET", "leaks"))["leaks"][0]["addresses"] == 7
    assert await parent.command("rules")


@pytest.mark.reactor_timeout(60)
@ensureDeferred
async def test_a_worker_that_is_stuck_holds_up_nobody(parent: Parent, target: Origin) -> None:
    with tunnel(parent.workers[1].port, "127.0.0.1", target.port) as sock:
        assert echoes(sock)
        parent.workers[3].process.send_signal(signal.SIGSTOP)
        try:
            said = await parent.command("sessions")
            assert f"127.0.0.1:{target.port}" in said
            assert "socksd: worker 3 does not answer" in said
        finally:
            parent.workers[3].process.send_signal(signal.SIGCONT)
    assert (await parent.asked("GET", "status"))["missing"] == []


@pytest.mark.reactor_timeout(60)
@ensureDeferred
async def test_promtool_finds_nothing_wrong_with_the_sum(parent: Parent) -> None:
    promtool, page = needs("promtool"), await parent.page()
    done = run(promtool, "check", "metrics", stdin=page)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    descriptors = re.findall(r'^process_open_fds\{worker="(\w+)"\}', page, re.MULTILINE)
    assert descriptors == ["1", "2", "3", "parent"]


@pytest.mark.reactor_timeout(60)
@ensureDeferred
async def test_the_dashboard_is_told_of_denials_by_any_worker(parent: Parent) -> None:
    def browse() -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", parent.dashboard, timeout=20)
        connection.request(
            "POST",
            "/v1/login",
            json.dumps({"user": "alice", "password": "secret"}),
            {"Content-Type": "application/json"},
        )
        entered = connection.getresponse()
        cookie = str(entered.headers["Set-Cookie"]).partition(";")[0]
        assert entered.status == 200, entered.read()
        entered.read()
        connection.request("GET", "/v1/traffic", headers={"Cookie": cookie})
        assert "rates" in json.load(connection.getresponse())
        connection.request("GET", "/v1/events", headers={"Cookie": cookie})
        events = connection.getresponse()
        assert events.status == 200
        # What there was when one began to look is not told: try until it is heard of.
        denied = [worker.port for worker in list(parent.workers.values())[1:]]
        line = b""
        for _ in range(50):
            assert {answer(port, "127.0.0.1", 25) for port in denied} == {2}
            while not line.startswith(b"data: ") and line != b":\n":
                line = events.fp.readline()
            if line.startswith(b"data: "):
                break
            line = b""
        connection.close()
        found: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
        return found

    told = await deferToThread(browse)
    assert (told["destination"], told["rule"]) == ("127.0.0.1:25", "no-mail")
    denials = await parent.asked("GET", "denials")
    assert {each["rule"] for each in denials["denials"]} == {"no-mail"}
