"""The workers: as many as are wanted, each replaced when it ends."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.error import ConnectionDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from socksd.admin.routes import Unable
from socksd.app.notify import GRACE
from socksd.app.rounds import WorkerAddress
from socksd.app.workers.channel import Asker, Message

_log = Logger("socksd")

TICK: Final = 1.0  # seconds from one look at all workers to the next
# Ticks of silence after which a worker is taken for stuck; one that starts may have a
# long policy to read, on a machine where all of them do.
PATIENCE: Final = 30
STARTING: Final = 60
# Seconds. One that has lived so long was well; one that has not is replaced at once the
# first time, then ever later.
WELL: Final = 10.0
SHORTEST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 10.0
# How many may drain for each that serves: a restart too many has to wait.
MOST_LEAVING: Final = 4

# What a worker has to know to serve, and the listening sockets that go with it.
Brief = tuple[Message, Sequence[int]]


class Worker(ProcessProtocol):
    """
    A worker process, as its parent knows it, from its spawn to its end.

    Attributes:
        number: The how-manieth it is: never given twice.
        socket: Where it answers requests for ``/v1/...``.
        pid: Of its process, once there is one.
        asker: Our end of its channel.
        place: Where it serves, or is about to; ``None`` while it stands by.
        since: When it began to, by the reactor's clock.
        is_ready: Whether it serves, or has.
        is_leaving: Whether it accepts no more, and ends.
        sessions: How many it had when it was last asked.
        silence: Ticks for which it has been asked in vain.
    """

    def __init__(
        self,
        number: int,
        socket: str,
        ended: Callable[[Worker, Failure], object],
        said: Callable[[bytes], object],
    ) -> None:
        self.number = number
        self.socket = socket
        self.pid: int | None = None
        self.asker = Asker()
        self.place: Place | None = None
        self.since = 0.0
        self.is_ready = False
        self.is_leaving = False
        self.sessions = 0
        self.silence = 0
        self._ended = ended
        self._said = said
        self._waiting: list[Deferred[bool]] = []  # to know whether it serves

    def __str__(self) -> str:
        return f"worker {self.number} (pid {self.pid})"

    def connectionMade(self) -> None:
        """Keep the number of the process, which its transport forgets at its end."""
        self.pid = getattr(self.transport, "pid", None)

    def settled(self) -> Deferred[bool]:
        """Wait until one that has just begun serves, or never will."""
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def settle(self, is_ready: bool) -> None:
        """Say whether it serves."""
        self.is_ready = self.is_ready or is_ready
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(is_ready)

    def kill(self) -> None:
        """End it now, whatever it does."""
        if self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")

    def reopen(self) -> None:
        """Have it begin its log file anew; before it serves it would not know the signal."""
        if self.transport is not None and self.is_ready:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess(signal.SIGUSR1)

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803 -- Twisted's name
        """Take what it writes to its log, where that does not go the same way as ours."""
        self._said(data)

    def processEnded(self, reason: Failure) -> None:
        """Hear that it has ended, and all that it has written to its log."""
        self._ended(self, reason)


@dataclass(slots=True, eq=False)
class Place:
    """
    One of those that shall serve, whichever process that is.

    Attributes:
        worker: Who serves here, or is about to; ``None`` while nobody does.
        successor: Who starts to take its place.
        failures: How many in a row did not live long.
        pause: Until the next is spawned.
    """

    worker: Worker | None = None
    successor: Worker | None = None
    failures: int = 0
    pause: IDelayedCall | None = None

    def workers(self) -> Iterator[Worker]:
        """Give those that there are."""
        return (each for each in (self.worker, self.successor) if each is not None)


class Pool:
    """
    As many workers as are wanted, and one that stands by.

    To start Python and to read our modules takes a process the better part of a
    second. So one more has that behind it and waits to be told what to serve: for
    who dies there is another one in a few hundredths.

    Args:
        spawn: Starts the process of a worker. Raises OSError.
        brief: Gives what a worker has to know, by its place and by how many there are.
        said: Makes what takes what a worker writes to its log.
        patience: Ticks of silence after which a worker is taken for stuck.

    Attributes:
        living: Those that have not ended, by their numbers; the oldest first.
        ready: Called as soon as all serve for the first time.
        remember: Called before one that serves leaves, and every second while it
            does: what it has counted is gone with it. May give a Deferred.
    """

    def __init__(
        self,
        spawn: Callable[[Worker], object],
        brief: Callable[[int, int], Brief],
        said: Callable[[], Callable[[bytes], object]],
        clock: IReactorTime,
        patience: int = PATIENCE,
    ) -> None:
        self.living: dict[int, Worker] = {}
        self.ready: Callable[[], object] = lambda: None
        self.remember: Callable[[], object] = lambda: None
        self._spawn = spawn
        self._directory = ""
        self._brief = brief
        self._said = said
        self._clock = clock
        self._patience = patience
        self._places: list[Place] = []
        self._reserve: Worker | None = None  # who stands by
        self._spawned = 0
        self._was_ready = False
        self._restarting = False
        self._empty: Deferred[None] | None = None  # fires when all have ended
        self._late: list[IDelayedCall] = []  # when they are killed
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock

    @property
    def serving(self) -> int:
        """How many accept."""
        return sum(place.worker is not None and place.worker.is_ready for place in self._places)

    @property
    def sessions(self) -> int:
        """How many sessions there were when workers were last asked."""
        return sum(worker.sessions for worker in self.living.values())

    def addresses(self) -> list[WorkerAddress]:
        """Give where those that serve can be asked, and those that still drain."""
        return [WorkerAddress(n, each.socket) for n, each in self.living.items() if each.is_ready]

    def __len__(self) -> int:
        return len(self._places)

    def start(self, count: int, directory: str) -> None:
        """Begin to have *count* of them, with their sockets in *directory*."""
        self._directory = directory
        self._ticking.start(TICK, now=False)
        self.resize(count)

    def resize(self, count: int) -> None:
        """Have *count* of them from now on; those that are too many drain."""
        added = [Place() for _ in range(count - len(self._places))]
        removed = self._places[count:]
        self._places = self._places[:count] + added
        for place in added:
            self._fill(place)
        for place in removed:
            self._clear(place)

    def reload(self, count: int) -> Deferred[int]:
        """
        Have *count* of them from now on, by their brief as it is now.

        Who cannot go on by it is replaced by one that is new. Gives how many live
        sessions would now be refused.
        """
        if not self._ticking.running:
            return succeed(0)  # they are told when they start
        here = [(place, each) for place in self._places for each in place.workers()]
        self.resize(count)
        for place in self._places:
            if place.pause is not None:  # what has kept it from serving may be gone
                place.failures = 0
                place.pause.reset(0)
        asked = [self._reload(place, each) for place, each in here if place in self._places]
        return gatherResults(asked).addCallback(sum)

    def restart(self) -> Deferred[None]:
        """
        Replace all, one by one: each accepts until the next one does, then drains.

        Fails with Unable if one does not get ready; the others stay as they are.

        Raises:
            Unable: It cannot be begun as things stand.
        """
        if self._empty is not None:
            raise Unable("the service is stopping")
        if self._restarting:
            raise Unable("workers are being restarted already")
        leaving = sum(worker.is_leaving for worker in self.living.values())
        if leaving > MOST_LEAVING * len(self._places):
            raise Unable(f"{leaving} workers are draining still")
        self._restarting = True
        self._dismiss()  # what has been read before is not what is to run now
        return Deferred.fromCoroutine(self._restart())

    def reopen(self) -> None:
        """Have all begin their log files anew."""
        for worker in self.living.values():
            worker.reopen()

    def stop(self, seconds: float) -> Deferred[None]:
        """Have all drain, which takes them so long at most; fires when all have ended."""
        self._empty = Deferred()
        for place in self._places:
            self._clear(place, seconds)
        self._places = []
        self._dismiss()
        self._end_within(seconds + GRACE)
        self._look_for_the_end()
        return self._empty

    def hurry(self) -> None:
        """Have none wait any longer for its sessions to end."""
        for worker in self.living.values():
            worker.asker.ask({"do": "hurry"}).addErrback(_gone)
        if self.living:
            self._end_within(GRACE)

    # -- their life ----------------------------------------------------------------

    def _fill(self, place: Place) -> None:
        place.pause = None
        place.worker = self._start(place)
        self._judge(place)

    def _clear(self, place: Place, seconds: float | None = None) -> None:
        """Have nobody serve here any more; see _retire()."""
        if place.pause is not None:
            place.pause.cancel()
            place.pause = None
        for worker in place.workers():
            self._retire(worker, seconds)

    def _spawn_one(self) -> Worker | None:
        """Start a process; ``None`` where the system does not let us."""
        self._spawned += 1
        number = self._spawned
        socket = f"{self._directory}/{number}.sock"
        worker = Worker(number, socket, self._ended, self._said())
        self.living[number] = worker
        try:
            self._spawn(worker)
        except OSError as error:
            del self.living[number]
            _log.error("worker {number} cannot be spawned: {error}", number=number, error=error)
            return None
        return worker

    def _dismiss(self) -> None:
        """Have nobody stand by."""
        reserve, self._reserve = self._reserve, None
        if reserve is not None:
            self._retire(reserve)

    def _start(self, place: Place) -> Worker | None:
        """Have a worker begin to serve; ``None`` where there is none to be had."""
        worker, self._reserve = self._reserve or self._spawn_one(), None
        if worker is None:
            place.failures += 1
            return None
        worker.place = place
        worker.since = self._clock.seconds()
        brief, sockets = self._brief(self._places.index(place), len(self._places))
        question = brief | {"do": "serve", "number": worker.number, "socket": worker.socket}
        answered = worker.asker.ask(question, sockets)
        answered.addCallbacks(self._serves, _gone, (worker,))
        return worker

    def _serves(self, answer: Message, worker: Worker) -> None:
        for problem in answer["problems"]:
            _log.error("{worker} cannot serve: {problem}", worker=worker, problem=problem)
        if answer["problems"]:
            worker.asker.hang_up()  # and it ends
        if answer["problems"] or worker.is_leaving:
            return
        _log.info("{worker} serves", worker=worker)
        worker.settle(True)
        if not self._was_ready and self.serving == len(self._places):
            self._was_ready = True
            self.ready()

    def _ended(self, worker: Worker, reason: Failure) -> None:
        self.living.pop(worker.number, None)
        if worker.is_leaving:
            _log.info("{worker} has ended", worker=worker)
        else:
            _log.error("{worker} has ended: {cause}", worker=worker, cause=_cause(reason))
        if worker is self._reserve:
            self._reserve = None
        place = worker.place
        if place is not None:
            self._leave(place, worker)
        self._look_for_the_end()

    def _leave(self, place: Place, worker: Worker) -> None:
        lived = self._clock.seconds() - worker.since
        place.failures = 0 if lived >= WELL else place.failures + 1
        if place.worker is worker:
            place.worker = None
        if place.successor is worker:
            place.successor = None
        worker.settle(False)
        self._judge(place)

    def _judge(self, place: Place) -> None:
        """Spawn the next where nobody serves; later, the more have failed."""
        if place not in self._places or place.worker or place.successor or place.pause:
            return
        pause = 0.0
        if place.failures > 1:
            pause = min(SHORTEST_PAUSE * 2.0 ** min(place.failures - 2, 16), LONGEST_PAUSE)
        place.pause = self._clock.callLater(pause, self._fill, place)

    def _retire(self, worker: Worker, seconds: float | None = None) -> None:
        """
        Have one accept no more, drain and end; one that does not serve yet just ends.

        It may drain for so many *seconds*; ``None`` is for what is configured.
        """
        worker.is_leaving = True
        if worker.is_ready:
            worker.asker.ask({"do": "stop", "seconds": seconds}).addErrback(_gone)
        else:
            worker.kill()

    async def _restart(self) -> None:
        try:
            _log.info("restarting {count} workers", count=len(self._places))
            for place in tuple(self._places):
                is_replaced = place not in self._places or await self._replace(place)
                if self._empty is not None:
                    raise Unable("the service is stopping")
                if not is_replaced:
                    raise Unable("a new worker does not get ready: the rest is as it was")
            _log.info("workers restarted")
        finally:
            self._restarting = False

    async def _replace(self, place: Place) -> bool:
        """Have a new worker in the place of one that drains from then on; tell whether it is."""
        if place.successor is None:
            place.successor = self._start(place)
        successor = place.successor
        if successor is None or not await successor.settled() or place not in self._places:
            return False
        if place.successor is successor:  # and nobody else has waited for it, too
            former, place.worker, place.successor = place.worker, successor, None
            if former is not None:
                await maybeDeferred(self.remember)
                self._retire(former)
        return True

    # -- what they are asked ---------------------------------------------------------

    def _reload(self, place: Place, worker: Worker) -> Deferred[int]:
        brief, sockets = self._brief(self._places.index(place), len(self._places))
        answered = worker.asker.ask(brief | {"do": "reload"}, sockets)
        return answered.addCallbacks(self._reloaded, _gone, (place, worker))

    def _reloaded(self, answer: Message, place: Place, worker: Worker) -> int:
        for problem in answer["problems"]:
            _log.error("{worker} cannot reload: {problem}", worker=worker, problem=problem)
        if answer["problems"] and place in self._places:
            # What it is asked to do the parent has done: it is this process that cannot.
            _log.warn("{worker} is replaced", worker=worker)
            if place.worker is worker:
                Deferred.fromCoroutine(self._replace(place)).addErrback(_bug)
            else:
                worker.kill()
        refused: int = answer["refused"]
        return refused

    def _tick(self) -> None:
        """
        Ask all how they are, end those that are stuck, and have one stand by when all serve.

        Counted in ticks, for we ourselves may have been frozen: what they have
        answered meanwhile has not been read then.
        """
        for worker in tuple(self.living.values()):
            if not worker.silence:
                worker.asker.ask({"do": "say"}).addCallbacks(self._heard, _gone, (worker,))
            worker.silence += 1
            if worker.silence > (self._patience if worker.is_ready else STARTING):
                _log.error("{worker} is stuck, and killed", worker=worker)
                worker.kill()
        if any(worker.is_leaving for worker in self.living.values()):
            self.remember()
        if self._places and self.serving == len(self._places) and not self._restarting:
            self._reserve = self._reserve or self._spawn_one()

    def _heard(self, answer: Message, worker: Worker) -> None:
        worker.silence = 0
        worker.sessions = answer["sessions"]

    # -- the end ---------------------------------------------------------------------

    def _end_within(self, seconds: float) -> None:
        """Kill whoever is still there after so many seconds of stopping."""
        self._late.append(self._clock.callLater(seconds, self._kill_all))

    def _kill_all(self) -> None:
        for worker in tuple(self.living.values()):
            _log.error("{worker} does not end, and is killed", worker=worker)
            worker.kill()

    def _look_for_the_end(self) -> None:
        empty = self._empty
        if empty is not None and not self.living and not empty.called:
            if self._ticking.running:
                self._ticking.stop()
            for late in self._late:
                if late.active():
                    late.cancel()
            empty.callback(None)


def _gone(failure: Failure) -> int:
    """Leave out one that has ended: who comes after it is told all as it starts."""
    failure.trap(ConnectionDone)
    return 0


def _bug(failure: Failure) -> None:
    _log.failure("a worker could not be replaced", failure)


def _cause(reason: Failure) -> str:
    """Say how a process has ended."""
    error = reason.value
    if isinstance(error, ProcessTerminated) and error.signal is not None:
        return f"killed by {signal.Signals(error.signal).name}"
    return f"status {getattr(error, 'exitCode', None) or 0}"
