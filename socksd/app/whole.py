"""All workers as one server: what the parent's control socket, dashboard and metrics say."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

import socksd
from socksd.admin.asking import Asking
from socksd.admin.routes import Body, IReactorControlled, Routes, Unable, only
from socksd.app import merging
from socksd.app.live import USUAL, first
from socksd.app.rounds import Kept, Rounds, Shared, WorkerAddress
from socksd.observe import samples
from socksd.observe.metrics import Family, Kind, Together
from socksd.observe.process import process

__all__ = ["Whole", "WorkerAddress"]

_log = Logger("socksd")

PARENT: Final = "parent"  # as the label of metrics calls it
REMEMBER: Final = 60.0  # seconds between two times that workers are asked for what is kept of them
EXPLAINING: Final = 30.0  # seconds: of a thousand rules the nearest change takes a while


class Whole:
    """
    Answers for all workers, with the routes and shapes of :class:`socksd.app.answers.Answers`.

    Answers of many also have ``missing``, the numbers of the workers that have
    not answered in time, or have just ended: they are left out, and nobody waits.

    What was counted does not go backwards when a worker ends: what each has
    said last is kept, of those that are gone as one sum. While it runs, all are
    asked each REMEMBER seconds, so no more than what was counted since is lost.

    Args:
        workers: Gives those that there are.
        status: Says of /v1/status what the parent knows better than a worker.
        families: Gives the numbers that the parent knows better; a name that
            is not to stand apart takes the place of the workers'.

    Attributes:
        rounds: Asks the workers.
    """

    def __init__(
        self,
        workers: Callable[[], Sequence[WorkerAddress]],
        reactor: IReactorControlled,
        *,
        status: Callable[[], Mapping[str, Any]] = dict,
        families: Callable[[], Iterable[Family]] = tuple,
    ) -> None:
        self.rounds = Rounds(workers, Asking(reactor))
        self._status_of_parent = status
        self._families_of_parent = families
        self._started = time.time()
        self._rules_kept = Kept(merging.rules)
        self._leaks_kept = Kept(merging.leaks)
        self._traffic_kept = Kept(merging.slots)
        self._denials_kept = Kept(merging.denials)
        self._totals = samples.Totals()
        self._questions: dict[str, Shared[dict[str, Any]]] = {
            "status": Shared(self._status),
            "rules": Shared(self._rules),
            "leaks": Shared(self._leaks),
            "talkers": Shared(self._talkers),
            "traffic": Shared(self._traffic),
            "denials": Shared(self._denials),
        }
        self._numbers = Shared(self._families)
        self._remembering = LoopingCall(self.remember)
        self._remembering.clock = reactor

    def start(self) -> None:
        """Begin to ask for what is to be kept, whether anybody looks or not."""
        self._remembering.start(REMEMBER, now=False)

    def stop(self) -> None:
        """Ask no more by itself."""
        if self._remembering.running:
            self._remembering.stop()

    def routes(self) -> Routes:
        """Give all that workers are asked; what is the parent's own, as reloading, is not there."""
        return {
            **{("GET", f"/v1/{name}"): question for name, question in self._questions.items()},
            ("GET", "/v1/sessions"): self.sessions,
            ("GET", "/v1/config"): self.config,
            ("POST", "/v1/explain"): self.explain,
            ("POST", "/v1/kill"): self.kill,
        }

    def sample(self, render: Callable[[Iterable[Family]], bytes]) -> Deferred[Callable[[], bytes]]:
        """Give what writes the numbers of all, to be called in a thread."""
        asked = self._numbers({})
        return asked.addCallback(lambda families: lambda: render(_with_parent(families)))

    def sessions(self, body: Body) -> Deferred[dict[str, Any]]:
        """List live sessions; see :func:`socksd.app.live.listing`."""
        return Deferred.fromCoroutine(self._sessions(body, *first(body)))

    def kill(self, body: Body) -> Deferred[dict[str, Any]]:
        """End live sessions, wherever they are; see :func:`socksd.app.live.chosen`."""
        return Deferred.fromCoroutine(self._kill(body))

    def config(self, body: Body) -> Deferred[dict[str, Any]]:
        """Give the configuration, which is the same for all of them."""
        only(body)
        return Deferred.fromCoroutine(self.rounds.one("GET", "/v1/config", {}))

    def explain(self, body: Body) -> Deferred[dict[str, Any]]:
        """Let one of them explain a request; see :func:`socksd.app.asked.answer`."""
        return Deferred.fromCoroutine(self.rounds.one("POST", "/v1/explain", body, EXPLAINING))

    def remember(self) -> Deferred[None]:
        """Ask for what is to be kept of those that end; never fails."""
        kept = ("rules", "leaks", "traffic", "denials")
        asked: list[Deferred[Any]] = [*(self._questions[name]({}) for name in kept)]
        asked.append(self._numbers({}))
        for answer in asked:
            answer.addErrback(_not_remembered)
        return gatherResults(asked).addCallback(lambda _: None)

    async def _status(self) -> dict[str, Any]:
        said, missing = await self.rounds.ask("GET", "/v1/status")
        return {
            **next(iter(said.values()), {}),
            "version": socksd.__version__,
            "pid": os.getpid(),
            "started": self._started,
            **self._status_of_parent(),
            "sessions": merging.total(said.values(), "sessions"),
            "older_sessions": merging.total(said.values(), "older_sessions"),
            "workers": [
                {"number": number}
                | {key: each[key] for key in ("pid", "started", "sessions", "older_sessions")}
                for number, each in said.items()
            ],
            "missing": missing,
        }

    async def _sessions(self, body: Body, order: str, limit: int) -> dict[str, Any]:
        said, missing = await self.rounds.ask("GET", "/v1/sessions", body)
        return {**merging.sessions(tuple(said.values()), order, limit), "missing": missing}

    async def _kill(self, body: Body) -> dict[str, Any]:
        said, missing = await self.rounds.ask("POST", "/v1/kill", body)
        return {"killed": merging.total(said.values(), "killed"), "missing": missing}

    async def _talkers(self) -> dict[str, Any]:
        # Of each many more than are shown: who is the first of all may be the
        # fiftieth of each.
        said, missing = await self.rounds.ask("GET", "/v1/talkers", {"limit": USUAL})
        return {**merging.talkers(tuple(said.values())), "missing": missing}

    async def _rules(self) -> dict[str, Any]:
        said, missing = await self.rounds.ask("GET", "/v1/rules")
        now, before = self._rules_kept.take(said, self.rounds.living())
        merged = merging.rules([*now, *map(merging.without_open, before)])
        if now:  # what no configuration has any more is forgotten, or there were no end of it
            known = {rule["id"] for answer in now for rule in answer["rules"]}
            merged = merging.only_rules(known, merged)
            if self._rules_kept.ended is not None:
                self._rules_kept.ended = merging.only_rules(known, self._rules_kept.ended)
        return {**merged, "missing": missing}

    async def _leaks(self) -> dict[str, Any]:
        said, missing = await self.rounds.ask("GET", "/v1/leaks", {"all": 1})
        now, before = self._leaks_kept.take(said, self.rounds.living())
        return {**merging.only_leaking(merging.leaks([*now, *before])), "missing": missing}

    async def _traffic(self) -> dict[str, Any]:
        said, missing = await self.rounds.ask("GET", "/v1/traffic")
        now, before = self._traffic_kept.take(said, self.rounds.living())
        return {**merging.traffic(now, before), "missing": missing}

    async def _denials(self) -> dict[str, Any]:
        said, missing = await self.rounds.ask("GET", "/v1/denials")
        now, before = self._denials_kept.take(said, self.rounds.living())
        return {**merging.denials([*now, *before]), "missing": missing}

    async def _families(self) -> list[Family]:
        said, missing = await self.rounds.ask("GET", "/v1/samples")
        answering = []
        for number, answer in said.items():
            try:
                self._totals.hear(number, samples.heard(answer["families"]), answer["rules"])
            except (KeyError, ValueError):
                missing.append(number)  # of another version, and soon to be replaced
            else:
                answering.append(number)
        own = {family.name: family for family in self._families_of_parent()}
        heard = self._totals.families(self.rounds.living(), answering)
        return [
            Family(
                Kind.GAUGE,
                "socksd_workers",
                "Worker processes, by whether they answer.",
                {("answering",): len(answering), ("silent",): len(missing)},
                ("state",),
            ),
            *(each for each in heard if each.name not in own or each.together is Together.APART),
            *own.values(),
        ]


def _not_remembered(failure: Failure) -> None:
    if not failure.check(Unable):  # which is what nobody wants to be kept
        _log.failure("what workers have counted is not remembered", failure)


def _with_parent(families: Iterable[Family]) -> Iterable[Family]:
    """Add what the parent itself takes, apart from its workers; for a thread, as process() is."""
    found: dict[str, Family] = {}
    for family in (*families, *process()):
        is_ours = family.together is Together.APART and samples.WORKER not in family.labels
        each = samples.apart(family, PARENT) if is_ours else family
        before = found.get(each.name)
        found[each.name] = each if before is None else samples.together(before, each)
    return found.values()
