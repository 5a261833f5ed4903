"""Several workers answer as one server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

import socksd
from socksd.admin.routes import BadBody, Routes, Unable
from socksd.app.live import USUAL
from socksd.app.whole import REMEMBER, Whole
from socksd.observe import samples
from socksd.observe.metrics import Family, Kind, Together
from tests.app.fake_workers import FakeWorkers
from tests.fakes import outcome

OPENED = Family(Kind.COUNTER, "socksd_sessions_opened", "Begun.", {(): 10.0})
RELOADS = Family(Kind.COUNTER, "socksd_reloads", "Loaded.", {(): 1.0})
BEGAN = Family(Kind.GAUGE, "process_start_time_seconds", "When.", {(): 5.0}, (), Together.APART)


class Worker:
    """One worker's answers, which the test changes."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.hits = number
        self.open = 1
        self.rules = ["a", "default"]
        self.families: Any = samples.said([OPENED, RELOADS, BEGAN])
        self.killed: list[Any] = []
        self.denials = [{"time": float(number), "session": number}]

    def routes(self) -> Routes:
        return {
            ("GET", "/v1/status"): lambda _: {
                "version": "0",
                "pid": 100 + self.number,
                "started": 1.0,
                "config": "/etc/socksd.toml",
                "sessions": 2 * self.number,
                "older_sessions": 1,
            },
            ("GET", "/v1/rules"): lambda _: {
                "rules": [
                    {
                        "id": rule,
                        "action": "allow",
                        "hits": self.hits,
                        "open": self.open,
                        "outcomes": {"served": self.hits},
                        "last": float(self.number),
                        "since": float(self.number),
                    }
                    for rule in self.rules
                ]
            },
            ("GET", "/v1/leaks"): self.leaks,
            ("GET", "/v1/sessions"): self.sessions,
            ("GET", "/v1/talkers"): self.talkers,
            ("GET", "/v1/traffic"): lambda _: {
                "rates": [{"time": 1010.0, "up": 1.0, "down": 2.0, "seconds": 10.0}]
            },
            ("GET", "/v1/denials"): lambda _: {"count": 1, "denials": self.denials},
            ("GET", "/v1/samples"): lambda _: {"families": self.families, "rules": self.rules},
            ("GET", "/v1/config"): lambda _: {"path": "/etc/socksd.toml", "config": {}},
            ("POST", "/v1/kill"): self.kill,
            ("POST", "/v1/explain"): lambda body: {"verdict": "allow", "asked": dict(body)},
        }

    def leaks(self, body: Any) -> Any:
        assert body == {"all": 1}
        row: Any = {"client": "192.0.2.1", "user": None, "since": 1.0, "last": 2.0, "top": []}
        addresses = 3 if self.number == 1 else 0
        return {"clients": 1, "leaks": [{**row, "addresses": addresses, "names": 1}]}

    def sessions(self, body: Any) -> Any:
        if "usr" in body:
            raise BadBody("there is no 'usr'; did you mean 'user'?")
        row = {"session": self.number, "up": self.number, "down": 0, "seconds": 1.0}
        return {"count": 5, "sessions": [row]}

    def talkers(self, body: Any) -> Any:
        assert body == {"limit": USUAL}
        row = {"client": "192.0.2.1", "user": None, "host": "x", "sessions": 1, "up": 1}
        return {"talkers": [{**row, "down": self.number}]}

    def kill(self, body: Any) -> Any:
        self.killed.append(body)
        return {"killed": self.number}


class Scene:
    """A parent of three workers."""

    def __init__(self, **more: Any) -> None:
        self.world = {number: Worker(number) for number in (1, 2, 3)}
        self.workers = FakeWorkers({n: each.routes() for n, each in self.world.items()})
        self.reactor: Any = MemoryReactorClock()
        self.whole = Whole(self.workers.addresses, self.reactor, **more)
        self.whole.rounds._asking = self.workers  # type: ignore[assignment]  # takes its place
        self.routes = self.whole.routes()

    def ask(self, method: str, path: str, **body: object) -> Any:
        return outcome(self.routes[method, f"/v1/{path}"](body))  # type: ignore[arg-type]  # all are Deferreds

    def get(self, path: str, **body: object) -> Any:
        return self.ask("GET", path, **body)

    def replace(self, old: int, new: int) -> None:
        del self.workers.routes[old]
        self.world[new] = Worker(new)
        self.workers.routes[new] = self.world[new].routes()

    def samples(self) -> dict[str, Family]:
        found: list[Family] = []

        def render(families: Iterable[Family]) -> bytes:
            found.extend(families)
            return b"page"

        assert outcome(self.whole.sample(render))() == b"page"
        assert len({each.name for each in found}) == len(found)
        return {family.name: family for family in found}


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_everything_that_a_worker_is_asked_the_whole_is() -> None:
    assert set(Scene().routes) == set(Worker(1).routes()) - {("GET", "/v1/samples")}


