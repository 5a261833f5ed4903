"""Refusals by whichever worker, told as they happen to those who look."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from socksd.admin.routes import Unable
from socksd.app.rounds import Rounds

_log = Logger("socksd")

EVERY: Final = 1.0  # seconds between two looks

Tell = Callable[[str, object], None]


class Following:
    """Asks the workers for their latest refusals, while somebody wants to hear of them."""

    def __init__(self, rounds: Rounds, clock: IReactorTime) -> None:
        self._rounds = rounds
        self._clock = clock
        self._watch: _Watch | None = None

    def subscribe(self, tell: Tell) -> Callable[[], None]:
        """Tell of each refusal from now on, until what is given back is called."""
        watch = self._watch
        if watch is None:
            watch = self._watch = _Watch(self._rounds, self._clock)
        watch.told.append(tell)
        watch.start()

        def unsubscribe() -> None:
            watch.told.remove(tell)
            if not watch.told:
                watch.stop()
                self._watch = None

        return unsubscribe


class _Watch:
    """
    A time in which somebody listens without a break.

    Each worker is asked for what has come since it was asked last. It
    remembers so many: if more have come, it is told how many are ``missed``.
    """

    def __init__(self, rounds: Rounds, clock: IReactorTime) -> None:
        self.told: list[Tell] = []
        self._rounds = rounds
        self._seen: dict[int, int] | None = None  # how many of each worker; None: not yet known
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    def start(self) -> None:
        """Look, and again, if it does not yet."""
        if not self._looking.running:
            self._looking.start(EVERY).addErrback(
                lambda failure: _log.failure("refusals are followed no more", failure)
            )

    def stop(self) -> None:
        """Look no more."""
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look_once())

    async def _look_once(self) -> None:
        seen = self._seen or {}
        after = {number: {"after": count} for number, count in seen.items()}
        try:
            said, _ = await self._rounds.ask("GET", "/v1/denials", {"after": 0}, after)
        except Unable:  # for a moment: a reload has put the dashboard away
            return
        if self._seen is not None:  # what there was at the first look is nothing new
            rows = [row for answer in said.values() for row in answer["denials"]]
            count = sum(answer["count"] - seen.get(n, 0) for n, answer in said.items())
            self._tell(sorted(rows, key=itemgetter("time")), count - len(rows))
        living = self._rounds.living()
        counts = seen | {number: answer["count"] for number, answer in said.items()}
        self._seen = {number: count for number, count in counts.items() if number in living}

    def _tell(self, rows: list[dict[str, object]], missed: int) -> None:
        for tell in tuple(self.told):
            if missed > 0:
                tell("missed", missed)
            for row in rows:
                tell("denied", row)
