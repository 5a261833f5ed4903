"""All cases, and how they are run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import ModuleType

from socksd.conformance import (
    bind,
    endurance,
    framing,
    login,
    negotiation,
    relaying,
    replies,
    requests,
    udp,
)
from socksd.conformance.bench import Bench, Pace, Server
from socksd.conformance.case import Case, Inconclusive, Result, Verdict

_CHAPTERS = (negotiation, framing, login, requests, replies, relaying, bind, udp, endurance)


def _of(chapter: ModuleType) -> Iterator[Case]:
    return (value for value in vars(chapter).values() if isinstance(value, Case))


CASES: tuple[Case, ...] = tuple(case for chapter in _CHAPTERS for case in _of(chapter))


def run(server: Server, cases: Iterable[Case], pace: Pace) -> Iterator[Result]:
    """Run cases one after the other; give each result when it is there."""
    for case in cases:
        yield run_case(server, case, pace)


def run_case(server: Server, case: Case, pace: Pace) -> Result:
    """Run one case on a bench of its own."""
    verdict, reason = Verdict.PASS, ""
    start = time.monotonic()
    with Bench(server, pace) as bench:
        try:
            case.run(bench)
        except Inconclusive as error:
            verdict, reason = error.verdict, str(error)
        except OSError as error:  # of a socket of ours, by what the server did or told us
            verdict, reason = Verdict.FAIL, str(error)
        transcript = bench.transcript.lines() if verdict is Verdict.FAIL else ()
    return Result(case, verdict, reason, transcript, time.monotonic() - start)