def test_everything_is_json_and_says_who_is_missing(scene: Scene) -> None:
    for method, path in scene.routes:
        answer = scene.ask(method, path.removeprefix("/v1/"))
        assert json.dumps(answer)
        if path not in ("/v1/config", "/v1/explain"):
            assert answer["missing"] == []
    scene.workers.silent = {2}
    for method, path in scene.routes:
        answer = scene.ask(method, path.removeprefix("/v1/"))
        assert answer.get("missing", [2]) == [2]


def test_without_any_answer_there_is_one(scene: Scene) -> None:
    scene.workers.silent = {1, 2, 3}
    for method, path in scene.routes:
        if path in ("/v1/config", "/v1/explain"):
            with pytest.raises(Unable, match="no worker answers"):
                scene.ask(method, path.removeprefix("/v1/"))
        else:
            assert scene.ask(method, path.removeprefix("/v1/"))["missing"] == [1, 2, 3]


def test_status_is_the_parents_with_its_workers() -> None:
    scene = Scene(status=lambda: {"reloads": 7, "config": "/etc/other.toml"})
    scene.workers.silent = {3}
    status = scene.get("status")
    assert (status["version"], status["pid"]) == (socksd.__version__, os.getpid())
    assert (status["reloads"], status["config"]) == (7, "/etc/other.toml")
    assert (status["sessions"], status["older_sessions"]) == (6, 2)
    assert status["workers"] == [
        {"number": 1, "pid": 101, "started": 1.0, "sessions": 2, "older_sessions": 1},
        {"number": 2, "pid": 102, "started": 1.0, "sessions": 4, "older_sessions": 1},
    ]


def test_what_the_parent_does_not_say_a_worker_does(scene: Scene) -> None:
    assert scene.get("status")["config"] == "/etc/socksd.toml"


def test_sessions_are_those_of_all(scene: Scene) -> None:
    answer = scene.get("sessions", sort="-up", limit="2", user="alice")
    assert answer["count"] == 15
    assert [row["session"] for row in answer["sessions"]] == [3, 2]
    assert {body["user"] for *_, body in scene.workers.asked if isinstance(body, dict)} == {"alice"}


@pytest.mark.parametrize("body", [{"usr": "alice"}, {"limit": 0}, {"sort": "colour"}])
def test_a_wrong_question_is_refused(scene: Scene, body: dict[str, object]) -> None:
    with pytest.raises(BadBody):
        scene.get("sessions", **body)


def test_sessions_are_ended_wherever_they_are(scene: Scene) -> None:
    assert scene.ask("POST", "kill", user="alice") == {"killed": 6, "missing": []}
    assert [worker.killed for worker in scene.world.values()] == [[{"user": "alice"}]] * 3


def test_one_explains_for_all(scene: Scene) -> None:
    assert scene.ask("POST", "explain", **{"from": "192.0.2.1"})["asked"] == {"from": "192.0.2.1"}
    assert scene.get("config")["path"] == "/etc/socksd.toml"
    assert [number for number, *_ in scene.workers.asked] == [1, 1]


def test_who_talks_to_whom_is_added_up(scene: Scene) -> None:
    (row,) = scene.get("talkers")["talkers"]
    assert (row["sessions"], row["up"], row["down"]) == (3, 3, 6)


def test_a_client_that_leaks_to_one_leaks(scene: Scene) -> None:
    answer = scene.get("leaks")
    assert answer["clients"] == 1
    (row,) = answer["leaks"]
    assert (row["addresses"], row["names"]) == (3, 3)


def test_traffic_and_denials_are_those_of_all(scene: Scene) -> None:
    (rate,) = scene.get("traffic")["rates"]
    assert (rate["up"], rate["down"]) == (3.0, 6.0)
    answer = scene.get("denials")
    assert (answer["count"], [row["session"] for row in answer["denials"]]) == (3, [3, 2, 1])


def test_hits_outlive_who_has_counted_them(scene: Scene) -> None:
    (rule, _) = scene.get("rules")["rules"]
    assert (rule["hits"], rule["open"], rule["since"], rule["last"]) == (6, 3, 1.0, 3.0)
    scene.replace(1, 4)
    (rule, _) = scene.get("rules")["rules"]
    assert (rule["hits"], rule["open"], rule["since"]) == (10, 3, 1.0)
    scene.replace(2, 5)
    scene.workers.silent = {3}
    (rule, _) = scene.get("rules")["rules"]
    assert (rule["hits"], rule["open"], rule["outcomes"]) == (15, 2, {"served": 15})


