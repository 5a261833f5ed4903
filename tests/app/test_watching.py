"""Who may look at the running server, and what is kept for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogPublisher

from socksd.address import Destination
from socksd.app.build import build, lasting
from socksd.app.config import parse_config
from socksd.app.live import denial
from socksd.app.watching import Watching
from socksd.codes import Command
from socksd.errors import ConfigError, LoginFailed
from socksd.events import Denied
from socksd.facts import Decision, Principal, Verdict
from socksd.observe.traffic import EVERY, Rate
from tests.app.test_reload import Scene
from tests.fakes import outcome

DENIED = Denied(
    session=7,
    started=5.0,
    client=IPv4Address("192.0.2.1"),
    client_port=1,
    user="alice",
    command=Command.CONNECT,
    destination=Destination.named("mail.example", 25),
    decision=Decision(Verdict.DENY, "no-mail", text="No."),
)
CLIENT = IPv4Address("192.0.2.1")
TABLES = """
[auth]
authenticators = ["memory:alice:secret"]
[groups]
ops = ["bob"]
[dashboard]
endpoint = "unix:/run/no/dashboard"
users = ["alice"]
groups = ["ops", "admins"]
"""


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.gateway.hurry()
    outcome(scene.gateway.stopService())


@pytest.fixture
def watching(scene: Scene) -> Watching:
    watching = Watching(scene.reactor)
    watching.gateway = scene.gateway
    return watching


@pytest.mark.parametrize(
    ("who", "admitted"),
    [
        (Principal("alice"), True),
        (Principal("bob"), True),
        (Principal("carol"), False),
        (Principal("carol", frozenset({"admins"})), True),
        (Principal("carol", frozenset({"ops"})), True),
        (Principal("carol", frozenset({"users"})), False),
        (Principal(None, frozenset({"admins"})), False),
    ],
)
def test_who_is_named_may_look(
    scene: Scene, watching: Watching, who: Principal, admitted: bool
) -> None:
    assert not watching.admits(who), "nobody may by default"
    scene.change(TABLES)
    scene.reload()
    assert watching.admits(who) is admitted


def test_logins_are_those_of_the_configuration_in_force(scene: Scene, watching: Watching) -> None:
    scene.world.authenticator.users = {b"alice": b"secret"}
    assert outcome(watching.log_in(b"alice", b"secret", CLIENT)) == Principal("alice")


def test_a_login_that_fails_is_in_the_log_without_its_password(watching: Watching) -> None:
    said: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(said.append)
    try:
        refused: list[Any] = []
        watching.log_in(b"al\nice", b"hidden", CLIENT).addErrback(refused.append)
    finally:
        globalLogPublisher.removeObserver(said.append)
    assert refused[0].check(LoginFailed)
    (line,) = [each["log_format"].format(**each) for each in said if "log_format" in each]
    assert line.startswith("dashboard login refused client=192.0.2.1 user=")
    assert "\n" not in line
    assert "hidden" not in line


def test_traffic_is_sampled_while_it_runs(
    scene: Scene, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socksd.app.watching.time.time", scene.reactor.seconds)
    scene.relaying()
    watching.start()
    scene.world.relays[0].down = 1000
    scene.reactor.advance(EVERY)
    watching.stop()
    scene.reactor.advance(EVERY)
    assert watching.traffic.rates() == [Rate(EVERY, 0.0, 1000 / EVERY, EVERY)]


def test_refusals_are_told_until_nobody_wants_them(watching: Watching) -> None:
    told: list[tuple[str, Any]] = []
    unsubscribe = watching.subscribe(lambda name, what: told.append((name, what)))
    watching.denials(DENIED)
    unsubscribe()
    watching.denials(DENIED)
    ((name, what),) = told
    assert name == "denied"
    assert what == {
        "session": 7,
        "time": 5.0,
        "client": "192.0.2.1",
        "user": "alice",
        "command": "connect",
        "destination": "mail.example:25",
        "rule": "no-mail",
        "detail": "",
        "text": "No.",
    }


def test_who_is_refused_by_its_address_has_asked_for_nothing(watching: Watching) -> None:
    what = denial(replace(DENIED, command=None, destination=None))
    assert (what["command"], what["destination"]) == (None, None)


@pytest.mark.parametrize(
    ("change", "path", "said"),
    [
        (("unix:/run/no/dashboard", "tcp:9180"), "dashboard.endpoint", "passwords would be read"),
        (("unix:/run/no/dashboard", "unx:/x"), "dashboard.endpoint", "passwords would be read"),
        (('users = ["alice"]\ngroups = ["ops", "admins"]', ""), "dashboard", "nobody may see it"),
        (('"memory:alice:secret"', ""), "dashboard", "needs [auth] authenticators"),
    ],
)
def test_a_dashboard_that_nobody_or_anybody_could_use_is_refused(
    change: tuple[str, str], path: str, said: str
) -> None:
    reactor: Any = MemoryReactorClock()
    with pytest.raises(ConfigError) as caught:
        build(parse_config(TABLES.replace(*change), ""), reactor, lasting(reactor))
    problem = caught.value.problems[0]
    assert problem.path == path
    assert problem.message.startswith(said)
