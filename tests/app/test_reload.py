"""Another configuration while the service runs: all of it, or nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from socksd.admin.routes import Unable
from socksd.app.config import Config, parse_config
from socksd.app.confirmed import Confirmed
from socksd.app.judge import LISTED
from socksd.app.reload import WAITING, Reloader, here
from socksd.app.service import Entrance, Gateway, Generation, Part
from socksd.codes import Command, ReplyCode
from socksd.errors import ConfigError, Problem, Refused
from socksd.events import Outcome, SessionClosed
from socksd.facts import Facts
from socksd.wire.socks5 import UNSPECIFIED, Request
from tests.app.test_service import FakeEndpoint, FakePort
from tests.fakes import FakeTransport, outcome
from tests.server.test_session import GREETING, LITERAL, NAMED
from tests.server.test_why import WHY
from tests.server.world import ALLOW, DENY, FakePolicy, World, addresses

DENIES = 'rule = [{id = "no", action = "deny"}]\n'


class FakeReactor(Clock):
    """A clock that takes calls from signal handlers, for the test to make."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[Callable[[], object]] = []

    def callFromThread(self, call: Callable[[], object]) -> None:
        self.threads.append(call)

    def turn(self) -> None:
        calls, self.threads = self.threads, []
        for call in calls:
            call()


