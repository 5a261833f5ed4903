"""Who looks hears of refusals by any worker, and of each once."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from socksd.admin.routes import Body, Unable
from socksd.app.following import EVERY, Following
from socksd.app.rounds import Rounds
from tests.app.fake_workers import FakeWorkers

REMEMBERED = 5


class Worker:
    """Remembers the last five refusals."""

    def __init__(self, *times: float) -> None:
        self.times = list(times)
        self.has_dashboard = True

    def answer(self, body: Body) -> Any:
        if not self.has_dashboard:
            raise Unable("[dashboard] endpoint is not set")
        after = body["after"]
        assert isinstance(after, int)
        new = self.times[after:][-REMEMBERED:]
        return {"count": len(self.times), "denials": [{"time": each} for each in reversed(new)]}


class Scene:
    def __init__(self) -> None:
        self.clock = Clock()
        self.world = {1: Worker(1.0), 2: Worker()}
        self.workers = FakeWorkers({})
        for number, worker in self.world.items():
            self.enter(number, worker)
        rounds = Rounds(self.workers.addresses, self.workers)  # type: ignore[arg-type]  # takes Asking's place
        self.following = Following(rounds, self.clock)
        self.told: list[tuple[str, Any]] = []

    def enter(self, number: int, worker: Worker) -> None:
        self.workers.routes[number] = {("GET", "/v1/denials"): worker.answer}

    def tell(self, name: str, what: Any) -> None:
        self.told.append((name, what["time"] if name == "denied" else what))

    def heard(self) -> list[tuple[str, Any]]:
        self.clock.advance(EVERY)
        told, self.told = self.told, []
        return told


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_comes_is_told_once_and_in_order(scene: Scene) -> None:
    scene.following.subscribe(scene.tell)
    scene.world[1].times += [7.0, 9.0]
    scene.world[2].times += [8.0]
    assert scene.heard() == [("denied", 7.0), ("denied", 8.0), ("denied", 9.0)]
    assert scene.heard() == []


def test_what_there_was_before_is_not_told(scene: Scene) -> None:
    scene.following.subscribe(scene.tell)
    assert scene.heard() == []


def test_nobody_is_asked_while_nobody_looks(scene: Scene) -> None:
    scene.clock.advance(10 * EVERY)
    assert not scene.workers.asked
    first, second = (scene.following.subscribe(scene.tell) for _ in range(2))
    first()
    assert len(scene.workers.asked) == 2
    scene.clock.advance(EVERY)
    assert len(scene.workers.asked) == 4
    second()
    scene.clock.advance(10 * EVERY)
    assert len(scene.workers.asked) == 4
    assert not scene.clock.getDelayedCalls()


def test_what_was_missed_while_nobody_looked_is_not_told_later(scene: Scene) -> None:
    scene.following.subscribe(scene.tell)()
    scene.world[1].times += [2.0]
    scene.following.subscribe(scene.tell)
    assert scene.heard() == []


def test_all_of_a_new_worker_is_new(scene: Scene) -> None:
    scene.following.subscribe(scene.tell)
    scene.enter(3, Worker(3.0))
    assert scene.heard() == [("denied", 3.0)]


def test_of_workers_that_have_gone_nothing_is_kept(scene: Scene) -> None:
    scene.following.subscribe(scene.tell)
    del scene.workers.routes[1]
    scene.heard()
    watch = scene.following._watch
    assert watch is not None
    assert watch._seen == {2: 0}


def test_who_is_silent_for_a_while_tells_later(scene: Scene) -> None:
    scene.following.subscribe(scene.tell)
    scene.world[1].times += [2.0]
    scene.workers.silent = {1}
    assert scene.heard() == []
    scene.workers.silent = set()
    assert scene.heard() == [("denied", 2.0)]


def test_more_than_is_remembered_is_told_as_a_number(scene: Scene) -> None:
    scene.following.subscribe(scene.tell)
    scene.world[1].times += [float(n) for n in range(REMEMBERED + 3)]
    (missed, *denied) = scene.heard()
    assert missed == ("missed", 3)
    assert len(denied) == REMEMBERED


def test_a_slow_look_is_not_overtaken(scene: Scene) -> None:
    scene.workers.slow = {1, 2}
    scene.following.subscribe(scene.tell)
    scene.clock.advance(5 * EVERY)
    assert len(scene.workers.asked) == 2
    scene.workers.go_on()
    scene.clock.advance(EVERY)
    assert len(scene.workers.asked) == 4


def test_who_comes_back_during_a_slow_look_is_told_by_one_watch(scene: Scene) -> None:
    scene.workers.slow = {1, 2}
    scene.following.subscribe(scene.tell)()
    scene.following.subscribe(scene.tell)
    scene.workers.go_on()
    scene.workers.slow = set()
    scene.world[1].times += [2.0]
    assert scene.heard() == [("denied", 2.0)]
    assert len(scene.clock.getDelayedCalls()) == 1


def test_without_a_dashboard_for_a_moment_it_goes_on(scene: Scene) -> None:
    scene.following.subscribe(scene.tell)
    for worker in scene.world.values():
        worker.has_dashboard = False
    assert scene.heard() == []
    for worker in scene.world.values():
        worker.has_dashboard = True
    scene.world[1].times += [2.0]
    assert scene.heard() == [("denied", 2.0)]


def test_a_bug_is_in_the_log(scene: Scene, logged_errors: list[dict[str, Any]]) -> None:
    scene.workers.routes[1] = {("GET", "/v1/denials"): lambda _: {}}
    unsubscribe = scene.following.subscribe(scene.tell)
    assert [error["log_format"] for error in logged_errors] == ["refusals are followed no more"]
    logged_errors.clear()
    unsubscribe()
