"""The same question to all, and what is kept of those who say no more."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from socksd.admin.routes import BadBody, NotAdmitted, Routes, Unable
from socksd.app.rounds import Kept, Round, Rounds, Shared
from tests.app.fake_workers import FakeWorkers
from tests.fakes import outcome


def answering(what: Any) -> Routes:
    def answer(body: Any) -> Any:
        if isinstance(what, Exception):
            raise what
        return {"n": what, "body": dict(body)}

    return {("GET", "/x"): answer}


def rounds(workers: FakeWorkers) -> Rounds:
    return Rounds(workers.addresses, workers)  # type: ignore[arg-type]  # takes Asking's place


def asked(workers: FakeWorkers, **more: Any) -> Round:
    found: Round = outcome(Deferred.fromCoroutine(rounds(workers).ask("GET", "/x", **more)))
    return found


def one(workers: FakeWorkers) -> Any:
    return outcome(Deferred.fromCoroutine(rounds(workers).one("GET", "/x", {})))


def test_all_are_asked_at_once() -> None:
    workers = FakeWorkers({1: answering(1), 2: answering(2)})
    workers.slow = {1, 2}
    answer = Deferred.fromCoroutine(rounds(workers).ask("GET", "/x"))
    assert len(workers.asked) == 2
    workers.go_on()
    said, missing = outcome(answer)
    assert ({n: each["n"] for n, each in said.items()}, missing) == ({1: 1, 2: 2}, [])


def test_some_are_asked_something_else() -> None:
    workers = FakeWorkers({1: answering(1), 2: answering(2)})
    said, _ = asked(workers, body={"a": 1}, each={2: {"b": 2}})
    assert {n: each["body"] for n, each in said.items()} == {1: {"a": 1}, 2: {"b": 2}}


def test_who_does_not_answer_is_named_and_no_more() -> None:
    workers = FakeWorkers({n: answering(n) for n in (1, 2, 3)})
    workers.silent = {2}
    workers.routes[3] = answering(ZeroDivisionError())
    said, missing = asked(workers)
    assert (list(said), missing) == ([1], [2, 3])


def test_without_workers_nobody_is_missing() -> None:
    assert asked(FakeWorkers({})) == ({}, [])


@pytest.mark.parametrize("error", [BadBody("so"), NotAdmitted("so"), Unable("so")])
def test_what_all_refuse_is_refused(error: Exception) -> None:
    workers = FakeWorkers({1: answering(ZeroDivisionError()), 2: answering(error)})
    with pytest.raises(type(error), match="so"):
        asked(workers)
    workers.routes[1] = answering(1)
    assert asked(workers).missing == [2], "one has been reloaded already, another not yet"


def test_any_one_will_do() -> None:
    workers = FakeWorkers({n: answering(n) for n in (1, 2, 3)})
    workers.silent = {1}
    workers.routes[2] = answering(ZeroDivisionError())
    assert one(workers)["n"] == 3
    workers.routes[2] = answering(BadBody("so"))
    with pytest.raises(BadBody, match="so"):
        one(workers)


def test_if_none_answers_that_is_said() -> None:
    workers = FakeWorkers({1: answering(1)})
    workers.silent = {1}
    with pytest.raises(Unable, match="no worker answers"):
        one(workers)


def kept() -> Kept:
    return Kept(lambda answers: {"n": sum(each["n"] for each in answers)})


def test_what_was_said_last_is_kept() -> None:
    memory = kept()
    assert memory.take({1: {"n": 1}, 2: {"n": 2}}, [1, 2]) == ([{"n": 1}, {"n": 2}], [])
    assert memory.take({1: {"n": 5}}, [1, 2]) == ([{"n": 5}], [{"n": 2}])


def test_of_those_who_are_gone_there_is_one_sum() -> None:
    memory = kept()
    for number in range(1, 100):
        memory.take({number: {"n": 1}}, [number])
    assert memory.take({}, []) == ([], [{"n": 99}])
    assert not memory._last


def test_who_is_gone_by_the_time_of_the_answer_counts_once() -> None:
    memory = kept()
    assert memory.take({1: {"n": 1}, 2: {"n": 2}}, [2]) == ([{"n": 2}], [{"n": 1}])
    assert memory.take({2: {"n": 2}}, [2]) == ([{"n": 2}], [{"n": 1}])


class Question:
    def __init__(self) -> None:
        self.pending: list[Deferred[str]] = []

    async def ask(self) -> str:
        self.pending.append(Deferred())
        return await self.pending[-1]


def test_who_asks_meanwhile_gets_the_same_answer() -> None:
    question = Question()
    shared = Shared(question.ask)
    first, second = shared({}), shared({})
    assert len(question.pending) == 1
    question.pending[0].callback("yes")
    assert (outcome(first), outcome(second)) == ("yes", "yes")
    third = shared({})
    question.pending[1].callback("no")
    assert outcome(third) == "no"


def test_a_failure_is_everybodys_and_passes() -> None:
    question = Question()
    shared = Shared(question.ask)
    first, second = shared({}), shared({})
    question.pending[0].errback(Unable("so"))
    for answer in (first, second):
        with pytest.raises(Unable):
            outcome(answer)
    assert not shared({}).called


def test_a_shared_question_has_no_parameters() -> None:
    with pytest.raises(BadBody, match="there is no 'x'"):
        Shared(Question().ask)({"x": 1})
