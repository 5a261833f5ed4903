"""
The private channel between the parent and one of its workers.

A pair of unix sockets that nobody else has. The parent asks, the worker answers,
in order: JSON objects, each behind its length in four octets. Sockets go along
with a question (SCM_RIGHTS). A worker says nothing unasked, so however long one
of both is stuck, nothing piles up.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IFileDescriptorReceiver, IUNIXTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

DESCRIPTOR: Final = 3  # of the worker's end, in the worker
LONGEST: Final = 64 << 20  # octets of a message: a configuration is in it

Message = dict[str, Any]

_log = Logger("socksd")


class Asker(Int32StringReceiver):
    """The parent's end."""

    MAX_LENGTH = LONGEST
    transport: IUNIXTransport

    def __init__(self) -> None:
        self._asked: deque[tuple[Deferred[Message], list[int]]] = deque()
        self._lost: Failure | None = None

    def ask(self, question: Message, descriptors: Sequence[int] = ()) -> Deferred[Message]:
        """
        Ask, and give the answer; it fails once the worker has gone.

        Args:
            question: What JSON can say.
            descriptors: Copies of these go along; they may be closed at once.
        """
        answered: Deferred[Message] = Deferred()
        if self._lost is not None:
            answered.errback(self._lost)
            return answered
        # Twisted sends them some time later, and says nothing when it has.
        lent = [os.dup(each) for each in descriptors]
        self._asked.append((answered, lent))
        for each in lent:
            self.transport.sendFileDescriptor(each)
        self.sendString(_written(question | {"descriptors": len(lent)}))  # type: ignore[no-untyped-call]  # Twisted's
        return answered

    def hang_up(self) -> None:
        """Ask nothing more: the worker ends then."""
        self.transport.loseConnection()

    def stringReceived(self, string: bytes) -> None:
        """Take the next answer."""
        answered, lent = self._asked.popleft()
        _close(lent)
        answered.callback(json.loads(string))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let all that is not answered fail."""
        self._lost = Failure(ConnectionDone("the worker has gone"))
        asked, self._asked = self._asked, deque()
        for answered, lent in asked:
            _close(lent)
            answered.errback(self._lost)


@implementer(IFileDescriptorReceiver)
class Answerer(Int32StringReceiver):
    """
    The worker's end.

    Args:
        answer: Answers a question, or gives a Deferred; what comes with it is
            closed when it has. One question at a time.
        gone: Called when the parent has.
    """

    MAX_LENGTH = LONGEST

    def __init__(
        self,
        answer: Callable[[Message, list[int]], Message | Deferred[Message]],
        gone: Callable[[], object],
    ) -> None:
        self._answer = answer
        self._gone = gone
        self._turns = DeferredLock()
        self._descriptors: list[int] = []

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Keep a descriptor, for the question that it belongs to is behind it."""
        self._descriptors.append(descriptor)

    def stringReceived(self, string: bytes) -> None:
        """Answer a question."""
        question = json.loads(string)
        count = question.pop("descriptors")
        given, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        turn = self._turns.run(lambda: Deferred.fromCoroutine(self._reply(question, given)))
        turn.addErrback(self._fail)

    async def _reply(self, question: Message, given: list[int]) -> None:
        try:
            answer: Any = await maybeDeferred(self._answer, question, given)
        finally:
            _close(given)
        self.sendString(_written(answer))  # type: ignore[no-untyped-call]  # Twisted's

    def _fail(self, failure: Failure) -> None:
        """Hang up: a worker with such a bug is to be replaced."""
        _log.failure("a question has met a bug", failure)
        self.transport.loseConnection()  # type: ignore[union-attr]  # there is one

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say that the parent has gone."""
        _close(self._descriptors)
        self._gone()


def _written(message: Message) -> bytes:
    return json.dumps(message).encode("ascii")


def _close(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        os.close(each)
