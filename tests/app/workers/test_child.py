"""A worker does what its parent asks for."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent, globalLogBeginner

from socksd.admin.client import ask
from socksd.app.service import Gateway
from socksd.app.workers import child as module
from socksd.app.workers.channel import DESCRIPTOR
from socksd.app.workers.child import NUMBERS, Child

TEXT = """
version = 1
[log]
access = "access.jsonl"
[limits]
sessions = 5
[reload]
state = "state"
[[listener]]
name = "office"
endpoint = "tcp:1080:interface=127.0.0.1"
"""


class Reactor:
    """The real one, as far as it is not told to end."""

    def __init__(self) -> None:
        self.stopped = 0
        self.at_its_end: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(real_reactor, name)

    def stop(self) -> None:
        self.stopped += 1
        if self.stopped > 1:
            raise ReactorNotRunning

    def addSystemEventTrigger(self, phase: str, event: str, call: Any) -> None:
        assert (phase, event) == ("before", "shutdown")
        self.at_its_end = call


class Scene:
    """A worker, and a socket of its parent's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.reactor = Reactor()
        self.child = Child(self.reactor)  # type: ignore[arg-type]  # of it, what is used
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]

    @property
    def gateway(self) -> Gateway:
        assert self.child._gateway is not None
        return self.child._gateway

    def ask(self, what: str, text: str = TEXT, place: int = 0, **more: object) -> Any:
        question = {
            "do": what,
            "number": 3,
            "socket": str(self.directory / "3.sock"),
            "text": text,
            "words": ["--config", "socksd.toml", *map(str, more.get("words", ()))],  # type: ignore[call-overload]  # a list
            "directory": str(self.directory),
            "place": place,
            "places": 2,
        }
        sockets = [self.listener.fileno()] * text.count("[[listener]]")
        return self.child.answer(json.loads(json.dumps(question)), sockets)


@pytest.fixture
def _here(tmp_path: Path) -> Iterator[None]:
    """A worker goes where its parent was."""
    before = os.getcwd()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGHUP, signal.SIGUSR1)}
    yield
    os.chdir(before)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest_twisted.async_yield_fixture
async def scene(tmp_path: Path, _here: None) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    if scene.reactor.at_its_end is not None:
        await maybeDeferred(scene.reactor.at_its_end)
    scene.listener.close()
    await deferLater(real_reactor, 0.01)


async def test_it_serves_by_the_text_on_the_sockets_that_it_is_given(scene: Scene) -> None:
    assert scene.ask("serve") == {"problems": []}
    (listener,) = scene.gateway.listeners
    assert listener.port.getHost().port == scene.port
    assert scene.gateway.sessions.begun == 3 * NUMBERS
    assert scene.child.answer({"do": "say"}, []) == {"sessions": 0}
    assert (scene.directory / "access.jsonl").exists()
    assert not (scene.directory / "state").exists()  # what outlives the process is the parent's
    status, said = await deferToThread(ask, str(scene.directory / "3.sock"), "GET", "/v1/status")
    assert (status, said["config"]) == (200, str(scene.directory / "socksd.toml"))


@pytest.mark.parametrize(("place", "share"), [(0, 3), (1, 2)])
async def test_it_has_its_share_of_a_limit_for_all(scene: Scene, place: int, share: int) -> None:
    scene.ask("serve", place=place)
    assert scene.gateway.sessions.door.most == share


async def test_the_command_line_adds_to_the_text(scene: Scene) -> None:
    text = TEXT.partition("[limits]")[0] + "[[rule]]\nid = 'x'\naction = 'allow'\nuser = '@any'\n"
    answer = scene.ask("serve", text + "# [[listener]]\n", words=["--auth", "memory:a:b"])
    assert answer == {"problems": []}
    assert scene.gateway.generation.config.auth.authenticators == ("memory:a:b",)
    assert scene.gateway.listeners[0].factory.listener == "port"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            TEXT + '[auth]\nauthenticators = ["htpasswd:nowhere"]\n',
            "nowhere: No such file or directory",
        ),
        (TEXT + "[dashbord]\nx = 1\n", "dashbord: there is no such key"),
    ],
)
async def test_what_keeps_it_from_serving_is_told(scene: Scene, text: str, problem: str) -> None:
    (said,) = scene.ask("serve", text)["problems"]
    assert problem in said
    assert scene.child.status == 1
    # What it was asked meanwhile ends nothing: its answer would not get to the parent.
    assert scene.child.answer({"do": "say"}, []) == {"sessions": 0}
    assert scene.ask("reload") == {"problems": [], "refused": 0}
    assert scene.reactor.stopped == 0
    scene.child.orphaned()  # the parent hangs up
    assert scene.reactor.stopped == 1


async def test_what_keeps_it_from_starting_is_told(scene: Scene) -> None:
    (scene.directory / "3.sock").write_text("not a socket")
    (said,) = scene.ask("serve")["problems"]
    assert said.startswith("control socket ")


