"""What the control socket answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred

from socksd.address import Destination
from socksd.admin.routes import BadBody, Unable
from socksd.app.answers import UNWRITTEN, Answers
from socksd.app.measures import Measures
from socksd.errors import ConfigError
from socksd.events import Outcome
from socksd.observe import samples
from socksd.observe.counters import RuleCounters
from socksd.observe.leaks import Leaks
from socksd.observe.metrics import Metrics
from socksd.observe.traffic import Denials, Traffic
from tests.app.test_reload import DENIES, Scene
from tests.fakes import outcome
from tests.observe.closed import DENIED, SERVED

NOW = 1000.0
LISTENER = '[[listener]]\nname = "office"\nendpoint = "tcp:1080"\n'
BODIES = {
    "/v1/kill": {"session": 1},
    "/v1/explain": {"from": "192.0.2.1", "connect": "a.example:80"},
}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.gateway.hurry()
    outcome(scene.gateway.stopService())


@pytest.fixture
def counters() -> RuleCounters:
    counters = RuleCounters(lambda: NOW)
    counters.follow([rule for rule, _ in UNWRITTEN])
    return counters


@pytest.fixture
def leaks() -> Leaks:
    return Leaks()


@pytest.fixture
def answers(scene: Scene, counters: RuleCounters, leaks: Leaks) -> Answers:
    return Answers(
        scene.gateway,
        scene.reloader,
        counters,
        leaks,
        Traffic(scene.gateway.sessions.carried),
        Denials(),
        Measures(scene.gateway, scene.reloader, counters, Metrics()),
        scene.reactor,
        in_thread=maybeDeferred,
    )


def test_everything_is_a_route_and_json(answers: Answers, scene: Scene) -> None:
    scene.change(LISTENER + '[dashboard]\nendpoint = "unix:/x"\n[metrics]\nendpoint = "unix:/y"\n')
    scene.reload()
    routes = answers.routes()
    assert set(routes) == {
        ("GET", "/v1/status"),
        ("GET", "/v1/rules"),
        ("GET", "/v1/leaks"),
        ("GET", "/v1/sessions"),
        ("GET", "/v1/config"),
        ("GET", "/v1/talkers"),
        ("GET", "/v1/traffic"),
        ("GET", "/v1/denials"),
        ("GET", "/v1/samples"),
        ("POST", "/v1/explain"),
        ("POST", "/v1/kill"),
        ("POST", "/v1/reload"),
        ("POST", "/v1/confirm"),
        ("POST", "/v1/restart-workers"),
        ("POST", "/v1/drain"),
    }
    with pytest.raises(Unable, match="has no workers"):
        routes.pop(("POST", "/v1/restart-workers"))({})
    for (_, path), handler in routes.items():
        if path == "/v1/confirm":
            handler_of_reload = routes["POST", "/v1/reload"]
            handler_of_reload({"confirm": 60})
        answer = handler(BODIES.get(path, {}))
        assert json.dumps(outcome(answer) if isinstance(answer, Deferred) else answer)


def test_status_says_what_runs(answers: Answers, scene: Scene) -> None:
    scene.relaying()
    scene.reload()
    scene.relaying()
    status = answers.status({})
    assert status["config"] == scene.path
    assert status["listeners"] == [{"name": "office", "address": "127.0.0.1:1080"}]
    assert (status["sessions"], status["older_sessions"]) == (2, 1)
    assert (status["reloads"], status["failed_reloads"]) == (1, 0)
    assert (status["unconfirmed_until"], status["rolled_back"]) == (None, False)


def test_rules_are_in_their_order_with_what_they_have_decided(
    answers: Answers, scene: Scene, counters: RuleCounters
) -> None:
    scene.gateway.generation = replace(
        scene.gateway.generation, rules=(("z", "deny"), ("yes", "allow"))
    )
    counters.follow(["z", "yes", "guard", "default", "why"])
    counters(replace(SERVED, rule="z", outcome=Outcome.DENIED, started=5.0))
    scene.relaying()
    rules = answers.rules({})["rules"]
    assert [(rule["id"], rule["action"]) for rule in rules] == [
        ("z", "deny"),
        ("yes", "allow"),
        ("guard", "deny"),
        ("default", "deny"),
        ("why", "allow"),
    ]
    first, second = rules[:2]
    assert first == {
        "id": "z",
        "action": "deny",
        "hits": 1,
        "open": 0,
        "outcomes": {"denied": 1},
        "last": 5.0,
        "since": NOW,
    }
    assert (second["hits"], second["open"]) == (0, 1), "a tunnel shows while it lasts"


def test_leaks_name_the_client_and_what_it_asked_for(answers: Answers, leaks: Leaks) -> None:
    leaks(replace(SERVED, user=None))
    for host in ("198.51.100.1", "198.51.100.2", "198.51.100.2"):
        leaks(replace(SERVED, user=None, destination=Destination.named(host, 443), started=5.0))
    answer = answers.leaks({})
    assert answer["clients"] == 1
    (leak,) = answer["leaks"]
    assert leak == {
        "client": str(IPv4Address("127.0.0.1")),
        "user": None,
        "addresses": 3,
        "names": 1,
        "since": SERVED.started,
        "last": SERVED.started,
        "top": [
            {"destination": "198.51.100.2:443", "count": 2},
            {"destination": "198.51.100.1:443", "count": 1},
        ],
    }


def test_who_leaks_nothing_is_there_for_who_asks(answers: Answers, leaks: Leaks) -> None:
    """Whoever merges what several workers say must know who was seen by more than one."""
    leaks(SERVED)
    assert answers.leaks({}) == {"clients": 1, "leaks": []}
    (client,) = answers.leaks({"all": "1"})["leaks"]
    assert (client["addresses"], client["names"]) == (0, 1)


def test_denials_are_told_from_where_one_left_off(answers: Answers, scene: Scene) -> None:
    scene.change('[dashboard]\nendpoint = "unix:/x"\n')
    scene.reload()
    denials = answers._denials
    for number in range(3):
        denials(replace(DENIED, session=number))

    def told(**body: object) -> tuple[int, list[int]]:
        answer = answers.denials(body)
        return answer["count"], [row["session"] for row in answer["denials"]]

    assert told() == (3, [2, 1, 0])
    assert told(after="2") == (3, [2])
    assert told(after=3) == told(after=4) == (3, [])
    for after in ("x", -1, None, "9" * 5000):
        with pytest.raises(BadBody, match="after is a number, 0 or more"):
            told(after=after)


def test_samples_are_all_that_a_scrape_shows(answers: Answers, scene: Scene) -> None:
    scene.change('[metrics]\nendpoint = "unix:/x"\n')
    scene.reload()
    said = outcome(answers.samples({}))
    names = {family.name for family in samples.heard(json.loads(json.dumps(said["families"])))}
    assert {"socksd_sessions", "socksd_connect_seconds", "process_open_fds"} <= names
    assert said["rules"] == ["guard", "default", "why"]


def test_sessions_are_listed_and_ended(answers: Answers, scene: Scene) -> None:
    scene.relaying()
    (session,) = answers.sessions({"state": "relaying"})["sessions"]
    assert session["seconds"] == 0.0
    assert answers.kill({"session": session["session"]}) == {"killed": 1}
    assert not answers.sessions({})["count"]


def test_without_a_dashboard_nothing_is_kept_for_it(answers: Answers) -> None:
    for ask in (answers.traffic, answers.denials, answers.samples):
        with pytest.raises(Unable, match="endpoint is not set"):
            ask({})


def test_the_configuration_is_the_one_in_force(answers: Answers, scene: Scene) -> None:
    """On trial or confirmed; never what the file says now."""
    before = answers.config({})
    assert before["path"] == scene.path
    scene.change("", DENIES)
    assert answers.config({}) == before
    outcome(answers.reload({"confirm": 60}))
    assert answers.config({})["config"]["rule"] == [{"id": "no", "action": "deny"}]
    scene.reactor.advance(60)
    assert answers.config({}) == before


def test_a_reload_says_what_it_means_for_sessions(answers: Answers, scene: Scene) -> None:
    scene.relaying()
    scene.change('refused_sessions = "2m"\n', DENIES)
    assert outcome(answers.reload({})) == {
        "refused_sessions": {"count": 1, "fate": "cut in 120 s"},
        "unconfirmed_until": None,
    }


def test_a_trial_is_confirmed(answers: Answers, scene: Scene) -> None:
    scene.change("# new\n")
    until = outcome(answers.reload({"confirm": 60}))["unconfirmed_until"]
    assert until == scene.reloader.unconfirmed_until is not None
    assert answers.confirm({}) == {}
    assert scene.kept.text() == scene.text
    with pytest.raises(Unable):
        answers.confirm({})


@pytest.mark.parametrize("trial", ["5m", True, 0, -1, 1e9, float("nan"), [], {}])
def test_a_trial_that_is_no_time_is_refused(answers: Answers, scene: Scene, trial: Any) -> None:
    with pytest.raises(BadBody, match="confirm is a number of seconds, 1 to 86400"):
        outcome(answers.reload({"confirm": trial}))
    assert scene.reloader.reloads == 0


def test_who_drains_is_told_until_when(answers: Answers, scene: Scene) -> None:
    scene.relaying()
    left: list[None] = []
    scene.gateway.leave = lambda: left.append(None)
    assert answers.status({})["draining_until"] is None
    answer = answers.drain({"seconds": 60})
    assert answer == {"sessions": 1, "draining_until": scene.gateway.draining_until}
    assert answers.status({})["draining_until"] == answer["draining_until"] is not None
    assert answers.drain({}) == answer, "to look at it once more does no harm"
    with pytest.raises(Unable, match="draining already"):
        answers.drain({"seconds": 5})
    scene.reactor.advance(0)
    assert left == [None]


@pytest.mark.parametrize("seconds", ["5m", True, -1, 1e9, float("nan"), []])
def test_a_drain_that_is_no_time_is_refused(answers: Answers, scene: Scene, seconds: Any) -> None:
    with pytest.raises(BadBody, match="seconds is a number of seconds, 0 to "):
        answers.drain({"seconds": seconds})
    assert scene.gateway.draining_until is None


def test_what_nobody_knows_is_refused(answers: Answers, scene: Scene) -> None:
    """A misspelt "confirm" would be a reload for good."""
    with pytest.raises(BadBody, match="there is no 'confrim'"):
        outcome(answers.reload({"confrim": 60}))
    with pytest.raises(BadBody, match="there is no 'x'"):
        answers.confirm({"x": 1})
    with pytest.raises(BadBody, match="there is no 'within'"):
        answers.drain({"within": 1})
    assert scene.gateway.draining_until is None
    assert scene.reloader.reloads == 0


def test_problems_are_the_configurations(answers: Answers, scene: Scene) -> None:
    scene.change("", "nonsense = 1\n")
    with pytest.raises(ConfigError, match="nonsense: there is no such key"):
        outcome(answers.reload({}))