class Scene:
    """
    A running service whose file is the test's to change.

    A configuration with a rule denies everything, one without allows it.
    """

    def __init__(self, directory: Path, *, with_state: bool = True) -> None:
        self.directory = directory
        self.path: str | None = str(directory / "socksd.toml")
        self.state = directory / "state"
        self.reactor = FakeReactor()
        self.world = World(clock=self.reactor)
        self.adopted: list[Generation] = []
        self.built_in: list[str] = []
        self.error: Exception | None = None
        self.text = f'[reload]\nstate = "{self.state}"\n' if with_state else ""
        self.in_thread: Callable[..., Deferred[Any]] = maybeDeferred
        self.begin()

    def begin(self, *, rolled_back: bool = False) -> None:
        generation = self.build(self.parse(self.text), ())
        self.gateway = Gateway(generation, self.world.sessions, self.reactor)
        self.reloader = Reloader(
            self.gateway,
            self,
            self.build,
            self.reactor,  # type: ignore[arg-type]  # of it, what is used
            text=self.text,
            rolled_back=rolled_back,
            adopted=self.adopted.append,
            in_thread=self.in_thread,
        )
        self.gateway.beside.append(Part(self.reloader.start, self.reloader.stop))
        self.gateway.startService()

    def reload(self, trial: float | None = None, *, by_hand: bool = True) -> int:
        count: int = outcome(self.reloader.reload(trial, by_hand=by_hand))
        return count

    def read(self) -> str:
        return self.text

    def parse(self, text: str) -> Config:
        return parse_config(text, "socksd.toml")

    def build(self, config: Config, running: Sequence[Part]) -> Generation:
        self.built_in.append(os.getcwd())
        if self.error is not None:
            raise self.error
        policy = FakePolicy(lambda facts: DENY if config.rule else ALLOW)
        runtime = replace(self.world.runtime, policy=policy)
        entrances = (Entrance("office", "tcp:1", FakeEndpoint(FakePort())),)
        return Generation(config, (), entrances, runtime, ())

    def change(self, more: str, first: str = "") -> str:
        self.text = f'{first}[reload]\nstate = "{self.state}"\n{more}'
        return self.text

    @property
    def denies(self) -> bool:
        facts = Facts(*addresses("192.0.2.1"), "office")
        return self.gateway.generation.runtime.policy.decide(facts) is DENY

    @property
    def kept(self) -> Confirmed:
        return Confirmed(self.state)

    def relaying(self, octets: bytes = LITERAL) -> FakeTransport:
        """Give a client with a relay."""
        client = self.coming(octets)
        self.world.egress.answer("198.51.100.7")
        return client

    def coming(self, octets: bytes) -> FakeTransport:
        """Give a client that has sent this."""
        protocol = self.gateway.listeners[0].factory.buildProtocol(None)
        assert protocol is not None
        client = FakeTransport(protocol)
        client.receive(GREETING)
        client.receive(octets)
        return client

    def ends(self) -> list[tuple[Outcome, str]]:
        return [(end.outcome, end.reason) for end in self.world.events.of(SessionClosed)]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.gateway.hurry()
    outcome(scene.gateway.stopService())
    assert not scene.reactor.getDelayedCalls()


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the log says, a line each."""
    lines: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "socksd":
            fields = {k: v for k, v in event.items() if not k.startswith("log_")}
            lines.append(event["log_format"].format(**fields))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


# -- for good ----------------------------------------------------------------


def test_a_reload_is_what_new_sessions_are_served_by(scene: Scene) -> None:
    scene.change("", DENIES)
    assert scene.reload() == 0
    assert scene.denies
    assert scene.adopted == [scene.adopted[0], scene.gateway.generation]
    assert (scene.reloader.reloads, scene.reloader.failed) == (1, 0)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ConfigError([Problem("a", "x"), Problem("b", "y")]), id="problems"),
        pytest.param(OSError(13, "Permission denied"), id="an error of the system"),
        pytest.param(OSError("odd"), id="one without words"),
    ],
)
def test_what_fails_changes_nothing_and_is_said_once(
    scene: Scene, said: list[str], error: Exception
) -> None:
    before = scene.gateway.generation
    scene.error = error
    with pytest.raises(ConfigError):
        scene.reload()
    problems = error.problems if isinstance(error, ConfigError) else [error.strerror or "odd"]
    assert said == [f"not reloaded: {problem}" for problem in problems]
    assert scene.gateway.generation is before
    assert (scene.reloader.reloads, scene.reloader.failed) == (0, 1)
    assert scene.adopted == [before]


def test_relative_paths_mean_what_they_meant_at_the_start(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """twistd goes to --rundir in between."""
    began = os.getcwd()
    monkeypatch.chdir(tmp_path)
    scene.reload()
    assert scene.built_in == [began, began]
    assert os.getcwd() == str(tmp_path)


def test_a_directory_that_has_gone_is_nobodys_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert here() == "/"


def test_a_stopping_service_reloads_no_more(scene: Scene) -> None:
    outcome(scene.gateway.stopService())
    with pytest.raises(Unable, match="stopping"):
        scene.reload()


# -- by signal ---------------------------------------------------------------


def test_signals_become_one_reload_each_time_it_is_their_turn(scene: Scene) -> None:
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGHUP)
    assert scene.reloader.reloads == 0, "a signal comes between any two instructions"
    assert len(scene.reactor.threads) == 1
    scene.reactor.turn()
    assert scene.reloader.reloads == 1
    os.kill(os.getpid(), signal.SIGHUP)
    scene.reactor.turn()
    assert scene.reloader.reloads == 2


def test_a_signal_for_a_broken_file_is_a_line_and_no_traceback(
    scene: Scene, said: list[str]
) -> None:
    scene.change("", "nonsense = 1\n")
    os.kill(os.getpid(), signal.SIGHUP)
    scene.reactor.turn()
    (line,) = said
    assert line.startswith("not reloaded: nonsense: there is no such key")


def test_a_service_that_drains_reloads_no_more(scene: Scene) -> None:
    client = scene.coming(NAMED)
    scene.reload(5.0)
    stopped = scene.gateway.stopService()
    reloads = scene.reloader.reloads
    with pytest.raises(Unable, match="the service is stopping"):
        scene.reload()
    scene.reactor.advance(6.0)
    assert scene.reloader.reloads == reloads
    assert not scene.reloader.rolled_back, "the trial has ended, but nothing is adopted any more"
    client.receive_fin()
    scene.reactor.advance(0)
    outcome(stopped)


def test_who_waits_for_a_reload_hears_when_it_begins_and_ends(scene: Scene) -> None:
    heard: list[str] = []
    scene.reloader.begins = lambda: heard.append("begins")
    scene.reloader.ends = lambda: heard.append("ends")
    scene.reload()
    assert heard == ["begins", "ends"]
    scene.error = ConfigError([Problem("", "broken")])
    with pytest.raises(ConfigError):
        scene.reload()
    assert heard == ["begins", "ends"] * 2


class Thread:
    """What a thread has been given to do, until the test lets it be done."""

    def __init__(self, scene: Scene) -> None:
        self.given: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        scene.reloader._in_thread = self

    def __call__(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        self.given.append((Deferred(), lambda: call(*arguments)))
        return self.given[-1][0]

    def turn(self) -> None:
        done, call = self.given.pop(0)
        maybeDeferred(call).chainDeferred(done)


def test_it_goes_on_while_a_configuration_is_parsed(scene: Scene) -> None:
    """The reloads of signals that come meanwhile are one; those by hand wait for their turn."""
    thread = Thread(scene)
    scene.change("# 1\n", DENIES)
    os.kill(os.getpid(), signal.SIGHUP)
    scene.reactor.turn()
    assert len(thread.given) == 1
    assert not scene.denies
    by_hand = scene.reloader.reload()
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGHUP)
        scene.reactor.turn()
    thread.turn()
    assert scene.denies
    scene.change("# 2\n")
    thread.turn()
    assert outcome(by_hand) == 0
    assert scene.denies, "what was read before the file was changed"
    thread.turn()
    assert not scene.denies
    assert not thread.given
    assert scene.reloader.reloads == 3


def test_only_so_many_wait_for_their_turn(scene: Scene) -> None:
    thread = Thread(scene)
    waiting = [scene.reloader.reload() for _ in range(1 + WAITING)]
    with pytest.raises(Unable, match="too many"):
        scene.reload()
    os.kill(os.getpid(), signal.SIGHUP)
    scene.reactor.turn()
    while thread.given:
        thread.turn()
    assert [outcome(each) for each in waiting] == [0] * (1 + WAITING)
    assert scene.reloader.reloads == 1 + WAITING + 1, "a signal is never lost"


def test_a_service_that_has_stopped_meanwhile_adopts_nothing(scene: Scene, said: list[str]) -> None:
    thread = Thread(scene)
    heard: list[str] = []
    scene.reloader.ends = lambda: heard.append("ends")
    scene.change("", DENIES)
    os.kill(os.getpid(), signal.SIGHUP)
    scene.reactor.turn()
    scene.gateway.hurry()
    scene.gateway.stopService()
    thread.turn()
    assert not scene.denies
    assert said[-1] == "not reloaded: the service is stopping"
    assert not heard, "it has been said that it stops"


def test_a_trial_that_began_before_it_was_parsed_stays(scene: Scene) -> None:
    thread = Thread(scene)
    late = scene.reloader.reload()
    scene.reloader._trial = scene.reactor.callLater(60, lambda: None)
    thread.turn()
    with pytest.raises(Unable, match="waits to be confirmed"):
        outcome(late)


def test_what_goes_wrong_otherwise_is_not_hidden(scene: Scene) -> None:
    scene.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        scene.reload()
    scene.error = None
    assert scene.reload() == 0, "and nobody waits for ever"


def test_what_sighup_did_before_it_does_again(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGHUP)
    scene = Scene(tmp_path)
    assert signal.getsignal(signal.SIGHUP) != before
    outcome(scene.gateway.stopService())
    assert signal.getsignal(signal.SIGHUP) == before


# -- on trial ----------------------------------------------------------------


def test_what_it_is_started_with_is_confirmed(scene: Scene) -> None:
    assert scene.kept.text() == scene.text


def test_a_trial_that_is_not_confirmed_is_rolled_back(scene: Scene, said: list[str]) -> None:
    confirmed = scene.text
    trial = scene.change("", DENIES)
    scene.reload(300.0)
    assert scene.denies
    assert scene.kept.is_marked(trial)
    assert scene.kept.text() == confirmed
    assert scene.reloader.unconfirmed_until is not None
    scene.reactor.advance(299)
    assert scene.denies
    scene.reactor.advance(1)
    assert not scene.denies
    assert scene.reloader.rolled_back
    assert scene.reloader.unconfirmed_until is None
    assert any("rolled back to the last confirmed" in line for line in said)
    assert scene.kept.is_marked(trial), "it would not be started with"


def test_a_trial_that_is_confirmed_stays(scene: Scene) -> None:
    trial = scene.change("", DENIES)
    scene.reload(300.0)
    scene.reloader.confirm()
    assert (scene.kept.text(), scene.kept.is_marked(trial)) == (trial, False)
    scene.reactor.advance(1000)
    assert scene.denies
    with pytest.raises(Unable, match="no configuration waits"):
        scene.reloader.confirm()


def test_the_mark_is_there_before_the_trial_serves_anybody(scene: Scene) -> None:
    marked: list[bool] = []
    adopt = scene.gateway.adopt

    def adopting(generation: Generation) -> None:
        marked.append(scene.kept.is_marked(scene.text))
        adopt(generation)

    scene.gateway.adopt = adopting  # type: ignore[method-assign]  # to come between
    scene.change("", DENIES)
    scene.reload(300.0)
    assert marked == [True]


def test_a_trial_that_cannot_be_adopted_leaves_no_mark(scene: Scene) -> None:
    def adopt(_: Generation) -> None:
        raise ConfigError([Problem("", "in use")])

    scene.gateway.adopt = adopt  # type: ignore[method-assign]  # to come between
    trial = scene.change("", DENIES)
    with pytest.raises(ConfigError):
        scene.reload(300.0)
    assert not scene.kept.is_marked(trial)
    assert scene.reloader.unconfirmed_until is None


def test_while_one_is_on_trial_only_another_trial_takes_its_place(scene: Scene) -> None:
    """A reload by log rotation is not a confirmation."""
    confirmed = scene.text
    scene.change("", DENIES)
    scene.reload(300.0)
    with pytest.raises(Unable, match="waits to be confirmed"):
        scene.reload()
    scene.reactor.advance(200)
    second = scene.change("# again\n", DENIES)
    scene.reload(300.0)
    scene.reactor.advance(200)
    assert scene.denies, "the first one's time is nobody's"
    scene.reactor.advance(100)
    assert not scene.denies
    assert scene.kept.is_marked(second)
    assert scene.kept.text() == confirmed


def test_what_has_failed_its_trial_is_taken_only_by_hand(scene: Scene, said: list[str]) -> None:
    trial = scene.change("", DENIES)
    scene.reload(300.0)
    scene.reactor.advance(300)
    os.kill(os.getpid(), signal.SIGHUP)
    scene.reactor.turn()
    assert not scene.denies
    assert said[-1].startswith("not reloaded: the file was never confirmed")
    scene.reload()
    assert scene.denies
    assert not scene.reloader.rolled_back
    assert (scene.kept.text(), scene.kept.is_marked(trial)) == (trial, False)


def test_a_state_that_cannot_be_read_holds_signals_up(scene: Scene, said: list[str]) -> None:
    (scene.state / "confirmed.toml").unlink()
    scene.state.rmdir()
    scene.state.write_text("a file")
    os.kill(os.getpid(), signal.SIGHUP)
    scene.reactor.turn()
    assert said == [f"not reloaded: cannot read {scene.state}: Not a directory"]


@pytest.mark.parametrize("text", ["", '[reload]\nstate = "/elsewhere"\n'], ids=["none", "another"])
def test_a_trial_needs_a_place_to_survive_in(scene: Scene, text: str) -> None:
    """One that the file as it stands leads to, or a restart would not find the mark."""
    scene.text = text
    with pytest.raises(Unable, match=r"set \[reload\] state"):
        scene.reload(300.0)
    assert scene.reloader.reloads == 0


def unwritable(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Confirmed, "_write", fails)


def test_a_trial_that_cannot_be_written_down_is_none(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwritable(scene, monkeypatch)
    scene.change("", DENIES)
    with pytest.raises(Unable, match=r"cannot write into .*: Read-only file system"):
        scene.reload(300.0)
    assert not scene.denies


def test_a_confirmation_that_cannot_be_written_down_is_none(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.change("", DENIES)
    scene.reload(300.0)
    unwritable(scene, monkeypatch)
    with pytest.raises(Unable, match="cannot keep the confirmed configuration"):
        scene.reloader.confirm()
    scene.reactor.advance(300)
    assert not scene.denies


def test_a_plain_reload_counts_although_it_cannot_be_written_down(
    scene: Scene, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unwritable(scene, monkeypatch)
    scene.change("", DENIES)
    scene.reload()
    assert scene.denies
    assert "cannot keep the confirmed configuration" in said[0]


def test_a_trial_keeps_the_confirmed_one_if_nobody_has_yet(scene: Scene) -> None:
    confirmed = scene.text
    (scene.state / "confirmed.toml").unlink()
    scene.change("", DENIES)
    scene.reload(300.0)
    assert scene.kept.text() == confirmed


def test_a_rollback_that_fails_is_said_and_the_trial_goes_on(scene: Scene, said: list[str]) -> None:
    scene.change("", DENIES)
    scene.reload(300.0)
    scene.error = ConfigError([Problem("auth", "gone")])
    scene.reactor.advance(300)
    assert scene.denies
    assert said[-2:] == [
        "not confirmed in time, but it cannot be rolled back:",
        "not reloaded: auth: gone",
    ]


def test_started_with_the_confirmed_one_the_mark_stays(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Confirmed(tmp_path / "state")
    kept.mark("the file", 5.0)
    begin = Scene.begin
    monkeypatch.setattr(Scene, "begin", lambda scene: begin(scene, rolled_back=True))
    scene = Scene(tmp_path)
    assert kept.is_marked("the file")
    assert scene.reloader.rolled_back
    assert any("the configuration file was never confirmed" in line for line in said)
    outcome(scene.gateway.stopService())


def test_a_start_that_cannot_be_written_down_is_said(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text("a file")
    scene = Scene(tmp_path)
    assert any("cannot keep the confirmed configuration in" in line for line in said)
    outcome(scene.gateway.stopService())


def test_without_a_state_nothing_is_written(tmp_path: Path) -> None:
    scene = Scene(tmp_path, with_state=False)
    scene.reload()
    os.kill(os.getpid(), signal.SIGHUP)
    scene.reactor.turn()
    assert scene.reloader.reloads == 2
    assert list(tmp_path.iterdir()) == []
    outcome(scene.gateway.stopService())


# -- sessions that would now be refused --------------------------------------


def test_refused_sessions_are_kept_and_named(scene: Scene, said: list[str]) -> None:
    scene.relaying()
    scene.change("", DENIES)
    assert scene.reload() == 1
    assert scene.ends() == []
    assert said[-1] == (
        "would now be refused: session 1 client=127.0.0.1 user=- connect 198.51.100.7:80"
        " rule=no (kept)"
    )


def test_they_are_judged_at_the_address_that_was_dialled(scene: Scene) -> None:
    scene.coming(NAMED)
    scene.world.resolver.pending.deferreds[-1].callback(addresses("198.51.100.7"))
    scene.world.egress.answer("198.51.100.7")
    scene.change("", DENIES)
    scene.reload()
    policy = scene.gateway.generation.runtime.policy
    assert isinstance(policy, FakePolicy)
    assert [facts.address for facts in policy.asked] == list(addresses("198.51.100.7"))


def test_associations_are_judged_by_what_they_may_and_not_by_where_they_are(
    scene: Scene,
) -> None:
    scene.coming(Request(Command.UDP_ASSOCIATE, UNSPECIFIED).encode())
    scene.change("", DENIES)
    assert scene.reload() == 1
    policy = scene.gateway.generation.runtime.policy
    assert isinstance(policy, FakePolicy)
    (facts,) = policy.asked
    assert (facts.command, facts.destination) == (Command.UDP_ASSOCIATE, None)


def test_refused_sessions_are_cut_where_it_says_so(scene: Scene) -> None:
    scene.relaying()
    scene.change('refused_sessions = "cut"\n', DENIES)
    assert scene.reload() == 1
    assert scene.ends() == [(Outcome.STOPPED, "refused by rule no since a reload")]


def test_refused_sessions_are_cut_after_a_time(scene: Scene, said: list[str]) -> None:
    scene.relaying()
    scene.change('refused_sessions = "30s"\n', DENIES)
    scene.reload()
    assert said[-1].endswith("(cut in 30 s)")
    scene.reactor.advance(29)
    assert scene.ends() == []
    scene.reactor.advance(1)
    assert len(scene.ends()) == 1


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(('refused_sessions = "30s"\n', ""), id="allowed again"),
        pytest.param(('refused_sessions = "keep"\n', DENIES), id="kept after all"),
    ],
)
def test_what_is_cut_is_what_is_refused_by_then(scene: Scene, then: tuple[str, str]) -> None:
    scene.relaying()
    scene.change('refused_sessions = "30s"\n', DENIES)
    scene.reload()
    scene.change(*then)
    scene.reload()
    scene.reactor.advance(1000)
    assert scene.ends() == []


def test_sessions_on_their_way_are_judged_again_when_they_have_arrived(scene: Scene) -> None:
    """They keep what they began with, and would slip through."""
    asking = scene.coming(b"")
    looking = scene.coming(NAMED)
    scene.change('refused_sessions = "cut"\n', DENIES)
    assert scene.reload() == 1, "the name is denied whatever it leads to"
    assert looking.gone == "reset"
    asking.receive(LITERAL)
    scene.world.egress.answer("198.51.100.7")
    assert asking.gone is None
    scene.reactor.advance(35)
    assert len(scene.ends()) == 2


def test_sessions_of_the_same_configuration_are_not_judged(scene: Scene) -> None:
    scene.change('refused_sessions = "cut"\n')
    scene.reload()
    scene.relaying()
    assert scene.reload() == 0
    assert scene.ends() == []


def test_those_who_ask_why_and_those_who_are_leaving_are_let_be(scene: Scene) -> None:
    why = scene.coming(WHY)
    leaving = scene.coming(LITERAL)
    scene.world.egress.pending.deferreds[-1].errback(Refused(ReplyCode.HOST_UNREACHABLE, "no"))
    scene.change('refused_sessions = "cut"\n', DENIES)
    assert scene.reload() == 0
    assert (why.gone, leaving.gone) == (None, None)


def test_of_many_the_log_names_some_and_counts_the_others(scene: Scene, said: list[str]) -> None:
    for _ in range(LISTED + 5):
        scene.relaying()
    scene.change("", DENIES)
    assert scene.reload() == LISTED + 5
    named = [line for line in said if line.startswith("would now be refused: session ")]
    assert len(named) == LISTED
    assert said[-1] == "would now be refused: 5 more sessions (kept)"
