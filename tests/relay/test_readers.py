from __future__ import annotations

import pytest
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from socksd.relay.readers import Readers
from tests.relay.hand import HandReactor
from tests.relay.test_switchboard import Ear


@pytest.fixture
def reactor() -> HandReactor:
    return HandReactor()


def test_what_is_watched_is_a_reader_of_the_reactor(reactor: HandReactor) -> None:
    readers, ear = Readers(reactor), Ear()
    readers.watch_reading(7, ear)
    (reader,) = reactor.readers
    assert verifyObject(IReadDescriptor, reader)
    assert reader.fileno() == 7
    assert reader.logPrefix() == "datagrams"
    reader.doRead()
    reader.doRead()
    assert len(ear.heard) == 2
    readers.forget(7)
    assert not reactor.readers


def test_a_bug_is_told_to_whose_it_is(reactor: HandReactor) -> None:
    ear = Ear(lambda: 1 / 0)
    Readers(reactor).watch_reading(7, ear)
    (reader,) = reactor.readers
    reader.doRead()
    (failure,) = ear.failures
    assert failure.check(ZeroDivisionError)


def test_the_end_of_the_reactor_is_nobodys_business(reactor: HandReactor) -> None:
    ear = Ear()
    Readers(reactor).watch_reading(7, ear)
    (reader,) = reactor.readers
    reader.connectionLost(Failure(ConnectionError()))
    assert not ear.heard
    assert not ear.failures
