"""What is known of names already, and what is being asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeGuard

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.address import IPAddress, reached
from socksd.codes import ReplyCode
from socksd.egress.lookup import Answer, ILookup
from socksd.errors import Refused, TimedOut
from socksd.interfaces import IResolver

NEGATIVE_TTL = 5.0  # seconds: outlasts a browser's retries, and hardly a repair
ENTRIES = 10_000
MOST_QUESTIONS = 512
MOST_ADDRESSES = 64  # of one name: the policy judges each, for each request


@dataclass(frozen=True, slots=True)
class _Known:
    """An answer, or a refusal, until when the clock says so."""

    until: float
    addresses: tuple[IPAddress, ...]
    reason: str = ""  # why there are none
    late: bool = False  # because nobody has answered

    def told(self) -> Deferred[Sequence[IPAddress]]:
        if self.addresses:
            return succeed(self.addresses)
        # A new one each time: a shared exception would gather tracebacks.
        if self.late:
            return fail(TimedOut(self.reason))
        return fail(Refused(ReplyCode.HOST_UNREACHABLE, self.reason))


@dataclass(eq=False, slots=True)
class _Question:
    """A lookup under way, and those who wait for it."""

    waiters: list[Deferred[Sequence[IPAddress]]]
    lookup: Deferred[None] = field(init=False)

    def tell(self, told: Callable[[], Deferred[Sequence[IPAddress]]]) -> None:
        """Give to each what *told* gives; one who is told may cancel another."""
        while self.waiters:
            told().chainDeferred(self.waiters.pop(0))


@implementer(IResolver)
class CachingResolver:
    """
    Ask each question once, and remember the answer for its TTL.

    Answers are normalised here, whoever gave them: each address as connect(2)
    would take it, and once.

    Args:
        inner: Asked what is not known. One more question than
            ``MOST_QUESTIONS`` at a time is refused.
        clock: What TTLs are measured by.
        negative_ttl: For how many seconds it is remembered that a name leads
            nowhere.
        entries: How many names are remembered; one more, and the oldest goes.

    Attributes:
        hits: How often the answer was known,
        joined: the question was being asked already,
        misses: or neither.
    """

    def __init__(
        self,
        inner: ILookup,
        clock: IReactorTime,
        negative_ttl: float = NEGATIVE_TTL,
        entries: int = ENTRIES,
    ) -> None:
        self.hits = self.joined = self.misses = 0
        self._inner = inner
        self._clock = clock
        self._negative_ttl = negative_ttl
        self._entries = entries
        self._known: dict[str, _Known] = {}  # the oldest first
        self._asking: dict[str, _Question] = {}

    def resolve(self, name: str) -> Deferred[Sequence[IPAddress]]:
        """Tell what is known, or ask; see IResolver."""
        known = self._known.get(name)
        if known is not None and self._clock.seconds() < known.until:
            self.hits += 1
            return known.told()
        question = self._asking.get(name)
        if question is not None:
            self.joined += 1
            return self._wait(name, question)
        self.misses += 1
        if len(self._asking) >= MOST_QUESTIONS:
            return fail(Refused(ReplyCode.GENERAL_FAILURE, "too many names asked for at once"))
        question = self._asking[name] = _Question([])
        waiter = self._wait(name, question)  # before asking: the answer may be there at once
        question.lookup = self._inner.lookup(name).addBoth(self._settle, name, question)
        return waiter

    def __len__(self) -> int:
        """How many names are remembered."""
        return len(self._known)

    def stop(self) -> None:
        """Ask no more questions; what is known stays known."""
        self._inner.stop()

    def _wait(self, name: str, question: _Question) -> Deferred[Sequence[IPAddress]]:
        waiter: Deferred[Sequence[IPAddress]] = Deferred(
            lambda waiter: self._leave(waiter, name, question)
        )
        question.waiters.append(waiter)
        return waiter

    def _leave(self, waiter: Deferred[Sequence[IPAddress]], name: str, question: _Question) -> None:
        question.waiters.remove(waiter)
        if not question.waiters and self._asking.get(name) is question:
            del self._asking[name]
            question.lookup.cancel()

    def _settle(self, result: Answer | Failure, name: str, question: _Question) -> None:
        if self._asking.get(name) is not question:
            return  # everybody has left, and so cancelled it
        del self._asking[name]
        now = self._clock.seconds()
        if isinstance(result, Answer):
            addresses = tuple(dict.fromkeys(map(reached, result.addresses)))[:MOST_ADDRESSES]
            known = _Known(now + result.ttl, addresses)
        elif _is_about_the_name(error := result.value):
            late = isinstance(error, TimedOut)
            known = _Known(now + self._negative_ttl, (), error.reason, late)
        else:
            question.tell(partial(fail, result))
            return
        self._remember(name, known)
        question.tell(known.told)

    def _remember(self, name: str, known: _Known) -> None:
        self._known.pop(name, None)  # to the young end
        self._known[name] = known
        if len(self._known) > self._entries:
            del self._known[next(iter(self._known))]


def _is_about_the_name(error: BaseException | None) -> TypeGuard[Refused]:
    """Whether it is worth remembering; see ILookup.lookup."""
    return isinstance(error, Refused) and error.reply is ReplyCode.HOST_UNREACHABLE
