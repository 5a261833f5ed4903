"""As many workers as are wanted, whatever becomes of each."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectionDone,
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
)
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from socksd.admin.routes import Unable
from socksd.app.notify import GRACE
from socksd.app.rounds import WorkerAddress
from socksd.app.workers import pool as module
from socksd.app.workers.channel import Message
from socksd.app.workers.pool import (
    LONGEST_PAUSE,
    MOST_LEAVING,
    PATIENCE,
    STARTING,
    TICK,
    WELL,
    Brief,
    Pool,
    Worker,
)
from tests.fakes import outcome

KILLED = Failure(ProcessTerminated(signal=signal.SIGKILL))


class FakeAsker:
    """The channel to a worker that answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Message, list[int], Deferred[Message]]] = []
        self.is_lost = False

    def ask(self, question: Message, descriptors: Sequence[int] = ()) -> Deferred[Message]:
        answered: Deferred[Message] = Deferred()
        if self.is_lost:
            answered.errback(Failure(ConnectionDone()))
        else:
            self.asked.append((question, list(descriptors), answered))
        return answered

    def answer(self, what: str, answer: Message) -> Message:
        """Answer the first question of a kind that waits, and give it."""
        for each in self.asked:
            if each[0]["do"] == what:
                self.asked.remove(each)
                each[2].callback(answer)
                return each[0]
        raise AssertionError(f"{what} was not asked")

    def lose(self) -> None:
        self.is_lost = True
        asked, self.asked = self.asked, []
        for _, _, answered in asked:
            answered.errback(Failure(ConnectionDone()))

    hang_up = lose

    def does(self) -> list[str]:
        return [question["do"] for question, _, _ in self.asked]


