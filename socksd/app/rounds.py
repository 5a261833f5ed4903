"""The same question to all workers at once, and what those have said that say no more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Generic, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from socksd.admin.asking import SECONDS, Asking, NoAnswer, Said
from socksd.admin.routes import BadBody, Body, NotAdmitted, Unable, only
from socksd.app.merging import Answer, Merge
from socksd.errors import SocksdError
from socksd.frozen import value

T = TypeVar("T")

# What a worker refuses the parent refuses as well, with the same words.
_REFUSALS: Final[Mapping[HTTPStatus, type[SocksdError]]] = {
    HTTPStatus.BAD_REQUEST: BadBody,
    HTTPStatus.FORBIDDEN: NotAdmitted,
    HTTPStatus.CONFLICT: Unable,
}


@value
class WorkerAddress:
    """Where a worker is asked."""

    number: int  # given once: a worker that takes another's place has another one
    socket: str  # the path of its control socket


class Round(NamedTuple):
    """What all have said to one question."""

    said: Mapping[int, Answer]  # by the number of the worker
    missing: list[int]  # who has not answered in time, or not as it should


class Rounds:
    """Asks the workers that there are at the moment."""

    def __init__(self, workers: Callable[[], Sequence[WorkerAddress]], asking: Asking) -> None:
        self._workers = workers
        self._asking = asking

    def living(self) -> Collection[int]:
        """Give the numbers of the workers that there are."""
        return [worker.number for worker in self._workers()]

    async def ask(
        self, method: str, path: str, body: Body | None = None, each: Mapping[int, Body] = {}
    ) -> Round:
        """
        Ask all of them, some with a body of their own.

        Raises:
            BadBody, NotAdmitted, Unable: No worker has answered, and one has
                refused so.
        """
        workers = self._workers()
        answers: list[Said | None] = await gatherResults(
            [
                self._asking.ask(
                    worker.socket, method, path, each.get(worker.number, body or {})
                ).addErrback(_none)
                for worker in workers
            ],
            consumeErrors=True,
        )
        heard = {
            worker.number: answer
            for worker, answer in zip(workers, answers, strict=True)
            if answer is not None
        }
        said = {n: answer.what for n, answer in heard.items() if answer.status == HTTPStatus.OK}
        if not said:
            for answer in heard.values():
                _refuse(answer)
        return Round(said, [w.number for w in workers if w.number not in said])

    async def one(
        self, method: str, path: str, body: Body, seconds: float = SECONDS
    ) -> dict[str, Any]:
        """
        Ask any one of them: the first that answers.

        Raises:
            BadBody, NotAdmitted, Unable: It refuses so; or there is none.
        """
        for worker in self._workers():
            try:
                answer = await self._asking.ask(worker.socket, method, path, body, seconds)
            except NoAnswer:
                continue
            if answer.status == HTTPStatus.OK:
                return answer.what
            _refuse(answer)
        raise Unable("no worker answers")


class Kept:
    """
    What each worker has said last, and what those that are gone have, as one.

    Args:
        merge: Makes one answer of several, and bounds it.

    Attributes:
        ended: The answer of those that are gone; ``None`` before there are any.
    """

    def __init__(self, merge: Merge) -> None:
        self._merge = merge
        self._last: dict[int, Answer] = {}
        self.ended: Answer | None = None

    def take(
        self, said: Mapping[int, Answer], living: Collection[int]
    ) -> tuple[list[Answer], list[Answer]]:
        """
        Remember what was said, and give it apart from what was said before by others.

        Args:
            said: By those who have just answered,
            living: of whom some may be gone already.
        """
        self._last.update(said)
        gone = [self._last.pop(number) for number in list(self._last) if number not in living]
        if gone:
            self.ended = self._merge(gone if self.ended is None else [self.ended, *gone])
        now = [answer for number, answer in self._last.items() if number in said]
        before = [answer for number, answer in self._last.items() if number not in said]
        return now, before if self.ended is None else [*before, self.ended]


class Shared(Generic[T]):
    """
    A question without parameters that is asked once at a time.

    Who asks while it is being asked gets the same answer: ten people who look
    cost as much as one, and answers never overtake each other.
    """

    def __init__(self, find: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._find = find
        self._waiting: list[Deferred[T]] = []

    def __call__(self, body: Body) -> Deferred[T]:
        """Ask; raises BadBody for any parameter."""
        only(body)
        answer: Deferred[T] = Deferred()
        self._waiting.append(answer)
        if len(self._waiting) == 1:
            Deferred.fromCoroutine(self._find()).addBoth(self._found)
        return answer

    def _found(self, answer: T | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(answer)


def _none(failure: Failure) -> None:
    failure.trap(NoAnswer)


def _refuse(answer: Said) -> None:
    refusal = _REFUSALS.get(HTTPStatus(answer.status))
    if refusal is not None:
        raise refusal(str(answer.what.get("error")))
