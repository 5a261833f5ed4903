"""The parent: listens, hands out, and is asked for all."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from socksd.admin.routes import BadBody, Routes, Unable
from socksd.app.build import assemble
from socksd.app.config import Config, parse_config
from socksd.app.notify import Manager
from socksd.app.service import CannotStart
from socksd.app.workers import parent as module
from socksd.app.workers.parent import Parent
from socksd.app.workers.pool import PATIENCE, Worker
from socksd.errors import ConfigError
from tests.app.workers.test_pool import KILLED, FakeAsker, FakeProcess
from tests.fakes import outcome

TEXT = """
version = 1
[server]
workers = 2
[control]
socket = "control.sock"
[[listener]]
name = "office"
endpoint = "tcp:0:interface=127.0.0.1"
"""
MORE = '[[listener]]\nname = "more"\nendpoint = "tcp:0:interface=127.0.0.1:backlog=7"\n'


class Source:
    """A file that the test writes."""

    path = "/etc/socksd.toml"
    words = ("--config", "socksd.toml")

    def __init__(self) -> None:
        self.text = TEXT

    def read(self) -> str:
        return self.text

    def parse(self, text: str) -> Config:
        return parse_config(text, "")


class Reactor:
    """The real one; what it would call once it runs, it calls when the test says so."""

    def __init__(self) -> None:
        self.begins: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(real_reactor, name)

    def callWhenRunning(self, call: Any) -> None:
        self.begins.append(call)


class Scene:
    """A parent whose workers are the test."""

    def __init__(self, manager: Manager | None = None) -> None:
        self.source = Source()
        self.reactor = Reactor()
        self.spawned: list[Worker] = []
        parent = assemble(
            self.source,
            self.source.text,
            self.reactor,  # type: ignore[arg-type]  # of it, what is used
            rolled_back=False,
            manager=manager,
        )
        assert isinstance(parent, Parent)
        self.parent = parent
        # What assemble() has given to the control socket.
        (control,) = (
            part.start.__self__  # type: ignore[union-attr]  # a method
            for part in parent.generation.parts
            if part.made_of and part.made_of[0] == "control"  # type: ignore[index]  # a tuple
        )
        self.routes: Routes = control._routes

    def spawn(self, worker: Worker, reactor: object, *, shares_output: bool) -> None:
        worker.asker = FakeAsker()  # type: ignore[assignment]  # of it, what is used
        worker.makeConnection(FakeProcess(4000 + worker.number))  # type: ignore[arg-type]  # of it, what is used
        self.spawned.append(worker)

    def begin(self) -> None:
        self.parent.privilegedStartService()
        self.parent.startService()
        for begin in self.reactor.begins:
            begin()

    def serve(self) -> None:
        for worker in self.spawned:
            if not worker.is_ready:
                asker(worker).answer("serve", {"problems": []})

    def end(self) -> None:
        for worker in tuple(self.parent.pool.living.values()):
            worker.processEnded(KILLED)
        self.spawned.clear()

    async def asked(self, what: str) -> None:
        """Wait until all workers have been asked for something."""
        while not all(what in asker(worker).does() for worker in self.spawned):
            await deferLater(real_reactor, 0.01)

    def signalled(self, number: int) -> Deferred[None]:
        os.kill(os.getpid(), number)
        return deferLater(real_reactor, 0.01)


def asker(worker: Worker) -> Any:
    return worker.asker


@pytest_twisted.async_yield_fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.chdir(tmp_path)
    scene = Scene()
    monkeypatch.setattr(module, "spawn", scene.spawn)
    yield scene
    if scene.parent.running:
        stopped = maybeDeferred(scene.parent.stopService)
        await deferLater(real_reactor, 0.01)
        scene.end()
        await stopped
    await deferLater(real_reactor, 0.01)


async def test_it_listens_and_accepts_nobody(scene: Scene) -> None:
    """A worker does; until then whoever comes waits."""
    scene.begin()
    (listener,) = scene.parent.listeners
    with socket.create_connection(("127.0.0.1", listener.port.getHost().port)):
        await deferLater(real_reactor, 0.02)
        assert len(scene.parent.sessions) == 0
    assert listener.port not in real_reactor.getReaders()


async def test_workers_are_told_what_they_need(scene: Scene) -> None:
    scene.begin()
    assert [worker.number for worker in scene.spawned] == [1, 2]
    question, sockets, _ = asker(scene.spawned[1]).asked[0]
    assert question == {
        "do": "serve",
        "number": 2,
        "socket": f"{os.path.dirname(scene.spawned[0].socket)}/2.sock",
        "text": TEXT,
        "words": ["--config", "socksd.toml"],
        "directory": os.getcwd(),
        "place": 1,
        "places": 2,
    }
    assert sockets == [scene.parent.listeners[0].port.fileno()]


async def test_sockets_of_workers_are_nobodys_business(scene: Scene) -> None:
    scene.begin()
    directory = Path(scene.spawned[0].socket).parent
    assert directory.stat().st_mode & 0o777 == 0o700
    stopped = scene.parent.stopService()
    await deferLater(real_reactor, 0.01)
    scene.end()
    await stopped
    assert not directory.exists()


async def test_without_room_for_their_sockets_it_cannot_start(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    scene.parent.privilegedStartService()
    with pytest.raises(CannotStart, match="no directory for the workers' sockets"):
        scene.parent.startService()


async def test_what_has_stopped_before_it_began_has_no_workers(scene: Scene) -> None:
    scene.parent.startService()
    await scene.parent.stopService()
    scene.reactor.begins[-1]()  # the parent's own
    assert scene.spawned == []


async def test_it_says_how_many_serve(scene: Scene) -> None:
    scene.begin()
    assert scene.parent.status() == "0 sessions, 1 listeners, 0 of 2 workers"
    scene.serve()
    scene.spawned[0].sessions = 7
    assert scene.parent.status() == "7 sessions, 1 listeners, 2 of 2 workers"
    stopped = scene.parent.stopService()
    assert scene.parent.status() == "stopping, 7 sessions are left"
    scene.end()
    await stopped


# -- reload ----------------------------------------------------------------------


async def test_what_is_right_is_handed_to_all(scene: Scene) -> None:
    scene.begin()
    scene.serve()
    scene.source.text = TEXT + MORE
    answered: Any = scene.routes["POST", "/v1/reload"]({})
    await scene.asked("reload")
    for worker, refused in zip(scene.spawned, (3, 4), strict=True):
        question = asker(worker).answer("reload", {"problems": [], "refused": refused})
        assert question["text"] == scene.source.text
    assert await answered == {
        "refused_sessions": {"count": 7, "fate": "kept"},
        "unconfirmed_until": None,
    }
    assert len(scene.parent.listeners) == 2


async def test_what_is_wrong_reaches_nobody(scene: Scene) -> None:
    scene.begin()
    scene.serve()
    scene.source.text = TEXT + "[limits]\nsessions = 1\n"
    with pytest.raises(ConfigError, match="must be 2 at least"):
        await scene.routes["POST", "/v1/reload"]({})  # type: ignore[misc]  # a Deferred
    assert asker(scene.spawned[0]).does() == []
    assert scene.parent.text == TEXT


async def test_who_comes_later_is_told_what_was_loaded(scene: Scene) -> None:
    scene.begin()
    scene.serve()
    scene.source.text = "no TOML"
    scene.spawned[0].processEnded(KILLED)
    await deferLater(real_reactor, 0.01)
    assert asker(scene.spawned[2]).asked[0][0]["text"] == TEXT


async def test_a_trial_is_the_parents(scene: Scene) -> None:
    scene.begin()
    with pytest.raises(Unable, match="--confirm needs a directory"):
        await scene.routes["POST", "/v1/reload"]({"confirm": 60})  # type: ignore[misc]  # a Deferred
    with pytest.raises(Unable, match="no configuration waits"):
        scene.routes["POST", "/v1/confirm"]({})
    with pytest.raises(BadBody):
        scene.routes["POST", "/v1/confirm"]({"x": 1})


async def test_a_trial_that_is_confirmed(scene: Scene, tmp_path: Path) -> None:
    scene.source.text = TEXT + f'[reload]\nstate = "{tmp_path}/state"\n'
    scene.begin()
    for body in ({}, {"confirm": 60}):
        answered: Any = scene.routes["POST", "/v1/reload"](body)
        await scene.asked("reload")
        for worker in scene.spawned:
            asker(worker).answer("reload", {"problems": [], "refused": 0})
        await answered
    assert scene.routes["POST", "/v1/confirm"]({}) == {}


async def test_status_is_the_parents_where_it_knows_better(scene: Scene) -> None:
    scene.begin()
    status: Any = await scene.routes["GET", "/v1/status"]({})
    (listener,) = scene.parent.listeners
    port = listener.port.getHost().port
    assert status["listeners"] == [{"name": "office", "address": f"127.0.0.1:{port}"}]
    assert (status["config"], status["reloads"]) == ("/etc/socksd.toml", 0)
    assert status["workers"] == []


# -- restart, logs, signals --------------------------------------------------------


async def test_a_restart_is_answered_when_it_is_over(scene: Scene) -> None:
    scene.begin()
    scene.serve()
    answered = scene.routes["POST", "/v1/restart-workers"]({})
    for former, number in ((1, 3), (2, 4)):
        assert not answered.called
        asker(scene.spawned[number - 1]).answer("serve", {"problems": []})
        while "stop" not in asker(scene.spawned[former - 1]).does():  # what it has counted first
            await deferLater(real_reactor, 0.01)
    assert outcome(answered) == {"restarted": 2}
    with pytest.raises(BadBody):
        scene.routes["POST", "/v1/restart-workers"]({"x": 1})


async def test_all_drain_for_as_long_as_somebody_says(scene: Scene) -> None:
    scene.begin()
    scene.serve()
    scene.parent.leave = scene.parent.stopService
    scene.spawned[0].sessions = 3
    said: Any = scene.routes["POST", "/v1/drain"]({"seconds": 7})
    assert said["sessions"] == 3
    await scene.asked("stop")
    for worker in scene.spawned:
        question = asker(worker).answer("stop", {})
        assert question["seconds"] == 7
    with pytest.raises(Unable, match="draining already"):
        scene.routes["POST", "/v1/drain"]({"seconds": 8})
    status: Any = await scene.routes["GET", "/v1/status"]({})  # type: ignore[misc]  # a Deferred
    assert status["draining_until"] == said["draining_until"]
    scene.end()


async def test_sigusr2_restarts_and_says_why_it_does_not(scene: Scene) -> None:
    scene.begin()
    scene.serve()
    await scene.signalled(signal.SIGUSR2)
    assert [worker.number for worker in scene.spawned] == [1, 2, 3]
    with capturedLogs() as events:
        await scene.signalled(signal.SIGUSR2)
    assert [formatEvent(event) for event in events] == [
        "workers not restarted: workers are being restarted already"
    ]


async def test_sigusr1_reaches_all(scene: Scene) -> None:
    scene.begin()
    scene.serve()
    await scene.signalled(signal.SIGUSR1)
    for worker in scene.spawned:
        assert worker.transport.signals == [signal.SIGUSR1]  # type: ignore[union-attr]  # a fake


async def test_who_insists_hurries_all(scene: Scene) -> None:
    scene.begin()
    scene.serve()
    stopped = scene.parent.stopService()
    await deferLater(real_reactor, 0.01)
    assert all("stop" in asker(worker).does() for worker in scene.spawned)
    await scene.signalled(signal.SIGTERM)
    assert all("hurry" in asker(worker).does() for worker in scene.spawned)
    scene.end()
    await stopped


# -- the service manager -----------------------------------------------------------


async def test_the_manager_hears_when_all_are_ready_and_when_all_have_reloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.setblocking(False)

        async def heard() -> list[str]:
            await deferLater(real_reactor, 0.01)
            found: list[str] = []
            try:
                while True:
                    found += manager.recv(4096).decode().splitlines()
            except BlockingIOError:
                return [line.partition("=")[0] for line in found]

        scene = Scene(Manager(path, 4.0))
        monkeypatch.setattr(module, "spawn", scene.spawn)
        assert scene.parent.pool._patience == 4
        scene.begin()
        assert await heard() == ["WATCHDOG", "STATUS"]
        scene.serve()
        assert await heard() == ["READY"]
        await scene.signalled(signal.SIGHUP)
        await scene.asked("reload")
        assert await heard() == ["RELOADING", "MONOTONIC_USEC"]
        for worker in scene.spawned:
            asker(worker).answer("reload", {"problems": [], "refused": 0})
        assert await heard() == ["READY"]
        scene.source.text = "no TOML"
        with capturedLogs() as events:
            await scene.signalled(signal.SIGHUP)
            while not events:
                await deferLater(real_reactor, 0.01)
        assert await heard() == ["RELOADING", "MONOTONIC_USEC", "READY"]
        stopped = scene.parent.stopService()
        assert await heard() == ["STOPPING", "EXTEND_TIMEOUT_USEC"]
        scene.end()
        await stopped


async def test_a_manager_without_a_watchdog_leaves_the_patience_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Scene(Manager("/nowhere", None)).parent.pool._patience == PATIENCE
