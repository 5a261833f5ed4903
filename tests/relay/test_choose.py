from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from socksd.interfaces import IEnd, IRelay
from socksd.relay.choose import choose, switchboard
from socksd.relay.line import Line, ThrottledLine
from socksd.relay.pump import Pump, ThrottledPump
from socksd.relay.switchboard import Switchboard
from socksd.relay.throttle import Budget
from socksd.server.ends import End
from tests.fakes import FakeTransport
from tests.relay.hand import Board, HandReactor, board


@pytest.fixture
def hand() -> Iterator[Board]:
    with board() as made:
        yield made


@pytest.fixture
def ends(hand: Board) -> Iterator[tuple[End, End]]:
    client, client_far = hand.end()
    target, target_far = hand.end()
    yield client, target
    for end in (client, target):
        end.transport.abortConnection()
    hand.reactor.advance(0)
    client_far.close()
    target_far.close()


def chosen(
    hand: Board,
    client: IEnd,
    target: IEnd,
    *,
    with_board: bool = True,
    budget: Budget | None = None,
    made: Counter[type[IRelay]] | None = None,
) -> IRelay:
    return choose(
        client,
        target,
        board=hand.switchboard if with_board else None,
        clock=hand.reactor,
        idle=900.0,
        linger=300.0,
        budget=budget,
        made=made,
    )


def test_two_plain_sockets_get_a_line(hand: Board, ends: tuple[End, End]) -> None:
    assert isinstance(chosen(hand, *ends), Line)


@pytest.mark.parametrize(("with_board", "kind"), [(True, ThrottledLine), (False, ThrottledPump)])
def test_with_a_budget_it_is_throttled(
    hand: Board, ends: tuple[End, End], with_board: bool, kind: type
) -> None:
    budget = Budget(1000, hand.reactor)
    assert isinstance(chosen(hand, *ends, with_board=with_board, budget=budget), kind)


def test_what_was_chosen_is_counted(hand: Board, ends: tuple[End, End]) -> None:
    made: Counter[type[IRelay]] = Counter()
    chosen(hand, *ends, made=made)
    chosen(hand, *ends, made=made)
    chosen(hand, *ends, with_board=False, made=made)
    assert made == {Line: 2, Pump: 1}


def test_without_a_switchboard_it_is_a_pump(hand: Board, ends: tuple[End, End]) -> None:
    assert isinstance(chosen(hand, *ends, with_board=False), Pump)


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("why", ["TLS", "closing", "no socket"])
def test_an_end_that_is_more_than_a_socket_gets_a_pump(
    hand: Board, ends: tuple[End, End], position: int, why: str
) -> None:
    both: list[IEnd] = list(ends)
    match why:
        case "TLS":
            ends[position].transport.TLS = True  # type: ignore[attr-defined]  # as startTLS() does
        case "closing":
            ends[position].transport.loseConnection()
        case _:
            both[position] = End()
            FakeTransport(both[position])  # type: ignore[arg-type]  # an end in a tuple of two
    assert isinstance(chosen(hand, *both), Pump)
    if why == "TLS":
        del ends[position].transport.TLS  # type: ignore[attr-defined]  # a fake has it to lose


def test_an_end_that_is_lost_gets_a_pump(hand: Board, ends: tuple[End, End]) -> None:
    """Which knows how to take the other one along."""
    ends[1].transport.abortConnection()
    hand.reactor.advance(0)
    assert isinstance(chosen(hand, *ends), Pump)


def test_a_reactor_that_watches_descriptors_has_a_switchboard() -> None:
    assert isinstance(switchboard(HandReactor()), Switchboard)


def test_another_one_has_none() -> None:
    assert switchboard(Clock()) is None


def test_another_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socksd.relay.choose._LINUX", False)
    assert switchboard(HandReactor()) is None
