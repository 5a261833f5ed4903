"""Whom the policy in force would refuse, of those who came under another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.task import Clock

from socksd.address import Destination, IPAddress
from socksd.app.judge import Judge, fate
from socksd.codes import Command
from socksd.facts import Facts
from socksd.server.states import Deadlines, State
from socksd.server.why import DESTINATION as WHY
from socksd.wire.socks5 import Request
from tests.server.world import ALLOW, DENY, FakePolicy

WEB = Destination("web.example", 443)
ADDRESS = ip_address("198.51.100.7")
OLD = SimpleNamespace(deadlines=Deadlines(handshake=1.0, resolve=2.0, connect=4.0))


@dataclass
class FakeSession:
    """A session as it is judged: what it asked for, and how far it has come."""

    number: int = 1
    request: Request | None = field(default_factory=lambda: Request(Command.CONNECT, WEB))
    address: IPAddress | None = ADDRESS
    state: State = State.RELAYING
    runtime: Any = field(default_factory=lambda: OLD)
    facts: Facts = field(default_factory=lambda: Facts(ip_address("192.0.2.1"), "office"))
    stopped: list[str] = field(default_factory=list)

    def stop(self, reason: str) -> None:
        self.stopped.append(reason)


class Scene:
    """A policy that denies all, and sessions."""

    def __init__(self, sessions: Sequence[FakeSession], seconds: float | None = 0.0) -> None:
        self.clock = Clock()
        self.policy = FakePolicy(lambda facts: DENY)
        self.config = SimpleNamespace(reload=SimpleNamespace(refused_sessions=seconds))
        runtime = SimpleNamespace(policy=self.policy)
        generation = SimpleNamespace(runtime=runtime, config=self.config)
        self.gateway: Any = SimpleNamespace(generation=generation, sessions=list(sessions))
        self.judge = Judge(self.gateway, self.clock)


def test_a_session_is_judged_at_the_address_that_it_has() -> None:
    """A rule about addresses would not be settled by its name."""
    scene = Scene([FakeSession()])
    assert scene.judge.look() == 1
    (facts,) = scene.policy.asked
    assert (facts.command, facts.destination, facts.address) == (Command.CONNECT, WEB, ADDRESS)
    assert scene.gateway.sessions[0].stopped == ["refused by rule no since a reload"]


def test_an_association_is_judged_without_where_its_datagrams_come_from() -> None:
    source = Destination(ip_address("192.0.2.1"), 40000)
    scene = Scene([FakeSession(request=Request(Command.UDP_ASSOCIATE, source), address=None)])
    scene.judge.look()
    (facts,) = scene.policy.asked
    assert (facts.destination, facts.address) == (None, None)


@pytest.mark.parametrize(
    "session",
    [
        pytest.param(FakeSession(request=None), id="has not asked for anything"),
        pytest.param(FakeSession(request=Request(Command.CONNECT, WHY)), id="asks why"),
        pytest.param(FakeSession(state=State.CLOSING), id="has been refused already"),
    ],
)
def test_who_is_not_asked_about_is_left_alone(session: FakeSession) -> None:
    scene = Scene([session])
    assert scene.judge.look() == 0
    assert (scene.policy.asked, session.stopped) == ([], [])


def test_who_came_under_the_policy_in_force_is_not_judged_again() -> None:
    scene = Scene([])
    session = FakeSession(runtime=scene.gateway.generation.runtime)
    scene.gateway.sessions.append(session)
    assert scene.judge.look() == 0
    assert session.stopped == []


def test_who_is_on_its_way_is_judged_again_once_it_must_have_arrived() -> None:
    """It may be going by a decision that was made under the old policy a moment ago."""
    scene = Scene([FakeSession(request=None, address=None, state=State.CONNECTING)])
    session = scene.gateway.sessions[0]
    scene.judge.look()
    session.request, session.address = Request(Command.CONNECT, WEB), ADDRESS
    session.state = State.RELAYING
    scene.clock.advance(6.9)
    assert session.stopped == []
    scene.clock.advance(0.2)
    assert session.stopped == ["refused by rule no since a reload"]


def test_whoever_is_allowed_again_by_then_stays() -> None:
    scene = Scene([FakeSession()], seconds=30.0)
    scene.judge.look()
    scene.policy.answer = lambda facts: ALLOW
    scene.clock.advance(30)
    assert scene.gateway.sessions[0].stopped == []


def test_a_judge_that_has_stopped_cuts_nobody() -> None:
    scene = Scene([FakeSession()], seconds=30.0)
    scene.judge.look()
    scene.judge.stop()
    assert scene.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "kept"), (0.0, "cut"), (30.0, "cut in 30 s"), (0.5, "cut in 0.5 s")],
)
def test_what_becomes_of_them_is_said_in_words(seconds: float | None, words: str) -> None:
    assert fate(seconds) == words
