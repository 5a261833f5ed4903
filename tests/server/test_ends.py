"""An end loses nothing, whoever carries it, and whenever."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, ISSLTransport
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer
from zope.interface.verify import verifyObject

from socksd.interfaces import ICarrier, IEnd
from socksd.server.ends import End
from tests.fakes import FakeTransport
from tests.relay.hand import board
from tests.relay.test_contract import BUFFER, noise


@implementer(ICarrier)
class Carrier:
    """Remembers what it is told, and may do something about it."""

    def __init__(self, then: Callable[[], object] | None = None) -> None:
        self.told: list[object] = []
        self._then = then

    def data_received(self, octets: bytes) -> None:
        self._hear(octets)

    def read_ended(self) -> None:
        self._hear("FIN")

    def lost(self, reason: Failure) -> None:
        self._hear(reason.type)

    def _hear(self, what: object) -> None:
        self.told.append(what)
        if self._then is not None:
            then, self._then = self._then, None
            then()


@pytest.fixture
def end() -> End:
    return End()


@pytest.fixture
def transport(end: End) -> FakeTransport:
    return FakeTransport(end)


def test_it_is_an_end(end: End, transport: FakeTransport) -> None:
    assert verifyObject(IEnd, end)
    assert verifyObject(IProtocol, end)
    assert verifyObject(IHalfCloseableProtocol, end)


def test_a_carrier_is_told_what_arrives(end: End, transport: FakeTransport) -> None:
    carrier = Carrier()
    end.carried_by(carrier)
    transport.receive(b"one")
    transport.receive(b"two")
    transport.receive_fin()
    transport.loseConnection()
    assert carrier.told == [b"one", b"two", "FIN", ConnectionDone]


def test_without_a_carrier_one_read_is_kept_and_no_more(end: End, transport: FakeTransport) -> None:
    assert transport.producing
    transport.receive(b"banner")
    assert not transport.producing
    carrier = Carrier()
    end.carried_by(carrier)
    assert carrier.told == [b"banner"]
    assert transport.producing


def test_one_read_may_come_in_pieces(end: End, transport: FakeTransport) -> None:
    """TLS tells of each record, though it was paused at the first."""
    transport.receive(b"one ")
    end.dataReceived(b"two")
    carrier = Carrier()
    end.carried_by(carrier)
    assert carrier.told == [b"one two"]


def test_octets_are_told_once(end: End, transport: FakeTransport) -> None:
    transport.receive(b"banner")
    end.carried_by(Carrier())
    second = Carrier()
    end.carried_by(second)
    assert second.told == []


def test_what_was_missed_is_told_in_order(end: End, transport: FakeTransport) -> None:
    transport.receive(b"last words")
    transport.receive_fin()
    transport.receive_reset()
    carrier = Carrier()
    end.carried_by(carrier)
    assert carrier.told == [b"last words", "FIN", ConnectionLost]


def test_fin_is_not_read_a_second_time(end: End, transport: FakeTransport) -> None:
    """A transport that is resumed after FIN finds it again."""
    transport.receive(b"last words")
    transport.receive_fin()
    carrier = Carrier()
    end.carried_by(carrier)
    assert carrier.told == [b"last words", "FIN"]


def test_each_carrier_is_told_of_fin_and_loss(end: End, transport: FakeTransport) -> None:
    """A session that hears FIN while it connects leaves it to the relay."""
    first, second, third = Carrier(), Carrier(), Carrier()
    end.carried_by(first)
    transport.receive_fin()
    end.carried_by(second)
    transport.receive_reset()
    end.carried_by(third)
    assert first.told == ["FIN"]
    assert second.told == ["FIN", ConnectionLost]
    assert third.told == ["FIN", ConnectionLost]


def test_a_pause_of_the_carriers_lasts(end: End, transport: FakeTransport) -> None:
    """What was kept may fill the other end of a relay."""
    transport.receive(b"banner")
    end.carried_by(Carrier(transport.pauseProducing))
    assert not transport.producing


def test_what_a_carrier_has_paused_is_not_resumed_for_the_next(
    end: End, transport: FakeTransport
) -> None:
    transport.receive(b"banner")
    end.carried_by(Carrier())
    end.carried_by(Carrier(transport.pauseProducing))
    transport.receive(b"enough")
    end.carried_by(Carrier())
    assert not transport.producing


def test_a_carrier_may_hand_on_while_it_is_told(end: End, transport: FakeTransport) -> None:
    second = Carrier()
    first = Carrier(lambda: end.carried_by(second))
    end.carried_by(first)
    transport.receive(b"one")
    transport.receive(b"two")
    transport.receive_fin()
    assert first.told == [b"one"]
    assert second.told == [b"two", "FIN"]


def test_a_carrier_may_hand_on_what_it_has_missed(end: End, transport: FakeTransport) -> None:
    """Nobody hears twice."""
    transport.receive(b"one")
    transport.receive_fin()
    transport.receive_reset()
    second = Carrier()
    first = Carrier(lambda: end.carried_by(second))
    end.carried_by(first)
    assert first.told == [b"one"]
    assert second.told == ["FIN", ConnectionLost]


def test_a_carrier_may_close_while_it_is_told_what_it_has_missed(
    end: End, transport: FakeTransport
) -> None:
    transport.receive(b"one")
    carrier = Carrier(transport.loseConnection)
    end.carried_by(carrier)
    assert carrier.told == [b"one", ConnectionDone]


def test_finish_writing_sends_fin_behind_the_octets(end: End, transport: FakeTransport) -> None:
    transport.stop_reading()
    transport.write(b"the last")
    end.finish_writing()
    assert not transport.fin
    transport.start_reading()
    assert transport.sent == b"the last"
    assert transport.fin
    assert transport.gone is None


def test_finish_writing_leaves_it_to_tls_to_close_its_direction(
    end: End, transport: FakeTransport
) -> None:
    """loseWriteConnection() would half-close the TCP connection under what TLS still holds."""
    alsoProvides(transport, ISSLTransport)
    end.finish_writing()
    assert not transport.fin
    assert transport.gone == "closed"


# -- sending ------------------------------------------------------------------


def test_octets_leave_at_once_over_a_plain_socket() -> None:
    """Not in the next turn of the reactor."""
    with board() as hand:
        end, far = hand.end()
        end.send(b"\x05\x00")
        far.turn()
        assert far.received == b"\x05\x00"
        assert not hand.reactor.writers
        end.transport.abortConnection()
        hand.reactor.turn()
        far.close()


def test_what_the_kernel_does_not_take_leaves_in_order() -> None:
    with board() as hand:
        end, far = hand.end(BUFFER)
        far.reading = False
        octets = noise(1, 1 << 20)
        end.send(octets)
        far.reading = True
        far.turn()  # there is room again, which is not for those who come later
        end.send(b"the last")
        for _ in range(1000):
            far.turn()
            for writer in list(hand.reactor.writers):
                writer.doWrite()
        assert far.received == octets + b"the last"
        end.transport.abortConnection()
        hand.reactor.turn()
        far.close()


def test_what_is_sent_to_one_who_has_broken_off_is_left_to_the_transport() -> None:
    with board() as hand:
        end, far = hand.end()
        far.reset()
        end.send(b"anybody there?")
        (writer,) = hand.reactor.writers
        assert isinstance(writer.doWrite(), ConnectionLost)
        end.transport.abortConnection()
        hand.reactor.turn()
        end.send(b"hello?")


def test_other_transports_are_written_to(end: End, transport: FakeTransport) -> None:
    end.send(b"\x05")
    end.send(b"\x00")
    assert transport.sent == b"\x05\x00"


def test_over_tls_it_is_tls_that_is_written_to() -> None:
    with board() as hand:
        end, far = hand.end()
        end.transport.TLS = True  # type: ignore[attr-defined]  # as startTLS() does
        written: list[bytes] = []
        end.transport.write = written.append  # type: ignore[method-assign, assignment]  # to see what is written
        end.send(b"secret")
        far.turn()
        assert (written, far.received) == ([b"secret"], b"")
        del end.transport.TLS  # type: ignore[attr-defined]  # a fake has it to lose
        end.transport.abortConnection()
        hand.reactor.turn()
        far.close()