class FakeProcess:
    """What a ProcessProtocol has for a transport."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.signals: list[Any] = []
        self.has_ended = False

    def signalProcess(self, number: Any) -> None:
        if self.has_ended:
            raise ProcessExitedAlready
        self.signals.append(number)


class Scene:
    """A pool, and what the system makes of its wishes."""

    def __init__(self, patience: int = PATIENCE) -> None:
        self.clock = Clock()
        self.spawned: list[Worker] = []
        self.said: list[bytes] = []
        self.refusing: OSError | None = None
        self.text = "first"
        self.ready = 0
        self.pool = Pool(
            self.spawn,
            self.brief,
            lambda: self.said.append,
            self.clock,
            patience,
        )
        self.pool.ready = self.is_ready

    def is_ready(self) -> None:
        self.ready += 1

    def spawn(self, worker: Worker) -> None:
        if self.refusing is not None:
            raise self.refusing
        worker.asker = FakeAsker()  # type: ignore[assignment]  # of it, what is used
        worker.makeConnection(FakeProcess(4000 + worker.number))  # type: ignore[arg-type]  # of it, what is used
        self.spawned.append(worker)

    def brief(self, place: int, places: int) -> Brief:
        return {"text": self.text, "place": place, "places": places}, [7]

    def asker(self, number: int) -> Any:
        return self.worker(number).asker

    def worker(self, number: int) -> Worker:
        (found,) = (each for each in self.spawned if each.number == number)
        return found

    def process(self, number: int) -> Any:
        return self.worker(number).transport

    def serves(self, *numbers: int) -> None:
        for number in numbers:
            self.asker(number).answer("serve", {"problems": []})

    def ends(self, number: int, reason: Failure = KILLED) -> None:
        self.process(number).has_ended = True
        self.asker(number).lose()
        self.worker(number).processEnded(reason)

    def begin(self, count: int) -> None:
        self.pool.start(count, "/private")
        self.serves(*range(1, count + 1))

    def numbers(self) -> list[int]:
        """Those that serve or shall, or drain, and not who stands by."""
        return [n for n, each in self.pool.living.items() if each is not self.pool._reserve]


def logged(do: Callable[[], object]) -> list[str]:
    with capturedLogs() as events:
        do()
    return [formatEvent(event) for event in events]


# -- beginning -------------------------------------------------------------------


def test_each_is_told_who_it_is_and_what_to_serve() -> None:
    scene = Scene()
    scene.pool.start(2, "/private")
    assert [scene.asker(n).asked[0][:2] for n in (1, 2)] == [
        (
            {
                "do": "serve",
                "number": n,
                "socket": f"/private/{n}.sock",
                "text": "first",
                "place": n - 1,
                "places": 2,
            },
            [7],
        )
        for n in (1, 2)
    ]


def test_it_is_ready_once_when_all_serve_for_the_first_time() -> None:
    scene = Scene()
    scene.pool.start(2, "/private")
    scene.serves(1)
    assert (scene.ready, scene.pool.serving, len(scene.pool)) == (0, 1, 2)
    assert scene.pool.addresses() == [WorkerAddress(1, "/private/1.sock")]
    scene.serves(2)
    assert (scene.ready, scene.pool.serving) == (1, 2)
    scene.ends(1)
    scene.clock.advance(0)
    scene.serves(3)
    assert (scene.ready, scene.pool.serving) == (1, 2)


def test_what_keeps_one_from_serving_is_in_the_log() -> None:
    scene = Scene()
    scene.pool.start(1, "/private")
    asker = scene.asker(1)
    assert logged(lambda: asker.answer("serve", {"problems": ["auth: no such file"]})) == [
        "worker 1 (pid 4001) cannot serve: auth: no such file"
    ]
    assert asker.is_lost  # so it ends
    assert scene.pool.serving == 0


# -- ends ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (KILLED, "killed by SIGKILL"),
        (Failure(ProcessTerminated(exitCode=1)), "status 1"),
        (Failure(ProcessDone(0)), "status 0"),
    ],
    ids=["signal", "status", "done"],
)
def test_who_ends_is_replaced_at_once(reason: Failure, cause: str) -> None:
    scene = Scene()
    scene.begin(2)
    scene.clock.advance(WELL)
    assert logged(lambda: scene.ends(1, reason)) == [f"worker 1 (pid 4001) has ended: {cause}"]
    scene.clock.advance(0)
    assert scene.numbers() == [2, 3]
    assert scene.asker(3).asked[0][0]["place"] == 0


def test_who_keeps_dying_young_is_replaced_ever_later() -> None:
    scene = Scene()
    scene.pool.start(1, "/private")
    pauses = []
    for number in range(1, 10):
        scene.ends(number)
        before = scene.clock.seconds()
        while not scene.numbers():
            assert scene.clock.getDelayedCalls()
            scene.clock.advance(0.125)
        pauses.append(scene.clock.seconds() - before)
    assert pauses == [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, LONGEST_PAUSE, LONGEST_PAUSE]


def test_no_number_of_failures_is_too_much() -> None:
    scene = Scene()
    scene.pool.start(1, "/private")
    scene.pool._places[0].failures = 10_000
    scene.ends(1)
    scene.clock.advance(LONGEST_PAUSE)
    assert scene.numbers() == [2]


def test_a_reload_may_be_what_they_have_waited_for() -> None:
    scene = Scene()
    scene.pool.start(1, "/private")
    for number in range(1, 8):
        scene.ends(number)
        scene.clock.advance(LONGEST_PAUSE)
    scene.ends(8)
    scene.pool.reload(1)
    scene.clock.advance(0)
    assert scene.numbers() == [9]


def test_who_has_lived_is_forgiven() -> None:
    scene = Scene()
    scene.begin(1)
    for number in range(1, 5):
        scene.clock.advance(WELL)
        scene.ends(number)
        scene.clock.advance(0)
        assert scene.numbers() == [number + 1]


def test_a_system_without_room_is_asked_again() -> None:
    scene = Scene()
    scene.refusing = OSError(11, "Resource temporarily unavailable")
    lines = logged(lambda: scene.pool.start(1, "/private"))
    assert lines == ["worker 1 cannot be spawned: [Errno 11] Resource temporarily unavailable"]
    assert scene.numbers() == []
    scene.refusing = None
    scene.clock.advance(0)
    assert scene.numbers() == [2]


def test_what_one_says_is_heard() -> None:
    scene = Scene()
    scene.begin(1)
    scene.worker(1).childDataReceived(2, b"a line\n")
    assert scene.said == [b"a line\n"]


# -- who stands by ---------------------------------------------------------------


def test_who_stands_by_serves_as_soon_as_another_dies() -> None:
    scene = Scene()
    scene.begin(2)
    scene.clock.advance(TICK)
    assert (list(scene.pool.living), scene.numbers()) == ([1, 2, 3], [1, 2])
    assert scene.asker(3).does() == []
    assert [each.number for each in scene.pool.addresses()] == [1, 2]
    scene.ends(1)
    scene.clock.advance(0)
    assert scene.asker(3).does() == ["serve"]
    assert (len(scene.spawned), scene.numbers()) == (3, [2, 3])


def test_nobody_stands_by_where_somebody_is_missing() -> None:
    scene = Scene()
    scene.pool.start(2, "/private")
    scene.serves(1)
    scene.clock.advance(TICK)
    assert len(scene.spawned) == 2
    scene.serves(2)
    for _ in range(3):
        scene.clock.advance(TICK)
        assert len(scene.spawned) == 3


def test_who_dies_while_it_stands_by_leaves_nobody_missing() -> None:
    scene = Scene()
    scene.begin(1)
    scene.clock.advance(TICK)
    scene.ends(2)
    scene.clock.advance(0)
    assert scene.numbers() == [1]
    scene.clock.advance(TICK)
    assert list(scene.pool.living) == [1, 3]


def test_a_restart_takes_nobody_who_has_stood_by() -> None:
    """What it has read of us is what a restart is to replace."""
    scene = Scene()
    scene.begin(1)
    scene.clock.advance(TICK)
    done = scene.pool.restart()
    assert scene.process(2).signals == ["KILL"]
    scene.clock.advance(TICK)
    assert len(scene.spawned) == 3
    scene.serves(3)
    outcome(done)


def test_at_the_end_nobody_stands_by() -> None:
    scene = Scene()
    scene.begin(1)
    scene.clock.advance(TICK)
    done = scene.pool.stop(60.0)
    assert scene.process(2).signals == ["KILL"]
    scene.ends(2)
    scene.clock.advance(TICK)
    assert len(scene.spawned) == 2
    scene.ends(1)
    outcome(done)


# -- silence ---------------------------------------------------------------------


def test_who_does_not_answer_is_killed() -> None:
    scene = Scene(patience=3)
    scene.begin(2)
    for _ in range(3):
        scene.clock.advance(TICK)
        scene.asker(2).answer("say", {"sessions": 5})
    assert scene.process(1).signals == []
    assert scene.pool.sessions == 5
    assert logged(lambda: scene.clock.advance(TICK)) == ["worker 1 (pid 4001) is stuck, and killed"]
    assert scene.process(1).signals == ["KILL"]
    assert scene.process(2).signals == []


def test_nothing_piles_up_for_who_is_stuck() -> None:
    scene = Scene()
    scene.begin(1)
    for _ in range(PATIENCE):
        scene.clock.advance(TICK)
    assert scene.asker(1).does() == ["say"]


def test_who_begins_may_take_longer() -> None:
    scene = Scene(patience=3)
    scene.pool.start(1, "/private")
    for _ in range(STARTING):
        scene.clock.advance(TICK)
    assert scene.process(1).signals == []
    scene.clock.advance(TICK)
    assert scene.process(1).signals == ["KILL"]


def test_a_parent_that_was_frozen_kills_nobody() -> None:
    """What workers have answered meanwhile is read after the clock has been looked at."""
    scene = Scene(patience=3)
    scene.begin(1)
    scene.clock.advance(TICK)
    scene.clock.advance(3600.0)
    assert scene.process(1).signals == []


def test_who_has_lost_its_channel_is_killed_in_the_end() -> None:
    scene = Scene(patience=3)
    scene.begin(1)
    scene.asker(1).lose()
    for _ in range(4):
        scene.clock.advance(TICK)
    assert scene.process(1).signals == ["KILL"]


def test_to_kill_who_has_just_ended_does_no_harm() -> None:
    scene = Scene()
    scene.begin(1)
    scene.process(1).has_ended = True
    scene.worker(1).kill()
    scene.pool.reopen()
    Worker(9, "", lambda *_: None, lambda _: None).kill()


# -- reload ----------------------------------------------------------------------


def test_all_are_told_and_asked_how_many_they_would_refuse() -> None:
    scene = Scene()
    scene.begin(2)
    scene.text = "second"
    done = scene.pool.reload(2)
    for number, refused in ((1, 3), (2, 4)):
        question = scene.asker(number).answer("reload", {"problems": [], "refused": refused})
        assert (question["text"], question["place"]) == ("second", number - 1)
    assert outcome(done) == 7


def test_before_the_start_there_is_nobody_to_tell() -> None:
    scene = Scene()
    assert outcome(scene.pool.reload(3)) == 0
    assert scene.numbers() == []


def test_who_cannot_reload_serves_until_somebody_else_does() -> None:
    scene = Scene()
    scene.begin(1)
    done = scene.pool.reload(1)
    lines = logged(
        lambda: scene.asker(1).answer("reload", {"problems": ["no memory"], "refused": 0})
    )
    assert lines == [
        "worker 1 (pid 4001) cannot reload: no memory",
        "worker 1 (pid 4001) is replaced",
    ]
    assert outcome(done) == 0
    assert scene.asker(1).does() == []
    scene.serves(2)
    assert scene.asker(1).does() == ["stop"]


def test_a_successor_that_cannot_reload_is_no_successor() -> None:
    scene = Scene()
    scene.begin(1)
    restarted = scene.pool.restart()
    scene.pool.reload(1)
    scene.asker(2).answer("reload", {"problems": ["no memory"], "refused": 0})
    assert scene.process(2).signals == ["KILL"]
    scene.ends(2)
    with pytest.raises(Unable):
        outcome(restarted)


def test_who_ends_meanwhile_is_not_waited_for() -> None:
    scene = Scene()
    scene.begin(2)
    done = scene.pool.reload(2)
    scene.ends(1)
    scene.asker(2).answer("reload", {"problems": [], "refused": 4})
    assert outcome(done) == 4


def test_there_may_be_more_of_them() -> None:
    scene = Scene()
    scene.begin(1)
    scene.pool.reload(3)
    assert scene.numbers() == [1, 2, 3]
    assert scene.asker(1).asked[0][0]["places"] == 3
    assert scene.asker(2).does() == ["serve"]


def test_there_may_be_fewer_of_them() -> None:
    scene = Scene()
    scene.begin(3)
    scene.ends(2)
    scene.clock.advance(0)
    scene.ends(4)  # too young: the next one waits
    scene.pool.reload(1)
    assert scene.asker(1).does() == ["reload"]
    assert scene.asker(3).does() == ["stop"]
    scene.ends(3)
    scene.clock.advance(LONGEST_PAUSE)
    assert scene.numbers() == [1]


# -- restart ---------------------------------------------------------------------


def test_each_serves_until_the_next_one_does() -> None:
    scene = Scene()
    scene.begin(2)
    done = scene.pool.restart()
    assert scene.numbers() == [1, 2, 3]
    assert scene.asker(1).does() == []
    scene.serves(3)
    assert (scene.asker(1).does(), scene.asker(2).does()) == (["stop"], [])
    assert scene.numbers() == [1, 2, 3, 4]
    assert not done.called
    scene.serves(4)
    assert scene.asker(2).does() == ["stop"]
    outcome(done)
    assert [each.number for each in scene.pool.addresses()] == [1, 2, 3, 4]  # 1 and 2 drain
    assert logged(lambda: scene.ends(1, Failure(ProcessDone(0)))) == [
        "worker 1 (pid 4001) has ended"
    ]
    scene.clock.advance(LONGEST_PAUSE)
    assert scene.numbers() == [2, 3, 4]


def test_what_one_has_counted_is_asked_for_before_it_leaves_and_while_it_does() -> None:
    scene = Scene()
    scene.begin(1)
    asked: list[Deferred[None]] = []

    def remember() -> Deferred[None]:
        asked.append(Deferred())
        return asked[-1]

    scene.pool.remember = remember
    done = scene.pool.restart()
    assert asked == []
    scene.serves(2)
    (before,) = asked
    assert "stop" not in scene.asker(1).does()
    before.callback(None)
    assert scene.asker(1).does()[-1] == "stop"
    outcome(done)
    scene.clock.advance(TICK)
    assert len(asked) == 2
    scene.ends(1, Failure(ProcessDone(0)))
    scene.clock.advance(TICK)
    assert len(asked) == 2


def test_a_new_one_that_cannot_serve_leaves_the_rest_as_it_was() -> None:
    scene = Scene()
    scene.begin(2)
    done = scene.pool.restart()
    scene.ends(3)
    with pytest.raises(Unable, match="does not get ready"):
        outcome(done)
    scene.clock.advance(LONGEST_PAUSE)
    assert scene.numbers() == [1, 2]
    assert scene.asker(1).does() == ["say"]
    scene.pool.restart()  # may be tried again
    assert scene.asker(5).does() == ["serve"]


def test_a_new_one_that_cannot_be_spawned_leaves_the_rest_as_it_was() -> None:
    scene = Scene()
    scene.begin(1)
    scene.refusing = OSError(11, "Resource temporarily unavailable")
    with pytest.raises(Unable):
        outcome(scene.pool.restart())
    assert scene.numbers() == [1]


def test_who_dies_while_its_successor_starts_has_one_already() -> None:
    scene = Scene()
    scene.begin(1)
    done = scene.pool.restart()
    scene.ends(1)
    scene.clock.advance(LONGEST_PAUSE)
    assert scene.numbers() == [2]
    scene.serves(2)
    outcome(done)
    assert scene.pool.serving == 1


def test_when_both_die_there_is_another() -> None:
    scene = Scene()
    scene.begin(1)
    done = scene.pool.restart()
    scene.ends(1)
    scene.ends(2)
    with pytest.raises(Unable):
        outcome(done)
    scene.clock.advance(LONGEST_PAUSE)
    assert scene.numbers() == [3]


def test_a_place_that_is_no_more_is_not_restarted() -> None:
    scene = Scene()
    scene.begin(3)
    done = scene.pool.restart()
    scene.pool.reload(1)
    scene.serves(4)
    outcome(done)
    assert [each for each in scene.numbers() if not scene.worker(each).is_leaving] == [4]


def test_who_was_to_be_a_successor_in_a_place_that_is_no_more_ends() -> None:
    scene = Scene()
    scene.begin(2)
    done = scene.pool.restart()
    scene.serves(3)
    scene.pool.reload(1)
    assert scene.process(4).signals == ["KILL"]
    assert scene.asker(4).answer("serve", {"problems": []})  # it had got so far
    assert not scene.worker(4).is_ready
    scene.ends(4)
    with pytest.raises(Unable):
        outcome(done)


def test_one_restart_at_a_time() -> None:
    scene = Scene()
    scene.begin(1)
    scene.pool.restart()
    with pytest.raises(Unable, match="already"):
        scene.pool.restart()


def test_a_restart_joins_who_is_being_replaced() -> None:
    scene = Scene()
    scene.begin(1)
    scene.pool.reload(1)
    scene.asker(1).answer("reload", {"problems": ["no memory"], "refused": 0})
    done = scene.pool.restart()
    assert scene.numbers() == [1, 2]
    scene.serves(2)
    outcome(done)
    assert scene.asker(1).does() == ["stop"]


def test_draining_workers_do_not_become_ever_more() -> None:
    scene = Scene()
    scene.begin(1)
    for number in range(MOST_LEAVING + 1):
        done = scene.pool.restart()
        scene.serves(number + 2)
        outcome(done)
    with pytest.raises(Unable, match="5 workers are draining still"):
        scene.pool.restart()


# -- the end ---------------------------------------------------------------------


def test_it_ends_when_all_have_drained() -> None:
    scene = Scene()
    scene.begin(2)
    scene.pool.resize(3)  # one that does not serve yet
    scene.ends(2)  # and one that is about to be replaced
    scene.clock.advance(0)
    scene.ends(4)
    done = scene.pool.stop(60.0)
    assert scene.asker(1).does() == ["stop"]
    assert scene.process(3).signals == ["KILL"]
    scene.ends(3)
    scene.clock.advance(LONGEST_PAUSE)
    assert not done.called
    assert scene.numbers() == [1]
    scene.ends(1, Failure(ProcessDone(0)))
    outcome(done)
    assert scene.clock.getDelayedCalls() == []


def test_without_any_it_ends_at_once() -> None:
    scene = Scene()
    outcome(scene.pool.stop(60.0))
    scene.pool.hurry()
    assert scene.clock.getDelayedCalls() == []


def test_who_insists_does_not_wait() -> None:
    scene = Scene()
    scene.begin(1)
    scene.pool.stop(3600.0)
    scene.pool.hurry()
    assert scene.asker(1).does() == ["stop", "hurry"]
    scene.clock.advance(GRACE)
    assert scene.process(1).signals == ["KILL"]


def test_who_does_not_end_in_time_is_killed() -> None:
    scene = Scene()
    scene.begin(1)
    done = scene.pool.stop(60.0)
    for _ in range(int(60 + GRACE) - 1):
        scene.clock.advance(1.0)
        scene.asker(1).answer("say", {"sessions": 1})
    assert scene.process(1).signals == []
    lines = logged(lambda: scene.clock.advance(1.0))
    assert "worker 1 (pid 4001) does not end, and is killed" in lines
    scene.ends(1)
    outcome(done)
    assert scene.clock.getDelayedCalls() == []


def test_what_stops_is_not_restarted() -> None:
    scene = Scene()
    scene.begin(1)
    done = scene.pool.restart()
    scene.pool.stop(60.0)
    scene.ends(2)
    with pytest.raises(Unable, match="stopping"):
        outcome(done)
    with pytest.raises(Unable, match="stopping"):
        scene.pool.restart()
    scene.ends(1)
    assert scene.numbers() == []


def test_log_files_are_begun_anew_by_who_knows_the_signal() -> None:
    scene = Scene()
    scene.begin(1)
    scene.pool.resize(2)
    scene.pool.reopen()
    assert scene.process(1).signals == [signal.SIGUSR1]
    assert scene.process(2).signals == []


def test_a_bug_in_replacing_is_logged(
    monkeypatch: pytest.MonkeyPatch, logged_errors: list[dict[str, Any]]
) -> None:
    scene = Scene()
    scene.begin(1)
    scene.pool.reload(1)
    monkeypatch.setattr(module, "Worker", None)
    scene.asker(1).answer("reload", {"problems": ["no memory"], "refused": 0})
    (error,) = logged_errors
    assert error["log_failure"].check(TypeError)
    logged_errors.clear()
