"""Nobody waits for somebody else's wrong passwords."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from ipaddress import ip_address

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred

from socksd.errors import LoginFailed
from socksd.identity import threads as module
from socksd.identity.threads import LoginThreads, source_of
from tests.fakes import outcome
from tests.identity.fakes import ALICE, BOB, SECRET, FakePool, started


@pytest.fixture
def pool() -> FakePool:
    return FakePool()


class Diary:
    """Work that writes down when it is done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def __call__(self, what: str) -> Callable[[], str]:
        def work() -> str:
            self.done.append(what)
            return what

        return work


def test_work_is_done_in_the_pool_and_its_result_comes_back(pool: FakePool) -> None:
    result = started(pool).run(ALICE, lambda: 42)
    assert not result.called
    pool.finish()
    assert outcome(result) == 42


def test_what_work_raises_comes_back(pool: FakePool) -> None:
    result = started(pool).run(ALICE, lambda: dict[str, str]()["missing"])
    pool.finish()
    with pytest.raises(KeyError):
        outcome(result)


def test_sources_take_turns(pool: FakePool) -> None:
    """A thousand from one address are one turn each round, whenever they came."""
    diary, threads = Diary(), started(pool, 1)
    for number in range(5):
        threads.run(ALICE, diary(f"alice {number}"))
    threads.run(BOB, diary("bob 0"))
    threads.run(BOB, diary("bob 1"))
    assert pool.finish_all() == 7
    assert diary.done == [
        "alice 0", "alice 1", "bob 0", "alice 2", "bob 1", "alice 3", "alice 4",
    ]  # fmt: skip


def test_one_source_leaves_a_thread_to_the_others(pool: FakePool) -> None:
    diary, threads = Diary(), started(pool, 3)
    for number in range(5):
        threads.run(ALICE, diary(f"alice {number}"))
    assert len(pool.begun) == 2
    threads.run(BOB, diary("bob"))
    assert len(pool.begun) == 3
    pool.finish(2)
    assert diary.done == ["bob"]
    assert len(pool.begun) == 2, "the free thread stays free"
    assert pool.finish_all() == 5
    assert diary.done[1:] == [f"alice {number}" for number in range(5)]


def test_no_more_is_begun_than_there_are_threads(pool: FakePool) -> None:
    threads = started(pool, 2)
    for last in range(1, 6):
        threads.run(ip_address(f"192.0.2.{last}"), lambda: None)
    assert len(pool.begun) == 2
    assert pool.finish_all() == 5


def test_one_source_may_have_only_so_many_waiting(pool: FakePool) -> None:
    threads = started(pool, 2)
    for _ in range(1 + module.WAITING_PER_SOURCE):
        threads.run(ALICE, lambda: None)
    with pytest.raises(LoginFailed, match=r"too many logins waiting from 192\.0\.2\.1"):
        outcome(threads.run(ALICE, lambda: None))
    assert not threads.run(BOB, lambda: None).called
    pool.finish()
    assert not threads.run(ALICE, lambda: None).called


