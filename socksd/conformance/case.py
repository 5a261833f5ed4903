"""What a case is, and what can come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from socksd.errors import SocksdError

if TYPE_CHECKING:
    from socksd.conformance.bench import Bench


class Verdict(StrEnum):
    """What came of a case."""

    PASS = "pass"  # noqa: S105 -- a verdict
    FAIL = "fail"
    NOT_OFFERED = "not offered"  # the server says that it does not, or this host has no IPv6
    SKIPPED = "skipped"  # we were not given what the case needs


class Inconclusive(SocksdError):
    """A case that ends without a pass; the message is its reason."""

    verdict: Verdict


class Failed(Inconclusive):
    """The server does not do what the sentence says."""

    verdict = Verdict.FAIL


class NotOffered(Inconclusive):
    """The server need not offer this, and says that it does not."""

    verdict = Verdict.NOT_OFFERED


class Skipped(Inconclusive):
    """Something that the case needs was not given to us."""

    verdict = Verdict.SKIPPED


@dataclass(frozen=True, slots=True)
class Sentence:
    """What a case rests on: the words of an RFC."""

    section: str  # "RFC 1928 section 3"
    words: str


@dataclass(frozen=True, slots=True)
class Case:
    """
    One promise that a server keeps or breaks.

    Attributes:
        id: The name of its function, hyphenated.
        promise: What is tested, in one line.
        run: Returns for a pass, else raises Inconclusive.
        slow: It waits for the server's own deadlines: minutes.
    """

    id: str
    sentence: Sentence
    promise: str
    run: Callable[[Bench], None]
    slow: bool


def case(sentence: Sentence, *, slow: bool = False) -> Callable[[Callable[[Bench], None]], Case]:
    """Make a case of a function, whose docstring is the promise."""

    def decorate(function: Callable[[Bench], None]) -> Case:
        promise = " ".join((function.__doc__ or "").split())
        return Case(function.__name__.replace("_", "-"), sentence, promise, function, slow)

    return decorate


@dataclass(frozen=True, slots=True)
class Result:
    """A case's verdict; the transcript is kept for a failure only."""

    case: Case
    verdict: Verdict
    reason: str  # empty for a pass
    transcript: tuple[str, ...]
    seconds: float
