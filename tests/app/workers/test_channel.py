"""The private channel between the parent and a worker."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport

from socksd.app.workers.channel import Answerer, Asker, Message
from tests.fakes import outcome


class Wire(StringTransport):
    """A transport that keeps copies of what is sent along, as the kernel does."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptors: list[int] = []

    def sendFileDescriptor(self, descriptor: int) -> None:
        self.descriptors.append(os.dup(descriptor))


class Channel:
    """Both ends, and the octets in between."""

    def __init__(self) -> None:
        self.heard: list[tuple[Message, list[os.stat_result]]] = []
        self.gone = 0
        self.asker, self.answerer = Asker(), Answerer(self.answer, self.orphaned)
        self.down, self.up = Wire(), Wire()
        self.asker.makeConnection(self.down)
        self.answerer.makeConnection(self.up)

    def answer(self, question: Message, descriptors: Sequence[int]) -> Message:
        self.heard.append((question, [os.fstat(each) for each in descriptors]))
        return {"echo": question}

    def orphaned(self) -> None:
        self.gone += 1

    def carry_down(self, size: int = 1 << 20) -> None:
        """Deliver the questions: descriptors no later than the octets that came with them."""
        octets, descriptors = self.down.value(), self.down.descriptors
        self.down.clear()
        self.down.descriptors = []
        for each in descriptors:
            self.answerer.fileDescriptorReceived(each)
        for start in range(0, len(octets), size):
            self.answerer.dataReceived(octets[start : start + size])

    def carry_up(self) -> None:
        octets = self.up.value()
        self.up.clear()
        self.asker.dataReceived(octets)


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def file() -> Iterator[int]:
    descriptor = os.memfd_create("listener")
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_a_question_is_answered_with_what_came_along(file: int, size: int) -> None:
    channel, before = Channel(), open_descriptors()
    answered = channel.asker.ask({"do": "serve", "text": "ü\udcff"}, [file])
    channel.carry_down(size)
    channel.carry_up()
    assert outcome(answered) == {"echo": {"do": "serve", "text": "ü\udcff"}}
    ((_, (given,)),) = channel.heard
    assert given.st_ino == os.fstat(file).st_ino
    assert open_descriptors() == before


def test_answers_belong_to_questions_in_order(file: int) -> None:
    """And so do descriptors, which may be there long before their question."""
    channel = Channel()
    answered = [
        channel.asker.ask({"n": n}, descriptors) for n, descriptors in enumerate([[], [file], []])
    ]
    channel.carry_down()
    assert [len(descriptors) for _, descriptors in channel.heard] == [0, 1, 0]
    channel.carry_up()
    assert [outcome(each)["echo"]["n"] for each in answered] == [0, 1, 2]


def test_what_goes_along_may_be_closed_before_it_has_gone() -> None:
    channel, before = Channel(), open_descriptors()
    descriptor = os.memfd_create("listener")
    channel.asker.ask({}, [descriptor]).addErrback(lambda _: None)
    os.close(descriptor)
    lent = open_descriptors() - before
    assert lent
    channel.carry_down()
    channel.carry_up()
    assert open_descriptors() == before


def test_a_worker_that_has_gone_answers_nothing_any_more(file: int) -> None:
    channel, before = Channel(), open_descriptors()
    waiting = channel.asker.ask({}, [file])
    channel.asker.connectionLost()
    with pytest.raises(ConnectionDone):
        outcome(waiting)
    with pytest.raises(ConnectionDone):
        outcome(channel.asker.ask({}, [file]))
    for each in channel.down.descriptors:
        os.close(each)
    assert open_descriptors() == before


def test_a_parent_that_has_gone_leaves_no_descriptors_behind(file: int) -> None:
    channel, before = Channel(), open_descriptors()
    channel.answerer.fileDescriptorReceived(os.dup(file))
    channel.answerer.connectionLost()
    assert channel.gone == 1
    assert open_descriptors() == before


def test_what_cannot_be_answered_leaves_no_descriptors_behind(
    file: int, logged_errors: list[dict[str, Any]]
) -> None:
    def broken(question: Message, descriptors: Sequence[int]) -> Any:
        raise ZeroDivisionError

    before = open_descriptors()
    answerer = Answerer(broken, lambda: None)
    wire = Wire()
    answerer.makeConnection(wire)
    answerer.fileDescriptorReceived(os.dup(file))
    answerer.dataReceived(b'\0\0\0\x12{"descriptors": 1}')
    assert open_descriptors() == before
    assert wire.disconnecting
    (error,) = logged_errors
    assert error["log_failure"].check(ZeroDivisionError)
    logged_errors.clear()


def test_one_question_at_a_time_and_in_order(file: int) -> None:
    """A configuration is read in a thread; what comes with it is needed until then."""
    waiting: list[Deferred[Message]] = []
    given: list[Sequence[int]] = []

    def answer(question: Message, descriptors: Sequence[int]) -> Deferred[Message]:
        given.append(descriptors)
        waiting.append(Deferred())
        return waiting[-1]

    channel, before = Channel(), open_descriptors()
    channel.answerer._answer = answer
    first, second = channel.asker.ask({"n": 1}, [file]), channel.asker.ask({"n": 2})
    channel.carry_down()
    assert len(waiting) == 1
    assert os.fstat(given[0][0]).st_ino == os.fstat(file).st_ino
    waiting[0].callback({"n": 1})
    waiting[1].callback({"n": 2})
    channel.carry_up()
    assert [outcome(first), outcome(second)] == [{"n": 1}, {"n": 2}]
    assert open_descriptors() == before


def test_who_is_hung_up_on_is_asked_nothing_more() -> None:
    channel = Channel()
    channel.asker.hang_up()
    assert channel.down.disconnecting
