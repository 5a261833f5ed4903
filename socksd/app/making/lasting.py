"""What one process has, however many configurations it lives to see."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorCore

from socksd.admin.routes import IReactorControlled, IReactorScraped, Routes
from socksd.app.reload import IReactorReloading
from socksd.app.watching import Watching
from socksd.egress.resolve import IReactorResolving
from socksd.observe.counters import RuleCounters
from socksd.observe.leaks import Leaks
from socksd.observe.log import PeopleLog
from socksd.observe.metrics import Family, Metrics
from socksd.observe.refusals import Refusals

if TYPE_CHECKING:
    from socksd.app.whole import Whole


class IReactor(
    IReactorCore, IReactorReloading, IReactorControlled, IReactorScraped, IReactorResolving
):
    """What the rooms together take of the reactor."""


class Role(Enum):
    """What a process is to the service."""

    ALONE = "all there is"
    PARENT = "listens, and answers for its workers"  # and carries nothing
    WORKER = "accepts and carries"


@dataclass(frozen=True, slots=True, eq=False)
class Lasting:
    """What outlives every configuration of a process."""

    people: PeopleLog
    counters: RuleCounters
    leaks: Leaks
    refusals: Refusals
    metrics: Metrics
    watching: Watching  # for the dashboard
    routes: Routes  # of the control socket
    measures: list[Callable[[], Iterable[Family]]]  # what a scrape asks
    role: Role = Role.ALONE
    whole: Whole | None = None  # of the parent: what metrics and dashboard show instead


def lasting(reactor: IReactor, role: Role = Role.ALONE, whole: Whole | None = None) -> Lasting:
    """Make what outlives every configuration."""
    counters = RuleCounters(time.time)
    return Lasting(
        PeopleLog(reactor),
        counters,
        Leaks(),
        Refusals(),
        Metrics(),
        Watching(reactor),
        {} if whole is None else whole.routes(),
        [],
        role,
        whole,
    )