def test_all_together_may_have_only_so_many_waiting(
    pool: FakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_IN_ALL", 3)
    threads = started(pool, 1)
    for last in range(1, 5):
        threads.run(ip_address(f"192.0.2.{last}"), lambda: None)
    with pytest.raises(LoginFailed, match=r"too many logins waiting$"):
        outcome(threads.run(ip_address("192.0.2.5"), lambda: None))


def test_cancelling_gives_up_the_place_in_the_queue(pool: FakePool) -> None:
    diary, threads = Diary(), started(pool, 1)
    results = [threads.run(ALICE, diary(name)) for name in "abc"]
    bobs = threads.run(BOB, diary("bob"))
    results[1].cancel()
    bobs.cancel()
    for cancelled in (results[1], bobs):
        with pytest.raises(CancelledError):
            outcome(cancelled)
    assert pool.finish_all() == 2
    assert diary.done == ["a", "c"]


def test_cancelling_work_in_hand_keeps_its_thread_busy(pool: FakePool) -> None:
    """The thread cannot be stopped; to count it as free would queue work behind it."""
    diary, threads = Diary(), started(pool, 1)
    running, waiting = threads.run(ALICE, diary("running")), threads.run(ALICE, diary("waiting"))
    running.cancel()
    with pytest.raises(CancelledError):
        outcome(running)
    assert len(pool.begun) == 1
    pool.finish()
    assert diary.done == ["running"]
    pool.finish()
    assert outcome(waiting) == "waiting"


def test_the_only_one_in_hand_may_be_cancelled(pool: FakePool) -> None:
    running = started(pool).run(ALICE, lambda: None)
    running.cancel()
    with pytest.raises(CancelledError):
        outcome(running)
    pool.finish()


def test_stopping_fails_what_waits_and_lets_what_runs_end(pool: FakePool) -> None:
    threads = started(pool, 1)
    running, waiting = threads.run(ALICE, lambda: "ran"), threads.run(BOB, lambda: None)
    threads.stop()
    assert pool.state == "stopped"
    with pytest.raises(LoginFailed, match="stopping"):
        outcome(waiting)
    pool.finish()
    assert outcome(running) == "ran"
    assert not pool.begun


def test_nothing_is_accepted_before_the_start_or_after_the_stop(pool: FakePool) -> None:
    """A stopped pool would swallow work without a word."""
    threads = LoginThreads(reactor, 1, pool=pool)  # type: ignore[arg-type]  # its sum of interfaces
    with pytest.raises(LoginFailed, match="not running"):
        outcome(threads.run(ALICE, lambda: None))
    threads.start()
    threads.stop()
    threads.stop()
    with pytest.raises(LoginFailed, match="not running"):
        outcome(threads.run(ALICE, lambda: None))
    threads.start()
    assert not threads.run(ALICE, lambda: None).called


@pytest.mark.parametrize(("cpus", "threads"), [(None, 1), (1, 1), (3, 3), (64, 4)])
def test_there_is_a_thread_for_each_cpu_up_to_four(
    pool: FakePool, monkeypatch: pytest.MonkeyPatch, cpus: int | None, threads: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    LoginThreads(reactor, pool=pool).start()  # type: ignore[arg-type]  # its sum of interfaces
    assert pool.arguments == {"minthreads": 0, "maxthreads": threads, "name": "login"}


def test_a_host_with_a_whole_64_is_one_source() -> None:
    """Else one machine takes as many turns as it likes."""
    first, second, other = map(ip_address, ("2001:db8::1", "2001:db8::ffff:1:2", "2001:db8:0:1::1"))
    assert source_of(first) == source_of(second) != source_of(other)
    assert source_of(ALICE) != source_of(BOB)


def test_a_source_that_has_had_its_turns_is_forgotten(pool: FakePool) -> None:
    """Else each address that ever tried a password would stay in memory."""
    threads = started(pool)
    for client in (ALICE, ALICE, BOB):
        threads.run(client, lambda: None)
    pool.finish_all()
    assert not vars(threads)["_running"]
    assert not vars(threads)["_waiting"]


def test_the_queue_shows_no_password(pool: FakePool) -> None:
    threads = started(pool, 1)
    for _ in range(2):
        threads.run(ALICE, SECRET.decode)
    assert SECRET.decode() not in repr(vars(threads))


@pytest_twisted.ensureDeferred
async def test_real_threads_are_our_own_and_end_with_the_service() -> None:
    threads = LoginThreads(reactor, 2)  # type: ignore[arg-type]  # its sum of interfaces
    threads.start()
    try:
        results: list[Deferred[str]] = [
            threads.run(client, lambda: threading.current_thread().name)
            for client in (ALICE, ALICE, BOB)
        ]
        names = [await result for result in results]
    finally:
        threads.stop()
    assert all(name.startswith("PoolThread-login-") for name in names), names
    assert not [t for t in threading.enumerate() if t.name.startswith("PoolThread-login-")]


@pytest_twisted.ensureDeferred
async def test_work_that_hangs_holds_no_stop_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socksd.identity.threads._PATIENCE", 0.0)
    threads = LoginThreads(reactor, 1)  # type: ignore[arg-type]  # its sum of interfaces
    threads.start()
    began: Deferred[threading.Thread] = Deferred()
    release = threading.Event()

    def hang() -> None:
        reactor.callFromThread(began.callback, threading.current_thread())
        release.wait()

    done = threads.run(ALICE, hang)
    thread = await began
    threads.stop()
    assert thread.daemon
    assert not done.called
    release.set()
    await done
    thread.join()