async def test_it_goes_on_by_another_text_with_the_listeners_it_has(scene: Scene) -> None:
    scene.ask("serve")
    (before,) = scene.gateway.listeners
    answer = await scene.ask("reload", TEXT.replace("office", "lobby").replace("= 5", "= 9"))
    assert answer == {"problems": [], "refused": 0}
    (after,) = scene.gateway.listeners
    assert after is before
    assert after.factory.listener == "lobby"
    assert scene.gateway.sessions.door.most == 5


async def test_a_new_listener_comes_with_its_socket(scene: Scene) -> None:
    scene.ask("serve")
    more = '[[listener]]\nname = "more"\nendpoint = "tcp:1081:interface=127.0.0.1"\n'
    assert (await scene.ask("reload", TEXT + more))["problems"] == []
    assert [each.factory.listener for each in scene.gateway.listeners] == ["office", "more"]
    assert (await scene.ask("reload"))["problems"] == []
    assert [each.factory.listener for each in scene.gateway.listeners] == ["office"]


async def test_what_it_cannot_take_it_says_and_goes_on(scene: Scene) -> None:
    scene.ask("serve")
    broken = TEXT + '[auth]\nauthenticators = ["htpasswd:nowhere"]\n'
    answer = await scene.ask("reload", broken)
    assert answer["problems"][0].endswith("nowhere: No such file or directory")
    assert answer["refused"] == 0
    assert scene.gateway.generation.config.auth.authenticators == ()


async def test_sighup_has_it_load_the_same_again(scene: Scene) -> None:
    scene.ask("serve")
    with capturedLogs() as events:
        os.kill(os.getpid(), signal.SIGHUP)
        while not any("rules" in event for event in events):
            await deferLater(real_reactor, 0.01)
    assert "reloaded: rules=1 listeners=1" in [formatEvent(event) for event in events]


async def test_it_ends_once_however_often_it_is_told(scene: Scene) -> None:
    scene.ask("serve")
    assert scene.child.answer({"do": "stop", "seconds": 7.0}, []) == {}
    await deferLater(real_reactor, 0.01)  # once that has been answered
    assert scene.gateway._patience == 7.0
    assert scene.child.answer({"do": "hurry"}, []) == {}
    scene.child.end()
    assert scene.reactor.stopped == 3
    assert scene.gateway._hurried
    await scene.gateway.stopService()
    scene.reactor.at_its_end = None
    assert await scene.ask("reload") == {"problems": [], "refused": 0}


async def test_without_a_parent_it_drains(scene: Scene) -> None:
    scene.ask("serve")
    with capturedLogs() as events:
        scene.child.orphaned()
    assert [formatEvent(event) for event in events] == ["the parent has gone: draining"]
    assert scene.reactor.stopped == 1


@pytest.mark.usefixtures("_here")
async def test_the_last_orphan_removes_what_the_parent_cannot_any_more(
    tmp_path: Path,
) -> None:
    private = tmp_path / "private"
    private.mkdir()
    scene = Scene(private)
    scene.ask("serve", TEXT.partition("[log]")[0] + TEXT[TEXT.index("[[") :])
    scene.child.orphaned()
    await scene.gateway.stopService()
    scene.listener.close()
    assert not private.exists()


def test_before_it_serves_it_may_be_told_to_end() -> None:
    reactor = Reactor()
    child = Child(reactor)  # type: ignore[arg-type]  # of it, what is used
    child.answer({"do": "stop"}, [])
    assert reactor.stopped == 1


def test_the_program_serves_until_it_is_told_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of main() but what only a process of its own can have."""
    heard: dict[str, Any] = {}

    def adopt(descriptor: int, family: int, factory: Any) -> None:
        heard.update(descriptor=descriptor, family=family)
        heard["protocol"] = factory.buildProtocol(None)

    def run(**options: bool) -> None:
        heard["handlers"] = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
        heard["twisted"] = options["installSignalHandlers"]

    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(real_reactor, "adoptStreamConnection", adopt)
    monkeypatch.setattr(real_reactor, "run", run)
    monkeypatch.setattr(module, "go_by_monotonic_time", lambda clock: None)
    monkeypatch.setattr(os, "close", lambda descriptor: heard.update(closed=descriptor))
    monkeypatch.setattr(globalLogBeginner, "beginLoggingTo", lambda to: heard.update(log=to))
    try:
        with pytest.raises(SystemExit) as ended:
            module.main()
    finally:
        monkeypatch.undo()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.code == 0
    assert (heard["descriptor"], heard["closed"]) == (DESCRIPTOR, DESCRIPTOR)
    assert heard["family"] == socket.AF_UNIX
    assert not heard["twisted"]
    assert all(heard["handlers"][number] != before[number] for number in before)
    assert len(heard["log"]) == 1