def test_what_is_kept_is_asked_for_from_time_to_time(scene: Scene) -> None:
    """Or all that was counted since somebody has looked would end with its worker."""
    scene.whole.start()
    assert not scene.workers.asked
    for asked in (1, 2):
        scene.reactor.advance(REMEMBER)
        assert len(scene.workers.asked) == 5 * 3 * asked
    scene.workers.routes.clear()
    (rule, _) = scene.get("rules")["rules"]
    assert rule["hits"] == 6
    assert scene.samples()["socksd_sessions_opened"].values == {(): 30}
    scene.whole.stop()
    scene.whole.stop()
    assert not scene.reactor.getDelayedCalls()


def test_what_workers_are_not_to_keep_is_not_kept(scene: Scene) -> None:
    """Without a dashboard, and without metrics."""

    def unable(_: object) -> None:
        raise Unable("[dashboard] endpoint is not set")

    for routes in scene.workers.routes.values():
        routes |= dict.fromkeys([("GET", "/v1/denials"), ("GET", "/v1/samples")], unable)
    scene.whole.start()
    for _ in range(2):
        scene.reactor.advance(REMEMBER)
    assert len(scene.workers.asked) == 5 * 3 * 2
    scene.whole.stop()


def test_a_bug_in_remembering_is_in_the_log_and_no_more(
    scene: Scene, logged_errors: list[dict[str, Any]]
) -> None:
    scene.workers.routes[1]["GET", "/v1/rules"] = lambda _: {}
    scene.whole.start()
    for asked in (1, 2):
        scene.reactor.advance(REMEMBER)
        (error,) = logged_errors
        assert error["log_format"] == "what workers have counted is not remembered"
        logged_errors.clear()
        assert len(scene.workers.asked) == 5 * 3 * asked, "it goes on"
    scene.whole.stop()


@pytest.mark.parametrize("path", ["leaks", "traffic", "denials"])
def test_what_was_seen_outlives_who_has_seen_it(scene: Scene, path: str) -> None:
    before = scene.get(path)
    for number in (1, 2, 3):
        del scene.workers.routes[number]
    assert scene.get(path) == before


def test_rules_that_have_gone_are_forgotten_everywhere(scene: Scene) -> None:
    scene.get("rules")
    scene.replace(1, 4)
    for worker in scene.world.values():
        worker.rules = ["b"]
    assert [rule["id"] for rule in scene.get("rules")["rules"]] == ["b"]
    assert scene.whole._rules_kept.ended == {"rules": []}


def test_a_scrape_adds_what_is_counted(scene: Scene) -> None:
    found = scene.samples()
    assert found["socksd_sessions_opened"].values == {(): 30}
    assert found["socksd_workers"].values == {("answering",): 3, ("silent",): 0}
    scene.replace(3, 4)
    scene.workers.silent = {2}
    scene.world[1].families = samples.said([replace(OPENED, values={(): 11.0})])
    found = scene.samples()
    assert found["socksd_sessions_opened"].values == {(): 41}
    assert found["socksd_workers"].values == {("answering",): 2, ("silent",): 1}


def test_another_versions_samples_are_missing_and_no_more(scene: Scene) -> None:
    scene.world[1].families = [{}]
    found = scene.samples()
    assert found["socksd_sessions_opened"].values == {(): 20}
    assert found["socksd_workers"].values == {("answering",): 2, ("silent",): 1}


def test_of_processes_each_is_shown_and_the_parent_as_well(scene: Scene) -> None:
    found = scene.samples()
    began = found["process_start_time_seconds"]
    assert (began.labels, set(began.values)) == (("worker",), {("1",), ("2",), ("3",)})
    assert set(found["process_open_fds"].values) == {("parent",)}


def test_what_the_parent_knows_better_takes_their_place() -> None:
    own = (replace(RELOADS, values={(): 2.0}), replace(BEGAN, values={(): 4.0}))
    found = Scene(families=lambda: own).samples()
    assert found["socksd_reloads"].values == {(): 2.0}
    assert found["process_start_time_seconds"].values == {
        ("1",): 5.0,
        ("2",): 5.0,
        ("3",): 5.0,
        ("parent",): 4.0,
    }


def test_one_scrape_at_a_time(scene: Scene) -> None:
    """Two answers of one worker that overtake each other would look like a new beginning."""
    scene.workers.slow = {1, 2, 3}
    pages = [scene.whole.sample(lambda _: b"") for _ in range(2)]
    assert len(scene.workers.asked) == 3
    scene.workers.go_on()
    assert [outcome(page)() for page in pages] == [b"", b""]
